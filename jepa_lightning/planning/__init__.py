"""Planning with a world model: energies, planners, costs, memory, agent, and episodes in closed loop."""

from jepa_lightning.planning.agent import Agent, Deliberate
from jepa_lightning.planning.cost import ActionPenalty, Cost, GoalDistance, WeightedSum
from jepa_lightning.planning.episodes import Outcomes, run_episodes, wilson
from jepa_lightning.planning.horizon import RecedingHorizon
from jepa_lightning.planning.memory import Memory
from jepa_lightning.planning.planners import CEM, MPPI, Categorical, Energy, Gradient, Plan, Planner, RandomShooting
from jepa_lightning.planning.policies import DoNothing, Oracle, Policy, RandomActions, StraightLine, Towards
from jepa_lightning.planning.world import World, load_world

__all__ = [
    "Agent",
    "ActionPenalty",
    "CEM",
    "Categorical",
    "Cost",
    "Deliberate",
    "DoNothing",
    "Energy",
    "GoalDistance",
    "Gradient",
    "MPPI",
    "Memory",
    "Oracle",
    "Outcomes",
    "Plan",
    "Planner",
    "Policy",
    "RandomActions",
    "RandomShooting",
    "RecedingHorizon",
    "StraightLine",
    "Towards",
    "WeightedSum",
    "World",
    "load_world",
    "run_episodes",
    "wilson",
]
