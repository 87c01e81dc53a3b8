"""Exports that transformers and onnxruntime read, whose imports take seconds."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from test_exporting import KINDS, VIT, made, write
from transformers import AutoImageProcessor, AutoModel, AutoVideoProcessor

from jepa_lightning import Frozen
from jepa_lightning.tokens import Latents, Query, take
from jepa_lightning.weights.exporting import export as exporting
from jepa_lightning.weights.importing import from_source
from modalities.image import Image
from modalities.video import Video


@pytest.mark.parametrize("positions", [None, "stored"])
def test_ijepa_and_back(positions, tmp_path):
    modality = Image(image_size=32, patch_size=8, encoder=partial(VIT, positions=positions, norm_eps=1e-5))
    difference, _, frozen = write(modality, "transformers", tmp_path)
    assert difference < 1e-5
    model = AutoModel.from_pretrained(tmp_path).eval()
    assert type(model).__name__ == "IJepaModel"
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        pooled = model(pixel_values=pixels).last_hidden_state.mean(1)
    torch.testing.assert_close(pooled, frozen.embed({"image": pixels}), rtol=0, atol=1e-5)
    module, config, line = from_source(tmp_path)
    torch.testing.assert_close(Frozen(module).embed({"image": pixels}), pooled, rtol=0, atol=1e-5)
    assert config["model"]["modality"]["init_args"]["encoder"]["init_args"]["norm_eps"] == 1e-5
    assert f"({'columns' if positions else 'rows'} first)" in line
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    assert processor(torch.zeros(3, 40, 64, dtype=torch.uint8), return_tensors="pt").pixel_values.shape == (
        1,
        3,
        32,
        32,
    )
    assert list(processor.image_mean) == [0.485, 0.456, 0.406]


def test_vjepa2_with_its_predictor_and_back(tmp_path):
    video = Video(frames=4, image_size=32, patch_size=8, encoder=partial(VIT, rotary="released"))
    ours, frozen = made(video, rotary="released", mask_tokens=3)
    batches = [exporting._example(frozen, count) for count in (2, 3)]
    given = {"mean": None, "std": None, "trust": ()}
    assert exporting._written(frozen, ours, "transformers", tmp_path, batches, **given)[0] < 1e-5
    model = AutoModel.from_pretrained(tmp_path).eval()
    assert type(model).__name__ == "VJEPA2Model"
    clips = torch.randn(2, 3, 4, 32, 32)
    order = torch.stack([torch.randperm(32) for _ in range(2)])
    context, target = order[:, :9].sort(1).values, order[:, 9:20].sort(1).values
    module, _, _ = from_source(tmp_path)
    with torch.no_grad():
        theirs = model(pixel_values_videos=clips.transpose(1, 2), context_mask=[context], target_mask=[target])
        for jepa in (ours, module.eval()):
            tokens = jepa.tokenizer({"video": clips})
            encoded = jepa.target.encoder(tokens)
            torch.testing.assert_close(encoded, theirs.last_hidden_state, rtol=0, atol=1e-5)
            seen = Latents(values=take(encoded, context), positions=take(tokens.positions, context))
            query = Query(positions=take(tokens.positions, target)[:, None])
            predicted = jepa.predictor(seen, replace(query, mask=1))[:, 0]
            torch.testing.assert_close(predicted, theirs.predictor_output.last_hidden_state, rtol=0, atol=1e-5)
    processor = AutoVideoProcessor.from_pretrained(tmp_path)
    pixels = processor([torch.zeros(4, 3, 40, 64, dtype=torch.uint8)], return_tensors="pt").pixel_values_videos
    assert pixels.shape == (1, 4, 3, 32, 32)


@pytest.mark.slow
def test_onnx_with_batches_of_any_size(tmp_path):
    difference, inputs, _ = write(KINDS["image"](), "onnx", tmp_path)
    assert difference < 1e-5
    assert inputs == {"image": ["B", 3, 16, 16]}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "preprocessing.json"]
