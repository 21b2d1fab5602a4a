"""The contrastive objective and the adversary that a network is trained against."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, kl_divergence
from torch.nn.functional import cross_entropy, one_hot, softplus

from robustrecon import InputError, StyleMemoryNet
from robustrecon.training import RECIPES, augment
from robustrecon.training.adversary import ascend
from robustrecon.training.augment import warped
from robustrecon.training.objectives import contrastive
from robustrecon.training.objectives.contrastive import ContrastiveObjective

CLASSES = 5
QUIET = replace(RECIPES["contrastive"], noise=0.0, wrong_labels=CLASSES - 1)


@pytest.fixture(params=["shared", "separate"])
def net(request: pytest.FixtureRequest) -> StyleMemoryNet:
    torch.manual_seed(0)
    return StyleMemoryNet(CLASSES, 3, (1, 12, 8), style_encoder=request.param)


@pytest.fixture
def x() -> Tensor:
    return torch.rand(12, 1, 12, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def y() -> Tensor:
    return torch.arange(12) % CLASSES


@torch.no_grad()
def figures(net: StyleMemoryNet, x: Tensor, y: Tensor, **changes: Any) -> dict[str, float]:
    """The objective's figures by name, of a recipe without noise, when all steps are done."""
    objective = ContrastiveObjective(net, replace(QUIET, **changes))
    return dict(zip(objective.figures, objective(x, y, 1.0).tolist(), strict=True))


def test_figures_are_those_of_a_direct_computation(net: StyleMemoryNet, x: Tensor, y: Tensor) -> None:
    """With all wrong labels the contrast is the cross-entropy on all K negative energies."""
    found = figures(net, x, y, contrast=0.7, alpha=0.3)
    with torch.no_grad():
        logits, energies = net(x), net.class_energies(x)
        drawn = net.reconstruct(x, y)
    classification, contrast = cross_entropy(logits, y).item(), cross_entropy(-energies, y).item()
    reconstruction = (drawn - x).flatten(1).square().sum(1).sqrt().mean().item()
    assert found["cross_entropy"] == pytest.approx(classification, rel=1e-5)
    assert found["contrast"] == pytest.approx(contrast, rel=1e-4)
    assert found["reconstruction"] == pytest.approx(reconstruction, rel=1e-5)
    assert found["loss"] == pytest.approx(classification + 0.7 * contrast + 0.3 * reconstruction, rel=1e-4)
    assert found["accuracy"] == pytest.approx((logits.argmax(1) == y).double().mean().item())


def test_few_wrong_labels_are_those_of_the_highest_logits(net: StyleMemoryNet, x: Tensor, y: Tensor) -> None:
    with torch.no_grad():
        logits, energies = net(x), net.class_energies(x)
    order = logits.argsort(dim=1, descending=True)
    wrong = order[order != y[:, None]].view(len(y), -1)
    labels = torch.cat([y[:, None], wrong[:, :2]], dim=1)
    expected = cross_entropy(-energies.gather(1, labels), torch.zeros_like(y)).item()
    assert figures(net, x, y, wrong_labels=2)["contrast"] == pytest.approx(expected, rel=1e-4)


def test_contrast_teaches_encoder_and_decoder(net: StyleMemoryNet, x: Tensor, y: Tensor) -> None:
    """By itself, since the rest of the loss teaches every layer; a style of its own leaves the classifier alone."""
    contrast = ContrastiveObjective(net, QUIET)(x, y, 1.0)[ContrastiveObjective.figures.index("contrast")]
    contrast.backward()
    for name, weight in net.named_parameters():
        assert weight.grad is not None, name
        concerned = net.style_tower is None or name.startswith(("style_tower", "un"))
        assert (weight.grad.abs().sum() > 0) == concerned, name


def test_energies_judge_what_the_network_gets_and_the_drawing_is_of_the_clean_image(
    net: StyleMemoryNet, x: Tensor, y: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = (x + 0.2).clamp_max(1)
    monkeypatch.setattr("robustrecon.training.objectives.contrastive.ascend", lambda model, x, y, eps, steps: moved[4:])
    found = figures(net, x, y, eps=0.2, clean_share=1 / 3)
    seen = torch.cat([x[:4], moved[4:]])
    with torch.no_grad():
        drawn = net.decode(one_hot(y, CLASSES).float(), net.encode(seen)[1])
        assert found["cross_entropy"] == pytest.approx(cross_entropy(net(seen), y).item(), rel=1e-5)
        assert found["contrast"] == pytest.approx(cross_entropy(-net.class_energies(seen), y).item(), rel=1e-4)
    expected = torch.linalg.vector_norm((drawn - x).flatten(1), dim=1).mean().item()
    assert found["reconstruction"] == pytest.approx(expected, rel=1e-5)


def test_the_radius_grows_and_stays() -> None:
    recipe = replace(RECIPES["robust"], eps=0.3, ramp=0.4)
    assert [round(recipe.eps_at(share), 6) for share in (0.0, 0.2, 0.4, 0.9)] == [0.0, 0.15, 0.3, 0.3]
    assert replace(recipe, ramp=0.0).eps_at(0.0) == 0.3
    assert {RECIPES["contrastive"].eps_at(share) for share in (0.0, 0.5, 1.0)} == {0.0}


def test_there_are_no_more_wrong_labels_than_classes(net: StyleMemoryNet, x: Tensor, y: Tensor) -> None:
    assert figures(net, x, y, wrong_labels=99) == figures(net, x, y, wrong_labels=CLASSES - 1)


def test_trades_is_the_clean_loss_and_the_divergence_of_the_attacked(
    net: StyleMemoryNet, x: Tensor, y: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = (x + 0.1).clamp(0, 1)
    monkeypatch.setattr(contrastive, "ascend", lambda *_: moved)
    found = figures(net, x, y, eps=0.1, trades=3.0, wrong_labels=CLASSES - 1)
    with torch.no_grad():
        for name, outputs in (("cross_entropy", net), ("contrast", lambda images: -net.class_energies(images))):
            clean, attacked = Categorical(logits=outputs(x)), Categorical(logits=outputs(moved))
            expected = -clean.log_prob(y).mean() + 3 * kl_divergence(clean, attacked).mean()
            assert found[name] == pytest.approx(expected.item(), rel=1e-3), name


def test_the_gap_is_asked_of_clean_images_and_granted_to_attacked_ones(
    net: StyleMemoryNet, x: Tensor, y: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contrastive, "ascend", lambda _, images, *rest: 1 - images)
    found = figures(net, x, y, eps=0.1, gap=2.0, clean_share=0.25)["contrast"]
    true = one_hot(y, CLASSES)
    with torch.no_grad():
        clean = cross_entropy(-(net.class_energies(x[:3]) + 2 * true[:3]), y[:3], reduction="sum")
        attacked = cross_entropy(-(net.class_energies(1 - x[3:]) - 2 * true[3:]), y[3:], reduction="sum")
    assert found == pytest.approx(((clean + attacked) / len(x)).item(), rel=1e-4)
    only_clean = cross_entropy(-(net.class_energies(x) + 2 * true), y).item()
    assert figures(net, x, y, gap=2.0)["contrast"] == pytest.approx(only_clean, rel=1e-4)


def test_a_gap_does_not_go_with_trades() -> None:
    with pytest.raises(InputError, match=r"gap: got 1\.0, must be 0 with trades"):
        replace(QUIET, gap=1.0, trades=6.0)


@pytest.mark.parametrize(("side", "moved"), [(2 / 9, 1), (-4 / 9, -2)])
def test_a_warp_shifts_by_shares_of_a_side_and_brings_in_black(
    side: float, moved: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for what in ("ROTATION", "SCALE", "SHEAR", "BEND", "KEPT"):
        monkeypatch.setattr(augment, what, 0.0)
    monkeypatch.setattr(augment, "SHIFT", side)
    monkeypatch.setattr("torch.randn", lambda *size, device: torch.ones(size, device=device))
    x = torch.zeros(2, 1, 9, 9)
    x[:, 0, 4, 4] = 1
    expected = torch.zeros_like(x)
    expected[:, 0, 4 - moved, 4 - moved] = 1
    assert torch.allclose(warped(x, 1.0), expected, atol=1e-5)
    assert warped(torch.ones_like(x), 1.0)[:, 0, -1 if moved > 0 else 0].max() < 1e-5


def test_warps_differ_grow_with_their_strength_and_leave_some_images_alone() -> None:
    torch.manual_seed(0)
    x = torch.zeros(300, 1, 12, 9)
    x[:, :, 3:9, 3:6] = 1
    weak, strong = ((warped(x, strength) - x).square().mean((1, 2, 3)) for strength in (0.5, 2.0))
    assert 0 < weak.mean() < strong.mean()
    assert 0.1 < (strong == 0).double().mean() < 0.35
    moved = warped(x, 1.0)
    assert moved.shape == x.shape
    assert 0 <= moved.min() < moved.max() <= 1
    assert len(moved.flatten(1).unique(dim=0)) > 150


@pytest.mark.parametrize("eps", [0.01, 0.3, 1.0])
@pytest.mark.parametrize("steps", [1, 4])
def test_ascent_stays_in_the_ball_and_among_images(
    net: StyleMemoryNet, x: Tensor, y: Tensor, eps: float, steps: int
) -> None:
    x = x.round(decimals=1)  # with pixels at 0 and 1
    moved = ascend(net, x, y, eps, steps)
    assert (moved - x).abs().max() <= eps + 1e-6
    assert moved.min() >= 0
    assert moved.max() <= 1
    assert not moved.requires_grad


@pytest.mark.parametrize("mixture", [0.0, 0.5, 1.0])
def test_ascent_raises_the_loss_of_each_image(
    net: StyleMemoryNet, x: Tensor, y: Tensor, mixture: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the classifier, of the energies and of both, more than a random start does."""
    monkeypatch.setattr("torch.rand", lambda size, device: torch.full((size,), mixture, device=device))

    @torch.no_grad()
    def loss(images: Tensor) -> Tensor:
        logits, energies = net.logits_and_energies(images)
        wrong = logits.masked_fill(one_hot(y, CLASSES).bool(), -torch.inf).argmax(1)
        margin = energies.gather(1, y[:, None]) - energies.gather(1, wrong[:, None])
        return mixture * cross_entropy(logits, y, reduction="none") + (1 - mixture) * softplus(margin[:, 0])

    anywhere = (x + torch.empty_like(x).uniform_(-0.1, 0.1)).clamp(0, 1)
    moved = ascend(net, x, y, 0.1, steps=10)
    assert (loss(moved) > loss(x)).all()
    assert (loss(moved) > loss(anywhere)).all()


class Broken(StyleMemoryNet):
    """A network whose energies fail."""

    def energies(self, x: Tensor, style: Tensor, labels: Tensor | None = None) -> Tensor:
        raise ZeroDivisionError


@pytest.mark.parametrize("kind", [StyleMemoryNet, Broken])
def test_ascent_leaves_the_weights_as_they_were(kind: type[StyleMemoryNet], x: Tensor, y: Tensor) -> None:
    """Frozen ones stay frozen and the others learn, even when the ascent fails; none gets a gradient."""
    model = kind(CLASSES, 3, (1, 12, 8))
    model.conv2.requires_grad_(False)
    flags = {name: weight.requires_grad for name, weight in model.named_parameters()}
    if kind is Broken:
        with pytest.raises(ZeroDivisionError):
            ascend(model, x, y, 0.1, 2)
    else:
        ascend(model, x, y, 0.1, 2)
    assert {name: weight.requires_grad for name, weight in model.named_parameters()} == flags
    assert set(flags.values()) == {True, False}
    assert all(weight.grad is None for weight in model.parameters())
