"""Langevin dynamics, with and without the Metropolis correction."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from ..types import InputError
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
)


def langevin(
    energy: Energy,
    x: Tensor,
    steps: int,
    step_size: float,
    *,
    noise: float = 1.0,
    adjusted: bool = False,
    generator: Generator | None = None,
    advance: Advance | None = None,
) -> Chain:
    """Langevin dynamics: x ← x − step_size² / 2 · ∂energy/∂x + noise · step_size · N(0, 1).

    Unadjusted, the chains end up near exp(-energy / noise²), the nearer the smaller the steps. `adjusted` accepts or
    rejects each step so that they have that density whatever the step size (MALA). G. Roberts, R. Tweedie,
    "Exponential Convergence of Langevin Distributions and Their Discrete Approximations", Bernoulli 1996.

    Args:
        energy: of points (B, ...).
        x: (B, ...) where the chains begin.
        steps: number of steps.
        step_size: standard deviation of the noise of a step, where `noise` is 1.
        noise: below 1 it samples a colder density, and 0 is gradient descent.
        adjusted: with the Metropolis correction.
        generator: random numbers; torch's own by default.
        advance: told of each finished step.

    Raises:
        InputError: an argument out of its range, or a chain that is no longer finite; says at which step. An adjusted
            chain diverges where a step's proposals are not finite in any chain.
    """
    check_count(1, steps, "steps")
    check_above(0, step_size, "step_size")
    if not 0 <= noise < float("inf") or (adjusted and noise == 0):
        raise InputError(f"noise: got {noise!r}, must be finite and {'above 0' if adjusted else 'not negative'}")
    scale = noise * step_size
    point = begin(energy, x)
    accepted, energies = [], []
    for step in range(1, steps + 1):
        energies.append(point.energy)
        draw = normal(point.x, generator)
        moved = point.x - step_size**2 / 2 * point.gradient + scale * draw
        if not adjusted:
            if not moved.isfinite().all():
                raise diverged(step_size, step)
            accepted.append(torch.ones_like(point.energy))
            point = Point.at(energy, moved) if step < steps else Point(moved, point.energy, point.gradient)
        else:
            proposal = Point.at(energy, moved)
            if proposal.lost:
                raise diverged(step_size, step)
            back = (point.x - moved + step_size**2 / 2 * proposal.gradient) / scale
            log_ratio = (point.energy - proposal.energy) / noise**2 + (squared_norm(draw) - squared_norm(back)) / 2
            point, taken, _ = metropolis(point, proposal, log_ratio, generator)
            accepted.append(taken.to(point.energy))
        if advance is not None:
            advance(1)
    return Chain(point.x, torch.stack(accepted), torch.stack(energies), step_size)
