"""How the ascent steps: its variables, and the rules by which step sizes adapt."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ..threat import L1, SLIDE_SHARE, Threat

INITIAL_STEP = 2.0  # in units of eps
MOMENTUM = 0.75
RHO = 0.75  # the step size stays when the loss rises in at least this share of the steps
FIRST_SHARE = 0.2  # of the values that a step in l1 changes, at first
SPARSER = 1.5  # a step changes so many times fewer values than the best point has changed, and step sizes fall by it
STILL_DENSE = 0.95  # share of the changed values, below which the best point counts as sparser than before
SMALLEST_STEP = 0.1  # in units of eps


@dataclass
class State:
    """The loop's variables, one row for each image that is still attacked; `rows` are their places in the batch.

    `share` is the share of the values that a step in l1 changes, `sparsity_last_check` the number of values that the
    best point had changed.
    """

    rows: Tensor
    x: Tensor
    x_adv: Tensor
    x_adv_old: Tensor
    step_size: Tensor
    share: Tensor
    x_best: Tensor
    grad_best: Tensor
    loss_best: Tensor
    loss_old: Tensor
    loss_best_last_check: Tensor
    n_increases: Tensor
    reduced_last_check: Tensor
    sparsity_last_check: Tensor

    def keep(self, flags: Tensor) -> None:
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name)[flags])


class StepRule(ABC):
    """How the steps of an ascent of `steps` steps adapt.

    Attributes:
        checkpoints: the steps after which they may.
        initial_step: the first step size.
        momentum: share of the new step; the rest is that of the last one.
    """

    checkpoints: frozenset[int] = frozenset()
    momentum = 1.0

    def __init__(self, initial_step: float) -> None:
        self.initial_step = initial_step

    def initial_share(self, x: Tensor, start: Tensor) -> Tensor:
        """(B,) the share of the values that a step in l1 changes at first."""
        return torch.full((len(x),), SLIDE_SHARE, device=x.device)

    @abstractmethod
    def adapt(self, state: State, n_steps: int) -> Tensor:
        """Change the step sizes, `n_steps` after the last checkpoint; (B,) bool where to go on from the best point."""


class Constant(StepRule):
    """A constant step size."""

    def adapt(self, state: State, n_steps: int) -> Tensor:
        return torch.zeros_like(state.reduced_last_check)


class Halving(StepRule):
    """Halve the step size where progress was too slow.

    F. Croce, M. Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
    attacks", ICML 2020 (APGD).
    """

    momentum = MOMENTUM

    def __init__(self, eps: float, steps: int) -> None:
        super().__init__(INITIAL_STEP * eps)
        period, least, decrease = (max(1, share * steps // 100) for share in (22, 6, 3))
        step, checkpoints = 0, set()
        while (step := step + period) < steps:
            checkpoints.add(step)
            period = max(period - decrease, least)
        self.checkpoints = frozenset(checkpoints)

    def adapt(self, state: State, n_steps: int) -> Tensor:
        stalled = ~state.reduced_last_check & (state.loss_best <= state.loss_best_last_check)
        reduced = (state.n_increases < RHO * n_steps) | stalled
        state.step_size = torch.where(per_image(reduced), state.step_size / 2, state.step_size)
        state.reduced_last_check = reduced
        return reduced


class Sparse(StepRule):
    """Change fewer values at a step as the best point becomes sparser, and then begin with long steps again.

    F. Croce, M. Hein, "Mind the box: l1-APGD for sparse adversarial attacks on image classifiers", ICML 2021.
    """

    def __init__(self, eps: float, steps: int) -> None:
        super().__init__(eps)
        period = max(1, 4 * steps // 100)
        self.checkpoints = frozenset(range(period, steps, period))

    def initial_share(self, x: Tensor, start: Tensor) -> Tensor:
        changed = n_changed(start, x) / x[0].numel()
        return torch.where(changed > 0, changed / SPARSER, FIRST_SHARE)

    def adapt(self, state: State, n_steps: int) -> Tensor:
        sparsity = n_changed(state.x_best, state.x)
        sparser = sparsity < STILL_DENSE * state.sparsity_last_check
        state.share = sparsity / state.x[0].numel() / SPARSER
        shorter = (state.step_size / SPARSER).clamp_min(SMALLEST_STEP * self.initial_step)
        state.step_size = torch.where(per_image(sparser), self.initial_step, shorter)
        state.sparsity_last_check = sparsity
        return sparser


def step_rule(threat: Threat, steps: int, fixed_step: float | None) -> StepRule:
    """The rule for an ascent in a ball; with a fixed step, that one and no momentum."""
    if fixed_step is not None:
        return Constant(fixed_step)
    return (Sparse if isinstance(threat, L1) else Halving)(threat.eps, steps)


def n_changed(x_adv: Tensor, x: Tensor) -> Tensor:
    """(B,) the number of values that differ."""
    return (x_adv != x).flatten(1).sum(1).float()


def per_image(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)
