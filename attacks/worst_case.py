"""The worst case over a list of attacks: cheap ones first, each on the images that remain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .base import Attack, at_least
from .errors import InputError
from .goals import Goal, require_score

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
OFFSET = 1e9  # ranks misclassified images above all others
BLACK_BOX = ("hybrid", "square", "square-rejecting", "hop-skip-jump", "hop-skip-jump-rejecting")


@dataclass(kw_only=True, eq=False)
class WorstCase(Attack):
    """Runs every attack of a list and keeps the strongest adversarial image for each clean image.

    An image that meets the goal is not attacked again. Attacks with a random search run on the `black_box_images` of
    the remaining images that are nearest to being broken. An adversarial image is stronger when it meets the goal, then
    when it is misclassified, then when its score is lower. For a goal that does not ask about a detector only the
    attacks on the classifier run. F. Croce, M. Hein, "Reliable evaluation of adversarial robustness with an ensemble of
    diverse parameter-free attacks", ICML 2020, take the worst case over attacks in this way.

    Args:
        attacks: names of attacks, instead of the default list.
        black_box_images: the most images that an attack with a random search gets.
        eps, norm, restarts, seed, batch_size: as for every `Attack`; each attack of the list gets them.

    Raises:
        InputError: an argument out of its range.
    """

    name = "worst-case"
    knows_detector = True
    whole_dataset = True

    attacks: Sequence[str] | None = None
    black_box_images: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        self.black_box_images = at_least(0, self.black_box_images, "black_box_images")
        chosen = DEFAULT_ATTACKS if self.attacks is None else [(name, {}) for name in self.attacks]
        common = {key: getattr(self, key) for key in ("eps", "norm", "restarts", "seed", "batch_size")}
        self._loaded = [_load(name, {**common, **extra}) for name, extra in chosen]

    def with_budget(self, eps: float, restarts: int) -> Self:
        """As for every attack; the attacks of the list get the same."""
        changed = super().with_budget(eps, restarts)
        changed._loaded = [attack.with_budget(eps, restarts) for attack in self._loaded]
        return changed

    def perturb(self, victim: nn.Module, x: Tensor, y: Tensor, goal: Goal) -> Tensor:
        leading, *others = goal.parts()
        x_best = x.clone()
        rank_best = torch.zeros(len(x), 3, dtype=torch.double, device=x.device)
        for attack in self._loaded:
            if attack.knows_detector and not others:
                continue
            remaining = (rank_best[:, 0] == 0).nonzero()[:, 0]
            if attack.name in BLACK_BOX:
                nearness = rank_best[remaining, 1] * OFFSET + rank_best[remaining, 2]
                remaining = remaining[nearness.argsort(descending=True)[: self.black_box_images]]
            if len(remaining):
                own_goal = goal if attack.knows_detector else leading
                x_adv = attack(victim, x[remaining], y[remaining], own_goal).x
                rank = _rank(victim, x_adv, y[remaining], goal)
                better = _is_above(rank, rank_best[remaining])
                rows = remaining[better]
                x_best[rows], rank_best[rows] = x_adv[better], rank[better]
        return x_best

    def passes(self, n_classes: int) -> int:
        return sum(attack.passes(n_classes) for attack in self._loaded)


def _load(name: str, parameters: dict[str, Any]) -> Attack:
    from .catalogue import has_parameter, load  # imported late, because the catalogue lists this attack too

    engine = parameters.pop("engine", None)
    if name == WorstCase.name:
        raise InputError(f"attacks: got {name!r}, must be other attacks than itself")
    if has_parameter(name, "early_exit", engine):
        parameters["early_exit"] = True
    return load(name, engine, **parameters)


@torch.no_grad()
def _rank(victim: nn.Module, x: Tensor, y: Tensor, goal: Goal) -> Tensor:
    """(B, 3) whether the goal is met, whether its first part is, and −score, or the loss where there is no detector."""
    leading, *others = goal.parts()
    met = goal.met(victim, x, y)
    misclassified, loss = leading.assess(victim, x, y)
    tie_breaker = -require_score(victim).score(x) if others else loss
    return torch.stack([met, misclassified, tie_breaker], dim=1).double()


def _is_above(rank: Tensor, other: Tensor) -> Tensor:
    """(B,) bool: which rows of `rank` are greater than those of `other` in lexicographic order."""
    differs = rank != other
    first = differs.to(torch.uint8).argmax(1, keepdim=True)
    return differs.any(1) & (rank.gather(1, first) > other.gather(1, first)).squeeze(1)
