"""Resuming a run: which checkpoint, whether it fits, whether anything is left to do, and what has changed since."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from jepa_lightning.module import JEPA
from jepa_lightning.run.checkpoint_io import tidy
from jepa_lightning.run.checkpoints import find_checkpoint, mismatch, read_config, read_content, refuse_older

SETTINGS = ("seed_everything", "model", "data", "trainer")  # sections that change the trained weights
_TRAINER = (  # and of the trainer's
    *(
        "devices",
        "num_nodes",
        "strategy",
        "precision",
        "max_epochs",
        "max_steps",
        "max_time",
        "accumulate_grad_batches",
    ),
    *("gradient_clip_val", "gradient_clip_algorithm", "limit_train_batches", "overfit_batches"),
)
_LISTED, _WIDTH = 30, 80  # changed settings, and characters of a value, in a message


def is_remote(path: str | Path) -> bool:
    """Whether a checkpoint is one that only Lightning can find: at a URL, or under a name of its own."""
    return "://" in str(path) or str(path).startswith("registry") or str(path) == "hpc"


def find_resumable(folder: Path, given: str | Path | None, *, tidied: bool, needed: bool = False) -> str | Path | None:
    """The checkpoint that `--ckpt_path` names; None where there is none to resume from.

    Args:
        folder: of the run.
        given: "last" or "best" of this folder; the folder of a run; a checkpoint; None.
        tidied: also put the folder's checkpoints in order, which may bring last.ckpt back.
        needed: there must be one: without, "last" in a folder that has none starts anew.

    Raises:
        ValueError: there is no such checkpoint.
    """
    if given is None or is_remote(given):
        return given
    if str(given) not in ("last", "best"):
        return find_checkpoint(given)
    checkpoints = folder / "checkpoints"
    if tidied and checkpoints.is_dir():
        tidy(checkpoints)
    path = checkpoints / f"{given}.ckpt"
    if path.exists():
        return path
    if needed or given == "best":
        raise ValueError(f"expected {path}, which does not exist: train first, or name another checkpoint or run")
    return None


def read_weights(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, its tensors left on the disk as long as nobody looks at them.

    Raises:
        ValueError: it is damaged, holds more than tensors and plain values, or is no checkpoint at all.
    """
    content = read_content(path, mapped=True)
    if not isinstance(content, dict) or "state_dict" not in content:
        raise ValueError(f"expected a checkpoint of a run, got something else: {path}; name the run's folder")
    refuse_older(content, path)
    return content


def read_resumable(path: Path) -> dict[str, Any]:
    """As `read_weights`, of a checkpoint that training can resume from.

    Raises:
        ValueError: likewise; or it holds weights alone.
    """
    content = read_weights(path)
    missing = [key for key in ("optimizer_states", "loops", "global_step") if key not in content]
    if missing:
        raise ValueError(
            f"expected a checkpoint to resume from, got one of weights alone: {path} has no {', '.join(missing)}; "
            "resume from the run's checkpoints/last.ckpt"
        )
    return content


def nothing_left(trainer: Trainer, content: Mapping[str, Any], path: Path) -> bool:
    """Whether all steps that the trainer asks for are made, and the run has closed with its summary.

    With more `max_epochs` or `max_steps` than before there is something left again.

    Raises:
        ValueError: the checkpoint does not say where it stands.
    """
    folder = path.parent.parent
    closed = (folder / "summary.json").is_file() or folder.resolve() != Path(trainer.default_root_dir).resolve()
    try:
        return closed and _at_end(trainer, content)
    except (KeyError, TypeError) as error:
        raise ValueError(f"expected a whole checkpoint, got a damaged one: {path} (no {error})") from None


def _at_end(trainer: Trainer, content: Mapping[str, Any]) -> bool:
    if 0 <= trainer.max_steps <= content["global_step"]:
        return True
    epochs = trainer.max_epochs
    if epochs is None or epochs < 0:
        return False
    loop = content["loops"]["fit_loop"]
    progress, batches = loop["epoch_progress"]["current"], loop["epoch_loop.batch_progress"]
    return progress["processed"] >= epochs or (progress["ready"] >= epochs and batches["is_last_batch"])


def refuse_other_weights(
    path: Path, content: Mapping[str, Any], model: LightningModule, changed: list[str] | None = None
) -> None:
    """See that the weights of a checkpoint fit the model.

    Args:
        path: of the checkpoint.
        content: of it.
        model: before training. A LightningModule that is no JEPA may still make layers, so only sizes count.
        changed: settings that differ, for the message.

    Raises:
        ValueError: they do not.
    """
    own, stored = model.state_dict(), content["state_dict"]
    if not isinstance(model, JEPA):
        own = {name: value for name, value in own.items() if name in stored}
        stored = {name: stored[name] for name in own}
    found = mismatch(own, stored)
    if found:
        why = "\n  ".join(["\nIts settings were others:", *changed]) if changed else ""
        raise ValueError(f"the weights in {path} do not fit the model: {found}{why}")


def earlier_settings(path: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a checkpoint was trained with: of the config.yaml beside it, else what it says itself."""
    config = read_config(path)
    if config:
        return config
    model = {key: value for key, value in (content.get("hyper_parameters") or {}).items() if not key.startswith("_")}
    return {"model": model, "seed_everything": content.get("run_seed")}


def refuse_other_optimizer(trainer: Trainer) -> None:
    """See that an optimiser's restored state is of its kind: torch takes any, and fails in the first step.

    Raises:
        ValueError: it is not.
    """
    for optimizer in trainer.optimizers:
        missing = sorted({key for group in optimizer.param_groups for key in optimizer.defaults.keys() - group.keys()})
        if missing:
            kind = type(getattr(optimizer, "optimizer", optimizer)).__name__
            raise ValueError(
                f"expected the state of an optimiser {kind} in {trainer.ckpt_path}, got another's (it has no "
                f"{', '.join(missing)}): resume with the model.optimizer that the run began with"
            )


def changed_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """List the changed settings that affect training, one per line: `model.objective: SmoothL1 -> L1`.

    Where a class is another, its own settings are not listed. What only one of them says is none.
    """
    sides = [{key: side.get(key) for key in SETTINGS} for side in (before, now)]
    found = list(_differences(sides[0], sides[1]))
    return [*found[:_LISTED], *([f"and {len(found) - _LISTED} more"] if len(found) > _LISTED else [])]


def _differences(before: Any, now: Any, key: str = "") -> Iterator[str]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        names = [before.get("class_path"), now.get("class_path")]
        if names[0] != names[1]:
            yield f"{key}: {_short(names[0])} -> {_short(names[1])}"
            return
        for name in before:
            inside = name if name != "init_args" else ""
            place = ".".join(filter(None, (key, inside)))
            if name in now and (key != "trainer" or name in _TRAINER):
                yield from _differences(before[name], now[name], place)
    elif _plain(before) != _plain(now) and not (isinstance(before, Mapping) and now is None and not key):
        yield f"{key}: {_short(before)} -> {_short(now)}"


def _plain(value: Any) -> str:
    """As JSON, in which tuples and lists are the same, and 1.0 is 1."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, sort_keys=True, default=str)


def _short(value: Any) -> str:
    if isinstance(value, Mapping) and "class_path" in value:
        value = value["class_path"]
    text = value.rpartition(".")[2] if isinstance(value, str) and value.isascii() and "/" not in value else None
    text = text or ("null" if value is None else str(value))
    return text if len(text) <= _WIDTH else f"{text[:_WIDTH]}..."
