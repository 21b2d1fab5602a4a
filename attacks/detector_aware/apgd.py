"""The ascent that the attacks on classifier and detector share: step sizes, the best point, and leaving early.

Step sizes, momentum and restarts from the best point are those of F. Croce, M. Hein, "Reliable evaluation of
adversarial robustness with an ensemble of diverse parameter-free attacks", ICML 2020 (APGD).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TypeAlias

import torch
from torch import Tensor

from ..finite import finite
from ..threat import Threat

FIRST_STEP = 2.0  # of the budget
MOMENTUM = 0.75
RISING = 0.75  # share of steps that must rise for the step size to stay


@dataclass
class Seen:
    """What is seen at a point, image by image.

    Attributes:
        misread: (B,) bool, whether the label is one that is wanted.
        score: (B,) the detector's, which decides between misread points.
        value: (B,) progress; the schedule of steps goes by it.
        gradient: (B, C, H, W) where to go.
    """

    misread: Tensor
    score: Tensor
    value: Tensor
    gradient: Tensor


Look: TypeAlias = Callable[[Tensor, Tensor], Seen]


@dataclass
class Found:
    """The least suspicious misread points, where there are any, else the furthest ones.

    Attributes:
        x: (B, C, H, W).
        misread: (B,) bool.
        score: (B,), infinite where not misread.
        value: (B,) the most progress that was seen on the way.
    """

    x: Tensor
    misread: Tensor
    score: Tensor
    value: Tensor

    @classmethod
    def nothing(cls, x: Tensor) -> Found:
        """The points x themselves, of which nothing is known."""
        none = torch.full((len(x),), math.inf, device=x.device)
        return cls(x.clone(), torch.zeros_like(none, dtype=torch.bool), none, -none)

    def take(self, rows: Tensor, other: Found) -> None:
        """Put `other`, found for `rows`, in place where it is better."""
        further = ~other.misread & ~self.misread[rows] & (other.value > self.value[rows])
        better = (other.misread & ~self.misread[rows]) | (other.score < self.score[rows]) | further
        for field in fields(self):
            getattr(self, field.name)[rows[better]] = getattr(other, field.name)[better]


@dataclass
class _State:
    """One row an image that is still attacked."""

    rows: Tensor
    clean: Tensor
    moved: Tensor
    before: Tensor
    step: Tensor
    top: Tensor  # the point of highest value, where steps that led nowhere are taken back to
    top_gradient: Tensor
    value: Tensor
    last_value: Tensor
    value_at_check: Tensor
    rises: Tensor
    halved: Tensor

    def keep(self, flags: Tensor) -> None:
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name)[flags])


def climb(
    look: Look,
    x: Tensor,
    start: Tensor,
    threat: Threat,
    steps: int,
    *,
    name: str,
    threshold: float = -math.inf,
    fixed_step: float | None = None,
) -> Found:
    """Ascend from `start` for `steps` steps inside the ball around x.

    Args:
        look: called with points (b, C, H, W) and their rows in x (b,).
        x, start: (B, C, H, W).
        threat: the ball.
        steps: gradient steps.
        name: of the attack, for errors.
        threshold: an image leaves as soon as it is misread with a score at or below it.
        fixed_step: a constant step size, without momentum, instead of APGD's schedule.

    Raises:
        NonFiniteLoss: a value or gradient is not finite.
    """
    n = len(x)
    found = Found.nothing(start)
    low = torch.full((n,), -math.inf, device=x.device)
    size = FIRST_STEP * threat.eps if fixed_step is None else fixed_step
    state = _State(
        rows=torch.arange(n, device=x.device),
        clean=x,
        moved=start,
        before=start,
        step=torch.full((n, 1, 1, 1), size, device=x.device),
        top=start,
        top_gradient=torch.zeros_like(x),
        value=low,
        last_value=low,
        value_at_check=low,
        rises=torch.zeros(n, device=x.device),
        halved=torch.ones(n, dtype=torch.bool, device=x.device),
    )
    checks = _checks(steps)
    since = 0
    for number in range(steps + 1):
        seen = look(state.moved, state.rows)
        finite(name, seen.value, seen.gradient)
        rose = seen.value > state.value
        _note(found, state, seen, rose)
        here = rose.view(-1, 1, 1, 1)
        state.top = torch.where(here, state.moved, state.top)
        state.top_gradient = torch.where(here, seen.gradient, state.top_gradient)
        if number:
            state.rises = state.rises + (seen.value > state.last_value)
        state.value, state.last_value = torch.where(rose, seen.value, state.value), seen.value
        if number == steps:
            break
        gradient = seen.gradient
        if fixed_step is None and number in checks:
            back = _halve(state, number - since)
            gradient = torch.where(back, state.top_gradient, gradient)
            since = number
        if threshold > -math.inf:
            stands = ~(seen.misread & (seen.score <= threshold))
            if not stands.all():
                state.keep(stands)
                gradient = gradient[stands]
                if not len(state.rows):
                    break
        momentum = MOMENTUM if fixed_step is None and number else 1.0
        _step(state, gradient, threat, momentum)
    return found


def _note(found: Found, state: _State, seen: Seen, rose: Tensor) -> None:
    """Keep a misread point of a lower score, and before any is misread the one of the highest value."""
    rows = state.rows
    found_before = found.misread[rows]
    better = (seen.misread & (seen.score < found.score[rows])) | (~seen.misread & ~found_before & rose)
    at = rows[better]
    found.x[at] = state.moved[better]
    found.score[at] = torch.where(seen.misread, seen.score, found.score[rows])[better]
    found.misread[at] |= seen.misread[better]
    found.value[rows] = torch.maximum(found.value[rows], seen.value.to(found.value))


def _checks(steps: int) -> set[int]:
    """The steps after which APGD looks whether to halve: at first every 22 % of them, then more and more often."""
    gap, least, less = (max(1, share * steps // 100) for share in (22, 6, 3))
    number, numbers = 0, set()
    while (number := number + gap) < steps:
        numbers.add(number)
        gap = max(gap - less, least)
    return numbers


def _halve(state: _State, passed: int) -> Tensor:
    """Halve the step where it leads nowhere and go back to the highest point; (B, 1, 1, 1) where."""
    stuck = (~state.halved) & (state.value <= state.value_at_check)
    state.halved = (state.rises < RISING * passed) | stuck
    back = state.halved.view(-1, 1, 1, 1)
    state.step = torch.where(back, state.step / 2, state.step)
    state.moved = torch.where(back, state.top, state.moved)
    state.before = torch.where(back, state.top, state.before)
    state.value_at_check, state.rises = state.value, torch.zeros_like(state.rises)
    return back


def _step(state: _State, gradient: Tensor, threat: Threat, momentum: float) -> None:
    moved = threat.project(state.moved + state.step * threat.steepest(gradient), state.clean)
    if momentum < 1:
        moved = state.moved + momentum * (moved - state.moved) + (1 - momentum) * (state.moved - state.before)
        moved = threat.project(moved, state.clean)
    state.before, state.moved = state.moved, moved
