"""The video modality: tubelets, V-JEPA's masks, one pass of the target, pictures."""

from functools import partial

import numpy as np
import pytest
import torch

from jepa_lightning import JEPA
from jepa_lightning.encoders import TimmEncoder, ViT
from jepa_lightning.maskers import Random, Tube
from jepa_lightning.objectives import L1
from jepa_lightning.pictures.drawing import GAP
from jepa_lightning.predictors import TransformerPredictor
from jepa_lightning.pretexts.masked import ask
from modalities.video import TubeletTokenizer, Video

SMALL = {"frames": 8, "image_size": (24, 32), "tubelet": 2, "patch_size": 8}


def video(encoder=None, **settings):
    torch.manual_seed(0)
    return Video(encoder=encoder or partial(ViT, width=24, depth=2, heads=2), **{**SMALL, **settings})


def jepa(modality, **settings):
    return JEPA(
        modality, predictor=partial(TransformerPredictor, width=12, depth=1, heads=2), objective=L1(), **settings
    )


def step(module, batch):
    """What a step produces, and its loss."""
    outcome = module.step(batch, torch.Generator().manual_seed(0))
    return outcome, sum(module.losses(outcome).values())


def clips(batch=2, channels=3, **sizes):
    shape = (batch, channels, sizes.get("frames", 8), *sizes.get("image_size", (24, 32)))
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_tubelets_lie_in_raster_order_and_are_normalised():
    clip = clips()
    tokens = video(mean=[0.1, 0.2, 0.3], std=[0.5, 0.6, 0.7]).tokenizer({"video": clip})
    assert tokens.grid == (4, 3, 4)
    assert tokens.values.shape == (2, 48, 3, 2, 8, 8)
    assert tokens.positions.shape == (1, 48, 3)
    n = 0
    for t in range(4):
        for row in range(3):
            for column in range(4):
                cut = clip[:, :, 2 * t : 2 * t + 2, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8].double() / 255
                mean, std = (torch.tensor(v).double().view(3, 1, 1, 1) for v in ([0.1, 0.2, 0.3], [0.5, 0.6, 0.7]))
                assert torch.allclose(tokens.values[:, n].double(), (cut - mean) / std, atol=1e-6)
                assert tokens.positions[0, n].tolist() == [t, row, column]
                n += 1


def test_floats_are_taken_as_they_are():
    clip = torch.randn(1, 3, 8, 24, 32)
    values = video().tokenizer({"video": clip}).values
    assert torch.equal(values[0, 0], clip[0, :, :2, :8, :8])


def test_still_images_are_clips_of_one_frame():
    modality = video(frames=1, tubelet=1)
    assert modality.grid == (1, 3, 4)
    image = clips(frames=1)
    outcome, loss = step(jepa(modality), {"video": image})
    assert loss.isfinite()
    assert outcome.target[0].values.shape == (2, 12, 24)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"frames": 7}, "a clip of frames 7 is not a whole number of patches of 2: use frames 6"),
        ({"image_size": (20, 32)}, "a clip of height 20 is not a whole number of patches of 8: use image_size 16"),
        ({"mean": [0.5]}, r"mean with one value for each of 3 channels, got \[0.5\]"),
        ({"std": [0.5, 0.0, 1.0]}, "std above 0"),
    ],
)
def test_settings_that_do_not_fit(settings, message):
    with pytest.raises(ValueError, match=message):
        video(**settings)


def test_clips_of_another_shape():
    tokenizer = video().tokenizer
    assert isinstance(tokenizer, TubeletTokenizer)
    with pytest.raises(ValueError, match=r"\(channels, frames, height, width\) \(3, 8, 24, 32\), got \(3, 6, 24, 32\)"):
        tokenizer({"video": clips()[:, :, :6]})
    with pytest.raises(ValueError, match=r"needs the key 'video', this one has \['image'\]"):
        tokenizer({"image": clips()})


def test_a_frame_is_a_clip_that_stands_still():
    modality = video(frames=4)
    frames = clips(frames=1)[:, :, 0]
    still = frames.unsqueeze(2).expand(-1, -1, 4, -1, -1)
    found, expected = (modality.tokenizer({"video": x}) for x in (frames, still))
    assert torch.equal(found.values, expected.values)
    assert found.grid == expected.grid == (2, 3, 4)
    assert torch.equal(modality.raw_features({"video": frames}), modality.raw_features({"video": still}))
    with pytest.raises(ValueError, match="expected clips of"):
        modality.tokenizer({"video": frames[:, :1]})


def test_the_target_runs_once_however_many_masks_there_are():
    module = jepa(video())
    calls = []
    module.target.encoder.register_forward_hook(lambda *_: calls.append(1))
    batch = {"video": clips(batch=4)}
    tokens = module.tokenizer(batch)
    outcome, loss = step(module, batch)
    assert len(calls) == 1
    masks = module.pretext.masks(module.networks, tokens, torch.Generator().manual_seed(0))
    assert len(masks) == len(outcome.context) == 2
    target, losses = outcome.target[0].values, []
    for mask, context in zip(masks, outcome.context, strict=True):
        with torch.no_grad():
            predicted = module.predictor(context, ask(tokens, mask))
        distances = []  # plain loops: over each sample's real targets
        for b in range(4):
            for t, place in enumerate(mask.targets[b, 0]):
                if mask.targets_valid is None or mask.targets_valid[b, 0, t]:
                    distances.append(float((predicted[b, 0, t] - target[b, place]).abs().mean()))
        losses.append(np.mean(distances))
    assert float(loss.detach()) == pytest.approx(np.mean(losses), rel=1e-5)


@pytest.mark.parametrize(
    "masker", [None, Tube(Random(target_ratio=0.5)), Random(target_ratio=0.75)], ids=["vjepa", "tube", "random"]
)
@pytest.mark.parametrize("rotary", [None, "interleaved"])
def test_hidden_pixels_change_nothing(masker, rotary):
    """NaN in every tubelet that is not context leaves each context representation as it was, bit for bit."""
    module = jepa(video(partial(ViT, width=24, depth=2, heads=2, rotary=rotary), masker=masker))
    tokens = module.tokenizer({"video": clips()})
    for mask in module.masker(tokens, torch.Generator().manual_seed(0)):
        clean = module.encoder(tokens, mask.context, mask.context_valid)
        for b in range(2):
            real = mask.context[b] if mask.context_valid is None else mask.context[b][mask.context_valid[b]]
            spoiled = tokens.values[b : b + 1].clone()
            hidden = torch.ones(48, dtype=torch.bool)
            hidden[real] = False
            spoiled[0, hidden] = torch.nan
            alone = type(tokens)(values=spoiled, positions=tokens.positions, grid=tokens.grid)
            assert torch.allclose(module.encoder(alone, real[None])[0], clean[b, : len(real)], atol=1e-5)


def test_an_image_trunk_of_timm_trains_on_clips():
    encoder = partial(TimmEncoder, name="vit_tiny_patch16_224", options={"depth": 2, "embed_dim": 24, "num_heads": 2})
    module = jepa(video(encoder))
    step(module, {"video": clips()})[1].backward()
    missing = [name for name, p in module.encoder.named_parameters() if p.grad is None and "cls_token" not in name]
    assert not missing


def test_half_precision_modules_take_bytes():
    module = jepa(video()).bfloat16()
    outcome, loss = step(module, {"video": clips()})
    assert outcome.context[0].values.dtype == torch.bfloat16
    assert outcome.target[0].values.dtype == torch.float32  # the target stays so, see `precision.autocast_in_half`
    assert loss.isfinite()


def test_pictures_move():
    modality = video(channels=1)
    batch = {"video": clips(channels=1)}
    tokens = modality.tokenizer(batch)
    masks = modality.masker(tokens, torch.Generator().manual_seed(0))
    drawn = modality.draw_masks(batch, masks)
    factor = 4  # 32 pixels are enlarged to about 112
    height = 24 * factor
    assert len(drawn) == 2
    assert drawn[0].shape == (8, 3, 5 * height + 4 * GAP, 32 * factor)
    for sample in range(2):
        panels = [drawn[sample][:, :, i * (height + GAP) : i * (height + GAP) + height] for i in range(5)]
        for context, targets in ((panels[1], panels[2]), (panels[3], panels[4])):
            seen, predicted = (~(panel == 128).all(1) for panel in (context, targets))
            assert not (seen & predicted).any()
            equal = (context == panels[0]).all(1) | (targets == panels[0]).all(1)
            assert equal.all()  # every pixel is shown in one of the two
    colours = torch.rand(2, 48, 3, generator=torch.Generator().manual_seed(1))
    painted = modality.draw_features(batch, tokens, colours)[1]
    assert painted.shape == (8, 3, 2 * height + GAP, 32 * factor)
    for n, (t, row, column) in enumerate(tokens.positions[0].int().tolist()):
        box = painted[2 * t : 2 * t + 2, :, height + GAP :, :]
        box = box[:, :, row * 32 : row * 32 + 32, column * 32 : column * 32 + 32]
        assert (box == (colours[1, n] * 255).round().to(torch.uint8).view(3, 1, 1)).all()
