"""The target by a moving average."""

import copy

import pytest
import torch
from torch import nn

from jepa_lightning.encoders.base import Encoder
from jepa_lightning.targets import EMA
from jepa_lightning.tokens import Tokens


class Small(Encoder):
    """Two linear maps with dropout between, and a buffer."""

    dim = 4

    def __init__(self):
        super().__init__()
        self.first, self.drop, self.last = nn.Linear(3, 5), nn.Dropout(0.5), nn.Linear(5, 4)
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    @property
    def layers(self):
        return [self.first, self.last]

    def forward(self, tokens, keep=None, keep_valid=None):
        tokens = tokens if keep is None else tokens.take(keep, keep_valid)
        return self.last(self.drop(self.first(tokens.values)))


@pytest.fixture
def student():
    torch.manual_seed(0)
    return Small()


def tokens(dtype=torch.float32):
    return Tokens(values=torch.randn(2, 6, 3, dtype=dtype), positions=torch.zeros(1, 6, 1))


def disturb(student, seed=1):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += torch.randn(parameter.shape, generator=generator).to(parameter.dtype)


def test_starts_as_a_copy_that_is_not_the_student(student):
    target = EMA(student)
    for mine, theirs in zip(target.encoder.parameters(), student.parameters(), strict=True):
        assert torch.equal(mine, theirs)
        assert mine.data_ptr() != theirs.data_ptr()


def test_update_is_the_moving_average_of_a_plain_loop(student):
    target = EMA(student)
    plain = [[float(x) for x in p.flatten()] for p in target.encoder.parameters()]
    for step, momentum in enumerate((0.9, 0.5, 0.996, 1.0, 0.0)):
        disturb(student, seed=step)
        target.average(student, momentum)
        for values, parameter in zip(plain, student.parameters(), strict=True):
            new = parameter.detach().flatten().tolist()
            values[:] = [momentum * old + (1 - momentum) * x for old, x in zip(values, new, strict=True)]
        for values, parameter in zip(plain, target.encoder.parameters(), strict=True):
            torch.testing.assert_close(parameter.flatten(), torch.tensor(values), rtol=1e-5, atol=1e-6)


def test_a_momentum_of_one_changes_no_bit(student):
    target = EMA(student)
    before = copy.deepcopy(target.state_dict())
    disturb(student)
    target.average(student, 1.0)
    assert all(torch.equal(before[name], value) for name, value in target.state_dict().items())


def test_the_student_is_left_alone(student):
    target = EMA(student)
    disturb(student)
    before = copy.deepcopy(student.state_dict())
    target.average(student, 0.5)
    assert all(torch.equal(before[name], value) for name, value in student.state_dict().items())
    assert all(p.requires_grad for p in student.parameters())


def test_buffers_are_copied(student):
    target = EMA(student)
    student.seen += 3.5
    student.count += 7
    target.average(student, 0.9)
    assert float(target.encoder.seen) == 3.5
    assert int(target.encoder.count) == 7


def test_stays_in_eval_mode(student):
    class Around(nn.Module):
        def __init__(self):
            super().__init__()
            self.student, self.target = student, EMA(student)

    around = Around().train()
    assert around.student.drop.training
    assert not any(part.training for part in around.target.modules())
    same = tokens()
    assert torch.equal(around.target(same), around.target(same))  # no dropout


def test_no_gradient_flows(student):
    target = EMA(student)
    assert not any(p.requires_grad for p in target.parameters())
    values = torch.randn(2, 6, 3, requires_grad=True)
    out = target(Tokens(values=values, positions=torch.zeros(1, 6, 1)))
    assert not out.requires_grad
    target.average(student, 0.9)
    assert not any(p.requires_grad for p in target.parameters())
    assert student(tokens()).requires_grad


def test_can_see_a_part_of_the_tokens(student):
    target, some = EMA(student), tokens()
    keep = torch.tensor([[1, 4], [5, 0]])
    whole = target(some)
    torch.testing.assert_close(target(some, keep), torch.stack([whole[0, [1, 4]], whole[1, [5, 0]]]))


def test_state_dict_is_the_encoders_and_loads(student):
    target = EMA(student)
    assert set(target.state_dict()) == {f"encoder.{name}" for name in student.state_dict()}
    target.average(student, 0.9)
    disturb(student)
    other = EMA(student)
    other.load_state_dict(target.state_dict())
    other.average(student, 0.25)
    for mine, old, new in zip(
        other.encoder.parameters(), target.encoder.parameters(), student.parameters(), strict=True
    ):
        torch.testing.assert_close(mine.detach(), 0.25 * old.detach() + 0.75 * new.detach())


def test_moving_both_to_another_type_after_an_update_keeps_the_average_going(student):
    around = nn.ModuleDict({"student": student, "target": EMA(student)})
    around["target"].average(student, 0.9)
    around.to(torch.float64)
    before = [p.clone() for p in around["target"].parameters()]
    disturb(student)
    around["target"].average(student, 0.9)
    for mine, old, new in zip(around["target"].parameters(), before, student.parameters(), strict=True):
        assert mine.dtype == torch.float64
        torch.testing.assert_close(mine, 0.9 * old + 0.1 * new.detach())


def test_moving_the_student_alone_does_not_leave_the_target_with_its_old_weights(student):
    target = EMA(student)
    target.average(student, 0.9)
    student.to(torch.float64).to(torch.float32)  # new storage, the same parameters
    disturb(student)
    before = [p.clone() for p in target.parameters()]
    target.average(student, 0.9)
    for mine, old, new in zip(target.parameters(), before, student.parameters(), strict=True):
        torch.testing.assert_close(mine, 0.9 * old + 0.1 * new.detach())


def test_another_student_is_the_one_that_is_followed(student):
    target = EMA(student)
    target.average(student, 0.9)
    other = copy.deepcopy(student)
    disturb(other)
    target.average(other, 0.0)
    for mine, theirs in zip(target.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs.detach())


def test_a_deep_copy_is_a_target_of_its_own(student):
    target = EMA(student)
    target.average(student, 0.9)
    clone = copy.deepcopy(target)
    assert isinstance(clone, EMA)
    before = copy.deepcopy(clone.state_dict())
    disturb(student)
    target.average(student, 0.0)
    assert all(torch.equal(before[name], value) for name, value in clone.state_dict().items())
    clone.average(student, 0.5)
    assert not torch.equal(clone.encoder.first.weight, target.encoder.first.weight)
    assert not clone.training
    assert not any(p.requires_grad for p in clone.parameters())


def test_a_deep_copy_of_both_follows_its_own_student(student):
    around = nn.ModuleDict({"student": student, "target": EMA(student)})
    around["target"].average(student, 0.9)
    clone = copy.deepcopy(around)
    disturb(clone["student"])
    clone["target"].average(clone["student"], 0.0)
    for mine, theirs in zip(clone["target"].parameters(), clone["student"].parameters(), strict=True):
        torch.testing.assert_close(mine, theirs.detach())
