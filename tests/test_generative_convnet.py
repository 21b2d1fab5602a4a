"""The generative ConvNet: the theorems of its paper on a trained network, its objective, and its samples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_resume import assert_same_run, stopped_in_the_second_epoch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from benchmarks.convnet_pictures import basis_functions
from robustrecon import InputError, checkpoint, train
from robustrecon.data import Dataset, Part
from robustrecon.models import GenerativeConvNet
from robustrecon.runtime import recorded
from robustrecon.sampling import Chain, langevin
from robustrecon.training import RECIPES, Objective
from robustrecon.training.objectives import OptionValue, build

BRIEF = replace(
    RECIPES["generative-convnet"],
    name="brief",
    epochs=5,
    least_steps=0,
    batch_size=32,
    learning_rate=1e-2,
    average=0.0,
    model_options={"width": 4},
    objective_options={"steps": 3, "chains_per_class": 20, "classification_weight": 1.0},
)


@pytest.fixture(scope="module")
def few(digits: Dataset) -> Dataset:
    """Some of the digits, in 8×8 pixels."""

    def small(part: Part, n: int) -> Part:
        return Part(interpolate(part.images[:n].float(), size=(8, 8), mode="area").round().byte(), part.y[:n])

    parts = {
        "train": small(digits.train, 960),
        "calibration": small(digits.calibration, 12),
        "test": small(digits.test, 12),
    }
    return replace(digits, **parts)


@pytest.fixture(scope="module")
def trained(few: Dataset, tmp_path_factory: pytest.TempPathFactory) -> GenerativeConvNet:
    """A narrow network after 150 updates, in double precision."""
    model = train(few, tmp_path_factory.mktemp("runs") / "convnet", BRIEF, progress=False)
    assert isinstance(model, GenerativeConvNet)
    return model.double()


@pytest.fixture(scope="module")
def x(few: Dataset) -> Tensor:
    return few.test.x.double()


@pytest.fixture(scope="module")
def y(few: Dataset) -> Tensor:
    return few.test.y


def pattern(net: GenerativeConvNet, x: Tensor) -> Tensor:
    """(B, N) which ReLUs are on."""
    _, outputs = recorded([layer for layer in net.network if isinstance(layer, nn.ReLU)], net, x)
    return torch.cat([output.flatten(1) > 0 for output in outputs], 1)


def within_patterns(net: GenerativeConvNet, x: Tensor, directions: Tensor) -> Tensor:
    """x plus as much of each direction, by halves, as changes no ReLU; pieces are convex, so none changes between."""
    share = torch.ones(len(x), 1, 1, 1).double()
    while (changed := (pattern(net, x) != pattern(net, x + share * directions)).any(1)).any():
        share[changed] /= 2
    return x + share * directions


def normal(x: Tensor, seed: int) -> Tensor:
    return torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=x.dtype)


@pytest.fixture(scope="module")
def near(trained: GenerativeConvNet, x: Tensor) -> Tensor:
    """Other points within the patterns of x, in random directions."""
    return within_patterns(trained, x, normal(x, 1))


def test_f_is_linear_within_a_pattern_and_not_beyond(trained: GenerativeConvNet, x: Tensor, near: Tensor) -> None:
    at_x, at_near = trained.log_ratios(x), trained.log_ratios(near)
    change = at_near - at_x
    assert (change.abs().amax(1) > 1e-4).all()
    for share in (0.25, 0.5, 0.9):
        between = trained.log_ratios(torch.lerp(x, near, share)) - at_x
        torch.testing.assert_close(between, share * change, rtol=1e-5, atol=1e-9)
    labels = torch.zeros(len(x), dtype=torch.int64)
    drawn = trained.reconstruct(x, labels)
    torch.testing.assert_close(trained.reconstruct(near, labels), drawn, rtol=1e-9, atol=0)
    assert (drawn[1:] - drawn[:-1]).abs().amax() > 0.01


def test_the_density_is_a_gaussian_around_the_drawing_within_a_pattern(
    trained: GenerativeConvNet, x: Tensor, near: Tensor, y: Tensor
) -> None:
    """The energy and ‖point − drawing‖² / 2σ² differ by one number in all of a piece."""
    drawing = trained.reconstruct(x, y)

    def constant(points: Tensor) -> Tensor:
        return trained.energy_of(points, y) - (points - drawing).flatten(1).square().sum(1) / (2 * trained.sigma**2)

    assert ((trained.energy_of(near, y) - trained.energy_of(x, y)).abs() > 1e-4).all()
    torch.testing.assert_close(constant(near), constant(x), rtol=0, atol=1e-9)


def test_langevin_follows_the_reconstruction_error(trained: GenerativeConvNet, x: Tensor, y: Tensor) -> None:
    error = trained.reconstruct(x, y) - x
    points = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(trained.energy_of(points, y).sum(), points)
    torch.testing.assert_close(-gradient, error / trained.sigma**2)
    moved = langevin(lambda points: trained.energy_of(points, y), x, 1, 0.1, noise=0).x
    torch.testing.assert_close(moved - x, 0.1**2 / 2 * error / trained.sigma**2)


def test_a_local_mode_is_its_own_drawing(trained: GenerativeConvNet, few: Dataset) -> None:
    """Gradient descent on the energy ends where the auto-encoder changes nothing, or at the edge of a piece."""
    x, y = few.train.head(200).x.double(), few.train.head(200).y
    mode = langevin(lambda points: trained.energy_of(points, y), x, 60, trained.sigma, noise=0).x
    drawn = trained.reconstruct(mode, y)
    inside = (pattern(trained, mode) == pattern(trained, drawn)).all(1)
    assert inside.sum() >= 5
    assert ((mode - x).flatten(1).norm(dim=1) > 0.5).all()
    assert (trained.energy_of(mode, y) < trained.energy_of(x, y)).all()
    torch.testing.assert_close(drawn[inside], mode[inside], rtol=0, atol=1e-4)


def test_one_step_contrastive_divergence_descends_the_reconstruction_error(
    trained: GenerativeConvNet, x: Tensor, y: Tensor
) -> None:
    """Its gradient is −δ²/2σ⁴ times that of ‖x − drawing‖² / 2 where steps δ stay within the pattern.

    Chains with opposite noise are compared, so that the noise averages out.
    """
    drift = (trained.reconstruct(x, y) - x).detach() / trained.sigma**2
    step_size = 1.0
    while True:
        ends = [x + step_size**2 / 2 * drift + sign * step_size * normal(x, 2) for sign in (1, -1)]
        if all(torch.equal(pattern(trained, end), pattern(trained, x)) for end in ends):
            break
        step_size /= 2
    of_images, *of_ends = (trained.log_ratios(points).gather(1, y[:, None]).sum() for points in (x, *ends))
    weights = [weight for name, weight in trained.network.named_parameters() if name.endswith("weight")]
    of_divergence = torch.autograd.grad(of_images - (of_ends[0] + of_ends[1]) / 2, weights)
    of_error = torch.autograd.grad((x - trained.reconstruct(x, y)).square().sum() / 2, weights)
    scale = 2 * trained.sigma**4 / step_size**2
    for one, other in zip(of_divergence, of_error, strict=True):
        assert other.abs().max() > 0.1
        torch.testing.assert_close(-scale * one, other, rtol=1e-5, atol=1e-4)


def test_energies_can_be_differentiated_within_a_pattern(trained: GenerativeConvNet, x: Tensor) -> None:
    """The drawings stay as they are there, so that the gradient is 2 (x − drawing)."""
    points = x[:2].clone().requires_grad_()
    assert torch.autograd.gradcheck(trained.class_energies, points, eps=1e-7, fast_mode=True)
    (gradient,) = torch.autograd.grad(trained.class_energies(points)[:, 3].sum(), points)
    labels = torch.tensor([3, 3])
    torch.testing.assert_close(gradient, 2 * (points - trained.reconstruct(points, labels)))


def objective(model: GenerativeConvNet, **options: OptionValue) -> Objective:
    return build("generative-convnet", model, options)


@pytest.fixture
def tiny() -> GenerativeConvNet:
    torch.manual_seed(0)
    return GenerativeConvNet(n_classes=3, image_shape=(1, 8, 8), width=2)


def batch(n: int = 7) -> tuple[Tensor, Tensor]:
    return torch.rand(n, 1, 8, 8), torch.arange(n) % 2


@pytest.mark.parametrize("chains", ["persistent", "contrastive"])
def test_the_gradient_is_that_of_images_less_that_of_samples(
    tiny: GenerativeConvNet, chains: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through f alone, not through the chains; with the cross-entropy of the labels beside it."""
    x, y = batch()
    begun: list[Tensor] = []
    chain = GenerativeConvNet.chain

    def watched(self: GenerativeConvNet, x: Tensor, *arguments: Any) -> Chain:
        ended = chain(self, x, *arguments)
        begun.extend((x, ended.x))
        return ended

    monkeypatch.setattr(GenerativeConvNet, "chain", watched)
    found = objective(tiny, chains=chains, noise=0.0, classification_weight=2.0)(x, y, 0.0)
    beginnings, samples = begun
    assert torch.equal(beginnings, x) == (chains == "contrastive")
    of_images, of_samples = (tiny.log_ratios(points).gather(1, y[:, None]).mean() for points in (x, samples))
    expected = of_samples - of_images + 2 * cross_entropy(tiny(x), y)
    weights = list(tiny.parameters())
    for one, other in zip(
        torch.autograd.grad(found["loss"], weights), torch.autograd.grad(expected, weights), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_persistent_chains_go_on_within_their_class(tiny: GenerativeConvNet) -> None:
    x, y = batch()
    kept = objective(tiny, chains_per_class=5, restarts=0.0)
    before = kept.own_state()["ends"].clone()
    kept(x, y, 0.0)
    moved = (kept.own_state()["ends"] != before).flatten(2).all(2)
    assert moved.sum(1).tolist() == [4, 3, 0]
    assert objective(tiny, chains="contrastive").own_state()["ends"].numel() == 0


def test_a_stopped_run_goes_on_with_its_chains(few: Dataset, tmp_path: Path) -> None:
    recipe = replace(BRIEF, epochs=3, average=0.5)
    some = replace(few, train=few.train.head(64))
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    train(some, whole, recipe, progress=False)
    with stopped_in_the_second_epoch():
        train(some, broken, recipe, progress=False)
    assert checkpoint.load(broken).tensors["objective.ends"].shape == (10, 20, 1, 8, 8)
    train(some, broken, recipe, resume=True, progress=False)
    assert_same_run(broken, whole)


def test_a_chain_that_diverges_is_one_clear_line(tiny: GenerativeConvNet) -> None:
    with pytest.raises(InputError, match=r"^step_size: got 1e\+10, made the chain diverge at step \d, must be lower$"):
        tiny.sample(torch.tensor([0, 2]), step_size=1e10)


def test_samples(trained: GenerativeConvNet) -> None:
    labels = torch.arange(10).repeat(5)
    drawn, again = (trained.sample(labels, torch.Generator().manual_seed(4), steps=20) for _ in range(2))
    assert torch.equal(drawn, again)
    assert drawn.shape == (50, 1, 8, 8)
    assert 0 <= drawn.min() < drawn.max() <= 1
    assert (trained(drawn).argmax(1) == labels).double().mean() > 0.5
    assert trained.sample(labels[:0]).shape == (0, 1, 8, 8)
    with pytest.raises(InputError, match=r"labels: span \[-1, 3\], must be in \[0, 9\]"):
        trained.sample(torch.tensor([3, -1]))


def test_a_drawing_is_the_sum_of_basis_functions(trained: GenerativeConvNet, x: Tensor, y: Tensor) -> None:
    functions = basis_functions(trained, x, y)
    assert functions.shape == (12, 32, 1, 8, 8)
    torch.testing.assert_close(trained.centre + functions.sum(1), trained.reconstruct(x, y).detach())


@pytest.mark.parametrize("option", [{"sigma": 0.0}, {"centre": 1.5}, {"steps": 0}, {"width": 0}, {"step_size": -1.0}])
def test_bad_options_of_the_model(option: dict[str, float]) -> None:
    (name,) = option
    with pytest.raises(InputError, match=f"{name}: got {option[name]}, must be"):
        GenerativeConvNet(**option)  # type: ignore[arg-type]
