"""Energy: how badly a part of a sample is predicted from the rest, and how well that tells broken samples.

A JEPA is an energy-based model (LeCun 2022, section 4.4): its energy of (x, y) is the prediction error in the space of
representations, low where y is compatible with x.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from jepa_lightning.evaluation.auroc import Detection, detect
from jepa_lightning.evaluation.token_errors import TokenErrors, token_errors
from jepa_lightning.modality import Batch
from jepa_lightning.module import JEPA
from jepa_lightning.tokens import Ragged, Tokens, take

DRAWS = 8  # of masks
_NEVER = 2**31  # times that a token is to be hidden before fewer masks are drawn


@torch.no_grad()
def energy(jepa: JEPA, batch: Batch | Tokens, *, draws: int = DRAWS, seed: int = 0) -> Tensor:
    """Compute how implausible each sample of a batch is: (B,), float32.

    The mean over hidden tokens, and over several draws of the JEPA's own masks, of the distance between the predicted
    and the target representation. Nothing bounds it, and nothing calibrates it: compare samples of one model. A sample
    of which no token was hidden is NaN.

    Args:
        jepa: of a pretext that hides tokens, in eval mode, as `load_jepa` gives it.
        batch: as its data module makes it, or its tokens.
        draws: of masks; more of them are less noisy.
        seed: of the masks.

    Raises:
        ValueError: the pretext hides nothing.

    Examples:
        >>> import torch
        >>> from functools import partial
        >>> from jepa_lightning import JEPA
        >>> from jepa_lightning.encoders import ViT
        >>> from jepa_lightning.evaluation.energy import energy
        >>> from modalities.image import Image
        >>> jepa = JEPA(Image(image_size=48, patch_size=8, encoder=partial(ViT, width=16, depth=1, heads=2))).eval()
        >>> energy(jepa, {"image": torch.randn(5, 3, 48, 48)}).shape
        torch.Size([5])
    """
    return _of_samples(token_errors(jepa, batch, draws=draws, enough=_NEVER, seed=seed))


def break_tokens(tokens: Tokens, generator: torch.Generator) -> Iterator[tuple[str, Tokens]]:
    """Break every sample of a batch, in each way that there is: a name, and tokens at the same places.

    "shuffled": the contents of a sample's tokens change places. "half another's": the second half of the tokens, in
    their order (the lower half of an image, the end of a clip or a text), is that of another sample; where places
    differ from sample to sample (clouds, graphs), or in a batch of one sample, there is none.
    """
    device = tokens.device
    count, size = tokens.count, tokens.batch_size
    order = torch.arange(count, device=device, dtype=torch.float32).expand(size, count)
    drawn = torch.rand(size, count, generator=generator).to(device)
    real, filler = torch.ones_like(order, dtype=torch.bool) if tokens.valid is None else tokens.valid, 1.0 + order
    here = torch.where(real, order - count, filler).argsort(1)  # real tokens, then padding
    index = torch.empty_like(here).scatter_(1, here, torch.where(real, drawn - 1.0, filler).argsort(1))
    raw = tokens.values
    moved = raw.take(index, tokens.valid) if isinstance(raw, Ragged) else take(raw, index)
    yield "shuffled", replace(tokens, values=moved)
    if isinstance(raw, Ragged) or size < 2 or tokens.positions.shape[0] != 1:
        return
    shift = int(torch.randint(1, size, (), generator=generator))
    swapped = (order >= (real.sum(1, keepdim=True) + 1) // 2) & real & real.roll(shift, 0)
    values = torch.where(swapped.view(size, count, *[1] * (raw.ndim - 2)), raw.roll(shift, 0), raw)
    yield "half another's", replace(tokens, values=values)


@torch.no_grad()
def detection(jepa: JEPA, batches: Iterable[Batch], *, draws: int = DRAWS, seed: int = 0) -> dict[str, Detection]:
    """Compute how well the energy tells broken samples from the same ones unbroken, by what is broken.

    Args:
        jepa: as `energy` takes it.
        batches: of samples.
        draws: of masks for each sample.
        seed: of the masks, and of what is broken.

    Raises:
        ValueError: the pretext hides nothing, or there is no sample.
    """
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, list[Tensor]] = {}
    for number, batch in enumerate(batches):
        how = {"draws": draws, "enough": _NEVER, "seed": seed + number}
        errors = token_errors(jepa, batch, **how)
        true = _of_samples(errors)
        for name, broken in break_tokens(errors.tokens, generator):
            scores = torch.stack([true, _of_samples(token_errors(jepa, broken, **how))], dim=1)
            found.setdefault(name, []).append(scores[scores.isfinite().all(1)].cpu())
    pairs = {name: torch.cat(parts) for name, parts in found.items()}
    if not any(map(len, pairs.values())):
        raise ValueError("expected samples with hidden tokens to measure the energy of, got none")
    return {name: detect(*scores.unbind(1), seed=seed) for name, scores in pairs.items() if len(scores)}


def _of_samples(errors: TokenErrors) -> Tensor:
    """Average the errors of a sample's tokens, each as often as it was hidden."""
    return (errors.values * errors.times).nansum(1) / errors.times.sum(1)
