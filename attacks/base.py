"""The base classes of all attacks: their arguments, the checks around them and what they return."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any, ClassVar, final

import torch
from torch import Tensor, nn

from .catalogue import PRECISIONS, engines_with_norm
from .errors import InputError, NonFiniteLoss, raise_if_nonfinite, unknown_name
from .goals import Goal, Misclassified, Undetected, require_gradient
from .images import check_images
from .objective import nearness
from .precision import exact_model, in_precision, resolve_precision
from .runtime import frozen_eval, seeded
from .threat import NORMS, Threat, threat_model

if TYPE_CHECKING:
    from typing import Self


BAND = 0.1  # nearness to the goal within which a search in bfloat16 may miss what one in float32 finds


@dataclass(frozen=True)
class Outcome:
    """The result of an attack on B images.

    Attributes:
        x: (B, C, H, W) float32 adversarial images, inside the budget and [0, 1]; an image that meets the goal when
            clean is returned unchanged.
        label: (B,) int64, the labels that the model gives them.
        success: (B,) bool, whether the goal is met.
        distance: (B,) float32, how far each image moved, in the threat model's norm.
    """

    x: Tensor
    label: Tensor
    success: Tensor
    distance: Tensor


@dataclass(kw_only=True, eq=False)
class Attack(ABC):
    """An attack on a classifier. A subclass writes `perturb`; one with parameters of its own is a dataclass too.

    A call checks the input, skips the images that meet the goal when clean, perturbs the others (`restarts` times, each
    time those that remain), projects the result into the budget and decides success itself.

    Args:
        eps: radius of the budget, in [0, 1] pixel units.
        norm: "linf", "l2" or "l1".
        restarts: runs with different random numbers; an image that is broken is not attacked again.
        seed: seed of the attack's random numbers; the caller's random state does not change.
        batch_size: images attacked at a time.
        precision: of the passes in which the attack searches, "float32", "bfloat16", or "auto" for bfloat16 where
            processor and model can. Success is decided in float32; images that a search in bfloat16 leaves within
            `BAND` of their goal are searched on in float32.

    Attributes:
        name: the attack's name, as in the catalogue.
        knows_detector: whether `perturb` uses the victim's detector score.
        norms: the norms that the attack supports.
        needs_gradient: whether `perturb` follows the gradient of what the goal asks about.
        supported_goals: the goals that `perturb` can work towards.
        in_bfloat16: whether the attack searches in bfloat16 where it is asked to; one that lives on small differences
            between outputs, a random search or a walk along the decision boundary, finds less there.
        whole_dataset: whether `perturb` gets all images at once, with the model as it is, and does its restarts and its
            precision itself.

    Raises:
        InputError: an argument out of its range.
    """

    name = ""
    knows_detector = False
    norms: ClassVar[tuple[str, ...]] = tuple(NORMS)
    needs_gradient: ClassVar[bool] = True
    supported_goals: ClassVar[tuple[type[Goal], ...]] = (Goal,)
    in_bfloat16: ClassVar[bool] = True
    whole_dataset: ClassVar[bool] = False

    eps: float = 0.3
    norm: str = "linf"
    restarts: int = 1
    seed: int = 0
    batch_size: int = 128
    precision: str = "float32"

    def __post_init__(self) -> None:
        if self.norm not in self.norms and self.norm in NORMS:
            others = engines_with_norm(type(self).name, self.norm)
            raise InputError(
                f"norm: got {self.norm!r}, must be {' or '.join(self.norms)} for {type(self).__name__}; "
                + (f"the engine {' or '.join(others)} has {self.norm}" if others else "no other engine has it either")
            )
        threat_model(self.norm, self.eps)
        self.restarts = at_least(1, self.restarts, "restarts")
        self.batch_size = at_least(1, self.batch_size, "batch_size")
        self.seed = at_least(0, self.seed, "seed")
        self.precision = self._checked_precision(self.precision)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__call__" in cls.__dict__:
            raise TypeError(f"{cls.__name__} overrides __call__, which checks the budget; write perturb instead")

    @property
    def threat(self) -> Threat:
        """The ball of radius `eps`."""
        return threat_model(self.norm, self.eps)

    def with_budget(self, eps: float, restarts: int) -> Self:
        """The same attack with another radius and another number of restarts.

        Raises:
            InputError: an argument out of its range.
        """
        changed = copy.copy(self)
        changed.eps, changed.restarts = threat_model(self.norm, eps).eps, at_least(1, restarts, "restarts")
        return changed

    def with_precision(self, precision: str) -> Self:
        """The same attack with its search in another precision.

        Raises:
            InputError: unknown precision.
        """
        changed = copy.copy(self)
        changed.precision = self._checked_precision(precision)
        return changed

    def resolved_precision(self, victim: nn.Module, x: Tensor) -> str:
        """The precision in which this attack searches on a model, tried with images x (B, C, H, W).

        Raises:
            InputError: "bfloat16" where the processor, the weights' type or a layer of the model cannot.
        """
        return resolve_precision(self.precision, victim, x) if self.in_bfloat16 else "float32"

    @staticmethod
    def _checked_precision(precision: str) -> str:
        if precision not in PRECISIONS:
            unknown_name("precision", precision, PRECISIONS)
        return precision

    def searched(self, victim: nn.Module) -> nn.Module:
        """What `perturb` gets in place of the victim: the victim, or one with another backward pass.

        Raises:
            InputError: the attack asks for a backward pass that the victim cannot have.
        """
        return victim

    @abstractmethod
    def perturb(self, victim: nn.Module, x: Tensor, y: Tensor, goal: Goal) -> Tensor:
        """Adversarial images (B, C, H, W) for images x with true labels y (B,).

        The victim is frozen and in evaluation mode. The caller projects the result into the budget.
        """

    def perturb_from(self, victim: nn.Module, x: Tensor, y: Tensor, goal: Goal, start: Tensor) -> Tensor:
        """As `perturb`, with the search beginning at points `start` (B, C, H, W) of the ball.

        For attacks that can begin anywhere; by default the points are ignored.
        """
        return self.perturb(victim, x, y, goal)

    def default_goal(self, model: nn.Module | Callable[[Tensor], Tensor]) -> Goal:
        """The goal of a call on `model` that names none."""
        if self.knows_detector and (threshold := getattr(model, "threshold", None)) is not None:
            return Misclassified() & Undetected(threshold)
        return Misclassified()

    @final
    def __call__(
        self,
        model: nn.Module | Callable[[Tensor], Tensor],
        x: Tensor,
        y: Tensor,
        goal: Goal | None = None,
        advance: Callable[[int], object] | None = None,
        start: Tensor | None = None,
    ) -> Outcome:
        """Attack `model` on images x.

        Args:
            model: gives logits (B, K) of images (B, C, H, W) in [0, 1]; its training flags do not change.
            x: (B, C, H, W) float images in [0, 1].
            y: (B,) int64 true labels.
            goal: the adversary's goal. The default is `default_goal(model)`: `Misclassified()`, and for an attack that
                knows the detector `Misclassified() & Undetected(model.threshold)` where the model has a threshold.
            advance: called after each batch with the number of images done.
            start: (B, C, H, W) points to search from, for an attack that can (`perturb_from`); others ignore them.

        Raises:
            InputError: bad images, labels or starts, a goal that this attack does not support, or a model whose logits
                or score have no gradient for an attack that follows it.
            NonFiniteLoss: the goal's loss is not finite on some image, before the attack or after it.
        """
        victim, x, y, goal = self._checked_call(model, x, y, goal)
        batches = []
        with frozen_eval(victim), seeded(self.seed):
            if self.needs_gradient:
                require_gradient(victim, x[:1], y[:1], goal, self.name)
            precision = self.resolved_precision(victim, x[:1])
            searched = in_precision(self.searched(victim), "float32" if self.whole_dataset else precision)
            size = len(x) if self.whole_dataset else self.batch_size
            parts = x.split(size)
            starts: Sequence[Tensor | None] = [None] * len(parts)
            if start is not None:
                starts = _checked_start(start, x).split(size)
            for images, labels, begin in zip(parts, y.split(size), starts, strict=True):
                batches.append(self._attack(victim, searched, images, labels, goal, begin))
                if advance is not None:
                    advance(len(images))
        return Outcome(*(torch.cat(column) for column in zip(*batches, strict=True)))

    @final
    def over(
        self,
        model: nn.Module | Callable[[Tensor], Tensor],
        x: Tensor,
        y: Tensor,
        eps: Sequence[float],
        goal: Goal | None = None,
    ) -> list[Outcome]:
        """Attack `model` with several radii; an outcome for each, in the order of `eps`, and what a call raises.

        An image that a smaller radius broke keeps its point, which larger balls contain, and is not attacked again; a
        random search or a walk along the boundary begins where the smaller radius ended. Other arguments as of a call.
        """
        from .worst_case import outcomes_over

        return outcomes_over(self, eps, *self._checked_call(model, x, y, goal))

    def _checked_call(
        self, model: nn.Module | Callable[[Tensor], Tensor], x: Tensor, y: Tensor, goal: Goal | None
    ) -> tuple[nn.Module, Tensor, Tensor, Goal]:
        """Model, images, labels and goal of a call, once they are known to be right."""
        x, y = _checked(x, y)
        goal = self.default_goal(model) if goal is None else goal
        if not isinstance(goal, self.supported_goals):
            known = " or ".join(kind.__name__ for kind in self.supported_goals)
            raise InputError(f"goal: got {goal}, must be {known} for {type(self).__name__}")
        victim = model if isinstance(model, nn.Module) else _Callable(model)
        with frozen_eval(victim), seeded(self.seed), torch.no_grad():
            n_classes = victim(x[:1]).shape[1]
        if y.min() < 0 or y.max() >= n_classes:
            raise InputError(f"y: labels span [{y.min()}, {y.max()}], must be in [0, {n_classes - 1}]")
        return victim, x, y, goal

    def _attack(
        self, victim: nn.Module, searched: nn.Module, x: Tensor, y: Tensor, goal: Goal, start: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        with torch.no_grad():
            success, loss = goal.assess(victim, x, y)
        raise_if_nonfinite(self.name, ~torch.isfinite(loss))
        begin = None if start is None else self.threat.project(start, x)
        best = _Best(x.clone(), success, torch.full_like(loss, -math.inf), begin)
        if self.eps > 0:
            everything = torch.ones_like(success)
            exact = exact_model(searched)
            if searched is exact:
                self._perturb_remaining(exact, victim, x, y, goal, best, everything)
            else:
                try:
                    self._perturb_remaining(searched, victim, x, y, goal, best, everything)
                    near = ~(nearness(victim, x, best.x, y, goal) <= -BAND)  # one that is not a number counts as near
                except NonFiniteLoss:  # it may be finite in float32
                    near = everything
                self._perturb_remaining(exact, victim, x, y, goal, best, near)
        with torch.no_grad():
            return best.x, victim(best.x).argmax(1), best.success, self.threat.distance(best.x - x)

    def _perturb_remaining(
        self, searched: nn.Module, victim: nn.Module, x: Tensor, y: Tensor, goal: Goal, best: _Best, chosen: Tensor
    ) -> None:
        """Perturb the chosen images that remain, by passes of `searched`; the victim decides about what is found."""
        for _ in range(1 if self.whole_dataset else self.restarts):
            remaining = (chosen & ~best.success).nonzero().squeeze(1)
            if not len(remaining):
                break
            clean, labels = x[remaining], y[remaining]
            with torch.enable_grad():
                if best.start is None:
                    x_adv = self.perturb(searched, clean, labels, goal).detach()
                else:
                    x_adv = self.perturb_from(searched, clean, labels, goal, best.start[remaining]).detach()
            if x_adv.shape != clean.shape or not torch.isfinite(x_adv).all():
                raise RuntimeError(f"{self!r} returned images that are not finite or not of x's shape")
            x_adv = self.threat.project(x_adv.to(clean), clean)
            with torch.no_grad():
                met, loss = goal.assess(victim, x_adv, labels)
            raise_if_nonfinite(self.name, ~torch.isfinite(loss))
            better = met | (loss > best.loss[remaining])
            rows = remaining[better]
            best.x[rows], best.loss[rows] = x_adv[better], loss[better]
            best.success[remaining] = met

    def passes(self, n_classes: int) -> int:
        """About how many gradient passes an image costs that is never broken, on a model with `n_classes` labels."""
        each = getattr(self, "steps", getattr(self, "queries", 1))
        return self.restarts * (each if isinstance(each, int) else 1)


@dataclass
class _Best:
    """The best point found for each image of a batch, whether it meets the goal, and the goal's loss there.

    `start` is where the search for each image begins, where the caller says so.
    """

    x: Tensor
    success: Tensor
    loss: Tensor
    start: Tensor | None


def at_least(bound: int, value: int, argument: str) -> int:
    """`value`, once it is known to be a whole number of at least `bound` that fits 63 bits.

    Raises:
        InputError: it is not; the message names `argument`.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or not bound <= value < 2**63:
        raise InputError(f"{argument}: got {value!r}, must be a whole number of at least {bound} that fits 63 bits")
    return int(value)


def _checked(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    images = check_images(x).detach()
    if not isinstance(y, Tensor) or y.is_floating_point() or y.shape != images.shape[:1]:
        shape = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
        raise InputError(f"y: got {shape}, must be {len(images)} whole-number labels, one for each image")
    return images, y.detach().long().to(images.device)


def _checked_start(start: Tensor, x: Tensor) -> Tensor:
    points = check_images(start, x.shape[1:], "start").detach()
    if len(points) != len(x):
        raise InputError(f"start: got {len(points)} images, must be {len(x)}, one for each of x")
    return points.to(x)


class _Callable(nn.Module):
    """A plain function as an `nn.Module`, which the libraries want."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)
