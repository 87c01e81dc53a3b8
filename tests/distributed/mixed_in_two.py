"""What each of two processes does with clips and images, for test_mixed_in_two.py."""

import warnings
from functools import partial

import torch
from lightning.pytorch import Callback, Trainer

from jepa_lightning import JEPA
from jepa_lightning.data import MixedData
from jepa_lightning.encoders import ViT
from jepa_lightning.maskers import Random
from jepa_lightning.predictors import TransformerPredictor
from modalities.image import ImageData
from modalities.video import Video, VideoData


class Kinds(Callback):
    """The kind and the names of the samples of each batch."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen.append(("image" if "image" in batch else "video", list(batch["id"])))


def main(folder):
    for name in ("lightning", "torch"):
        warnings.filterwarnings("ignore", module=rf"{name}\..*")
    torch.manual_seed(0)
    encoder = partial(ViT, width=16, depth=1, heads=2)
    video = Video(
        frames=4, image_size=16, patch_size=8, channels=1, images=True, encoder=encoder, masker=Random(target_ratio=0.5)
    )
    module = JEPA(video, predictor=partial(TransformerPredictor, width=8, depth=1, heads=2))
    parts = {"video": VideoData(samples=24, batch_size=4, num_workers=0)}
    parts["image"] = ImageData(samples=24, batch_size=4, num_workers=0)
    kinds = Kinds()
    trainer = Trainer(
        default_root_dir=folder, accelerator="cpu", devices=2, strategy="ddp", max_epochs=2, callbacks=[kinds],
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, datamodule=MixedData(modalities=parts, shares={"image": 0.4}))
    torch.save({"seen": kinds.seen, "state": module.state_dict()}, folder / f"{trainer.global_rank}.pt")
