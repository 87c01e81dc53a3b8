"""UpperLevels: the regularizer of each level above the first, on its states and its macro-actions."""

from functools import partial

import pytest
import torch
from short_runs import Built

from jepa_lightning.config.plugins import load_plugins
from jepa_lightning.pretexts import Outcome
from jepa_lightning.regularizers import InverseDynamics, RegularizerSpec, SIGReg, TrajectoryVICReg, UpperLevels, VICReg
from jepa_lightning.schedules import LinearRamp
from jepa_lightning.tokens import Latents

D = 6
SPEC = RegularizerSpec(dim=D, out=D, actions=2, upper_actions=(4, 3))


def outcome(samples=5):
    generator = torch.Generator().manual_seed(0)

    def level(length, width):
        states = torch.randn(samples * length, 1, D, generator=generator)
        actions = torch.randn(samples, length - 1, width, generator=generator)
        return Outcome(context=[Latents(values=states)], target=[Latents(values=2 * states)], actions=actions)

    first = level(9, 2)
    return Outcome(context=first.context, target=first.target, actions=first.actions, levels=[level(5, 4), level(3, 3)])


@pytest.mark.parametrize("kind", [VICReg, TrajectoryVICReg, InverseDynamics, partial(SIGReg, on="target")])
def test_it_is_the_sum_over_levels_and_the_first_has_no_part_in_it(kind):
    given = outcome()
    upper = UpperLevels(SPEC, regularizer=kind)
    alone = [part(level) for part, level in zip(upper.parts, given.levels, strict=True)]
    assert len(alone) == 2
    assert float(upper(given)) == pytest.approx(float(sum(alone)), rel=1e-6)
    assert float(upper(given)) != pytest.approx(2 * float(alone[0]), rel=1e-3)
    with torch.no_grad():
        given.context[0].values.mul_(100)
    assert float(upper(given)) == pytest.approx(float(sum(alone)), rel=1e-6)


def test_each_level_has_its_own_parameters_of_its_own_widths():
    upper = UpperLevels(SPEC, regularizer=partial(InverseDynamics, linear=True))
    assert [tuple(part.head[-1].weight.shape) for part in upper.parts] == [(4, 2 * D), (3, 2 * D)]
    upper(outcome()).backward()
    assert all(parameter.grad is not None for parameter in upper.parameters())


def test_name_weight_and_seed_are_those_of_the_regularizer():
    ramp = LinearRamp(0.0, 1.0)
    upper = UpperLevels(SPEC, regularizer=partial(SIGReg, directions=4, weight=ramp))
    assert (upper.name, upper.weight) == ("upper_sigreg", ramp)
    found = []
    for upper.seed in (0, 0, 1):
        found.append(float(upper(outcome())))
    assert found[0] == found[1] != found[2]


def test_too_few_states_of_a_level_and_none():
    upper = UpperLevels(SPEC, regularizer=partial(SIGReg, gather=False))
    for part in upper.parts:
        part.min_samples = 20
    given = outcome()
    assert float(upper(given)) == pytest.approx(float(upper.parts[0](given.levels[0])))  # 25 and 15 states
    for part in upper.parts:
        part.min_samples = 100
    assert float(upper(given)) == 0.0
    with pytest.raises(ValueError, match="this pretext has none: use the pretext HierarchicalRollout"):
        UpperLevels(RegularizerSpec(dim=D, out=D, actions=2))


def test_in_yaml_no_setting_of_the_default_is_kept_for_another_class():
    load_plugins()
    upper = "{class_path: UpperLevels, init_args: {regularizer: {class_path: VICReg, init_args: {variance: 2.0}}}}"
    words = ["--config", "world.yaml", "--model.pretext", "HierarchicalRollout", "--model.pretext.predictor"]
    words += ["AdaLNPredictor", "--model.regularizers", f"[{upper}, UpperLevels]"]
    jepa = Built(["fit", *words]).model
    vicreg, default = (part.parts[0] for part in jepa.regularizers)
    assert (vicreg.variance, vicreg.weight, vicreg.gather) == (2.0, 1.0, False)
    assert isinstance(default, SIGReg)
    assert len(jepa.pretext.level(2).predictor.layers) == 6
