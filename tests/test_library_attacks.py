"""AutoAttack's parts and HopSkipJump against closed forms, and the decision with rejection as a classifier."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import attacks
from attacks import Misclassified, Targeted, Undetected
from attacks.detector_aware.rejecting import RejectingClassifier
from robustrecon import DefendedClassifier
from robustrecon.data import Dataset

IMAGE = (1, 6, 6)
GRADIENT = ["apgd-ce", "apgd-t", "fab-t"]
BLACK_BOX = ["square", "hop-skip-jump"]
NAMES = GRADIENT + BLACK_BOX
FEW = {"apgd-ce": {"steps": 20}, "apgd-t": {"steps": 20}, "fab-t": {"steps": 20}, "square": {"queries": 300}}


def load(name: str, **parameters: object) -> attacks.Attack:
    return attacks.load(name, **FEW.get(name.removesuffix("-rejecting"), {"queries": 300}) | parameters)


class Linear(nn.Module):
    """K classes, linear logits, and a detector whose score is the squared distance from grey."""

    def __init__(self, n_classes: int = 4) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(36, n_classes, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - 0.5).flatten(1) @ self.weight

    def score(self, x: torch.Tensor) -> torch.Tensor:
        return (x - 0.5).flatten(1).square().sum(1)

    def distance(self, x: torch.Tensor, norm: str) -> torch.Tensor:
        """To the nearest boundary: the least logit margin over the dual norm of the difference of two columns."""
        logits = self(x)
        label = logits.argmax(1)
        apart = self.weight.T[label][:, None] - self.weight.T
        size = apart.abs().sum(2) if norm == "linf" else apart.norm(dim=2)
        margin = logits.gather(1, label[:, None]) - logits
        return (margin / size).scatter(1, label[:, None], math.inf).amin(1)


@pytest.fixture
def near_centre() -> torch.Tensor:
    """Images so far from 0 and 1 that clipping to the pixel range never binds."""
    return 0.45 + 0.1 * torch.rand(24, *IMAGE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(
    ("name", "n_classes", "slack", "parameters"),
    [
        ("apgd-ce", 2, 1.02, {"steps": 30}),  # with more classes cross-entropy does not lead to the nearest
        ("apgd-t", 4, 1.02, {"steps": 30}),
        ("fab-t", 4, 1.02, {"steps": 20}),
        ("hop-skip-jump", 2, 1.2, {"queries": 5000}),  # it ends at the boundary next to where it started
        ("square", 2, 3.0, {"queries": 500}),
    ],
)
def test_an_image_is_broken_just_above_the_smallest_distance_and_never_below(
    near_centre: torch.Tensor, norm: str, name: str, n_classes: int, slack: float, parameters: dict[str, int]
) -> None:
    """On a linear classifier that distance is known."""
    victim = Linear(n_classes)
    y = victim(near_centre).argmax(1)
    distance = victim.distance(near_centre, norm)
    for row in distance.argsort()[[4, 20]]:
        x, label = near_centre[row][None], y[row][None]
        for factor, few, broken in ((slack, {}, True), (0.98, {"queries": 200}, False)):
            chosen = {key: few.get(key, n) for key, n in parameters.items()}
            outcome = attacks.load(name, norm=norm, eps=factor * distance[row].item(), **chosen)(victim, x, label)
            assert outcome.success.item() is broken, (factor, distance[row])


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", NAMES)
def test_rejecting_attacks_succeed_where_the_plain_attack_is_detected(
    near_centre: torch.Tensor, norm: str, name: str
) -> None:
    victim = Linear()
    y = victim(near_centre).argmax(1)
    eps = (10 if name == "apgd-ce" else 3) * victim.distance(near_centre, norm).max().item()
    threshold = victim.score(near_centre).max().item()
    goal = Misclassified() & Undetected(threshold)
    outcome = load(f"{name}-rejecting", norm=norm, eps=eps)(victim, near_centre, y, goal)
    assert torch.equal(outcome.success, (victim(outcome.x).argmax(1) != y) & (victim.score(outcome.x) <= threshold))
    assert outcome.success.double().mean() >= 0.9
    if name == "apgd-ce":  # the others stop near the boundary, where the score is still low
        plain = load(name, norm=norm, eps=eps)(victim, near_centre, y)
        assert (victim(plain.x).argmax(1) != y).double().mean() > 0.9
        assert (victim.score(plain.x) <= threshold).double().mean() < 0.5, "the detector does not see the plain attack"


@pytest.mark.parametrize("name", NAMES)
def test_one_image_and_images_that_are_misclassified_when_clean(
    near_centre: torch.Tensor, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    victim = Linear()
    right = victim(near_centre).argmax(1)
    far = 3 * victim.distance(near_centre, "linf").max().item()
    threshold = victim.score(near_centre).max().item()
    for attack in (load(name, eps=far, restarts=2), load(f"{name}-rejecting", eps=far, restarts=2)):
        goal = Misclassified() & Undetected(threshold if attack.knows_detector else math.inf)
        assert attack(victim, near_centre[:1], right[:1], goal).x.shape == (1, *IMAGE)
        outcome = attack(victim, near_centre[:5], (right[:5] + 1) % 4, goal)
        assert outcome.success.all()
        assert (outcome.distance == 0).all()
        # The whole batch is misclassified and rejected: no error, whether the attack makes it accepted or not.
        tight = Misclassified() & Undetected(victim.score(near_centre[:5]).min().item() / 2)
        assert attack(victim, near_centre[:5], (right[:5] + 1) % 4, tight).x.shape == (5, *IMAGE)
        # No image can be broken.
        assert not load(name, eps=1e-6)(victim, near_centre[:3], right[:3]).success.any()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", NAMES)
def test_colour_images_and_a_function_without_weights(name: str) -> None:
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5))
    torch.manual_seed(0)
    x = torch.rand(6, 3, 9, 9).contiguous(memory_format=torch.channels_last)
    y = net(x).argmax(1)
    net.requires_grad_(False)
    for norm, eps in (("linf", 0.5), ("l2", 4.0)):
        outcome = load(name, norm=norm, eps=eps)(lambda images: net(images), x, y)
        assert outcome.x.shape == x.shape
        assert outcome.success.any()


@pytest.mark.parametrize("name", NAMES)
def test_other_goals_are_errors(near_centre: torch.Tensor, name: str) -> None:
    victim = Linear()
    y = victim(near_centre).argmax(1)
    for goal in (Targeted(2), Targeted(2) & Undetected(9.0), Undetected(-1.0)):
        with pytest.raises(attacks.InputError, match="goal: got .*, must be Misclassified"):
            load(name)(victim, near_centre, y, goal)


def test_below_four_classes_the_loss_is_a_margin(near_centre: torch.Tensor) -> None:
    victim = Linear(3)
    y = victim(near_centre).argmax(1)
    distance = victim.distance(near_centre, "linf")
    for engine in ("torchattacks", "own"):
        for eps in (0.98 * distance.min().item(), 1.02 * distance.max().item()):
            outcome = attacks.load("apgd-t", engine, eps=eps, steps=30)(victim, near_centre, y)
            assert torch.equal(outcome.success, distance < eps)
    threshold = victim.score(near_centre).max().item()
    outcome = load("apgd-t-rejecting", eps=0.5)(victim, near_centre, y, Misclassified() & Undetected(threshold))
    assert outcome.success.any()


def test_images_that_square_cannot_handle_are_an_error() -> None:
    x = torch.rand(2, 1, 5, 12)
    victim = nn.Sequential(nn.Flatten(), nn.Linear(60, 4))
    with pytest.raises(attacks.InputError, match="x: images are 5×12, must be about square"):
        load("square", norm="l2")(victim, x, victim(x).argmax(1))


class Detached(Linear):
    """A score without a gradient."""

    def score(self, x: torch.Tensor) -> torch.Tensor:
        return super().score(x.detach())


@pytest.mark.parametrize("name", ["apgd-ce", "apgd-t", "fab-t", "pgd", "selective", "eot", "bpda"])
def test_attacks_that_follow_gradients_need_a_score_with_a_gradient(near_centre: torch.Tensor, name: str) -> None:
    victim = Detached()
    y = victim(near_centre).argmax(1)
    attack = attacks.load(name, attacks.CATALOGUE[name].engines and ("own" if name == "pgd" else None), steps=2)
    goal = Misclassified() & Undetected(1.0)
    with pytest.raises(attacks.InputError, match="score of Detached has no gradient.*square-rejecting or hop-skip"):
        attack(victim, near_centre, y, goal)
    assert attack(Linear(), near_centre, y, goal).x.shape == near_centre.shape


@pytest.mark.parametrize("name", BLACK_BOX)
def test_attacks_without_gradients_need_no_score_with_a_gradient(near_centre: torch.Tensor, name: str) -> None:
    victim = Detached()
    y = victim(near_centre).argmax(1)
    eps = 3 * victim.distance(near_centre, "linf").max().item()
    goal = Misclassified() & Undetected(victim.score(near_centre).max().item())
    outcome = load(f"{name}-rejecting", eps=eps)(victim, near_centre, y, goal)
    assert outcome.success.double().mean() >= 0.9


@pytest.mark.parametrize("name", BLACK_BOX)
def test_an_attack_makes_no_more_queries_than_allowed(near_centre: torch.Tensor, name: str) -> None:
    asked = []

    class Counting(Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            asked.append(len(x))
            return super().forward(x)

    victim = Counting()
    y = Linear()(near_centre).argmax(1)
    load(name, eps=1e-6, queries=200)(victim, near_centre[:1], y[:1])
    overhead = 200  # the checks before and after, and images of noise to start from
    assert 100 < sum(asked) <= 200 + overhead


def test_restarts_use_other_random_numbers(near_centre: torch.Tensor) -> None:
    """An image that one run misses by chance must be broken by one of many."""
    victim = Linear()
    y = victim(near_centre).argmax(1)
    eps = 0.6 * victim.distance(near_centre, "linf").max().item()
    n_broken = [
        load("square", eps=eps, queries=3, restarts=restarts)(victim, near_centre, y).success.sum().item()
        for restarts in (1, 8)
    ]
    assert n_broken[0] < n_broken[1]


def _decided(victim: nn.Module, x: torch.Tensor, label: int, threshold: float) -> torch.Tensor:
    goal = Misclassified() & Undetected(threshold)
    return goal.met(victim, x, torch.full((len(x),), label))


@pytest.mark.parametrize("detector", ["label_margin", "global_error"])
def test_the_rejecting_classifier_decides_as_the_defended_classifier(
    defended: DefendedClassifier, digits: Dataset, detector: str
) -> None:
    victim = DefendedClassifier(defended.model, detector)
    clean, y = digits.test.x[:12], digits.test.y[:12]
    moved = attacks.load("pgd", "own", eps=0.2, steps=10)(victim, clean, y).x
    x = torch.cat([clean, moved, torch.rand(12, *clean.shape[1:], generator=torch.Generator().manual_seed(0))])
    scores = victim.score(x).detach()
    middle = scores.sort().values[18].item()  # one image lies exactly on the threshold
    thresholds = [-math.inf, -1e300, middle, math.nextafter(middle, -math.inf), 30.0, 1e300, math.inf]
    for row, threshold in enumerate(thresholds):
        label, units = (0, 3, 9)[row % 3], ((1.0, 1.0), (1e-6, 1e6))[row % 2]
        inputs = x.clone().requires_grad_()
        z = RejectingClassifier(victim, label, threshold, units)(inputs)
        assert torch.equal(z.argmax(1) != label, _decided(victim, x, label, threshold))
        assert torch.isfinite(z).all()
        (gradient,) = torch.autograd.grad(z.sum(), inputs)
        assert torch.isfinite(gradient).all()
        assert gradient.any() or threshold <= -1e300


class Tied(nn.Module):
    """Logits and scores are the pixels themselves, so that any tie can be made."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, 0, 0, :4] * 1.0

    def score(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, 0, 1, 0] * 1.0


def test_the_rejecting_classifier_decides_ties_as_the_victim() -> None:
    values = torch.tensor([0.0, 0.5, 1.0])
    rows = torch.cartesian_prod(values, values, values, values, values)
    x = torch.zeros(len(rows), 1, 2, 4)
    x[:, 0, 0], x[:, 0, 1, 0] = rows[:, :4], rows[:, 4]
    for label in range(4):
        for threshold in (-1.0, 0.0, 0.5, 2.0, math.inf):
            inputs = x.clone().requires_grad_()
            z = RejectingClassifier(Tied(), label, threshold)(inputs)
            assert torch.equal(z.argmax(1) != label, _decided(Tied(), x, label, threshold))
            assert (z[:, label] == 0).all()
            assert torch.isfinite(torch.autograd.grad(z.sum(), inputs)[0]).all()


def test_scores_for_all_labels_equal_the_scores_for_each_label(defended: DefendedClassifier, digits: Dataset) -> None:
    x = digits.test.x[:12]
    logits, scores = defended.logits_and_label_scores(x)
    assert torch.equal(logits, defended(x))
    for label in range(10):
        one = defended.logits_and_score(x, torch.full((12,), label))[1]
        torch.testing.assert_close(scores[:, label], one)


def test_the_rejecting_classifier_takes_a_score_that_uses_the_logits(
    defended: DefendedClassifier, digits: Dataset
) -> None:
    own = DefendedClassifier(defended.model, lambda seen: (seen.energies * seen.logits.softmax(1)).sum(1))
    x = digits.test.x[:40]
    threshold = own.score(x).median().item()
    for label in (1, 7):
        z = RejectingClassifier(own, label, threshold)(x)
        assert torch.equal(z.argmax(1) != label, _decided(own, x, label, threshold))


def test_attacking_the_decision_with_rejection_breaks_more_images(
    defended: DefendedClassifier, digits: Dataset
) -> None:
    part = digits.test.head(20)
    goal = Misclassified() & Undetected(defended.threshold)
    plain = attacks.load("apgd-ce", eps=0.15, steps=10)(defended, part.x, part.y)
    aware = attacks.load("apgd-ce-rejecting", eps=0.15, steps=10)(defended, part.x, part.y)
    assert aware.success.sum() > goal.met(defended, plain.x, part.y).sum()
