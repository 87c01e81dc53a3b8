"""Who puts a stopped job into the queue again."""

import pytest
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

from jepa_lightning.run.interruption import requeues


@pytest.mark.parametrize("chosen", [True, False, None])
@pytest.mark.parametrize("environment", [True, False])
def test_whether_slurm_takes_the_job_back(monkeypatch, chosen, environment):
    """As the strategy's environment says; a strategy of one device has none, and the job's variables say it."""
    for name in ("SLURM_NTASKS", "SLURM_JOB_NAME"):
        monkeypatch.delenv(name, raising=False)
    if environment:
        monkeypatch.setenv("SLURM_NTASKS", "1")
        monkeypatch.setenv("SLURM_JOB_NAME", "train")
    strategy = SingleDeviceStrategy() if chosen is None else DDPStrategy()
    if chosen is not None:
        strategy.cluster_environment = SLURMEnvironment(auto_requeue=chosen)
    assert requeues(strategy) == (environment if chosen is None else chosen)
