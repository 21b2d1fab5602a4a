"""HopSkipJump, by the Adversarial Robustness Toolbox: uses decisions only."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..base import at_least
from ..detector_aware.rejecting import ClassifierAttack
from ..threat import Threat
from .art import art_estimator, norm_of

RAY = 64  # images on the ray through a given start, the nearest of another label among which is begun from
NOISE = 100  # images of noise to start from where no clean image has another label


@dataclass(kw_only=True, eq=False)
class HopSkipJump(ClassifierAttack):
    """ART's `HopSkipJump`, image by image, from the nearest image of the batch that has another label.

    It stops as soon as it is inside the budget. J. Chen, M. I. Jordan, M. J. Wainwright, "HopSkipJumpAttack: A
    Query-Efficient Decision-Based Attack", IEEE Symposium on Security and Privacy 2020.

    Args:
        queries: queries of the decision, for each image.
        with_rejection, eps, norm, restarts, seed, batch_size: as for every `ClassifierAttack`.
    """

    name = "hop-skip-jump"
    norms = ("linf", "l2")
    in_bfloat16 = False
    needs_gradient = False

    queries: int = 5000

    def __post_init__(self) -> None:
        super().__post_init__()
        self.queries = at_least(1, self.queries, "queries")

    def perturb_classifier(self, classifier: nn.Module, x: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        return self._walk(classifier, x, y, rows, None)

    def perturb_classifier_from(
        self, classifier: nn.Module, x: Tensor, y: Tensor, rows: Tensor, start: Tensor
    ) -> Tensor:
        """From the first image of another label on the ray from x through the start, where there is one."""
        return self._walk(classifier, x, y, rows, start)

    @torch.no_grad()
    def _walk(self, classifier: nn.Module, x: Tensor, y: Tensor, rows: Tensor, start: Tensor | None) -> Tensor:
        from art.attacks.evasion import HopSkipJump as ArtHopSkipJump

        watched = _Watched(classifier, self.threat, self.queries)
        attack = ArtHopSkipJump(
            art_estimator(watched, x),
            batch_size=self.batch_size,
            norm=norm_of(self.threat.norm),
            max_iter=self.queries,  # never reached: the number of queries ends the attack
            verbose=False,
        )
        noise = torch.rand(NOISE, *x.shape[1:], device=x.device)
        pools = [(images, classifier(images).argmax(1)) for images in (x, noise)]
        x_adv = x[rows]
        for row, (image, label) in enumerate(zip(x[rows], y[rows], strict=True)):
            along = [] if start is None else [_along(image, start[rows[row]])]
            first = [(images, classifier(images).argmax(1)) for images in along]
            others = (images[predicted != label] for images, predicted in (*first, *pools))
            other = next((images for images in others if len(images)), None)
            if other is None:
                continue
            nearest = other[self.threat.distance(other - image).argmin()]
            watched.aim(image, label)
            try:
                attack.generate(_array(image), label.cpu().numpy()[None], x_adv_init=_array(nearest))
            except _Stop:
                x_adv[row] = watched.nearest
        return x_adv


def _along(image: Tensor, point: Tensor) -> Tensor:
    """(RAY, C, H, W) images on the ray from an image through a point, from the point until a pixel has changed by 1."""
    change = point - image
    last = 1 / change.abs().max().clamp_min(1e-3)
    lengths = torch.linspace(1, last.item(), RAY, device=image.device).view(-1, 1, 1, 1)
    return (image + lengths * change).clamp(0, 1)


class _Stop(Exception):
    """The image is inside the budget, or the queries are used up."""


class _Watched(nn.Module):
    """The classifier under attack: counts the queries and keeps the nearest misclassified image.

    The library goes on after the attack has succeeded, and never ends where rounding puts its point on the wrong side
    of the boundary.
    """

    def __init__(self, classifier: nn.Module, threat: Threat, queries: int) -> None:
        super().__init__()
        self.classifier, self.threat, self.queries = classifier, threat, queries
        self.training = classifier.training
        self.watching = False

    def aim(self, image: Tensor, label: Tensor) -> None:
        self.watching, self.image, self.label = True, image, label
        self.nearest, self.distance, self.left = image, math.inf, self.queries

    def forward(self, x: Tensor) -> Tensor:
        if not self.watching:
            return self.classifier(x)
        x = x.to(self.image)  # the library passes double precision at times
        self.left -= len(x)
        if self.left < 0:
            raise _Stop
        logits = self.classifier(x)
        distance = self.threat.distance(x - self.image).masked_fill(logits.argmax(1) == self.label, math.inf)
        found = int(distance.argmin())
        if distance[found] < self.distance:
            self.nearest, self.distance = x[found], float(distance[found])
            if self.distance <= self.threat.eps:
                inside = self.threat.project(self.nearest[None], self.image[None])
                if self.classifier(inside).argmax() != self.label:
                    self.nearest = inside[0]
                    raise _Stop
        return logits


def _array(image: Tensor) -> np.ndarray:
    return image[None].cpu().numpy()
