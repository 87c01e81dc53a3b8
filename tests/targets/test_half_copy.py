"""The target's weights in half precision: bit for bit what autocast gives, whatever happened to the weights."""

import copy
from functools import partial

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn

from jepa_lightning.encoders import SinCosPositions, TimmEncoder, TokenSpec, ViT
from jepa_lightning.targets import EMA, half
from jepa_lightning.tokens import Tokens

SPEC = TokenSpec(shape=(3, 8, 8), grid=(4, 4), positions=SinCosPositions)
ENCODERS = {
    "vit": partial(ViT, width=32, depth=2, heads=2),
    "rotary": partial(ViT, width=32, depth=2, heads=2, rotary="interleaved"),
    "timm": partial(TimmEncoder, name="vit_tiny_patch16_224"),
    "eva": partial(TimmEncoder, name="eva02_tiny_patch14_224"),
}


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request, monkeypatch):
    monkeypatch.setattr(half, "DEVICES", {"cpu", "cuda"})
    return request.param


def tokens(device):
    where = torch.stack(torch.meshgrid(*[torch.arange(4.0)] * 2, indexing="ij"), -1).reshape(1, 16, 2)
    values = torch.randn(2, 16, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return Tokens(values=values.to(device), positions=where.to(device), grid=(4, 4))


def disturb(module, seed=1):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator).to(parameter.device)


def make(device, name="vit"):
    torch.manual_seed(0)
    student = ENCODERS[name](SPEC).to(device)
    disturb(student, seed=2)
    return student, EMA(student).to(device)


def check(target, device, used=True):
    """The copy is used, and gives what autocast gives with the weights as they are now."""
    some = tokens(device)
    with torch.autocast(device, torch.bfloat16):
        found = target(some)
        target.half_copy = False
        expected = target(some)
        target.half_copy = True
    assert torch.equal(found, expected)
    assert (target._half is not None) == used


@pytest.mark.parametrize("name", ENCODERS)
def test_bit_for_bit_what_autocast_gives(device, name):
    student, target = make(device, name)
    check(target, device)
    for step in range(3):
        disturb(student, seed=step)
        target.average(student, 0.7)
        check(target, device)
    copies = [p for p in target._half.encoder().parameters() if p.dtype == torch.bfloat16]
    assert copies


def test_weights_from_elsewhere(device):
    student, target = make(device)
    check(target, device)
    disturb(student)
    target.load_state_dict({f"encoder.{name}": value for name, value in student.state_dict().items()})
    check(target, device)
    assigned = {name: value.clone() for name, value in target.encoder.state_dict().items()}
    target.encoder.load_state_dict({name: value + 0.1 for name, value in assigned.items()}, assign=True)
    check(target, device)
    target.double().float()
    check(target, device)
    with torch.no_grad():
        target.encoder.transformer.layers[0].mlp.fc1.weight.mul_(1.5)
    check(target, device)


def test_it_is_in_no_checkpoint_and_no_copy(device):
    student, target = make(device)
    check(target, device)
    assert set(target.state_dict()) == {f"encoder.{name}" for name in student.state_dict()}
    assert {p.dtype for p in target.parameters()} == {torch.float32}
    assert len(list(target.modules())) == len(list(student.modules())) + 1
    clone = copy.deepcopy(target)
    assert clone._half is None
    disturb(student)
    clone.average(student, 0.0)
    check(clone, device)
    check(target, device)


def test_only_where_autocast_is_in_half_precision(device):
    _, target = make(device)
    plain = target(tokens(device))
    assert target._half is None
    assert plain.dtype == torch.float32
    half.DEVICES.discard(device)
    check(target, device, used=False)
    assert not half.HalfCopy.serves(torch.device("meta"))


def test_other_parts_share_their_weights(device):
    _, target = make(device)
    check(target, device)
    copied = target._half.encoder()
    assert copied.embed.weight is target.encoder.embed.weight
    assert copied.transformer.norm.weight is target.encoder.transformer.norm.weight
    assert copied.transformer.layers[0].attn.qkv.weight.dtype == torch.bfloat16
    assert not any(p.requires_grad for p in copied.parameters())


def test_compiled_blocks_are_compiled_in_the_copy_too(monkeypatch):
    monkeypatch.setattr(half, "DEVICES", {"cpu"})
    compiled = []

    def compile(self):
        compiled.append(self)
        self._compiled_call_impl = self._call_impl

    monkeypatch.setattr(nn.Module, "compile", compile)
    _, target = make("cpu")
    for block in target.encoder.layers:
        block.compile()
    check(target, "cpu")
    assert len(compiled) == 4


def test_torch_still_says_which_blocks_are_compiled():
    block = nn.Linear(2, 2)
    assert not half.is_compiled(block)
    block.compile()
    assert half.is_compiled(block)


def test_a_run_with_the_copy_is_the_run_without(make_jepa, make_data, make_trainer, monkeypatch):
    class Used(Callback):
        def on_train_batch_end(self, trainer, pl_module, *args):
            used.append(pl_module.target._half is not None)

    def run(**settings):
        module = make_jepa(target=partial(EMA, **settings))
        make_trainer(Used(), max_steps=4, precision="bf16-mixed").fit(module, datamodule=make_data())
        return module

    used = []

    monkeypatch.setattr(half, "DEVICES", {"cpu"})
    mine, other = run(), run(half_copy=False)
    assert used == [True] * 4 + [False] * 4
    assert mine.target._half is None  # the module was moved since
    for a, b in zip(mine.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
