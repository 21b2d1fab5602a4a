"""The worst case over a list of attacks: cheap ones first, each on the images that remain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .backward import front_ends
from .base import Attack, Outcome, at_least
from .catalogue import engine_of, engines_with_norm, has_parameter, load
from .detector_aware.hybrid import Hybrid
from .detector_aware.multi_target import MultiTarget
from .errors import InputError
from .goals import Goal
from .iterative import GradientAttack
from .objective import nearness
from .runtime import frozen_eval

if TYPE_CHECKING:
    from typing import Self

DEFAULT_ATTACKS: Sequence[tuple[str, Mapping[str, Any]]] = (  # by their cost; random searches last
    ("fgsm", {"engine": "own"}),
    ("pgd", {"engine": "own", "steps": 100}),
    ("apgd-ce", {}),
    ("selective", {}),
    ("orthogonal", {}),
    ("reconstructive", {"mode": "alternating"}),
    ("matching", {}),
    ("multi-target", {}),
    ("apgd-ce-rejecting", {}),
    ("reconstructive", {}),
    ("apgd-t", {}),
    ("fab-t", {}),
    ("apgd-t-rejecting", {}),
    ("fab-t-rejecting", {}),
    ("hybrid", {"targets": 2}),
    ("square", {}),
    ("square-rejecting", {}),
    ("hop-skip-jump-rejecting", {}),
)
BACKWARD_SLOPES = (2.0, 4.0, 6.0)
"""Slopes in the backward pass of front ends, with which the worst case attacks networks that have one."""
_THROUGH_FRONT_ENDS: Sequence[tuple[str, Mapping[str, Any]]] = (  # each with every slope
    ("bpda", {"steps": 100}),
    ("selective", {}),
    ("multi-target", {}),
)
DEAR = (  # attacks that begin at the points that others left, on the images nearest to being broken
    "fab-t",
    "fab-t-rejecting",
    "hybrid",
    "square",
    "square-rejecting",
    "hop-skip-jump",
    "hop-skip-jump-rejecting",
)
DEAR_IMAGES = 100  # the most that each of them gets, unless the caller says another number


def default_attacks(norm: str, front_end: bool = False) -> list[tuple[str, dict[str, Any]]]:
    """Those of `DEFAULT_ATTACKS` that there are in this norm, each with its parameters and an engine that has it.

    With `front_end`, for a model that has one (`front_ends`), also `bpda`, `selective` and `multi-target` with each of
    `BACKWARD_SLOPES` in its backward pass, before the random searches.
    """
    found = []
    for name, given in DEFAULT_ATTACKS:
        engines = engines_with_norm(name, norm)
        if engines:
            fitting = engine_of(name, given.get("engine")) in engines
            found.append((name, dict(given) if fitting else {**given, "engine": engines[0]}))
    if front_end:
        searches = next(place for place, (name, _) in enumerate(found) if name == Hybrid.name)
        found[searches:searches] = [
            (name, {**given, "front_end": slope}) for name, given in _THROUGH_FRONT_ENDS for slope in BACKWARD_SLOPES
        ]
    return found


@dataclass
class NearestPoints:
    """For each of N images the point nearest to the goal that any attack has found.

    Attributes:
        x: (N, C, H, W) the points; the clean image where none is nearer.
        nearness: (N,) of each point, as `objective.nearness` says.
        broken: (N,) bool, whether the point meets the goal. The image is not attacked again, and a larger budget
            contains the point too.
    """

    x: Tensor
    nearness: Tensor
    broken: Tensor

    @classmethod
    def clean(cls, victim: nn.Module, x: Tensor, y: Tensor, goal: Goal) -> NearestPoints:
        """The clean images x (N, C, H, W) with true labels y (N,), before any attack."""
        return cls(x.clone(), _nearness(victim, x, x, y, goal), goal.met(victim, x, y))

    def update(self, victim: nn.Module, x: Tensor, y: Tensor, goal: Goal, rows: Tensor, x_adv: Tensor) -> Tensor:
        """Take points x_adv for the images `rows` where they are nearer; returns which of them meet the goal."""
        found = self.x.clone()
        found[rows] = x_adv
        near = _nearness(victim, x, found, y, goal)[rows]
        met = goal.met(victim, x_adv, y[rows])
        better = met | (near >= self.nearness[rows])
        self.x[rows[better]], self.nearness[rows[better]] = x_adv[better], near[better]
        self.broken[rows] = met
        return met


@dataclass(frozen=True)
class Attempt:
    """What one attack did to the images that remained.

    Attributes:
        rows: (R,) the images that it was run on.
        broken: (R,) bool, which of them it broke.
        goal: its own goal: that of the worst case for an attack that knows the detector, else the first part of it.
        outcome: what it returned for those images; None where there were none.
    """

    rows: Tensor
    broken: Tensor
    goal: Goal
    outcome: Outcome | None


def attack_remaining(
    points: NearestPoints,
    attack: Attack,
    victim: nn.Module,
    x: Tensor,
    y: Tensor,
    goal: Goal,
    before: Sequence[Attack] = (),
    most: int | None = None,
    classifier: nn.Module | None = None,
) -> Attempt:
    """Run one attack on the images that are not broken yet, and keep what it finds in `points`.

    Args:
        points: of the images x; changed here.
        attack: the attack. A dear one (`DEAR`) begins at the points.
        victim: the model, with a score where the goal asks for it; frozen and in evaluation mode.
        x: (N, C, H, W) clean images.
        y: (N,) true labels.
        goal: of the worst case.
        before: the attacks of the same radius that were run before.
        most: the most images to attack, those that are nearest to the goal; all that remain by default.
        classifier: what an attack that does not know the detector attacks; the victim by default.
    """
    attacked = victim if attack.knows_detector or classifier is None else classifier
    own_goal = goal if attack.knows_detector else goal.parts()[0]
    rows = (~points.broken).nonzero()[:, 0]
    if most is not None:
        nearest = points.nearness[rows].argsort(descending=True, stable=True)[:most]
        rows = rows[nearest.sort().values]
    if not len(rows):
        return Attempt(rows, points.broken[rows], own_goal, None)
    start = None
    if _begins_at_points(attack, before):
        # A point that meets the attack's own goal already, but not the goal, would end the search at once.
        done = own_goal.met(attacked, points.x[rows], y[rows])
        start = torch.where(done.view(-1, 1, 1, 1), x[rows], points.x[rows])
    outcome = attack(attacked, x[rows], y[rows], own_goal, start=start)
    return Attempt(rows, points.update(victim, x, y, goal, rows, outcome.x), own_goal, outcome)


def outcomes_over(
    attack: Attack, eps: Sequence[float], victim: nn.Module, x: Tensor, y: Tensor, goal: Goal
) -> list[Outcome]:
    """What `Attack.over` returns, of arguments that were checked.

    Raises:
        InputError: no radius, or one out of range.
    """
    if not eps:
        raise InputError("eps: got none, must be at least one radius")
    at = {radius: attack.with_budget(radius, attack.restarts) for radius in sorted(set(eps))}
    size = len(x) if attack.whole_dataset else attack.batch_size
    batches: dict[float, list[tuple[Tensor, ...]]] = {radius: [] for radius in at}
    with frozen_eval(victim), torch.no_grad():
        for images, labels in zip(x.split(size), y.split(size), strict=True):
            points = NearestPoints.clean(victim, images, labels, goal)
            for radius, widened in at.items():
                attack_remaining(points, widened, victim, images, labels, goal)
                found = points.x.clone()
                label, distance = victim(found).argmax(1), widened.threat.distance(found - images)
                batches[radius].append((found, label, points.broken.clone(), distance))
    return [Outcome(*(torch.cat(column) for column in zip(*batches[radius], strict=True))) for radius in eps]


def cheapest_first(attack: Attack, n_classes: int) -> tuple[bool, int]:
    """The place of an attack among others, for sorting: by its cost, the dear ones last, as they begin at points."""
    return attack.name in DEAR, attack.passes(n_classes)


@dataclass(kw_only=True, eq=False)
class WorstCase(Attack):
    """Runs every attack of a list and keeps the point nearest to the goal for each clean image.

    An image that meets the goal is not attacked again. Dear attacks (`DEAR`: random searches, attacks that use
    decisions only, and FAB) run on the `black_box_images` of the remaining images that are nearest to being broken, and
    begin at the nearest points where they can. For a goal that does not ask about a detector only the attacks on the
    classifier run. A model with a front end is attacked through gentler slopes of it too (`default_attacks`). F. Croce,
    M. Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks", ICML
    2020, take the worst case over attacks in this way.

    Args:
        attacks: names of attacks, instead of those of the default list that there are in the norm.
        black_box_images: the most images that a dear attack gets.
        eps, norm, restarts, seed, batch_size, precision: as for every `Attack`; each attack of the list gets them.

    Raises:
        InputError: an argument out of its range.
    """

    name = "worst-case"
    knows_detector = True
    whole_dataset = True

    attacks: Sequence[str] | None = None
    black_box_images: int = DEAR_IMAGES

    def __post_init__(self) -> None:
        super().__post_init__()
        self.black_box_images = at_least(0, self.black_box_images, "black_box_images")
        chosen = default_attacks(self.norm, True) if self.attacks is None else [(name, {}) for name in self.attacks]
        common = {key: getattr(self, key) for key in ("eps", "norm", "restarts", "seed", "batch_size", "precision")}
        self._loaded = [_load(name, {**common, **extra}) for name, extra in chosen]

    def with_budget(self, eps: float, restarts: int) -> Self:
        """As for every attack; the attacks of the list get the same."""
        changed = super().with_budget(eps, restarts)
        changed._loaded = [attack.with_budget(eps, restarts) for attack in self._loaded]
        return changed

    def with_precision(self, precision: str) -> Self:
        """As for every attack; the attacks of the list get the same."""
        changed = super().with_precision(precision)
        changed._loaded = [attack.with_precision(precision) for attack in self._loaded]
        return changed

    def perturb(self, victim: nn.Module, x: Tensor, y: Tensor, goal: Goal) -> Tensor:
        points = NearestPoints.clean(victim, x, y, goal)
        asks_detector = len(goal.parts()) > 1
        before: list[Attack] = []
        has_front_end = bool(front_ends(victim))
        for attack in self._loaded:
            if needs_front_end(attack) and not has_front_end:
                continue
            if asks_detector or not attack.knows_detector:
                most = self.black_box_images if attack.name in DEAR else None
                attack_remaining(points, attack, victim, x, y, goal, before, most)
                before.append(attack)
        return points.x

    def passes(self, n_classes: int) -> int:
        return sum(attack.passes(n_classes) for attack in self._loaded)


def needs_front_end(attack: Attack) -> bool:
    """Whether an attack is for models with a front end alone."""
    return isinstance(attack, GradientAttack) and attack.front_end is not None


def _begins_at_points(attack: Attack, before: Sequence[Attack]) -> bool:
    """Whether an attack is to begin where others ended: `hybrid` only after `multi-target`, its own gradient part."""
    had_gradient_part = not isinstance(attack, Hybrid) or any(isinstance(other, MultiTarget) for other in before)
    return attack.name in DEAR and had_gradient_part


def _nearness(victim: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, goal: Goal) -> Tensor:
    """(N,) nearness; one that is not a number is the farthest."""
    return nearness(victim, x, x_adv, y, goal).nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)


def _load(name: str, parameters: dict[str, Any]) -> Attack:
    engine = parameters.pop("engine", None)
    if name == WorstCase.name:
        raise InputError(f"attacks: got {name!r}, must be other attacks than itself")
    if has_parameter(name, "early_exit", engine):
        parameters["early_exit"] = True
    return load(name, engine, **parameters)
