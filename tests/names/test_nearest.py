"""Names that were perhaps meant."""

import pytest

from jepa_lightning.names.nearest import did_you_mean, nearest_names

KNOWN = ["image", "images", "video"]


def test_the_most_alike_come_first():
    assert nearest_names("imag", KNOWN, count=2) == ["image", "images"]
    assert nearest_names("imag", iter(KNOWN)) == ["image"]
    assert nearest_names("vide__", KNOWN, cutoff=0.9) == []


@pytest.mark.parametrize(("name", "hint"), [("vidoe", " (did you mean video?)"), ("xyz", "")])
def test_the_hint(name, hint):
    assert did_you_mean(name, KNOWN) == hint
