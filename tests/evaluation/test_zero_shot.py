"""Zero-shot classification, against plain numbers, and files of prompts."""

import pytest
import torch

from jepa_lightning.evaluation.prompts import in_order, read_prompts
from jepa_lightning.evaluation.zero_shot import zero_shot

IMAGES = torch.tensor([[1.0, 0.1], [0.2, 1.0], [1.0, 0.9]])


def test_the_mean_of_several_prompts_stands_for_a_class():
    prompts = [torch.tensor([[1.0, 0.0], [1.0, 0.2]]), torch.tensor([[0.0, 2.0]])]
    assert zero_shot(IMAGES, prompts, torch.tensor([0, 1, 0])).value == 1.0
    found = zero_shot(IMAGES, prompts, torch.tensor([1, 1, 0]))
    assert (found.value, found.chance, found.samples) == (pytest.approx(2 / 3), pytest.approx(2 / 3), 3)
    assert found.low < found.value < found.high


def test_long_prompts_weigh_no_more_than_others():
    """The mean is that of unit vectors: (1, 0) and (0, 1) are 45 degrees, whatever their lengths."""
    mixed = [torch.tensor([[100.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0]])]
    assert zero_shot(torch.tensor([[1.0, 0.9]]), mixed, torch.tensor([0])).value == 1.0


def test_unknown_classes_are_left_out_and_ties_are_shared():
    prompts = [torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0]])]
    found = zero_shot(IMAGES, prompts, torch.tensor([0, -1, 1]))
    assert (found.value, found.samples) == (0.5, 2)
    with pytest.raises(ValueError, match="expected classes from 0 to 1 in the label 'label', got 2"):
        zero_shot(IMAGES, prompts, torch.tensor([0, 1, 2]))


def test_files_of_prompts(tmp_path):
    file = tmp_path / "prompts.yaml"
    file.write_text("disc: [a disc, 'a round, flat thing']\nring: a ring\n")
    assert read_prompts(file) == {"disc": ["a disc", "a round, flat thing"], "ring": ["a ring"]}
    assert in_order(read_prompts(file), ["ring", "disc"], label="shape")[0] == ["a ring"]
    with pytest.raises(ValueError, match="prompts of the classes of 'shape', ring, bars; got none of 'bars'"):
        in_order(read_prompts(file), ["ring", "bars"], label="shape")
    for text in ("disc: []\nring: a ring", "[a, b]", "disc: a disc", "a: [", "a: ' '\nb: c"):
        file.write_text(text)
        with pytest.raises(ValueError, match="expected prompts as a YAML or JSON file"):
            read_prompts(file)
    with pytest.raises(ValueError, match=r"cannot read .*none\.yaml"):
        read_prompts(tmp_path / "none.yaml")
