"""Attacks on classifier and detector together, against known answers."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor, nn
from torch.nn.functional import relu

import attacks
from attacks import Misclassified, Targeted, Undetected
from attacks.detector_aware import base
from robustrecon import DefendedClassifier
from robustrecon.data import Dataset

IMAGE = (1, 3, 3)
SLOW = ("reconstructive",)


def with_slow(names: Iterable[str]) -> list[Any]:
    """The names as parameters, the long ones marked."""
    return [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in names]


AWARE = {
    "selective": {},
    "orthogonal": {},
    "reconstructive": {},
    "alternating": {"mode": "alternating"},
    "matching": {},
    "multi-target": {},
    "hybrid": {"queries": 200},
}
# Each must succeed at this multiple of the smallest distance; matching is left out, because it aims at its guide.
LINF = {
    "selective": 1.6,
    "orthogonal": 1.2,
    "reconstructive": 1.1,
    "alternating": 1.6,
    "multi-target": 1.05,
    "hybrid": 1.05,
}
L2 = {**dict.fromkeys(LINF, 1.05), "alternating": 1.2}


def load(name: str, **parameters: object) -> attacks.Attack:
    return attacks.load("reconstructive" if name == "alternating" else name, **{**AWARE[name], **parameters})


class Bowl(nn.Module):
    """Logits (0, w·(x − ½)), and a detector whose score is the squared distance from a point beyond the boundary.

    Both sets are convex, so the smallest undetected adversarial image can be computed.
    """

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.w = nn.Parameter(torch.randn(9, generator=generator))
        self.centre = nn.Parameter(0.5 + 0.1 * torch.randn(9, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        margin = (x - 0.5).flatten(1) @ self.w
        return torch.stack([torch.zeros_like(margin), margin], dim=1)

    def score(self, x: Tensor) -> Tensor:
        return (x.flatten(1) - self.centre).square().sum(1)

    def representations(self, x: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        return self(x), x.flatten(1) - self.centre

    def smallest(self, x: Tensor, label: int, threshold: float, norm: str) -> float:
        """The smallest distance to an image of the other label with a score of at most `threshold`."""
        w, centre, start = (part.detach().double().numpy().ravel() for part in (self.w, self.centre, x))
        sign = 1 if label == 0 else -1
        bounds = [
            {"type": "ineq", "fun": lambda v: sign * (v[:9] - 0.5) @ w},
            {"type": "ineq", "fun": lambda v: threshold - ((v[:9] - centre) ** 2).sum()},
        ]
        if norm == "linf":
            bounds += [{"type": "ineq", "fun": lambda v: v[9] - np.abs(v[:9] - start)}]
        cost = (lambda v: v[9]) if norm == "linf" else (lambda v: ((v[:9] - start) ** 2).sum())
        found = minimize(cost, np.r_[centre, 1.0], constraints=bounds, bounds=[(0, 1)] * 10, method="SLSQP")
        assert found.success, found.message
        return float(found.fun if norm == "linf" else np.sqrt(found.fun))


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", with_slow(LINF))
def test_the_attack_succeeds_just_above_the_smallest_undetected_distance_and_never_below(name: str, norm: str) -> None:
    """Nearly every image must be broken somewhat above the smallest distance, and none 2 % below."""
    victim = Bowl()
    x = 0.25 + 0.5 * torch.rand(8, *IMAGE, generator=torch.Generator().manual_seed(1))
    y = victim(x).argmax(1)
    reach = ((victim.centre - 0.5) @ victim.w).abs().item() / victim.w.norm().item()
    threshold = (reach + 0.12) ** 2
    goal = Misclassified() & Undetected(threshold)
    broken = []
    for image, label in zip(x, y, strict=True):
        least = victim.smallest(image, int(label), threshold, norm)
        for factor in ((LINF if norm == "linf" else L2)[name], 0.98):
            attack = load(name, eps=factor * least, norm=norm, steps=150)
            broken.append((factor, attack(victim, image[None], label[None], goal).success.item()))
    above = [flag for factor, flag in broken if factor > 1]
    assert sum(above) >= 7, f"{sum(above)} of 8"
    assert not any(flag for factor, flag in broken if factor < 1)


@pytest.mark.parametrize("name", AWARE)
def test_the_attack_breaks_a_weak_detector(name: str) -> None:
    victim = Bowl()
    x = 0.35 + 0.3 * torch.rand(60, *IMAGE, generator=torch.Generator().manual_seed(1))
    y = victim(x).argmax(1)
    threshold = victim.score(x).quantile(0.8).item()
    outcome = load(name, eps=0.5, steps=60)(victim, x, y, Misclassified() & Undetected(threshold))
    assert outcome.success.double().mean() >= 0.95


@pytest.mark.parametrize("name", AWARE)
def test_the_attack_breaks_the_base_network(name: str, defended: DefendedClassifier, digits: Dataset) -> None:
    """A network that is trained as its paper says is not robust; the successes are images that the detector accepts."""
    part = digits.test.head(40)
    goal = Misclassified() & Undetected(defended.threshold)
    outcome = load(name, eps=0.4, steps=40, early_exit=True)(defended, part.x, part.y, goal)
    verdict = defended.inspect(outcome.x)
    assert torch.equal(outcome.success, (verdict.label != part.y) & ~verdict.rejected)
    assert outcome.success.double().mean() >= (0.7 if name == "matching" else 0.95)


class Bright(nn.Module):
    """Misclassified and accepted only when a pixel or two are far above 0.8."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        margin = self.weight * self.light(x) + 0.01 * x.flatten(1).mean(1) - 0.1
        return torch.stack([torch.zeros_like(margin), margin], dim=1)

    def score(self, x: Tensor) -> Tensor:
        return relu(0.2 - self.light(x))

    def light(self, x: Tensor) -> Tensor:
        return relu(x.flatten(1) - 0.8).sum(1)


@pytest.mark.parametrize("name", ["selective", "multi-target"])
def test_l2_ascents_that_start_outside_the_ball_break_more_images(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside the ball every gradient makes all pixels brighter, but only a single pixel can become bright enough."""
    x = 0.1 + 0.4 * torch.rand(8, *IMAGE, generator=torch.Generator().manual_seed(1))
    y = torch.zeros(8, dtype=torch.long)
    goal = Misclassified() & Undetected(0.1)
    attack = load(name, norm="l2", eps=0.65)
    outside = attack(Bright(), x, y, goal).success
    monkeypatch.setitem(base.WIDEST, "l2", 1.0)
    inside = attack(Bright(), x, y, goal).success
    assert outside.sum() >= 6
    assert inside.sum() <= 3


class Misleading(nn.Module):
    """The logit jumps where a pixel passes 0.85 and falls slowly elsewhere, so that gradients point away."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(0.1))

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.flatten(1)
        margin = (pixels > 0.85).float().mean(1) - 0.6 - self.slope * pixels.mean(1)
        return torch.stack([torch.zeros_like(margin), margin], dim=1)

    def score(self, x: Tensor) -> Tensor:
        """Zero where two thirds of the pixels are above 0.85."""
        pixels = x.flatten(1)
        return relu(2 / 3 - (pixels > 0.85).float().mean(1)) + self.slope * pixels.mean(1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_search_succeeds_where_gradients_mislead(norm: str) -> None:
    victim = Misleading()
    x = 0.5 + 0.1 * torch.rand(8, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    y = torch.zeros(8, dtype=torch.long)
    goal = Misclassified() & Undetected(0.2)
    budget: dict[str, Any] = {"norm": norm, "eps": 0.45 if norm == "linf" else 2.7, "steps": 20, "batch_size": 1}
    assert not load("multi-target", **budget)(victim, x, y, goal).success.any()
    outcome = load("hybrid", **budget, queries=2000)(victim, x, y, goal)
    assert outcome.success.all()
    assert outcome.distance.max() <= budget["eps"] + 1e-6


def test_the_search_takes_only_its_share_of_a_batch() -> None:
    """By default two images of sixteen; the others stay where the ascents ended."""
    victim = Misleading()
    x = torch.linspace(0.3, 0.6, 16).view(16, 1, 1, 1).repeat(1, *IMAGE)
    y = torch.zeros(16, dtype=torch.long)
    budget = {"eps": 0.4, "steps": 10}
    before, after, after_all = (
        load(name, **budget, **part)(victim, x, y, Misclassified() & Undetected(0.2)).x
        for name, part in (("multi-target", {}), ("hybrid", {}), ("hybrid", {"search_fraction": 1}))
    )
    assert 1 <= (before != after).flatten(1).any(1).sum() <= 2
    assert (before != after_all).flatten(1).any(1).sum() > 2


def test_a_search_that_fails_keeps_the_misclassified_points() -> None:
    """The search may end at correctly classified points; the misclassified points of the ascents must stay."""
    victim = Bowl()
    x = 0.25 + 0.5 * torch.rand(60, *IMAGE, generator=torch.Generator().manual_seed(1))
    x = x[victim(x).argmax(1) == victim(victim.centre[None]).argmax(1)]  # a lower score leads back to the true label
    y = victim(x).argmax(1)
    goal = Misclassified() & Undetected(-1.0)
    before, after = (load(name, eps=0.1, steps=30)(victim, x, y, goal) for name in ("multi-target", "hybrid"))
    assert (before.label != y).any()
    assert torch.equal(before.label != y, after.label != y)


class Planted(nn.Module):
    """A network with a last layer of its own that has an adversarial image at a known point."""

    def __init__(self, defended: DefendedClassifier, inside: Tensor, adversarial: Tensor) -> None:
        super().__init__()
        self.defended = copy.deepcopy(defended)
        with torch.no_grad():
            features = self.features(torch.cat([inside, adversarial[None]]))
            self.mean, self.spread = features[:-1].mean(0), features[:-1].std(0) + 1e-6
            towards = (features[-1] - self.mean) / self.spread
            self.direction = towards / towards.norm()
            reach = self.reach(torch.cat([inside, adversarial[None]]))
        self.gap = (reach[-1] - reach[:-1].max()).item()
        self.boundary = (reach[-1] - 0.3 * self.gap).item()

    def features(self, x: Tensor) -> Tensor:
        return torch.cat(self.defended.model.encode(x), dim=1)  # type: ignore[operator]

    def reach(self, x: Tensor) -> Tensor:
        return ((self.features(x) - self.mean) / self.spread) @ self.direction

    def forward(self, x: Tensor) -> Tensor:
        beyond = self.reach(x) - self.boundary
        return torch.stack([torch.zeros_like(beyond), beyond], dim=1)

    def score(self, x: Tensor) -> Tensor:
        return self.defended.score(x)


@pytest.mark.parametrize("name", with_slow(AWARE))
def test_the_attack_finds_a_planted_adversarial_image(name: str, defended: DefendedClassifier, digits: Dataset) -> None:
    """Binarization test: R. Zimmermann et al., "Increasing Confidence in Adversarial Robustness Evaluations", 2022."""
    generator = torch.Generator().manual_seed(0)
    eps, found, planted = 0.2, 0, 0
    for image in digits.test.x[:6]:
        noise = torch.rand(200, *image.shape, generator=generator) * 2 - 1
        inside = (image + 0.9 * eps * noise).clamp(0, 1)
        corner = (image + eps * noise[0].sign()).clamp(0, 1)
        victim = Planted(defended, inside[1:], corner)
        if victim.gap <= 0:
            continue
        planted += 1
        threshold = victim.score(torch.stack([image, corner])).max().item() + 1e-3
        x, y = image[None], torch.zeros(1, dtype=torch.int64)
        if name == "matching":  # its guide is the planted image
            x, y = torch.cat([x, corner[None]]), torch.tensor([0, 1])
        outcome = load(name, eps=eps, steps=80 if name == "matching" else 40)(
            victim, x, y, Misclassified() & Undetected(threshold)
        )
        found += bool(outcome.success[0])
    assert planted >= 4
    assert found >= 0.9 * planted, f"{found} of {planted}"


@pytest.mark.parametrize("name", AWARE)
def test_the_attack_reaches_a_target(name: str, defended: DefendedClassifier, digits: Dataset) -> None:
    part = digits.test.head(30)
    goal = Targeted(3) & Undetected(defended.threshold)
    outcome = load(name, eps=0.5, steps=30, early_exit=True)(defended, part.x, part.y, goal)
    verdict = defended.inspect(outcome.x)
    assert torch.equal(outcome.success, (verdict.label == 3) & (part.y != 3) & ~verdict.rejected)
    assert outcome.success[part.y != 3].double().mean() > 0.6


@pytest.mark.slow
def test_early_exit_breaks_as_many_images(defended: DefendedClassifier, digits: Dataset) -> None:
    part = digits.test.head(20)
    goal = Misclassified() & Undetected(defended.threshold)
    for name in ("selective", "multi-target"):
        full, short = (
            load(name, eps=0.1, steps=15, early_exit=early)(defended, part.x, part.y, goal) for early in (False, True)
        )
        assert torch.equal(full.success, short.success)
        both = full.success
        assert (defended.score(full.x[both]) <= defended.score(short.x[both]) + 0.05).all()


def test_a_loss_that_is_not_finite_stops_the_attack() -> None:
    class Overflowing(Bowl):
        def score(self, x: Tensor) -> Tensor:
            return super().score(x) * torch.inf

    x = torch.rand(4, *IMAGE)
    victim = Overflowing()
    with pytest.raises(attacks.NonFiniteLoss, match="multi-target: the loss or its gradient is not finite on 4 of 4"):
        attacks.load("multi-target")(victim, x, victim(x).argmax(1), Misclassified() & Undetected(0.1))


@pytest.mark.slow
def test_the_worst_case_breaks_all_that_each_of_its_attacks_breaks(
    defended: DefendedClassifier, digits: Dataset
) -> None:
    part = digits.test.head(20)
    goal = Misclassified() & Undetected(defended.threshold)
    names = ["fgsm", "pgd", "selective"]
    worst = attacks.load("worst-case", eps=0.08, attacks=names)(defended, part.x, part.y, goal)
    verdict = defended.inspect(worst.x)
    assert torch.equal(worst.success, (verdict.label != part.y) & ~verdict.rejected)
    for name in names:
        single = attacks.load(name, eps=0.08)
        outcome = single(defended, part.x, part.y, goal if single.knows_detector else None)
        single_verdict = defended.inspect(outcome.x)
        broken = (single_verdict.label != part.y) & ~single_verdict.rejected
        assert (worst.success | ~broken).all(), name


def test_the_worst_case_cannot_contain_itself() -> None:
    with pytest.raises(attacks.InputError, match="must be other attacks than itself"):
        attacks.load("worst-case", attacks=["worst-case"])
