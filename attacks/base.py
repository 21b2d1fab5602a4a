"""The attack: what every one takes, keeps to and returns."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from .errors import InputError
from .finite import refuse
from .goals import Goal, Misclassified, Undetected, require_gradient
from .images import check_images
from .runtime import frozen_eval, seeded
from .threat import NORMS, Threat, threat_model


@dataclass(frozen=True)
class Outcome:
    """What an attack on B images ends with.

    Attributes:
        x: (B, C, H, W) float32, inside the budget and [0, 1]; the clean image where it met the goal already.
        label: (B,) int64, the label that the model gives it.
        success: (B,) bool, where the goal is met.
        distance: (B,) float32, how far x moved, in the threat model's norm.
    """

    x: Tensor
    label: Tensor
    success: Tensor
    distance: Tensor


@dataclass(kw_only=True, eq=False)
class Attack(ABC):
    """An attack on a classifier. A subclass writes `run`; with parameters of its own it is a dataclass too.

    Calling it checks the input, leaves images alone that meet the goal already, runs the attack on the others
    (`restarts` times on those still standing), brings the result back into the budget and decides success itself.

    Args:
        eps: radius of the budget, in [0, 1] pixel units.
        norm: "linf" or "l2".
        restarts: runs from different random numbers; an image that fell is not attacked again.
        seed: of the attack's random numbers; the caller's random state is left as it was.
        batch_size: images attacked at a time.

    Raises:
        InputError: an argument out of its range.
    """

    name: ClassVar[str]
    knows_detector: ClassVar[bool] = False  # whether `run` asks the victim for its detector's score
    norms: ClassVar[tuple[str, ...]] = tuple(NORMS)
    needs_gradient: ClassVar[bool] = True  # whether `run` follows the gradient of a score that the goal asks about
    pursues: ClassVar[tuple[type[Goal], ...]] = (Goal,)  # the goals that `run` can work towards
    takes_all: ClassVar[bool] = False  # whether `run` gets all images at once, and restarts by itself

    eps: float = 0.3
    norm: str = "linf"
    restarts: int = 1
    seed: int = 0
    batch_size: int = 128

    def __post_init__(self) -> None:
        if self.norm not in self.norms and self.norm in NORMS:
            raise InputError(
                f"norm: got {self.norm!r}, must be {' or '.join(self.norms)} for {type(self).__name__}; "
                "another engine may have it"
            )
        threat_model(self.norm, self.eps)
        self.restarts = at_least(1, self.restarts, "restarts")
        self.batch_size = at_least(1, self.batch_size, "batch_size")
        self.seed = at_least(0, self.seed, "seed")

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__call__" in cls.__dict__:
            raise TypeError(f"{cls.__name__} overrides __call__, which checks the budget; write run instead")

    @property
    def threat(self) -> Threat:
        """The ball of radius `eps`."""
        return threat_model(self.norm, self.eps)

    @abstractmethod
    def run(self, victim: nn.Module, x: Tensor, y: Tensor, goal: Goal) -> Tensor:
        """Adversarial images for x (B, C, H, W) with true labels y (B,); the victim is frozen, in evaluation mode."""

    @final
    def __call__(
        self,
        model: nn.Module | Callable[[Tensor], Tensor],
        x: Tensor,
        y: Tensor,
        goal: Goal | None = None,
        advance: Callable[[int], object] | None = None,
    ) -> Outcome:
        """Attack `model` on images x.

        Args:
            model: gives logits (B, K) of images (B, C, H, W) in [0, 1]; its training flags are left as they were.
            x: (B, C, H, W) float images in [0, 1].
            y: (B,) int64 true labels.
            goal: what to reach; by default `Misclassified()`, for an attack that knows the detector `&
                Undetected(model.threshold)` where the model has a threshold.
            advance: called with the number of images done after each batch.

        Raises:
            InputError: bad images or labels, a goal that this attack cannot pursue, or a detector whose score has
                no gradient for one that follows it.
            NonFiniteLoss: what the goal asks about is not finite on some image, before the attack or after it.
        """
        x, y = _checked(x, y)
        if goal is None:
            goal = Misclassified()
            if self.knows_detector and (threshold := getattr(model, "threshold", None)) is not None:
                goal = goal & Undetected(threshold)
        if not isinstance(goal, self.pursues):
            known = " or ".join(kind.__name__ for kind in self.pursues)
            raise InputError(f"goal: got {goal}, must be {known} for {type(self).__name__}")
        victim = model if isinstance(model, nn.Module) else _Callable(model)
        batches = []
        with frozen_eval(victim), seeded(self.seed):
            with torch.no_grad():
                n_classes = victim(x[:1]).shape[1]
            if y.min() < 0 or y.max() >= n_classes:
                raise InputError(f"y: labels span [{y.min()}, {y.max()}], must be in [0, {n_classes - 1}]")
            if self.needs_gradient:
                require_gradient(victim, x[:1], y[:1], goal, self.name)
            size = len(x) if self.takes_all else self.batch_size
            for images, labels in zip(x.split(size), y.split(size), strict=True):
                batches.append(self._attack(victim, images, labels, goal))
                if advance is not None:
                    advance(len(images))
        return Outcome(*(torch.cat(column) for column in zip(*batches, strict=True)))

    def _attack(self, victim: nn.Module, x: Tensor, y: Tensor, goal: Goal) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        best = x.clone()
        with torch.no_grad():
            success, loss = goal.assess(victim, x, y)
        refuse(self.name, ~torch.isfinite(loss))
        highest = torch.full((len(x),), -math.inf, device=x.device)
        for _ in range(0 if self.eps == 0 else 1 if self.takes_all else self.restarts):
            standing = (~success).nonzero().squeeze(1)
            if not len(standing):
                break
            clean, labels = x[standing], y[standing]
            with torch.enable_grad():
                moved = self.run(victim, clean, labels, goal).detach()
            if moved.shape != clean.shape or not torch.isfinite(moved).all():
                raise RuntimeError(f"{self!r} returned images that are not finite or not of x's shape")
            moved = self.threat.project(moved.to(clean), clean)
            with torch.no_grad():
                met, loss = goal.assess(victim, moved, labels)
            refuse(self.name, ~torch.isfinite(loss))
            better = met | (loss > highest[standing])
            at = standing[better]
            best[at], highest[at] = moved[better], loss[better]
            success[standing] = met
        with torch.no_grad():
            return best, victim(best).argmax(1), success, self.threat.distance(best - x)


STEP_OF_BUDGET = 2.5


@dataclass(kw_only=True, eq=False)
class IterativeAttack(Attack):
    """What attacks that take steps have in common.

    Args:
        eps: radius of the budget, in [0, 1] pixel units.
        steps: gradient steps.
        alpha: step size; by default 2.5 · eps / steps, at most eps (Madry et al. 2018).
        random_start: start at a random point of the ball, not at x.
        norm, restarts, seed, batch_size: as for every `Attack`.
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
        """`alpha`, or its default."""
        return min(self.eps, STEP_OF_BUDGET * self.eps / self.steps) if self.alpha is None else float(self.alpha)


def at_least(bound: int, value: int, argument: str) -> int:
    """A whole number from `bound` up to what fits 63 bits."""
    if isinstance(value, bool) or not isinstance(value, Integral) or not bound <= value < 2**63:
        raise InputError(f"{argument}: got {value!r}, must be a whole number of at least {bound} that fits 63 bits")
    return int(value)


def _checked(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    images = check_images(x).detach()
    if not isinstance(y, Tensor) or y.is_floating_point() or y.shape != images.shape[:1]:
        shape = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
        raise InputError(f"y: got {shape}, must be {len(images)} whole-number labels, one an image")
    return images, y.detach().long().to(images.device)


class _Callable(nn.Module):
    """A plain function as the module that the libraries want."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)
