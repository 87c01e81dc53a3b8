"""Planning with a world model: energies, planners, costs, memory, agent, actor, and episodes in closed loop."""

from jepa_lightning.planning.actor import Actor, Reactive, load_actor
from jepa_lightning.planning.actor_training import ActorTraining, Imagine, Imitate
from jepa_lightning.planning.agent import Agent, Deliberate
from jepa_lightning.planning.cost import ActionPenalty, Cost, DistanceCost, GoalDistance, WeightedSum
from jepa_lightning.planning.distil import Distil
from jepa_lightning.planning.episodes import Outcomes, run_episodes
from jepa_lightning.planning.horizon import RecedingHorizon
from jepa_lightning.planning.learned_cost import LearnedCost
from jepa_lightning.planning.levels import (
    LevelPlan,
    MacroActions,
    Scene,
    TopDown,
    TopDownHorizon,
    shrinking_horizons,
)
from jepa_lightning.planning.memory import Memory
from jepa_lightning.planning.planners import CEM, MPPI, Categorical, Energy, Gradient, Plan, Planner, RandomShooting
from jepa_lightning.planning.policies import DoNothing, Oracle, Policy, RandomActions, StraightLine, Towards
from jepa_lightning.planning.temporal_distance import TemporalDistance
from jepa_lightning.planning.transition_energy import TransitionEnergy
from jepa_lightning.planning.walks import Walks, encode_walks
from jepa_lightning.planning.world import World, load_world

__all__ = [
    "Actor",
    "ActorTraining",
    "Agent",
    "ActionPenalty",
    "CEM",
    "Categorical",
    "Cost",
    "Deliberate",
    "DistanceCost",
    "Distil",
    "DoNothing",
    "Energy",
    "GoalDistance",
    "Gradient",
    "Imagine",
    "Imitate",
    "LearnedCost",
    "LevelPlan",
    "MPPI",
    "MacroActions",
    "Memory",
    "Oracle",
    "Outcomes",
    "Plan",
    "Planner",
    "Policy",
    "RandomActions",
    "RandomShooting",
    "Reactive",
    "RecedingHorizon",
    "Scene",
    "StraightLine",
    "TemporalDistance",
    "TopDown",
    "TopDownHorizon",
    "Towards",
    "TransitionEnergy",
    "Walks",
    "WeightedSum",
    "World",
    "encode_walks",
    "load_actor",
    "load_world",
    "run_episodes",
    "shrinking_horizons",
]
