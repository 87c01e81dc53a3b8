"""What each of two processes finds for test_gather.py: values and gradients over the samples of both.

Each process has a part of a batch. Its gradients are averaged over the processes by DDP, as in training.
"""

from dataclasses import replace

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from jepa_lightning.pretexts import InfoNCE, Outcome, Prediction, Sigmoid
from jepa_lightning.regularizers import RegularizerSpec, SIGReg, TrajectoryVICReg, VICReg, sum_over_ranks
from jepa_lightning.tokens import Latents

WIDE, DEEP, TOKENS = 6, 5, 3
PARTS = {"even": (4, 4), "uneven": (5, 2), "one sample": (6, 1)}  # samples of each process
ALIGNED = ("infonce", "sigmoid")
NAMES = ("context", "predicted", "exact", "sigreg", "sigreg of tokens", "over time", "over batch")
TERMS = {"variance": 2.0, "covariance": 0.3, "target_std": 0.7}


class Net(nn.Module):
    """A batch to its regularizer's value."""

    def __init__(self, regularizer):
        super().__init__()
        torch.manual_seed(3)
        self.layer = nn.Linear(WIDE, DEEP, dtype=torch.float64)
        self.regularizer = regularizer

    def forward(self, x, valid):
        values = 2 * self.layer(x).tanh()  # so that the bias has a gradient
        if isinstance(self.regularizer, Exact):
            return self.regularizer(values, valid)
        if isinstance(self.regularizer, TrajectoryVICReg):  # the tokens are moments
            states = Latents(values=values.flatten(0, 1).unsqueeze(1))
            return self.regularizer(Outcome(context=[states], actions=x.new_zeros(len(x), TOKENS - 1, 1)))
        contexts = [Latents(values=values, valid=valid), Latents(values=values.square())]
        latents = Prediction(predicted=values.unsqueeze(1), target=values.unsqueeze(1), valid=valid.unsqueeze(1))
        return self.regularizer(Outcome(context=contexts, predictions=[latents, replace(latents, valid=None)]))


class Aligned(nn.Module):
    """An alignment of two contexts."""

    def __init__(self, alignment):
        super().__init__()
        self.alignment = alignment

    def forward(self, outcome):
        return self.alignment([latents.pooled() for latents in outcome.context])


class Exact(nn.Module):
    """The terms in float64, of which `VICReg.forward` gives float32."""

    def __init__(self, vicreg):
        super().__init__()
        self.vicreg = vicreg

    def forward(self, values, valid):
        kept = valid.unsqueeze(-1)
        return self.vicreg.terms(values.masked_fill(~kept, 0).sum(1) / kept.sum(1))


def nets(gather):
    """Networks by name: VICReg on what it looks at, in float64, over time and batch, SIGReg; for None alignments."""
    spec = RegularizerSpec(dim=DEEP, out=DEEP)
    found = {on: Net(VICReg(spec, on=on, gather=gather, **TERMS)) for on in ("context", "predicted")}
    found["exact"] = Net(Exact(VICReg(spec, gather=gather, **TERMS)))
    for over in ("time", "batch"):
        found[f"over {over}"] = Net(TrajectoryVICReg(spec, over=over, gather=gather, **TERMS))
    if gather is None:
        return {"infonce": Net(Aligned(InfoNCE())), "sigmoid": Net(Aligned(Sigmoid(bias=-1.0)))}
    kinds = {"sigreg": False, "sigreg of tokens": True}
    sigreg = {name: SIGReg(spec, directions=16, gather=gather, tokens=tokens) for name, tokens in kinds.items()}
    return found | {name: Net(part) for name, part in sigreg.items()}


def batch(samples):
    """Inputs (B, N, W) and which are real; a mean and a spread that differ from sample to sample."""
    generator = torch.Generator().manual_seed(samples)
    x = torch.randn(samples, TOKENS, WIDE, generator=generator, dtype=torch.float64)
    x = x * torch.linspace(0.2, 2, samples, dtype=torch.float64)[:, None, None] + x[:, :1]
    valid = torch.rand(samples, TOKENS, generator=generator) > 0.3
    valid[:, 0] = True
    return x, valid


def value_and_gradients(net, *given):
    """A value, and the gradients of the layer's parameters."""
    net.zero_grad()
    value = net(*given)
    value.backward()
    return [value.detach().double(), *(p.grad.clone() for p in net.parameters())]


def main(folder):
    rank = dist.get_rank()
    found = {}
    for gather in (True, False, None):
        for name, net in nets(gather).items():
            parallel = DistributedDataParallel(net)
            for part, (first, second) in PARTS.items():
                if gather is not False or part == "even":
                    given = [t[:first] if rank == 0 else t[first:] for t in batch(first + second)]
                    found[name, part, gather] = value_and_gradients(parallel, *given)
    value = torch.tensor([1.0, 2.0], dtype=torch.float64) * (rank + 1)
    value.requires_grad_()
    total = sum_over_ranks(value)
    (total.square().sum() * (rank + 1)).backward()
    found["sum"] = [total.detach(), value.grad]
    torch.save(found, folder / f"{rank}.pt")
