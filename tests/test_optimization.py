"""Which optimisers are fused, and that resuming on another device keeps to what is right there."""

import copy

import pytest
import torch
from lightning.pytorch import Callback

from jepa_lightning.optimization import fused_by_default, is_accumulating, set_fused

AdamW = torch.optim.AdamW


@pytest.fixture
def weights():
    torch.manual_seed(0)
    return [torch.nn.Parameter(torch.randn(4, 3)), torch.nn.Parameter(torch.randn(3))]


def steps(optimizer, weights, count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        for p in weights:
            p.grad = torch.randn(p.shape, generator=generator).to(p)
        optimizer.step()


def test_not_on_a_cpu(weights):
    optimizer = AdamW(weights)
    assert fused_by_default(optimizer) is False
    set_fused(optimizer, False)
    assert all(group["fused"] is None for group in optimizer.param_groups)


@pytest.mark.parametrize(
    "build",
    [
        lambda p: AdamW(p, fused=False),
        lambda p: AdamW(p, foreach=True),
        lambda p: AdamW(p, capturable=True),
        lambda p: torch.optim.SGD(p, lr=0.1),
        lambda p: torch.optim.NAdam(p),
    ],
)
def test_what_a_user_has_chosen_stays(build, weights):
    optimizer = build(weights)
    before = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    assert fused_by_default(optimizer) is None
    set_fused(optimizer, None)
    assert [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups] == before


def test_the_fused_kernel_is_adamw(weights):
    """On a CPU, which has one as well; in float64."""
    weights = [torch.nn.Parameter(p.detach().double()) for p in weights]
    others = [torch.nn.Parameter(p.detach().clone()) for p in weights]
    plain, fused = AdamW(weights, weight_decay=0.3), AdamW(others, weight_decay=0.3)
    set_fused(fused, True)
    steps(plain, weights, 5)
    steps(fused, others, 5)
    for mine, theirs in zip(others, weights, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-14)


def test_a_checkpoint_of_a_fused_run_resumes_unfused_bit_for_bit(weights):
    others = [torch.nn.Parameter(p.detach().clone()) for p in weights]
    plain, resumed = AdamW(weights), AdamW(others)
    steps(plain, weights, 2)
    state = copy.deepcopy(plain.state_dict())
    for group in state["param_groups"]:
        group["fused"] = True
    with torch.no_grad():
        for mine, theirs in zip(others, weights, strict=True):
            mine.copy_(theirs)
    resumed.load_state_dict(state)
    assert resumed.param_groups[0]["fused"]
    set_fused(resumed, False)
    steps(plain, weights, 3, seed=1)
    steps(resumed, others, 3, seed=1)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(others, weights, strict=True))


def test_a_run_on_a_cpu_is_not_fused(make_jepa, make_data, make_trainer):
    trainer = make_trainer(max_steps=1, limit_val_batches=0)
    trainer.fit(make_jepa(), datamodule=make_data())
    assert all(group["fused"] is None for group in trainer.optimizers[0].param_groups)


@pytest.mark.gpu
@pytest.mark.parametrize("settings", [{}, {"gradient_clip_val": 1.0}, {"precision": "16-mixed"}])
def test_a_run_on_a_gpu_is_fused(make_jepa, make_data, make_trainer, settings):
    precision = {"precision": "bf16-mixed", **settings}
    trainer = make_trainer(max_steps=3, limit_val_batches=0, accelerator="gpu", **precision)
    trainer.fit(make_jepa(), datamodule=make_data())
    assert all(group["fused"] for group in trainer.optimizers[0].param_groups)


@pytest.mark.gpu
def test_fused_on_a_gpu_is_adamw_on_the_cpu(weights):
    others = [torch.nn.Parameter(p.detach().cuda()) for p in weights]
    plain, fused = AdamW(weights), AdamW(others)
    assert fused_by_default(fused)
    set_fused(fused, True)
    steps(plain, weights, 5)
    steps(fused, others, 5)
    for mine, theirs in zip(others, weights, strict=True):
        torch.testing.assert_close(mine.cpu(), theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("settings", [{}, {"accumulate_grad_batches": 4}, {"limit_train_batches": 5}])
def test_whether_a_batch_only_adds_to_the_gradients(make_jepa, make_data, make_trainer, settings):
    """As the optimiser's steps say, which are made at the end of an epoch of 6 batches, too."""
    found, steps = [], []

    class Look(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            found.append(is_accumulating(trainer))
            steps.append(trainer.global_step)

    trainer = make_trainer(Look(), max_epochs=2, limit_val_batches=0, **{"accumulate_grad_batches": 3, **settings})
    trainer.fit(make_jepa(), datamodule=make_data())
    assert found == [after == before for before, after in zip([0, *steps], steps, strict=False)]
    assert any(found)
    assert not all(found)
