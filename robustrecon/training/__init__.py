"""Training: recipes, the objective, and the loop that Lightning Fabric runs."""

from .loop import train
from .recipes import RECIPES, Recipe, load_recipe

__all__ = ["RECIPES", "Recipe", "load_recipe", "train"]
