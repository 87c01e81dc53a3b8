"""LeRobot's folders, of both versions, written here by pyarrow and PyAV."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from jepa_lightning.data import TrajectoryData
from jepa_lightning.data.errors import DataError
from jepa_lightning.data.trajectories.lerobot import read_lerobot

pa = pytest.importorskip("pyarrow")
av = pytest.importorskip("av")
parquet = pytest.importorskip("pyarrow.parquet")

LENGTHS, FPS, CAMERA = (6, 9, 7), 10, "observation.images.top"
OLD = {"data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
       "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"}  # fmt: skip
NEW = {"data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
       "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"}  # fmt: skip


def grey(episode, frame):
    return 20 + 60 * episode + 6 * frame


def pictures(episode):
    return [np.full((48, 64, 3), grey(episode, t), np.uint8) for t in range(LENGTHS[episode])]


def rows(episode, *, cells=None):
    count = LENGTHS[episode]
    found = {
        "action": [[episode + 0.5, float(t)] for t in range(count)],
        "observation.state": [[float(t), 1.0, 2.0] for t in range(count)],
        "next.reward": [0.25] * count,
        "timestamp": [t / FPS for t in range(count)],
        "frame_index": list(range(count)),
        "episode_index": [episode] * count,
        "index": list(range(count)),
        "task_index": [0] * count,
    }
    return found if cells is None else {**found, CAMERA: cells}


def film(path, frames):
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as made:
        stream = made.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 64, 48, "yuv420p", 2_000_000
        for frame in frames:
            made.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        made.mux(stream.encode())


def write(root, version, *, kind="video", **changed):
    templates = NEW if version == 3 else OLD
    features = {
        "action": {"dtype": "float32", "shape": [2]},
        "observation.state": {"dtype": "float32", "shape": [3]},
        CAMERA: {"dtype": kind, "shape": [48, 64, 3]},
        "next.reward": {"dtype": "float32", "shape": [1]},
        **{name: {"dtype": "int64", "shape": [1]} for name in ("frame_index", "episode_index", "index", "task_index")},
        "timestamp": {"dtype": "float32", "shape": [1]},
    }
    info = {"codebase_version": f"v{version}.0", "fps": FPS, "chunks_size": 1000, "features": features, **templates}
    (root / "meta").mkdir(parents=True, exist_ok=True)
    (root / "meta" / "info.json").write_text(json.dumps({**info, **changed}))
    tables = []
    for episode in range(3):
        cells = None
        if kind == "image":
            cells = []
            for frame in pictures(episode):
                held = io.BytesIO()
                Image.fromarray(frame).save(held, "PNG")
                cells.append({"bytes": held.getvalue(), "path": "x.png"})
        tables.append(pa.table(rows(episode, cells=cells)))
    if version == 2:
        for episode, table in enumerate(tables):
            path = root / templates["data_path"].format(episode_chunk=0, episode_index=episode)
            path.parent.mkdir(parents=True, exist_ok=True)
            parquet.write_table(table, path)
            if kind == "video":
                film(root / templates["video_path"].format(episode_chunk=0, episode_index=episode, video_key=CAMERA),
                     pictures(episode))  # fmt: skip
        return root
    path = root / templates["data_path"].format(chunk_index=0, file_index=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.concat_tables(tables), path)
    if kind == "video":
        film(root / templates["video_path"].format(chunk_index=0, file_index=0, video_key=CAMERA),
             [frame for episode in range(3) for frame in pictures(episode)])  # fmt: skip
        begins = np.cumsum([0, *LENGTHS[:-1]]) / FPS
        (root / "meta" / "episodes" / "chunk-000").mkdir(parents=True)
        place = f"videos/{CAMERA}"
        known = {"episode_index": [0, 1, 2], f"{place}/chunk_index": [0] * 3, f"{place}/file_index": [0] * 3,
                 f"{place}/from_timestamp": begins.tolist()}  # fmt: skip
        parquet.write_table(pa.table(known), root / "meta" / "episodes" / "chunk-000" / "file-000.parquet")
    return root


@pytest.mark.parametrize(("version", "kind"), [(2, "video"), (3, "video"), (2, "image"), (3, "image")])
def test_each_frame_action_and_label_is_that_of_its_time(tmp_path, version, kind):
    episodes = read_lerobot(write(tmp_path, version, kind=kind), size=(16, 16))
    assert [len(one.observations) for one in episodes] == [*LENGTHS]
    for number, one in enumerate(episodes):
        assert one.observations.shape[1:] == (3, 16, 16)
        assert one.observations.dtype == torch.uint8
        wanted = torch.tensor([float(grey(number, t)) for t in range(LENGTHS[number])])
        torch.testing.assert_close(one.observations.float().mean((1, 2, 3)), wanted, atol=2.5, rtol=0)
        assert one.actions.tolist() == [[number + 0.5, float(t)] for t in range(LENGTHS[number] - 1)]
        assert set(one.labels) == {"observation.state", "next.reward"}
        assert one.labels["observation.state"][:, 0].tolist() == [float(t) for t in range(LENGTHS[number])]


def test_numbers_as_observations(tmp_path):
    one = read_lerobot(write(tmp_path, 3), observations="observation.state", labels=["next.reward"])[1]
    assert one.observations.shape == (9, 3)
    assert set(one.labels) == {"next.reward"}


def test_the_data_module_takes_the_only_camera_and_holds_out_episodes(tmp_path):
    data = TrajectoryData(
        root=str(write(tmp_path, 2, kind="image")), key="image", window=4, batch_size=2, num_workers=0
    )
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (2, 4, 3, 48, 64)
    assert batch["actions"].shape == (2, 3, 2)
    assert len(data.val_dataloader().dataset) == 1


def test_what_is_refused(tmp_path):
    root = write(tmp_path / "a", 2)
    with pytest.raises(DataError, match=r"expected the actions 'act' in .* set data\.actions"):
        read_lerobot(root, actions="act")
    with pytest.raises(DataError, match=r"name of one camera of \['observation.images.top'\] or of other features"):
        read_lerobot(root, observations="top")
    with pytest.raises(DataError, match="expected the label 'reward'"):
        read_lerobot(root, labels=["reward"])
    for template in ("/etc/{episode_index}", "../{episode_index}.mp4", "{video_key.__class__}", "video.mp4"):
        with pytest.raises(DataError, match=r"expected (videos inside|a video_path)"):
            read_lerobot(write(tmp_path / "a", 2, video_path=template))
    write(tmp_path / "a", 2)
    film(root / OLD["video_path"].format(episode_chunk=0, episode_index=1, video_key=CAMERA), pictures(1)[:4])
    with pytest.raises(DataError, match=r"expected a frame at each of the 9 times of episode 1 .* 0\.500 s away"):
        read_lerobot(root)
    (root / OLD["video_path"].format(episode_chunk=0, episode_index=1, video_key=CAMERA)).write_bytes(b"no video")
    with pytest.raises(DataError, match="expected a video, cannot read"):
        read_lerobot(root)
    for content in ("{}", "[]", '{"fps": "ten", "features": {}}', '{"fps": 10, "features": {"action": 3}}'):
        (root / "meta" / "info.json").write_text(content)
        with pytest.raises(DataError, match="expected features and fps"):
            read_lerobot(root)


def test_a_picture_that_cannot_be_read_is_named(tmp_path):
    root = write(tmp_path, 2, kind="image")
    path = root / OLD["data_path"].format(episode_chunk=0, episode_index=1)
    broken = [{"bytes": b"no picture", "path": "x.png"}] * LENGTHS[1]
    parquet.write_table(pa.table(rows(1, cells=broken)), path)
    with pytest.raises(DataError, match=r"expected a picture of observation\.images\.top, cannot read it"):
        read_lerobot(root)
