"""Masked prediction recorded as CUDA graphs: the same numbers, and what cannot be recorded."""

from functools import partial

import pytest
import torch

from jepa_lightning import JEPA
from jepa_lightning.encoders import ViT
from jepa_lightning.maskers import MultiBlock
from jepa_lightning.predictors import TransformerPredictor
from jepa_lightning.pretexts import Dense, LatentCodes, Masked, Views
from jepa_lightning.regularizers import VICReg
from jepa_lightning.scale import graphs
from jepa_lightning.targets import Online
from jepa_lightning.tokens import Latents, Masks, Tokens
from modalities.image import Image


def training_step(model, optimizer, batch, step, *, bf16):
    """The loss of a step."""
    with torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
        outcome = model.step(batch, model.mask_generator("train", step, 0))
        loss = sum(model.losses(outcome, step).values())
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    model.target.update(model.encoder, step, 10)
    return loss


@pytest.fixture
def recording_on_the_cpu(monkeypatch):
    """Stands in for CUDA's recording: it runs the module as often, and returns it. Returns the calls."""
    calls = []

    def recorded(module, arguments, **words):
        assert not (torch.is_autocast_enabled("cpu") and torch.is_autocast_cache_enabled())
        for _ in range(4):
            outputs = module(*arguments)
            trained = [p for p in module.parameters() if p.requires_grad]
            loss = sum(t.float().sum() for t in outputs if t.requires_grad)
            torch.autograd.grad(loss, trained, allow_unused=True)
        calls.append(arguments)
        return module

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", recorded)
    monkeypatch.setattr(graphs, "DEVICES", {"cpu"})
    return calls


def small(pretext=Masked, **words):
    """A small model on images of 32 px."""
    torch.manual_seed(0)
    words["pretext"] = pretext()
    masker = MultiBlock(fixed_size=True)
    encoder = partial(ViT, width=32, depth=2, heads=2)
    modality = Image(image_size=32, patch_size=4, encoder=encoder, masker=masker)
    model = JEPA(modality, predictor=partial(TransformerPredictor, width=32, depth=1, heads=2), **words)
    model.total_steps = 10
    return model.train()


def pairs(**words):
    """The same model without graphs and with them, in this order."""
    plain, recorded = small(**words), small(cuda_graphs=True, **words)
    recorded.configure_model()
    return plain, recorded


@pytest.mark.parametrize(
    "pretext",
    [
        Masked,
        lambda: Masked(target_sees="targets"),
        lambda: Dense(context_weight=0.5, layers=[0, 1]),
        lambda: LatentCodes(codes=2),
    ],
)
@pytest.mark.parametrize("bf16", [False, True])
def test_recorded_steps_train_as_plain_ones(recording_on_the_cpu, pretext, bf16):
    models = [small(cuda_graphs=on, pretext=pretext, regularizers=[VICReg]) for on in (False, True)]
    models[1].configure_model()
    batch = {"image": torch.randn(3, 3, 32, 32)}
    optimizers = [m.configure_optimizers() for m in models]
    losses = [
        [float(training_step(m, o, batch, step, bf16=bf16)) for step in range(3)]
        for m, o in zip(models, optimizers, strict=True)
    ]
    assert len(recording_on_the_cpu) == 1
    assert losses[0] == losses[1]
    for mine, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(mine, other)


def test_random_numbers_and_buffers_are_as_before_the_recording(recording_on_the_cpu):
    class Counts(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))
            self.weight = torch.nn.Parameter(torch.ones(2))

        def forward(self, x):
            self.calls += 1
            return (x * self.weight,)

    counts = Counts()
    graphs.record(counts, [torch.ones(2)])
    assert counts.calls == 0


def test_targets_have_no_gradient_and_context_has(recording_on_the_cpu):
    _, model = pairs()
    outcome = model.step({"image": torch.randn(2, 3, 32, 32)}, torch.Generator().manual_seed(0))
    assert outcome.predictions[0].predicted.requires_grad
    assert outcome.context[0].values.requires_grad
    assert not outcome.predictions[0].target.requires_grad
    assert not outcome.target[0].values.requires_grad


def test_other_sizes_run_without_graphs_and_are_said_once(recording_on_the_cpu):
    plain, model = pairs()
    generator = torch.Generator()
    model.step({"image": torch.randn(3, 3, 32, 32)}, generator.manual_seed(0))
    last = {"image": torch.randn(2, 3, 32, 32)}
    with pytest.warns(UserWarning, match="other sizes than the recorded one.*fixed_size"):
        found = model.losses(model.step(last, generator.manual_seed(1)))
    assert found == plain.losses(plain.step(last, generator.manual_seed(1)))
    assert len(recording_on_the_cpu) == 1


def test_validation_is_not_recorded(recording_on_the_cpu):
    _, model = pairs()
    with torch.no_grad():
        model.eval().step({"image": torch.randn(3, 3, 32, 32)}, torch.Generator())
    assert not recording_on_the_cpu


def test_on_a_cpu_nothing_is_recorded():
    plain, model = pairs()
    batch = {"image": torch.randn(3, 3, 32, 32)}
    assert model.losses(model.step(batch, torch.Generator().manual_seed(0))) == plain.losses(
        plain.step(batch, torch.Generator().manual_seed(0))
    )


def test_tensors_are_found_and_replaced_in_order():
    tokens = Tokens(values=torch.zeros(1, 4, 2), positions=torch.ones(1, 4, 2), units={"word": torch.full((1, 4), 2)})
    nested = (tokens, [Masks(context=torch.full((1, 2), 3), targets=torch.full((1, 1, 1), 4))])
    found = list(graphs.tensors_of(nested))
    assert [int(t.flatten()[0]) for t in found] == [0, 1, 2, 3, 4]
    other = graphs.with_tensors(nested, lambda t: t + 10)
    assert [int(t.flatten()[0]) for t in graphs.tensors_of(other)] == [10, 11, 12, 13, 14]
    assert other[0].grid is None
    assert type(other[1][0]) is Masks
    assert graphs.with_tensors(Latents(values=found[0]), lambda t: t).positions is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"checkpoint_activations": True}, "checkpoint_activations"),
        ({"pretext": Views, "target": Online, "regularizers": [VICReg]}, "got Views"),
    ],
)
def test_what_cannot_be_recorded_is_refused(words, said):
    model = small(cuda_graphs=True, **words)
    with pytest.raises(ValueError, match=f"cuda_graphs.*{said}"):
        model.configure_model()


@pytest.mark.parametrize(("accumulated", "processes"), [(2, 1), (1, 2)])
def test_gradients_of_several_batches_or_processes_are_refused(accumulated, processes):
    with pytest.raises(ValueError, match="one process without accumulated"):
        graphs.refuse_gradients_of_several(accumulated, processes)


@pytest.mark.gpu
@pytest.mark.parametrize("compile", [False, True])
def test_a_card_replays_the_steps(compile):
    plain, recorded = pairs(compile=compile)
    batch = {"image": torch.randn(8, 3, 32, 32, device="cuda")}
    losses = []
    for model in (plain, recorded):
        model.to("cuda")
        model.configure_model()
        optimizer = model.configure_optimizers()
        losses.append([float(training_step(model, optimizer, batch, step, bf16=True)) for step in range(6)])
    assert losses[0] == pytest.approx(losses[1], rel=2e-3)
    assert len(set(losses[1])) == 6


@pytest.mark.gpu
def test_random_numbers_of_a_card_are_as_before_the_recording():
    module = torch.nn.Linear(2, 2).cuda()
    state = torch.cuda.get_rng_state()
    graphs.record(module, [torch.ones(2, 2, device="cuda")])
    assert torch.equal(torch.cuda.get_rng_state(), state)
