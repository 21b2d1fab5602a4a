"""Square Attack by this library's own search: for every norm."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .base import at_least
from .detector_aware.rejecting import ClassifierAttack
from .objective import logit_margin
from .squares import first_point, redraw_window, window_share

FIRST_SHARE = 0.8  # of the image in the first windows, as in AutoAttack


@dataclass(kw_only=True, eq=False)
class OwnSquare(ClassifierAttack):
    """Random search with squares; uses logits, never gradients, and an image leaves once it is misclassified.

    M. Andriushchenko, F. Croce, N. Flammarion, M. Hein, "Square Attack: a query-efficient black-box adversarial attack
    via random search", ECCV 2020; for l1 F. Croce, M. Hein, "Mind the box: l1-APGD for sparse adversarial attacks on
    image classifiers", ICML 2021: as for l2, with all points projected onto ball and [0, 1] at once.

    Args:
        queries: queries of the logits, for each image.
        with_rejection, eps, norm, restarts, seed, batch_size: as for every `ClassifierAttack`.
    """

    name = "square"
    in_bfloat16 = False
    needs_gradient = False

    queries: int = 5000

    def __post_init__(self) -> None:
        super().__post_init__()
        self.queries = at_least(1, self.queries, "queries")

    def perturb_classifier(self, classifier: nn.Module, x: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        return self._search(classifier, x[rows], y[rows], first_point(x[rows], self.threat))

    def perturb_classifier_from(
        self, classifier: nn.Module, x: Tensor, y: Tensor, rows: Tensor, start: Tensor
    ) -> Tensor:
        return self._search(classifier, x[rows], y[rows], start[rows])

    @torch.no_grad()
    def _search(self, classifier: nn.Module, x: Tensor, y: Tensor, start: Tensor) -> Tensor:
        x_best, margin_best = start.clone(), logit_margin(classifier(start), y)
        for query in range(1, self.queries):
            rows = (margin_best >= 0).nonzero()[:, 0]
            if not len(rows):
                break
            share = window_share(query / self.queries, FIRST_SHARE)
            x_adv = redraw_window(x_best[rows], x[rows], share, self.threat)
            margin = logit_margin(classifier(x_adv), y[rows])
            better = margin < margin_best[rows]
            x_best[rows[better]], margin_best[rows[better]] = x_adv[better], margin[better]
        return x_best

    def passes(self, n_classes: int) -> int:
        return (super().passes(n_classes) + 1) // 2  # a query has no backward pass
