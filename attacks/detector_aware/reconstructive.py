"""Reconstructive attack: classification loss and detector score in one sum, or in alternating steps."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from ..base import at_least
from ..errors import unknown_name
from ..goals import logits_and_score
from ..objective import AttackObjective, margin_scales
from .apgd import BestPoints, Evaluation
from .base import SLACK, DetectorAware, confirmed_by

MODES = ("sum", "alternating")
FACTOR = 10.0  # by which the weight grows or shrinks until it is bracketed


@dataclass(kw_only=True, eq=False)
class Reconstructive(DetectorAware):
    """Ascends classification hinge − weight · score, with a search for the weight of each image.

    The hinge is zero once the wrong label has the highest logit. The weight rises where the best point is misclassified
    but rejected, and falls where no point is misclassified; once it is bracketed, it is bisected. Y. Qin, N. Frosst,
    S. Sabour, C. Raffel, G. Cottrell, G. Hinton, "Detecting and Diagnosing Adversarial Images with Class-Conditional
    Capsule Reconstructions", ICLR 2020; hinge and search are those of N. Carlini, D. Wagner, "Towards Evaluating the
    Robustness of Neural Networks", 2017.

    Args:
        mode: "sum", or "alternating" for steps along the gradients of the loss and of the score in turn.
        searches: number of weights tried, each with `steps` steps; alternating steps need no weight and run once.
        Others: as for every `DetectorAware` attack.
    """

    name = "reconstructive"

    mode: str = "sum"
    searches: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode not in MODES:
            unknown_name("mode", self.mode, MODES)
        self.searches = at_least(1, self.searches, "searches")

    def find_best(self, victim: nn.Module, x: Tensor, y: Tensor, objective: AttackObjective) -> BestPoints:
        logit_scale, score_scale = margin_scales(victim, x, y, objective)
        weight = torch.full((len(x),), logit_scale / score_scale, device=x.device)
        low, high = torch.zeros_like(weight), torch.full_like(weight, math.inf)
        best: BestPoints | None = None
        remaining = torch.arange(len(x), device=x.device)
        for _ in range(self.searches if self.mode == "sum" else 1):
            found = self._with_weight(
                victim, x[remaining], y[remaining], weight[remaining], SLACK * logit_scale, objective
            )
            if best is None:
                best = found
            else:
                best.update(remaining, found)
            broken = found.broken(objective.threshold)
            low[remaining] = torch.where(found.misclassified, weight[remaining], low[remaining])
            high[remaining] = torch.where(found.misclassified, high[remaining], weight[remaining])
            bisected = torch.where(low > 0, (low * high).sqrt(), high / FACTOR)
            weight = torch.where(torch.isinf(high), low * FACTOR, bisected)
            if self.early_exit:
                remaining = remaining[~broken]
                if not len(remaining):
                    break
        assert best is not None
        return best

    def passes(self, n_classes: int) -> int:
        return super().passes(n_classes) * (self.searches if self.mode == "sum" else 1)

    def _with_weight(
        self, victim: nn.Module, x: Tensor, y: Tensor, weight: Tensor, slack: float, objective: AttackObjective
    ) -> BestPoints:
        step = 0
        with torch.no_grad():
            target = objective.target_label(victim(x), y)

        def evaluate(point: Tensor, rows: Tensor) -> Evaluation:
            nonlocal step
            x_adv = point.detach().requires_grad_()
            # The score is computed as if the wrong label were predicted: the score for the true label would hold the
            # image back.
            logits, score = logits_and_score(victim, x_adv, target[rows])
            target[rows] = objective.target_label(logits, y[rows])
            misclassified = objective.misclassified(logits, y[rows])
            label_hinge = relu(slack - objective.logit_margin(logits, y[rows]))
            loss = -label_hinge - weight[rows] * score
            followed = loss if self.mode == "sum" else (-score if step % 2 else -label_hinge)
            step += 1
            (grad,) = torch.autograd.grad(followed.sum(), x_adv)
            return Evaluation(misclassified, score.detach(), loss.detach(), grad)

        return self.run_apgd(evaluate, x, objective, confirmed_by(victim, y, objective))
