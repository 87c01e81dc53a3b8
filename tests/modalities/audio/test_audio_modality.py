"""The audio modality as a whole: a training step with short clips, and what is said where torchaudio is missing."""

from functools import partial

import pytest
import torch
from processes import fresh

from jepa_lightning import JEPA
from jepa_lightning.encoders import ConvEncoder, ViT
from jepa_lightning.maskers import BlockUnion, MultiBlock, Random, TimeSpans
from jepa_lightning.predictors import TransformerPredictor
from modalities.audio import Audio

MASKERS = {
    "random": Random(),
    "spans": TimeSpans(spans=2),
    "separate": TimeSpans(spans=3, separate=True),
    "union": BlockUnion(blocks=3),
    "blocks": MultiBlock(min_context=2),
    "fixed": MultiBlock(min_context=2, fixed_size=True),
}


def make_jepa(**settings):
    torch.manual_seed(0)
    audio = Audio(
        sample_rate=8000,
        seconds=1.0,
        mels=32,
        patch_size=8,
        mean=-4.0,
        std=3.0,
        encoder=partial(ViT, width=32, depth=2, heads=2),
        **settings,
    )
    return JEPA(audio, predictor=partial(TransformerPredictor, width=16, depth=1, heads=2))


def test_what_it_says_of_itself():
    audio = Audio(encoder=partial(ViT, width=32, depth=1, heads=2))
    assert audio.name == "audio"
    assert (audio.sample_rate, audio.seconds, audio.samples) == (16000, 2.0, 32000)
    assert audio.grid == audio.spec.grid == (8, 12)
    assert audio.spec.shape == (1, 16, 16)
    assert isinstance(audio.masker, Random)
    assert audio.masker.target_ratio == 0.6
    assert audio.tokenizer.needs_statistics


@pytest.mark.parametrize("seconds", [0.5, 1.003])
def test_a_whole_clip_is_one_patch(seconds):
    torch.manual_seed(0)
    audio = Audio(
        sample_rate=8000, seconds=seconds, mels=32, patch_size=None, encoder=partial(ConvEncoder, dim=24, width=4)
    )
    batch = audio.example(2, torch.Generator().manual_seed(0)) | {"length": torch.tensor([audio.samples, 900])}
    tokens = audio.tokenizer(batch)
    assert tokens.values.shape == (2, 1, 1, 32, audio.tokenizer.frames)
    assert torch.equal(tokens.values[:, 0, 0], audio.tokenizer.spectrogram(batch))
    assert tokens.valid.all()
    assert audio.encoder(tokens).shape == (2, 1, 24)


def test_a_clip_of_nothing():
    with pytest.raises(ValueError, match="seconds must hold at least 1 sample"):
        Audio(seconds=0.0)


@pytest.mark.parametrize("name", MASKERS)
def test_loss_and_gradients_do_not_depend_on_what_is_padding(name):
    """With any masker: finite, and what stands behind the clips has no influence."""
    jepa = make_jepa(masker=MASKERS[name])
    waveform = 0.1 * torch.randn(6, 8000, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([8000, 5000, 2500, 1300, 640, 1])
    silent = waveform.masked_fill(torch.arange(8000) >= lengths[:, None], 0)
    # Of a patch that holds the clip's end, the rest is silence; what follows that patch is anything.
    ends = (lengths + 639) // 640 * 640 + 200  # and 200: a window reaches over the patch's end
    loud = torch.where(torch.arange(8000) >= ends[:, None], 10 * waveform, silent)
    losses, gradients = [], []
    for wave in (silent, loud):
        jepa.zero_grad()
        outcome = jepa.step({"waveform": wave, "length": lengths}, torch.Generator().manual_seed(1))
        loss = sum(jepa.losses(outcome).values())
        loss.backward()
        losses.append(float(loss.detach()))
        gradients.append(torch.cat([p.grad.flatten() for p in jepa.parameters() if p.grad is not None]))
    assert torch.isfinite(gradients[0]).all()
    assert gradients[0].abs().sum() > 0
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-5)


def test_half_precision_runs():
    jepa = make_jepa().to(torch.bfloat16)
    embedded = jepa.embed({"waveform": torch.randn(2, 8000).bfloat16()})
    assert embedded.shape == (2, 32)
    assert torch.isfinite(embedded).all()


# Without torchaudio, or with one that does not load -----------------------------------------------------------------

BREAK = """
import importlib.abc, importlib.machinery, sys, warnings
from importlib.metadata import EntryPoint
from jepa_lightning.config import plugins

class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name == "torchaudio" else None
    def exec_module(self, module):
        raise error

sys.meta_path.insert(0, Finder())
points = [EntryPoint(name, f"modalities.{name}", plugins.GROUP) for name in ("audio", "image")]
plugins.registered = lambda: points
for error in ERRORS:
    try:
        import modalities.audio
    except ImportError as caught:
        print(caught)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        print(plugins.load_plugins())
    print(*[warning.message for warning in caught if "plug-in" in str(warning.message)])
"""
MISSING = "ModuleNotFoundError('No module named torchaudio', name='torchaudio')"
UNFIT = [
    "OSError('Could not load this library: libtorchaudio.so\\nundefined symbol')",
    "RuntimeError('Detected that PyTorch and TorchAudio were compiled with different CUDA versions.')",
    "ImportError('libcudart.so.13: cannot open shared object file')",
    "ModuleNotFoundError('No module named torch._old', name='torch._old')",
]


def test_without_a_torchaudio_that_loads_one_line_says_what_to_do(tmp_path):
    """In a process of its own; there, each error in turn is what `import torchaudio` raises."""
    code = BREAK.replace("ERRORS", f"[{', '.join([MISSING, *UNFIT])}]")
    lines = fresh(code, tmp_path).splitlines()
    assert len(lines) == 3 * (1 + len(UNFIT))
    for message, loaded, warning in zip(lines[::3], lines[1::3], lines[2::3], strict=True):
        assert message.endswith('pip install "jepa-lightning[audio]"')
        assert loaded == "['image']"  # the other plug-ins load without it
        assert warning == f"plug-in 'audio' (modalities.audio) does not load: {message}"
    assert lines[0].startswith("audio needs torchaudio, which is not installed: ")
    for message in lines[3::3]:
        assert f"does not load beside torch {torch.__version__}" in message
        assert "torchaudio 2.11.0 goes with torch 2.11 and 2.12" in message
