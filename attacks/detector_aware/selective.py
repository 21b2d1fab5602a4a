"""First fool the classifier, then please the detector: selective and orthogonal projected gradient descent."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from ..goals import judged
from .apgd import Found, Seen
from .base import DetectorAware, Pursuit

TIER = 1e9  # keeps the progress of misread points above that of the others


class _InTurn(DetectorAware):
    """Up the classification loss until an image is misread, then down the detector's score while it stays so.

    O. Bryniarski, N. Hingun, P. Pachuca, V. Wang, N. Carlini, "Evading Adversarial Example Detection Defenses with
    Orthogonal Projected Gradient Descent", ICLR 2022.
    """

    def hunt(self, victim: nn.Module, x: Tensor, y: Tensor, pursuit: Pursuit) -> Found:
        def look(point: Tensor, rows: Tensor) -> Seen:
            moved = point.detach().requires_grad_()
            logits, score = judged(victim, moved)
            loss, misread = pursuit.loss(logits, y[rows]), pursuit.misread(logits, y[rows])
            gradient = self.direction(moved, misread, loss, -score)
            score, loss = score.detach(), loss.detach()
            progress = torch.where(misread, -score.double(), loss.double() - TIER)
            return Seen(misread, score, progress, gradient)

        return self.climb(look, x, pursuit)

    @abstractmethod
    def direction(self, moved: Tensor, misread: Tensor, loss: Tensor, praise: Tensor) -> Tensor:
        """(B, C, H, W): where to go from `moved`; `loss` (B,) rises where misread, `praise` (B,) where accepted."""


class SelectivePGD(_InTurn):
    """Follows the gradient of the one or of the other; arguments as for every `DetectorAware` attack."""

    name = "selective"

    def direction(self, moved: Tensor, misread: Tensor, loss: Tensor, praise: Tensor) -> Tensor:
        return torch.autograd.grad(torch.where(misread, praise, loss).sum(), moved)[0]


class OrthogonalPGD(_InTurn):
    """Follows the one without its component along the other; arguments as for every `DetectorAware` attack."""

    name = "orthogonal"

    def direction(self, moved: Tensor, misread: Tensor, loss: Tensor, praise: Tensor) -> Tensor:
        (towards,) = torch.autograd.grad(loss.sum(), moved, retain_graph=True)
        (away,) = torch.autograd.grad(praise.sum(), moved)
        misread = misread.view(-1, 1, 1, 1)
        leading, other = torch.where(misread, away, towards), torch.where(misread, towards, away)
        size = other.square().sum((1, 2, 3), keepdim=True).clamp_min(1e-20)
        return leading - (leading * other).sum((1, 2, 3), keepdim=True) / size * other
