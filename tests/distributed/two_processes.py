"""What two processes do, for test_two_processes.py; the results go into a folder.

One process of the same global batch is the reference, so masks are a function of the sample, and each process sees the
same samples in other company.
"""

import json
import os
import warnings
from functools import partial

import torch
from lightning.pytorch import Callback, Trainer
from torch import nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from jepa_lightning import JEPA
from jepa_lightning.encoders import ViT
from jepa_lightning.maskers import Masker
from jepa_lightning.objectives import MSE, CrossEntropy
from jepa_lightning.optimization import decays
from jepa_lightning.predictors import TransformerPredictor
from jepa_lightning.pretexts import Views
from jepa_lightning.regularizers import VICReg
from jepa_lightning.schedules import CosineRamp, LinearRamp, WarmupCosine
from jepa_lightning.targets import EMA, Online
from jepa_lightning.tokens import Masks
from modalities.image import Image

STEPS, BATCH, ACCUMULATE, CLIP = 4, 8, 2, 0.05  # in two epochs


class BySample(Masker):
    """Two masks of fixed size that are drawn from a sample's own pixels."""

    def __call__(self, tokens, generator):
        key = tokens.values.flatten(1)[:, :1].double()
        place = torch.arange(tokens.count, device=key.device, dtype=torch.float64)
        masks = []
        for draw in (1, 2):
            order = ((key * 12.9898 + place * 78.233 * draw).sin() * 43758.5453).frac().argsort(dim=1)
            masks.append(Masks(context=order[:, :7], targets=order[:, 7 : 7 + 4 * draw].unflatten(1, (2, -1))))
        return masks


class Samples(Dataset):
    def __init__(self, count=STEPS // 2 * BATCH * ACCUMULATE):
        self.images = torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return {"image": self.images[index], "id": str(index)}


class Counted(ViT):
    """A ViT with a buffer that moves, and parameters that no step uses, of which one is too small to be split."""

    def __init__(self, spec, **kwargs):
        super().__init__(spec, **kwargs)
        self.register_buffer("moved", torch.zeros(3))
        self.unused = nn.Linear(3, 1)

    def forward(self, *args, **kwargs):
        if self.training:
            self.moved += 1
        return super().forward(*args, **kwargs)


def make_jepa(**settings):
    torch.manual_seed(settings.pop("seed", 0))
    modality = Image(
        image_size=32, patch_size=8, encoder=partial(Counted, width=32, depth=2, heads=2), masker=BySample()
    )
    defaults = dict(
        objective=MSE(),
        learning_rate=WarmupCosine(peak=0.01, start=0.001, end=0.0001, warmup=0.25),
        weight_decay=CosineRamp(0.04, 0.4),
        target=partial(EMA, momentum=LinearRamp(0.8, 1.0)),
    )
    return JEPA(
        modality, predictor=partial(TransformerPredictor, width=15, depth=1, heads=3), **{**defaults, **settings}
    )


WITHOUT_A_TEACHER = {
    "flowing": {"target": partial(Online, stop_gradient=False), "regularizers": [partial(VICReg, gather=True)]},
    "stopped": {"target": Online},
}


class Mirrored(Views):
    """DINO on an image, its mirror image and its negative, of which the last is no target; the same on any rank."""

    def forward(self, nets, batch, generator):
        image = batch["image"]
        views = [{"image": view} for view in (image, image.flip(-1), 1 - image)]
        return super().forward(nets, {**views[0], "views": views}, generator)


def make_dino():
    return make_jepa(
        pretext=Mirrored(projector=(16, 8), prototypes=12, global_views=2, centering=0.8), objective=CrossEntropy()
    )


class Watch(Callback):
    """The loss of each optimiser step over the global batch, and whether clipping bit; keeps a checkpoint half-way."""

    def __init__(self, keep=None):
        self.losses, self.clipped = [], []
        self._sum = 0.0
        self.keep = keep

    def on_train_epoch_end(self, trainer, pl_module):
        if self.keep and trainer.current_epoch == 0:
            for _ in range(2):  # over an earlier one, too
                trainer.save_checkpoint(self.keep)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        loss = trainer.strategy.reduce(outputs["loss"].detach().clone(), reduce_op="mean")
        self._sum += float(loss)
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self.losses.append(self._sum)
            self._sum = 0.0

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        norms = [whole(p.grad).norm() for p in pl_module.parameters() if p.grad is not None]
        self.clipped.append(float(torch.stack(norms).norm()) > CLIP)


def whole(tensor):
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def state(module):
    return {name: whole(value).detach().clone() for name, value in module.state_dict().items()}


def fit(folder, module, *callbacks, samples=None, strategy="auto", devices=1, batch=BATCH, ckpt_path=None, **settings):
    for name in ("lightning", "torch"):
        warnings.filterwarnings("ignore", module=rf"{name}\..*")
    defaults = dict(
        default_root_dir=folder,
        accelerator="cpu",
        precision="64-true",  # AdamW makes a step of the rounding errors of a gradient of zero (a key's bias)
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        max_epochs=2,
        use_distributed_sampler=False,  # Lightning's would shuffle
        accumulate_grad_batches=ACCUMULATE,
        gradient_clip_val=CLIP,
    )
    trainer = Trainer(strategy=strategy, devices=devices, callbacks=list(callbacks), **{**defaults, **settings})
    data = samples or Samples()
    sampler = DistributedSampler(data, devices, int(os.environ.get("RANK", 0)), shuffle=False)
    trainer.fit(module, DataLoader(data, batch_size=batch, sampler=sampler), ckpt_path=ckpt_path)
    return trainer


def shards(module, trainer):
    """Of the trained parameters, the target and the optimiser: what this process holds, and what all hold."""

    def count(tensors):
        tensors = [t for t in tensors if t.ndim]
        here = sum((t.to_local() if hasattr(t, "to_local") else t).numel() for t in tensors)
        return here, sum(t.numel() for t in tensors)

    moments = [v for s in trainer.optimizers[0].state.values() for v in s.values() if isinstance(v, torch.Tensor)]
    trained = [p for p in module.parameters() if p.requires_grad]
    return {"student": count(trained), "target": count(module.target.parameters()), "optimizer": count(moments)}


def main(folder):
    found = {}
    two = partial(fit, folder, devices=2, batch=BATCH // 2)
    ddp, fsdp2, one_file = "ddp_find_unused_parameters_true", "fsdp2", "fsdp2_one_file"
    for name, strategy, kept, settings in (
        ("ddp", ddp, "ddp.ckpt", {}),
        ("fsdp2", fsdp2, "sharded.ckpt", {}),
        ("recomputed", one_file, "file.ckpt", {"checkpoint_activations": True}),
    ):
        watch, module = Watch(keep=folder / kept), make_jepa(**settings)
        trainer = two(module, watch, strategy=strategy)
        found[name] = {"losses": watch.losses, "clipped": watch.clipped, "shards": shards(module, trainer)}
        found[name]["decays"] = sorted(decays(module))
        torch.save(state(module), folder / f"{name}-{trainer.global_rank}.pt")

    # Targets by the encoder that is trained, and a regularizer over the samples of both processes.
    for name, settings in WITHOUT_A_TEACHER.items():
        for kind, strategy in (("ddp", ddp), ("fsdp2", fsdp2)):
            watch, module = Watch(), make_jepa(**settings)
            trainer = two(module, watch, strategy=strategy, max_epochs=1)
            found[f"{name}-{kind}"] = {"losses": watch.losses}
            torch.save(state(module), folder / f"{name}-{kind}-{trainer.global_rank}.pt")

    # A teacher with a projector of its own, and a centre over the samples of both processes.
    for kind, strategy in (("ddp", ddp), ("fsdp2", fsdp2)):
        watch, module = Watch(), make_dino()
        trainer = two(module, watch, strategy=strategy)
        found[f"dino-{kind}"] = {"losses": watch.losses, "shards": shards(module, trainer)}
        torch.save(state(module), folder / f"dino-{kind}-{trainer.global_rank}.pt")

    # The first half under one strategy, the second under another.
    for before, after, strategy in (
        ("ddp", "fsdp2", fsdp2),
        ("sharded", "ddp", ddp),
        ("sharded", "fsdp2", fsdp2),
        ("file", "ddp", ddp),
    ):
        module = make_jepa(seed=5)
        trainer = two(module, strategy=strategy, ckpt_path=folder / f"{before}.ckpt")
        torch.save(state(module), folder / f"{before}-{after}-{trainer.global_rank}.pt")

    # Each precision for a few steps.
    for precision in ("32-true", "bf16-mixed", "bf16-true"):
        module, watch = make_jepa(target=partial(EMA, momentum=LinearRamp(0.999, 0.999))), Watch()
        before = state(module)
        trainer = two(module, watch, strategy=fsdp2, precision=precision, max_steps=4)
        after = state(module)
        found[precision] = {
            "losses": watch.losses,
            "moved": min(
                float((after[k] - before[k]).abs().max())
                for k in before
                if k.startswith("target") and k.endswith("weight") and "unused" not in k
            ),
            "dtypes": {name: str(p.dtype) for name, p in module.named_parameters()},
        }

    # Ranks that drew other weights at first train one model.
    module = make_jepa(seed=int(trainer.global_rank))
    two(module, strategy=fsdp2, max_steps=1)
    torch.save(state(module), folder / f"seeds-{trainer.global_rank}.pt")
    if trainer.is_global_zero:
        (folder / "found.json").write_text(json.dumps(found))


def command(words):
    """`jepa-fit` in processes that somebody else has started."""
    from jepa_lightning.cli.fit import fit

    fit(words)
