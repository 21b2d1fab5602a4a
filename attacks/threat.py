"""Threat models: the ball around x, inside [0, 1], that bounds the adversary.

Images are (B, C, H, W) in [0, 1]; `eps` is in the same pixel units.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING

from .errors import InputError, unknown_name

if TYPE_CHECKING:
    from torch import Tensor

# torch is imported where it is used, so that the command line answers a wrong norm or radius at once.


@dataclass(frozen=True)
class Threat(ABC):
    """A norm and a radius.

    Attributes:
        eps: the radius, finite and not negative.
    """

    eps: float

    norm = ""

    def __post_init__(self) -> None:
        if isinstance(self.eps, bool) or not (isinstance(self.eps, Real) and math.isfinite(self.eps) and self.eps >= 0):
            raise InputError(f"eps: got {self.eps!r}, must be a finite number and not negative")

    @abstractmethod
    def distance(self, delta: Tensor) -> Tensor:
        """(B,) norms of (B, C, H, W) perturbations."""

    @abstractmethod
    def shrink(self, delta: Tensor) -> Tensor:
        """The nearest perturbations inside the ball."""

    @abstractmethod
    def random(self, x: Tensor) -> Tensor:
        """Perturbations drawn uniformly from the ball, one for each image of x."""

    @abstractmethod
    def steepest(self, grad: Tensor) -> Tensor:
        """The direction of norm 1 along which a function with this gradient rises fastest."""

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """`x_adv` projected into the ball around x and clipped to [0, 1]."""
        return (x + self.shrink(x_adv - x)).clamp(0, 1)


class Linf(Threat):
    """Every pixel may change by eps, which is at most 1."""

    norm = "linf"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.eps > 1:
            raise InputError(f"eps: got {self.eps!r}, must be in [0, 1] for linf (pixels lie in [0, 1])")

    def distance(self, delta: Tensor) -> Tensor:
        return delta.flatten(1).abs().amax(1)

    def shrink(self, delta: Tensor) -> Tensor:
        return delta.clamp(-self.eps, self.eps)

    def random(self, x: Tensor) -> Tensor:
        return x.new_empty(x.shape).uniform_(-self.eps, self.eps)

    def steepest(self, grad: Tensor) -> Tensor:
        return grad.sign()


class L2(Threat):
    """The Euclidean norm of an image's change is at most eps."""

    norm = "l2"

    def distance(self, delta: Tensor) -> Tensor:
        import torch

        return torch.linalg.vector_norm(delta.flatten(1), dim=1)

    def shrink(self, delta: Tensor) -> Tensor:
        return delta * (self.eps / _per_image(self.distance(delta)).clamp_min(1e-12)).clamp_max(1)

    def random(self, x: Tensor) -> Tensor:
        import torch

        direction = self.steepest(torch.randn_like(x))
        radius = torch.rand(len(x), device=x.device) ** (1 / x[0].numel())
        return direction * _per_image(radius * self.eps)

    def steepest(self, grad: Tensor) -> Tensor:
        return grad / _per_image(self.distance(grad)).clamp_min(1e-12)


def _per_image(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


NORMS: dict[str, type[Threat]] = {threat.norm: threat for threat in (Linf, L2)}


def threat_model(norm: str, eps: float) -> Threat:
    """The threat model called `norm` ("linf" or "l2") of radius `eps`.

    Raises:
        InputError: unknown norm, or eps out of range.
    """
    if norm not in NORMS:
        unknown_name("norm", norm, NORMS)
    return NORMS[norm](eps)
