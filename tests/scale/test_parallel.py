"""What is done to blocks before they train, precisions, the learning rate's scaling, and checkpoints in shards."""

import json
import os
import pickle
from functools import partial

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import FSDPStrategy, StrategyRegistry
from torch import nn
from torch._dynamo.testing import CompileCounter

from jepa_lightning.cli.fit import fit
from jepa_lightning.maskers import Random
from jepa_lightning.optimization import decays
from jepa_lightning.run.checkpoints import read_checkpoint
from jepa_lightning.run.sharded import REST, by_index, is_sharded
from jepa_lightning.scale.parallel import prepare_layers
from jepa_lightning.scale.strategies import FSDP2Strategy, refuse_fsdp1
from jepa_lightning.schedules import Constant, LinearRamp
from jepa_lightning.targets import EMA, half

FSDP1 = "lightning.pytorch.strategies.FSDPStrategy"


class Moments(Callback):
    """Norms of what is computed, and the masks that were drawn."""

    def __init__(self):
        self.context, self.losses = [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.context.append(outputs["outcome"].context[0].values.dtype)
        self.losses.append(float(outputs["loss"]))


# Compilation ---------------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize(
    ("checkpoint_activations", "precision"), [(False, "32-true"), (True, "32-true"), (False, "bf16-mixed")]
)
def test_no_recompilation_after_the_second_step(
    make_jepa, make_data, make_trainer, monkeypatch, checkpoint_activations, precision
):
    """Masks of fixed size: every graph is made in the first two steps, none is given up."""
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    monkeypatch.setattr(half, "DEVICES", {"cpu"})  # as on CUDA: under autocast the target computes with a copy
    counter, compiled = CompileCounter(), []

    def compile(self, **kwargs):
        compiled.append(self)
        self._compiled_call_impl = torch.compile(self._call_impl, backend=counter)

    monkeypatch.setattr(nn.Module, "compile", compile)

    class Graphs(Callback):
        def on_train_batch_end(self, *args):
            seen.append(counter.frame_count)

    seen = []
    module = make_jepa(compile=True, checkpoint_activations=checkpoint_activations)
    trainer = make_trainer(Graphs(), max_steps=6, limit_val_batches=0, precision=precision)
    trainer.fit(module, datamodule=make_data())
    blocks = [*module.encoder.layers, *module.predictor.layers, *module.target.encoder.layers]
    assert compiled[: len(blocks)] == blocks
    assert len(compiled) == len(blocks) + (len(module.target.encoder.layers) if precision == "bf16-mixed" else 0)
    assert seen[1:] == [seen[1]] * 5
    assert seen[1] == 3  # encoder, predictor, target: their blocks share a graph
    assert not torch._dynamo.utils.counters["graph_break"]
    assert not torch._dynamo.utils.counters["recompile_limit"]


def test_recomputing_twice_the_same_is_told_by_names_alone(make_jepa):
    plain, changed = make_jepa(), make_jepa(checkpoint_activations=True, compile=True)
    changed.configure_model()
    assert decays(changed) == decays(plain)
    assert [name for name, _ in changed.named_parameters()] == [name for name, _ in plain.named_parameters()]


def test_blocks_are_changed_once_however_often_lightning_asks(make_jepa):
    class Counted(nn.Identity):
        calls = 0

        def forward(self, x):
            type(self).calls += 1
            return super().forward(x) * 1.0

    block = Counted()
    prepare_layers([block], checkpoint_activations=True)
    block(torch.ones(2, requires_grad=True)).sum().backward()
    assert Counted.calls in (1, 2)  # 1 where nothing that it saved is asked for
    module = make_jepa(checkpoint_activations=True)
    module.configure_model()
    forward = module.encoder.layers[0].forward
    module.configure_model()
    assert module.encoder.layers[0].forward is forward
    assert not isinstance(module.target.encoder.layers[0].forward, partial)  # it keeps no activations


# Precision -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_precisions(make_jepa, make_data, make_trainer, precision):
    module = make_jepa(target=partial(EMA, momentum=Constant(0.999)), learning_rate=Constant(1e-3))
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    moments = Moments()
    make_trainer(moments, max_steps=6, precision=precision).fit(module, datamodule=make_data())
    assert moments.losses[-1] < moments.losses[0]
    half = {name for name, p in module.named_parameters() if p.dtype == torch.bfloat16}
    norms = {name for name, _ in module.named_parameters() if ".norm" in name}
    assert len(norms) > 10
    if precision == "bf16-true":
        assert half == {n for n in before if not n.startswith("target.")} - norms
    else:
        assert not half
    for name, parameter in module.target.named_parameters():
        # 0.999 of the way stays; in bfloat16, a step of a thousandth of what the student moves would round to nothing
        student = dict(module.encoder.named_parameters())[name.removeprefix("encoder.")]
        if student.ndim > 1:
            assert 0 < (parameter - before[f"target.{name}"]).abs().max() < 0.1 * 6e-3
            assert parameter.dtype == torch.float32


def test_an_ema_is_exact_under_bf16_true():
    torch.manual_seed(0)
    student = nn.Linear(64, 64)
    target = EMA(student)
    around = nn.ModuleDict({"student": student, "target": target}).to(torch.bfloat16)
    assert student.weight.dtype == torch.bfloat16
    expected = target.encoder.weight.double()
    for step in range(20):
        with torch.no_grad():
            student.weight += 0.1 * torch.randn(64, 64, generator=torch.Generator().manual_seed(step)).bfloat16()
        around["target"].average(student, 0.9996)
        expected = 0.9996 * expected + 0.0004 * student.weight.double()
    torch.testing.assert_close(target.encoder.weight.double(), expected, rtol=0, atol=1e-7)


def test_other_conversions_take_all_along(make_jepa):
    module = make_jepa().double()
    assert {p.dtype for p in module.parameters()} == {torch.float64}
    module.float()
    assert {p.dtype for p in module.parameters()} == {torch.float32}


def test_16_mixed_on_a_cpu_says_what_is_done_instead(tmp_path):
    with pytest.warns(UserWarning, match=r"fp16 is not supported on CPU. Using `precision='bf16-mixed'`"):
        trainer = Trainer(accelerator="cpu", precision="16-mixed", logger=False, default_root_dir=tmp_path)
    assert trainer.precision == "bf16-mixed"


# Strategies ----------------------------------------------------------------------------------------------------------


def test_fsdp2_is_known_by_name():
    for name, sharded in (("fsdp2", True), ("fsdp2_one_file", False)):
        assert StrategyRegistry[name]["strategy"] is FSDP2Strategy
        assert StrategyRegistry.get(name).sharded_checkpoints is sharded


@pytest.mark.parametrize("strategy", ["fsdp", "fsdp_cpu_offload", FSDP1, json.dumps({"class_path": FSDP1})])
def test_fsdp1_is_refused_in_one_line(strategy, tmp_path, capsys):
    with pytest.raises(SystemExit):
        fit(["--config", "image.yaml", "--trainer.default_root_dir", str(tmp_path), "--trainer.strategy", strategy])
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("jepa-fit: error: FSDP1")
    assert "fsdp2" in said[0]
    assert len(said) <= 2


def test_fsdp1_is_refused_from_python():
    for strategy in ("ddp", "auto", "fsdp2", "fsdp2_one_file", FSDP2Strategy(), None):
        refuse_fsdp1(strategy)
    with pytest.raises(ValueError, match="fsdp2"):
        refuse_fsdp1(FSDPStrategy())


@pytest.mark.gpu
def test_fsdp2_on_one_gpu(make_jepa, make_data, make_trainer):
    module, watch = make_jepa(), Moments()
    settings = {"accelerator": "gpu", "strategy": "fsdp2", "precision": "bf16-mixed", "max_steps": 6}
    make_trainer(watch, **settings).fit(module, datamodule=make_data())
    assert watch.losses[-1] < watch.losses[0]


# The global batch ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("base", "accumulate", "factor"), [(None, 2, 1.0), (32, 2, 1.0), (16, 1, 1.0), (64, 2, 0.5)])
def test_learning_rate_scales_with_the_global_batch(make_jepa, make_data, make_trainer, base, accumulate, factor):
    class Rates(Callback):
        def on_train_end(self, trainer, pl_module):
            rates.update(group["lr"] for group in trainer.optimizers[0].param_groups)

    rates = set()
    module = make_jepa(
        base_batch=base, learning_rate=Constant(1e-3), target=partial(EMA, momentum=LinearRamp(0.9, 1.0))
    )
    trainer = make_trainer(Rates(), max_steps=2, accumulate_grad_batches=accumulate, limit_val_batches=0)
    trainer.fit(module, datamodule=make_data(batch_size=16))
    assert max(rates) == pytest.approx(1e-3 * factor)
    assert float(trainer.callback_metrics["train/lr"]) == pytest.approx(1e-3 * factor)
    assert float(trainer.callback_metrics["train/momentum"]) == pytest.approx(0.95)  # that is not scaled


def test_base_batch_is_checked(make_jepa):
    with pytest.raises(ValueError, match="base_batch must be at least 1, or null for no scaling, got 0"):
        make_jepa(base_batch=0)


# Masks ---------------------------------------------------------------------------------------------------------------


def test_masks_differ_by_micro_batch_and_rank(make_jepa, monkeypatch):
    module = make_jepa()
    tokens = module.tokenizer({"image": torch.rand(4, 3, 32, 32)})
    drawn = []
    for rank in (0, 1):
        monkeypatch.setattr(type(module), "global_rank", rank)
        for micro_batch in (0, 1):
            masks = module.masker(tokens, module.mask_generator("train", 3, micro_batch))
            drawn.append(str(masks[0].targets.tolist()))
    assert isinstance(module.masker, Random)
    assert len(set(drawn)) == 4


# Checkpoints in shards -----------------------------------------------------------------------------------------------


class Runs:
    def __reduce__(self):
        return os.mkdir, ("/this/runs/code",)


@pytest.fixture
def in_shards(tmp_path, make_jepa):
    """A checkpoint in shards, of one process."""
    from torch.distributed.checkpoint import save

    module = make_jepa()
    state = module.state_dict()
    names = [name for name, p in module.named_parameters() if p.requires_grad]
    optimizer = {
        "state": {n: {"step": torch.tensor(3.0)} for n in names},
        "param_groups": [{"lr": 0.5, "params": names}],
    }
    folder = tmp_path / "last.ckpt"
    save({"state_dict": dict(state), "optimizer_0": optimizer}, checkpoint_id=folder, no_dist=True)
    torch.save({"global_step": 3, "hyper_parameters": {}}, folder / REST)
    return folder, state


def test_shards_are_joined(in_shards):
    folder, state = in_shards
    assert is_sharded(folder)
    content = read_checkpoint(folder)
    assert content["global_step"] == 3
    assert content["state_dict"].keys() == state.keys()
    assert all(torch.equal(content["state_dict"][name], value) for name, value in state.items())
    assert "optimizer_states" not in content  # half of the reading, and of no use without training


@pytest.mark.parametrize("where", [".metadata", REST])
def test_no_code_is_run(in_shards, where):
    folder, _ = in_shards
    if where == REST:
        torch.save({"state": Runs()}, folder / where)
    else:
        (folder / where).write_bytes(pickle.dumps(Runs()))
    with pytest.raises(ValueError, match="such a file can run code, so it was not loaded"):
        read_checkpoint(folder)


def test_tables_of_contents_that_name_files_elsewhere_are_refused(in_shards):
    folder, _ = in_shards
    metadata = pickle.loads((folder / ".metadata").read_bytes())
    for info in metadata.storage_data.values():
        info.relative_path = "../elsewhere.distcp"
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    with pytest.raises(ValueError, match="expected tensors and plain values"):
        read_checkpoint(folder)


def test_plain_values_that_are_none_are_refused(tmp_path, make_jepa):
    from torch.distributed.checkpoint import save

    folder = tmp_path / "last.ckpt"
    save({"state_dict": {**make_jepa().state_dict(), "odd": Runs()}}, checkpoint_id=folder, no_dist=True)
    torch.save({}, folder / REST)
    with pytest.raises(ValueError, match="such a file can run code, so it was not loaded"):
        read_checkpoint(folder)


def test_a_missing_or_short_shard_is_said_so(in_shards):
    folder, _ = in_shards
    (shard,) = folder.glob("*.distcp")
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="expected a whole checkpoint"):
        read_checkpoint(folder)
    shard.unlink()
    with pytest.raises(ValueError, match="cannot read"):
        read_checkpoint(folder)


def test_optimizer_states_by_number():
    named = {"state": {"b": {"step": 1}}, "param_groups": [{"lr": 0.1, "params": ["b"]}, {"lr": 0.2, "params": ["a"]}]}
    expected = {"state": {0: {"step": 1}}, "param_groups": [{"lr": 0.1, "params": [0]}, {"lr": 0.2, "params": [1]}]}
    assert by_index(named) == expected
    assert by_index({"param_groups": [{"lr": 0.1, "params": ["b"]}]})["state"] == {}  # of an optimiser without any
