"""Loggers with the interfaces of W&B's and MLflow's, which keep what they get."""

from pathlib import Path

from lightning.pytorch.loggers import Logger


class Tracker(Logger):
    """As W&B's: with a folder, by default the working directory, and pictures."""

    def __init__(self, save_dir="."):
        super().__init__()
        self._save_dir = save_dir
        self.metrics, self.settings, self.pictures = {}, None, []

    name = version = "tracker"

    @property
    def save_dir(self):
        return self._save_dir

    def log_metrics(self, metrics, step=None):
        self.metrics |= metrics

    def log_hyperparams(self, params, *args, **kwargs):
        self.settings = params

    def log_image(self, key, images, step=None):
        assert all(Path(image).is_file() for image in images)
        self.pictures.append((key, step))


class Server(Tracker):
    """As MLflow's with a database: with no folder at all, and no `log_image`; it refuses settings."""

    log_image = property()

    def __init__(self):
        super().__init__(save_dir=None)

    def log_hyperparams(self, params, *args, **kwargs):
        raise OSError("the server\nis gone")
