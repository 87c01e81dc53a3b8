"""A checkpoint with damaged bytes: the weights that were written, or one line that says it is damaged."""

import pytest
from fuzz_helpers import bounded, damaged, folder, fuzz
from hypothesis import given
from hypothesis import strategies as st

from jepa_lightning import load


@pytest.fixture(scope="module")
def whole(short_run):
    """Bytes of a checkpoint, and its weights."""
    where, _ = short_run("image")
    return (where / "checkpoints" / "last.ckpt").read_bytes(), load(where).state_dict()


def read(data, weights):
    """Load a file with these bytes. Returns whether it could be."""
    with folder() as where, bounded(20):
        (where / "last.ckpt").write_bytes(data)
        try:
            found = load(where / "last.ckpt").state_dict()
        except ValueError as error:
            said = str(error)
        else:
            said = None
    if said is not None:
        assert len(said.splitlines()) == 1
        assert "last.ckpt" in said
        return False
    assert found.keys() == weights.keys()
    assert all(found[name].equal(value) for name, value in weights.items())
    return True


def test_damaged_bytes_never_become_other_weights(whole):
    data, weights = whole
    assert read(data, weights)

    @fuzz(25)
    @given(damaged(data, others=(b"\x80\x02}q\x00.", b"PK\x05\x06" + bytes(18))))
    def anything(changed):
        read(changed, weights)

    @fuzz(25)
    @given(st.integers(0, len(data) - 1), st.integers(0, 7))
    def one_bit(place, bit):
        changed = bytearray(data)
        changed[place] ^= 1 << bit
        read(bytes(changed), weights)

    anything()
    one_bit()
