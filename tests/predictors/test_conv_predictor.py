"""The convolutional predictor against plain loops over the grid."""

import dataclasses

import pytest
import torch
from asking import SPEC, TOKEN, TOLD, B, D, M, T, asked, disturbed

from jepa_lightning.encoders.positions import grid_positions
from jepa_lightning.predictors import ConvPredictor, PredictorSpec
from jepa_lightning.tokens import Latents, Query

PLACES = grid_positions((6, 6))[0].double()
KEPT = torch.tensor([[0, 7, 8, 14, 35], [1, 2, 20, 21, 30], [3, 9, 15, 16, 17]])
ASKED = torch.randint(36, (B, M, T), generator=torch.Generator().manual_seed(2))


def context(valid=None):
    values = torch.randn(B, 5, D, generator=torch.Generator().manual_seed(1)).double()
    return Latents(values=values, positions=PLACES[KEPT], valid=valid)


def predictor(**settings):
    torch.manual_seed(0)
    return disturbed(ConvPredictor(SPEC, **settings))


def plain(net, seen, kernel):
    """The whole board (6, 6, out) of one sample: `seen` holds the vector of each context cell by its number."""
    board = torch.stack([seen.get(cell, net.mask_token) for cell in range(36)]).view(6, 6, D)
    half = kernel // 2
    for depthwise, pointwise, norm, _ in net.layers:
        after = torch.zeros_like(board)
        for i in range(6):
            for j in range(6):
                x = depthwise.bias.clone()
                for di in range(-half, half + 1):
                    for dj in range(-half, half + 1):
                        if 0 <= i + di < 6 and 0 <= j + dj < 6:
                            x += depthwise.weight[:, 0, di + half, dj + half] * board[i + di, j + dj]
                x = pointwise.weight[:, :, 0, 0] @ x + pointwise.bias
                x = (x - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
                after[i, j] = x.clamp(min=0)
        board = after
    return board


@pytest.mark.parametrize(("depth", "kernel", "relu"), [(3, 3, False), (1, 5, True)])
def test_depthwise_separable_layers_over_the_board(depth, kernel, relu):
    net = predictor(depth=depth, kernel=kernel, relu=relu)
    valid = torch.ones(B, 5, dtype=torch.bool)
    valid[1, 3:] = False
    seen = context(valid)
    found = net(seen, Query(positions=PLACES[ASKED]))
    assert found.shape == (B, M, T, D)
    for b in range(B):
        given = {int(cell): seen.values[b, k] for k, cell in enumerate(KEPT[b]) if valid[b, k]}
        board = plain(net, given, kernel).flatten(0, 1)
        expected = board[ASKED[b]] if relu else board[ASKED[b]] @ net.project.weight.T + net.project.bias
        torch.testing.assert_close(found[b], expected)


def test_positions_shared_by_all_samples_and_gradients():
    net = predictor().train()
    values = torch.randn(B, 5, D).double().requires_grad_()
    seen = Latents(values=values, positions=PLACES[None, :5])
    net(seen, Query(positions=PLACES[ASKED])).square().sum().backward()
    assert values.grad.abs().sum() > 0
    assert all(p.grad is not None for p in net.parameters())


def test_settings_that_make_no_sense(inputs):
    with pytest.raises(ValueError, match=r"on a grid \(rows, columns\), got the grid None"):
        ConvPredictor(PredictorSpec(dim=D, out=D, token=dataclasses.replace(TOKEN, grid=None)))
    with pytest.raises(ValueError, match="kernel odd, got 3 and 2"):
        ConvPredictor(SPEC, kernel=2)
    with pytest.raises(ValueError, match="takes no condition"):
        ConvPredictor(TOLD)
    with pytest.raises(ValueError, match="as wide as the encoder, got 8 and 12"):
        ConvPredictor(PredictorSpec(dim=D, out=8, token=TOKEN), relu=True)
    seen, query = asked(*inputs)
    with pytest.raises(ValueError, match="needs the context's positions"):
        predictor()(Latents(values=seen.values), query)
    with pytest.raises(ValueError, match="got 3 coordinates"):
        predictor()(context(), Query(positions=torch.zeros(B, M, T, 3)))


@pytest.mark.long
def test_a_small_recipe_trains(tmp_path):
    """CNN-JEPA: the masked ConvNet, this predictor and mixed masks from YAML."""
    from jepa_lightning.cli.fit import fit

    words = ["--data.root", "null", "--data.samples", "128", "--data.batch_size", "16", "--trainer.max_epochs", "1"]
    words += ["--pictures.enabled", "false", "--probe.enabled", "false", "--trainer.enable_progress_bar", "false"]
    folder = tmp_path / "run"
    fit(["--config", "recipes/cnnjepa_cifar10.yaml", *words, "--trainer.default_root_dir", str(folder)])
    assert (folder / "checkpoints" / "last.ckpt").is_file()
