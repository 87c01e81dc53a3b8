"""The point cloud modality as a whole: its encoder's embedding, training steps, pictures."""

from functools import partial

import pytest
import torch
from torch import nn

from jepa_lightning import JEPA
from jepa_lightning.encoders import ViT
from jepa_lightning.maskers import OrderedRuns, Random, SpatialBlocks
from jepa_lightning.predictors import TransformerPredictor
from modalities.pointcloud import PointCloud, pictures
from modalities.pointcloud.embedding import MiniPointNet

MASKERS = {
    "runs": OrderedRuns(),
    "runs_fixed": OrderedRuns(fixed_size=True),
    "blocks": SpatialBlocks(),
    "random": Random(target_ratio=0.5),
}
POINTS, GROUPS = 128, 24


def clouds(batch=4, features=0, seed=0):
    return torch.randn(batch, POINTS, 3 + features, generator=torch.Generator().manual_seed(seed))


def make_modality(*, positions_at="input", **settings):
    torch.manual_seed(0)
    encoder = partial(ViT, width=32, depth=2, heads=2, positions_at=positions_at)
    return PointCloud(**{"points": POINTS, "groups": GROUPS, "group_size": 8, "encoder": encoder, **settings})


def make_jepa(**settings):
    return JEPA(make_modality(**settings), predictor=partial(TransformerPredictor, width=16, depth=1, heads=2))


def total_loss(jepa, batch):
    return sum(jepa.losses(jepa.step(batch, torch.Generator().manual_seed(0))).values())


def test_what_it_says_of_itself():
    cloud = PointCloud(features=3, encoder=partial(ViT, width=32, depth=1, heads=2))
    assert cloud.name == "pointcloud"
    assert (cloud.points, cloud.features) == (1024, 3)
    assert cloud.spec.shape == (32, 6)
    assert cloud.spec.grid is None
    assert isinstance(cloud.masker, OrderedRuns)
    assert not cloud.tokenizer.needs_statistics
    assert not list(cloud.tokenizer.parameters())


def test_clouds_smaller_than_their_groups():
    with pytest.raises(ValueError, match="points must be at least 64 for 64 groups of 32, got 63"):
        PointCloud(points=63)


# The embedding ------------------------------------------------------------------------------------------------------


def test_the_embedding_is_that_of_the_papers_with_a_layer_norm():
    """Point by point, in float64, with one matrix over [group, point]."""
    torch.manual_seed(0)
    net = MiniPointNet(12, channels=5).double()
    first, second = net.first[0], net.first[2]
    joined = torch.cat([net.of_group.weight, net.of_point.weight], dim=1)
    group = torch.randn(7, 5, dtype=torch.float64)
    local = [second(torch.relu(first(point))) for point in group]
    whole = torch.stack(local).max(0).values
    tokens = [net.last(torch.relu(net.norm(joined @ torch.cat([whole, x]) + net.of_point.bias))) for x in local]
    torch.testing.assert_close(net(group[None, None])[0, 0], torch.stack(tokens).max(0).values)


def test_the_embedding_ignores_the_order_of_points_and_tells_groups_apart():
    torch.manual_seed(0)
    net = MiniPointNet(96)
    groups = 0.2 * torch.randn(1, 40, 16, 3)
    embedded = net(groups)
    assert embedded.shape == (1, 40, 96)
    torch.testing.assert_close(net(groups[:, :, torch.randperm(16)]), embedded)
    torch.testing.assert_close(net(torch.cat([groups, groups], dim=2)), embedded)  # copies change nothing
    distance = torch.cdist(embedded, embedded)[0] + 10 * torch.eye(40)
    assert distance.min() > 0.05 * embedded.norm(dim=-1).mean()
    assert not torch.allclose(net(2 * groups), embedded, rtol=1e-3)  # nor is the size lost


def test_no_layer_looks_beyond_its_token():
    assert not [m for m in make_modality().encoder.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


@pytest.mark.parametrize("positions_at", ["input", "every_layer"])
def test_hidden_points_do_not_change_one_bit(positions_at):
    modality = make_modality(positions_at=positions_at)
    tokens = modality.tokenizer.eval()({"points": clouds()})
    keep = torch.stack([torch.randperm(GROUPS)[:9] for _ in range(4)])
    hidden = torch.ones(4, GROUPS, dtype=torch.bool).scatter(1, keep, False)
    for training in (True, False):
        encoder = modality.encoder.train(training)
        before = encoder(tokens, keep)
        values = tokens.values.clone()
        values[hidden] = torch.nan
        positions = tokens.positions.clone()
        positions[hidden] = torch.nan
        spoilt = type(tokens)(values=values, positions=positions)
        assert torch.equal(encoder(spoilt, keep), before)
        assert torch.isfinite(before).all()


def test_other_samples_do_not_matter():
    modality = make_modality()
    tokens = modality.tokenizer.eval()({"points": clouds()})
    alone = modality.tokenizer({"points": clouds()[2:3]})
    torch.testing.assert_close(modality.encoder(tokens)[2:3], modality.encoder(alone), rtol=1e-4, atol=1e-5)


# The whole ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MASKERS)
@pytest.mark.parametrize("positions_at", ["input", "every_layer"])
def test_every_parameter_is_trained(name, positions_at):
    jepa = make_jepa(masker=MASKERS[name], positions_at=positions_at, features=3)
    loss = total_loss(jepa, {"points": clouds(features=3)})
    loss.backward()
    assert torch.isfinite(loss)
    for part in (jepa.encoder, jepa.predictor):
        for parameter_name, parameter in part.named_parameters():
            assert parameter.grad is not None, parameter_name
            assert torch.isfinite(parameter.grad).all(), parameter_name
            assert parameter.grad.abs().sum() > 0, parameter_name
    assert all(parameter.grad is None for parameter in jepa.target.parameters())


def test_encoder_and_predictor_learn_positions_of_their_own():
    jepa = make_jepa()
    mine, theirs = (set(part.positions.parameters()) for part in (jepa.encoder, jepa.predictor))
    assert mine
    assert theirs
    assert not mine & theirs


@pytest.mark.parametrize("positions_at", ["input", "every_layer"])
def test_a_few_steps_lower_the_loss(positions_at):
    jepa = make_jepa(positions_at=positions_at)
    optimizer = torch.optim.AdamW((p for p in jepa.parameters() if p.requires_grad), lr=1e-3)
    losses = []
    for _ in range(30):
        loss = total_loss(jepa, {"points": clouds(8)})
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])


def test_clouds_of_one_place_train_without_nan():
    jepa = make_jepa()
    points = clouds()
    points[0] = 0.0
    points[1] = points[1, :5].repeat(26, 1)[:POINTS]
    loss = total_loss(jepa, {"points": points})
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in jepa.parameters() if p.grad is not None)


def test_embeddings_during_training_are_those_of_evaluation():
    """A probe or a picture in the middle of a run: no random starts, and nothing drawn from the run's generator."""
    jepa = make_jepa()
    batch = {"points": clouds()}
    before = torch.get_rng_state()
    during = jepa.train().embed(batch)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(during, jepa.eval().embed(batch))
    shuffled = {"points": batch["points"][:, torch.randperm(POINTS)]}
    torch.testing.assert_close(jepa.embed(shuffled), during)


def test_a_module_of_half_precision_runs():
    jepa = make_jepa(positions_at="every_layer").to(torch.bfloat16)
    batch = {"points": clouds().bfloat16()}
    loss = total_loss(jepa, batch)
    loss.backward()
    assert torch.isfinite(loss)
    embedded = jepa.embed(batch)
    assert embedded.shape == (4, 32)
    assert torch.isfinite(embedded).all()


def test_mixed_precision_runs():
    jepa = make_jepa()
    with torch.autocast("cpu", torch.bfloat16):
        loss = total_loss(jepa, {"points": clouds()})
    loss.backward()
    assert torch.isfinite(loss)


# Pictures -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def drawn(monkeypatch):
    """What is handed over to be drawn."""
    calls = []
    monkeypatch.setattr(pictures, "clouds", lambda points, panels: calls.append((points, panels)) or ["picture"])
    return calls


def test_points_have_the_colour_of_their_mask(drawn):
    modality = make_modality(masker=OrderedRuns(targets=2, fixed_size=False))
    batch = {"points": clouds(batch=5, features=0)}
    tokens = modality.tokenizer.eval()(batch)
    masks = modality.masker(tokens, torch.Generator().manual_seed(0))
    assert modality.draw_masks(batch, masks) == ["picture"]
    ((points, panels),) = drawn
    assert torch.equal(points, batch["points"])
    assert len(panels) == 1
    (panel,) = panels
    assert panel.shape == (5, POINTS, 3)
    mask = masks[0]
    for b in range(5):
        context = mask.context[b] if mask.context_valid is None else mask.context[b][mask.context_valid[b]]
        blocks = [
            block if mask.targets_valid is None else block[mask.targets_valid[b, m]]
            for m, block in enumerate(mask.targets[b])
        ]
        near = torch.cdist(points[b], tokens.positions[b]).argmin(1)
        kind = torch.zeros(POINTS)
        kind[torch.isin(near, context)] = 1
        for m, block in enumerate(blocks):
            kind[torch.isin(near, block)] = 2 + m
        colours = [{tuple(c.tolist()) for c in panel[b][kind == k]} for k in range(4)]
        assert all(len(found) == 1 for found in colours if found)
        assert len({c for found in colours for c in found}) == len([found for found in colours if found])


def test_points_have_the_colour_of_their_group(drawn):
    modality = make_modality()
    batch = {"points": clouds()}
    tokens = modality.tokenizer.eval()(batch)
    colours = torch.rand(4, GROUPS, 3)
    modality.draw_features(batch, tokens, colours)
    ((_, (panel,)),) = drawn
    for b in range(4):
        near = torch.cdist(batch["points"][b], tokens.positions[b]).argmin(1)
        assert torch.equal(panel[b], colours[b][near])


def test_pictures_are_drawn():
    modality = make_modality()
    batch = {"points": clouds(batch=2)}
    tokens = modality.tokenizer.eval()(batch)
    masks = modality.masker(tokens, torch.Generator().manual_seed(0))
    for found in (modality.draw_masks(batch, masks), modality.draw_features(batch, tokens, torch.rand(2, GROUPS, 3))):
        assert len(found) == 2
        assert all(picture.dtype == torch.uint8 and picture.ndim == 3 and len(picture) == 3 for picture in found)
