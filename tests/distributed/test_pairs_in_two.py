"""Images and captions in two gloo processes with DDP, against one process with the whole batch; see pairs_in_two.py."""

import sys
from pathlib import Path

import pytest
import torch
from processes import in_two

sys.path.insert(0, str(Path(__file__).parent))
import pairs_in_two


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    in_two(folder, pairs_in_two.main, folder)
    return folder


@pytest.mark.parametrize("name", pairs_in_two.ALIGNED)
def test_two_processes_are_one_with_the_whole_batch(two, tmp_path, name):
    """The loss of each step, and what both encoders, maps, predictor, alignment and targets become."""
    _, one = pairs_in_two.train(tmp_path, name)
    before = pairs_in_two.state(pairs_in_two.make_jepa(**pairs_in_two.ALIGNED[name]))
    assert len(one["losses"]) == 4
    for rank in (0, 1):
        found = torch.load(two / f"{name}-{rank}.pt")
        assert found["losses"] == pytest.approx(one["losses"], abs=1e-6)
        assert found["state"].keys() == one["state"].keys()
        for key, value in one["state"].items():
            torch.testing.assert_close(found["state"][key], value, rtol=0, atol=1e-6, msg=key)
    stay = "encoder.encoders.text." if "frozen text" in name else "nothing"
    weights = [k for k, v in before.items() if stay not in k and (v.ndim > 1 or k == "pretext.alignment.scale")]
    weights = [key for key in weights if not key.startswith("tokenizer.")]
    assert {key.split(".")[0] for key in weights} == {"encoder", "predictor", "target"} | (
        set() if name == "nearness" else {"pretext"}
    )
    for key in weights:
        assert (one["state"][key] - before[key]).abs().max() > 1e-4, key
