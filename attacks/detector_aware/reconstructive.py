"""Reconstructive attack: classification loss and detector's score in one sum, or in alternating steps."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from ..base import at_least
from ..errors import unknown_name
from ..goals import judged
from .apgd import Found, Seen
from .base import SLACK, DetectorAware, Pursuit, confirmed, scales

MODES = ("sum", "alternating")
FACTOR = 10.0  # by which the weight grows or shrinks until it is bracketed


@dataclass(kw_only=True, eq=False)
class Reconstructive(DetectorAware):
    """Ascends what the classifier shows of a wrong label − weight · score, the weight searched image by image.

    The classifier's part is a hinge that ends where the wrong label leads. Where the best point is misread but
    rejected the weight rises, where none is misread it falls, by bisection once it is bracketed. Y. Qin, N. Frosst,
    S. Sabour, C. Raffel, G. Cottrell, G. Hinton, "Detecting and Diagnosing Adversarial Images with Class-Conditional
    Capsule Reconstructions", ICLR 2020; hinge and search are those of N. Carlini, D. Wagner, "Towards Evaluating the
    Robustness of Neural Networks", 2017.

    Args:
        mode: "sum", or "alternating": steps along the gradient of the loss and of the score in turn.
        searches: weights tried, each with `steps` steps; alternating steps need no weight and are taken once.
        Others as for every `DetectorAware` attack.
    """

    name = "reconstructive"

    mode: str = "sum"
    searches: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode not in MODES:
            unknown_name("mode", self.mode, MODES)
        self.searches = at_least(1, self.searches, "searches")

    def hunt(self, victim: nn.Module, x: Tensor, y: Tensor, pursuit: Pursuit) -> Found:
        unit, score_unit = scales(victim, x, y, pursuit)
        weight = torch.full((len(x),), unit / score_unit, device=x.device)
        low, high = torch.zeros_like(weight), torch.full_like(weight, math.inf)
        best: Found | None = None
        standing = torch.arange(len(x), device=x.device)
        for _ in range(self.searches if self.mode == "sum" else 1):
            found = self._with(victim, x[standing], y[standing], weight[standing], unit, pursuit)
            if best is None:
                best = found
            else:
                best.take(standing, found)
            met = found.misread & (found.score <= pursuit.threshold)
            low[standing] = torch.where(found.misread, weight[standing], low[standing])
            high[standing] = torch.where(found.misread, high[standing], weight[standing])
            bisected = torch.where(low > 0, (low * high).sqrt(), high / FACTOR)
            weight = torch.where(torch.isinf(high), low * FACTOR, bisected)
            if self.early_exit:
                standing = standing[~met]
                if not len(standing):
                    break
        assert best is not None
        return best

    def _with(self, victim: nn.Module, x: Tensor, y: Tensor, weight: Tensor, unit: float, pursuit: Pursuit) -> Found:
        taken, slack = 0, SLACK * unit
        with torch.no_grad():
            wrong = pursuit.wanted(victim(x), y)

        def look(point: Tensor, rows: Tensor) -> Seen:
            nonlocal taken
            moved = point.detach().requires_grad_()
            # Judged as though it were misread already: under its own label the score would hold on to that.
            logits, score = judged(victim, moved, wrong[rows])
            wrong[rows] = pursuit.wanted(logits, y[rows])
            loss, misread = -relu(slack - pursuit.lead(logits, y[rows])), pursuit.misread(logits, y[rows])
            value = loss - weight[rows] * score
            followed = value if self.mode == "sum" else (-score if taken % 2 else loss)
            taken += 1
            (gradient,) = torch.autograd.grad(followed.sum(), moved)
            return Seen(misread, confirmed(victim, point, misread, score.detach()), value.detach(), gradient)

        return self.climb(look, x, pursuit)
