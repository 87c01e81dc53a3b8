"""Parts of a JEPA that differ from the usual ones, shared by tests."""

import torch.nn.functional as F

from jepa_lightning.maskers import Random
from jepa_lightning.pretexts import Outcome, Prediction, Pretext
from jepa_lightning.tokens import Latents


class TwoMasks(Random):
    """Two masks of a sample, one after the other."""

    def __call__(self, tokens, generator):
        return super().__call__(tokens, generator) + super().__call__(tokens, generator)


class TwoViews(Pretext):
    """A pretext that hides nothing: two halves of a sample's tokens say the same. It has no use for a predictor."""

    def forward(self, nets, batch, generator):
        tokens = nets.modality.tokenizer(batch)
        halves = nets.modality.masker(tokens, generator)[0].context.chunk(2, dim=1)
        views = [Latents(values=nets.encoder(tokens, half.contiguous())) for half in halves]
        one, other = (view.values.mean(1)[:, None, None] for view in views)
        seen = F.layer_norm(nets.target(tokens), (nets.target.dim,))
        target = [Latents(values=seen, valid=tokens.valid)]
        return Outcome(predictions=[Prediction(predicted=one, target=other)], context=views, target=target)
