"""Models with a front end: attacks with gentler slopes in its backward pass belong to their worst case."""

from __future__ import annotations

from ...attacks import BACKWARD_SLOPES, front_ends
from ..model import BenchmarkModel
from .read import SuiteModel


def without_gentler_slopes(model: SuiteModel, target: BenchmarkModel) -> str | None:
    """What to do about a front end through which every attack follows the true gradient; None where there is none.

    A line rather than an error, as for budgets that training did not see.
    """
    if not front_ends(target.model) or any("front_end" in each.parameters for each in model.attacks):
        return None
    slopes = ", ".join(f"{slope:g}" for slope in BACKWARD_SLOPES)
    return (
        f"{model.name or target.name} has a front end, whose steep slope may hide gradients: list bpda, selective and "
        f"multi-target with the parameter front_end = {slopes} too"
    )
