"""Layers by index: every kind of encoder against a plain loop over its blocks, and what may surround an encoder."""

import copy
from functools import partial
from itertools import product

import pytest
import torch
from torch import nn

from jepa_lightning.encoders import (
    ConvEncoder,
    MLPPositions,
    SinCosPositions,
    TimmEncoder,
    TokenSpec,
    ViT,
    check_layers,
    layer_numbers,
)
from jepa_lightning.encoders.positions import grid_positions
from jepa_lightning.scale.parallel import prepare_layers
from jepa_lightning.tokens import Tokens

DEPTH = 4
IMAGE = TokenSpec(shape=(3, 4, 4), grid=(3, 4), positions=SinCosPositions)
VIDEO = TokenSpec(shape=(3, 2, 4, 4), grid=(2, 3, 4), positions=SinCosPositions)
POINTS = TokenSpec(shape=(5,), grid=None, positions=partial(MLPPositions, axes=2))
VIT = partial(ViT, width=32, depth=DEPTH, heads=2)


def timm(name, **options):
    return partial(TimmEncoder, name=name, options={"embed_dim": 48, "depth": DEPTH, "num_heads": 2, **options})


# spec, encoder, tokens in front
ENCODERS = {
    "vit": (IMAGE, VIT, 0),
    "rotary": (IMAGE, partial(VIT, rotary="interleaved"), 0),
    "points": (POINTS, VIT, 0),
    "every layer": (POINTS, partial(VIT, positions_at="every_layer"), 0),
    "timm vit": (IMAGE, timm("vit_tiny_patch16_224"), 1),
    "timm fc_norm": (IMAGE, timm("vit_tiny_patch16_224", global_pool="avg"), 1),
    "timm registers": (IMAGE, timm("vit_tiny_patch16_224", reg_tokens=2), 3),
    "timm eva": (IMAGE, timm("eva02_tiny_patch14_224"), 1),
    "timm mixed": (IMAGE, timm("vit_small_patch16_rope_mixed_224"), 1),
    "timm naflex": (IMAGE, timm("naflexvit_base_patch16_gap"), None),
    "timm tubelets": (VIDEO, timm("vit_tiny_patch16_224"), 1),
}


def build(name):
    spec, encoder, _ = ENCODERS[name]
    torch.manual_seed(0)
    encoder = encoder(spec)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return encoder.eval(), tokens_of(spec)


def tokens_of(spec):
    generator = torch.Generator().manual_seed(1)
    positions = torch.rand(1, 12, 2, generator=generator) if spec.grid is None else grid_positions(spec.grid)
    values = torch.randn(2, positions.shape[1], *spec.shape, generator=generator)
    return Tokens(values=values, positions=positions)


def looped(encoder, tokens, *given):
    """The output, and what each block gave on the way, all of its tokens."""
    outputs = []
    originals = [block.forward for block in encoder.layers]
    for block, original in zip(encoder.layers, originals, strict=True):

        def kept(*given, original=original, **more):
            outputs.append(original(*given, **more))
            return outputs[-1]

        block.forward = kept
    final = encoder(tokens, *given)
    for block, original in zip(encoder.layers, originals, strict=True):
        block.forward = original
    return final, outputs


KEEP = torch.tensor([[0, 3, 5, 7], [2, 1, 9, 9]])
VALID = torch.tensor([[True, True, True, True], [True, True, True, False]])


@pytest.mark.parametrize("given", [(), (KEEP,), (KEEP, VALID)], ids=["all", "kept", "padded"])
@pytest.mark.parametrize("name", ENCODERS)
def test_against_a_plain_loop(name, given):
    encoder, tokens = build(name)
    final, raw = looped(encoder, tokens, *given)
    count, prefix = final.shape[1], ENCODERS[name][2]
    assert len(raw) == DEPTH == encoder.depth
    if prefix is not None:
        assert raw[0].shape[1] == count + prefix
    expected = [x[:, x.shape[1] - count :] for x in raw[:-1]] + [final]
    for layers in [(0,), (-1,), (3, 1), (0, 1, 2, 3), (-3, 2, 2), range(-2, 0)]:
        found = encoder(tokens, *given, layers=layers)
        assert found.shape == (2, count, len(layers), encoder.dim)
        for place, layer in enumerate(layers):
            assert torch.equal(found[:, :, place], expected[layer])
    assert torch.equal(encoder(tokens, *given, layers=()), final)


def test_against_a_loop_by_hand():
    encoder, tokens = build("vit")
    x = encoder.embed(tokens.values.flatten(2)) + encoder.positions(tokens.positions)
    by_hand = []
    for block in encoder.transformer.layers:
        x = x + block.attn(block.norm1(x))
        x = x + block.mlp(block.norm2(x))
        by_hand.append(x)
    by_hand[-1] = encoder.transformer.norm(x)
    assert torch.allclose(encoder(tokens, layers=(0, 1, 2, 3)), torch.stack(by_hand, 2), atol=1e-6)


@pytest.mark.parametrize("name", ["vit", "timm eva"])
def test_layers_after_the_highest_are_not_computed(name):
    encoder, tokens = build(name)
    last = list(encoder.layers)[-1]
    last.forward = None
    assert encoder(tokens, layers=(0, -2)).isfinite().all()
    with pytest.raises(TypeError):
        encoder(tokens)


@pytest.mark.parametrize("name", ["vit", "timm vit"])
def test_every_layer_carries_a_gradient(name):
    encoder, tokens = build(name)
    blocks = list(encoder.layers)

    def reached(layer):
        encoder.zero_grad()
        encoder(tokens, layers=(layer,)).sin().sum().backward()
        return [block.attn.proj.weight.grad is not None and bool(block.attn.proj.weight.grad.any()) for block in blocks]

    for layer in range(DEPTH):
        assert reached(layer) == [number <= layer for number in range(DEPTH)]


WHOLE = [pytest.param("compiled", name, marks=pytest.mark.slow) for name in ("rotary", "timm eva")]


@pytest.mark.long
@pytest.mark.parametrize(
    ("how", "name"),
    [*product(("checkpointed", "compiled blocks"), ("vit", "rotary", "timm eva")), ("compiled", "vit"), *WHOLE],
)
def test_checkpointed_and_compiled(how, name):
    encoder, tokens = build(name)
    changed = copy.deepcopy(encoder)
    if how == "checkpointed":
        prepare_layers(changed.layers, checkpoint_activations=True)
    for block in changed.layers if how == "compiled blocks" else [changed] if how == "compiled" else []:
        block.compile(backend="aot_eager")
    for model in (encoder, changed):
        model(tokens, KEEP, layers=(1, -1)).square().mean().backward()
    assert torch.allclose(changed(tokens, KEEP, layers=(1, -1)), encoder(tokens, KEEP, layers=(1, -1)), atol=1e-6)
    for mine, theirs in zip(changed.parameters(), encoder.parameters(), strict=True):
        assert (mine.grad is None) == (theirs.grad is None)
        assert mine.grad is None or torch.allclose(mine.grad, theirs.grad, atol=1e-6)


@pytest.fixture
def mesh(tmp_path):
    """A mesh of this process alone."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    yield torch.distributed.init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("name", ["vit", "timm registers"])
def test_sharded(name, mesh):
    from torch.distributed.fsdp import fully_shard

    encoder, tokens = build(name)
    sharded = copy.deepcopy(encoder)
    for block in sharded.layers:
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    fully_shard(sharded, mesh=mesh, reshard_after_forward=True)
    check_layers(sharded, (0, -1))
    for layers in ((0, 2), (1, -1), ()):
        for model in (encoder, sharded):
            model.zero_grad()
            model(tokens, KEEP, layers=layers).square().mean().backward()
        for mine, theirs in zip(sharded.parameters(), encoder.parameters(), strict=True):
            assert mine.grad is None or theirs.grad is not None
            if theirs.grad is not None and theirs.grad.any():
                assert torch.allclose(mine.grad.full_tensor(), theirs.grad, atol=1e-6)
        with torch.no_grad():
            assert torch.equal(sharded(tokens, KEEP, layers=layers), encoder(tokens, KEEP, layers=layers))


@pytest.mark.parametrize("name", ["vit", "timm vit"])
def test_under_autocast_the_types_agree(name):
    encoder, tokens = build(name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        whole, found = encoder(tokens), encoder(tokens, layers=(0, -1))
    assert torch.equal(found[:, :, 1].float(), whole.float())


@pytest.mark.parametrize("layer", [4, -5])
@pytest.mark.parametrize("name", ["vit", "timm vit"])
def test_an_index_out_of_range(name, layer):
    encoder, tokens = build(name)
    match = f"expected layers from 0 to 3, or from -4 to -1 counted from the end, .*; got {layer}$"
    with pytest.raises(ValueError, match=match):
        encoder(tokens, layers=(0, layer))
    with pytest.raises(ValueError, match=match):
        check_layers(encoder, (layer,))


def test_numbers():
    assert layer_numbers((3, -1, 0, -4), 4) == (3, 3, 0, 0)
    assert layer_numbers((), 4) == ()


def test_an_encoder_of_someone_who_knows_no_layers():
    class Old(ViT):
        def forward(self, tokens, keep=None, keep_valid=None):
            return super().forward(tokens, keep, keep_valid)

    class Hands(ViT):
        def forward(self, *given, **more):
            return super().forward(*given, **more)

    old, hands = (kind(IMAGE, width=32, depth=2, heads=2) for kind in (Old, Hands))
    check_layers(old, ())
    check_layers(hands, (0, 1))
    with pytest.raises(ValueError, match=r"forward takes `layers`, got Old, .*add `\*, layers=\(\)`"):
        check_layers(old, (1,))


def test_depth_may_be_set_by_a_subclass():
    class Deep(ViT):
        def __init__(self, spec, *, depth):
            super().__init__(spec, width=32, depth=depth, heads=2)
            self.depth = depth

    assert Deep(IMAGE, depth=2).depth == 2
    assert nn.ModuleList([VIT(IMAGE)])[0].depth == DEPTH


@pytest.mark.parametrize("name", ["vit", "timm", "conv"])
def test_parameters_by_layer_as_timm_asks_for_them(name):
    """timm's helper put all parameters of our encoders in one group, whose learning rate did not decay."""
    from timm.optim import param_groups_layer_decay

    spec = TokenSpec(shape=(3, 8, 8), grid=(4, 4), positions=SinCosPositions)
    encoder = {
        "vit": lambda: ViT(spec, width=32, depth=2, heads=2),
        "timm": lambda: TimmEncoder(spec, name="vit_tiny_patch16_224", options={"depth": 2}),
        "conv": lambda: ConvEncoder(spec, dim=16, width=4),
    }[name]()
    depth = encoder.depth
    groups = param_groups_layer_decay(encoder, layer_decay=0.5)
    number_of_groups = depth if name == "conv" else depth + 1
    assert sorted({group["lr_scale"] for group in groups}, reverse=True) == [0.5**n for n in range(number_of_groups)]
    scale = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    for number, layer in enumerate(encoder.layers, start=1):
        assert {scale[id(p)] for p in layer.parameters()} == {0.5 ** (depth - number)}
    last = {"vit": "transformer.norm.weight", "timm": "model.norm.weight", "conv": "project.weight"}[name]
    assert scale[id(encoder.get_parameter(last))] == 1.0
    first = {"vit": "embed.weight", "timm": "model.patch_embed.proj.weight"}.get(name)
    assert first is None or scale[id(encoder.get_parameter(first))] == 0.5**depth
