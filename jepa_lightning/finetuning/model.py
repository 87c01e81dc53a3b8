"""A fine-tuned model: an encoder, a head, and what its outputs mean."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from jepa_lightning.config.rebuild import Config
from jepa_lightning.data.inputs import is_batch
from jepa_lightning.finetuning.heads import HEADS, DenseHead
from jepa_lightning.loading import Frozen
from jepa_lightning.loading.hub import HubModel
from jepa_lightning.modality import Batch
from jepa_lightning.multimodal.modality import Multimodal
from jepa_lightning.run.checkpoints import mismatch


class FineTuned(HubModel):
    """An encoder with a head that predicts a label.

        model = jepa_lightning.load_finetuned("runs/image/finetune")
        model.predict("photo.jpg")  # "cat"

    Of several modalities, the head takes the pooled features of each, side by side.

    Args:
        encoder: of which a copy is not made.
        label: name of the label in a batch.
        head: "linear" or "attentive"; "dense" for a label that is a map (H, W) of the pixels' classes or values.
        classes: the label's numbers of the classes, rising; None for values.
        names: of these classes; none: their numbers.
        values: number of values of a continuous label.
        heads: attention heads of "attentive".

    Attributes:
        names: as given.

    Raises:
        ValueError: there is no such head, or it is not for several modalities; or neither classes nor values are given.
    """

    classes: Tensor
    target_mean: Tensor
    target_scale: Tensor

    def __init__(
        self,
        encoder: Frozen,
        *,
        label: str,
        head: str = "linear",
        classes: Sequence[int] | None = None,
        names: Sequence[str] = (),
        values: int = 0,
        heads: int = 4,
    ) -> None:
        super().__init__()
        if head not in HEADS:
            raise ValueError(f"expected the head {', '.join(HEADS)}, got {head!r}")
        self.modalities = list(encoder.modality.modalities) if isinstance(encoder.modality, Multimodal) else []
        if self.modalities and head != "linear":
            raise ValueError(
                f"expected the head linear for {' and '.join(self.modalities)} together, got {head}: set part to one "
                "of them"
            )
        if (classes is None) == (values < 1):
            raise ValueError(f"expected classes or a number of values, got {classes} and {values}")
        self.encoder, self.label, self.names = encoder, label, list(names or map(str, classes or ()))
        self._made: Config = {"label": label, "head": head, "classes": None if classes is None else list(classes)}
        self._made |= {"names": self.names, "values": values, "heads": heads}
        outputs = values if classes is None else len(classes)
        more = {"heads": heads} if head == "attentive" else {}
        self.head = HEADS[head](encoder.dim * max(1, len(self.modalities)), outputs, **more)
        self.register_buffer("classes", torch.tensor([] if classes is None else list(classes), dtype=torch.int64))
        self.register_buffer("target_mean", torch.zeros(values))
        self.register_buffer("target_scale", torch.ones(values))

    @property
    def classifies(self) -> bool:
        """Return whether the label holds classes."""
        return len(self.classes) > 0

    @property
    def dense(self) -> bool:
        """Return whether each pixel has an output."""
        return isinstance(self.head, DenseHead)

    def outputs(self, batch: Batch) -> Tensor:
        """Return logits (B, classes), or standardised values (B, d), of a batch; (B, ..., H, W) of a dense head."""
        if isinstance(self.head, DenseHead):
            height, width = batch[self.encoder.modality.name].shape[-2:]
            return self.head.pixels(self.encoder.feature_maps(batch), (height, width))
        if self.modalities:
            return self.head(self.encoder.embed(batch).unsqueeze(1))
        return self.head(*self.encoder.tokens(batch))

    def goal(self, batch: Batch) -> Tensor:
        """Return what outputs should be: classes (B,) from 0, -1 for unknown ones; or standardised values (B, d).

        Of a dense head, maps of them: (B, H, W), or (B, 1, H, W).

        Raises:
            ValueError: maps of another size than the images.
        """
        label = batch["labels"][self.label]
        if self.dense:
            size = batch[self.encoder.modality.name].shape[-2:]
            if not isinstance(label, Tensor) or label.shape[1:] != size:
                shape = tuple(label.shape[1:]) if isinstance(label, Tensor) else "several"
                raise ValueError(
                    f"label {self.label!r}: expected a map of each image's pixels, of {tuple(size)}, got {shape}"
                )
        if not self.classifies:
            values = label.float().unsqueeze(1) if self.dense else label.float().reshape(len(label), -1)
            return (values - self._along(self.target_mean)) / self._along(self.target_scale)
        place = torch.searchsorted(self.classes, label.contiguous()).clamp(max=len(self.classes) - 1)
        return torch.where(self.classes[place] == label, place, -1)

    def compared(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return outputs and goals as rows: of samples as they are, of maps one row for each pixel."""
        outputs, goal = self.outputs(batch), self.goal(batch)
        if not self.dense:
            return outputs, goal
        rows = outputs.movedim(1, -1).flatten(0, -2)
        return rows, goal.flatten() if self.classifies else goal.movedim(1, -1).flatten(0, -2)

    def forward(self, inputs: Any) -> Tensor:
        """Return the probabilities of the classes, or the values, of an input, a list of inputs or a batch dict.

        Args:
            inputs: as `jepa_lightning.Frozen` takes them; (outputs,) of one input, else (B, outputs). A dense head
                gives (outputs, H, W) at the size in which the encoder sees images.
        """
        batch = inputs if is_batch(inputs) else self.encoder.preprocess(inputs)
        found = self.outputs(batch)
        if self.classifies:
            found = found.softmax(1)
        else:
            found = found * self._along(self.target_scale) + self._along(self.target_mean)
        if is_batch(inputs):
            return found
        several = isinstance(inputs, list)
        found = found.unflatten(0, (len(inputs) if several else 1, -1)).mean(1)  # over the clips of a video
        return found if several else found[0]

    @torch.no_grad()
    def predict(self, inputs: Any) -> Any:
        """Return the name of the most probable class, or the values, of an input; of a list or a batch, a list.

        A dense head gives a tensor: the numbers of the classes, or the values, of the pixels, (H, W) or (B, H, W).
        """
        found = self.eval()(inputs)
        if self.dense:
            return self.classes[found.argmax(-3)] if self.classifies else found.squeeze(-3)
        if not self.classifies:
            return found.tolist()
        best = found.argmax(-1)
        return self.names[int(best)] if best.ndim == 0 else [self.names[number] for number in best.tolist()]

    def _along(self, values: Tensor) -> Tensor:
        return values.view(-1, 1, 1) if self.dense else values

    def about(self) -> str:
        """Say what it is, in a sentence for its model card."""
        what = f"one of {len(self.names)} classes" if self.classifies else "values"
        what += " for each pixel" if self.dense else ""
        return f"{self.encoder.about()} Fine-tuned to predict {self.label}: {what}."

    def stored_config(self) -> Config:
        """Return what the encoder and the head are built from."""
        return {**self.encoder.stored_config(), "finetuned": self._made}

    def stored_weights(self) -> dict[str, Tensor]:
        """Return what model.safetensors holds; the encoder by the names that `jepa_lightning.load` reads."""
        return {name.removeprefix("encoder."): value for name, value in self.state_dict().items()}

    @classmethod
    def from_folder(cls, weights: dict[str, Tensor], config: Config, *, trust: Collection[str] = ()) -> Self:
        """Build encoder and head of what `read_folder` read.

        Raises:
            ValueError: it holds no head, or does not fit.
        """
        made = config.get("finetuned")
        if not isinstance(made, dict):
            raise ValueError("expected a fine-tuned model, got an encoder alone: jepa_lightning.load loads it")
        encoder = Frozen.from_folder(weights, config, trust=trust)
        try:
            model = cls(encoder, **made)
        except TypeError as error:
            raise ValueError(f"expected a fine-tuned model's settings, got others: {error}") from None
        found = mismatch(model.stored_weights(), weights)
        if found:
            raise ValueError(f"the weights do not fit the model: {found}")
        model.load_state_dict({name: weights[name.removeprefix("encoder.")] for name in model.state_dict()})
        return model.eval()


def load_finetuned(
    path: str | Path, *, map_location: str | torch.device = "cpu", trust: Collection[str] = ()
) -> FineTuned:
    """Load a fine-tuned model, to predict.

        model = jepa_lightning.load_finetuned("runs/image/finetune")
        model.predict(["photo.jpg", "other.jpg"])

    Nothing that it holds is executed, as with `jepa_lightning.load`, which loads the fine-tuned encoder alone.

    Args:
        path: the folder of `jepa-finetune`, or the folder `model` in it, or a repository of the Hub.
        map_location: device of the result.
        trust: packages whose classes the configuration may name, in addition to ours and plug-ins.

    Raises:
        ValueError: there is none, or it cannot be loaded.
    """
    inside = Path(path).expanduser() / "model"
    return FineTuned.from_pretrained(inside if inside.is_dir() else path, map_location=map_location, trust=trust)
