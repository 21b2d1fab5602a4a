"""Training: recipes, objectives, and the loop that Lightning Fabric runs."""

from .api import train
from .grafting import graft
from .objectives import OBJECTIVES, Objective, ObjectiveOptions
from .recipes import RECIPES, Recipe, default_recipe, load_recipe

__all__ = [
    "OBJECTIVES",
    "RECIPES",
    "Objective",
    "ObjectiveOptions",
    "Recipe",
    "default_recipe",
    "graft",
    "load_recipe",
    "train",
]
