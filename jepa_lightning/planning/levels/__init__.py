"""Planning from the top down with a world of several levels."""

from jepa_lightning.planning.levels.loop import TopDownHorizon
from jepa_lightning.planning.levels.scene import Scene
from jepa_lightning.planning.levels.schedule import shrinking_horizons
from jepa_lightning.planning.levels.space import MacroActions
from jepa_lightning.planning.levels.top_down import LevelPlan, TopDown

__all__ = ["LevelPlan", "MacroActions", "Scene", "TopDown", "TopDownHorizon", "shrinking_horizons"]
