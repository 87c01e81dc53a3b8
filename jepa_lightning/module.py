"""The LightningModule that trains any JEPA: losses, optimiser, schedules, seeds."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Self

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.optim import Optimizer

from jepa_lightning import optimization
from jepa_lightning._version import __version__
from jepa_lightning.encoders import Encoder
from jepa_lightning.encoders.pooling import pooled_features
from jepa_lightning.maskers import Masker
from jepa_lightning.modality import Batch, Modality, estimate_statistics
from jepa_lightning.objectives import PredictionLoss, SmoothL1
from jepa_lightning.precision import HALF, is_norm, keep_precision, precise
from jepa_lightning.predictors import NoPredictor, PredictorFactory, TransformerPredictor
from jepa_lightning.pretexts import Masked, Networks, Outcome, Pretext
from jepa_lightning.pretexts.base import prediction_loss
from jepa_lightning.pretexts.contract import check_first_batch
from jepa_lightning.pretexts.trajectories import frames
from jepa_lightning.randomness import derive_seed, reseed
from jepa_lightning.regularizers import RegularizerFactory, Regularizers, RegularizerSpec
from jepa_lightning.run.checkpoint_io import protect
from jepa_lightning.run.checkpoints import refuse_older
from jepa_lightning.scale.graphs import refuse_gradients_of_several
from jepa_lightning.scale.parallel import parallelize
from jepa_lightning.scale.strategies import refuse_fsdp1
from jepa_lightning.schedules import Constant, CosineRamp, Schedule, WarmupCosine, value_at
from jepa_lightning.targets.base import TargetFactory, represent
from jepa_lightning.targets.ema import EMA

BY_CLI = "_instantiator"
"""Key that Lightning's command line adds to the hyperparameters, which are then a whole configuration."""

_BUILT = ["modality", "pretext", "target", "predictor", "objective", "regularizers", "prediction_weight", "optimizer"]
_BUILT += ["learning_rate", "weight_decay"]


class JEPA(LightningModule):
    """A Joint Embedding Predictive Architecture on any modality (I-JEPA, Assran et al. 2023, by default).

    Every schedule is a function of the optimiser step and spans the whole run, so the trainer needs
    `max_epochs` or `max_steps`.

    Args:
        modality: plug-in with tokenizer, masker and encoder.
        pretext: cuts x and y from a sample and predicts y; default: `Masked`.
        target: builds the target from the context encoder and the tokens' spec.
        predictor: builds the predictor from its spec: the widths, the tokens' spec, the width of a condition.
        objective: distance between predicted and target representations; default: `SmoothL1`.
        regularizers: build terms added to the loss that prevent collapse.
        prediction_weight: weight of the prediction loss, a number or a schedule.
        optimizer: builds the optimiser from parameter groups; learning rate and weight decay follow the schedules. On
            CUDA, Adam and AdamW are fused unless `fused` or `foreach` is set.
        learning_rate: schedule of the learning rate; a number: `WarmupCosine` with this peak, from a tenth of it to a
            thousandth, after a warm-up of 5%.
        weight_decay: schedule of the weight decay, or a number; biases, norms, positions and learned tokens do not
            decay.
        base_batch: samples per optimiser step (batch_size x processes x accumulated batches) that `learning_rate` is
            meant for; it is scaled in proportion to the actual number. None: no scaling.
        checkpoint_activations: recompute activations in the backward pass, to save memory.
        compile: `torch.compile` every block. Use it with a masker of fixed size.
        cuda_graphs: record a training step's prediction and its backward pass as CUDA graphs, which are launched at
            once: several times as fast for small models, with `compile`. For one CUDA device, a masker of fixed
            size, and masked prediction of one modality; no effect on other devices. See docs/many-gpus.md.
    """

    def __init__(
        self,
        modality: Modality,
        *,
        pretext: Pretext | None = None,
        target: TargetFactory = EMA,
        predictor: PredictorFactory = TransformerPredictor,
        objective: PredictionLoss | None = None,
        regularizers: list[RegularizerFactory] | None = None,
        prediction_weight: float | Schedule = 1.0,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        learning_rate: float | Schedule = WarmupCosine(peak=1e-3, start=1e-4, end=1e-6, warmup=0.05),
        weight_decay: float | Schedule = CosineRamp(start=0.04, end=0.4),
        base_batch: int | None = None,
        checkpoint_activations: bool = False,
        compile: bool = False,
        cuda_graphs: bool = False,
    ) -> None:
        super().__init__()
        if base_batch is not None and base_batch < 1:
            raise ValueError(f"base_batch must be at least 1, or null for no scaling, got {base_batch}")
        self.save_hyperparameters(ignore=_BUILT, logger=False)
        if BY_CLI in self.hparams:
            self.save_hyperparameters(logger=False)
        self.modality = modality
        self.tokenizer = modality.tokenizer
        self.encoder = modality.encoder
        self.pretext = pretext or Masked()
        self.target = target(modality.encoder, modality.spec)
        self.pretext.build(modality, self.target)
        asked = self.pretext.predictor_spec(modality, self.target)
        self.predictor = NoPredictor() if asked is None else predictor(asked)
        self.objective = objective or SmoothL1()
        if self.pretext.needs_regularizer and not regularizers:
            raise ValueError(
                f"expected a regularizer beside {type(self.pretext).__name__} as it is set, without which all "
                "representations collapse to one, got none: set model.regularizers to [SIGReg] or [VICReg]"
            )
        widths = *self.pretext.latent_dims(modality, self.target), self.pretext.action_dim, self.pretext.upper_actions
        self.regularizers = Regularizers(regularizers or [], RegularizerSpec(*widths))
        self.prediction_weight = prediction_weight
        if not isinstance(learning_rate, Schedule):
            peak = learning_rate
            learning_rate = WarmupCosine(peak=peak, start=peak / 10, end=peak / 1000, warmup=0.05)
        if not isinstance(weight_decay, Schedule):
            weight_decay = Constant(weight_decay)
        self.schedules: dict[str, Schedule] = {"lr": learning_rate, "weight_decay": weight_decay}
        self.schedules |= self.target.schedules
        self.build_optimizer = optimizer
        self.total_steps = 0
        self.learning_rate_scale = 1.0
        self.skip_step = False  # set by a callback that has dropped the current step's gradients
        self.run_seed = int(os.environ.get("PL_GLOBAL_SEED", 0))
        self.base_batch = base_batch
        self.checkpoint_activations = checkpoint_activations
        self.compile_layers = compile
        self.cuda_graphs = cuda_graphs
        self._parallelized = False
        self._fused: bool | None = None

    @property
    def networks(self) -> Networks:
        """Return the parts that a pretext uses."""
        return Networks(self.modality, self.encoder, self.target, self.predictor)

    @property
    def evaluated_encoder(self) -> Encoder:
        """Return the encoder that probes evaluate and `load` returns; see `Target.evaluated`."""
        return self.target.evaluated(self.encoder)

    @property
    def masker(self) -> Masker:
        """Return the modality's masker."""
        return self.modality.masker

    def configure_model(self) -> None:
        """Checkpoint activations, compile and shard, once; Lightning calls this before each fit and validate."""
        try:
            trainer = self.trainer if self.fabric is None else None
        except RuntimeError:  # there is no trainer
            trainer = None
        if trainer is not None:
            refuse_fsdp1(trainer.strategy)
            protect(trainer)
            if self.cuda_graphs:
                refuse_gradients_of_several(trainer.accumulate_grad_batches, trainer.world_size)
        if self._parallelized:
            return
        self._parallelized = True
        parallelize(
            self,
            checkpoint_activations=self.checkpoint_activations,
            compile=self.compile_layers,
            cuda_graphs=self.cuda_graphs,
            mesh=self.device_mesh,
            norms_apart=torch.get_default_dtype() in HALF,  # as Lightning sets it here, for bf16-true
        )

    def step(self, batch: Batch, generator: torch.Generator) -> Outcome:
        """Run the pretext on a batch."""
        return self.pretext(self.networks, batch, generator)

    def losses(self, outcome: Outcome, step: int = 0) -> dict[str, Tensor]:
        """Compute the weighted terms of the loss by name, "prediction", the pretext's and the regularizers'."""
        found: list[tuple[str, Tensor, float | Schedule]] = []
        if outcome.predictions:
            loss = prediction_loss(outcome.predictions, self.objective, step, self.total_steps)
            found.append(("prediction", loss, self.prediction_weight))
        found += [(name, value, weight) for name, (value, weight) in outcome.terms.items()]
        found += self.regularizers.terms(outcome, derive_seed(self.run_seed, "regularizers", step))
        return {name: value * value_at(weight, step, self.total_steps) for name, value, weight in found}

    def forward(self, batch: Batch) -> Tensor:
        """Encode all tokens with the evaluated encoder: (B, N, D)."""
        return represent(self.evaluated_encoder, self.tokenizer(frames(batch)))

    @torch.no_grad()
    def embed(self, batch: Batch) -> Tensor:
        """Encode a batch and average over tokens: (B, D) float32; of trajectories each frame, (B T, D)."""
        return pooled_features(self.evaluated_encoder, self.tokenizer(frames(batch)))

    def on_fit_start(self) -> None:
        """Estimate the statistics of tokenizer and pretext, unless they came from a checkpoint."""
        check_first_batch(
            tokenizer=self.tokenizer,
            encoder=self.encoder,
            predictor=self.predictor,
            spec=self.modality.spec,
            asked=self.pretext.predictor_spec(self.modality, self.target),
        )
        data: Any = getattr(self.trainer, "datamodule", None)
        for part in (self.tokenizer, self.pretext):
            if part.needs_statistics and data is not None:
                loader = getattr(data, "statistics_dataloader", data.train_dataloader)
                estimate_statistics(part, loader(), self.device)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Run one training step. Callbacks get its loss and, without gradient, its `outcome`."""
        micro_batch = batch_idx % self.trainer.accumulate_grad_batches
        # Dropout and tokenizers draw from the global generators: after a crash they draw the same again.
        reseed(self.derive_seed("step", self.global_step, micro_batch), self.device)
        self.masker.set_step(self.global_step, self.total_steps)
        outcome = self.step(batch, self.mask_generator("train", self.global_step, micro_batch))
        losses = self.losses(outcome, self.global_step)
        if self.pretext.ahead is not None:
            self.pretext.ahead.prepare(self._next_seed(micro_batch))
        loss = sum(losses.values()) if losses else outcome.nothing()
        logged = {"train/loss": loss} | {f"train/loss_{name}": value for name, value in losses.items()}
        self.log_dict(logged, batch_size=outcome.batch_size)
        return {"loss": loss, "outcome": outcome.detach()}

    def _next_seed(self, micro_batch: int) -> int:
        """The seed of the next batch's masks, if it is in the same epoch."""
        if micro_batch + 1 < self.trainer.accumulate_grad_batches:
            return self.derive_seed("train", self.global_step, micro_batch + 1)
        return self.derive_seed("train", self.global_step + 1, 0)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the loss on held-out data, with the same masks at every validation."""
        outcome = self.step(batch, self.mask_generator("val", 0, batch_idx))
        losses = self.losses(outcome, self.global_step)
        if losses:
            self.log("val/loss", sum(losses.values()), batch_size=outcome.batch_size, sync_dist=True)

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return pooled features, (B, D)."""
        return self.embed(batch)

    def mask_generator(self, stage: str, step: int, micro_batch: int) -> torch.Generator:
        """Return a generator seeded from run seed, stage, step, micro-batch and rank: resuming changes no mask."""
        return torch.Generator().manual_seed(self.derive_seed(stage, step, micro_batch))

    def derive_seed(self, stage: str, step: int, micro_batch: int) -> int:
        """Derive a seed from run seed, stage, step, micro-batch and rank."""
        return derive_seed(self.run_seed, stage, step, micro_batch, self.global_rank)

    def configure_optimizers(self) -> Optimizer:
        """Build the optimiser with two groups, with and without weight decay; see `decays` and `fused_by_default`."""
        optimizer = self.build_optimizer(optimization.parameter_groups(self))
        self._fused = optimization.fused_by_default(optimizer)
        return optimization.set_fused(optimizer, self._fused)

    def on_train_start(self) -> None:
        """Compute the length of the run, which the schedules need."""
        for part in (self.tokenizer, self.pretext):
            if part.needs_statistics:  # the trainer was given loaders instead of a data module
                estimate_statistics(part, self.trainer.train_dataloader, self.device)  # type: ignore[arg-type]
        self.total_steps = optimization.run_length(self.trainer)
        self.target.start(self.total_steps)
        for optimizer in self.trainer.optimizers:  # a checkpoint may come from another device
            optimization.set_fused(optimizer, self._fused)
        self.learning_rate_scale = optimization.learning_rate_scale(self.trainer, self.base_batch)
        self.regularizers.check_batch_size(optimization.largest_batch(self.trainer))

    def scheduled(self, name: str, step: int) -> float:
        """Return the value of schedule `name` (lr, weight_decay, those of the target) at a step; see `base_batch`."""
        value = self.schedules[name](step, self.total_steps)
        return value * self.learning_rate_scale if name == "lr" else value

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Keep norms in float32 under bf16-true (an EMA target does so itself); see `precision.autocast_in_half`."""
        return super()._apply(keep_precision(precise([part for part in self.modules() if is_norm(part)]), fn), recurse)

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """Set the scheduled values, step, then update the target; Lightning calls this once per optimiser step."""
        step = self.global_step
        optimization.set_scheduled(optimizer, self.scheduled("lr", step), self.scheduled("weight_decay", step))
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if not self.skip_step:
            self.target.update(self.encoder, step, self.total_steps)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Log the schedules, at logging steps only, as tensors on the CPU: a number would be copied to the device."""
        if optimization.is_logged(self.trainer):
            values = {name: torch.tensor(self.scheduled(name, self.global_step - 1)) for name in self.schedules}
            self.log_dict({f"train/{name}": value for name, value in values.items()}, batch_size=1)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the seed of the masks and the package version."""
        checkpoint["run_seed"] = self.run_seed
        checkpoint["jepa_lightning_version"] = __version__

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the seed of the resumed run; refuse checkpoints of 0.1."""
        refuse_older(checkpoint, "the checkpoint")
        self.run_seed = checkpoint.get("run_seed", self.run_seed)
