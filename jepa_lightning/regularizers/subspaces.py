"""SIGReg in random subspaces (Sub-JEPA)."""

from __future__ import annotations

import torch
from torch import Tensor

from jepa_lightning.regularizers.base import On, RegularizerSpec
from jepa_lightning.regularizers.sigreg import SIGReg, draw_directions
from jepa_lightning.schedules import Schedule


class SubspaceSIGReg(SIGReg):
    """`SIGReg` in random subspaces of the representations in place of the whole space (Sub-JEPA: Zhao et al. 2026).

    arXiv:2605.09241, there for world models: representations need not fill all of the space. Each subspace has a random
    orthonormal basis, drawn once and kept in the checkpoint; at each step, directions are drawn within the subspaces,
    as many in each. The value is the mean over subspaces.

    Args:
        spec: widths, given by the module.
        subspaces: number of subspaces (32 in the official code).
        dim: dimensions of a subspace; None for the width over `subspaces`, at least 1.
        directions: number of random directions per step, over all subspaces; a multiple of `subspaces`.
        points: number of knots of the integral.
        limit: upper limit of the integral.
        on: representations to regularize: context, target or predicted.
        weight: weight in the loss, a number or a schedule.
        gather: see `SIGReg`.
        per_sample: see `SIGReg`.

    Raises:
        ValueError: a subspace would be larger than the space, or directions are no multiple of the subspaces.

    Examples:
        >>> import torch
        >>> from jepa_lightning.pretexts import Outcome
        >>> from jepa_lightning.regularizers import RegularizerSpec, SubspaceSIGReg
        >>> from jepa_lightning.tokens import Latents
        >>> sigreg = SubspaceSIGReg(RegularizerSpec(dim=8, out=8), subspaces=4, directions=64)
        >>> gaussian = torch.randn(512, 1, 8, generator=torch.Generator().manual_seed(0))
        >>> bool(sigreg(Outcome(context=[Latents(values=gaussian)])) < 3)
        True
    """

    name = "subspace_sigreg"
    bases: Tensor

    def __init__(
        self,
        spec: RegularizerSpec,
        *,
        subspaces: int = 32,
        dim: int | None = None,
        directions: int = 1024,
        points: int = 17,
        limit: float = 5.0,
        on: On = "context",
        weight: float | Schedule = 0.05,
        gather: bool = True,
        per_sample: bool = False,
    ) -> None:
        super().__init__(
            spec, directions=directions, points=points, limit=limit, on=on, weight=weight, gather=gather,
            per_sample=per_sample,
        )  # fmt: skip
        if subspaces < 1 or directions % subspaces:
            raise ValueError(f"directions must be a multiple of the subspaces, got {directions} and {subspaces}")
        dim = max(self.dim // subspaces, 1) if dim is None else dim
        if not 1 <= dim <= self.dim:
            raise ValueError(
                f"a subspace must have from 1 to {self.dim} dimensions, as representations have, got {dim}"
            )
        drawn = torch.randn(subspaces, self.dim, dim)
        self.register_buffer("bases", torch.linalg.qr(drawn).Q.contiguous())

    def draw(self, features: Tensor) -> Tensor:
        """Draw the random unit directions (D, directions) of this step, as many in each subspace."""
        count, _, dim = self.bases.shape
        within = draw_directions(features.new_empty(0, dim), self.directions, self.seed)  # (dim, directions)
        within = within.unflatten(1, (count, -1)).transpose(0, 1)  # (subspaces, dim, directions of each)
        return (self.bases.to(features.dtype) @ within).transpose(0, 1).flatten(1)
