"""The EMA teacher."""

import copy

import pytest
import torch
from torch import nn

from jepa_lightning.callbacks import CollapseMonitor
from jepa_lightning.encoders.base import Encoder
from jepa_lightning.encoders.positions import grid_positions
from jepa_lightning.teacher import Teacher
from jepa_lightning.tokens import Tokens, take


class Small(Encoder):
    """Two linear maps with dropout between, and a buffer."""

    dim = 4

    def __init__(self):
        super().__init__()
        self.first, self.drop, self.last = nn.Linear(3, 5), nn.Dropout(0.5), nn.Linear(5, 4)
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    @property
    def blocks(self):
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
    teacher = Teacher(student)
    for mine, theirs in zip(teacher.encoder.parameters(), student.parameters(), strict=True):
        assert torch.equal(mine, theirs)
        assert mine.data_ptr() != theirs.data_ptr()


def test_update_is_the_moving_average_of_a_plain_loop(student):
    teacher = Teacher(student)
    plain = [[float(x) for x in p.flatten()] for p in teacher.encoder.parameters()]
    for step, momentum in enumerate((0.9, 0.5, 0.996, 1.0, 0.0)):
        disturb(student, seed=step)
        teacher.update(student, momentum)
        for values, parameter in zip(plain, student.parameters(), strict=True):
            new = parameter.detach().flatten().tolist()
            values[:] = [momentum * old + (1 - momentum) * x for old, x in zip(values, new, strict=True)]
        for values, parameter in zip(plain, teacher.encoder.parameters(), strict=True):
            torch.testing.assert_close(parameter.flatten(), torch.tensor(values), rtol=1e-5, atol=1e-6)


def test_a_momentum_of_one_changes_no_bit(student):
    teacher = Teacher(student)
    before = copy.deepcopy(teacher.state_dict())
    disturb(student)
    teacher.update(student, 1.0)
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())


def test_the_student_is_left_alone(student):
    teacher = Teacher(student)
    disturb(student)
    before = copy.deepcopy(student.state_dict())
    teacher.update(student, 0.5)
    assert all(torch.equal(before[name], value) for name, value in student.state_dict().items())
    assert all(p.requires_grad for p in student.parameters())


def test_buffers_are_copied(student):
    teacher = Teacher(student)
    student.seen += 3.5
    student.count += 7
    teacher.update(student, 0.9)
    assert float(teacher.encoder.seen) == 3.5
    assert int(teacher.encoder.count) == 7


def test_stays_in_eval_mode(student):
    class Around(nn.Module):
        def __init__(self):
            super().__init__()
            self.student, self.teacher = student, Teacher(student)

    around = Around().train()
    assert around.student.drop.training
    assert not any(part.training for part in around.teacher.modules())
    same = tokens()
    assert torch.equal(around.teacher(same), around.teacher(same))  # no dropout


def test_no_gradient_flows(student):
    teacher = Teacher(student)
    assert not any(p.requires_grad for p in teacher.parameters())
    values = torch.randn(2, 6, 3, requires_grad=True)
    out = teacher(Tokens(values=values, positions=torch.zeros(1, 6, 1)))
    assert not out.requires_grad
    teacher.update(student, 0.9)
    assert not any(p.requires_grad for p in teacher.parameters())
    assert student(tokens()).requires_grad


def test_can_see_a_part_of_the_tokens(student):
    teacher, some = Teacher(student), tokens()
    keep = torch.tensor([[1, 4], [5, 0]])
    whole = teacher(some)
    torch.testing.assert_close(teacher(some, keep), torch.stack([whole[0, [1, 4]], whole[1, [5, 0]]]))


def test_state_dict_is_the_encoders_and_loads(student):
    teacher = Teacher(student)
    assert set(teacher.state_dict()) == {f"encoder.{name}" for name in student.state_dict()}
    teacher.update(student, 0.9)
    disturb(student)
    other = Teacher(student)
    other.load_state_dict(teacher.state_dict())
    other.update(student, 0.25)
    for mine, old, new in zip(
        other.encoder.parameters(), teacher.encoder.parameters(), student.parameters(), strict=True
    ):
        torch.testing.assert_close(mine.detach(), 0.25 * old.detach() + 0.75 * new.detach())


def test_moving_both_to_another_type_after_an_update_keeps_the_average_going(student):
    around = nn.ModuleDict({"student": student, "teacher": Teacher(student)})
    around["teacher"].update(student, 0.9)
    around.to(torch.float64)
    before = [p.clone() for p in around["teacher"].parameters()]
    disturb(student)
    around["teacher"].update(student, 0.9)
    for mine, old, new in zip(around["teacher"].parameters(), before, student.parameters(), strict=True):
        assert mine.dtype == torch.float64
        torch.testing.assert_close(mine, 0.9 * old + 0.1 * new.detach())


def test_moving_the_student_alone_does_not_leave_the_teacher_with_its_old_weights(student):
    teacher = Teacher(student)
    teacher.update(student, 0.9)
    student.to(torch.float64).to(torch.float32)  # new storage, the same parameters
    disturb(student)
    before = [p.clone() for p in teacher.parameters()]
    teacher.update(student, 0.9)
    for mine, old, new in zip(teacher.parameters(), before, student.parameters(), strict=True):
        torch.testing.assert_close(mine, 0.9 * old + 0.1 * new.detach())


def test_another_student_is_the_one_that_is_followed(student):
    teacher = Teacher(student)
    teacher.update(student, 0.9)
    other = copy.deepcopy(student)
    disturb(other)
    teacher.update(other, 0.0)
    for mine, theirs in zip(teacher.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs.detach())


def test_a_deep_copy_is_a_teacher_of_its_own(student):
    teacher = Teacher(student)
    teacher.update(student, 0.9)
    clone = copy.deepcopy(teacher)
    assert isinstance(clone, Teacher)
    before = copy.deepcopy(clone.state_dict())
    disturb(student)
    teacher.update(student, 0.0)
    assert all(torch.equal(before[name], value) for name, value in clone.state_dict().items())
    clone.update(student, 0.5)
    assert not torch.equal(clone.encoder.first.weight, teacher.encoder.first.weight)
    assert not clone.training
    assert not any(p.requires_grad for p in clone.parameters())


def test_a_deep_copy_of_both_follows_its_own_student(student):
    around = nn.ModuleDict({"student": student, "teacher": Teacher(student)})
    around["teacher"].update(student, 0.9)
    clone = copy.deepcopy(around)
    disturb(clone["student"])
    clone["teacher"].update(clone["student"], 0.0)
    for mine, theirs in zip(clone["teacher"].parameters(), clone["student"].parameters(), strict=True):
        torch.testing.assert_close(mine, theirs.detach())


def test_a_teacher_that_sees_the_targets_alone(make_jepa):
    """Against an encoding of each sample's set of targets by itself; overlapping blocks, filler, both together."""
    teacher = make_jepa().teacher
    values = torch.randn(2, 16, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    tokens = Tokens(values=values, positions=grid_positions((4, 4)), grid=(4, 4))
    targets = torch.tensor([[[0, 1, 5], [1, 2, 6]], [[3, 7, 0], [8, 12, 13]]])
    valid = torch.tensor([[[True] * 3, [True] * 3], [[True, True, False], [True] * 3]])
    for blocks, real in ((targets, None), (targets, valid), (targets[:, :1], None), (targets[:, :1], valid[:, :1])):
        found = teacher.alone(tokens, blocks, real)
        assert found.shape == (*blocks.shape, 32)
        for b in range(2):
            own = torch.ones_like(blocks[b], dtype=torch.bool) if real is None else real[b]
            alone = sorted(set(blocks[b][own].tolist()))
            one = Tokens(values=values[b : b + 1], positions=tokens.positions, grid=(4, 4))
            expected = teacher(one, torch.tensor([alone]))[0]
            for place, encoded in zip(blocks[b][own].tolist(), found[b][own], strict=True):
                assert torch.allclose(encoded, expected[alone.index(place)], atol=1e-5)


def test_what_is_no_target_changes_nothing_for_a_teacher_that_sees_targets_alone(make_jepa):
    module = make_jepa(target_sees="targets")
    image = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    step = module.compare({"image": image}, torch.Generator().manual_seed(1))
    hidden = torch.zeros(4, 16).scatter_(1, step.masks[0].targets.flatten(1), 1).view(4, 1, 4, 4)
    other = torch.where(hidden.repeat_interleave(8, 2).repeat_interleave(8, 3) > 0, image, 0.0)
    again = module.compare({"image": other}, torch.Generator().manual_seed(1))
    assert torch.equal(step.target, again.target)
    assert step.target.shape == (4, 8, 32)  # two blocks of four
    whole = make_jepa().compare({"image": image}, torch.Generator().manual_seed(1))
    assert not torch.allclose(step.target, take(whole.target, step.masks[0].targets).flatten(1, 2), atol=1e-3)


def test_target_sees_is_checked(make_jepa):
    with pytest.raises(ValueError, match="target_sees must be all or targets, got 'context'"):
        make_jepa(target_sees="context")


def test_a_run_whose_teacher_sees_targets_alone(make_trainer, make_jepa, make_data):
    module = make_jepa(target_sees="targets")
    trainer = make_trainer(CollapseMonitor(every_n_steps=2), max_steps=4)
    trainer.fit(module, datamodule=make_data())
    assert trainer.callback_metrics["train/loss"].isfinite()
    assert trainer.callback_metrics["collapse/effective_rank"] > 1
