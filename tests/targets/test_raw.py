"""Raw tokens as targets: masked autoencoding."""

from functools import partial

import pytest
import torch

from jepa_lightning.encoders import TokenSpec
from jepa_lightning.maskers import Random
from jepa_lightning.objectives import MSE
from jepa_lightning.pretexts import Masked
from jepa_lightning.targets import RawTokens
from jepa_lightning.tokens import take

IMAGES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("sees", ["all", "targets"])
@pytest.mark.parametrize("norm", [False, True])
def test_the_loss_is_maes(make_jepa, sees, norm):
    """The mean over hidden patches of the mean squared error of their pixels, normalised or not, in plain loops."""
    jepa = make_jepa(
        target=RawTokens, objective=MSE(), pretext=Masked(target_sees=sees, norm_targets=norm), masker=Random
    )
    outcome = jepa.step({"image": IMAGES}, torch.Generator().manual_seed(1))
    (mask,) = jepa.masker(jepa.tokenizer({"image": IMAGES}), torch.Generator().manual_seed(1))
    predicted = outcome.predictions[0].predicted.detach()
    assert predicted.shape == (4, 2, 4, 192)
    total, count = 0.0, 0
    for b in range(4):
        for m, block in enumerate(mask.targets[b]):
            for t, place in enumerate(block.tolist()):
                row, column = divmod(place, 4)
                patch = IMAGES[b, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8].flatten().double()
                if norm:
                    patch = (patch - patch.mean()) / (patch.var(correction=0) + 1e-5).sqrt()
                total += float((predicted[b, m, t].double() - patch).square().mean())
                count += 1
    assert float(jepa.losses(outcome)["prediction"]) == pytest.approx(total / count, rel=1e-5)


def test_the_encoder_and_the_decoder_are_trained_and_nothing_else_is_there(make_jepa):
    jepa = make_jepa(target=RawTokens, objective=MSE())
    loss = jepa.losses(jepa.step({"image": IMAGES}, torch.Generator().manual_seed(1)))["prediction"]
    loss.backward()
    assert all(p.grad is not None for p in (*jepa.encoder.parameters(), *jepa.predictor.parameters()))
    assert jepa.evaluated_encoder is jepa.encoder
    assert not jepa.target.state_dict()


def test_kept_tokens():
    spec = TokenSpec(shape=(3, 2), grid=None, positions=torch.nn.Identity)
    from jepa_lightning.tokens import Tokens

    tokens = Tokens(values=torch.randn(2, 5, 3, 2), positions=torch.zeros(1, 5, 1))
    target = RawTokens(torch.nn.Identity(), spec)
    keep = torch.tensor([[0, 4], [2, 1]])
    assert torch.equal(target(tokens, keep), take(tokens.values.flatten(2), keep))


def test_what_has_no_raw_tokens_or_layers_is_refused(make_jepa):
    spec = TokenSpec(shape=(3, 2), grid=None, positions=torch.nn.Identity, embed=partial(torch.nn.Linear, 6))
    with pytest.raises(ValueError, match="an embedding of their own: use EMA"):
        RawTokens(torch.nn.Identity(), spec)
    jepa = make_jepa(target=RawTokens)
    with pytest.raises(ValueError, match="raw tokens have no layers"):
        jepa.target(jepa.tokenizer({"image": IMAGES}), layers=(0,))
