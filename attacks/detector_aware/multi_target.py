"""Multi-target attack: classifier and detector at once, towards every wrong label in turn."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from ..base import at_least
from ..goals import logits_and_score
from ..objective import TINY, AttackObjective, logit_margin, margin_scales
from .apgd import BestPoints, Evaluation
from .base import SLACK, DetectorAware, confirmed_by

RIVALS = 4  # labels that the detector compares at a step, the target among them
COMPARE_EVERY = 10  # steps between comparisons of all labels
NEAREST = 0.25  # of a full batch: as many images do the extra restarts attack
FACTOR = 1.05  # by which the weight of the only hinge that is not yet zero grows at each step


@dataclass(kw_only=True, eq=False)
class MultiTarget(DetectorAware):
    """For each wrong label, the likeliest first: descend a hinge on the logit margin plus a hinge on the score.

    The hinges are in units of the clean images' margins. Each is zero once its part of the goal is met, and the weight
    of the detector's hinge follows the one that is not. The score is computed for the target label from the first step
    on, and only the labels that explain the image best are compared; accepted points are confirmed against all labels.
    F. Tramèr, N. Carlini, W. Brendel, A. Madry, "On Adaptive Attacks to Adversarial Example Defenses", NeurIPS 2020,
    take every target in turn and attack both parts of the decision at once.

    Args:
        targets: number of wrong labels for each image; all by default.
        class_start: start each ascent from an image of the target label, projected into the ball: a random one of those
            of the batch that are classified correctly and accepted. Where there is none, as `random_start` says.
        extra_restarts: number of further rounds. Each attacks the images that are nearest to being broken, a quarter of
            `batch_size` of them, towards their two nearest labels and from new random starts. About half of
            these ascents maximise the smaller margin instead of the hinges.
        Others: as for every `DetectorAware` attack.
    """

    name = "multi-target"

    targets: int | None = None
    class_start: bool = False
    extra_restarts: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.extra_restarts = at_least(0, self.extra_restarts, "extra_restarts")
        if self.targets is not None:
            self.targets = at_least(1, self.targets, "targets")

    def find_best(self, victim: nn.Module, x: Tensor, y: Tensor, objective: AttackObjective) -> BestPoints:
        targets = self._targets(victim, x, y, objective)
        scales = margin_scales(victim, x, y, objective)
        best, loss_best = BestPoints.unevaluated(x), torch.full(targets.shape, -torch.inf, device=x.device)
        all_rows = torch.arange(len(x), device=x.device)
        chosen = _accepted(victim, x, y, objective) if self.class_start else torch.zeros_like(y, dtype=torch.bool)
        examples = x[chosen], y[chosen]

        def attack(rows: Tensor, column: Tensor, *, extra: bool) -> None:
            if self.early_exit or extra:
                remaining = ~best.broken(objective.threshold)[rows]
                rows, column = rows[remaining], column[remaining]
            if len(rows):
                target = targets[rows, column]
                found = self._towards(victim, x[rows], y[rows], target, examples, scales, objective, extra)
                best.update(rows, found)
                loss_best[rows, column] = torch.maximum(loss_best[rows, column], found.loss)

        for column in range(targets.shape[1]):
            attack(all_rows, torch.full_like(all_rows, column), extra=False)
        for _ in range(self.extra_restarts):
            loss_remaining = loss_best.amax(1).masked_fill(best.broken(objective.threshold), -torch.inf)
            nearest = loss_remaining.topk(min(len(x), math.ceil(self.batch_size * NEAREST))).indices
            for column in loss_best[nearest].topk(min(2, targets.shape[1]), dim=1).indices.T:
                attack(nearest, column, extra=True)
        return best

    def passes(self, n_classes: int) -> int:
        targets = min(self.targets or n_classes, n_classes - 1)
        return round(super().passes(n_classes) * (targets + self.extra_restarts * min(2, targets) * NEAREST))

    @torch.no_grad()
    def _targets(self, victim: nn.Module, x: Tensor, y: Tensor, objective: AttackObjective) -> Tensor:
        """(B, T) wrong labels, the likeliest first: those of high logits and, where the victim has them, low energies.

        Logits and energies are measured in units of their median margins, since both parts of the decision have to give
        way to the same label.
        """
        if objective.target is not None:
            return torch.full_like(y, objective.target)[:, None]
        likely = _in_margins(victim(x))
        energies = getattr(victim, "class_energies", None)
        if energies is not None:
            likely = likely + _in_margins(-energies(x))
        most = likely.shape[1] - 1
        wanted = most if self.targets is None else min(self.targets, most)
        return likely.scatter(1, y[:, None], -torch.inf).topk(wanted, dim=1).indices

    def _towards(
        self,
        victim: nn.Module,
        x: Tensor,
        y: Tensor,
        target: Tensor,
        examples: tuple[Tensor, Tensor],
        scales: tuple[float, float],
        objective: AttackObjective,
        extra: bool,
    ) -> BestPoints:
        compared: Tensor | None = None
        weight = torch.ones(len(x), device=x.device)
        smaller_margin = torch.rand(len(x), device=x.device) < (0.5 if extra else 0.0)
        step = 0

        def evaluate(point: Tensor, rows: Tensor) -> Evaluation:
            nonlocal compared, step
            if step % COMPARE_EVERY == 0:
                labels = rival_labels(victim, point, target[rows])
                if labels is not None:
                    compared = labels.new_zeros(len(x), labels.shape[1]) if compared is None else compared
                    compared[rows] = labels
            step += 1
            x_adv = point.detach().requires_grad_()
            logits, score = logits_and_score(victim, x_adv, target[rows], None if compared is None else compared[rows])
            label_margin = logit_margin(logits, target[rows]) / scales[0]
            detector_margin = objective.score_margin(score) / scales[1]
            label_hinge, detector_hinge = relu(SLACK - label_margin), relu(SLACK - detector_margin)
            followed = torch.where(
                smaller_margin[rows],
                torch.minimum(label_margin, detector_margin),
                -(label_hinge + weight[rows] * detector_hinge),
            )
            (grad,) = torch.autograd.grad(followed.sum(), x_adv)
            label_hinge, detector_hinge = label_hinge.detach(), detector_hinge.detach()
            weight[rows] *= FACTOR ** ((detector_hinge > 0).float() - (label_hinge > 0).float())
            misclassified = objective.misclassified(logits, y[rows])
            return Evaluation(misclassified, score.detach(), -label_hinge - detector_hinge, grad)

        return self.run_apgd(
            evaluate, x, objective, confirmed_by(victim, y, objective), self._start(x, target, *examples)
        )

    def _start(self, x: Tensor, target: Tensor, examples: Tensor, labels: Tensor) -> Tensor:
        """(B, C, H, W) points of the ball around x: from a random example of the target label, where there is one."""
        start = self.random_or_clean(x)
        of_target = (target[:, None] == labels).float()
        rows = of_target.any(1)
        if rows.any():
            chosen = examples[of_target[rows].multinomial(1)[:, 0]]
            start = start.clone()
            start[rows] = self.threat.project(chosen, x[rows])
        return start


@torch.no_grad()
def _accepted(victim: nn.Module, x: Tensor, y: Tensor, objective: AttackObjective) -> Tensor:
    """(B,) bool: the images that are classified correctly and accepted."""
    logits, score = logits_and_score(victim, x)
    return (logits.argmax(1) == y) & (score <= objective.threshold)


def _in_margins(values: Tensor) -> Tensor:
    """Values (B, K) in units of the median, over the batch, of the highest one's lead over the next."""
    highest, next_highest = values.topk(2, dim=1).values.unbind(1)
    unit = (highest - next_highest).median()
    return values / unit.clamp_min(TINY)


@torch.no_grad()
def rival_labels(victim: nn.Module, x: Tensor, target: Tensor) -> Tensor | None:
    """(B, J) the target and the labels that explain x best; None where the victim cannot compare only some labels."""
    energies = getattr(victim, "class_energies", None)
    if energies is None or getattr(victim, "logits_and_score", None) is None:
        return None
    others = energies(x).scatter(1, target[:, None], torch.inf)
    best = others.topk(min(RIVALS - 1, others.shape[1] - 1), dim=1, largest=False).indices
    return torch.cat([target[:, None], best], dim=1)
