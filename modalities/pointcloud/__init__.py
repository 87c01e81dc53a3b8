"""Point clouds: JEPA on groups of neighbouring points, without a grid, with its data."""

from modalities.pointcloud.data import PointCloudData
from modalities.pointcloud.modality import PointCloud
from modalities.pointcloud.tokenizer import PointTokenizer
from modalities.pointcloud.transforms import PointCloudViews

__all__ = ["PointCloud", "PointCloudData", "PointCloudViews", "PointTokenizer"]
