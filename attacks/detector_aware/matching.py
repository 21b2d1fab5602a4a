"""Matching attack: give an image the network's representations of a clean image of another class."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..base import at_least
from ..goals import logits_and_score
from ..objective import AttackObjective
from ..precision import exact_model
from .apgd import BestPoints, Evaluation
from .base import DetectorAware


@dataclass(kw_only=True, eq=False)
class Matching(DetectorAware):
    """Moves the representations of an image towards those of a clean image of another class, its guide.

    The representations are the victim's `representations(x, labels)`: for a style-memory network its logits, its style
    and the drawing under the guide's label; for other models the logits and class energies, or the logits alone. Guides
    are the nearest images of the batch that have another class, are classified correctly and are accepted. F. Tramèr,
    N. Carlini, W. Brendel, A. Madry, "On Adaptive Attacks to Adversarial Example Defenses", NeurIPS 2020, where
    matching succeeds though ascent on the composite likelihood stalls.

    Args:
        guides: number of guides tried for each image, each of another class as long as there are enough classes.
        Others: as for every `DetectorAware` attack.
    """

    name = "matching"

    guides: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        self.guides = at_least(1, self.guides, "guides")

    def find_best(self, victim: nn.Module, x: Tensor, y: Tensor, objective: AttackObjective) -> BestPoints:
        guides = _nearest_guides(victim, x, y, objective, self.guides)
        best = BestPoints.unevaluated(x)
        for guide in guides.T:
            rows = (guide >= 0).nonzero()[:, 0]
            if self.early_exit:
                rows = rows[~best.broken(objective.threshold)[rows]]
            if len(rows):
                found = self._towards(victim, x[rows], y[rows], x[guide[rows]], y[guide[rows]], objective)
                best.update(rows, found)
        return best

    def passes(self, n_classes: int) -> int:
        return super().passes(n_classes) * min(self.guides, n_classes - 1)

    def _towards(
        self, victim: nn.Module, x: Tensor, y: Tensor, guide: Tensor, label: Tensor, objective: AttackObjective
    ) -> BestPoints:
        with torch.no_grad():
            wanted, clean = _representations(victim, guide, label), _representations(victim, x, label)
            scales = [_squared_norm(goal - start).clamp_min(1e-12) for goal, start in zip(wanted, clean, strict=True)]

        def evaluate(point: Tensor, rows: Tensor) -> Evaluation:
            x_adv = point.detach().requires_grad_()
            parts = zip(_representations(victim, x_adv, label[rows]), wanted, scales, strict=True)
            loss = -torch.stack([_squared_norm(now - goal[rows]) / scale[rows] for now, goal, scale in parts]).sum(0)
            (grad,) = torch.autograd.grad(loss.sum(), x_adv)
            with torch.no_grad():
                logits, score = logits_and_score(exact_model(victim), point)
            return Evaluation(objective.misclassified(logits, y[rows]), score, loss.detach(), grad)

        return self.run_apgd(evaluate, x, objective)


def _squared_norm(difference: Tensor) -> Tensor:
    return difference.flatten(1).square().sum(1)


def _representations(victim: nn.Module, x: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
    own = getattr(victim, "representations", None)
    return (victim(x),) if own is None else own(x, labels)


@torch.no_grad()
def _nearest_guides(victim: nn.Module, x: Tensor, y: Tensor, objective: AttackObjective, n_guides: int) -> Tensor:
    """(B, n_guides) rows of x: the nearest image of each of the nearest other classes; -1 where there is none."""
    logits, score = logits_and_score(victim, x)
    suitable = (logits.argmax(1) == y) & (score <= objective.threshold)
    distance = torch.cdist(x.flatten(1), x.flatten(1))
    distance = distance.masked_fill(~suitable[None], torch.inf)
    class_distance = torch.full((len(x), logits.shape[1]), torch.inf, device=x.device)
    class_distance = class_distance.scatter_reduce(1, y.expand(len(x), -1), distance, "amin")
    class_distance = class_distance.scatter(1, y[:, None], torch.inf)
    if objective.target is not None:
        others = torch.arange(logits.shape[1], device=x.device) != objective.target
        class_distance = class_distance.masked_fill(others, torch.inf)
    nearest = class_distance.topk(min(n_guides, logits.shape[1] - 1), dim=1, largest=False)
    same_class = y[None, None] == nearest.indices[:, :, None]
    row = distance[:, None].masked_fill(~same_class, torch.inf).argmin(2)
    return row.masked_fill(torch.isinf(nearest.values), -1)
