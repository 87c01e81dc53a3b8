"""The LightningModule that trains any JEPA."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.core.mixins.hparams_mixin import _given_hyperparameters
from torch import Tensor, nn
from torch.optim import Optimizer

from jepa_lightning.checkpoint_io import protect
from jepa_lightning.modality import Batch, Modality
from jepa_lightning.objectives import PredictionLoss, Regularizer, SmoothL1, pool
from jepa_lightning.parallel import parallelize
from jepa_lightning.precision import HALF, in_half, is_norm, precise, sparing
from jepa_lightning.predictors import PredictorFactory, TransformerPredictor
from jepa_lightning.randomness import derive_seed, reseed
from jepa_lightning.schedules import CosineRamp, LinearRamp, Schedule, WarmupCosine
from jepa_lightning.strategies import refuse_fsdp1
from jepa_lightning.teacher import Teacher
from jepa_lightning.tokens import Masks, Tokens, take

STATISTICS_BATCHES = 32  # training batches that a tokenizer's statistics are estimated from


@dataclass(frozen=True)
class Step:
    """What one pass of a JEPA over a batch produced."""

    tokens: Tokens
    masks: list[Masks]
    context: list[Tensor]  # (B, K, D) for each of the masks
    target: Tensor  # (B, N, D), layer-normed; where the teacher sees the targets alone, those of the first mask
    target_valid: Tensor | None  # (B, N) bool
    prediction_loss: Tensor
    penalties: dict[str, Tensor]

    @property
    def loss(self) -> Tensor:
        """What is minimised."""
        return self.prediction_loss + sum(self.penalties.values())


class JEPA(LightningModule):
    """A Joint Embedding Predictive Architecture on any modality (I-JEPA, Assran et al. 2023, by default).

    Every schedule is a function of the optimiser step alone, laid out over the whole run, so the trainer needs an end:
    `max_epochs` or `max_steps`.

    Args:
        modality: the plug-in: tokenizer, masker, encoder.
        predictor: builds the predictor from the encoder's width and the token spec.
        objective: distance of predicted and target representations.
        regularizers: penalties on the context's representations, added to the loss.
        optimizer: builds the optimiser from parameter groups; learning rate and weight decay follow the schedules.
        learning_rate: schedule of the learning rate.
        weight_decay: schedule of the weight decay; biases, norms, positions and learned tokens never decay.
        momentum: schedule of the teacher's EMA momentum.
        target_sees: what the teacher encodes: "all" of the sample, of which the targets are selected (I-JEPA), or the
            "targets" alone, each mask's by themselves (M2D: Niizumi et al. 2023, arXiv:2210.14648).
        base_batch: samples an optimiser step (batch_size x processes x accumulated batches) that `learning_rate` is
            meant for; a run with more or fewer scales it in proportion (Goyal et al. 2017, section 2.1; warm-up is the
            schedule's). None: the learning rate is taken as it is.
        checkpoint_activations: recompute activations in the backward pass, to save memory.
        compile: `torch.compile` every block. Use a masker of fixed size with it.
    """

    def __init__(
        self,
        modality: Modality,
        *,
        predictor: PredictorFactory = TransformerPredictor,
        objective: PredictionLoss | None = None,
        regularizers: list[Regularizer] | None = None,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        learning_rate: Schedule = WarmupCosine(peak=1e-3, start=1e-4, end=1e-6, warmup=0.05),
        weight_decay: Schedule = CosineRamp(start=0.04, end=0.4),
        momentum: Schedule = LinearRamp(start=0.996, end=1.0),
        target_sees: Literal["all", "targets"] = "all",
        base_batch: int | None = None,
        checkpoint_activations: bool = False,
        compile: bool = False,
    ) -> None:
        super().__init__()
        if target_sees not in ("all", "targets"):
            raise ValueError(f"target_sees must be all or targets, got {target_sees!r}")
        if base_batch is not None and base_batch < 1:
            raise ValueError(f"base_batch must be at least 1, or null for no scaling, got {base_batch}")
        # From the CLI the whole configuration is stored, as plain types; from Python only what is plain.
        built_parts = ["modality", "predictor", "objective", "regularizers", "optimizer"]
        built_parts += ["learning_rate", "weight_decay", "momentum"]
        self.save_hyperparameters(ignore=built_parts if _given_hyperparameters.get() is None else [], logger=False)
        self.modality = modality
        self.tokenizer = modality.tokenizer
        self.masker = modality.masker
        self.encoder = modality.encoder
        self.teacher = Teacher(modality.encoder)
        self.predictor = predictor(modality.encoder.dim, modality.spec)
        self.objective = objective or SmoothL1()
        self.regularizers = nn.ModuleList(regularizers or [])
        self.schedules = {"lr": learning_rate, "weight_decay": weight_decay, "momentum": momentum}
        self.target_sees = target_sees
        self.build_optimizer = optimizer
        self.total_steps = 0
        self.learning_rate_scale = 1.0
        self.skip_step = False  # set by who has thrown the present step's gradients away
        self.run_seed = int(os.environ.get("PL_GLOBAL_SEED", 0))
        self.base_batch = base_batch
        self.checkpoint_activations = checkpoint_activations
        self.compile_blocks = compile
        self._parallelized = False

    def configure_model(self) -> None:
        """Checkpoint activations, compile and shard, once; Lightning calls this before each fit, validate and predict.

        Raises:
            ValueError: the strategy is FSDP1, splits single layers, or leaves a trained parameter unsharded.
        """
        trainer: Any = getattr(self, "_trainer", None)
        mesh: Any = self._device_mesh
        if trainer is not None:
            refuse_fsdp1(trainer.strategy)
            protect(trainer)
        if self._parallelized:
            return
        self._parallelized = True
        if mesh is not None and mesh["data_parallel"].size() != mesh.size():
            raise ValueError("a JEPA has no tensor parallelism: use --trainer.strategy fsdp2")
        parallelize(
            self.encoder,
            self.predictor,
            self.teacher,
            others=[self.objective, *self.regularizers],
            checkpoint_activations=self.checkpoint_activations,
            compile=self.compile_blocks,
            mesh=None if mesh is None else mesh["data_parallel"],
            norms_apart=torch.get_default_dtype() in HALF,  # as Lightning sets it here, for bf16-true
        )
        whole = [name for name, p in self.named_parameters() if p.requires_grad and not hasattr(p, "placements")]
        if mesh is not None and whole:
            raise ValueError(
                "fsdp2 shards the encoder, the predictor, the objective and the regularisers, but there "
                f"is also {whole[0]}: use --trainer.strategy ddp"
            )

    # The idea ----------------------------------------------------------------------------------------------------

    def compare(self, batch: Batch, generator: torch.Generator) -> Step:
        """What a JEPA is: hide some tokens, encode the rest, predict the teacher's representations of the hidden."""
        tokens = self.tokenizer(batch)
        masks = self.masker(tokens, generator)
        with in_half(tokens.device):
            context = [self.encoder(tokens, mask.context, mask.context_valid) for mask in masks]
            predicted = [self.predict(tokens, seen, mask) for seen, mask in zip(context, masks, strict=True)]
        targets, seen, seen_valid = self.teach(tokens, masks)
        losses = [
            self.objective(guess, target, mask.targets_valid)
            for guess, target, mask in zip(predicted, targets, masks, strict=True)
        ]
        return Step(tokens, masks, context, seen, seen_valid, _mean(losses), self.penalise(context, masks))

    def teach(self, tokens: Tokens, masks: list[Masks]) -> tuple[list[Tensor], Tensor, Tensor | None]:
        """The teacher's representations, layer-normed.

        Returns:
            (B, M, T, D) for each of the masks; and all that it encoded, (B, N, D) (where it sees the targets alone,
            those of the first mask), with its validity (B, N).
        """
        width = (self.encoder.dim,)
        if self.target_sees == "all":
            seen = F.layer_norm(self.teacher(tokens), width)
            return [take(seen, mask.targets) for mask in masks], seen, tokens.valid
        targets = [F.layer_norm(self.teacher.alone(tokens, m.targets, m.targets_valid), width) for m in masks]
        valid = masks[0].targets_valid
        return targets, targets[0].flatten(1, 2), None if valid is None else valid.flatten(1)

    def predict(self, tokens: Tokens, context: Tensor, mask: Masks) -> Tensor:
        """Predicted representations (B, M, T, D) of the targets, from the context (B, K, D) and positions alone."""
        return self.predictor(
            context,
            take(tokens.positions, mask.context),
            take(tokens.positions, mask.targets),
            mask.context_valid,
            mask.targets_valid,
        )

    def penalise(self, context: list[Tensor], masks: list[Masks]) -> dict[str, Tensor]:
        """The regularisers' values by name; of those that the batch has enough samples for."""
        return {
            str(regularizer.name): _mean([regularizer(c, m.context_valid) for c, m in zip(context, masks, strict=True)])
            for regularizer in self.regularizers
            if len(context[0]) >= int(regularizer.least)  # type: ignore[arg-type]
        }

    def forward(self, batch: Batch) -> Tensor:
        """The teacher's representations (B, N, D) of every token."""
        return self.teacher(self.tokenizer(batch))

    @torch.no_grad()
    def embed(self, batch: Batch) -> Tensor:
        """One vector a sample, (B, D) float32: the mean over tokens of the teacher's representations."""
        tokens = self.tokenizer(batch)
        return pool(self.teacher(tokens).float(), tokens.valid)

    # Lightning ---------------------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """Let the tokenizer estimate its statistics, unless a checkpoint has brought them."""
        data: Any = getattr(self.trainer, "datamodule", None)
        if self.tokenizer.needs_statistics and data is not None:
            self._estimate(getattr(data, "statistics_dataloader", data.train_dataloader)())

    def _estimate(self, loader: Any) -> None:
        """The same on every rank; the run's own random numbers stay as they are."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            batches = (self._on_device(batch) for batch in islice(loader, STATISTICS_BATCHES))
            self.tokenizer.estimate(batches)

    def _on_device(self, batch: Batch) -> Batch:
        return {k: v.to(self.device) if hasattr(v, "to") else v for k, v in batch.items()}

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """One step. Callbacks get what they watch: the first context (B, K, D), the teacher's (B, N, D), the tokens."""
        micro_batch = batch_idx % self.trainer.accumulate_grad_batches
        # Whatever draws from the global generators (dropout, a tokenizer) draws what it drew before a crash.
        reseed(self.derive_seed("step", self.global_step, micro_batch), self.device)
        step = self.compare(batch, self.mask_generator("train", self.global_step, micro_batch))
        losses = {"train/loss_prediction": step.prediction_loss}
        losses |= {f"train/loss_{name}": value for name, value in step.penalties.items()}
        size = step.tokens.batch_size
        self.log("train/loss", step.loss, batch_size=size)
        self.log_dict(losses, batch_size=size)
        seen = {"context": step.context[0].detach(), "context_valid": step.masks[0].context_valid}
        seen |= {"target": step.target, "target_valid": step.target_valid}
        return {"loss": step.loss, **seen, "tokens": step.tokens}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """The loss on held-out data under masks that are the same at every validation."""
        step = self.compare(batch, self.mask_generator("val", 0, batch_idx))
        self.log("val/loss", step.loss, batch_size=step.tokens.batch_size, sync_dist=True)

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Pooled teacher features, (B, D)."""
        return self.embed(batch)

    def mask_generator(self, stage: str, step: int, micro_batch: int) -> torch.Generator:
        """A fresh generator seeded from run seed, stage, step, micro-batch and rank: resuming changes no mask."""
        return torch.Generator().manual_seed(self.derive_seed(stage, step, micro_batch))

    def derive_seed(self, stage: str, step: int, micro_batch: int) -> int:
        """A seed from run seed, stage, step, micro-batch and rank."""
        return derive_seed(self.run_seed, stage, step, micro_batch, self.global_rank)

    def configure_optimizers(self) -> Optimizer:
        """The optimiser over two groups, with and without weight decay; see `decays`."""
        trained = [(name, p) for name, p in self.named_parameters() if p.requires_grad]
        decaying = decays(self)
        groups: list[dict[str, Any]] = [
            {"params": [p for name, p in trained if name in decaying], "decays": True},
            {"params": [p for name, p in trained if name not in decaying], "decays": False, "weight_decay": 0.0},
        ]
        return self.build_optimizer([group for group in groups if group["params"]])

    def on_train_start(self) -> None:
        """Learn how long the run is, which the schedules need."""
        if self.tokenizer.needs_statistics:  # a trainer that was given loaders in place of a data module
            self._estimate(self.trainer.train_dataloader)
        total = self.trainer.estimated_stepping_batches
        if total == float("inf"):
            raise ValueError("the schedules need to know the run's length: set trainer.max_epochs or trainer.max_steps")
        self.total_steps = int(total)
        for step in (0, self.total_steps // 2, self.total_steps):
            if not 0 <= (momentum := self.scheduled("momentum", step)) <= 1:
                raise ValueError(f"expected a momentum from 0 to 1, got {momentum:g} at step {step}")
        self._check_batch()
        self.learning_rate_scale = self._scale()
        self.teacher.forget_pairs()

    def scheduled(self, name: str, step: int) -> float:
        """Value of the schedule `name` (lr, weight_decay or momentum) at an optimiser step; see `base_batch`."""
        value = self.schedules[name](step, self.total_steps)
        return value * self.learning_rate_scale if name == "lr" else value

    def _check_batch(self) -> None:
        loader: Any = self.trainer.train_dataloader
        samples: Any = getattr(loader, "sampler", None)
        sizes = [getattr(loader, "batch_size", None), len(samples) if hasattr(samples, "__len__") else None]
        largest = min((size for size in sizes if size), default=None)
        for regularizer in self.regularizers:
            if largest is not None and largest < int(regularizer.least):  # type: ignore[arg-type]
                raise ValueError(
                    f"{type(regularizer).__name__} needs batches of at least {regularizer.least} samples on each "
                    f"process, got {largest}: raise data.batch_size, add data, or set model.regularizers to null"
                )

    def _scale(self) -> float:
        """Samples an optimiser step over `base_batch`."""
        if self.base_batch is None:
            return 1.0
        sources = (self.trainer.train_dataloader, getattr(self.trainer, "datamodule", None))
        size = next((n for n in (getattr(source, "batch_size", None) for source in sources) if n), None)
        if size is None:
            raise ValueError("base_batch needs to know the batch size: give a loader or a data module with batch_size")
        return size * self.trainer.world_size * self.trainer.accumulate_grad_batches / self.base_batch

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Under bf16-true, norms (and the teacher, by itself) stay in float32; see `precision.in_half`."""
        return super()._apply(sparing(precise([part for part in self.modules() if is_norm(part)]), fn), recurse)

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """Set the scheduled values, step, then move the teacher; Lightning calls this once an optimiser step."""
        step = self.global_step
        values = {name: self.scheduled(name, step) for name in self.schedules}
        for group in optimizer.param_groups:
            group["lr"] = values["lr"]
            if group["decays"]:
                group["weight_decay"] = values["weight_decay"]
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if not self.skip_step:
            self.teacher.update(self.encoder, values["momentum"])

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Log the schedules, at the steps that are logged only: a number logged is a copy to the device."""
        if is_logged(self.trainer):
            step = self.global_step - 1
            self.log_dict({f"train/{name}": self.scheduled(name, step) for name in self.schedules}, batch_size=1)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the seed that the masks are drawn from, and which version wrote this."""
        from jepa_lightning import __version__  # which is imported after this module

        checkpoint["run_seed"] = self.run_seed
        checkpoint["jepa_lightning_version"] = __version__

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the seed of the run that is resumed."""
        self.run_seed = checkpoint.get("run_seed", self.run_seed)


def is_logged(trainer: Trainer) -> bool:
    """Whether metrics are written after the optimiser step just made: every `trainer.log_every_n_steps`."""
    every = getattr(trainer, "log_every_n_steps", 0)
    return bool(every) and trainer.global_step > 0 and trainer.global_step % every == 0


def decays(module: nn.Module) -> set[str]:
    """Names of the parameters that weight decay applies to: the weight matrices of `module`.

    Biases, the weights of norms and of embeddings, and parameters that stand alone (positions, mask, class and register
    tokens, layer scales) never decay.
    """
    return {
        f"{path}.{name}" if path else name
        for path, part in module.named_modules()
        for name, parameter in part.named_parameters(recurse=False)
        if parameter.ndim > 1 and "weight" in name and not isinstance(part, nn.Embedding)
    }


def _mean(losses: list[Tensor]) -> Tensor:
    return losses[0] if len(losses) == 1 else torch.stack(losses).mean()
