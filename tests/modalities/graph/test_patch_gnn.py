"""The embedding of subgraphs: GINE against plain loops, no leak, padding, any layer of PyG."""

from functools import partial

import pytest
import torch
from patched_graphs import join, tree
from torch import nn

from modalities.graph.embedding import GINE, PatchGNN
from modalities.graph.graphs import GraphBatch
from modalities.graph.tokenizer import GraphTokenizer

WIDTH = 8


def subgraphs(*sizes, edge_features=2):
    batch = join(*sizes, edge_features=edge_features)
    return GraphTokenizer(features=3, edge_features=edge_features, walk=5)({"graph": batch}).values


def make(seed=0, **settings):
    torch.manual_seed(seed)
    net = PatchGNN(WIDTH, **{"features": 3, "walk": 5, "edge_features": 2, **settings})
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return net


def plain(net, values, *, node_walks=True):
    """Token by token, node by node, edge by edge."""
    tokens = []
    for slot in range(values.size[0] * values.size[1]):
        mine = torch.nonzero(values.patch == slot).flatten().tolist()
        inputs = [torch.cat([values.nodes[values.members[m]], values.walks[values.members[m]]]) for m in mine]
        inputs = [x if node_walks else x[: values.nodes.shape[1]] for x in inputs]
        x = [net.first.weight @ node.double() + net.first.bias for node in inputs]
        for conv, norm in zip(net.convs, net.norms, strict=True):
            total = [node.clone() for node in x]
            for e, (a, b) in enumerate(values.edges.T.tolist()):
                if a in mine:
                    message = x[mine.index(a)]
                    if values.edge_features is not None:
                        lin = conv.conv.lin
                        message = torch.relu(message + lin.weight @ values.edge_features[e].double() + lin.bias)
                    total[mine.index(b)] = total[mine.index(b)] + message
            first, _, second = conv.conv.nn
            inner = [torch.relu(first.weight @ node + first.bias) for node in total]
            out = [second.weight @ node + second.bias for node in inner]
            x = [node + torch.relu(norm(o)) for node, o in zip(x, out, strict=True)]
        tokens.append(torch.stack(x).mean(0) if x else torch.zeros(WIDTH, dtype=torch.float64))
    return torch.stack(tokens).view(*values.size, WIDTH)


@pytest.mark.parametrize("edge_features", [0, 2])
@pytest.mark.parametrize("node_walks", [True, False])
def test_the_embedding_is_gine_and_a_mean(edge_features, node_walks):
    values = subgraphs(4, 1, 6, edge_features=edge_features)
    net = make(edge_features=edge_features, node_walks=node_walks, conv=partial(GINE, hidden=5)).double()
    found = net(values)
    assert found.shape == (3, 6, WIDTH)
    torch.testing.assert_close(found, plain(net, values, node_walks=node_walks))
    assert net.first.in_features == (8 if node_walks else 3)
    assert net.convs[0].conv.nn[0].out_features == 5


def test_edge_features_and_the_direction_of_edges_matter():
    values, net = subgraphs(6), make()
    before = net(values)
    changed = values.edge_features.clone()
    changed[0] += 3
    token = int(values.patch[values.edges[0, 0]])
    object.__setattr__(values, "edge_features", changed)
    difference = (net(values) - before).abs().amax(2).flatten()
    assert difference[token] > 1e-4
    assert (difference > 1e-6).sum() == 1  # that of this patch's edge alone


def test_empty_slots_are_zero_and_everything_is_finite():
    values = subgraphs(1, 2, 6)
    found = make()(values)
    assert torch.isfinite(found).all()
    assert (found[0, 1:] == 0).all()
    assert (found[1, 2:] == 0).all()
    assert (found[2].abs().sum(1) > 0).all()
    nothing = values.take(torch.zeros(3, 2, dtype=torch.int64), torch.zeros(3, 2, dtype=torch.bool))
    assert torch.equal(make()(nothing), torch.zeros(3, 2, WIDTH))


def test_a_patch_is_embedded_alike_wherever_it_is_picked():
    values, net = subgraphs(3, 7, 5), make()
    index = torch.randint(3, (3, 6), generator=torch.Generator().manual_seed(0))
    whole, taken = net(values), net(values.take(index))
    for b in range(3):
        torch.testing.assert_close(taken[b], whole[b, index[b]])


def test_numbers_of_nodes_do_not_matter():
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    net, tokenizer = make(), GraphTokenizer(features=3, edge_features=2, walk=5)
    plainly, renumbered = (net(tokenizer({"graph": GraphBatch.join([tree(9, order=o)])}).values) for o in (None, order))
    torch.testing.assert_close(renumbered[0, order], plainly[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_gradients_reach_every_parameter_and_no_norm_mixes_samples(training):
    net = make().train(training)
    (net(subgraphs(1, 2, 6)) * torch.randn(3, 6, WIDTH)).sum().backward()
    for name, parameter in net.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name
    assert not [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


def test_other_layers_of_pyg_with_and_without_edge_features():
    pyg = pytest.importorskip("torch_geometric.nn")
    values = subgraphs(1, 5)
    attention = make(conv=partial(pyg.GATv2Conv, heads=2, concat=False))
    assert attention.convs[0].edge_dim == 2
    assert attention.uses_edges
    ignorant = make(conv=pyg.GCNConv)
    assert not ignorant.uses_edges
    for net in (attention, ignorant, make(conv=pyg.SAGEConv), make(conv=pyg.TransformerConv, edge_features=0)):
        found = net(values)
        assert found.shape == (2, 5, WIDTH)
        assert torch.isfinite(found).all()
    bare = make(conv=partial(pyg.GATv2Conv, heads=2, concat=False), edge_features=0)
    assert not bare.uses_edges
    assert bare(values).shape == (2, 5, WIDTH)
    with pytest.raises(ValueError, match="its width must not change"):
        make(conv=partial(pyg.GATv2Conv, heads=2))(values)


def test_half_precision():
    values = subgraphs(1, 5)
    found = make().bfloat16()(values)
    assert found.dtype == torch.bfloat16
    assert torch.isfinite(found).all()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.isfinite(make()(values)).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": 0}, "layers must be at least 1, got 0"),
        ({"features": 0, "node_walks": False}, "set node_walks to true"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        make(**settings)
