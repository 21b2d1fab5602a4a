"""The generative gradient: model, samples, and the objective against explicit importance sampling."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from robustrecon import InputError
from robustrecon.data import Dataset
from robustrecon.models import MODELS
from robustrecon.models.base import Samples
from robustrecon.models.generative_gradient import GenerativeGradientCNN
from robustrecon.training import RECIPES
from robustrecon.training.objectives import build
from robustrecon.training.recipes import default_recipe


@pytest.fixture
def net() -> GenerativeGradientCNN:
    torch.manual_seed(0)
    return GenerativeGradientCNN(3, (1, 6, 5), width=2).double()


@pytest.fixture
def x() -> Tensor:
    return torch.rand(8, 1, 6, 5, dtype=torch.double, generator=torch.Generator().manual_seed(1))


Y = torch.tensor([0, 1, 2, 0, 0, 1, 2, 2])


def test_the_gradient_is_that_of_explicit_importance_sampling(net: GenerativeGradientCNN, x: Tensor) -> None:
    """∂f_y(x)/∂w − Σ_i W_i ∂f_y(x_i)/∂w, with W_i in proportion to exp f_y(x_i), mean over the images."""
    weights = list(net.parameters())

    outputs = net(x)
    gradients = {
        (image, label): torch.autograd.grad(outputs[image, label], weights, retain_graph=True)
        for image in range(8)
        for label in range(3)
    }
    expected = [torch.zeros_like(weight) for weight in weights]
    for image, label in enumerate(Y.tolist()):
        importance = (outputs[:, label].exp() / outputs[:, label].exp().sum()).tolist()
        for index, total in enumerate(expected):
            mean = sum(importance[other] * gradients[other, label][index] for other in range(8))
            total += (gradients[image, label][index] - mean) / 8
    loss = build("generative-gradient", net, {"generative_share": 1.0})(x, Y, 0.5)["loss"]
    for found, wanted in zip(torch.autograd.grad(loss, weights), expected, strict=True):
        torch.testing.assert_close(-found, wanted)


def test_the_steps_are_generative_first_and_then_discriminative(net: GenerativeGradientCNN, x: Tensor) -> None:
    objective = build("generative-gradient", net, {"generative_share": 0.3})
    before, after = (objective(x, Y, progress)["loss"] for progress in (0.29, 0.3))
    logits = net(x)
    columns = logits.T[Y]  # row i: the outputs of all images for the label of image i, which is the one to find
    torch.testing.assert_close(before, cross_entropy(columns, torch.arange(8)))
    torch.testing.assert_close(after, cross_entropy(logits, Y))
    assert objective.uses_progress
    assert not any(build("generative-gradient", net, {"generative_share": share}).uses_progress for share in (0.0, 1.0))


def test_noise_is_added_to_the_images(net: GenerativeGradientCNN, x: Tensor) -> None:
    losses = [build("generative-gradient", net, {"noise": noise})(x, Y, 0.0)["loss"] for noise in (0.0, 0.0, 0.5)]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize(("option", "value"), [("generative_share", 1.1), ("generative_share", -0.1), ("noise", -1.0)])
def test_bad_options(net: GenerativeGradientCNN, option: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{option}: got {value}, must"):
        build("generative-gradient", net, {option: value})


def test_the_recipe_is_the_models_own() -> None:
    assert default_recipe("generative-gradient") == "generative-gradient"
    recipe = RECIPES["generative-gradient"]
    assert (recipe.model, recipe.objective) == ("generative-gradient", "generative-gradient")


def test_drawings_are_the_scaled_gradient_by_finite_differences(net: GenerativeGradientCNN, x: Tensor) -> None:
    labels = torch.tensor([[2, 0]] * 8)
    drawings = net.logits_and_drawings(x, labels)[1].detach()
    assert drawings.shape == (8, 2, 1, 6, 5)
    step = 1e-6 * torch.randn(x.shape, dtype=torch.double, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        slope = (net(x + step) - net(x - step)).gather(1, labels) / 2
    torch.testing.assert_close((drawings * step[:, None]).flatten(2).sum(2), net.sigma**2 / net.temperature * slope)


def test_energies_have_exact_gradients(net: GenerativeGradientCNN, x: Tensor) -> None:
    assert torch.autograd.gradcheck(net.class_energies, x[:2].requires_grad_())
    weights = list(net.parameters())
    some = torch.autograd.grad(net.class_energies(x[:2].detach()).sum(), weights[:-1])  # all but the last shift
    assert sum(float(part.abs().sum()) for part in some) > 0


def test_the_energy_of_the_density_falls_towards_the_drawing(net: GenerativeGradientCNN, x: Tensor) -> None:
    """Its gradient is (x − drawing) / σ²."""
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(net.energy_of(x, Y).sum(), x)
    torch.testing.assert_close(gradient, (x - net.reconstruct(x, Y)) / net.sigma**2)


class Linear(GenerativeGradientCNN):
    """With outputs that are linear in the image, so that p(x|k) is a Gaussian around the drawing."""

    def __init__(self) -> None:
        super().__init__(2, (1, 4, 4), sigma=0.1, temperature=0.02)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
        nn.init.constant_(self.layers[1].weight[0], 1.0)
        nn.init.constant_(self.layers[1].weight[1], 0.5)


def test_samples_are_of_the_density() -> None:
    torch.manual_seed(0)
    model = Linear()
    labels = torch.tensor([0, 1]).repeat_interleave(30)
    samples = model.sample(labels, torch.Generator().manual_seed(0), steps=5, warm_up=15)
    assert samples.shape == (60, 1, 4, 4)
    for label, mean in ((0, 0.5), (1, 0.25)):  # σ² / T = 0.5 times the weights
        pixels = samples[labels == label]
        assert pixels.mean() == pytest.approx(mean, abs=0.03)
        assert pixels.std() == pytest.approx(0.1, abs=0.02)
    again = model.sample(labels, torch.Generator().manual_seed(0), steps=5, warm_up=15)
    assert torch.equal(samples, again)
    assert isinstance(model, Samples)


def test_bad_labels_and_bad_arguments(net: GenerativeGradientCNN) -> None:
    with pytest.raises(InputError, match=r"labels: span \[0, 3\], must be in \[0, 2\]"):
        net.sample(torch.tensor([0, 3]))
    for options, message in (
        ({"width": 0}, "width: got 0, must be at least 1"),
        ({"sigma": 0.0}, r"sigma: got 0\.0, must be above 0"),
        ({"temperature": float("inf")}, "temperature: got inf, must be above 0 and finite"),
        ({"image_shape": (1, 3, 28)}, r"image_shape: got \(1, 3, 28\), height and width must be at least 4"),
    ):
        with pytest.raises(InputError, match=message):
            MODELS["generative-gradient"](**options)


def test_it_learns_the_digits(digits: Dataset) -> None:
    """After generative steps alone most images have a larger output for their class than most others have."""
    torch.manual_seed(0)
    model = GenerativeGradientCNN(width=4)
    objective = build("generative-gradient", model, {"generative_share": 0.5})
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    part = digits.train.head(100)
    for step in range(30):
        loss = objective(part.x, part.y, step / 30)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    test = digits.test.head(100)
    assert (model(test.x).argmax(1) == test.y).float().mean() > 0.6
