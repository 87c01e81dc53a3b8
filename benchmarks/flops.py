"""Floating-point operations of a model's training step, and what a card could do."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from jepa_lightning import JEPA
from jepa_lightning.pretexts.masked import ask
from jepa_lightning.tokens import Latents, take

# TFLOP/s without sparsity, from NVIDIA's data sheets: bf16 tensor cores, tf32 tensor cores, fp32. First match counts.
PEAKS = {
    "H100 PCIe": (756.0, 378.0, 51.0),
    "H100 NVL": (835.0, 417.0, 60.0),
    "H200 NVL": (835.0, 417.0, 60.0),
    "H100": (989.0, 494.0, 67.0),
    "H200": (989.0, 494.0, 67.0),
    "A100": (312.0, 156.0, 19.5),
    "A40": (149.7, 74.8, 37.4),
    "L40S": (362.0, 183.0, 91.6),
    "L4": (121.0, 60.0, 30.3),
    "RTX 4090": (165.0, 82.6, 82.6),
    "RTX 3090": (71.0, 35.6, 35.6),
}
PRECISIONS = ("bf16", "tf32", "32")


def peak(card: str, precision: str) -> float | None:
    """Dense peak in FLOP/s of the card that CUDA calls `card`, or None where it is not known (or a slice of a card)."""
    for name, peaks in PEAKS.items():
        if re.search(rf"\b{name}\b", card) and "MIG" not in card:
            return peaks[PRECISIONS.index(precision)] * 1e12
    return None


def model_flops(model: JEPA, image: tuple[int, ...], steps: range) -> dict[str, float]:
    """FLOPs of one training step, mean over the masks of `steps`: forward, and backward as twice the forward.

    The target counts once (it has no backward); nothing that is computed again counts. Matrix products, attention and
    convolutions count, a multiply-add as two. The pass is made on the meta device, where nothing is really computed.

    Args:
        model: on the CPU, without a trainer.
        image: shape (B, C, H, W) of a batch.
        steps: training steps whose masks are drawn.

    Returns:
        FLOPs of `target`, `context` and `predictor`, and the `step`, their sum.
    """
    twin = copy.deepcopy(model).to("meta")
    tokens = twin.tokenizer({"image": torch.empty(image, device="meta")})
    total = {"target": float(_count(twin.target, tokens)), "context": 0.0, "predictor": 0.0}
    for step in steps:
        for mask in twin.masker(tokens, twin.mask_generator("train", step, 0)):
            values = torch.empty(*mask.context.shape, twin.encoder.dim, device="meta")
            context = Latents(values=values, positions=take(tokens.positions, mask.context))
            total["context"] += 3 * _count(twin.encoder, tokens, mask.context) / len(steps)
            total["predictor"] += 3 * _count(twin.predictor, context, ask(tokens, mask)) / len(steps)
    return {**total, "step": sum(total.values())}


def _count(run: Callable[..., Tensor], *args: Any) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run(*args)
    return counter.get_total_flops()
