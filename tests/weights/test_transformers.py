"""transformers' I-JEPA and V-JEPA 2 into ours: the same numbers in float64."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from transformers import IJepaConfig, IJepaForImageClassification, IJepaModel, VJEPA2Config, VJEPA2Model

from jepa_lightning.encoders import ViT
from jepa_lightning.predictors import PredictorSpec, TransformerPredictor
from jepa_lightning.tokens import Latents, Query, take
from jepa_lightning.weights.formats.sources import read_weights
from jepa_lightning.weights.formats.tables import published
from modalities.image import Image
from modalities.video import Video

CLOSE = {"rtol": 0, "atol": 1e-12}


def disturb(model):
    """Away from the initial weights, under which attention hardly matters."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "position" in name:
                continue
            if weight.ndim == 1:
                weight.copy_(0.1 * torch.randn_like(weight) + ("norm" in name and name.endswith("weight")))
            else:
                weight.copy_(torch.randn_like(weight) / math.sqrt(weight[0].numel()))
    return model.eval()


def make_ijepa(kind=IJepaModel, *, width=32, depth=2, heads=4, image=32, patch=8, learned=False, **settings):
    config = IJepaConfig(
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        intermediate_size=2 * width,
        image_size=image,
        patch_size=patch,
        **settings,
    )
    model = disturb(kind(config))
    if not learned:
        base = getattr(model, "ijepa", model)
        base.embeddings.position_embeddings.data.copy_(published((image // patch,) * 2, width)[None])
    return model


def make_vjepa2(*, width=48, depth=2, heads=2, frames=4, size=32, patch=8, asked=(24, 2, 2)):
    config = VJEPA2Config(
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        mlp_ratio=2.0,
        frames_per_clip=frames,
        crop_size=size,
        patch_size=patch,
        pred_hidden_size=asked[0],
        pred_num_hidden_layers=asked[1],
        pred_num_attention_heads=asked[2],
        pred_mlp_ratio=2.0,
    )
    return disturb(VJEPA2Model(config))


def our_image(folder, *, width=32, depth=2, heads=4, image=32, patch=8, **settings):
    sizes = {"width": width, "depth": depth, "heads": heads, "mlp_ratio": 2.0, "positions": "stored"}
    build = partial(ViT, **{**sizes, **settings}, weights=str(folder))
    return Image(image_size=image, patch_size=patch, encoder=build)


def our_video(folder, *, width=48, depth=2, heads=2, frames=4, size=32, patch=8, asked=(24, 2, 2), form="released"):
    sizes = {"width": width, "depth": depth, "heads": heads, "mlp_ratio": 2.0, "rotary": form}
    video = Video(frames=frames, image_size=size, patch_size=patch, encoder=partial(ViT, **sizes, weights=str(folder)))
    predictor = TransformerPredictor(
        PredictorSpec(dim=width, out=width, token=video.spec),
        width=asked[0],
        depth=asked[1],
        heads=asked[2],
        mlp_ratio=2.0,
        rotary=form,
        mask_tokens=10,
        weights=str(folder),
    )
    return video, predictor


def compare_ijepa(model, ours, pixels):
    with torch.no_grad():
        want = model.double()(pixel_values=pixels).last_hidden_state
        found = ours.encoder.double().eval()(ours.tokenizer({"image": pixels}))
    return found, want


def compare_vjepa2(model, video, predictor, clips, masks):
    """Encoder and predictor for each pair of context and target indices: ours, theirs, ours, theirs, ..."""
    model.double(), video.encoder.double().eval(), predictor.double().eval()
    tokens = video.tokenizer({"video": clips.transpose(1, 2)})
    tokens = replace(tokens, positions=tokens.positions.double())
    with torch.no_grad():
        encoded = video.encoder(tokens)
        for context, target in masks:
            theirs = model(pixel_values_videos=clips, context_mask=[context], target_mask=[target])
            yield encoded, theirs.last_hidden_state
            seen = Latents(values=take(encoded, context), positions=take(tokens.positions, context))
            query = Query(
                positions=take(tokens.positions, target)[:, None], mask=1
            )  # the token that transformers takes
            yield predictor(seen, query)[:, 0], theirs.predictor_output.last_hidden_state


def two_masks(count):
    """Part of the tokens from another part, and all from all: transformers' two cases."""
    order = torch.stack([torch.randperm(count) for _ in range(2)])
    everything = torch.arange(count).expand(2, count)
    return [(order[:, :9].sort(1).values, order[:, 9:20].sort(1).values), (everything, everything)]


@pytest.mark.parametrize("learned", [False, True], ids=["sincos", "learned"])
def test_ijepa(tmp_path, learned):
    torch.manual_seed(0)
    model = make_ijepa(learned=learned)
    model.save_pretrained(tmp_path)
    ours = our_image(tmp_path, norm_eps=1e-12)
    torch.testing.assert_close(*compare_ijepa(model, ours, torch.randn(2, 3, 32, 32).double()), **CLOSE)


def test_ijepa_with_a_head_and_with_the_names_of_files_on_the_hub(tmp_path):
    torch.manual_seed(0)
    model = make_ijepa(IJepaForImageClassification, layer_norm_eps=1e-6, num_labels=3)
    model.save_pretrained(tmp_path)
    weights = read_weights(tmp_path)
    assert sorted(weights.left_out) == ["classifier.bias", "classifier.weight"]
    from safetensors.torch import load_file, save_file

    from jepa_lightning.weights.formats.hugging_face import write_ijepa

    written = {key: value.contiguous() for key, value in write_ijepa(weights.encoder).items()}
    saved = load_file(tmp_path / "model.safetensors")
    save_file(written, tmp_path / "model.safetensors")
    assert "encoder.layer.0.attention.attention.query.weight" in written
    pixels = torch.randn(2, 3, 32, 32).double()
    torch.testing.assert_close(*compare_ijepa(model.ijepa, our_image(tmp_path), pixels), **CLOSE)
    again = read_weights(tmp_path).encoder
    assert all(torch.equal(again[key], value) for key, value in weights.encoder.items())
    assert len(saved) == len(written) + 2


def test_vjepa2_and_its_predictor_in_both_cases_of_masks(tmp_path):
    torch.manual_seed(0)
    model = make_vjepa2()
    model.save_pretrained(tmp_path)
    video, predictor = our_video(tmp_path)
    clips = torch.randn(2, 4, 3, 32, 32).double()
    for found, want in compare_vjepa2(model, video, predictor, clips, two_masks(32)):
        torch.testing.assert_close(found, want, **CLOSE)


def test_the_wrong_form_is_refused(tmp_path):
    torch.manual_seed(0)
    make_vjepa2().save_pretrained(tmp_path / "v")
    with pytest.raises(ValueError, match="trained with rotary: released, the model has interleaved: set rotary"):
        our_video(tmp_path / "v", form="interleaved")
    with pytest.raises(ValueError, match="trained with heads: 2, the model has 4: set heads"):
        our_video(tmp_path / "v", heads=4)
    make_ijepa().save_pretrained(tmp_path / "i")
    with pytest.raises(ValueError, match="trained with norm_eps: 1e-12, the model has 1e-06: set norm_eps"):
        our_image(tmp_path / "i")
    with pytest.raises(ValueError, match=r"columns first\) that are not those the model computes"):
        our_image(tmp_path / "i", norm_eps=1e-12, positions=None)


@pytest.mark.slow
def test_true_size():
    """ViT-L in float32: the layouts and sizes of facebook/vjepa2-vitl-fpc64-256, on 8 frames of 128 px."""
    import tempfile

    torch.manual_seed(0)
    sizes = {"width": 1024, "depth": 24, "heads": 16}
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        model = make_ijepa(**sizes, image=224, patch=16, layer_norm_eps=1e-6)
        model.save_pretrained(folder)
        ours = our_image(folder, **sizes, image=224, patch=16)
        pixels = torch.randn(1, 3, 224, 224)
        found = ours.encoder.eval()(ours.tokenizer({"image": pixels}))
        torch.testing.assert_close(found, model(pixel_values=pixels).last_hidden_state, rtol=0, atol=1e-4)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        model = make_vjepa2(**sizes, frames=8, size=128, patch=16, asked=(384, 12, 12))
        model.save_pretrained(folder)
        video, _ = our_video(folder, **sizes, frames=8, size=128, patch=16, asked=(384, 12, 12))
        clips = torch.randn(1, 8, 3, 128, 128)
        found = video.encoder.eval()(video.tokenizer({"video": clips.transpose(1, 2)}))
        torch.testing.assert_close(found, model(pixel_values_videos=clips).last_hidden_state, rtol=0, atol=1e-4)
