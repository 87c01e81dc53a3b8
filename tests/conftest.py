"""The order of the tests, and which processes run them."""

import gc
import os
from pathlib import Path

import pytest

os.environ.setdefault(
    "OPENBLAS_NUM_THREADS", "1"
)  # before NumPy: its idle threads take the cores from the other process

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test needs the network, nor waits for one that does not answer

FROM_THE_SERVER = {  # begin processes from the fork server (tests/processes.py), which takes ten seconds to start
    "distributed/test_two_processes.py",
    "distributed/test_gather.py",
    "distributed/test_text_in_two.py",
    "finetuning/test_in_two.py",
    "fuzz/test_fuzz_sizes.py",
    "modalities/audio/test_audio_modality.py",
    "run/test_kill.py",
    "test_architecture.py",
    "test_package.py",
}
SLOW_FILES = (  # go first: processes share whole files, and a long one at the end keeps the others waiting
    *sorted(FROM_THE_SERVER),
    "run/test_resume.py",
    "cli/test_probe_command.py",
    "cli/test_fit.py",
    "docs/test_docs.py",
    "docs/test_readme.py",
    "cli/test_view_command.py",
    "evaluation/test_evaluate_features.py",
    "cli/test_pairs.py",
    "golden/test_golden.py",
    "benchmarks/test_benchmarks.py",
    "loading/test_from_runs.py",
    "data/streams/test_shards.py",
    "benchmarks/test_gpu_benchmark.py",
    "benchmarks/test_graph_table.py",
    "encoders/test_layers.py",
    "scale/test_parallel.py",
    "callbacks/test_probe_callback.py",
    "docs/test_new_modality_page.py",
    "cli/test_embed.py",
    "callbacks/test_checkpoint.py",
    "fuzz/test_fuzz_configs.py",
    "config/test_trust.py",
    "targets/test_pretrained.py",
    "callbacks/test_summary.py",
    "data/test_views.py",
    "docs/test_new_pretext_page.py",
    "benchmarks/test_repeated_splits.py",
)


def pytest_collection_modifyitems(items):
    """Slow files first."""
    rank = {Path(__file__).parent / name: place for place, name in enumerate(SLOW_FILES)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


@pytest.hookimpl(trylast=True)
def pytest_configure(config):
    """Fixtures where tests run: a process that hands them out to others need not import torch, ten seconds' work."""
    if not config.pluginmanager.hasplugin("dsession"):
        config.pluginmanager.import_plugin("small_fixtures")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Whole files to a process, and to one process all those that share the fork server."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class ByServer(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = super()._split_scope(nodeid)
            return "from the server" if file.removeprefix("tests/") in FROM_THE_SERVER else file

    return ByServer(config, log)


def pytest_collection_finish():
    """Half a million objects of libraries and tests stay to the end: the collector need not look at them each time."""
    gc.collect()
    gc.freeze()
