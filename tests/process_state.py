"""What a test must leave as it found it: the state of the process that other tests depend on."""

import os
import signal
import sys

import torch

SEED = ("PL_GLOBAL_SEED", "PL_SEED_WORKERS")  # which a run of Lightning's leaves behind; the next would take it
OF_OTHERS = (
    *("PYTEST_CURRENT_TEST", "PYGAME_HIDE_SUPPORT_PROMPT", "CUDA_DEVICE_ORDER"),
    *("LD_LIBRARY_PATH", "QT_QPA_FONTDIR", "QT_QPA_PLATFORM_PLUGIN_PATH"),
    "_TORCHINDUCTOR_PYOBJECT_TENSOR_DATA_PTR",
)
"""Of pytest, of importing gymnasium beside pygame, of Lightning where it chooses a GPU, of importing OpenCV (gym-pusht
does), and of torch's compiler."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGALRM)


def forget_seed():
    for name in SEED:
        os.environ.pop(name, None)


def process_state():
    """The state by name; equal values are the same state."""
    found = {f"variable {name}": value for name, value in os.environ.items() if name not in OF_OTHERS}
    found |= {f"handler of {number.name}": signal.getsignal(number) for number in SIGNALS}
    return found | {
        "working directory": os.getcwd(),
        "sys.path": list(sys.path),
        "threads": torch.get_num_threads(),
        "default dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "precision of products": torch.get_float32_matmul_precision(),
    }


def changes(before, after):
    """Each thing that is not as it was: what it was and what it is."""
    names = sorted({*before, *after})
    return {n: (before.get(n), after.get(n)) for n in names if before.get(n) != after.get(n)}
