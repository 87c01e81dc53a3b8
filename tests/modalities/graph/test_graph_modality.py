"""The graph modality as a whole: nothing leaks, padding counts nothing, every parameter is trained, YAML, pictures."""

from functools import partial

import jsonargparse
import pytest
import torch
from patched_graphs import join, tree
from torch.utils.data import DataLoader

from jepa_lightning import JEPA
from jepa_lightning.callbacks import CollapseMonitor
from jepa_lightning.callbacks.pictures import first
from jepa_lightning.encoders import ViT
from jepa_lightning.maskers import Random, RandomCount
from jepa_lightning.modality import Modality
from jepa_lightning.objectives import Hyperbola, SmoothL1
from jepa_lightning.pictures.drawing import CONTEXT, UNUSED
from jepa_lightning.predictors import MLPPredictor, TransformerPredictor
from jepa_lightning.pretexts import Masked
from jepa_lightning.regularizers import VICReg
from jepa_lightning.tokens import Masks
from modalities.graph import pictures
from modalities.graph.embedding import GINE
from modalities.graph.graphs import GraphBatch
from modalities.graph.modality import Graph

SIZES = (1, 2, 5, 40)
PREDICTORS = {
    "transformer": partial(TransformerPredictor, width=16, depth=1, heads=2),
    "mlp": partial(MLPPredictor, width=16, depth=3),
}
MASKERS = {
    "one": RandomCount(),
    "share": RandomCount(context_share=(0.2, 0.7), targets=3),
    "random": Random(target_ratio=0.5, targets=2),
}


class Given:
    """Masks that were drawn before."""

    def __init__(self, masks):
        self.masks = masks

    def __call__(self, tokens, generator):
        return self.masks


def make_modality(**settings):
    torch.manual_seed(0)
    encoder = partial(ViT, width=32, depth=2, heads=2)
    return Graph(**{"features": 3, "edge_features": 2, "walk": 5, "encoder": encoder, **settings})


def make_jepa(predictor="mlp", *, settings=None, **of_modality):
    jepa = JEPA(make_modality(**of_modality), predictor=PREDICTORS[predictor], **(settings or {}))
    with torch.no_grad():  # away from the small initial values, so that everything has an effect
        for parameter in jepa.encoder.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
        jepa.target.average(jepa.encoder, 0.0)
    return jepa


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_what_it_says_of_itself():
    graph = Graph(features=3, encoder=partial(ViT, width=32, depth=1, heads=2))
    assert graph.name == "graph"
    assert (graph.features, graph.edge_features, graph.patches, graph.hops, graph.walk) == (3, 0, 32, 1, 16)
    assert graph.spec.grid is None
    assert isinstance(graph.masker, RandomCount)
    assert (graph.masker.context, graph.masker.targets) == (1, 4)
    assert not graph.tokenizer.needs_statistics
    assert not list(graph.tokenizer.parameters())
    assert len(graph.encoder.embed.convs) == 2


# Leaks and padding --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
def test_hidden_patches_do_not_change_one_bit(training):
    modality = make_modality()
    encoder = modality.encoder.train(training)
    tokens = modality.tokenizer({"graph": join(*SIZES)})
    (mask,) = RandomCount(context=3)(tokens, generator())
    context = encoder(tokens, mask.context, mask.context_valid)
    seen = tokens.take(mask.context, mask.context_valid).values.members
    hidden = torch.ones(len(tokens.values.nodes), dtype=torch.bool)
    hidden[seen] = False
    assert 0 < hidden.sum() < len(hidden)
    tokens.values.nodes[hidden] = torch.nan
    tokens.values.walks[hidden] = torch.nan
    inside = torch.zeros(SIZES[-1] * len(SIZES), dtype=torch.bool)
    inside[(mask.context + SIZES[-1] * torch.arange(len(SIZES))[:, None])[mask.context_valid]] = True
    of_patch = inside[tokens.values.patch[tokens.values.edges[0]]]
    assert 0 < of_patch.sum() < len(of_patch)
    tokens.values.edge_features[~of_patch] = torch.nan
    again = encoder(tokens, mask.context, mask.context_valid)
    assert torch.isfinite(again).all()
    assert torch.equal(context, again)
    again.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in encoder.parameters())


def test_padding_is_not_attended_to():
    jepa = make_jepa().eval()
    tokens = jepa.tokenizer({"graph": join(*SIZES)})
    before = jepa.target(tokens)
    tokens.positions[~tokens.valid] = 100.0
    after = jepa.target(tokens)
    assert torch.equal(after[tokens.valid], before[tokens.valid])
    assert not torch.equal(after[~tokens.valid], before[~tokens.valid])  # they were read, so this test sees something
    assert torch.isfinite(after).all()


def test_graphs_alone_or_beside_larger_ones():
    jepa = make_jepa().eval()
    graphs = [tree(size, seed=i) for i, size in enumerate(SIZES)]
    together = jepa.embed({"graph": GraphBatch.join(graphs)})
    every = jepa({"graph": GraphBatch.join(graphs)})
    for i, graph in enumerate(graphs):
        alone = GraphBatch.join([graph])
        torch.testing.assert_close(jepa.embed({"graph": alone})[0], together[i], rtol=0, atol=1e-5)
        torch.testing.assert_close(jepa({"graph": alone})[0], every[i, : graph.count], rtol=0, atol=1e-5)
    assert (torch.pdist(together) > 0.1).all()


def test_numbers_of_nodes_do_not_matter():
    jepa = make_jepa().eval()
    order = torch.randperm(12, generator=generator())
    plain, renumbered = ({"graph": GraphBatch.join([tree(12, order=o), tree(20)])} for o in (None, order))
    torch.testing.assert_close(jepa.embed(renumbered), jepa.embed(plain), rtol=0, atol=1e-5)
    torch.testing.assert_close(jepa(renumbered)[0, order], jepa(plain)[0, :12], rtol=0, atol=1e-5)


@pytest.mark.parametrize("predictor", PREDICTORS)
@pytest.mark.parametrize("target_sees", ["all", "targets"])
@pytest.mark.parametrize("objective", [SmoothL1, Hyperbola])
def test_a_larger_graph_beside_them_changes_no_loss(predictor, target_sees, objective):
    """The same masks, and none for the larger graph: the loss is that of the others."""
    jepa = make_jepa(predictor, settings={"pretext": Masked(target_sees=target_sees), "objective": objective()})
    graphs = [tree(size, seed=i) for i, size in enumerate((1, 2, 5, 9))]
    few, more = {"graph": GraphBatch.join(graphs)}, {"graph": GraphBatch.join([*graphs, tree(40)])}
    (mask,) = RandomCount(context=2)(jepa.tokenizer(few), generator())

    def longer(index):
        return torch.cat([index, torch.zeros_like(index[:1])])

    jepa.modality.masker = Given([mask])
    expected = jepa.step(few, generator())
    jepa.modality.masker = Given(
        [
            Masks(
                context=longer(mask.context),
                targets=longer(mask.targets),
                context_valid=longer(mask.context_valid),
                targets_valid=longer(mask.targets_valid),
            )
        ]
    )
    found = jepa.step(more, generator())
    loss, wanted = (sum(jepa.losses(outcome).values()) for outcome in (found, expected))
    torch.testing.assert_close(loss, wanted, rtol=1e-5, atol=1e-6)
    assert float(wanted.detach()) > 0.01
    # What the collapse monitor pools.
    for shown, own in zip(found.context + found.target, expected.context + expected.target, strict=True):
        torch.testing.assert_close(shown.pooled()[:4], own.pooled(), rtol=0, atol=1e-5)
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in jepa.parameters() if p.grad is not None)


# Training -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MASKERS)
@pytest.mark.parametrize("predictor", PREDICTORS)
@pytest.mark.parametrize("target_sees", ["all", "targets"])
@pytest.mark.parametrize("objective", [SmoothL1, Hyperbola])
def test_every_parameter_is_trained(name, predictor, target_sees, objective):
    settings = {"pretext": Masked(target_sees=target_sees), "objective": objective(), "regularizers": [VICReg]}
    jepa = make_jepa(predictor, masker=MASKERS[name], settings=settings)
    outcome = jepa.step({"graph": join(*SIZES, 30)}, generator())
    assert outcome.batch_size == 5
    loss = sum(jepa.losses(outcome).values())
    loss.backward()
    assert torch.isfinite(loss)
    for part in (jepa.encoder, jepa.predictor):
        for parameter_name, parameter in part.named_parameters():
            assert parameter.grad is not None, parameter_name
            assert torch.isfinite(parameter.grad).all(), parameter_name
            assert parameter.grad.abs().sum() > 0, parameter_name
    assert all(parameter.grad is None for parameter in jepa.target.parameters())


@pytest.mark.parametrize("target_sees", ["all", "targets"])
def test_batches_of_nothing_to_predict_train_without_nan(target_sees):
    jepa = make_jepa(settings={"pretext": Masked(target_sees=target_sees)})
    loss = sum(jepa.losses(jepa.step({"graph": join(1, 1, 1)}, generator())).values())
    loss.backward()
    assert float(loss.detach()) == 0
    assert all(torch.isfinite(p.grad).all() for p in jepa.parameters() if p.grad is not None)


@pytest.mark.parametrize("objective", [SmoothL1, Hyperbola])
def test_a_few_steps_lower_the_loss(objective):
    jepa = make_jepa(settings={"pretext": Masked(target_sees="targets"), "objective": objective()})
    optimizer = torch.optim.AdamW((p for p in jepa.parameters() if p.requires_grad), lr=1e-3)
    batch = {"graph": join(*range(3, 19))}
    losses = []
    for _ in range(30):
        loss = sum(jepa.losses(jepa.step(batch, generator())).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-3:]) < 0.7 * sum(losses[:3])


@pytest.mark.parametrize("precision", ["32-true", "bf16-true", "bf16-mixed"])
def test_a_run_of_the_trainer(make_trainer, precision):
    graphs = [tree(size, seed=i) for i, size in enumerate((1, 2, 5, 9, 3, 14, 4, 1))]

    def collate(samples):
        return {"graph": GraphBatch.join(samples), "id": [str(sample.count) for sample in samples]}

    loader = DataLoader(graphs, batch_size=4, collate_fn=collate)
    trainer = make_trainer(CollapseMonitor(samples=8), max_epochs=2, precision=precision)
    trainer.fit(make_jepa(settings={"regularizers": [VICReg]}), loader, loader)
    assert trainer.global_step == 4
    for name in ("train/loss", "val/loss", "collapse/effective_rank"):
        assert torch.isfinite(trainer.callback_metrics[name])


# YAML ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("conv", "kind", "uses_edges"),
    [
        ({"class_path": "torch_geometric.nn.GATv2Conv", "init_args": {"heads": 2, "concat": False}}, "GATv2Conv", True),
        ({"class_path": "GINE", "init_args": {"hidden": 5}}, "GINE", True),
        ({"class_path": "torch_geometric.nn.GCNConv"}, "GCNConv", False),
        (None, "GINE", True),
    ],
)
def test_any_layer_by_class_path(conv, kind, uses_edges):
    parser = jsonargparse.ArgumentParser()
    parser.add_argument("--modality", type=Modality)
    vit = {"class_path": "ViT", "init_args": {"width": 16, "depth": 1, "heads": 2}}
    settings = {"features": 3, "edge_features": 2, "walk": 5, "encoder": vit} | ({} if conv is None else {"conv": conv})
    asked = parser.parse_object({"modality": {"class_path": "modalities.graph.modality.Graph", "init_args": settings}})
    stored = parser.parse_string(parser.dump(asked))  # as a run writes it, and reads it again
    modality = parser.instantiate(stored).modality
    embed = modality.encoder.embed
    assert type(embed.convs[0]).__name__ == kind
    assert embed.uses_edges == uses_edges
    if conv and conv.get("init_args", {}).get("hidden"):
        assert isinstance(embed.convs[0], GINE)
        assert embed.convs[0].conv.nn[0].out_features == 5
    found = modality.encoder(modality.tokenizer({"graph": join(1, 5)}))
    assert found.shape == (2, 5, 16)
    assert torch.isfinite(found).all()


# Pictures -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def drawn(monkeypatch):
    """What is handed over to be drawn."""
    calls = []
    monkeypatch.setattr(pictures, "graphs", lambda batch, panels: calls.append((batch, panels)) or ["picture"])
    return calls


def test_nodes_have_the_colour_of_their_patches_role(drawn):
    modality = make_modality()
    batch = {"graph": join(1, 2, 6, 30)}
    tokens = modality.tokenizer(batch)
    masks = [modality.masker(tokens, generator(seed))[0] for seed in (0, 1)]
    assert modality.draw_masks(batch, masks) == ["picture"]
    ((graphs, panels),) = drawn
    assert len(panels) == 2
    nodes_of = [set(graphs.members[graphs.patch == slot].tolist()) for slot in range(4 * 30)]
    blue, grey = CONTEXT, UNUSED
    for mask, panel in zip(masks, panels, strict=True):
        context, targets = set(), set()
        for b in range(4):
            for i in mask.context[b][mask.context_valid[b]].tolist():
                context |= nodes_of[30 * b + i]
            for i in mask.targets[b][mask.targets_valid[b]].tolist():
                targets |= nodes_of[30 * b + i]
        found = [tuple(round(c, 2) for c in colour) for colour in panel.tolist()]
        assert {i for i, colour in enumerate(found) if colour == blue} == context
        assert {i for i, colour in enumerate(found) if colour not in (blue, grey)} == targets - context
        assert len(set(found)) >= 5  # blue, grey and targets one by one


def test_nodes_have_the_mean_colour_of_their_patches(drawn):
    modality = make_modality()
    batch = {"graph": join(2, 7)}
    tokens = modality.tokenizer(batch)
    colours = torch.rand(2, 7, 3)
    modality.draw_features(batch, tokens, colours)
    ((graphs, (panel,)),) = drawn
    for node in range(9):
        mine = graphs.patch[graphs.members == node]
        torch.testing.assert_close(panel[node], colours.flatten(0, 1)[mine].mean(0))


def test_pictures_of_the_first_samples_of_a_batch():
    modality = make_modality()
    batch = first({"graph": join(3, 1, 6, 30), "id": list("abcd"), "note": "text"}, 3)
    assert len(batch["graph"]) == len(batch["id"]) == 3
    assert batch["note"] == "text"
    tokens = modality.tokenizer(batch)
    masks = modality.masker(tokens, generator())
    for found in (modality.draw_masks(batch, masks), modality.draw_features(batch, tokens, torch.rand(3, 30, 3))):
        assert len(found) == 3
        assert all(picture.dtype == torch.uint8 and picture.shape[0] == 3 for picture in found)
