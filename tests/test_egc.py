"""EGC: that score, energy and logits are one function, its drawings, its samples and its training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from robustrecon import InputError, train
from robustrecon.data import Dataset
from robustrecon.models import EGC, egc
from robustrecon.models.base import Denoises, Reconstructs, Samples
from robustrecon.models.egc import READINGS, attention_pool
from robustrecon.training import RECIPES
from robustrecon.training.objectives.egc import EGCObjective

SHAPE = (1, 5, 6)


def tiny(reading: str = "pooled", **options: object) -> EGC:
    """A net of 8 channels in double precision, none of whose weights is 0."""
    torch.manual_seed(0)
    net = EGC(3, SHAPE, width=8, reading=reading, **options).double().eval()  # type: ignore[arg-type]
    for weight in net.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    return net


@pytest.fixture
def x() -> Tensor:
    return torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize("reading", READINGS)
class TestIdentities:
    """Score, energy and logits are of one function, by finite differences."""

    T = torch.tensor([1, 200, 900])

    @staticmethod
    def slope(function: object, x: Tensor, direction: Tensor) -> Tensor:
        step = 1e-5
        return (function(x + step * direction) - function(x - step * direction)) / (2 * step)  # type: ignore[operator]

    def test_the_predicted_noise_is_the_gradient_of_the_energy(self, reading: str, x: Tensor) -> None:
        net, direction = tiny(reading), torch.randn_like(x)
        with torch.no_grad():
            logits, noise = net.logits_and_noise(x, self.T)
            expected = self.slope(lambda x: net.log_density(x, self.T), x, direction)
            of_energy = -(noise * direction).flatten(1).sum(1)
            torch.testing.assert_close(of_energy, expected, rtol=1e-6, atol=1e-8)
            torch.testing.assert_close(net.noise_of(x, self.T), noise)
            torch.testing.assert_close(net.logits_at(x, self.T), logits)

    def test_pooled_is_of_the_logits_that_classify_and_map_is_not(self, reading: str, x: Tensor) -> None:
        net = tiny(reading)
        with torch.no_grad():
            density, of_logits = net.log_density(x, self.T), net.logits_at(x, self.T).logsumexp(1)
            assert torch.allclose(density, of_logits) == (reading == "pooled")

    @pytest.mark.parametrize("guidance", [1.0, 3.0])
    def test_under_a_label_it_is_that_of_the_posterior_too(self, reading: str, x: Tensor, guidance: float) -> None:
        net, direction, labels = tiny(reading), torch.randn_like(x), torch.tensor([2, 0, 1])
        added = (1 - net.alpha_bars[self.T]).sqrt()

        def log_joint(x: Tensor) -> Tensor:
            posterior = net.logits_at(x, self.T).log_softmax(1)[range(3), labels]
            return net.log_density(x, self.T) + guidance * added * posterior

        with torch.no_grad():
            noise = net.noise_of(x, self.T, labels, guidance)
            expected = self.slope(log_joint, x, direction)
        torch.testing.assert_close(-(noise * direction).flatten(1).sum(1), expected, rtol=1e-6, atol=1e-8)

    def test_energies_can_be_differentiated_in_x(self, reading: str, x: Tensor) -> None:
        net = tiny(reading, draws=2).requires_grad_(False)
        assert torch.autograd.gradcheck(net.class_energies, x[:1].requires_grad_(), fast_mode=True)


def test_pooling_is_attention_of_the_mean() -> None:
    maps = torch.randn(2, 3, 4).double()
    mean = maps.mean(2)
    for image, centre, found in zip(maps, mean, attention_pool(maps), strict=True):
        tokens = torch.cat([centre[:, None], image], 1)
        torch.testing.assert_close(found, tokens @ (centre @ tokens / 3**0.5).softmax(0))


def test_drawings_are_the_denoised_image(x: Tensor) -> None:
    net, labels = tiny(level=400, draws=2), torch.tensor([0, 2, 1])
    kept, added = net.alpha_bars[400].sqrt(), (1 - net.alpha_bars[400]).sqrt()
    t = torch.full((3,), 400)
    with torch.no_grad():
        expected = torch.zeros_like(x)
        for noise in net.noises:
            x_t = net.noised(x, t, noise.expand_as(x))
            expected += ((x_t - added * net.noise_of(x_t, t, labels)) / kept + 1) / 4
        torch.testing.assert_close(net.reconstruct(x, labels), expected)
        torch.testing.assert_close(net.reconstruct(x), net.reconstruct(x, net(x).argmax(1)))


def test_energies_do_not_depend_on_how_many_images_are_drawn_at_a_time(
    x: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = tiny()

    def energies_and_gradients() -> list[Tensor]:
        images = x.clone().requires_grad_()
        energies = net.class_energies(images)
        wanted = [images, net.unet.first.weight, net.unet.last.weight]
        return [energies.detach(), *torch.autograd.grad(energies.square().sum(), wanted)]

    expected = energies_and_gradients()
    monkeypatch.setattr(egc, "PAIRS", 4)  # one image at a time, drawn again in the backward pass
    torch.testing.assert_close(energies_and_gradients(), expected)


def test_what_it_offers() -> None:
    assert all(isinstance(tiny(), offered) for offered in (Reconstructs, Samples, Denoises))


def test_an_untrained_net_sees_nothing_but_noise() -> None:
    """Its last layer is 0: it predicts √(1 − ᾱ_t) x_t, the best guess of one that sees no image."""
    net, t = EGC(3, SHAPE, width=8), torch.tensor([700])
    x_t = torch.randn(1, *SHAPE)
    torch.testing.assert_close(net.noise_of(x_t, t), (1 - net.alpha_bars[t]).sqrt() * x_t)
    assert not net(torch.rand(2, *SHAPE)).any()


class TestSamples:
    def test_shape_range_and_generator(self) -> None:
        net, labels = tiny().float(), torch.tensor([0, 2])
        one, same, other = (
            net.sample(labels, torch.Generator().manual_seed(seed), steps=3, eta=eta, guidance=2.0)
            for seed, eta in ((4, 1.0), (4, 1.0), (5, 1.0))
        )
        assert one.shape == (2, *SHAPE)
        assert one.min() >= 0
        assert one.max() <= 1
        assert not one.requires_grad
        assert torch.equal(one, same)
        assert not torch.equal(one, other)

    def test_one_image_at_a_time_is_the_same(self, monkeypatch: pytest.MonkeyPatch) -> None:
        net, labels = tiny(), torch.tensor([0, 2, 1])
        expected = net.sample(labels, torch.Generator().manual_seed(0), steps=2)
        monkeypatch.setattr(egc, "SAMPLES", 1)
        torch.testing.assert_close(net.sample(labels, torch.Generator().manual_seed(0), steps=2), expected)

    def test_without_labels_and_watched(self) -> None:
        chain: list[Tensor] = []
        images = tiny().sample(None, n=4, steps=3, watch=chain.append)
        assert images.shape == (4, *SHAPE)
        torch.testing.assert_close(torch.stack(chain)[-1], images)
        assert [each.shape for each in chain] == [images.shape] * 3

    def test_of_pure_noise_are_noise(self) -> None:
        """All that an untrained net knows is N(0, 1), which DDIM leaves as it is but for the range."""
        net = EGC(3, SHAPE, width=8)
        start = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
        chain: list[Tensor] = []
        net.sample(torch.tensor([0, 1]), torch.Generator().manual_seed(0), steps=1, watch=chain.append)
        kept = net.alpha_bars[-1].sqrt()
        torch.testing.assert_close(chain[0], (kept * start + 1) / 2, atol=1e-3, rtol=0)

    def test_wrong_arguments(self) -> None:
        net = tiny()
        with pytest.raises(InputError, match=r"labels: span \[0, 3\], must be in \[0, 2\]"):
            net.sample(torch.tensor([0, 3]))
        with pytest.raises(InputError, match="steps: got 0"):
            net.sample(torch.tensor([0]), steps=0)
        with pytest.raises(InputError, match="n: got 0, must be at least 1"):
            net.sample(None, n=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 12}, "width: got 12, must be a multiple of 8"),
        ({"reading": "maps"}, "reading: unknown name 'maps'; did you mean 'map'"),
        ({"level": 0}, "level: got 0, must be in 1 to 1000"),
        ({"draws": 0}, "draws: got 0, must be at least 1"),
        ({"energy": "joined"}, "energy: unknown name 'joined'; did you mean 'joint'"),
    ],
    ids=str,
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        EGC(3, SHAPE, **options)  # type: ignore[arg-type]


def test_images_of_another_shape_are_told() -> None:
    with pytest.raises(InputError, match=r"x: shape is \(2, 1, 4, 4\), must be \(B, 1, 5, 6\)"):
        tiny()(torch.rand(2, 1, 4, 4))


@pytest.mark.parametrize("reading", READINGS)
def test_the_objective_is_the_papers(reading: str, x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Computed again from the same noise; its gradient is that of finite differences."""
    net, y = tiny(reading), torch.tensor([0, 2, 1])
    objective = EGCObjective(net, EGCObjective.Options(classification_weight=0.3))
    torch.manual_seed(5)
    found = objective(x, y, 0.0)
    torch.manual_seed(5)
    t = 1 + ((torch.rand(1) + torch.arange(3) / 3) % 1 * 1000).long()
    noise = torch.randn_like(x)
    x_t = net.noised(x, t, noise)
    with torch.no_grad():
        denoising = (net.noise_of(x_t, t) - noise).square().mean()
        on_noised, on_clean = (
            cross_entropy(logits, y, reduction="none", label_smoothing=0.2)
            for logits in (net.logits_at(x_t, t), net(x))
        )
    classification = torch.cat([net.alpha_bars[t].sqrt() * on_noised, on_clean]).mean()
    torch.testing.assert_close(found["denoising"], denoising)
    torch.testing.assert_close(found["cross_entropy"], classification)
    torch.testing.assert_close(found["loss"], denoising + 0.3 * classification)
    weight, step = net.unet.first.weight, 1e-5
    (gradient,) = torch.autograd.grad(found["loss"], weight)
    direction = torch.randn_like(weight)
    losses = []
    for sign in (1, -1):
        with torch.no_grad():
            weight.add_(direction, alpha=sign * step)
        torch.manual_seed(5)
        losses.append(objective(x, y, 0.0)["loss"].item())
        with torch.no_grad():
            weight.sub_(direction, alpha=sign * step)
    assert (losses[0] - losses[1]) / (2 * step) == pytest.approx((gradient * direction).sum().item(), rel=1e-5)


def test_gradients_are_clipped(digits: Dataset, tmp_path: Path) -> None:
    """Those of the last step are still there, as they were clipped."""
    few = replace(digits, train=digits.train.head(16), test=digits.test.head(8))
    norms = []
    for clip in (0.0, 0.01):
        changes = {"epochs": 1, "least_steps": 0, "average": 0.0, "model_options": {"width": 8}, "clip": clip}
        trained = train(few, tmp_path / str(clip), replace(RECIPES["egc"], **changes), progress=False)
        gradients = [weight.grad for weight in trained.parameters() if weight.grad is not None]
        norms.append(torch.nn.utils.get_total_norm(gradients).item())
    assert norms[0] > 0.02
    assert norms[1] == pytest.approx(0.01, rel=1e-3)
