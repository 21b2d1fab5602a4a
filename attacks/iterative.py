"""Base classes of the attacks that follow gradients and of those that take steps along them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING

from torch import nn

from .backward import ApproximateBackward, check_front_end, check_leaky
from .base import Attack, at_least
from .errors import InputError

if TYPE_CHECKING:
    from typing import Self

STEP_OF_BUDGET = 2.5


@dataclass(kw_only=True, eq=False)
class GradientAttack(Attack):
    """Base class of attacks that follow gradients, of the model itself or of an approximation of its backward pass.

    Args:
        front_end: slope of the model's front ends in the backward pass, for a model that has one; its own by default.
        leaky: slope of the model's ReLUs in the backward pass where they are off; 0 for their own.
        Others: as for every `Attack`.

    Raises:
        InputError: an argument out of its range; from a call, a `front_end` for a model that has none.
    """

    front_end: float | None = None
    leaky: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.front_end, self.leaky = check_front_end(self.front_end), check_leaky(self.leaky)

    def searched(self, victim: nn.Module) -> nn.Module:
        if self.front_end is None and not self.leaky:
            return victim
        return ApproximateBackward(victim, self.front_end, self.leaky)


@dataclass(kw_only=True, eq=False)
class IterativeAttack(GradientAttack):
    """Base class of attacks that take gradient steps.

    Args:
        steps: gradient steps.
        alpha: step size; by default 2.5 · eps / steps, at most eps (Madry et al. 2018).
        random_start: start at a random point of the ball instead of at x.
        front_end, leaky, eps, norm, restarts, seed, batch_size: as for every `GradientAttack`.

    Raises:
        InputError: an argument out of its range.
    """

    steps: int = 40
    alpha: float | None = None
    random_start: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.steps = at_least(1, self.steps, "steps")
        alpha = self.alpha
        if alpha is None:
            return
        if isinstance(alpha, bool) or not (isinstance(alpha, Real) and math.isfinite(alpha) and alpha > 0):
            raise InputError(f"alpha: got {alpha!r}, must be a step size above 0")

    @property
    def step_size(self) -> float:
        """`alpha`, or its default value."""
        return min(self.eps, STEP_OF_BUDGET * self.eps / self.steps) if self.alpha is None else float(self.alpha)

    def with_budget(self, eps: float, restarts: int) -> Self:
        """As for every attack; a step size that was given keeps its share of the radius."""
        changed = super().with_budget(eps, restarts)
        if self.alpha is not None and self.eps > 0:
            changed.alpha = self.alpha * (eps / self.eps)
        return changed
