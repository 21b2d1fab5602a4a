"""The binarization test of an attack: does it find adversarial examples that are known to exist?

R. Zimmermann, W. Brendel, F. Tramèr, N. Carlini, "Increasing Confidence in Adversarial Robustness Evaluations", NeurIPS
2022. For each image a binary classifier is put on the features of the frozen model, which tells points inside the ball
from a point that is planted on its boundary. An attack that does not find its way to the side of the planted point
would not have found an adversarial example of the model either. The inverted test tells whether the attack follows the
detector: it accepts what the detector rejects, and the other way round.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .base import Attack
from .errors import InputError
from .goals import Goal, Misclassified, Undetected, require_score
from .images import check_images
from .readout import Binary, Inverted, feature_layer, readout
from .runtime import frozen_eval, seeded
from .threat import Threat, threat_model

PLANTED = 50  # images, by default
INNER = 0.99  # share of eps within which the points of class 0 lie
POINTS = 999  # of class 0 around each image
CANDIDATES = 32  # boundary points, of which those that the detector accepts may be planted
TRIES = 4  # of these that are tried
ENOUGH = 0.95  # share of the planted examples that an attack must find


@dataclass(frozen=True)
class BinarizationTest:
    """What an attack found of adversarial examples that were planted.

    Attributes:
        attack: its name.
        planted: images with a planted adversarial example.
        found: of those, images on which the attack met its goal.
        found_by_chance: images on which a random search with as many queries did.
        left_out: images for which no example could be planted: the detector accepts no boundary point that was drawn,
            or the features do not tell it from the points inside.
    """

    attack: str
    planted: int
    found: int
    found_by_chance: int
    left_out: int

    @property
    def success_rate(self) -> float:
        """Share of the planted examples that the attack found."""
        return self.found / self.planted

    @property
    def random_rate(self) -> float:
        """Share that the random search found; the test says the less the higher it is."""
        return self.found_by_chance / self.planted

    @property
    def passed(self) -> bool:
        """Whether the attack found at least 95 %, as the paper asks."""
        return self.success_rate >= ENOUGH

    def __str__(self) -> str:
        left = f", none could be planted for {self.left_out} others" * bool(self.left_out)
        verdict = "passed" if self.passed else "FAILED"
        return (
            f"{verdict}: {self.attack} finds {self.success_rate:.0%} of the planted adversarial "
            f"examples (n = {self.planted}{left}), random search {self.random_rate:.0%}"
        )


def binarization_test(
    model: nn.Module,
    x: Tensor,
    attack: Attack,
    *,
    layer: str | None = None,
    margin: float = 0.7,
    inverted: bool = False,
    seed: int = 0,
    advance: Callable[[int], object] | None = None,
) -> BinarizationTest:
    """Whether an attack finds adversarial examples that are known to exist, image by image.

    The binary classifier of an image is linear on the features of the model. Class 0 are the image and 999
    points at 0.99 eps from it, class 1 is one point at distance eps, and the boundary lies between the two. The goal is
    `Misclassified()`. With an attack that knows the detector, on a model that has a `score` and a `threshold`, it is
    `Misclassified() & Undetected(threshold)`, the detector stays as it is, and it accepts the planted point.

    Where the detector accepts nearly all points of the ball, an attack that ignores it passes too. So there is the
    inverted test: the detector accepts what it rejects, the planted point among it, and rejects what it accepts. An
    attack that knows the detector has to pass both.

    Args:
        model: gives logits (B, K) of images (B, C, H, W) in [0, 1].
        x: (N, C, H, W) images, better ones that are accepted when clean.
        attack: with the eps, norm and parameters that are to be tested.
        layer: name of a sub-module whose output are the features; by default the input of the last linear layer that
            the forward pass calls.
        margin: where the boundary lies, in (0, 1): towards 0 at the outermost point of class 0, and the easier, towards
            1 at the planted point.
        inverted: the inverted test, for an attack that knows the detector, on a model that has one.
        seed: of the points that are drawn.
        advance: called after each image with 1.

    Raises:
        InputError: bad images or arguments, no such layer, a victim without a gradient for an attack that follows it,
            no image for which an example could be planted, or the inverted test without a detector.
    """
    x = check_images(x).detach()
    if not 0 < margin < 1:
        raise InputError(f"margin: got {margin}, must be above 0 and below 1")
    if attack.threat.eps <= 0:
        raise InputError("eps: got 0, must be above 0: nothing can be planted in a ball of nothing")
    threshold = getattr(model, "threshold", None) if attack.knows_detector else None
    judge: nn.Module = model
    if inverted:
        if threshold is None:
            raise InputError(
                f"inverted: got True, must be False for {attack.name}, which knows no detector of the model"
            )
        judge = Inverted(model, threshold)
        threshold = judge.threshold
    goal: Goal = Misclassified() if threshold is None else Misclassified() & Undetected(threshold)
    found = chance = planted = 0
    with frozen_eval(model), seeded(seed):
        features = feature_layer(model, x[:1], layer)
        for image in x.split(1):
            made = _planted(judge, features, image, attack.threat, threshold, margin)
            if made is not None:
                planted += 1
                binary, side = made
                y = torch.zeros(1, dtype=torch.long, device=x.device)
                found += bool(attack(binary, image, y, goal).success)
                chance += _random_search(binary, image, y, goal, attack.threat, attack.passes(2), side)
            if advance is not None:
                advance(1)
    if not planted:
        why = "features do not tell it from points inside the ball"
        if threshold is not None:
            why += f", or the detector {'accepts' if inverted else 'rejects'} it"
        raise InputError(f"model: no adversarial example could be planted in {len(x)} images, the {why}")
    return BinarizationTest(attack.name, planted, found, chance, len(x) - planted)


@torch.no_grad()
def _planted(
    model: nn.Module,
    features: Callable[[Tensor], Tensor],
    x: Tensor,
    threat: Threat,
    threshold: float | None,
    margin: float,
) -> tuple[Binary, int] | None:
    """The binary classifier of an image x (1, C, H, W), and the side of the noise that the planted point is drawn from.

    None where no example can be planted. The noise is rough at first, then smoother, which detectors accept more often.
    """
    confidence = _confidence(model, x)
    for side in (1, 2, 4, 8):
        points = _on_sphere(x, threat, 1, CANDIDATES, side)
        if threshold is not None:
            points = points[require_score(model).score(points) <= threshold]
        if not len(points):
            continue
        # As far out as they may lie, so that points on the boundary are seldom of class 1 by chance.
        inner = features(torch.cat([x, _on_sphere(x, threat, INNER, POINTS, side)]))
        for planted in features(points[:TRIES]).split(1):
            made = readout(inner, planted, margin, confidence)
            if made is not None:
                return Binary(model, features, *made, threshold), side
    return None


def _on_sphere(x: Tensor, threat: Threat, share: float, n: int, side: int) -> Tensor:
    """(n, C, H, W) random points at a share of eps from x, before they are clipped to [0, 1]; for l1, within it.

    The noise is the same within squares of `side` pixels.
    """
    channels, height, width = x.shape[1:]
    noise = torch.randn(n, channels, -(-height // side), -(-width // side), device=x.device)
    noise = noise.repeat_interleave(side, 2)[:, :, :height].repeat_interleave(side, 3)[:, :, :, :width]
    images = x.expand(n, -1, -1, -1)
    return threat_model(threat.norm, share * threat.eps).single_step(images, noise)


def _confidence(model: nn.Module, x: Tensor) -> float:
    """The logit margin of the model's own label, which the binary classifier has on the clean image too."""
    first, second = model(x).topk(2).values[0].tolist()
    return max(first - second, 1.0)


@torch.no_grad()
def _random_search(
    binary: nn.Module, x: Tensor, y: Tensor, goal: Goal, threat: Threat, queries: int, side: int
) -> bool:
    """Whether one of so many random points at distance eps meets the goal, drawn as the planted one is."""
    while queries > 0:
        n = min(queries, POINTS)
        if goal.met(binary, _on_sphere(x, threat, 1, n, side), y.expand(n)).any():
            return True
        queries -= n
    return False
