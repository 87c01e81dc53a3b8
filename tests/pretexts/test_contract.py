"""A part of one's own that breaks its contract is told so in a line, on the first batch."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer

from jepa_lightning import JEPA, Masks, Tokenizer
from jepa_lightning.encoders import ViT
from jepa_lightning.maskers import Masker, Random
from jepa_lightning.predictors import TransformerPredictor
from jepa_lightning.pretexts import Networks
from jepa_lightning.pretexts.contract import ContractError, check_masks, check_tokens
from jepa_lightning.tokens import Tokens, take
from modalities.image import Image, ImageData

ENCODER = partial(ViT, width=16, depth=1, heads=2)
PREDICTOR = partial(TransformerPredictor, width=8, depth=1, heads=2)


class Changed(Tokenizer):
    """A tokenizer whose output is changed."""

    def __init__(self, tokenizer, change):
        super().__init__()
        self.tokenizer, self.change = tokenizer, change

    def forward(self, batch):
        return self.change(self.tokenizer(batch))


class ChangedMasks(Masker):
    """A masker whose masks are changed."""

    def __init__(self, change):
        self.change = change

    def __call__(self, tokens, generator):
        return self.change(Random(target_ratio=0.3, context_ratio=0.3)(tokens, generator))


class Narrow(ViT):
    """An encoder that drops a column, and says nothing of it."""

    def forward(self, *args, **kwargs):
        return super().forward(*args, **kwargs)[..., :-1]


class WithoutBlocks(TransformerPredictor):
    """A predictor that forgets the axis of blocks."""

    def forward(self, *args, **kwargs):
        return super().forward(*args, **kwargs).flatten(1, 2)


def fit(*, tokens=None, masks=None, encoder=ENCODER, predictor=PREDICTOR):
    modality = Image(image_size=32, patch_size=8, encoder=encoder, masker=ChangedMasks(masks or (lambda m: m)))
    if tokens is not None:
        modality.tokenizer = Changed(modality.tokenizer, tokens)
    module = JEPA(modality, predictor=predictor)
    trainer = Trainer(
        max_steps=1,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(module, datamodule=ImageData(samples=32, batch_size=4, num_workers=0))
    return module


def one(change):
    """Change the only Masks of a list."""
    return lambda masks: [change(masks[0])]


@pytest.mark.parametrize(
    ("tokens", "says"),
    [
        (lambda t: t.values, "Changed (tokenizer): expected Tokens, got Tensor"),
        (lambda t: replace(t, positions=t.positions[0]), "float positions (B or 1, N, P), got (16, 2) float32"),
        (lambda t: replace(t, positions=t.positions[:, :-1]), "of the same tokens"),
        (lambda t: replace(t, values=t.values[..., :-1]), "values (B, N, 3, 8, 8), as the modality's spec.shape"),
        (lambda t: replace(t, grid=(3, 5)), "expected a grid of 16 tokens, got (3, 5)"),
        (lambda t: replace(t, valid=torch.ones(4, 16)), "expected valid (4, 16) of bool, got (4, 16) float32"),
    ],
)  # fmt: skip
def test_tokenizers(tokens, says):
    with pytest.raises(ContractError) as error:
        fit(tokens=tokens)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("masks", "says"),
    [
        (lambda m: m[0], "ChangedMasks (masker): expected a list of Masks, got Masks"),
        (lambda m: [(m[0].context, m[0].targets)], "expected a list of Masks, got list of tuple"),
        (lambda m: [], "expected a list of Masks, got list"),
        (one(lambda m: replace(m, targets=m.targets[:, 0])), "expected targets (B, M, T) int64 with B = 4, got (4, 5)"),
        (one(lambda m: replace(m, context=m.context[:2])), "expected context (B, K) int64 with B = 4, got (2, "),
        (one(lambda m: replace(m, context=m.context.int())), "int32"),
        (one(lambda m: replace(m, context=m.context + 16)), "expected context from 0 to 15, since there are 16 tokens"),
        (one(lambda m: replace(m, targets=m.targets - 16)), "expected targets from 0 to 15"),
        (one(lambda m: replace(m, context=m.context[:, [0, 0, 1]])), "tokens of a sample to be distinct"),
        (one(lambda m: replace(m, targets=m.context[:, None])), "expected no token in both context and targets"),
        (one(lambda m: replace(m, targets_valid=torch.ones(4, 1, 1).bool())), "expected targets_valid"),
    ],
)  # fmt: skip
def test_maskers(masks, says):
    with pytest.raises(ContractError) as error:
        fit(masks=masks)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_encoders_and_predictors():
    with pytest.raises(ContractError, match=r"Narrow \(encoder\): expected \(4, \d+, 16\).*got \(4, \d+, 15\)"):
        fit(encoder=partial(Narrow, width=16, depth=1, heads=2))
    with pytest.raises(ContractError, match=r"WithoutBlocks \(predictor\): expected \(4, 1, 5, 16\).*got \(4, 5, 16\)"):
        fit(predictor=partial(WithoutBlocks, width=8, depth=1, heads=2))


def test_parts_are_checked_once():
    """No later step reads from the device, and no hook is left."""
    module = fit()
    assert not any(part._forward_hooks for part in (module.tokenizer, module.encoder, module.predictor))
    wrong = ChangedMasks(one(lambda m: replace(m, targets=m.context[:, None])))
    nets = Networks(module.modality, module.encoder, module.target, module.predictor)
    nets.modality.masker = wrong
    tokens = module.tokenizer({"image": torch.randn(4, 3, 32, 32)})
    assert module.pretext.masks(nets, tokens, torch.Generator().manual_seed(0))  # as it is


def test_filler_may_hold_anything_within_range():
    tokens = Tokens(values=torch.zeros(1, 4, 3), positions=torch.zeros(1, 4, 1))
    mask = Masks(
        context=torch.tensor([[0, 0, 0]]),
        targets=torch.tensor([[[1, 0]]]),
        context_valid=torch.tensor([[True, False, False]]),
        targets_valid=torch.tensor([[[True, False]]]),
    )
    check_masks([mask], tokens, "masker")


def test_every_tokenizer_of_ours_keeps_its_contract():
    modality = Image(image_size=32, patch_size=8, encoder=ENCODER)
    check_tokens(modality.tokenizer({"image": torch.randn(2, 3, 32, 32)}), modality.spec, modality.tokenizer)


@pytest.mark.parametrize("index", [4, -1, 7])
def test_no_index_reads_the_token_of_another_sample(index):
    values = torch.arange(8.0).view(2, 4)
    inside = torch.tensor([[0, 1], [2, 3]])
    assert take(values, inside).tolist() == [[0.0, 1.0], [6.0, 7.0]]
    for row in range(2):
        wrong = inside.clone()
        wrong[row, 0] = index
        with pytest.raises(IndexError):
            take(values, wrong)
