"""Our steps beside each other, where no clone of the official repository is at hand."""

import json

import pytest

from benchmarks.against_official import main


@pytest.mark.slow
def test_steps_alternate_and_a_shared_context_has_fewer_flops(tmp_path, capsys):
    options = ["--model", "vit_mini", "--image-size", "32", "--patch-size", "4", "--batch", "1", "--rounds", "1"]
    main([*options, "--json", str(tmp_path / "found.json")])
    found = json.loads((tmp_path / "found.json").read_text())["results"]
    assert set(found) == {"exact", "shared context"}
    assert found["exact"]["ratio"][1] == 1.0
    assert found["shared context"]["flops"] < 0.8 * found["exact"]["flops"]
    assert "shared context" in capsys.readouterr().out


def test_a_size_that_the_official_repository_lacks_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--model", "vit_mini", "--ijepa", str(tmp_path)])
    assert "use vit_tiny" in capsys.readouterr().err
