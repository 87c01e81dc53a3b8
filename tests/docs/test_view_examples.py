"""The YAML in the docstrings of view transforms: each builds data whose training batches have views."""

import inspect
import re
import textwrap

import pytest
import yaml
from short_runs import fit_shortly
from view_checks import loader_batch

from jepa_lightning.config.rebuild import build_data
from modalities.audio import Audio, AudioViews
from modalities.graph import Graph, GraphViews
from modalities.image import Image, ImageViews
from modalities.pointcloud import PointCloud, PointCloudViews
from modalities.video import Video, VideoViews

MODALITIES = {
    ImageViews: lambda: Image(image_size=96),
    VideoViews: lambda: Video(image_size=32, frames=4),
    AudioViews: lambda: Audio(seconds=1.0),
    PointCloudViews: lambda: PointCloud(points=128, groups=16, group_size=8),
    GraphViews: lambda: Graph(features=4),
}


@pytest.mark.long
@pytest.mark.parametrize("kind", MODALITIES, ids=lambda kind: kind.__name__)
def test_the_example(kind):
    (block,) = re.findall(r"```yaml\n(.*?)```", inspect.getdoc(kind), re.DOTALL)
    settings = yaml.safe_load(textwrap.dedent(block))["data"]
    settings["class_path"] = f"{kind.__module__.rpartition('.')[0]}.{settings['class_path']}"
    settings["init_args"]["view_transform"]["class_path"] = f"{kind.__module__}.{kind.__name__}"
    few = {"samples": 16, "batch_size": 2, "num_workers": 0, "val_fraction": 0.0}
    data = build_data(settings, few, MODALITIES[kind]())
    batch = loader_batch(data)
    assert len(batch["views"]) == data.views > 1
    assert type(data.training_transform) is kind


def test_from_the_shell(tmp_path):
    words = ["--data.views", "3", "--data.view_transform", "ImageViews", "--data.view_transform.local_views", "1"]
    run = fit_shortly("image", tmp_path, *words, "--data.view_transform.blur", "[1.0,0.1]")
    assert run.trainer.global_step == 2
    data = run.datamodule
    assert (data.views, data.training_transform.local_views) == (3, 1)
    assert data.training_transform.chances["blur"] == [1.0, 0.1]
    written = yaml.safe_load((tmp_path / "config.yaml").read_text())["data"]
    assert written["init_args"]["view_transform"]["class_path"] == "modalities.image.ImageViews"
