"""The JEPA module against a plain-loop float64 reference written from I-JEPA's paper, and under Lightning."""

import math
from functools import partial

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, Dataset

from jepa_lightning import JEPA
from jepa_lightning.callbacks import LastCheckpoint, LossBar, default_callbacks
from jepa_lightning.encoders import ViT
from jepa_lightning.maskers import Masker, MultiBlock
from jepa_lightning.objectives import MSE
from jepa_lightning.optimization import decays
from jepa_lightning.predictors import TransformerPredictor
from jepa_lightning.regularizers import VICReg
from jepa_lightning.schedules import Constant, CosineRamp, LinearRamp, WarmupCosine
from jepa_lightning.targets import EMA
from jepa_lightning.tokens import Masks
from modalities.image import Image, PatchTokenizer


def tiny(masker=None, **kwargs) -> JEPA:
    torch.manual_seed(0)
    modality = Image(
        image_size=(24, 32),
        patch_size=4,
        encoder=partial(ViT, width=24, depth=2, heads=2),
        masker=masker or MultiBlock(min_context=4),
    )
    return JEPA(modality, predictor=partial(TransformerPredictor, width=12, depth=2, heads=3), **kwargs)


class Random(Dataset):
    def __init__(self, count=32):
        self.images = torch.randn(count, 3, 24, 32, generator=torch.Generator().manual_seed(1))

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return {"image": self.images[index], "id": str(index)}


def trainer(tmp_path, **kwargs) -> Trainer:
    settings = dict(
        default_root_dir=tmp_path,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        max_epochs=1,
    )
    return Trainer(**{**settings, **kwargs})


# A JEPA in plain loops, float64, one sample and one block at a time ------------------------------------------------


def plain_norm(x, norm):
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    x = (x - mean) / torch.sqrt(variance + norm.eps)
    return x if norm.weight is None else x * norm.weight + norm.bias


def plain_trunk(x, trunk):
    """x (n, W): pre-norm attention and MLP, head by head."""
    for block in trunk.layers:
        y = plain_norm(x, block.norm1)
        q, k, v = (y @ block.attn.qkv.weight.T + block.attn.qkv.bias).chunk(3, dim=-1)
        size = x.shape[1] // block.attn.num_heads
        heads = []
        for h in range(block.attn.num_heads):
            part = slice(h * size, (h + 1) * size)
            scores = q[:, part] @ k[:, part].T / math.sqrt(size)
            heads.append(torch.exp(scores) / torch.exp(scores).sum(-1, keepdim=True) @ v[:, part])
        x = x + torch.cat(heads, -1) @ block.attn.proj.weight.T + block.attn.proj.bias
        y = plain_norm(x, block.norm2) @ block.mlp.fc1.weight.T + block.mlp.fc1.bias
        y = 0.5 * y * (1 + torch.erf(y / math.sqrt(2)))
        x = x + y @ block.mlp.fc2.weight.T + block.mlp.fc2.bias
    return plain_norm(x, trunk.norm)


def plain_position(row, column, width):
    half = width // 4
    out = [0.0] * width
    for axis, place in enumerate((row, column)):
        for i in range(half):
            angle = place / 10_000 ** (i / half)
            out[axis * 2 * half + i] = math.sin(angle)
            out[axis * 2 * half + half + i] = math.cos(angle)
    return torch.tensor(out, dtype=torch.float64)


def plain_encode(encoder, image, places, columns, patch=4):
    rows = []
    for place in places:
        r, c = divmod(place, columns)
        pixels = image[:, r * patch : (r + 1) * patch, c * patch : (c + 1) * patch].reshape(-1)
        rows.append(encoder.embed.weight @ pixels + encoder.embed.bias + plain_position(r, c, encoder.dim))
    return plain_trunk(torch.stack(rows), encoder.transformer)


def plain_loss(model, images, mask, columns):
    """Equation of I-JEPA, section 3: mean over blocks of the distance to the layer-normed target's patches."""
    total, count = 0.0, 0
    width = model.predictor.mask_token.shape[0]
    for b, image in enumerate(images):
        seen = mask.context[b].tolist()
        context = plain_encode(model.encoder, image, seen, columns)
        with torch.no_grad():
            seen_by_target = plain_encode(model.target.encoder, image, range(columns * 6), columns)
        for block in mask.targets[b].tolist():
            known = [
                model.predictor.embed.weight @ context[i] + model.predictor.embed.bias
                + plain_position(*divmod(place, columns), width)
                for i, place in enumerate(seen)
            ]  # fmt: skip
            asked = [model.predictor.mask_token + plain_position(*divmod(p, columns), width) for p in block]
            out = plain_trunk(torch.stack(known + asked), model.predictor.transformer)[len(known) :]
            predicted = out @ model.predictor.project.weight.T + model.predictor.project.bias
            for guess, place in zip(predicted, block, strict=True):
                target = seen_by_target[place]
                target = (target - target.mean()) / torch.sqrt(((target - target.mean()) ** 2).mean() + 1e-5)
                total = total + ((guess - target) ** 2).mean()
                count += 1
    return total / count


def test_step_equals_plain_float64_reference(tmp_path):
    ema = partial(EMA, momentum=Constant(0.9))
    model = tiny(objective=MSE(), target=ema, learning_rate=Constant(0.01), weight_decay=Constant(0.1))
    with torch.no_grad():  # biases, norms and a target that differs from the context encoder: nothing is trivially zero
        for i, p in enumerate(model.parameters()):
            p += 0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i))
    reference = tiny(objective=MSE())
    reference.load_state_dict(model.state_dict())
    reference = reference.double()
    before = {name: p.detach().clone() for name, p in reference.named_parameters()}

    images = Random(6)
    fit = trainer(tmp_path, max_steps=1, precision="64-true")
    losses = []
    model.on_before_optimizer_step = lambda optimizer: grads.update(  # type: ignore[method-assign]
        {n: p.grad.detach().clone() for n, p in model.named_parameters() if p.grad is not None}
    )
    grads: dict[str, torch.Tensor] = {}
    original, draw = model.step, model.pretext.masks

    def step(batch, generator):
        outcome = original(batch, generator)
        losses.append((sum(model.losses(outcome).values()).detach(), masks[-1], batch["image"]))
        return outcome

    masks = []
    model.step = step  # type: ignore[method-assign]
    model.pretext.masks = lambda *given: masks.extend(draw(*given)) or masks[-1:]  # type: ignore[method-assign]
    fit.fit(model, DataLoader(images, batch_size=6))

    loss, mask, batch = losses[0]
    expected = plain_loss(reference, batch.double(), mask, columns=8)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)  # inputs are float32, positions too
    expected.backward()
    trained = {n for n, p in reference.named_parameters() if p.requires_grad}
    assert set(grads) == trained
    for name, parameter in reference.named_parameters():
        if name in trained:
            torch.testing.assert_close(grads[name].double(), parameter.grad, rtol=1e-4, atol=1e-7)

    # AdamW's first step (Loshchilov and Hutter 2019, algorithm 2), then the target (I-JEPA, section 3).
    after = dict(model.named_parameters())
    decaying = decays(reference)
    for name in trained:
        gradient = grads[name].double()
        start = before[name] * (1 - 0.01 * 0.1) if name in decaying else before[name]
        moved = start - 0.01 * gradient / (gradient.abs() + 1e-8)
        torch.testing.assert_close(after[name].double(), moved, rtol=1e-6, atol=1e-8)
        if name.startswith("encoder."):
            average = 0.9 * before[f"target.{name}"] + 0.1 * after[name].double()
            torch.testing.assert_close(after[f"target.{name}"].double(), average, rtol=1e-6, atol=1e-8)


def test_target_branch_gets_no_gradient():
    model = tiny()
    outcome = model.step({"image": Random(4).images[:4]}, model.mask_generator("train", 0, 0))
    assert not outcome.target[0].values.requires_grad
    assert not outcome.predictions[0].target.requires_grad
    sum(model.losses(outcome).values()).backward()
    assert all(p.grad is None for p in model.target.parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.encoder.parameters())
    optimizer = model.configure_optimizers()
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert not held & {id(p) for p in model.target.parameters()}
    assert held == {id(p) for p in model.parameters() if p.requires_grad}


def test_decay_spares_biases_norms_positions_and_tokens():
    model = tiny()
    spared = {name for name, p in model.named_parameters() if p.requires_grad} - decays(model)
    assert "predictor.mask_token" in spared
    assert all(name.endswith("bias") or "norm" in name or name == "predictor.mask_token" for name in spared)
    assert all(name.endswith("weight") and "norm" not in name for name in decays(model))
    layer = nn.Sequential(nn.Embedding(3, 4), nn.Linear(4, 4))
    assert decays(layer) == {"1.weight"}


@pytest.mark.parametrize("accumulate", [1, 2])
def test_schedules_follow_optimiser_steps(tmp_path, accumulate):
    model = tiny(
        learning_rate=WarmupCosine(peak=0.01, start=0.001, end=0.0, warmup=0.25),
        weight_decay=CosineRamp(0.0, 0.4),
        target=partial(EMA, momentum=LinearRamp(0.5, 1.0)),
    )
    seen, momenta = [], []
    average = model.target.average
    model.target.average = lambda student, m: (momenta.append(m), average(student, m))  # type: ignore[method-assign]
    model.on_before_zero_grad = lambda optimizer: None  # type: ignore[method-assign]
    step = torch.optim.AdamW.step

    def spy(self, closure=None):
        result = step(self, closure)
        seen.append([(group["lr"], group["weight_decay"]) for group in self.param_groups])
        return result

    torch.optim.AdamW.step = spy  # type: ignore[method-assign]
    try:
        fit = trainer(tmp_path, accumulate_grad_batches=accumulate, max_epochs=2)
        fit.fit(model, DataLoader(Random(32), batch_size=4))
    finally:
        torch.optim.AdamW.step = step  # type: ignore[method-assign]
    total = 16 // accumulate
    assert len(seen) == len(momenta) == total == model.total_steps == fit.global_step
    assert momenta == [0.5 + 0.5 * i / total for i in range(total)]
    for i, ((lr, decay), (lr_spared, no_decay)) in enumerate(seen):
        warmup = total // 4
        cosine = 0.005 * (1 + math.cos(math.pi * (i - warmup) / (total - warmup)))
        assert lr == lr_spared == pytest.approx(0.001 + 0.009 * i / warmup if i < warmup else cosine)
        assert decay == pytest.approx(0.2 * (1 - math.cos(math.pi * i / total)))
        assert no_decay == 0


def test_masks_depend_on_seed_step_and_rank_alone():
    model, other = tiny(), tiny()
    torch.rand(7)

    def draw(m, step, micro=0, stage="train"):
        tokens = m.tokenizer({"image": Random(4).images[:4]})
        return m.masker(tokens, m.mask_generator(stage, step, micro))[0].context.tolist()

    state = torch.get_rng_state()
    assert draw(model, 3) == draw(other, 3)
    assert torch.equal(state, torch.get_rng_state())
    drawn = [draw(model, 3), draw(model, 4), draw(model, 3, 1), draw(model, 3, stage="val")]
    other.run_seed = 9
    drawn.append(draw(other, 3))
    assert len({str(d) for d in drawn}) == 5


def test_several_masks_average_and_share_the_target():
    class Two(MultiBlock):
        def __call__(self, tokens, generator):
            return super().__call__(tokens, generator) + super().__call__(tokens, generator)

    model = tiny(masker=Two(min_context=4), regularizers=[VICReg])
    batch, calls = {"image": Random(4).images[:4]}, []
    model.target.register_forward_hook(lambda *_: calls.append(1))
    outcome = model.step(batch, model.mask_generator("train", 0, 0))
    assert len(calls) == 1
    assert len(outcome.context) == len(outcome.predictions) == 2
    losses, single = model.losses(outcome), []
    for mask in model.masker(model.tokenizer(batch), model.mask_generator("train", 0, 0)):
        model.modality.masker = lambda tokens, generator, mask=mask: [mask]
        single.append(model.losses(model.step(batch, model.mask_generator("train", 0, 0))))
    assert set(losses) == {"prediction", "vicreg"}
    for name, value in losses.items():
        torch.testing.assert_close(value, (single[0][name] + single[1][name]) / 2)


class SaveFirstEpoch(Callback):
    def __init__(self, path):
        self.path = path

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch == 0:
            trainer.save_checkpoint(self.path)


def test_resumed_run_continues_as_if_uninterrupted(tmp_path):
    def run(**kwargs):
        model = tiny()
        fit = trainer(tmp_path, max_epochs=2, callbacks=[SaveFirstEpoch(tmp_path / "mid.ckpt")])
        fit.fit(model, DataLoader(Random(12), batch_size=4), **kwargs)
        return model.state_dict()

    whole = run()
    resumed = run(ckpt_path=tmp_path / "mid.ckpt")
    assert not torch.equal(whole["encoder.embed.weight"], tiny().encoder.embed.weight)
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


def test_checkpoint_loads_with_weights_only(tmp_path):
    model = tiny()
    fit = trainer(tmp_path, max_steps=1)
    fit.fit(model, DataLoader(Random(8), batch_size=4))
    fit.save_checkpoint(tmp_path / "x.ckpt")
    state = torch.load(tmp_path / "x.ckpt", weights_only=True)
    assert {k.split(".")[0] for k in state["state_dict"]} == {"encoder", "target", "predictor"}
    again = JEPA.load_from_checkpoint(
        tmp_path / "x.ckpt",
        modality=tiny().modality,
        predictor=partial(TransformerPredictor, width=12, depth=2, heads=3),
        weights_only=True,
    )
    batch = {"image": Random(4).images[:4]}
    assert torch.equal(again.embed(batch), model.embed(batch))


def test_run_without_an_end_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"trainer\.max_epochs or trainer\.max_steps"):
        trainer(tmp_path, max_epochs=-1).fit(tiny(), DataLoader(Random(8), batch_size=4))


def test_a_momentum_out_of_range_is_refused(tmp_path):
    model = tiny(target=partial(EMA, momentum=LinearRamp(start=0.996, end=1.5)))
    with pytest.raises(ValueError, match=r"momentum from 0 to 1, got 1\.248 at step 1"):
        trainer(tmp_path).fit(model, DataLoader(Random(8), batch_size=4))


def test_a_step_never_waits_for_the_device():
    """On the meta device reading a value, or copying one to the CPU, raises; masks are drawn on the CPU."""
    model = tiny()
    model.step({"image": torch.rand(2, 3, 24, 32)}, model.mask_generator("train", 0, 0))  # the first batch is checked
    model.to("meta")
    optimizer = model.configure_optimizers()
    for step in range(2):
        batch = {"image": torch.empty(2, 3, 24, 32, device="meta")}
        loss = sum(model.losses(model.step(batch, model.mask_generator("train", step, 0))).values())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        model.target.average(model.encoder, 0.99)
    with pytest.raises(RuntimeError, match="meta"):
        float(loss.detach())  # what such a read looks like


class Reads(TorchDispatchMode):
    """Count every read of a tensor's value by Python (item, float, bool)."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


class CountingLoader:
    """Count the reads between two batches: of the step, the logging, the callbacks and the progress bar."""

    def __init__(self, steps):
        self.steps, self.reads = steps, []

    def __len__(self):
        return self.steps

    def __iter__(self):
        for _ in range(self.steps):
            with Reads() as reads:
                yield {"image": torch.randn(2, 3, 24, 32)}
            self.reads.append(reads.count)


def test_values_are_read_at_logged_steps_only(tmp_path):
    model = tiny(masker=Fixed(), optimizer=torch.optim.SGD)  # Adam counts its steps in tensors on the CPU
    loader = CountingLoader(10)
    settings = dict(max_steps=10, max_epochs=None, log_every_n_steps=4, enable_progress_bar=True, limit_val_batches=0)
    settings["enable_checkpointing"] = True
    trainer(tmp_path, **settings, callbacks=[*default_callbacks(), LossBar()]).fit(model, train_dataloaders=loader)
    _, *later = loader.reads  # the first batch is checked
    assert [bool(count) for count in later] == [step % 4 == 0 for step in range(2, 10)]


class Fixed(Masker):
    """The same masks always, without a draw (drawing masks reads values, on the CPU)."""

    def __call__(self, tokens, generator):
        index = torch.arange(tokens.count).expand(tokens.batch_size, -1)
        return [Masks(context=index[:, :20], targets=index[:, 20:40].unflatten(1, (2, 10)))]


@pytest.mark.parametrize("option", ["checkpoint_activations", pytest.param("compile", marks=pytest.mark.slow)])
def test_options_do_not_change_the_step(option):
    if option == "compile":
        torch.compiler.reset()
    plain, changed = tiny(), tiny(**{option: True})
    changed.configure_model()
    changed.configure_model()  # Lightning calls it before each of fit, validate and predict
    batch = {"image": Random(4).images[:4]}
    results = []
    for model in (plain, changed):
        loss = sum(model.losses(model.step(batch, model.mask_generator("train", 0, 0))).values())
        loss.backward()
        results.append((loss.detach(), [p.grad for p in model.parameters() if p.requires_grad]))
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-6)
    assert plain.state_dict().keys() == changed.state_dict().keys()


class Centred(PatchTokenizer):
    """Patches less the data's mean, which is estimated before training and kept in the checkpoint."""

    def __init__(self):
        super().__init__(image_size=(32, 32), patch_size=(8, 8), channels=3)
        self.register_buffer("mean", torch.full((), torch.nan))
        self.seen = 0

    @property
    def needs_statistics(self):
        return bool(self.mean.isnan())

    def estimate(self, batches):
        images = torch.cat([batch["image"] for batch in batches])
        self.seen += len(images)
        self.mean.copy_(images.mean())

    def forward(self, batch):
        return super().forward({"image": batch["image"] - self.mean})


@pytest.mark.parametrize("given", ["a data module", "a loader"])
def test_statistics_are_estimated_once_and_kept(make_trainer, make_jepa, make_data, tmp_path, given):
    def build():
        module = make_jepa()
        module.tokenizer = module.modality.tokenizer = Centred()
        return module

    class Ids(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            order[-1] += batch["id"]

    order = []
    plain, estimated = make_jepa(), build()
    for module in (plain, estimated):
        order.append([])
        data = make_data()
        data.setup()
        source = {"datamodule": data} if given == "a data module" else {"train_dataloaders": data.train_dataloader()}
        torch.manual_seed(3)
        folder = tmp_path / str(len(order))
        settings = {"limit_val_batches": 0, "default_root_dir": folder}
        trainer = make_trainer(LastCheckpoint(), Ids(), max_steps=4, **settings)
        trainer.fit(module, **source)
    assert order[0] == order[1]  # the run's random numbers are untouched
    assert len(order[0]) == 64
    assert estimated.tokenizer.seen == 96
    assert float(estimated.tokenizer.mean) != 0
    resumed = build()
    again = make_trainer(LastCheckpoint(), max_steps=6, **settings)
    again.fit(resumed, datamodule=make_data(), ckpt_path=folder / "checkpoints" / "last.ckpt")
    assert resumed.tokenizer.seen == 0
    assert resumed.tokenizer.mean == estimated.tokenizer.mean


def test_a_batch_of_one_is_not_penalised(make_jepa, make_data, make_trainer):
    """The loss of what is left over is its prediction's; in validation the mean over samples is what it would be."""
    model, data = make_jepa(regularizers=[VICReg]), make_data(batch_size=11, val_fraction=12 / 96, samples=96)
    sizes, found = [], []
    losses = model.losses

    def watched(outcome, step=0):
        sizes.append(outcome.batch_size)
        found.append(losses(outcome, step))
        return found[-1]

    model.losses = watched
    (logged,) = make_trainer().validate(model, datamodule=data, verbose=False)
    assert sizes == [11, 1]
    assert [list(terms) for terms in found] == [["prediction", "vicreg"], ["prediction"]]
    first, second = (float(sum(terms.values())) for terms in found)
    assert logged["val/loss"] == pytest.approx((11 * first + second) / 12)
    one = next(iter(make_data(batch_size=1).train_dataloader()))
    terms = losses(model.step(one, torch.Generator().manual_seed(0)))
    assert list(terms) == ["prediction"]
    terms["prediction"].backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_no_batch_large_enough_is_refused_before_the_first_step(make_jepa, make_data, make_trainer):
    trainer = make_trainer(max_steps=2, num_sanity_val_steps=0)
    with pytest.raises(ValueError, match="VICReg needs batches of at least 2 samples on each process, got 1: raise"):
        trainer.fit(make_jepa(regularizers=[VICReg]), datamodule=make_data(batch_size=1))
    assert trainer.global_step == 0
    make_trainer(max_steps=1).fit(make_jepa(), datamodule=make_data(batch_size=1))
