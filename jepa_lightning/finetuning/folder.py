"""The folder of a call of `finetune`: an earlier call's fits are removed, or kept to resume it.

Of several processes the first one writes. The others read there which fits are complete, and take the same steps.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch.distributed as dist

from jepa_lightning.finetuning.outcome import REPORT
from jepa_lightning.run.locks import locked
from jepa_lightning.run.writing import plain, replacing


def is_first() -> bool:
    """Tell whether this is the only process of a call or the first one: also before their group is there."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank() == 0
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))


def held(out: Path) -> AbstractContextManager[None]:
    """Inside, no other call writes to the folder."""
    refusal = f"expected {out} for this fine-tuning, but another one is under way"
    return locked(out / ".lock", refusal) if is_first() else nullcontext()


def begin(out: Path, settings: Mapping[str, Any], *, resume: bool) -> bool:
    """Remove an earlier call's fits, unless this one resumes it; return whether that one is complete.

    Raises:
        ValueError: the call to resume had other settings.
    """
    stored, report = out / "fits" / "settings.json", out / REPORT
    written = json.dumps(plain(dict(settings)), sort_keys=True)
    if resume and (stored.is_file() or report.is_file()):
        complete = not stored.is_file()
        where = report if complete else stored
        earlier = json.loads(where.read_text())
        if json.dumps(earlier["settings"] if complete else earlier, sort_keys=True) != written:
            raise ValueError(f"expected the settings of {where} to resume, got others: leave resume out to start anew")
        if complete:
            return True
    if not is_first():
        return False
    if not resume:
        shutil.rmtree(out / "fits", ignore_errors=True)
    stored.parent.mkdir(parents=True, exist_ok=True)
    with replacing(stored) as beside:
        beside.write_text(written)
    return False
