"""The examples in the docstrings of parts on trajectories run and give what they say."""

import doctest
import importlib

import pytest

MODULES = [
    "encoders.conv",
    "predictors.residual",
    "predictors.rollout",
    "pretexts.rollout",
    "regularizers.inverse_dynamics",
    "regularizers.trajectory",
    "trajectories",
    "data.trajectories.module",
    "environments.spaces",
    "environments.two_rooms",
    "planning.agent",
    "planning.cost",
    "planning.memory",
    "planning.planners.gradient",
    "planning.planners.sampling",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    tests = doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(f"jepa_lightning.{name}"))
    runner = doctest.DocTestRunner()
    for test in tests:
        runner.run(test)
    assert runner.failures == 0
    assert runner.tries > 0
