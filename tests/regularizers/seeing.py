"""Regularizers and what they look at, shared by their tests."""

from jepa_lightning.pretexts import Outcome
from jepa_lightning.regularizers import RegularizerSpec, VICReg
from jepa_lightning.tokens import Latents


def vicreg(dim, **settings):
    return VICReg(RegularizerSpec(dim=dim, out=dim), **settings)


def seen(*contexts, **others):
    """An outcome with such contexts, (values) or (values, validity)."""
    values, valid = contexts if len(contexts) == 2 else (*contexts, None)
    return Outcome(context=[Latents(values=values, valid=valid)], **others)
