"""An encoder as a graph: ONNX, and torch.export's .pt2."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from jepa_lightning.config.extras import extra

Outputs = tuple[Tensor, ...]


def write_pt2(module: nn.Module, given: Outputs, folder: Path) -> Any:
    """Write `model.pt2`, of any batch size, and give a function that runs it from the file."""
    with _quiet():
        program = torch.export.export(module, given, dynamic_shapes=_free(given), strict=False)
        torch.export.save(program, folder / "model.pt2")
        loaded = torch.export.load(folder / "model.pt2").module()
    return lambda inputs: loaded(*inputs)


def write_onnx(module: Any, given: Outputs, folder: Path) -> Any:
    """Write `model.onnx`, of any batch size, and give a function that runs it in onnxruntime."""
    packages = ("onnx", "onnxscript", "onnxruntime")
    with extra("export", who="exporting to onnx needs", packages=packages, broken="onnx does not load ({})".format):
        import onnxruntime
        import onnxscript  # noqa: F401

    with _quiet():
        program = torch.export.export(module, given, dynamic_shapes=_free(given), strict=False)
        torch.onnx.export(
            program,
            (),
            folder / "model.onnx",
            input_names=list(module.names),
            output_names=["features", "tokens"],
            dynamo=True,
            verbose=False,
            external_data=False,
        )
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    kept = {known.name for known in session.get_inputs()}

    def run(inputs: Outputs) -> list[Tensor]:
        named = {name: value.numpy() for name, value in zip(module.names, inputs, strict=True) if name in kept}
        return [torch.from_numpy(array) for array in session.run(None, named)]

    return run


def _free(given: Outputs) -> tuple[Any, ...]:
    """Axes that may have any size: the first of one tensor; of several, all that the trace leaves open."""
    if len(given) == 1:
        return ({0: torch.export.Dim("batch", min=1, max=4096)},)
    auto = torch.export.Dim.AUTO
    return (tuple(dict.fromkeys(range(value.ndim), auto) for value in given),)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's hints on its own workings."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
