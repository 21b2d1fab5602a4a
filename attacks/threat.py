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

SLIDE_SHARE = 0.01  # of the values of an image, that a plain gradient step in l1 changes

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

    @staticmethod
    @abstractmethod
    def whole_space(n: int) -> float:
        """The radius of a ball that contains every image of n values, around any of them."""

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """`x_adv` projected into the ball around x and clipped to [0, 1]."""
        return (x + self.shrink(x_adv - x)).clamp(0, 1)

    def direction(self, x_adv: Tensor, grad: Tensor, share: Tensor | float = SLIDE_SHARE) -> Tensor:
        """The direction of norm 1 of a gradient step from x_adv: the steepest, but for l1.

        Args:
            x_adv: (B, C, H, W) points in [0, 1].
            grad: (B, C, H, W) gradients there.
            share: in (0, 1], a number or (B,): for l1, the share of the values that the step changes.
        """
        return self.steepest(grad)

    def single_step(self, x: Tensor, grad: Tensor) -> Tensor:
        """Where a single step along the gradient from x (B, C, H, W) ends, in the ball and in [0, 1]."""
        return self.project(x + self.eps * self.steepest(grad), x)


class Linf(Threat):
    """Every pixel may change by eps, which is at most 1."""

    norm = "linf"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.eps > 1:
            raise InputError(f"eps: got {self.eps!r}, must be in [0, 1] for linf (pixels lie in [0, 1])")

    @staticmethod
    def whole_space(n: int) -> float:
        return 1.0

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

    @staticmethod
    def whole_space(n: int) -> float:
        return math.sqrt(n)

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


class L1(Threat):
    """The absolute changes of an image's pixels add up to at most eps.

    F. Croce, M. Hein, "Mind the box: l1-APGD for sparse adversarial attacks on image classifiers", ICML 2021, show that
    attacks have to project onto the intersection of ball and [0, 1], as `project` does: what clipping takes from one
    pixel is left for others. Steps along a gradient change only the values where it is largest (`direction`), as in
    F. Tramèr, D. Boneh, "Adversarial Training and Robustness for Multiple Perturbations", NeurIPS 2019 (SLIDE).
    """

    norm = "l1"

    @staticmethod
    def whole_space(n: int) -> float:
        return float(n)

    def distance(self, delta: Tensor) -> Tensor:
        return delta.flatten(1).abs().sum(1)

    def shrink(self, delta: Tensor) -> Tensor:
        return self._nearest(delta, delta.abs())

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """The point of the ball around x and of [0, 1] that is nearest to `x_adv`."""
        change = x_adv - x
        return (x + self._nearest(change, _room(x, change))).clamp(0, 1)

    def random(self, x: Tensor) -> Tensor:
        import torch

        # Laplace numbers over the sum of their sizes and of one more are uniform in the ball.
        size = torch.empty_like(x).exponential_()
        total = size.flatten(1).sum(1) + torch.empty(len(x), device=x.device).exponential_()
        return self.eps * torch.randn_like(x).sign() * size / _per_image(total)

    def steepest(self, grad: Tensor) -> Tensor:
        import torch

        flat = grad.flatten(1)
        largest = flat.abs().argmax(1, keepdim=True)
        return torch.zeros_like(flat).scatter(1, largest, flat.gather(1, largest).sign()).view_as(grad)

    def direction(self, x_adv: Tensor, grad: Tensor, share: Tensor | float = SLIDE_SHARE) -> Tensor:
        """The signs of the gradient, over their number, at the `share` of the values where it is largest.

        Values that the step would only move out of [0, 1] are left out.
        """
        import torch

        grad = torch.where(_room(x_adv, grad) > 0, grad, 0).flatten(1)
        n = grad.shape[1]
        kept = (torch.as_tensor(share, device=grad.device) * n).round().clamp(1, n).long().expand(len(grad))
        lowest = grad.abs().sort(dim=1, descending=True).values.gather(1, kept[:, None] - 1)
        signs = torch.where(grad.abs() >= lowest, grad.sign(), 0)
        return (signs / signs.abs().sum(1, keepdim=True).clamp_min(1)).view_as(x_adv)

    def single_step(self, x: Tensor, grad: Tensor) -> Tensor:
        """The point of the ball and of [0, 1] where a linear function with this gradient is highest."""
        room = _room(x, grad).flatten(1)
        steep, order = grad.flatten(1).abs().sort(dim=1, descending=True)
        room = room.gather(1, order) * (steep > 0)
        size = (self.eps - (room.double().cumsum(1) - room)).clamp_min(0).to(room).minimum(room)
        return (x + grad.sign() * room.scatter(1, order, size).view_as(x)).clamp(0, 1)

    def _nearest(self, delta: Tensor, room: Tensor) -> Tensor:
        """The changes nearest to delta that have its signs, sizes of at most `room` and l1 norms of at most eps.

        Their sizes are those of delta, less one number for each image, clipped to [0, room]. The sum of the sizes falls
        linearly in that number between the points where a size reaches an end of its range.
        """
        import torch

        size, room = delta.flatten(1).abs(), room.flatten(1)
        points, order = torch.cat([size, size - room], dim=1).sort(dim=1, descending=True)
        slope = torch.where(order < size.shape[1], 1.0, -1.0).double()
        slopes, offsets = slope.cumsum(1), (slope * points).cumsum(1)
        before = ((offsets - slopes * points) < self.eps).sum(1, keepdim=True).sub(1).clamp_min(0)
        less = (offsets.gather(1, before) - self.eps) / slopes.gather(1, before).clamp_min(1)
        after = (before + 1).clamp_max(points.shape[1] - 1)
        less = less.maximum(points.gather(1, after)).minimum(points.gather(1, before)).clamp_min(0)  # for flat parts
        found = (size.double() - less).clamp_min(0).to(size).minimum(room)
        return delta.sign() * found.view_as(delta)


def _room(x: Tensor, change: Tensor) -> Tensor:
    """How far each value of x may move within [0, 1], in the direction of a change."""
    return (change > 0).to(x) * (1 - x) + (change < 0).to(x) * x


def _per_image(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


NORMS: dict[str, type[Threat]] = {threat.norm: threat for threat in (Linf, L2, L1)}


def threat_model(norm: str, eps: float) -> Threat:
    """The threat model called `norm` ("linf", "l2" or "l1") of radius `eps`.

    Raises:
        InputError: unknown norm, or eps out of range.
    """
    if norm not in NORMS:
        unknown_name("norm", norm, NORMS)
    return NORMS[norm](eps)
