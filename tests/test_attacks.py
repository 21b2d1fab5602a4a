"""Attacks against known answers: closed forms, each other, and weak detectors."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import attacks
from attacks import Misclassified, Targeted, Undetected
from robustrecon import DefendedClassifier
from robustrecon.data import Dataset

ENGINES = ["torchattacks", "art", "own"]
IMAGE = (1, 4, 4)


class Linear(nn.Module):
    """Two classes, logits (0, w·x + b): the distance of an image to the boundary is known."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(16, generator=torch.Generator().manual_seed(0)))
        self.b = nn.Parameter(torch.tensor(0.1))

    def margin(self, x: torch.Tensor) -> torch.Tensor:
        return (x - 0.5).flatten(1) @ self.w + self.b

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        margin = self.margin(x)
        return torch.stack([torch.zeros_like(margin), margin], dim=1)

    def distance(self, x: torch.Tensor, norm: str) -> torch.Tensor:
        """|w·x + b| over the dual norm of w."""
        return self.margin(x).abs() / (self.w.abs().sum() if norm == "linf" else self.w.norm())


@pytest.fixture
def linear() -> Linear:
    return Linear()


@pytest.fixture
def near_centre() -> torch.Tensor:
    """Images so far from 0 and 1 that clipping to the pixel range never binds."""
    return 0.35 + 0.3 * torch.rand(60, *IMAGE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pgd_breaks_an_image_exactly_when_the_budget_exceeds_the_closed_form_distance(
    linear: Linear, near_centre: torch.Tensor, engine: str, norm: str
) -> None:
    """With 2 % more than the smallest distance every image must be broken, with 2 % less none can be."""
    x = near_centre[:12]
    for image, label, distance in zip(x, linear(x).argmax(1), linear.distance(x, norm), strict=True):
        for factor, broken in ((1.02, True), (0.98, False)):
            eps = factor * distance.item()
            attack = attacks.load("pgd", engine, norm=norm, eps=eps, steps=40)
            outcome = attack(linear, image[None], label[None])
            assert outcome.success.item() is broken, (factor, distance)


@pytest.mark.parametrize("engine", ENGINES)
def test_fgsm_is_the_best_linf_step_on_a_linear_model(linear: Linear, near_centre: torch.Tensor, engine: str) -> None:
    y = linear(near_centre).argmax(1)
    eps = linear.distance(near_centre, "linf").median().item()
    outcome = attacks.load("fgsm", engine, eps=eps)(linear, near_centre, y)
    assert torch.equal(outcome.success, linear.distance(near_centre, "linf") < eps)


@pytest.mark.parametrize("name", ["fgsm", "pgd"])
@pytest.mark.parametrize("eps", [0.05, 0.1])
def test_three_engines_agree_within_two_points(
    defended: DefendedClassifier, digits: Dataset, name: str, eps: float
) -> None:
    x, y = digits.test.x, digits.test.y
    steps = {"steps": 20} if name == "pgd" else {}
    accuracy = {}
    for engine in ENGINES:
        outcome = attacks.load(name, engine, eps=eps, **steps)(defended, x, y)
        accuracy[engine] = (outcome.label == y).double().mean().item()
    assert max(accuracy.values()) - min(accuracy.values()) <= 0.02, accuracy
    assert max(accuracy.values()) < 0.9, "the attack did nothing"


class Quadratic(Linear):
    """A linear classifier with a detector whose score is the squared distance from grey."""

    def score(self, x: torch.Tensor) -> torch.Tensor:
        return (x - 0.5).flatten(1).square().sum(1)


def test_an_attack_that_knows_the_detector_breaks_a_weak_one(near_centre: torch.Tensor) -> None:
    """With the point of the lowest score in reach, each image must become misclassified and accepted."""
    victim = Quadratic()
    y = victim(near_centre).argmax(1)
    eps = 3 * victim.distance(near_centre, "linf").max().item()
    threshold = victim.score(near_centre).quantile(0.5).item()
    goal = Misclassified() & Undetected(threshold)
    blind = attacks.load("pgd", "own", eps=eps)(victim, near_centre, y)
    aware = attacks.load("selective", eps=eps)(victim, near_centre, y, goal)
    assert aware.success.double().mean() >= 0.95
    assert (victim.score(blind.x) <= threshold).double().mean() < 0.05, "the detector does not see the blind attack"


@pytest.mark.parametrize("detector", ["label_margin", "global_error"])
def test_an_attack_that_knows_the_detector_breaks_both_detectors(
    defended: DefendedClassifier, digits: Dataset, detector: str
) -> None:
    defended = DefendedClassifier(defended.model, detector).calibrate(digits.calibration.x, 0.05)
    part = digits.test.head(50)
    goal = Misclassified() & Undetected(defended.threshold)
    outcome = attacks.load("selective", eps=0.3, steps=20)(defended, part.x, part.y, goal)
    verdict = defended.inspect(outcome.x)
    assert torch.equal(outcome.success, (verdict.label != part.y) & ~verdict.rejected)
    assert outcome.success.double().mean() >= 0.95


def test_pgd_reaches_a_target(defended: DefendedClassifier, digits: Dataset) -> None:
    part = digits.test.head(40)
    outcome = attacks.load("pgd", "own", eps=0.3)(defended, part.x, part.y, Targeted(3))
    assert torch.equal(outcome.success, (outcome.label == 3) & (part.y != 3))
    assert outcome.success[part.y != 3].double().mean() > 0.9


@pytest.mark.parametrize("engine", ["torchattacks", "art"])
def test_a_goal_that_a_library_does_not_support_is_an_error(linear: Linear, engine: str) -> None:
    with pytest.raises(attacks.InputError, match=r"goal: got Targeted\(label=1\), must be Misclassified"):
        attacks.load("pgd", engine)(linear, torch.rand(2, *IMAGE), torch.zeros(2).long(), Targeted(1))


def test_a_goal_about_a_detector_needs_a_model_with_a_score(linear: Linear) -> None:
    with pytest.raises(attacks.InputError, match=r"model: Linear has no score\(x\)"):
        attacks.load("selective")(linear, x := torch.rand(2, *IMAGE), linear(x).argmax(1))


def test_pgd_prefers_a_point_that_meets_the_goal_to_a_higher_loss() -> None:
    """The loss is highest where the goal is not met."""

    class Reached(Misclassified):
        def assess(self, victim: attacks.Victim, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            far = (x - 0.5).flatten(1).abs().amax(1)
            return (far > 0.15) & (far < 0.25), far

    x = torch.full((3, *IMAGE), 0.52)
    attack = attacks.load("pgd", "own", eps=0.45, alpha=0.1, steps=6, random_start=False)
    outcome = attack(Linear(), x, torch.zeros(3).long(), Reached())
    assert outcome.success.all()
    assert outcome.distance.max() < 0.25


@pytest.mark.slow
def test_selective_reaches_a_target_and_refuses_unsupported_goals(
    defended: DefendedClassifier, digits: Dataset
) -> None:
    part = digits.test.head(30)
    outcome = attacks.load("selective", eps=0.3)(defended, part.x, part.y, Targeted(3))
    assert outcome.success[part.y != 3].double().mean() > 0.9
    with pytest.raises(attacks.InputError, match="must be Misclassified or Targeted"):
        attacks.load("selective")(defended, part.x, part.y, Undetected(-99.0))


def test_zero_budget_changes_nothing(linear: Linear) -> None:
    x = torch.rand(5, *IMAGE)
    for engine in ENGINES:
        for norm in ("linf", "l2", "l1")[: 3 if engine == "own" else 2]:
            outcome = attacks.load("pgd", engine, eps=0.0, norm=norm)(linear, x, linear(x).argmax(1))
            assert torch.equal(outcome.x, x)


def test_restarts_only_help(defended: DefendedClassifier, digits: Dataset) -> None:
    part = digits.test.head(60)
    one = attacks.load("pgd", "own", eps=0.06, steps=5)(defended, part.x, part.y)
    four = attacks.load("pgd", "own", eps=0.06, steps=5, restarts=4)(defended, part.x, part.y)
    assert (four.success | ~one.success).all(), "a restart lost an image that was broken"


def test_pgd_keeps_the_best_point_not_the_last() -> None:
    """A loss with one narrow peak: steps of 0.3 jump over it, only the start is near."""

    class Peak(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            peak = torch.exp(-((x.flatten(1).mean(1) - 0.55) ** 2) / 1e-3)
            return torch.stack([torch.full_like(peak, 0.5), peak], dim=1)

    x = torch.full((1, *IMAGE), 0.5)
    outcome = attacks.load("pgd", "own", eps=0.4, alpha=0.3, steps=7, random_start=False)(Peak(), x, torch.tensor([0]))
    assert Peak()(outcome.x)[0, 1] >= Peak()(x)[0, 1]


def test_results_are_projected_into_the_budget() -> None:
    class Cheat(attacks.Attack):
        name = "cheat"

        def perturb(self, victim: nn.Module, x: torch.Tensor, y: torch.Tensor, goal: attacks.Goal) -> torch.Tensor:
            return x + 5

    x = torch.rand(4, *IMAGE)
    for norm in ("linf", "l2", "l1"):
        outcome = Cheat(eps=0.1, norm=norm)(Linear(), x, Linear()(x).argmax(1))
        assert (outcome.distance <= 0.1 + 1e-6).all()
        assert outcome.x.max() <= 1


def test_an_attack_that_returns_nonsense_is_an_error() -> None:
    class Broken(attacks.Attack):
        name = "broken"

        def perturb(self, victim: nn.Module, x: torch.Tensor, y: torch.Tensor, goal: attacks.Goal) -> torch.Tensor:
            return x * torch.nan

    x = torch.rand(4, *IMAGE)
    with pytest.raises(RuntimeError, match="not finite"):
        Broken()(Linear(), x, Linear()(x).argmax(1))


def test_call_cannot_be_overridden() -> None:
    with pytest.raises(TypeError, match="write perturb instead"):
        type("Own", (attacks.Attack,), {"__call__": lambda self: None})


def test_plain_functions_and_models_without_weights_can_be_attacked(linear: Linear) -> None:
    x = torch.rand(3, *IMAGE)
    y = linear(x).argmax(1)
    frozen = linear.requires_grad_(False)
    for engine in ENGINES:
        outcome = attacks.load("pgd", engine, eps=1.0)(lambda images: frozen(images), x, y)
        assert outcome.success.all()


@settings(max_examples=60, deadline=None)
@given(
    norm=st.sampled_from(["linf", "l2", "l1"]),
    eps=st.floats(0, 1),
    seed=st.integers(0, 99),
    spread=st.floats(0.01, 10),
)
def test_projection_and_random_starts_stay_in_the_ball(norm: str, eps: float, seed: int, spread: float) -> None:
    """Projection ends in the ball and in [0, 1] and is idempotent; random starts lie in the ball."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(6, 2, 3, 3, generator=generator)
    threat = attacks.threat_model(norm, eps)
    moved = threat.project(x + spread * torch.randn(x.shape, generator=generator), x)
    assert (threat.distance(moved - x) <= eps + 1e-5).all()
    assert moved.min() >= 0
    assert moved.max() <= 1
    torch.testing.assert_close(threat.project(moved, x), moved, atol=1e-6, rtol=1e-5)
    torch.manual_seed(seed)
    assert (threat.distance(threat.random(x)) <= eps + 1e-5).all()
    direction = threat.steepest(torch.randn(x.shape, generator=generator))
    torch.testing.assert_close(threat.distance(direction), torch.ones(6))


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.rand(2, *IMAGE) * 255, torch.zeros(2).long(), r"x: values span .* must be in \[0, 1\]"),
        (torch.full((2, *IMAGE), torch.nan), torch.zeros(2).long(), "x: has values that are not finite"),
        (torch.zeros(2, *IMAGE, dtype=torch.uint8), torch.zeros(2).long(), r"x: dtype is torch\.uint8"),
        (torch.rand(2, 4, 4), torch.zeros(2).long(), r"x: shape is \(2, 4, 4\)"),
        (torch.rand(0, *IMAGE), torch.zeros(0).long(), "must hold at least one image"),
        (torch.rand(2, *IMAGE), torch.zeros(3).long(), r"y: got \(3,\), must be 2 whole-number labels"),
        (torch.rand(2, *IMAGE), torch.zeros(2), "must be 2 whole-number labels"),
        (torch.rand(2, *IMAGE), [0, 1], "y: got list"),
        (torch.rand(2, *IMAGE), torch.tensor([0, 2]), r"y: labels span \[0, 2\], must be in \[0, 1\]"),
        (torch.rand(2, *IMAGE), torch.tensor([-1, 1]), r"y: labels span \[-1, 1\]"),
        ([object], torch.zeros(2).long(), "x: got list"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_image_or_label_is_an_input_error(linear: Linear, x: torch.Tensor, y: torch.Tensor, message: str) -> None:
    with pytest.raises(attacks.InputError, match=message):
        attacks.load("fgsm")(linear, x, y)


def test_an_attack_with_another_budget_leaves_the_first_as_it_was() -> None:
    attack = attacks.PGD(eps=0.1, alpha=0.02, restarts=3)
    wider = attack.with_budget(0.5, restarts=1)
    assert (wider.eps, wider.restarts) == (0.5, 1)
    assert wider.alpha == pytest.approx(0.1)
    assert repr(attack) == repr(attacks.PGD(eps=0.1, alpha=0.02, restarts=3))
    with pytest.raises(attacks.InputError, match="eps: got 2"):
        attack.with_budget(2.0, restarts=1)


def test_the_worst_case_makes_each_attack_once(monkeypatch: pytest.MonkeyPatch, linear: Linear) -> None:
    made: list[str] = []
    make = attacks.EOT.__post_init__
    monkeypatch.setattr(attacks.EOT, "__post_init__", lambda self: (made.append(self.name), make(self)))
    x = torch.rand(3, *IMAGE)
    attacks.WorstCase(eps=0.1, attacks=["eot"])(linear, x, linear(x).argmax(1))
    assert made == ["eot"]
