"""The attentive probe against a plain loop, and on tokens whose answer is known."""

import math

import pytest
import torch
import torch.nn.functional as F

from jepa_lightning.evaluation.probes.attentive import fit_attentive, statistics
from jepa_lightning.evaluation.probes.attentive_heads import BatchedAdamW, batch_order, forward, start
from jepa_lightning.evaluation.probes.held_out import held_out

FEW = {"lrs": (3e-3, 1e-2), "decays": (0.01, 1.0)}


def hidden(samples, *, seed=0, tokens=12, width=8, classes=4, strength=3.0):
    """Noise, but for one token at a random place, which says the class: (tokens, labels, its place)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(samples) % classes
    x = torch.randn(samples, tokens, width, generator=generator)
    place = torch.randint(tokens, (samples,), generator=generator)
    x[torch.arange(samples), place] = strength * F.one_hot(labels, width).float()
    x[torch.arange(samples), place, -1] = 2 * strength
    return x, labels, place


def right(probe, x, labels, valid=None):
    return float((probe.predict(x, valid) == labels).float().mean())


def plain_loop(x, valid, goal, *, heads, lr, decay, order):
    """One probe by plain PyTorch, sample by sample and head by head, in float64."""
    width, each = x.shape[2], x.shape[2] // heads
    outputs = int(goal.max()) + 1 if goal.dtype == torch.int64 else goal.shape[1]
    queries = [torch.zeros(width, dtype=torch.float64, requires_grad=True) for _ in range(heads)]
    eye = torch.eye(width, dtype=torch.float64)
    values = [eye[:, h * each : (h + 1) * each].clone().requires_grad_() for h in range(heads)]
    weight = torch.zeros(width, outputs, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(outputs, dtype=torch.float64, requires_grad=True)
    groups = [{"params": [*queries, *values, weight]}, {"params": [bias], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=lr, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: (1 + math.cos(math.pi * step / len(order))) / 2
    )
    for batch in order:
        terms = []
        for i in batch.tolist():
            real = x[i] if valid is None else x[i][valid[i]]
            parts = []
            for query, value in zip(queries, values, strict=True):
                attention = torch.softmax(real @ query / math.sqrt(width), dim=0)
                parts.append(attention @ (real @ value))
            out = F.layer_norm(torch.cat(parts), (width,)) @ weight + bias
            terms.append(
                F.cross_entropy(out, goal[i]) if goal.dtype == torch.int64 else (out - goal[i]).square().mean()
            )
        optimizer.zero_grad()
        torch.stack(terms).mean().backward()
        optimizer.step()
        schedule.step()
    return {"query": torch.stack(queries), "value": torch.stack(values), "weight": weight, "bias": bias[None]}


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("kind", ["classes", "values"])
def test_each_of_many_settings_is_a_plain_loop(kind, padded):
    x, labels, _ = hidden(40)
    x = x.double()
    valid = torch.rand(x.shape[:2], generator=torch.Generator().manual_seed(1)) > 0.3 if padded else None
    goal = labels if kind == "classes" else x[:, 0, :2] + x[:, 1, 1:3]
    settings = [(1e-3, 0.0), (1e-2, 3.0), (3e-2, 0.1)]
    order = batch_order(40, epochs=3, batch_size=16, seed=5)
    outputs = 4 if kind == "classes" else 2
    parameters = start(3, 2, 8, outputs, like=x)
    optimizer = BatchedAdamW(parameters, settings, steps=len(order))
    for batch in order:
        optimizer.step(x[batch], None if valid is None else valid[batch], goal[batch])
    for number, (lr, decay) in enumerate(settings):
        expected = plain_loop(x, valid, goal, heads=2, lr=lr, decay=decay, order=order)
        for name, value in expected.items():
            assert torch.allclose(parameters[name][number], value, atol=1e-8), (name, number)
            assert name == "bias" or value.abs().max() > 1e-3  # it has learnt


def test_the_whole_fit_is_the_plain_loop_on_standardised_tokens():
    x, labels, _ = hidden(40)
    x = 5 * x.double() + 7
    probe = fit_attentive(x, None, labels, lrs=(1e-2,), decays=(0.1,), heads=4, epochs=2, batch_size=16, seed=3)
    flat = x.flatten(0, 1)
    scaled = (x - flat.mean(0)) / flat.std(0, correction=0)
    order = batch_order(40, epochs=2, batch_size=16, seed=3)
    expected = plain_loop(scaled, None, labels, heads=4, lr=1e-2, decay=0.1, order=order)
    for name, value in expected.items():
        assert torch.allclose(probe.parameters[name][0], value, atol=1e-7), name
    assert (probe.lr, probe.decay) == (1e-2, 0.1)


def test_it_starts_as_a_linear_map_of_the_mean():
    x = torch.randn(3, 5, 7)
    parameters = start(2, 3, 7, 4, like=x)  # of 7 channels there are 9 values, two of which are 0
    parameters["weight"].normal_()
    joined = F.layer_norm(F.pad(x.mean(1), (0, 2)), (9,))
    for number, found in enumerate(forward(parameters, x, None)):
        assert torch.allclose(found, joined @ parameters["weight"][number], atol=1e-5)


@pytest.mark.long
def test_it_finds_the_token_that_tells_where_the_mean_does_not():
    x, labels, _ = hidden(400, strength=2.0)
    asked, truth, where = hidden(200, seed=1, strength=2.0)
    probe = fit_attentive(x.half(), None, labels, lrs=(1e-2, 3e-2), decays=(0.01,), epochs=30)
    assert right(probe, asked, truth) > 0.97
    attention = probe.attention(asked)
    assert attention.shape == (200, 12)
    assert torch.allclose(attention.sum(1), torch.ones(200), atol=1e-5)
    assert (attention.argmax(1) == where).float().mean() > 0.95
    centred = asked.mean(1) - x.mean((0, 1))
    centroids = torch.stack([x[labels == c].mean((0, 1)) - x.mean((0, 1)) for c in range(4)])
    assert (torch.cdist(centred, centroids).argmin(1) == truth).float().mean() < 0.6


def test_values_are_found_in_their_own_units():
    generator = torch.Generator().manual_seed(0)
    values = torch.stack([100 + 20 * torch.randn(400, generator=generator), torch.rand(400, generator=generator)], 1)
    x = torch.randn(400, 6, 8, generator=generator) * 0.1
    x[:, :, 0], x[:, :, 1] = (values[:, :1] - 100) / 20, 3 * (values[:, 1:] - 0.5)
    x[:, :, 2] = 4.0  # so that the norm leaves the sizes to be told
    x += 0.01 * torch.randn(x.shape, generator=generator)
    probe = fit_attentive(x[:300], None, values[:300], lrs=(1e-2,), decays=(0.0,), epochs=40)
    found = probe.predict(x[300:])
    rest = (found - values[300:]).square().mean(0) / values[300:].var(0)
    assert found.shape == (100, 2)
    assert (rest < 0.2).all()


def test_padding_is_never_attended_to():
    x, labels, _ = hidden(60)
    longer = torch.cat([x, torch.full((60, 4, 8), torch.nan)], dim=1)
    valid = (torch.arange(16) < 12).expand(60, 16)
    plain = fit_attentive(x, None, labels, epochs=4, **FEW)
    padded = fit_attentive(longer, valid, labels, epochs=4, **FEW)
    assert (plain.lr, plain.decay) == (padded.lr, padded.decay)
    for name, value in plain.parameters.items():
        assert torch.allclose(value, padded.parameters[name], atol=1e-4), name
    attention = padded.attention(longer, valid)
    assert (attention[:, 12:] == 0).all()
    assert torch.allclose(attention[:, :12], plain.attention(x), atol=1e-4)
    nothing = valid.clone()
    nothing[0] = False
    assert (padded.attention(longer, nothing)[0] == 0).all()
    assert torch.equal(padded.predict(longer, nothing)[1:], plain.predict(x)[1:])


@pytest.mark.parametrize("kind", ["classes", "values"])
def test_nothing_but_the_rows_is_looked_at(kind):
    x, labels, _ = hidden(120)
    labels = labels if kind == "classes" else x[:, 0, :2]
    rows = torch.randperm(120, generator=torch.Generator().manual_seed(0))[:80]
    alone = fit_attentive(x[rows], None, labels[rows], epochs=3, **FEW)
    planted = x.clone()
    others = torch.ones(120, dtype=torch.bool)
    others[rows] = False
    planted[others] = torch.inf
    among = fit_attentive(planted, None, labels[rows], rows=rows, epochs=3, **FEW)
    assert (alone.lr, alone.decay) == (among.lr, among.decay)
    assert all(torch.equal(value, among.parameters[name]) for name, value in alone.parameters.items())
    assert torch.allclose(among.predict(x, rows=rows[:7]).float(), alone.predict(x)[rows[:7]].float(), atol=1e-5)


def test_the_setting_is_the_one_that_does_best_on_what_is_held_out():
    x, labels, _ = hidden(200, strength=2.0)
    for lrs in ((1e-6, 1e-2), (1e-2, 1e-6)):
        probe = fit_attentive(x, None, labels, lrs=lrs, decays=(0.01,), epochs=5)
        assert probe.lr == 1e-2
    probe = fit_attentive(x, None, labels, lrs=(3e-3,), decays=(0.01, 1e4), epochs=5)
    assert probe.decay == 0.01
    probe = fit_attentive(x, None, labels, lrs=(1e30, 1e-2), decays=(0.01,), epochs=5)
    assert probe.lr == 1e-2
    single = fit_attentive(x[:4], None, labels[:4], lrs=(1e-3, 3e-3, 1e-2), decays=(0.1, 0.2, 0.3), epochs=1)
    assert (single.lr, single.decay) == (3e-3, 0.2)


def test_a_fifth_of_each_class_is_held_out():
    labels = torch.tensor([0] * 50 + [1] * 20 + [2] * 3 + [3])
    held = held_out(labels, seed=0)
    assert torch.bincount(labels[held], minlength=4).tolist() == [10, 4, 1, 0]
    assert not torch.equal(held, held_out(labels, seed=1))
    assert held_out(torch.randn(25, 2), seed=0).sum() == 5


def test_every_sample_comes_once_an_epoch():
    order = batch_order(50, epochs=3, batch_size=16, seed=0)
    assert {len(batch) for batch in order} == {8, 2}  # an eighth is less than 8
    assert torch.equal(torch.bincount(torch.cat(order)), torch.full((50,), 3))
    assert len(batch_order(1000, epochs=1, batch_size=100, seed=0)) == 10


def test_statistics_are_of_real_tokens_and_of_some_samples():
    x = 1000 + torch.randn(30, 5, 6, dtype=torch.float64)
    x[:, :, 0] = 4.0
    valid = torch.rand(30, 5) > 0.4
    rows = torch.arange(3, 20)
    mean, scale = statistics(x, valid, rows)
    flat = x[rows][valid[rows]]
    assert torch.allclose(mean, flat.mean(0))
    assert torch.allclose(scale[1:], flat[:, 1:].std(0, correction=0))
    assert scale[0] == 1


def test_the_same_seed_gives_the_same_and_threads_of_inference_do_too():
    x, labels, _ = hidden(60)
    one, two = (fit_attentive(x, None, labels, epochs=2, seed=s, **FEW) for s in (0, 1))
    with torch.inference_mode():
        again = fit_attentive(x.clone(), None, labels.clone(), epochs=2, **FEW)
    assert all(torch.equal(value, again.parameters[name]) for name, value in one.parameters.items())
    assert not torch.equal(one.parameters["weight"], two.parameters["weight"])


X = torch.zeros(6, 3, 4)
Y = torch.tensor([0, 1] * 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: fit_attentive(X[0], None, Y),
            r"tokens \(n, N, D\) of floats, got torch.float32 of the shape \(3, 4\)",
        ),
        (lambda: fit_attentive(X.long(), None, Y), "got torch.int64"),
        (lambda: fit_attentive(X, torch.ones(6, 4, dtype=torch.bool), Y), r"valid \(n, N\) bool like"),
        (lambda: fit_attentive(X, torch.ones(6, 3), Y), "got torch.float32 of the shape"),
        (lambda: fit_attentive(X, None, Y[:5]), "n = 6 samples"),
        (lambda: fit_attentive(X, None, Y[:, None]), "expected labels"),
        (lambda: fit_attentive(X, None, Y.float()), "expected labels"),
        (lambda: fit_attentive(X, None, Y - 1), "a negative one"),
        (lambda: fit_attentive(X, None, torch.full((6, 1), torch.nan)), "labels that are finite"),
        (lambda: fit_attentive(X + torch.nan, None, Y), "expected finite features"),
        (lambda: fit_attentive(X, torch.zeros(6, 3, dtype=torch.bool), Y), "at least one real token"),
        (lambda: fit_attentive(X, None, Y, lrs=()), r"lrs \(\)"),
        (lambda: fit_attentive(X, None, Y, lrs=(0.0,)), "lr above 0"),
        (lambda: fit_attentive(X, None, Y, heads=0), "heads 0"),
        (lambda: fit_attentive(X, None, Y, epochs=0), "epochs 0"),
        (lambda: fit_attentive(X, None, Y, epochs=1).predict(X[..., :2]), "the 4 channels .* got 2"),
    ],
)
def test_mistakes_are_told_in_one_line(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
