"""Clips with audio: the classes of images with captions, with other modalities."""

from functools import partial

import pytest
import torch
from torch.utils.data import Dataset

from jepa_lightning import JEPA
from jepa_lightning.data import PairedData
from jepa_lightning.encoders import ViT
from jepa_lightning.evaluation.retrieval import retrieval
from jepa_lightning.joint_tokens import JointMasks
from jepa_lightning.maskers import TimeSpans
from jepa_lightning.multimodal import Multimodal
from jepa_lightning.predictors import TransformerPredictor
from jepa_lightning.pretexts import CrossModal
from modalities.audio import Audio, AudioData
from modalities.video import GeneratedClips, Video, VideoData

SMALL = partial(ViT, width=16, depth=1, heads=2)


class Filmed(Dataset):
    """Generated clips, with a tone whose pitch is the direction of what moves."""

    def __init__(self, split):
        self.clips = GeneratedClips(32, frames=4, image_size=32, split=split)
        self.targets, self.classes = self.clips.targets, self.clips.classes

    def __len__(self):
        return len(self.clips)

    def __getitem__(self, index):
        clip = self.clips[index]
        pitch = 0.2 + 0.1 * float(clip["labels"]["direction"])
        return {**clip, "waveform": torch.sin(pitch * torch.arange(1600))}


@pytest.fixture
def both():
    video = Video(frames=4, image_size=32, patch_size=8, encoder=SMALL)
    masker = TimeSpans(spans=2, scale=(0.2, 0.25))
    audio = Audio(sample_rate=1600, seconds=1.0, mels=16, patch_size=(8, 8), encoder=SMALL, masker=masker)
    return Multimodal(modalities={"video": video, "audio": audio})


def data_of(both, **video):
    parts = {"video": VideoData(**video), "audio": AudioData()}
    shared = {"batch_size": 8, "num_workers": 0}
    return PairedData(modalities=parts, dataset=Filmed("train"), val_dataset=Filmed("val"), **shared).bind(both)


def test_clips_with_audio_train_and_are_evaluated(both, make_trainer):
    data = data_of(both)
    torch.manual_seed(0)
    jepa = JEPA(both, pretext=CrossModal(), predictor=partial(TransformerPredictor, width=16, depth=1, heads=2))
    before = {name: value.clone() for name, value in jepa.encoder.named_parameters()}
    trainer = make_trainer(max_steps=3, limit_val_batches=1)
    trainer.fit(jepa, datamodule=data)
    assert {"train/loss_prediction", "train/loss_alignment"} <= set(trainer.callback_metrics)
    moved = {name for name, value in jepa.encoder.named_parameters() if not torch.equal(value, before[name])}
    for part in both.modalities:
        assert f"encoders.{part}.transformer.layers.0.attn.qkv.weight" in moved

    batch = next(iter(data.val_dataloader()))
    found = retrieval(both.apart(jepa.embed(batch)), ks=[1])
    assert [(recall.query, recall.gallery, recall.candidates) for recall in found] == [
        ("video", "audio", 8),
        ("audio", "video", 8),
    ]
    tokens = jepa.tokenizer(batch)
    masks = jepa.pretext.masks(jepa.networks, tokens, torch.Generator().manual_seed(0))
    assert [mask.part for mask in masks if isinstance(mask, JointMasks)] == ["video", "video", "audio"]
    drawn = [both.draw_masks(batch, masks), both.draw_features(batch, tokens, torch.rand(8, tokens.count, 3))]
    for pictures in drawn:  # the spectrogram below each frame
        assert len(pictures) == 8
        assert all(picture.shape[:2] == (4, 3) for picture in pictures)
        spectrogram = pictures[0][:, :, -8:]
        assert (spectrogram == spectrogram[:1]).all()
        assert not (pictures[0] == pictures[0][:1]).all()


def test_several_clips_of_a_video_have_its_audio(both):
    batch = next(iter(data_of(both, eval_clips=2).val_dataloader()))
    assert batch["video"].shape == (16, 3, 4, 32, 32)
    assert torch.equal(batch["waveform"][::2], batch["waveform"][1::2])
    assert batch["source"][::2] == batch["source"][1::2]
