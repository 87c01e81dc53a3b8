"""Legends below pictures, names under their parts, and colours that the colour-blind can tell apart."""

from itertools import combinations, product

import numpy as np
import pytest
import torch

from jepa_lightning.pictures.drawing import CONTEXT, HOT, TARGETS, UNUSED, colour_map
from jepa_lightning.pictures.legend import WIDTH, Legend, with_legend, with_name
from jepa_lightning.pictures.letters import cut, length, wrapped


@pytest.mark.parametrize("size", [(3, 5, 7), (2, 3, 5, 7), (3, 20, 700)])
def test_a_picture_stays_above_its_legend(size):
    picture = torch.randint(0, 200, size, dtype=torch.uint8)
    drawn = with_legend(picture, Legend("What it shows."))
    factor = max(1, WIDTH // size[-1]) if len(size) == 3 else 1
    assert drawn.shape[-1] == max(WIDTH, size[-1])
    assert drawn.shape[:-2] == size[:-2]
    high, wide = factor * size[-2], factor * size[-1]
    assert torch.equal(drawn[..., :high:factor, :wide:factor], picture)
    assert torch.equal(drawn[..., factor - 1 : high : factor, factor - 1 : wide : factor], picture)
    below = drawn[..., high:, :]
    assert (below[..., :6, :] == 255).all()
    assert (below < 100).any()


def test_a_long_text_has_several_lines_and_none_is_too_wide():
    text = " ".join(["collapse"] * 60)
    lines = wrapped(text, 588)
    assert len(lines) > 1
    assert all(length(line) <= 588 for line in lines)
    assert " ".join(lines) == text
    short, long = (with_legend(torch.zeros(3, 8, WIDTH, dtype=torch.uint8), Legend(t)) for t in ("a", text))
    assert long.shape[1] > short.shape[1]


def test_a_colour_bar_has_the_colours_of_heat():
    drawn = with_legend(torch.zeros(3, 1, WIDTH, dtype=torch.uint8), Legend("x", ends=("low", "high")))
    found = {tuple(colour) for colour in drawn.flatten(1).T.tolist()}
    wanted = (colour_map(torch.linspace(0, 1, 160), HOT) * 255).round().to(torch.uint8)
    assert {tuple(colour) for colour in wanted.tolist()} <= found


def test_a_name_is_cut_to_the_picture():
    picture = torch.zeros(3, 10, 40, dtype=torch.uint8)
    assert with_name(picture, "a name that is much too long\x1b").shape == (3, 30, 40)
    assert cut("short", 400) == "short"
    assert cut("a name that is much too long", 60).endswith("…")
    assert length(cut("a name that is much too long", 60)) <= 60
    assert cut("W", 1) == ""


SEES = {  # Machado et al. 2009, severity 1: what red, green and blue light becomes
    "all": np.eye(3),
    "no green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "no red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
}


def lab(light):
    """CIELAB of linear sRGB, white D65."""
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ light
    x, y, z = (np.cbrt(v) if v > 0.008856 else 7.787 * v + 16 / 116 for v in xyz / [0.9505, 1.0, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("eyes", SEES)
def test_the_colours_of_masks_can_be_told_apart(eyes):
    """Targets from what is no target also where one of them is pale, as what lies at the back of a cloud is."""

    def seen(colour, pale=0.0):
        light = [
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in pale + (1 - pale) * np.array(colour)
        ]
        return lab(np.clip(np.array(SEES[eyes]) @ light, 0, 1))

    whole = [seen(colour) for colour in (CONTEXT, UNUSED, *TARGETS)]
    assert min(np.linalg.norm(one - other) for one, other in combinations(whole, 2)) > 25
    depths = list(product((0, 0.25, 0.5), repeat=2))
    for other, target, (back, front) in product((CONTEXT, UNUSED), TARGETS, depths):
        assert np.linalg.norm(seen(other, back) - seen(target, front)) > 20
