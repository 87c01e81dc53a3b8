"""Whole training steps of every modality with drawn sizes: a finite loss and finite gradients, or a ValueError."""

from functools import partial

import pytest
import torch
from fuzz_helpers import bounded, fuzz, must_be_ours
from hypothesis import given
from hypothesis import strategies as st

from jepa_lightning import JEPA
from jepa_lightning.data import Collate
from jepa_lightning.encoders import ViT
from jepa_lightning.maskers import BlockUnion, OrderedRuns, Random, RandomCount, SpatialBlocks, TimeSpans, Tube
from jepa_lightning.predictors import TransformerPredictor
from modalities.audio import Audio
from modalities.graph import Graph
from modalities.graph.graphs import RawGraph
from modalities.graph.transforms import Cutting, LazyGraph, join_graphs, plain_cut
from modalities.image import Image
from modalities.pointcloud import PointCloud
from modalities.pointcloud.transforms import Augment, TakePoints
from modalities.video import Video

TINY = partial(ViT, width=16, depth=1, heads=1)
sizes = st.one_of(st.integers(1, 40), st.sampled_from([0, -1]))
batches = st.one_of(st.integers(1, 4), st.integers(1, 64))
seeds = st.integers(0, 99)
kinds = st.sampled_from([torch.float32, torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.uint8])
weights = st.sampled_from([torch.float32, torch.float32, torch.bfloat16])
simple_maskers = st.sampled_from([None, Random(), Random(target_ratio=0.3, targets=3), RandomCount(targets=3)])
grid_maskers = simple_maskers | st.sampled_from([BlockUnion(), Tube(), TimeSpans(spans=2)])


def attempt(make):
    """What `make` returns, or None where it refuses with a short ValueError."""
    try:
        return make()
    except ValueError as error:
        must_be_ours(error)
        return None


def train(modality, batch, *, weights=torch.float32, seed=0):
    """One step: tokens, masks, both encoders, the predictor, the loss and its gradients."""
    torch.manual_seed(seed)
    module = JEPA(modality, predictor=partial(TransformerPredictor, width=8, depth=1, heads=1))
    if module.tokenizer.needs_statistics and attempt(lambda: module.tokenizer.estimate([batch]) or True) is None:
        return
    before = torch.get_default_dtype()
    try:
        if weights != torch.float32:  # as Lightning's bf16-true
            torch.set_default_dtype(weights)
            module = module.to(weights)
            batch = {k: v.to(weights) if torch.is_tensor(v) and v.is_floating_point() else v for k, v in batch.items()}
        outcome = attempt(lambda: module.step(batch, torch.Generator().manual_seed(seed)))
        if outcome is None:
            return
        loss = sum(module.losses(outcome).values())
        assert loss.isfinite()
        loss.backward()
        found = [p.grad for p in module.parameters() if p.grad is not None]
        assert found
        assert all(bool(grad.isfinite().all()) for grad in found)
        assert module.embed(batch).isfinite().all()
    finally:
        torch.set_default_dtype(before)


def values(shape, dtype, seed, scale=1.0):
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale
    return (drawn * 50 + 128).clamp(0, 255).to(dtype) if dtype == torch.uint8 else drawn.to(dtype)


@given(st.data())
@fuzz(25)
def test_images(data):
    patch = data.draw(st.one_of(st.integers(1, 9), st.tuples(sizes, sizes)))
    height, width = (patch, patch) if isinstance(patch, int) else patch
    size = data.draw(st.one_of(st.tuples(sizes, sizes), st.tuples(st.integers(1, 7), st.integers(1, 7))))
    if data.draw(st.integers(0, 3)):
        size = size[0] * height, size[1] * width
    channels = data.draw(st.sampled_from([1, 3, 3, 4, 7, 0]))
    masker = data.draw(grid_maskers)
    if size[0] * size[1] * channels > 60_000 or size[0] * size[1] > 700 * max(1, height * width):
        return
    with bounded():
        modality = attempt(
            lambda: Image(image_size=size, patch_size=patch, channels=channels, encoder=TINY, masker=masker)
        )
        if modality is not None:
            scale = data.draw(st.sampled_from([1.0, 0.0, 100.0]))
            image = values((data.draw(batches), channels, *size), data.draw(kinds), data.draw(seeds), scale)
            train(modality, {"image": image}, weights=data.draw(weights))


@given(st.data())
@fuzz(25)
def test_clips(data):
    frames, tubelet = data.draw(st.integers(1, 9)), data.draw(st.integers(0, 4))
    frames *= tubelet if data.draw(st.integers(0, 3)) else 1
    patch = data.draw(st.integers(1, 6))
    size = data.draw(
        st.tuples(st.integers(1, 6), st.integers(1, 6)).map(lambda grid: (grid[0] * patch, grid[1] * patch))
    )
    channels = data.draw(st.sampled_from([1, 3, 5]))
    settings = {"frames": frames, "tubelet": tubelet, "image_size": size, "patch_size": patch, "channels": channels}
    with bounded():
        masker = data.draw(grid_maskers)
        modality = attempt(lambda: Video(**settings, encoder=TINY, masker=masker))
        if modality is not None:
            batch = min(data.draw(batches), max(1, 200_000 // (frames * size[0] * size[1] * channels)))
            clip = values((batch, channels, frames, *size), data.draw(kinds), data.draw(seeds))
            train(modality, {"video": clip}, weights=data.draw(weights))


@given(st.data())
@fuzz(25)
def test_sounds(data):
    rate = data.draw(st.one_of(st.integers(1, 48000), st.sampled_from([8000, 16000])))
    settings = {
        "sample_rate": rate,
        "seconds": data.draw(st.floats(0.0, 0.5)),
        "mels": data.draw(st.sampled_from([4, 8, 16, 40, 3])),
        "hop_ms": data.draw(st.sampled_from([10.0, 5.0, 0.01, 20.0])),
        "f_min": data.draw(st.sampled_from([0.0, 20.0, 300.0])),
        "kind": data.draw(st.sampled_from(["log_mel", "fbank"])),
        "patch_size": data.draw(st.tuples(st.sampled_from([4, 8, 2, 5, 0]), st.integers(0, 6))),
    }
    with bounded():
        masker = data.draw(grid_maskers)
        modality = attempt(lambda: Audio(**settings, encoder=TINY, masker=masker))
        if modality is None or modality.grid[0] * modality.grid[1] > 700:
            return
        batch = data.draw(batches)
        kind = data.draw(kinds)
        wave = values((batch, modality.samples), kind, data.draw(seeds), data.draw(st.sampled_from([0.1, 0.0, 1e4])))
        given_batch = {"waveform": wave}
        if data.draw(st.booleans()):
            given_batch["length"] = torch.randint(1, modality.samples + 1, (batch,))
        train(modality, given_batch, weights=data.draw(weights))


def cloud(data):
    """Points of odd kinds: copies, on a line, all zero, some or all of them NaN or infinite, far away."""
    count, features = data.draw(st.one_of(st.integers(1, 20), st.integers(1, 2000))), data.draw(st.integers(0, 3))
    points = values((count, 3 + features), data.draw(kinds), data.draw(seeds))
    kind = data.draw(st.sampled_from(["plain", "copies", "line", "zero", "nan", "inf", "far", "huge", "all nan"]))
    if kind == "copies":
        points = points[torch.arange(count) % max(1, count // 7)]
    elif kind == "line":
        points[:, 1:3] = 0
    elif kind == "zero":
        points.zero_()
    elif kind in ("nan", "inf", "all nan") and points.is_floating_point():
        points[:: 3 if kind != "all nan" else 1, 0] = float("inf" if kind == "inf" else "nan")
    elif kind in ("far", "huge") and points.is_floating_point():
        points[:, :3] += 1e4 if kind == "far" else torch.finfo(points.dtype).max / 8
    return points


@pytest.mark.long
@given(st.data())
@fuzz(30)
def test_clouds(data):
    groups, group_size = data.draw(st.integers(1, 24)), data.draw(st.integers(1, 16))
    points = data.draw(st.integers(1, 200))
    masker = data.draw(simple_maskers | st.sampled_from([OrderedRuns(targets=2), SpatialBlocks(targets=2)]))
    features = data.draw(st.integers(0, 1))
    with bounded():
        modality = attempt(
            lambda: PointCloud(
                points=points, features=features, groups=groups, group_size=group_size, encoder=TINY, masker=masker
            )
        )
        if modality is None:
            return
        take = TakePoints(points, features=features)
        if data.draw(st.booleans()):
            take = Augment(points, features=features, rotation="so3", jitter=0.01, dropout=0.5)
        samples = []
        for one in [cloud(data) for _ in range(data.draw(st.integers(1, 3)))]:
            try:
                samples.append(take({"points": one, "labels": {}})["points"])
            except (OSError, ValueError) as error:
                must_be_ours(error)
        if samples:
            times = data.draw(st.sampled_from([1, 1, 20]))
            batch = torch.stack(samples * times)
            assert batch.isfinite().all()
            train(modality, {"points": batch.to(data.draw(kinds))}, weights=data.draw(weights))


@st.composite
def graph(draw):
    """Graphs of odd kinds: none or one node, no edges, loops, several parts, directed and repeated edges, NaN."""
    nodes, features = draw(st.one_of(st.integers(0, 3), st.integers(1, 60))), draw(st.sampled_from([3, 3, 3, 3, 2]))
    most = draw(st.sampled_from([0, 4, 100]))
    ends = st.integers(-1 if draw(st.integers(0, 20)) == 0 else 0, max(0, nodes - 1))
    pairs = draw(st.lists(st.tuples(ends, ends), max_size=most if nodes else 0))
    if draw(st.booleans()):
        pairs += [(b, a) for a, b in pairs]
    x = torch.randn(nodes, features, generator=torch.Generator().manual_seed(nodes))
    if nodes and draw(st.integers(0, 9)) == 0:
        x[0, 0] = draw(st.sampled_from([float("nan"), float("inf")]))
    edges = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T.contiguous()
    return RawGraph(nodes=x, edges=edges, edge_features=torch.ones(edges.shape[1], 2) if draw(st.booleans()) else None)


@pytest.mark.long
@given(st.data())
@fuzz(30)
def test_graphs(data):
    from modalities.graph.reading import to_graph

    hops, walk = data.draw(st.integers(0, 3)), data.draw(st.integers(1, 9))
    cutting = {"features": 3, "edge_features": data.draw(st.sampled_from([0, 0, 2])), "hops": hops, "walk": walk}
    cutting["patches"] = data.draw(st.integers(1, 12))
    positions = data.draw(st.sampled_from(["max", "mean"]))
    with bounded():
        masker = data.draw(simple_maskers)
        modality = Graph(**cutting, positions=positions, layers=1, encoder=TINY, masker=masker)
        samples = []
        for number, one in enumerate(data.draw(st.lists(graph(), min_size=1, max_size=4))):
            wanted = {name: cutting[name] for name in ("features", "edge_features")}
            raw = attempt(lambda one=one, wanted=wanted: to_graph(one, **wanted))
            lazy = raw and LazyGraph(raw, cutting=Cutting(**cutting), index=number)
            sample = lazy and attempt(lambda lazy=lazy: plain_cut({"graph": lazy, "labels": {}, "id": ""}))
            samples += [sample] if sample else []
        if samples:
            batch = Collate(join_graphs)(samples * data.draw(st.sampled_from([1, 1, 16])))
            train(modality, batch, weights=data.draw(st.just(torch.float32)))
