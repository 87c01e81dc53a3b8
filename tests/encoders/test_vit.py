"""The plain ViT: what is hidden cannot leak."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from jepa_lightning.encoders import SinCosPositions, TokenSpec, ViT
from jepa_lightning.encoders.positions import grid_positions, sincos
from jepa_lightning.tokens import Tokens, take

B, GRID, WIDTH = 3, (4, 5), 24
N = GRID[0] * GRID[1]
SPEC = TokenSpec(shape=(3, 2, 2), grid=GRID, positions=SinCosPositions)


@pytest.fixture
def vit():
    torch.manual_seed(0)
    vit = ViT(SPEC, width=WIDTH, depth=2, heads=3)
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return vit.eval()


def tokens(dtype=torch.float32, valid=None):
    values = torch.randn(B, N, 3, 2, 2, generator=torch.Generator().manual_seed(1)).to(dtype)
    return Tokens(values=values, positions=grid_positions(GRID), grid=GRID, valid=valid)


def kept(count=7):
    generator = torch.Generator().manual_seed(2)
    return torch.stack([torch.randperm(N, generator=generator)[:count] for _ in range(B)])


def gather_after_embedding(vit, some, keep):
    """The usual way: embed and place everything, then throw the hidden tokens away."""
    x = some.values.flatten(2) @ vit.embed.weight.T + vit.embed.bias + sincos(some.positions.to(some.values), WIDTH)
    return vit.transformer(torch.stack([x[b, keep[b]] for b in range(len(keep))]))


def test_kept_tokens_are_encoded_as_if_gathered_after_embedding(vit):
    vit, some, keep = vit.double(), tokens(torch.float64), kept()
    some = Tokens(values=some.values, positions=some.positions.double(), grid=GRID)
    torch.testing.assert_close(vit(some, keep), gather_after_embedding(vit, some, keep))


@pytest.mark.parametrize("garbage", [0.0, 1e6, float("inf"), float("nan")])
def test_hidden_pixels_do_not_change_one_bit(vit, garbage):
    keep = kept()
    hidden = torch.ones(B, N, dtype=torch.bool).scatter(1, keep, False)
    some = tokens()
    before = vit(some, keep)
    some.values[hidden] = garbage
    assert torch.equal(vit(some, keep), before)


def test_hidden_pixels_get_no_gradient(vit):
    keep = kept()
    hidden = torch.ones(B, N, dtype=torch.bool).scatter(1, keep, False)
    some = tokens()
    some.values.requires_grad_()
    vit(some, keep).square().sum().backward()
    gradient = some.values.grad.flatten(2).abs().sum(-1)
    assert (gradient[hidden] == 0).all()
    assert (gradient[~hidden] > 0).all()


def test_keeping_all_in_order_is_keeping_none(vit):
    everything = torch.arange(N).expand(B, N)
    torch.testing.assert_close(vit(tokens(), everything), vit(tokens()))


def test_output_follows_the_order_of_keep(vit):
    keep = kept()
    turned = keep.flip(1)
    torch.testing.assert_close(vit(tokens(), turned), vit(tokens(), keep).flip(1), rtol=1e-4, atol=1e-5)


def test_positions_matter(vit):
    same = Tokens(values=torch.ones(1, N, 3, 2, 2), positions=grid_positions(GRID), grid=GRID)
    found = vit(same)[0]
    distance = torch.cdist(found, found) + 10 * torch.eye(N)
    assert distance.min() > 1e-4


@pytest.mark.parametrize("how", ["valid", "keep_valid", "both"])
def test_invalid_tokens_are_never_attended(vit, how):
    generator = torch.Generator().manual_seed(3)
    valid = torch.rand(B, N, generator=generator) > 0.3 if how != "keep_valid" else None
    keep = kept()
    keep_valid = torch.rand(B, 7, generator=generator) > 0.3 if how != "valid" else None
    real = torch.ones(B, 7, dtype=torch.bool)
    if valid is not None:
        real &= valid.gather(1, keep)
    if keep_valid is not None:
        real &= keep_valid
    assert real.any(1).all()
    some = tokens(valid=valid)
    found = vit(some, keep, keep_valid)
    for b in range(B):
        alone = Tokens(values=some.values[b : b + 1], positions=some.positions, grid=GRID)
        expected = vit(alone, keep[b, real[b]][None])[0]
        torch.testing.assert_close(found[b, real[b]], expected, rtol=1e-4, atol=1e-5)
    for b in range(B):
        some.values[b, keep[b, ~real[b]]] = 1e4
    assert torch.equal(vit(some, keep, keep_valid)[real], found[real])


def test_padding_is_not_attended_when_all_tokens_are_encoded(vit):
    valid = torch.arange(N) < torch.tensor([[N], [5], [1]])
    some = tokens(valid=valid)
    found = vit(some)
    for b in range(B):
        alone = Tokens(values=some.values[b : b + 1, valid[b]], positions=some.positions[:, valid[b]])
        torch.testing.assert_close(found[b, valid[b]], vit(alone)[0], rtol=1e-4, atol=1e-5)


def test_positions_of_each_sample_are_used_where_samples_have_their_own(vit):
    """Point clouds and graphs: (B, N, P) positions."""
    positions = grid_positions(GRID).repeat(B, 1, 1)
    positions[1] += 3
    some = tokens()
    own = Tokens(values=some.values, positions=positions)
    keep = kept()
    torch.testing.assert_close(vit(own, keep)[0], vit(some, keep)[0])
    alone = Tokens(values=some.values[1:2], positions=positions[1:2])
    torch.testing.assert_close(vit(own, keep)[1], vit(alone, keep[1:2])[0], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(vit(own, keep)[1], vit(some, keep)[1])


def test_width_blocks_and_initialisation():
    torch.manual_seed(0)
    vit = ViT(SPEC, width=96, depth=3, heads=4, mlp_ratio=2.0)
    assert vit.dim == 96
    assert len(list(vit.layers)) == 3
    assert all(isinstance(block, nn.Module) for block in vit.layers)
    assert next(iter(vit.layers)).mlp.fc1.weight.shape == (192, 96)
    assert vit.embed.weight.shape == (96, 12)
    assert float(vit.embed.weight.detach().std()) == pytest.approx(0.02, rel=0.1)
    assert vit(tokens()).shape == (B, N, 96)


def test_shared_positions_are_taken_for_each_sample():
    keep = kept()
    picked = take(grid_positions(GRID), keep)
    assert picked[1, 2].tolist() == [int(keep[1, 2]) // GRID[1], int(keep[1, 2]) % GRID[1]]


@pytest.mark.parametrize("count", [3, 7])  # 3 x 3 kept tokens are fewer than the grid's 20, 3 x 7 are more
def test_shared_positions_give_the_same_as_each_samples_own(vit, count):
    keep = kept(count)
    shared = tokens()
    own = Tokens(values=shared.values, positions=shared.positions.repeat(B, 1, 1), grid=GRID)
    assert torch.equal(vit(shared, keep), vit(own, keep))


def test_shared_positions_are_embedded_once(vit):
    rows = []
    vit.positions.register_forward_hook(lambda module, given, out: rows.append(given[0].shape[:-1].numel()))
    vit(tokens(), kept(3))
    vit(tokens(), kept(7))
    assert rows == [9, 20]


# What a modality embeds its own way ---------------------------------------------------------------------------------


class Means(nn.Module):
    """An embedding that wants the tokens' shape, as that of points in a group does."""

    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(3, width)

    def forward(self, values):
        return self.linear(values.mean((-1, -2)))


def test_a_modality_may_bring_its_embedding():
    torch.manual_seed(0)
    vit = ViT(replace(SPEC, embed=Means), width=WIDTH, depth=2, heads=3).eval()
    assert isinstance(vit.embed, Means)
    some, keep = tokens(), kept()
    x = vit.embed(some.values) + sincos(some.positions, WIDTH)
    expected = vit.transformer(torch.stack([x[b, keep[b]] for b in range(B)]))
    torch.testing.assert_close(vit(some, keep), expected)
    shuffled = Tokens(values=some.values.flip(3), positions=some.positions, grid=GRID)
    torch.testing.assert_close(vit(shuffled, keep), expected)


def test_positions_at_every_layer_enter_each_block():
    torch.manual_seed(0)
    vit = ViT(SPEC, width=WIDTH, depth=3, heads=3, positions_at="every_layer").eval()
    for some in (tokens(), tokens(valid=torch.arange(N) < torch.tensor([[N], [9], [3]]))):
        for keep in (None, kept(3), kept()):
            seen = some if keep is None else some.take(keep)
            places = sincos(seen.positions, WIDTH).expand(B, -1, -1)
            x = vit.embed(seen.values.flatten(2))
            for block in vit.layers:
                x = block(x + places, attn_mask=None if seen.valid is None else seen.valid[:, None, None])
            torch.testing.assert_close(vit(some, keep), vit.transformer.norm(x))


def test_positions_at_the_input_by_default():
    torch.manual_seed(0)
    one = ViT(SPEC, width=WIDTH, depth=2, heads=3).eval()
    two = ViT(SPEC, width=WIDTH, depth=2, heads=3, positions_at="every_layer").eval()
    two.load_state_dict(one.state_dict())
    assert not torch.allclose(one(tokens()), two(tokens()))


def test_positions_that_are_nowhere_added():
    with pytest.raises(ValueError, match="positions_at must be input or every_layer, got 'all'"):
        ViT(SPEC, width=WIDTH, depth=1, heads=3, positions_at="all")
    with pytest.raises(ValueError, match="rotary attention adds no positions"):
        ViT(SPEC, width=WIDTH, depth=1, heads=3, rotary="interleaved", positions_at="every_layer")
    with pytest.raises(ValueError, match="rotary attention adds no positions"):
        ViT(SPEC, width=WIDTH, depth=1, heads=3, rotary="interleaved", positions="stored")
    with pytest.raises(ValueError, match="positions must be stored, or null for the modality's own, got 'sincos'"):
        ViT(SPEC, width=WIDTH, depth=1, heads=3, positions="sincos")
    with pytest.raises(ValueError, match="rotary_grid scales rotary coordinates: set rotary"):
        ViT(SPEC, width=WIDTH, depth=1, heads=3, rotary_grid=(4, 4))
    with pytest.raises(ValueError, match="norm_eps must be above 0"):
        ViT(SPEC, width=WIDTH, depth=1, heads=3, norm_eps=0)


def test_stored_positions_are_a_table_of_the_grid(vit):
    """With a table that holds what is computed, both are the same; a larger grid has no rows in it."""
    stored = ViT(SPEC, width=WIDTH, depth=2, heads=3, positions="stored").eval()
    table = sincos(grid_positions(GRID), WIDTH)[0]
    stored.load_state_dict({**vit.state_dict(), "positions.table": table})
    for keep in (None, kept()):
        torch.testing.assert_close(stored(tokens(), keep), vit(tokens(), keep))
    larger = Tokens(values=torch.randn(1, 30, 3, 2, 2), positions=grid_positions((5, 6)), grid=(5, 6))
    with pytest.raises(ValueError, match=r"stored for a grid of \(4, 5\), got tokens on \(5, 6\)"):
        stored(larger)


def test_rotary_coordinates_on_the_grid_of_another_training():
    torch.manual_seed(0)
    spec = replace(SPEC, grid=(4, 5))
    one = ViT(spec, width=WIDTH, depth=1, heads=3, rotary="interleaved", rotary_grid=(7, 3)).eval()
    two = ViT(spec, width=WIDTH, depth=1, heads=3, rotary="interleaved").eval()
    two.load_state_dict(one.state_dict())
    some = tokens()
    scaled = replace(some, positions=some.positions * torch.tensor([6 / 3, 2 / 4]))
    torch.testing.assert_close(one(some), two(scaled))
    assert not torch.allclose(one(some), two(some), atol=1e-4)


def test_norms_are_options():
    torch.manual_seed(0)
    plain = ViT(SPEC, width=WIDTH, depth=1, heads=3, norm_eps=1e-5, final_norm=False)
    norms = [part for part in plain.modules() if isinstance(part, nn.LayerNorm)]
    assert [norm.eps for norm in norms] == [1e-5, 1e-5]
    normed = ViT(SPEC, width=WIDTH, depth=1, heads=3, norm_eps=1e-5)
    normed.load_state_dict(plain.state_dict(), strict=False)
    expected = nn.functional.layer_norm(plain.eval()(tokens()), (WIDTH,), eps=1e-5)
    torch.testing.assert_close(normed.eval()(tokens()), expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_values_of_another_precision_meet_the_weights_own(dtype):
    encoder = ViT(TokenSpec(shape=(5,), grid=(2, 2), positions=SinCosPositions), width=8, depth=1, heads=1)
    encoded = encoder(Tokens(values=torch.ones(2, 4, 5, dtype=dtype), positions=grid_positions((2, 2)), grid=(2, 2)))
    assert encoded.dtype == torch.float32
    assert encoded.isfinite().all()
