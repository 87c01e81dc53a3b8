"""Trajectory data: windows within episodes, T against T - 1, layouts of files, splits, seeds."""

import h5py
import numpy as np
import pytest
import torch

from jepa_lightning.data import DataError, TrajectoryData
from jepa_lightning.data.trajectories import Observations
from jepa_lightning.data.trajectories.reading import find_episode_files, read_episodes
from jepa_lightning.environments import TwoRooms

NAMES = {"observations": "observations", "actions": "actions", "labels": None}


def episode(number, length):
    """Observation t of episode e holds (e, t); action t too: what belongs together can be told."""
    seen = np.stack([np.full(length, number), np.arange(length)], -1).astype(np.float32)
    return seen, seen[:-1] + 0.5


def data(root, **settings):
    few = {"key": "vector", "window": 4, "batch_size": 4, "num_workers": 0, "windows": 5}
    return TrajectoryData(root=str(root), **{**few, **settings})


def flat_file(path, lengths, **more):
    parts = [episode(e, n) for e, n in enumerate(lengths)]
    seen = np.concatenate([p[0] for p in parts])
    np.savez(path, observations=seen, actions=seen + 0.5, **more)


@pytest.fixture
def episodes_of_several_lengths(tmp_path):
    flat_file(tmp_path / "walks.npz", [4, 9, 6, 12, 3, 7, 8, 20], episode_lengths=[4, 9, 6, 12, 3, 7, 8, 20])
    return tmp_path


def test_windows_stay_within_an_episode_and_actions_lie_between(episodes_of_several_lengths):
    found = data(episodes_of_several_lengths)
    starts = set()
    for batch in found.train_dataloader():
        seen, done = batch["vector"], batch["actions"]
        assert seen.shape[1:] == (4, 2)
        assert done.shape[1:] == (3, 2)
        assert (seen[..., 0] == seen[:, :1, 0]).all()  # one episode
        assert (seen.diff(dim=1)[..., 1] == 1).all()  # observation after observation
        assert torch.equal(done, seen[:, :-1] + 0.5)
        starts |= {(int(e), int(t)) for e, t in seen[:, 0]}
        assert 4 not in seen[..., 0]  # too short for a window
    assert len(starts) > 12
    assert all(t <= (4, 9, 6, 12, 3, 7, 8, 20)[e] - 4 for e, t in starts)


def test_with_a_frame_skip_actions_are_blocks_of_those_between(episodes_of_several_lengths):
    """Episodes of 7 observations hold one window of 4 with 2 steps between, at one place; those of 6 none."""
    lengths, starts = (4, 9, 6, 12, 3, 7, 8, 20), set()
    found = data(episodes_of_several_lengths, frame_skip=2, val_fraction=0.0, windows=9)
    for batch in found.train_dataloader():
        for seen, done in zip(batch["vector"], batch["actions"], strict=True):
            number, start = int(seen[0, 0]), int(seen[0, 1])
            assert seen.tolist() == [[number, start + 2 * t] for t in range(4)]
            told = [[[number + 0.5, start + 2 * t + i + 0.5] for i in range(2)] for t in range(3)]
            assert done.tolist() == [one + other for one, other in told]
            assert start + 6 < lengths[number]
            starts.add((number, start))
    assert {number for number, _ in starts} == {1, 3, 5, 6, 7}
    assert {start for number, start in starts if number == 5} == {0}
    assert {start % 2 for _, start in starts} == {0, 1}  # any observation may be the first
    assert max(start for number, start in starts if number == 7) > 7
    with pytest.raises(DataError, match="expected episodes of at least 31 observations"):
        data(episodes_of_several_lengths, frame_skip=10).setup()
    with pytest.raises(DataError, match="no shorter than a window of 10, got 16 of 9"):
        TrajectoryData(episodes=16, length=9, window=4, frame_skip=3)


def test_whole_episodes_are_held_out(episodes_of_several_lengths):
    found = data(episodes_of_several_lengths, val_fraction=0.3)
    trained = {int(e) for batch in found.train_dataloader() for e in batch["vector"][:, 0, 0]}
    held = [batch["vector"] for batch in found.val_dataloader()]
    checked = {int(e) for seen in held for e in seen[:, 0, 0]}
    assert len(checked) == 2
    assert not trained & checked
    assert all((seen[:, 0, 1] == 0).all() for seen in held)  # at the episode's start
    assert found.probe_dataloader() is None  # nothing is labelled here


def test_evaluation_windows_are_spread_over_an_episode(tmp_path):
    seen, done = episode(3, 12)
    np.savez(tmp_path / "one.npz", observations=[seen] * 2, actions=[done] * 2, x=np.ones((2, 12)))
    found = data(tmp_path, val_fraction=0.5).probe_dataloader()
    starts = sorted(int(t) for batch in found for t in batch["vector"][:, 0, 1])
    assert starts == [0, 2, 4, 6, 8]
    assert len({name for batch in found for name in batch["id"]}) == 5


def test_windows_are_drawn_from_seed_epoch_and_sample(episodes_of_several_lengths, monkeypatch):
    def drawn(seed):
        monkeypatch.setenv("PL_GLOBAL_SEED", str(seed))
        torch.manual_seed(torch.seed() % 2**31)  # whatever was drawn before counts for nothing
        loader = data(episodes_of_several_lengths).train_dataloader()
        return torch.cat([batch["vector"] for batch in loader])

    first, other = drawn(1), drawn(1)
    assert torch.equal(first, other)
    assert not torch.equal(first, drawn(2))


def test_layouts_of_files(tmp_path):
    parts = [episode(e, 5) for e in range(3)]
    stacked = {"observations": np.stack([p[0] for p in parts]), "actions": np.stack([p[1] for p in parts])}
    others = {"layout": np.arange(3), "x": np.ones((3, 5)), "name": np.array(["a", "b", "c"])}
    np.savez(tmp_path / "stacked.npz", **stacked, **others)
    full = {**stacked, "actions": np.concatenate([stacked["actions"], np.full((3, 1, 2), 99.0)], 1)}
    np.savez(tmp_path / "full.npz", **full)
    flat_file(tmp_path / "lengths.npz", [5, 5, 5], ep_len=[5, 5, 5])
    ends = np.zeros(15, bool)
    ends[[4, 14]] = True
    flat_file(tmp_path / "flags.npz", [5, 5, 5], terminals=ends, timeouts=np.arange(15) == 9)
    with h5py.File(tmp_path / "flat.h5", "w") as file:
        file["observations"], file["actions"] = (stacked[k] for k in ("observations", "actions"))
        file["elsewhere"] = h5py.ExternalLink("other.h5", "/secret")
    with h5py.File(tmp_path / "minari.hdf5", "w") as file:
        for e in (2, 0, 1):
            group = file.create_group(f"episode_{e}")
            group["observations"], group["actions"] = parts[e]
    for file in tmp_path.iterdir():
        found = read_episodes(file, **NAMES)
        assert len(found) == 3, file
        for one, (seen, done) in zip(found, parts, strict=True):
            assert torch.equal(one.observations, torch.from_numpy(seen)), file
            assert torch.equal(one.actions, torch.from_numpy(done)), file
        assert set(found[0].labels) == ({"layout", "x"} if file.name == "stacked.npz" else set())
    labelled = read_episodes(tmp_path / "stacked.npz", **NAMES)
    assert labelled[2].labels["layout"].tolist() == [2] * 5


def test_other_files_are_counted_by_their_endings(tmp_path, caplog):
    np.savez(tmp_path / "train.npz", observations=np.zeros((2, 6, 3)), actions=np.zeros((2, 5, 1)))
    for name in ("a.zarr", "b.npy", "c.npy", "README.md", ".hidden.npy"):
        (tmp_path / name).write_bytes(b"")
    find_episode_files(tmp_path)
    says = "3 of 4 files are left out, for their endings are not read: .npy (2), .zarr (1)"
    assert caplog.messages == [f"{tmp_path}: {says}"]
    caplog.clear()
    find_episode_files(tmp_path / "train.npz")
    assert not caplog.messages


def test_a_test_file_is_the_test_split(tmp_path):
    for name, first in (("train", 0), ("test", 10)):
        parts = [episode(first + e, 6) for e in range(8)]
        np.savez(tmp_path / f"{name}.npz", observations=[p[0] for p in parts], actions=[p[1] for p in parts])
    found = data(tmp_path)
    assert found.has_test
    assert {int(e) for batch in found.test_dataloader() for e in batch["vector"][:, 0, 0]} == set(range(10, 18))


@pytest.mark.parametrize("shape", [(5, 6), (1, 5, 6), (5, 6, 3)])
def test_images_of_8_bits_become_normalised_floats(shape):
    pixels = torch.randint(0, 256, (2, 3, *shape), dtype=torch.uint8)
    found = Observations("image", mean=0.1, std=0.25)({"image": pixels})["image"]
    channels = 3 if shape[-1] == 3 else 1
    assert found.shape == (2, 3, channels, 5, 6)
    one = pixels[1, 2, 4, 5, 1] if channels == 3 else pixels[1, 2].reshape(5, 6)[4, 5]
    assert float(found[1, 2, -2 if channels == 3 else 0, 4, 5]) == pytest.approx((int(one) / 255 - 0.1) / 0.25)


def test_each_channel_has_a_mean_and_a_std_of_its_own():
    pixels = torch.randint(0, 256, (2, 3, 3, 5, 6), dtype=torch.uint8)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    found = Observations("image", mean=mean, std=std)({"image": pixels})["image"]
    for c in range(3):
        torch.testing.assert_close(found[:, :, c], (pixels[:, :, c].float() / 255 - mean[c]) / std[c])
    mixed = Observations("image", mean=mean, std=0.5).prepare(pixels[:, 0])
    torch.testing.assert_close(mixed[:, 2], (pixels[:, 0, 2].float() / 255 - 0.406) / 0.5)
    with pytest.raises(DataError, match="expected a mean and a std for each of 3 channels, or one for all"):
        Observations("image", mean=[0.5, 0.5], std=0.5)({"image": pixels})
    assert TrajectoryData(key="image", mean=mean, std=std).batch_transform().mean == mean


def test_generated_episodes():
    settings = {"key": "image", "environment": TwoRooms(image_size=16), "episodes": 16, "length": 9, "window": 5}
    found = TrajectoryData(**settings, batch_size=4, num_workers=0)
    batch = next(iter(found.train_dataloader()))
    assert batch["image"].shape == (4, 5, 1, 16, 16)
    assert set(batch["labels"]) == {"x", "y", "wall", "door"}
    assert found.labelled
    shown = TwoRooms(image_size=16).observe(torch.stack([batch["labels"][n] for n in ("x", "y", "wall", "door")], -1))
    torch.testing.assert_close(batch["image"], (shown.float() / 255 - 0.1) / 0.25)
    assert not found.has_test
    assert len(found.val_dataloader().dataset) == 2


def test_what_is_refused(tmp_path):
    with pytest.raises(DataError, match="expected root or environment, got both"):
        TrajectoryData(root="x", environment=TwoRooms())
    with pytest.raises(DataError, match="expected at least 2 observations a window"):
        TrajectoryData(window=1)
    with pytest.raises(DataError, match="expected at least 8 generated episodes no shorter than a window"):
        TrajectoryData(length=8, window=9)
    with pytest.raises(DataError, match="expected a finite mean and a std above 0"):
        TrajectoryData(std=0.0)
    with pytest.raises(DataError, match="expected a finite mean and a std above 0"):
        TrajectoryData(std=[0.2, 0.0])
    with pytest.raises(DataError, match="expected views 1"):
        TrajectoryData(views=2)
    with pytest.raises(DataError, match="found nothing there"):
        data(tmp_path / "nowhere").setup()
    with pytest.raises(DataError, match=r"found none: check data\.root"):
        data(tmp_path).setup()
    refused = {
        r"'observations' in a\.npz, it has \['actions', 'pixels'\]": {"pixels": (3, 4, 2), "actions": (3, 3, 1)},
        r"a\.npz\[0\], got the shape \(2, 1\)": {"observations": (3, 4, 2), "actions": (3, 2, 1)},
        r"got actions \(2, 3, 1\)": {"observations": (3, 4, 2), "actions": (2, 3, 1)},
        r"the longest of 3 has 4: lower data\.window": {"observations": (3, 4, 2), "actions": (3, 3, 1)},
    }
    for message, arrays in refused.items():
        np.savez(tmp_path / "a.npz", **{name: np.zeros(shape) for name, shape in arrays.items()})
        with pytest.raises(DataError, match=message):
            data(tmp_path, window=5 if "longest" in message else 4).setup()
    (tmp_path / "a.npz").write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match="expected a NumPy archive of episodes, cannot read"):
        data(tmp_path).setup()
    (tmp_path / "a.npz").unlink()
    (tmp_path / "a.h5").write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match="expected an HDF5 file of episodes, cannot read"):
        data(tmp_path).setup()


def test_an_array_that_was_never_written_is_refused(tmp_path):
    """A few hundred bytes that declare 8 TB, in the file and in a group."""
    for name in ("observations", "episode_0/observations"):
        file = tmp_path / "a.h5"
        with h5py.File(file, "w") as made:
            made.create_dataset(name, shape=(2**40, 4), dtype="f2", chunks=(1024, 4))
        with pytest.raises(DataError, match="should hold 8796093022208 bytes, and 0 are there"):
            data(tmp_path).setup()
