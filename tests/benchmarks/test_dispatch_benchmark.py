"""What a step dispatches, counted."""

import json

from benchmarks.dispatch import main
from jepa_lightning.targets import half


def test_short_cuts_dispatch_less(tmp_path, capsys):
    before = set(half.DEVICES)
    main(["--steps", "1", "--json", str(tmp_path / "found.json")])
    assert before == half.DEVICES
    counted = json.loads((tmp_path / "found.json").read_text())["results"]["operations"]
    plain, short = (sum(counted[name].values()) for name in ("plain", "short cuts"))
    assert short < plain
    assert counted["short cuts"]["target"] < 0.7 * counted["plain"]["target"]  # the teacher's weights are cast already
    assert counted["short cuts"]["masker"] == counted["plain"]["masker"]
    assert sum(counted["recorded"].values()) < 0.5 * plain
    assert sum(counted["recorded"][part] for part in ("target", "context", "predictor", "backward")) < 20
    assert "together" in capsys.readouterr().out
