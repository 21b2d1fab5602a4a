"""The contrastive objective."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from robustrecon import StyleMemoryNet
from robustrecon.training.objectives import contrastive
from robustrecon.training.objectives.contrastive import ContrastiveObjective

CLASSES = 5
QUIET: dict[str, Any] = {"noise": 0.0, "wrong_labels": CLASSES - 1}


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
def metrics(net: StyleMemoryNet, x: Tensor, y: Tensor, **changes: Any) -> dict[str, float]:
    """The objective's metrics by name, without noise, when all steps are done."""
    objective = ContrastiveObjective(net, ContrastiveObjective.Options(**{**QUIET, **changes}))
    return {name: value.item() for name, value in objective(x, y, 1.0).items()}


def test_metrics_are_those_of_a_direct_computation(net: StyleMemoryNet, x: Tensor, y: Tensor) -> None:
    """With all wrong labels the contrast is the cross-entropy on all K negative energies."""
    found = metrics(net, x, y, energy_weight=0.7, reconstruction_weight=0.3)
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
    assert metrics(net, x, y, wrong_labels=2)["contrast"] == pytest.approx(expected, rel=1e-4)


def test_contrast_teaches_encoder_and_decoder(net: StyleMemoryNet, x: Tensor, y: Tensor) -> None:
    """By itself, since the rest of the loss teaches every layer; a style of its own leaves the classifier alone."""
    ContrastiveObjective(net, ContrastiveObjective.Options(**QUIET))(x, y, 1.0)["contrast"].backward()
    for name, weight in net.named_parameters():
        concerned = net.style_tower is None or name.startswith(("style_tower", "un"))
        assert (weight.grad is not None and bool(weight.grad.abs().sum() > 0)) == concerned, name


def test_energies_judge_what_the_network_gets_and_the_drawing_is_of_the_clean_image(
    net: StyleMemoryNet, x: Tensor, y: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    x_adv = (x + 0.2).clamp_max(1)
    monkeypatch.setattr(contrastive, "pgd_for_training", lambda *_: x_adv[4:])
    found = metrics(net, x, y, eps=0.2, clean_share=1 / 3)
    inputs = torch.cat([x[:4], x_adv[4:]])
    with torch.no_grad():
        drawn = net.decode(one_hot(y, CLASSES).float(), net.encode(inputs)[1])
        assert found["cross_entropy"] == pytest.approx(cross_entropy(net(inputs), y).item(), rel=1e-5)
        assert found["contrast"] == pytest.approx(cross_entropy(-net.class_energies(inputs), y).item(), rel=1e-4)
    expected = torch.linalg.vector_norm((drawn - x).flatten(1), dim=1).mean().item()
    assert found["reconstruction"] == pytest.approx(expected, rel=1e-5)


def test_the_radius_grows_and_stays() -> None:
    options = ContrastiveObjective.Options(eps=0.3, ramp=0.4)
    assert [round(options.eps_at(share), 6) for share in (0.0, 0.2, 0.4, 0.9)] == [0.0, 0.15, 0.3, 0.3]
    assert ContrastiveObjective.Options(eps=0.3, ramp=0.0).eps_at(0.0) == 0.3
    assert {ContrastiveObjective.Options().eps_at(share) for share in (0.0, 0.5, 1.0)} == {0.0}


def test_there_are_no_more_wrong_labels_than_classes(net: StyleMemoryNet, x: Tensor, y: Tensor) -> None:
    assert metrics(net, x, y, wrong_labels=99) == metrics(net, x, y, wrong_labels=CLASSES - 1)


def test_the_gap_is_asked_of_clean_images_and_granted_to_adversarial_ones(
    net: StyleMemoryNet, x: Tensor, y: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contrastive, "pgd_for_training", lambda _, images, *rest: 1 - images)
    found = metrics(net, x, y, eps=0.1, margin_gap=2.0, clean_share=0.25)["contrast"]
    true = one_hot(y, CLASSES)
    with torch.no_grad():
        clean = cross_entropy(-(net.class_energies(x[:3]) + 2 * true[:3]), y[:3], reduction="sum")
        adversarial = cross_entropy(-(net.class_energies(1 - x[3:]) - 2 * true[3:]), y[3:], reduction="sum")
    assert found == pytest.approx(((clean + adversarial) / len(x)).item(), rel=1e-4)
    only_clean = cross_entropy(-(net.class_energies(x) + 2 * true), y).item()
    assert metrics(net, x, y, margin_gap=2.0)["contrast"] == pytest.approx(only_clean, rel=1e-4)
