"""Attention whose sizes change is kept from kernels that are planned for each size."""

from functools import partial

import pytest
import torch

from jepa_lightning import Tokens
from jepa_lightning.encoders import SinCosPositions, TimmEncoder, TokenSpec, ViT
from jepa_lightning.scale import attention


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """Here the CPU is such a device."""
    before = torch.backends.cuda.cudnn_sdp_enabled()
    monkeypatch.setattr(attention, "_sizes", set())
    monkeypatch.setattr(attention, "DEVICES", {"cpu"})
    torch.backends.cuda.enable_cudnn_sdp(True)
    yield
    torch.backends.cuda.enable_cudnn_sdp(before)


def test_sizes_that_stay_keep_them():
    for _ in range(3):
        for size in range(attention.MANY - 1):
            attention.note_size(torch.zeros(2, size, 8))
    assert torch.backends.cuda.cudnn_sdp_enabled()


def test_sizes_that_change_do_not():
    for size in range(attention.MANY):
        assert torch.backends.cuda.cudnn_sdp_enabled()
        attention.note_size(torch.zeros(2, size, 8))
    assert not torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(True)  # as someone may ask for
    attention.note_size(torch.zeros(2, 1000, 8))
    assert torch.backends.cuda.cudnn_sdp_enabled()


def test_elsewhere_nothing_is_counted(monkeypatch):
    monkeypatch.setattr(attention, "DEVICES", {"cuda"})
    for size in range(2 * attention.MANY):
        attention.note_size(torch.zeros(2, size, 8))
    assert torch.backends.cuda.cudnn_sdp_enabled()


@pytest.mark.parametrize(
    "build",
    [
        partial(ViT, width=16, depth=1, heads=2),
        partial(TimmEncoder, name="vit_tiny_patch16_224", options={"depth": 1, "embed_dim": 16, "num_heads": 2}),
    ],
)
def test_our_transformers_and_timms_count(build, monkeypatch):
    monkeypatch.setattr(attention, "MANY", 3)
    encoder = build(TokenSpec(shape=(3, 8, 8), grid=(4, 4), positions=SinCosPositions))
    tokens = Tokens(values=torch.randn(2, 16, 3, 8, 8), positions=torch.rand(1, 16, 2), grid=(4, 4))
    for kept in (5, 5, 6):
        encoder(tokens, torch.arange(kept).expand(2, -1))
        assert torch.backends.cuda.cudnn_sdp_enabled()
    encoder(tokens, torch.arange(7).expand(2, -1))
    assert not torch.backends.cuda.cudnn_sdp_enabled()
