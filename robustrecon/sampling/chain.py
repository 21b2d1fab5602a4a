"""Markov chains on an energy: what they return, where they stand, and the Metropolis rule that corrects them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from torch import Generator, Tensor

from ..types import InputError

Energy: TypeAlias = Callable[[Tensor], Tensor]
"""From points x (B, ...) to energies (B,), each of its own point alone; the density is exp(-energy)."""

Advance: TypeAlias = Callable[[int], None]
"""Called after each step with the number of steps that are new, 1: the `advance` of a `Progress`."""


@dataclass(frozen=True)
class Chain:
    """B chains after their last step, and what happened on the way.

    Attributes:
        x: (B, ...) where the chains end.
        accepted: (steps, B) 1 where the proposal of a step was accepted, or where there is no rejection, else 0.
        energies: (steps, B) energy of the point at which each step began.
        step_size: of the steps.
    """

    x: Tensor
    accepted: Tensor
    energies: Tensor
    step_size: float

    @property
    def acceptance(self) -> float:
        """Share of the proposals that were accepted."""
        return self.accepted.mean().item()


class Point(NamedTuple):
    """Points x (B, ...), their energies (B,), and the gradients (B, ...) of these in x."""

    x: Tensor
    energy: Tensor
    gradient: Tensor

    @staticmethod
    def at(energy: Energy, x: Tensor) -> Point:
        """The point x; of the network behind `energy` no gradient is computed.

        Raises:
            InputError: an energy that does not give a number for each point.
        """
        with torch.enable_grad():
            seen = x.detach().requires_grad_()
            value = energy(seen)
            if value.shape != x.shape[:1]:
                raise InputError(f"energy: gave {tuple(value.shape)}, must give {tuple(x.shape[:1])}, one for each x")
            (gradient,) = torch.autograd.grad(value.sum(), seen)
        return Point(seen.detach(), value.detach(), gradient.detach())

    @property
    def finite(self) -> Tensor:
        """(B,) bool."""
        return (self.x.flatten(1).sum(1) + self.gradient.flatten(1).sum(1) + self.energy).isfinite()

    @property
    def lost(self) -> bool:
        """Whether there are chains, and none of them is finite."""
        return len(self.x) > 0 and not bool(self.finite.any())


def metropolis(
    point: Point, proposal: Point, log_ratio: Tensor, generator: Generator | None
) -> tuple[Point, Tensor, Tensor]:
    """Accept each proposal with probability min(1, exp(log_ratio)), and stay at the point else.

    N. Metropolis et al., "Equation of State Calculations by Fast Computing Machines", 1953; W. Hastings, "Monte Carlo
    Sampling Methods Using Markov Chains and Their Applications", 1970.

    Args:
        log_ratio: (B,) log of the Metropolis-Hastings ratio; a proposal that is not finite is never accepted.

    Returns:
        The new point, (B,) bool which proposals were accepted, and (B,) their probability of acceptance.
    """
    probability = torch.where(proposal.finite, log_ratio.clamp(max=0).exp(), 0)
    accepted = uniform(probability, generator) < probability
    mask = accepted.view(-1, *[1] * (point.x.dim() - 1))
    new = Point(
        torch.where(mask, proposal.x, point.x),
        torch.where(accepted, proposal.energy, point.energy),
        torch.where(mask, proposal.gradient, point.gradient),
    )
    return new, accepted, probability


def normal(x: Tensor, generator: Generator | None) -> Tensor:
    """Standard normal numbers in the shape of x; the same on every device where the generator is on the CPU."""
    return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=_home(x, generator)).to(x.device)


def uniform(x: Tensor, generator: Generator | None) -> Tensor:
    """Numbers uniform in [0, 1) in the shape of x."""
    return torch.rand(x.shape, generator=generator, dtype=x.dtype, device=_home(x, generator)).to(x.device)


def _home(x: Tensor, generator: Generator | None) -> torch.device:
    return x.device if generator is None else generator.device


def squared_norm(x: Tensor) -> Tensor:
    """(B,) squared Euclidean norms of x (B, ...)."""
    return x.flatten(1).square().sum(1)


def diverged(step_size: float, step: int) -> InputError:
    """The error of a chain that is no longer finite at a step, which counts from 1."""
    return InputError(f"step_size: got {step_size:g}, made the chain diverge at step {step}, must be lower")


def check_above(least: float, value: float, argument: str) -> None:
    """Raise for a number that is not above `least`, or not finite."""
    if not least < value < float("inf"):
        raise InputError(f"{argument}: got {value!r}, must be above {least:g} and finite")


def check_count(least: int, value: int, argument: str) -> None:
    """Raise for a number of steps below `least`."""
    if value < least:
        raise InputError(f"{argument}: got {value!r}, must be at least {least}")


def check_start(x: Tensor) -> None:
    """Raise for a batch of no floating-point numbers, or not finite."""
    if not x.is_floating_point() or x.dim() < 2 or not x.isfinite().all():
        raise InputError(f"x: got {x.dtype} {tuple(x.shape)}, must be finite floating-point numbers (B, ...)")


def begin(energy: Energy, x: Tensor) -> Point:
    """The point at which chains begin.

    Raises:
        InputError: x, its energies or their gradients are not finite.
    """
    check_start(x)
    point = Point.at(energy, x)
    if bad := int((~point.finite).sum()):
        raise InputError(f"energy: not finite, or its gradient, where {bad} of {len(x)} chains begin; must be finite")
    return point
