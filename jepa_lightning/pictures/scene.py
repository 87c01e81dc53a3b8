"""What `jepa_lightning.view` looks at: the run, the samples, the folder, and what is written into it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from jepa_lightning.data import JEPADataModule
from jepa_lightning.evaluation.runs import EncoderSettings
from jepa_lightning.loading import Frozen, load_jepa
from jepa_lightning.modality import Batch
from jepa_lightning.module import JEPA
from jepa_lightning.names.printable import printable
from jepa_lightning.pictures.chosen import ChosenSamples
from jepa_lightning.pictures.files import write_picture, write_pictures
from jepa_lightning.pictures.legend import Legend
from jepa_lightning.pretexts import Masked
from jepa_lightning.run.writing import named, plain


@dataclass
class Scene:
    """What is looked at.

    Attributes:
        checkpoint: of the run.
        settings: how its encoder is read and used.
        encoder: the frozen one.
        data: where the samples are from.
        samples: the split.
        batch: the chosen ones, on the CPU.
        out: folder of the pictures.
        k: neighbours of each sample.
        gallery: samples to look for neighbours in.
        label: that attention is to tell; None for the first class label.
        seed: of masks and of the attentive probe.
        files: those that were written.
    """

    checkpoint: Path
    settings: EncoderSettings
    encoder: Frozen
    data: JEPADataModule
    samples: ChosenSamples
    batch: Batch
    out: Path
    k: int = 5
    gallery: int = 2000
    label: str | None = None
    seed: int = 0
    files: list[Path] = field(default_factory=list)
    _untrained: Frozen | None = None
    _untrained_known: bool = False
    _jepa: JEPA | None = None

    def say(self, line: str) -> None:
        """Print a line."""
        print(printable(line), flush=True)

    def write(self, pictures: list[Tensor] | None, name: str, legend: Legend) -> None:
        """Write one picture a sample, with a legend, and print the files."""
        if not pictures:
            self.say(f"{name}: the modality {self.encoder.modality.name} draws none")
        self.wrote(write_pictures(pictures, self.out, name, legend))

    def draw_one(self, whole: Tensor, name: str, legend: Legend, *, at: float = 0.5) -> None:
        """Write one picture of all samples, with a legend; of a moving one a GIF, and as PNG a frame, `at` 0 to 1."""
        self.wrote(write_picture(whole, self.out, name, legend))
        if whole.ndim == 4:
            self.wrote(write_picture(whole[min(int(at * len(whole)), len(whole) - 1)], self.out, name, legend))

    def wrote(self, files: list[Path]) -> None:
        """Print files, and keep their names."""
        self.files += files
        for file in files:
            self.say(str(file))

    def save(self, name: str, content: dict[str, Any]) -> None:
        """Write numbers as JSON, those that are not finite as null, and print the file."""
        self.out.mkdir(parents=True, exist_ok=True)
        path = self.out / f"{name}.json"
        with named(path):
            path.write_text(json.dumps(plain(content, digits=6), indent=1, allow_nan=False) + "\n")
        self.wrote([path])

    def jepa(self) -> JEPA:
        """The whole model of the run."""
        if self._jepa is None:
            how = self.settings
            self._jepa = load_jepa(self.checkpoint, which=how.which, trust=how.trust, map_location=how.chosen_device)
        return self._jepa

    def hides(self, kind: str) -> bool:
        """Whether the run is one of masked prediction; if not, say that there are no pictures of this kind."""
        pretext = self.jepa().pretext
        if not isinstance(pretext, Masked):
            self.say(f"{kind}: left out, since the pretext of this run, {type(pretext).__name__}, hides no tokens")
        return isinstance(pretext, Masked)

    def untrained(self) -> Frozen | None:
        """The encoder before training; None, and a note, where it cannot be built."""
        if not self._untrained_known:
            self._untrained_known = True
            try:
                self._untrained = self.encoder.untrained()
            except (ValueError, OSError) as error:
                self.say(f"no pictures of the untrained encoder: {error}")
        return self._untrained

    def named(self, labels: dict[str, Any], row: int) -> dict[str, Any]:
        """A sample's labels, the primary one by the name of its class where classes have names."""
        found: dict[str, Any] = {}
        for name, values in labels.items():
            value = values[row]
            found[name] = value.tolist() if isinstance(value, Tensor) else value
            classes = self.data.classes if name == self.data.label else None
            if classes and isinstance(found[name], int) and 0 <= found[name] < len(classes):
                found[name] = classes[found[name]]
        return found
