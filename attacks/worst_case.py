"""The worst case: the whole list of attacks, cheap ones first, on the images that still stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .base import Attack, at_least
from .errors import InputError
from .goals import Goal, scored

LIST: Sequence[tuple[str, Mapping[str, Any]]] = (  # in the order of what it costs; random searches last
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
WORTH = 1e9  # a misread image is nearer to falling than any other
BLACK_BOX = ("hybrid", "square", "square-rejecting", "hop-skip-jump", "hop-skip-jump-rejecting")


@dataclass(kw_only=True, eq=False)
class WorstCase(Attack):
    """Runs every attack of the list and keeps, for each image, the strongest adversarial.

    An image that met the goal is not attacked again. Searches without gradients run on the `black_box_images` nearest
    to falling of those that still stand. Strongest is what meets the goal, then what is misread, then the least
    suspicious. For a goal that does not ask about a detector only the attacks on the classifier are run.
    F. Croce, M. Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
    attacks", ICML 2020, takes the worst case over attacks in this way.

    Args:
        eps: radius of the budget, in [0, 1] pixel units.
        norm: "linf" or "l2".
        attacks: names instead of the list.
        black_box_images: how many of the standing images the searches without gradients get.
        restarts, seed, batch_size: of each attack of the list.

    Raises:
        InputError: an argument out of its range.
    """

    name = "worst-case"
    knows_detector = True
    takes_all = True

    attacks: Sequence[str] | None = None
    black_box_images: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        self.black_box_images = at_least(0, self.black_box_images, "black_box_images")
        self._parts()  # to see now what is wrong with them

    def run(self, victim: nn.Module, x: Tensor, y: Tensor, goal: Goal) -> Tensor:
        leading, *others = goal.parts()
        best = x.clone()
        rank = torch.zeros(len(x), 3, dtype=torch.double, device=x.device)
        for attack in self._parts():
            if attack.knows_detector and not others:
                continue
            rows = (rank[:, 0] == 0).nonzero()[:, 0]
            if attack.name in BLACK_BOX:
                weakest = rank[rows, 1] * WORTH + rank[rows, 2]
                rows = rows[weakest.argsort(descending=True)[: self.black_box_images]]
            if len(rows):
                moved = attack(victim, x[rows], y[rows], goal if attack.knows_detector else leading).x
                found = _rank(victim, moved, y[rows], goal)
                better = _above(found, rank[rows])
                best[rows[better]], rank[rows[better]] = moved[better], found[better]
        return best

    def _parts(self) -> list[Attack]:
        chosen = LIST if self.attacks is None else [(name, {}) for name in self.attacks]
        common = {key: getattr(self, key) for key in ("eps", "norm", "restarts", "seed", "batch_size")}
        return [_loaded(name, {**common, **extra}) for name, extra in chosen]


def _loaded(name: str, parameters: dict[str, Any]) -> Attack:
    from .catalogue import load, takes  # it lists this attack too

    engine = parameters.pop("engine", None)
    if name == WorstCase.name:
        raise InputError(f"attacks: got {name!r}, must be other attacks than itself")
    if takes(name, "early_exit", engine):
        parameters["early_exit"] = True
    return load(name, engine, **parameters)


@torch.no_grad()
def _rank(victim: nn.Module, x: Tensor, y: Tensor, goal: Goal) -> Tensor:
    """(B, 3) whether the goal is met, whether its leading part is, and how little the rest lacks (or its loss)."""
    leading, *others = goal.parts()
    met = goal.met(victim, x, y)
    misread, loss = leading.assess(victim, x, y)
    praise = -scored(victim).score(x) if others else loss
    return torch.stack([met, misread, praise], dim=1).double()


def _above(one: Tensor, other: Tensor) -> Tensor:
    """(B,) which rows of `one` come after those of `other` in lexicographic order."""
    differs = one != other
    first = differs.to(torch.uint8).argmax(1, keepdim=True)
    return differs.any(1) & (one.gather(1, first) > other.gather(1, first)).squeeze(1)
