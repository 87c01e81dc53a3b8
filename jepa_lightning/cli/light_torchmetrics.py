"""Imports torchmetrics, which Lightning needs, without scipy.signal: an eighth of the time to the first step.

All that torchmetrics does with scipy.signal is to see whether it has `hamming`, and to add that name for its metric
SRMR where it does not. Here it is shown a module that has it. The real scipy.signal is imported by whoever needs it;
for SRMR import it first.
"""

import sys
from contextlib import suppress
from types import ModuleType

SIGNAL = "scipy.signal"

if SIGNAL not in sys.modules and "torchmetrics" not in sys.modules:
    shown = ModuleType(SIGNAL)
    shown.hamming = None  # type: ignore[attr-defined]
    sys.modules[SIGNAL] = shown
    with suppress(Exception):  # of a version that does more with it: Lightning imports it as it is
        import torchmetrics  # noqa: F401
    if sys.modules.get(SIGNAL) is shown:
        del sys.modules[SIGNAL]
