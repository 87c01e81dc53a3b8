"""What each of two processes does with images and captions, for test_pairs_in_two.py.

The masks are a function of the sample and all captions are of one length, so that one process with both halves of each
batch predicts the same tokens.
"""

from functools import partial

import torch
from torch.utils.data import Dataset
from two_processes import BATCH, BySample, Watch, fit, state

from jepa_lightning import JEPA
from jepa_lightning.encoders import ViT
from jepa_lightning.multimodal import Multimodal
from jepa_lightning.objectives import MSE
from jepa_lightning.predictors import TransformerPredictor
from jepa_lightning.pretexts import CrossModal, InfoNCE, Nearness, Sigmoid
from jepa_lightning.regularizers import VICReg
from jepa_lightning.schedules import Constant, LinearRamp
from jepa_lightning.targets import EMA
from modalities.image import Image
from modalities.text import Text

LETTERS = 16  # a byte is a token, and there are as many as patches
ALIGNED = {
    "infonce": {"pretext": lambda: CrossModal(alignment=InfoNCE(weight=0.5))},
    "sigmoid, image only, frozen text": {
        "pretext": lambda: CrossModal(predict=["image"], alignment=Sigmoid(weight=0.5, bias=-1.0)),
        "frozen": ["text"],
        "width": 24,
    },
    "nearness": {
        "pretext": lambda: CrossModal(alignment=Nearness(weight=0.5)),
        "regularizers": [partial(VICReg, gather=True)],
    },
}


class Captioned(Dataset):
    """Images and captions of random letters."""

    def __init__(self, count=2 * BATCH):
        generator = torch.Generator().manual_seed(2)
        self.images = torch.rand(count, 3, 32, 32, generator=generator)
        letters = torch.randint(ord("a"), ord("z") + 1, (count, LETTERS), generator=generator)
        self.texts = ["".join(map(chr, row)) for row in letters.tolist()]

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return {"image": self.images[index], "text": self.texts[index], "id": str(index)}


def make_jepa(pretext, width=None, frozen=(), **settings):
    """Build a model. SGD, since Adam would make a step of the rounding errors of the alignment, which is in float32."""
    torch.manual_seed(0)
    small = partial(ViT, width=16, depth=1, heads=2)
    image = Image(image_size=32, patch_size=8, encoder=small, masker=BySample())
    text = Text(vocabulary=256, length=LETTERS, encoder=small, masker=BySample())
    return JEPA(
        Multimodal(modalities={"image": image, "text": text}, width=width, frozen=frozen),
        pretext=pretext(),
        objective=MSE(),
        predictor=partial(TransformerPredictor, width=16, depth=1, heads=2),
        optimizer=torch.optim.SGD,
        learning_rate=Constant(0.3),
        weight_decay=Constant(0.0),
        target=partial(EMA, momentum=LinearRamp(0.5, 0.9)),
        **settings,
    )


def train(folder, name, **settings):
    """Two optimiser steps; the losses, and all weights."""
    watch, module = Watch(), make_jepa(**ALIGNED[name])
    trainer = fit(
        folder,
        module,
        watch,
        samples=Captioned(),
        max_epochs=2,
        accumulate_grad_batches=1,
        gradient_clip_val=None,
        **settings,
    )
    return trainer.global_rank, {"losses": watch.losses, "state": state(module)}


def main(folder):
    for name in ALIGNED:
        rank, found = train(folder, name, devices=2, batch=BATCH // 2, strategy="ddp")
        torch.save(found, folder / f"{name}-{rank}.pt")
