"""Processes of a test's own, that begin with everything imported: a start takes a second, not ten."""

import multiprocessing


def forkserver():
    """The context that starts them; all tests share one server."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["jepa_lightning.cli", "jepa_lightning.data", "modalities.image", "tensorboard"])
    return context
