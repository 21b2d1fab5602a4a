"""Hamiltonian Monte Carlo: the leapfrog integrator and the adaptation of its step size."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from ..types import check_fraction
from .chain import (
    Advance,
    Chain,
    Energy,
    Point,
    begin,
    check_above,
    check_count,
    diverged,
    metropolis,
    normal,
    squared_norm,
    uniform,
)


def leapfrog(energy: Energy, x: Tensor, momentum: Tensor, step_size: float, steps: int) -> tuple[Tensor, Tensor]:
    """Follow Hamilton's equations of energy(x) + ‖momentum‖² / 2 for `steps` leapfrog steps.

    Reversible (with the momentum turned round it leads back) and volume-preserving. R. Neal, "MCMC Using Hamiltonian
    Dynamics", 2011.

    Args:
        energy: of points (B, ...).
        x, momentum: (B, ...) where they begin.
        step_size: time of a step.
        steps: at least 1.

    Returns:
        The points (B, ...) and momenta (B, ...) at the end.
    """
    check_count(1, steps, "steps")
    end, turned = _integrate(energy, Point.at(energy, x), momentum.detach(), step_size, steps)
    return end.x, turned


def _integrate(energy: Energy, point: Point, momentum: Tensor, step_size: float, steps: int) -> tuple[Point, Tensor]:
    """`leapfrog` from a point whose gradient is known to one whose gradient is known."""
    momentum = momentum - step_size / 2 * point.gradient
    for step in range(1, steps + 1):
        point = Point.at(energy, point.x + step_size * momentum)
        momentum = momentum - (step_size if step < steps else step_size / 2) * point.gradient
    return point, momentum


class DualAveraging:
    """A step size whose acceptance rate approaches `target`, by dual averaging.

    M. Hoffman, A. Gelman, "The No-U-Turn Sampler: Adaptively Setting Path Lengths in Hamiltonian Monte Carlo", JMLR
    2014, section 3.2, with the constants given there.

    Attributes:
        step_size: to try next.
        averaged: to keep when the adaptation ends.
    """

    GAMMA, T0, KAPPA = 0.05, 10, 0.75

    def __init__(self, step_size: float, target: float) -> None:
        self.step_size = self.averaged = step_size
        self._target, self._mu = target, math.log(10 * step_size)
        self._m, self._h_bar, self._log_averaged = 0, 0.0, 0.0

    def update(self, acceptance: float) -> None:
        """Take note of the acceptance probability of a step of `step_size`."""
        self._m += 1
        weight = 1 / (self._m + self.T0)
        self._h_bar = (1 - weight) * self._h_bar + weight * (self._target - acceptance)
        log_step = self._mu - math.sqrt(self._m) / self.GAMMA * self._h_bar
        weight = self._m**-self.KAPPA
        self._log_averaged = weight * log_step + (1 - weight) * self._log_averaged
        self.step_size, self.averaged = math.exp(log_step), math.exp(self._log_averaged)


def hmc(
    energy: Energy,
    x: Tensor,
    steps: int,
    *,
    step_size: float,
    leapfrog_steps: int = 10,
    warm_up: int = 0,
    target_acceptance: float = 0.8,
    generator: Generator | None = None,
    advance: Advance | None = None,
) -> Chain:
    """Hamiltonian Monte Carlo: chains that have the density exp(-energy) whatever the step size.

    The paths of a step are of a random length, since those of one half of a period of a Gaussian would all lead to the
    same energy. S. Duane et al., "Hybrid Monte Carlo", 1987; R. Neal, "MCMC Using Hamiltonian Dynamics", 2011.

    Args:
        energy: of points (B, ...).
        x: (B, ...) where the chains begin.
        steps: how often the momentum is drawn again and the end of its path accepted or rejected.
        step_size: of the leapfrog integrator; with `warm_up` the first one that is tried.
        leapfrog_steps: the most in a step; how many is drawn for each step, uniformly from 1 on.
        warm_up: steps before the others, in which one step size for all chains is adapted; the result tells nothing of
            them but where they lead to.
        target_acceptance: the acceptance rate that the adaptation aims at, in (0, 1).
        generator: random numbers; torch's own by default.
        advance: told of each finished step, of those of the warm-up too.

    Raises:
        InputError: an argument out of its range, or, after the warm-up, a step whose proposals are not finite in any
            chain; says which step.
    """
    check_count(1, steps, "steps")
    check_count(1, leapfrog_steps, "leapfrog_steps")
    check_count(0, warm_up, "warm_up")
    check_above(0, step_size, "step_size")
    adaptation = DualAveraging(step_size, check_fraction(target_acceptance, "target_acceptance"))
    point = begin(energy, x)
    accepted, energies = [], []
    for step in range(1 - warm_up, steps + 1):
        size = adaptation.step_size if step < 1 else adaptation.averaged
        momentum = normal(point.x, generator)
        length = 1 + int(uniform(point.energy.new_zeros(()), generator).item() * leapfrog_steps)
        proposal, turned = _integrate(energy, point, momentum, size, length)
        log_ratio = point.energy - proposal.energy + (squared_norm(momentum) - squared_norm(turned)) / 2
        energies.append(point.energy)
        point, taken, probability = metropolis(point, proposal, log_ratio, generator)
        accepted.append(taken.to(point.energy))
        if step < 1 and len(point.x):
            adaptation.update(probability.mean().item())
        elif proposal.lost:
            raise diverged(size, step)
        if advance is not None:
            advance(1)
    return Chain(point.x, torch.stack(accepted[warm_up:]), torch.stack(energies[warm_up:]), adaptation.averaged)
