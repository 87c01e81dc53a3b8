"""A training step of the official I-JEPA from a clone of its repository, for `benchmarks.gpu` and
`benchmarks.against_official`.

The code there is under a non-commercial licence: it is imported for measurement, and no part of it is here.
"""

from __future__ import annotations

import copy
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

Step = Callable[[int], Any]


@contextmanager
def official_step(
    clone: Path,
    model: str,
    *,
    image_size: int,
    patch_size: int,
    batch: int,
    device: torch.device,
    tuned: bool,
    bf16: bool = True,
) -> Iterator[Step]:
    """One step of it, masks of its own collator drawn before; inside, it can be called.

    Args:
        clone: the repository's folder.
        model: `vit_small`, `vit_large`, `vit_huge`.
        image_size: pixels.
        patch_size: pixels.
        batch: samples.
        device: where it runs.
        bf16: under autocast; else in float32.
        tuned: attention by SDPA, fused AdamW on CUDA, EMA in foreach kernels: what a user would change first.
    """
    before, disabled = sys.path[:], logging.root.manager.disable
    sys.path.insert(0, str(clone))
    logging.disable(logging.CRITICAL)
    attention: Any = None
    plain: Any = None
    try:
        import src.helper as helper
        import src.models.vision_transformer as vit
        from src.masks.multiblock import MaskCollator
        from src.masks.utils import apply_masks
        from src.utils.tensors import repeat_interleave_batch

        attention, plain = vit.Attention, vit.Attention.forward
        if tuned:
            attention.forward = _sdpa
        depth = 6 if model in ("vit_tiny", "vit_small", "vit_base") else 12
        collate = MaskCollator(
            input_size=image_size,
            patch_size=patch_size,
            enc_mask_scale=(0.85, 1.0),
            pred_mask_scale=(0.15, 0.2),
            aspect_ratio=(0.75, 1.5),
            nenc=1,
            npred=4,
            min_keep=10,
            allow_overlap=False,
        )
        sizes = {"patch_size": patch_size, "model_name": model, "crop_size": image_size}
        sizes |= {"pred_depth": depth, "pred_emb_dim": 384}
        try:
            with torch.device(device):
                encoder, predictor = helper.init_model(device=device, **sizes)
        except Exception:  # what it does with numpy may not like the device
            encoder, predictor = helper.init_model(device=device, **sizes)
        target = copy.deepcopy(encoder)
        for parameter in target.parameters():
            parameter.requires_grad = False
        optimizer, _, rates, decays = helper.init_opt(
            encoder=encoder,
            predictor=predictor,
            iterations_per_epoch=100,
            start_lr=2e-4,
            ref_lr=1e-3,
            warmup=10,
            num_epochs=100,
            wd=0.04,
            final_wd=0.4,
            final_lr=1e-6,
            use_bfloat16=False,
            ipe_scale=1.0,
        )
        if tuned and device.type == "cuda":
            for group in optimizer.param_groups:
                group["fused"] = True
        drawn = [collate([(torch.zeros(1),)] * batch)[1:] for _ in range(4)]
        masks = [([m.to(device) for m in kept], [m.to(device) for m in hidden]) for kept, hidden in drawn]
        images = torch.randn(batch, 3, image_size, image_size, device=device)

        def step(number: int) -> Any:
            kept, hidden = masks[number % 4]
            rates.step()
            decays.step()
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
                with torch.no_grad():
                    h = target(images)
                    h = F.layer_norm(h, (h.shape[-1],))
                    h = repeat_interleave_batch(apply_masks(h, hidden), batch, repeat=len(kept))
                loss = F.smooth_l1_loss(predictor(encoder(images, kept), kept, hidden), h)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            with torch.no_grad():
                mine, theirs = list(target.parameters()), list(encoder.parameters())
                if tuned:
                    torch._foreach_mul_(mine, 0.996)
                    torch._foreach_add_(mine, theirs, alpha=0.004)
                else:
                    for a, b in zip(mine, theirs, strict=True):
                        a.mul_(0.996).add_(0.004 * b)
            return loss.detach()

        yield step
    finally:
        if attention is not None:
            attention.forward = plain
        sys.path[:] = before
        logging.disable(disabled)


def _sdpa(self: Any, x: torch.Tensor) -> tuple[torch.Tensor, None]:
    batch, count, width = x.shape
    qkv = self.qkv(x).reshape(batch, count, 3, self.num_heads, width // self.num_heads)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, count, width)
    return self.proj_drop(self.proj(seen)), None
