"""Attacks on models whose gradient is hidden by random numbers or by parts without a gradient."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import attacks
from attacks import Misclassified, NonFiniteLoss, Undetected
from attacks.averaged import Averaged
from attacks.bpda import identity_backward
from attacks.errors import nonfinite, raise_if_nonfinite
from attacks.goals import logits_and_score
from robustrecon import DefendedClassifier
from robustrecon.data import Dataset

IMAGE = (1, 6, 6)


class Noisy(nn.Module):
    """Two classes with a linear margin; every pass adds fresh noise along random directions."""

    def __init__(self, noise: float) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(36, generator=torch.Generator().manual_seed(0)))
        self.noise = noise

    def margin(self, x: torch.Tensor) -> torch.Tensor:
        return (x - 0.5).flatten(1) @ self.w

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        drawn = ((x - 0.5).flatten(1) * torch.randn(len(x), 36)).sum(1)
        margin = self.margin(x) + self.noise * drawn
        return torch.stack([torch.zeros_like(margin), margin], dim=1)

    def score(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1).mean(1) + self.noise * torch.randn(len(x))


@pytest.fixture
def images() -> torch.Tensor:
    return 0.35 + 0.3 * torch.rand(40, *IMAGE, generator=torch.Generator().manual_seed(1))


def test_eot_lowers_the_mean_margin_further_than_pgd(images: torch.Tensor) -> None:
    """The best step lowers the mean margin by eps · |w|₁; each attack reaches a share of that."""
    victim = Noisy(noise=8.0)
    eps = 0.05
    y = torch.ones(len(images)).long()
    best = eps * victim.w.abs().sum()
    reached = {}
    for name, extra in (("pgd", {"engine": "own"}), ("eot", {"samples": 64})):
        moved = attacks.load(name, eps=eps, steps=20, random_start=False, **extra)(victim, images, y, _Always()).x
        reached[name] = ((victim.margin(images) - victim.margin(moved)) / best).mean().item()
    assert reached["eot"] > reached["pgd"] + 0.2, reached


class _Always(Misclassified):
    """A goal that is never met, so that every image is attacked until the last step."""

    def assess(self, victim: attacks.Victim, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        met, loss = super().assess(victim, x, y)
        return torch.zeros_like(met), loss


def test_eot_equals_pgd_where_nothing_is_random(defended: DefendedClassifier, digits: Dataset) -> None:
    part = digits.test.head(20)
    goal = Misclassified() & Undetected(defended.threshold)
    plain = attacks.load("pgd", "own", eps=0.2, steps=8)(defended, part.x, part.y, goal)
    mean = attacks.load("eot", eps=0.2, steps=8, samples=1)(defended, part.x, part.y, goal)
    assert torch.equal(plain.x, mean.x)


def test_averages_are_the_means_of_logits_and_scores(images: torch.Tensor) -> None:
    victim, n = Noisy(noise=1.0), 400
    torch.manual_seed(0)
    expected = Averaged(victim, n)
    assert (expected(images)[:, 1] - victim.margin(images)).abs().max() < 6 / n**0.5
    assert (expected.score(images) - images.flatten(1).mean(1)).abs().max() < 6 / n**0.5
    logits, score = logits_and_score(expected, images)
    assert (logits[:, 1] - victim.margin(images)).abs().max() < 6 / n**0.5
    assert (score - images.flatten(1).mean(1)).abs().max() < 6 / n**0.5
    with pytest.raises(attacks.InputError, match=r"Averaged has no score\(x\)"):
        logits_and_score(Averaged(nn.Sequential(nn.Flatten(), nn.Linear(36, 2)), 3), images)


class Steps(nn.Module):
    """Rounds to sixteen levels: a gradient of zero."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x * 15).round() / 15


class Outside(nn.Module):
    """Computed outside of torch, so that there is no gradient at all."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy((x.detach().cpu().numpy() * 15).round() / 15)


class Behind(nn.Module):
    """A classifier and a detector behind a part."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.front = part
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(inplace=True), nn.Linear(8, 4), nn.Softmax(1))
        torch.manual_seed(0)
        for weight in self.net.parameters():
            nn.init.normal_(weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 9 * self.net(self.front(x))

    def score(self, x: torch.Tensor) -> torch.Tensor:
        return (self.front(x) - 0.5).flatten(1).square().sum(1)


@pytest.mark.parametrize("parts", [None, ["front"]])
@pytest.mark.parametrize("part", [Steps, Outside])
def test_bpda_succeeds_where_pgd_has_no_gradient(
    images: torch.Tensor, part: type[nn.Module], parts: list[str] | None
) -> None:
    victim = Behind(part())
    y = victim(images).argmax(1)
    through = attacks.load("bpda", eps=0.2, parts=parts)(victim, images, y)
    assert through.success.double().mean() > 0.9
    goal = Misclassified() & Undetected(victim.score(images).max().item())
    assert attacks.load("bpda", eps=0.2, parts=parts)(victim, images, y, goal).success.double().mean() > 0.5
    if part is Steps:
        blind = attacks.load("pgd", "own", eps=0.2, random_start=False)(victim, images, y)
        assert not blind.success.any()
    assert not any(module._forward_hooks for module in victim.modules()), "hooks were left behind"
    if part is Outside:
        with pytest.raises(attacks.InputError, match="logits of Behind have no gradient"):
            attacks.load("pgd", "own")(victim, images, y, goal)


def test_bpda_equals_pgd_where_every_part_has_a_gradient(images: torch.Tensor) -> None:
    """ReLU, softmax and the identity keep the shape too, but they pass a gradient on."""
    victim = Behind(nn.Identity())
    y = victim(images).argmax(1)
    plain = attacks.load("pgd", "own", eps=0.1, steps=5)(victim, images, y)
    assert torch.equal(plain.x, attacks.load("bpda", eps=0.1, steps=5)(victim, images, y).x)


def test_the_output_is_exact_and_the_gradient_is_that_of_the_identity(images: torch.Tensor) -> None:
    victim = Behind(Steps())
    expected = victim(images)
    x = images.clone().requires_grad_()
    with identity_backward({"front": victim.front}):
        inside = victim(x)
        assert torch.equal(inside, expected)
        (gradient,) = torch.autograd.grad(victim.front(x).sum(), x)
    assert torch.equal(gradient, torch.ones_like(x))


def test_hooks_are_removed_after_an_error(images: torch.Tensor) -> None:
    victim = Behind(Steps())
    y = victim(images).argmax(1)
    with pytest.raises(attacks.InputError, match="parts: net does not keep the shape of its input"):
        attacks.load("bpda", parts=["front", "net"])(victim, images, y)
    assert not any(module._forward_hooks for module in victim.modules())


def test_bad_arguments(images: torch.Tensor) -> None:
    victim = Behind(Steps())
    with pytest.raises(attacks.InputError, match="parts: unknown name 'fornt'; did you mean 'front'"):
        attacks.load("bpda", parts=["fornt"])(victim, images, victim(images).argmax(1))
    with pytest.raises(attacks.InputError, match="parts: got 'front', must be a list"):
        attacks.load("bpda", parts="front")
    with pytest.raises(attacks.InputError, match="samples: got 0, must be a whole number of at least 1"):
        attacks.load("eot", samples=0)


class Broken(nn.Module):
    """Not a number for bright images."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        margin = (x.flatten(1).mean(1) - 0.5) * 100
        return torch.stack([torch.where(margin > 0, torch.nan, 1.0) * margin, 2 * margin], dim=1)


class Kink(nn.Module):
    """Finite logits whose gradient is not: a root at 0."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        root = (x.flatten(1).mean(1) * 0.0).sqrt()
        return torch.stack([1 + root, -root], dim=1)


@pytest.mark.parametrize("early_exit", [False, True])
@pytest.mark.parametrize("victim", [Broken(), Kink()], ids=["loss", "gradient"])
def test_a_loss_that_is_not_finite_is_an_error(victim: nn.Module, early_exit: bool) -> None:
    x = torch.full((3, *IMAGE), 0.45)
    if isinstance(victim, Broken):
        x[1] = 0.8
    attack = attacks.load("pgd", "own", eps=0.01, steps=2, early_exit=early_exit)
    count = 1 if isinstance(victim, Broken) else 3
    with pytest.raises(NonFiniteLoss, match=f"pgd: the loss or its gradient is not finite on {count} of 3"):
        attack(victim, x, torch.zeros(3).long())
    with pytest.raises(NonFiniteLoss, match=f"fgsm: .* on {count} of 3"):
        attacks.load("fgsm", "own", eps=0.01)(victim, x, torch.zeros(3).long())


@pytest.mark.parametrize("engine", ["torchattacks", "own"])
def test_a_loss_that_is_not_finite_only_at_the_end_is_an_error(engine: str) -> None:
    x = torch.full((3, *IMAGE), 0.499)
    with pytest.raises(NonFiniteLoss, match="fgsm: .* on 3 of 3 images"):
        attacks.load("fgsm", engine, eps=0.01)(Broken(), x, torch.zeros(3).long())


def test_nonfinite_losses_and_gradients_are_counted() -> None:
    loss, grad = torch.ones(4), torch.ones(4, *IMAGE)
    raise_if_nonfinite("pgd", nonfinite(loss, grad))
    grad[2, 0, 1, 1], grad[3, 0, 0, 0] = torch.nan, -torch.inf
    assert nonfinite(loss, grad).tolist() == [False, False, True, True]
    with pytest.raises(NonFiniteLoss, match="pgd: .* on 2 of 4 images"):
        raise_if_nonfinite("pgd", nonfinite(loss, grad))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_early_exit_breaks_the_same_images(defended: DefendedClassifier, digits: Dataset, norm: str) -> None:
    part = digits.test.head(40)
    eps = 0.06 if norm == "linf" else 0.8
    for goal in (Misclassified(), Misclassified() & Undetected(defended.threshold)):
        found = [
            attacks.load("pgd", "own", eps=eps, norm=norm, steps=6, early_exit=early_exit)(
                defended, part.x, part.y, goal
            ).success
            for early_exit in (False, True)
        ]
        assert 0 < found[0].sum() < len(part.y)
        assert (found[0] != found[1]).sum() <= 1, "early exit broke other images"


def test_early_exit_needs_fewer_passes(images: torch.Tensor) -> None:
    asked = {False: 0, True: 0}

    class Counting(Behind):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            asked[early_exit] += len(x)
            return super().forward(x)

    y = Behind(nn.Identity())(images).argmax(1)
    for early_exit in (False, True):
        attack = attacks.load("pgd", "own", eps=0.3, steps=40, early_exit=early_exit)
        assert attack(Counting(nn.Identity()), images, y).success.all()
    assert asked[True] < asked[False] / 3


def test_no_module_imports_an_attack_library_at_its_top() -> None:
    """The heavy libraries are imported when an attack runs, not when it is listed."""
    source = Path(attacks.__file__).parent
    for path in source.rglob("*.py"):
        for line in path.read_text().splitlines():
            assert not line.startswith(("import torchattacks", "from torchattacks", "import art", "from art")), path
