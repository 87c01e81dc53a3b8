"""Masks that are drawn ahead are those that would have been drawn."""

import copy
import pickle
from pathlib import Path

import pytest
import torch

from jepa_lightning.maskers import BlockUnion, MixedMasker, MultiBlock, MultiMasker, Random, Tube, WholeUnits
from jepa_lightning.scale import ahead
from jepa_lightning.scale.ahead import MasksAhead, reads_shapes_only
from jepa_lightning.tokens import Tokens, send

SHAPES_ONLY = [
    MultiBlock(),
    MultiBlock(fixed_size=True),
    BlockUnion(),
    Random(target_ratio=0.5),
    Tube(Random(target_ratio=0.75)),
    MultiMasker([BlockUnion(), BlockUnion(blocks=2, scale=(0.7, 0.7))]),
    MixedMasker([MultiBlock(), Random(target_ratio=0.6)], shares=[3, 1]),
]


@pytest.fixture
def on_the_cpu(monkeypatch):
    monkeypatch.setattr(ahead, "DEVICES", {"cpu"})


def tokens(batch=3, grid=(2, 8, 8), **words):
    count = torch.Size(grid).numel()
    return Tokens(values=torch.randn(batch, count, 5), positions=torch.rand(1, count, len(grid)), grid=grid, **words)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def same(mine, other):
    assert len(mine) == len(other)
    for one, two in zip(mine, other, strict=True):
        for name in ("context", "targets", "context_valid", "targets_valid"):
            a, b = getattr(one, name), getattr(two, name)
            assert (a is None) == (b is None)
            assert a is None or torch.equal(a, b)


@pytest.mark.parametrize("masker", SHAPES_ONLY, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("grid", [(2, 8, 8), (12, 12)])
def test_masks_drawn_ahead_are_the_same(on_the_cpu, masker, grid):
    if isinstance(masker, Tube) and len(grid) == 2:
        masker = Tube(Random(target_ratio=0.5))
    drawer = MasksAhead()
    drawer.draw(masker, tokens(grid=grid), seeded(0))
    drawer.prepare(1)
    assert drawer._drawn is not None
    generators = seeded(1), seeded(1)
    found = drawer.draw(masker, tokens(grid=grid), generators[0])
    same(found, masker(tokens(grid=grid), generators[1]))
    assert torch.equal(*(generator.get_state() for generator in generators))


class Counts(MultiBlock):
    """Counts its draws, and says that it reads shapes only."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    @property
    def reads_shapes_only(self):
        return True

    def __call__(self, tokens, generator):
        self.calls += 1
        return super().__call__(tokens, generator)


@pytest.mark.parametrize("change", ["nothing", "seed", "batch", "grid", "masker", "drawn"])
def test_only_the_same_draw_is_taken(on_the_cpu, change):
    masker, drawer = Counts(), MasksAhead()
    drawer.draw(masker, tokens(), seeded(0))
    drawer.prepare(1)
    drawer._drawn[1].result()
    given = tokens(batch=4 if change == "batch" else 3, grid=(4, 4, 8) if change == "grid" else (2, 8, 8))
    generator = seeded(2 if change == "seed" else 1)
    if change == "drawn":
        torch.rand(3, generator=generator)
    chosen = Counts() if change == "masker" else masker
    state = generator.get_state()
    found = drawer.draw(chosen, given, generator)
    assert masker.calls + (chosen.calls if chosen is not masker else 0) == (2 if change == "nothing" else 3)
    same(found, MultiBlock()(given, torch.Generator().set_state(state)))


@pytest.mark.parametrize("kind", ["padding", "values", "units"])
def test_masks_that_depend_on_more_are_not_drawn_ahead(on_the_cpu, kind):
    class Salient(MultiBlock):
        def __call__(self, tokens, generator):
            return super().__call__(tokens, generator)

    masker = {"padding": MultiBlock(), "values": Salient(), "units": WholeUnits(unit="word")}[kind]
    words = {"valid": torch.ones(3, 128, dtype=torch.bool)} if kind == "padding" else {}
    if kind == "units":
        words = {"units": {"word": torch.arange(128).expand(3, -1)}}
    assert not reads_shapes_only(masker, tokens(**words))
    drawer = MasksAhead()
    drawer.draw(masker, tokens(**words), seeded(0))
    drawer.prepare(1)
    assert drawer._drawn is None


def test_on_a_cpu_nothing_is_drawn_ahead():
    drawer = MasksAhead()
    drawer.draw(MultiBlock(), tokens(), seeded(0))
    drawer.prepare(1)
    assert drawer._drawn is None


def test_copies_begin_anew(on_the_cpu):
    drawer = MasksAhead()
    drawer.draw(MultiBlock(), tokens(), seeded(0))
    drawer.prepare(1)
    assert copy.deepcopy(drawer)._drawn is None
    assert pickle.loads(pickle.dumps(drawer))._drawn is None


class Elsewhere:
    """Stands in for a CUDA device."""

    type = "cuda"


def test_a_copy_to_a_card_goes_through_pinned_memory(monkeypatch):
    steps = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda t: steps.append("pinned") or t)
    monkeypatch.setattr(torch.Tensor, "to", lambda t, device, non_blocking: steps.append(non_blocking) or t)
    send(torch.zeros(2), Elsewhere())
    assert steps == ["pinned", True]


def test_nothing_else_copies_to_a_card_without_waiting():
    root = Path(ahead.__file__).parents[2]
    files = [path for room in ("jepa_lightning", "modalities") for path in (root / room).rglob("*.py")]
    assert [p.name for p in files if "non_blocking=True" in p.read_text(encoding="utf-8")] == ["tokens.py"]
