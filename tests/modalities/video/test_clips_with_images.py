"""Images beside clips in the video modality: tokens, their two embeddings, steps, pictures, refusals."""

from functools import partial

import pytest
import torch

from jepa_lightning import JEPA
from jepa_lightning.encoders import TimmEncoder, ViT
from jepa_lightning.maskers import BlockUnion, MultiMasker
from jepa_lightning.objectives import L1
from jepa_lightning.optimization import decays
from jepa_lightning.predictors import TransformerPredictor
from jepa_lightning.pretexts import Dense, Masked
from jepa_lightning.pretexts.contract import ContractError, check_tokens
from modalities.video import ClipImageEmbedding, Video

SHAPE = (3, 2, 8, 8)


def video(**settings):
    torch.manual_seed(0)
    blocks = [BlockUnion(blocks=n, scale=(s, s), fixed_size=True) for n, s in ((4, 0.15), (2, 0.4))]
    encoder = partial(ViT, width=24, depth=2, heads=2)
    defaults = {"frames": 4, "image_size": (32, 40), "tubelet": 2, "patch_size": 8, "images": True}
    return Video(**{**defaults, "encoder": encoder, "masker": MultiMasker(maskers=blocks), **settings})


def jepa(pretext=None, **settings):
    modality = video(**settings)
    predictor = partial(TransformerPredictor, width=12, depth=1, heads=2)
    return JEPA(modality, pretext=pretext, predictor=predictor, objective=L1())


def bytes_of(*shape):
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


BATCHES = {"video": bytes_of(2, 3, 4, 32, 40), "image": bytes_of(3, 3, 32, 40)}
OTHER = {"video": "image", "image": "clip"}
OWN = {"video": "clip", "image": "image"}


def test_an_image_is_cut_into_patches_at_time_zero():
    images, mean, std = BATCHES["image"], [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]
    tokens = video(mean=mean, std=std).tokenizer({"image": images})
    assert tokens.grid == (1, 4, 5)
    assert tokens.values.shape == (3, 20, 3, 1, 8, 8)
    for row in range(4):
        for column in range(5):
            n = 5 * row + column
            assert tokens.positions[0, n].tolist() == [0, row, column]
            for c in range(3):
                cut = images[:, c, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8].double() / 255
                torch.testing.assert_close(
                    tokens.values[:, n, c, 0].double(), (cut - mean[c]) / std[c], atol=1e-6, rtol=0
                )


def test_images_have_the_values_and_places_of_a_still_clips_first_frames():
    modality, images = video(), BATCHES["image"]
    still = modality.tokenizer({"video": images[:, :, None].expand(-1, -1, 4, -1, -1)})
    tokens = modality.tokenizer({"image": images})
    for frame in (0, 1):
        assert torch.equal(still.values[:, :20, :, frame], tokens.values[:, :, :, 0])
    assert torch.equal(still.positions[:, :20], tokens.positions)
    floats = modality.tokenizer({"image": images.float()})
    assert torch.equal(floats.values[0, 0, :, 0], images[0, :, :8, :8].float())  # taken as they are


def test_the_same_vectors_of_an_image_and_a_still_clip_where_the_maps_agree():
    """The image's map spread over the frames of a tubelet, and one vector for both."""
    modality, images = video(), BATCHES["image"]
    embed = modality.encoder.embed
    with torch.no_grad():
        kernel = embed.image.weight.unflatten(1, (3, 1, 8, 8))
        embed.clip.weight.copy_((kernel.expand(-1, -1, 2, -1, -1) / 2).flatten(1))
        embed.clip_token.copy_(embed.image_token)
    still = modality.tokenizer({"video": images[:, :, None].expand(-1, -1, 4, -1, -1)})
    first = torch.arange(20).expand(3, -1)
    torch.testing.assert_close(
        modality.encoder(still, first), modality.encoder(modality.tokenizer({"image": images})), atol=1e-5, rtol=0
    )
    with torch.no_grad():
        embed.image_token += torch.linspace(-1, 1, 24)  # the vector alone tells them apart
    moved = modality.encoder(modality.tokenizer({"image": images}))
    assert (modality.encoder(still, first) - moved).abs().max() > 0.05


@pytest.mark.parametrize("kind", ["clip", "image"])
def test_each_kind_is_its_own_map_and_vector(kind):
    """Against plain loops in float64."""
    torch.manual_seed(0)
    embed = ClipImageEmbedding(5, shape=SHAPE).double()
    weights = {name: value.detach() for name, value in embed.named_parameters()}
    assert all(value.abs().max() > 0 for name, value in weights.items() if not name.endswith("bias"))
    for value in weights.values():
        value.normal_()
    values = torch.randn(2, 3, 3, 2 if kind == "clip" else 1, 8, 8, dtype=torch.float64)
    found = embed(values).detach()
    for sample in range(2):
        for token in range(3):
            flat = values[sample, token].reshape(-1).tolist()
            for d in range(5):
                expected = float(weights[f"{kind}.bias"][d]) + float(weights[f"{kind}_token"][d])
                expected += sum(w * v for w, v in zip(weights[f"{kind}.weight"][d].tolist(), flat, strict=True))
                assert float(found[sample, token, d]) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("key", BATCHES)
def test_gradients_go_to_the_own_embedding_and_are_zero_in_the_other(key):
    module = jepa()
    module.encoder.zero_grad()
    outcome = module.step({key: BATCHES[key]}, torch.Generator().manual_seed(0))
    sum(module.losses(outcome).values()).backward()
    embed = module.encoder.embed
    for name, value in embed.named_parameters():
        assert value.grad is not None, name
        assert bool(value.grad.any()) == name.startswith(OWN[key]), name
    assert any(name.startswith(OTHER[key]) for name, _ in embed.named_parameters())
    decaying = {name for name in decays(module) if name.startswith("encoder.embed")}
    assert decaying == {"encoder.embed.clip.weight", "encoder.embed.image.weight"}


@pytest.mark.parametrize("key", BATCHES)
@pytest.mark.parametrize("pretext", [Masked, partial(Masked, one_call=True), partial(Dense, layers=[0, 1])])
@pytest.mark.parametrize("rotary", [None, "interleaved"])
def test_a_step_of_either_kind(key, pretext, rotary):
    module = jepa(pretext(), encoder=partial(ViT, width=24, depth=2, heads=2, rotary=rotary))
    outcome = module.step({key: BATCHES[key]}, torch.Generator().manual_seed(0))
    losses = module.losses(outcome)
    assert all(torch.isfinite(loss) for loss in losses.values())
    again = module.step({key: BATCHES[key]}, torch.Generator().manual_seed(7))
    for one, other in zip(outcome.predictions, again.predictions, strict=True):  # masks of a fixed size
        assert one.predicted.shape == other.predicted.shape
    assert outcome.target[0].values.shape[1] == (20 if key == "image" else 40)


@pytest.mark.parametrize("key", BATCHES)
def test_half_precision(key):
    module = jepa()
    with torch.autocast("cpu", torch.bfloat16):
        outcome = module.step({key: BATCHES[key]}, torch.Generator().manual_seed(0))
    loss = sum(module.losses(outcome).values())
    loss.backward()
    assert torch.isfinite(loss)
    embed = ClipImageEmbedding(8, shape=SHAPE).bfloat16()
    assert embed(torch.randn(1, 2, 3, 1, 8, 8)).dtype == torch.bfloat16


def test_without_images_nothing_has_changed():
    modality = video(images=False)
    assert isinstance(modality.encoder.embed, torch.nn.Linear)
    assert modality.spec.other_shapes == ()
    with pytest.raises(ValueError, match=r"needs the key 'video', this one has \['image'\]"):
        modality.tokenizer({"image": BATCHES["image"]})


def test_the_first_batch_may_be_of_either_kind():
    modality = video()
    for key, batch in BATCHES.items():
        check_tokens(modality.tokenizer({key: batch}), modality.spec, modality.tokenizer)
    with pytest.raises(ContractError, match=r"as the modality's spec.shape says"):
        check_tokens(modality.tokenizer({"image": BATCHES["image"]}), video(images=False).spec, modality.tokenizer)


def test_pictures_and_raw_features_of_images():
    module, batch = jepa(), {"image": BATCHES["image"]}
    modality = module.modality
    tokens = modality.tokenizer(batch)
    masks = modality.masker(tokens, torch.Generator().manual_seed(0))
    assert torch.equal(modality.raw_features(batch), BATCHES["image"].float().flatten(1))
    drawn = [modality.draw_samples(batch), modality.draw_masks(batch, masks)]
    drawn.append(modality.draw_features(batch, tokens, torch.rand(3, 20, 3)))
    for pictures in drawn:
        assert len(pictures) == 3
        assert all(picture.shape[:2] == (1, 3) for picture in pictures)


def test_refusals():
    with pytest.raises(ValueError, match=r"tubelets of at least 2 frames beside images, got 1"):
        video(tubelet=1)
    with pytest.raises(ValueError, match=r"uses TokenSpec.embed for clips and images, got TimmEncoder"):
        video(encoder=partial(TimmEncoder, name="vit_tiny_patch16_224", options={"depth": 1}), image_size=32)
    modality = video()
    with pytest.raises(ValueError, match=r"images of \(channels, height, width\) \(3, 32, 40\).* got \(3, 32, 32\)"):
        modality.tokenizer({"image": torch.zeros(1, 3, 32, 32)})
    with pytest.raises(ValueError, match="needs the key 'video', or 'image', this one has"):
        modality.tokenizer({"text": []})
    with pytest.raises(ValueError, match=r"\(clips\) or \(3, 1, 8, 8\) \(images\), got \(3, 4, 8, 8\)"):
        ClipImageEmbedding(8, shape=SHAPE)(torch.zeros(1, 1, 3, 4, 8, 8))
