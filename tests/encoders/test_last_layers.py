"""The last layers of every kind of encoder, against a plain loop over the blocks."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from jepa_lightning import JEPA, Frozen
from jepa_lightning.encoders import TimmEncoder, ViT
from jepa_lightning.maskers import Random
from jepa_lightning.predictors import TransformerPredictor
from modalities.graph import Graph, GraphData
from modalities.image import Image
from modalities.pointcloud import PointCloud
from modalities.text import Text

VIT = partial(ViT, width=16, depth=3, heads=2)
TIMM = {"embed_dim": 48, "depth": 3, "num_heads": 2}
RANDOM = Random(target_ratio=0.5)
GRAPH = {"features": 4, "patches": 6, "walk": 4}


def image(encoder):
    return Image(image_size=32, patch_size=16, encoder=encoder, masker=RANDOM)


def timm(name, **options):
    return partial(TimmEncoder, name=name, options={**TIMM, **options})


def cloud(encoder):
    return PointCloud(points=32, groups=6, group_size=4, encoder=encoder)


MODALITIES = {
    "vit": (lambda: image(VIT), 0),
    "rotary": (lambda: image(partial(VIT, rotary="interleaved")), 0),
    "timm vit": (lambda: image(timm("vit_tiny_patch16_224")), 1),
    "timm registers": (lambda: image(timm("vit_tiny_patch16_224", reg_tokens=2)), 3),
    "timm eva": (lambda: image(timm("eva02_tiny_patch14_224")), 1),
    "timm naflex": (lambda: image(timm("naflexvit_base_patch16_gap")), None),
    "pointcloud": (lambda: cloud(VIT), 0),
    "every layer": (lambda: cloud(partial(VIT, positions_at="every_layer")), 0),
    "graph": (lambda: Graph(**GRAPH, encoder=VIT), 0),
    "text": (lambda: Text(vocabulary=256, encoder=VIT), 0),
}


def frozen(name):
    torch.manual_seed(0)
    found = Frozen(JEPA(MODALITIES[name][0](), predictor=partial(TransformerPredictor, width=16, depth=1, heads=2)))
    for parameter in found.encoder.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))  # at the start the blocks of some do next to nothing
    return found


def batch_of(encoder):
    generator = torch.Generator().manual_seed(1)
    if encoder.modality.name == "graph":
        data = GraphData(samples=16, **GRAPH, edge_features=0, hops=1, batch_size=2, num_workers=0)
        return next(iter(data.train_dataloader()))
    if encoder.modality.name == "text":
        return {"text": ["A cat sat on the mat.", "Why?"]}
    if encoder.modality.name == "pointcloud":
        return {"points": torch.randn(2, 32, 3, generator=generator)}
    return {"image": torch.randn(2, 3, 32, 32, generator=generator)}


@pytest.mark.parametrize("name", MODALITIES)
def test_the_layers_are_a_plain_loop_over_the_blocks(name, monkeypatch):
    encoder, prefix = frozen(name), MODALITIES[name][1]
    batch = batch_of(encoder)
    features, valid = encoder.tokens(batch)
    width = features.shape[2]
    outputs = []
    for block in encoder.encoder.layers:
        original = block.forward

        def kept(*given, original=original, **more):
            outputs.append(original(*given, **more))
            return outputs[-1]

        monkeypatch.setattr(block, "forward", kept)
    encoder.tokens(batch)
    plain = list(outputs)
    assert len(plain) == 3
    if prefix is not None:
        assert plain[0].shape[1] == features.shape[1] + prefix
    expected = []
    for x in plain[:-1]:
        x = torch.stack([row[len(row) - features.shape[1] :] for row in x])
        assert torch.allclose(
            F.layer_norm(x, (width,)),
            (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt(),
            atol=1e-5,
        )
        expected.append(F.layer_norm(x, (width,)))
    expected.append(features)
    for layers in (1, 2, 3):
        found, real = encoder.tokens(batch, layers=layers)
        assert found.shape == (*features.shape[:2], layers * width)
        assert (real is None) == (valid is None)
        for part, wanted in zip(found.split(width, dim=-1), expected[-layers:], strict=True):
            assert torch.equal(part, wanted)
        pooled = encoder.embed(batch, layers=layers)
        by_layer = []
        masks = torch.ones(features.shape[:2], dtype=torch.bool) if valid is None else valid
        for wanted in expected[-layers:]:
            by_layer.append(torch.stack([row[mask].mean(0) for row, mask in zip(wanted, masks, strict=True)]))
        assert torch.allclose(pooled, torch.cat(by_layer, dim=1), atol=1e-5)
    assert not torch.allclose(expected[0], F.layer_norm(features, (width,)), atol=1e-2)


@pytest.mark.parametrize("layers", [0, 4])
def test_more_layers_than_blocks_are_refused(layers):
    encoder = frozen("vit")
    with pytest.raises(ValueError, match=f"expected from 1 to 3 layers, as many as the encoder has, got {layers}"):
        encoder.embed(batch_of(encoder), layers=layers)


def test_an_encoder_that_gives_its_last_layer_alone():
    class Last(ViT):
        def forward(self, tokens, keep=None, keep_valid=None):
            return super().forward(tokens, keep, keep_valid)

    encoder = Frozen(
        JEPA(
            image(partial(Last, width=16, depth=3, heads=2)),
            predictor=partial(TransformerPredictor, width=16, depth=1, heads=2),
        )
    )
    assert encoder.embed(batch_of(encoder)).shape == (2, 16)
    with pytest.raises(ValueError, match="forward takes `layers`, got Last, which returns the output of its last"):
        encoder.embed(batch_of(encoder), layers=2)
