"""ZINC's pickles are data: PyG's graphs come of them, and nothing is run."""

import os
import pickle

import numpy as np
import pytest
import torch
from torch_geometric.datasets import ZINC

from jepa_lightning.data import DataError
from modalities.graph.files import open_graphs
from modalities.graph.plain_pickles import load_plain
from modalities.graph.zinc import PlainZINC


def write(raw, *, count=5, **more):
    raw.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    for split in ("train", "val", "test"):
        molecules = []
        for _ in range(count):
            bonds = torch.randint(0, 4, (6, 6), generator=generator)
            molecules.append(
                {
                    "num_atom": np.int64(6),
                    "atom_type": torch.randint(0, 28, (6,), generator=generator, dtype=torch.int8),
                    "bond_type": bonds + bonds.T,
                    "logP_SA_cycle_normalized": torch.rand(1, generator=generator, dtype=torch.float64),
                    **more,
                }
            )
        (raw / f"{split}.pickle").write_bytes(pickle.dumps(molecules))
        (raw / f"{split}.index").write_text("0,2,4\n")


@pytest.mark.parametrize("subset", [True, False])
def test_the_graphs_that_pyg_makes(tmp_path, subset):
    write(tmp_path / "ZINC_ours" / "raw")
    write(tmp_path / "theirs" / "raw")
    for split in ("train", "val", "test"):
        ours, theirs = (cls(str(tmp_path / name), subset=subset, split=split)
                        for cls, name in ((PlainZINC, "ZINC_ours"), (ZINC, "theirs")))  # fmt: skip
        assert len(ours) == len(theirs) == (3 if subset else 5)
        for one, other in zip(ours, theirs, strict=True):
            assert one.keys() == other.keys()
            assert all(torch.equal(one[key], other[key]) and one[key].dtype == other[key].dtype for key in one.keys())  # noqa: SIM118
    again = open_graphs(str(tmp_path), "ZINC_ours") if subset else None  # from its cache
    assert again is None or len(again["val"]) == 3


class Bomb:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


class InStorage:
    """Code in what a tensor's storage is read from."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        import io

        buffer = io.BytesIO()
        torch.save(Bomb(self.target), buffer)
        return torch.storage._load_from_bytes, (buffer.getvalue(),)


@pytest.mark.parametrize("kind", [Bomb, InStorage])
@pytest.mark.parametrize("name", ["ZINC", "ZINC_full"])
def test_pickles_with_code(tmp_path, kind, name):
    write(tmp_path / name / "raw", more=kind(tmp_path / "made"))
    with pytest.raises(DataError, match=r"expected tensors and plain values|can run code") as caught:
        open_graphs(str(tmp_path), name)
    assert "\n" not in str(caught.value)
    with pytest.raises((ValueError, pickle.UnpicklingError)):
        load_plain(tmp_path / name / "raw" / "train.pickle")
    assert not (tmp_path / "made").exists()


def test_pickle_opcodes_that_name_nothing_else(tmp_path):
    path = tmp_path / "train.pickle"
    new = b"\x80\x04\x8c\x02os\x8c\x06system\x93."
    for content in (b"cos\nsystem\n(S'true'\ntR.", b"cbuiltins\neval\n(S'1'\ntR.", new):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="such a file can run code"):
            load_plain(path)
