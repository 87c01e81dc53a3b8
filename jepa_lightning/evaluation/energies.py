"""The energies of runs beside those of their untrained models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from jepa_lightning.evaluation.auroc import Detection
from jepa_lightning.evaluation.energy import detection
from jepa_lightning.evaluation.report.results import UNTRAINED
from jepa_lightning.evaluation.runs import EncoderSettings, Run
from jepa_lightning.loading import load_jepa
from jepa_lightning.loading.untrained import untrained_jepa
from jepa_lightning.modality import Batch

SAMPLES = 1000  # at most


def energies(
    runs: Sequence[Run],
    batches: Callable[[], Iterable[Batch]],
    settings: EncoderSettings,
    notes: list[str],
    *,
    seed: int = 0,
) -> dict[str, dict[str, Detection]]:
    """Compute what `detection` does for each run and its untrained model, on the first samples.

    Args:
        runs: to look at.
        batches: of the samples, from the first on, each time that it is called.
        settings: which checkpoints, the device, whom to trust.
        notes: a note is added for each model that has no energy, or cannot be built.
        seed: of what is drawn.
    """
    found: dict[str, dict[str, Detection]] = {}
    for run in runs:
        device = settings.chosen_device
        jepa = load_jepa(run.file, trust=settings.trust, map_location=device)
        try:
            found[run.name] = detection(jepa, _first(batches()), seed=seed)
        except ValueError as error:
            notes.append(f"energy: not of {run.name!r}: {error}")
            continue
        name = UNTRAINED if len(runs) == 1 else f"{UNTRAINED} {run.name}"
        try:
            before = untrained_jepa(run.encoder.config, jepa.tokenizer, encoder=jepa.encoder, trust=settings.trust)
        except (ValueError, OSError) as error:
            notes.append(f"energy: no {name} beside {run.name!r}: {error}")
            continue
        before = before.float().train(False).to(device)
        found[name] = detection(before, _first(batches()), seed=seed)
    return found


def _first(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Pass on whole batches until there are enough samples."""
    seen = 0
    for batch in batches:
        yield batch
        seen += len(batch["id"])
        if seen >= SAMPLES:
            return
