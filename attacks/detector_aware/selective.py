"""Selective and orthogonal projected gradient descent: first the classifier, then the detector."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from ..goals import logits_and_score
from ..objective import AttackObjective
from ..precision import exact_model
from .apgd import BestPoints, Evaluation
from .base import DetectorAware, confirmed_by

OFFSET = 1e9  # keeps the losses of misclassified points above all others


class _OneAtATime(DetectorAware):
    """Ascends the classification loss until an image is misclassified, then descends the detector's score.

    O. Bryniarski, N. Hingun, P. Pachuca, V. Wang, N. Carlini, "Evading Adversarial Example Detection Defenses with
    Orthogonal Projected Gradient Descent", ICLR 2022.
    """

    def find_best(self, victim: nn.Module, x: Tensor, y: Tensor, objective: AttackObjective) -> BestPoints:
        def evaluate(point: Tensor, rows: Tensor) -> Evaluation:
            x_adv = point.detach().requires_grad_()
            logits, score = logits_and_score(victim, x_adv)
            classifier_loss = objective.classification_loss(logits, y[rows])
            misclassified = objective.misclassified(logits, y[rows])
            grad = self.direction(x_adv, misclassified, classifier_loss, -score)
            score, classifier_loss = score.detach(), classifier_loss.detach()
            loss = torch.where(misclassified, -score.double(), classifier_loss.double() - OFFSET)
            return Evaluation(misclassified, score, loss, grad)

        exact = exact_model(victim) is victim
        return self.run_apgd(evaluate, x, objective, None if exact else confirmed_by(victim, y, objective))

    @abstractmethod
    def direction(self, x_adv: Tensor, misclassified: Tensor, classifier_loss: Tensor, detector_loss: Tensor) -> Tensor:
        """(B, C, H, W) the direction of the next step from x_adv.

        `classifier_loss` (B,) rises towards a wrong label, `detector_loss` (B,) towards a lower score.
        """


class SelectivePGD(_OneAtATime):
    """Follows the gradient of one of the two losses; arguments as for every `DetectorAware` attack."""

    name = "selective"

    def direction(self, x_adv: Tensor, misclassified: Tensor, classifier_loss: Tensor, detector_loss: Tensor) -> Tensor:
        return torch.autograd.grad(torch.where(misclassified, detector_loss, classifier_loss).sum(), x_adv)[0]


class OrthogonalPGD(_OneAtATime):
    """Follows the gradient of one loss without its component along the gradient of the other.

    Arguments as for every `DetectorAware` attack.
    """

    name = "orthogonal"

    def direction(self, x_adv: Tensor, misclassified: Tensor, classifier_loss: Tensor, detector_loss: Tensor) -> Tensor:
        (classifier_grad,) = torch.autograd.grad(classifier_loss.sum(), x_adv, retain_graph=True)
        (detector_grad,) = torch.autograd.grad(detector_loss.sum(), x_adv)
        misclassified = misclassified.view(-1, 1, 1, 1)
        grad = torch.where(misclassified, detector_grad, classifier_grad)
        other = torch.where(misclassified, classifier_grad, detector_grad)
        squared_norm = other.square().sum((1, 2, 3), keepdim=True).clamp_min(1e-20)
        return grad - (grad * other).sum((1, 2, 3), keepdim=True) / squared_norm * other
