"""Samplers against distributions that are known: exact where they claim it, biased by the known amount where not."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from functools import partial

import pytest
import torch
from scipy.stats import chi2
from torch import Tensor, nn

from robustrecon import InputError
from robustrecon.sampling import Chain, cosine_alpha_bars, ddim, hmc, langevin, leapfrog, linear_alpha_bars

MEAN = torch.tensor([1.0, -2.0])
COVARIANCE = torch.tensor([[1.0, 0.5], [0.5, 0.8]])
PRECISION = COVARIANCE.inverse()
LOW, HIGH, SPREAD, SHARE = -1.5, 1.5, 0.7, 0.7  # of a mixture on a line: its means, deviation, and share of the higher
STEP = 0.9  # at which Langevin dynamics is visibly biased
MALA = partial(langevin, step_size=STEP, adjusted=True)
HMC = partial(hmc, step_size=0.5, leapfrog_steps=5)
EXACT = pytest.mark.parametrize("sampler", [MALA, HMC], ids=["mala", "hmc"])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian(x: Tensor) -> Tensor:
    return ((x - MEAN) @ PRECISION * (x - MEAN)).sum(1) / 2


def harmonic(x: Tensor) -> Tensor:
    return x.flatten(1).square().sum(1) / 2


def mixture(x: Tensor) -> Tensor:
    logs = [math.log(p) - ((x[:, 0] - m) / SPREAD).square() / 2 for m, p in ((LOW, 1 - SHARE), (HIGH, SHARE))]
    return -torch.stack(logs).logsumexp(0)


def of_mixture(n: int, generator: torch.Generator) -> Tensor:
    means = torch.where(torch.rand(n, 1, generator=generator) < SHARE, HIGH, LOW)
    return means + SPREAD * torch.randn(n, 1, generator=generator)


def check_moments(x: Tensor, mean: Tensor, covariance: Tensor) -> None:
    """Mean and covariance of samples (N, D) are within 5 standard errors."""
    variances = covariance.diag()
    assert ((x.mean(0) - mean).abs() < 5 * (variances / len(x)).sqrt()).all(), x.mean(0)
    error = ((variances[:, None] * variances + covariance.square()) / len(x)).sqrt()
    assert ((x.T.cov() - covariance).abs() < 5 * error).all(), x.T.cov()


@EXACT
def test_exact_samplers_have_the_mean_and_the_covariance_of_a_gaussian(sampler: Callable[..., Chain]) -> None:
    chain = sampler(gaussian, torch.zeros(10_000, 2), 40, generator=seeded())
    check_moments(chain.x, MEAN, COVARIANCE)


@pytest.mark.parametrize("noise", [1.0, 0.5])
def test_unadjusted_langevin_is_biased_as_theory_says(noise: float) -> None:
    """Its stationary covariance on a Gaussian of precision P is noise² (P − step_size² P² / 4)⁻¹."""
    chain = langevin(gaussian, torch.zeros(10_000, 2), 40, STEP, noise=noise, generator=seeded())
    biased = (PRECISION - STEP**2 / 4 * PRECISION @ PRECISION).inverse()
    check_moments(chain.x, MEAN, noise**2 * biased)
    assert (chain.accepted == 1).all()
    with pytest.raises(AssertionError):
        check_moments(chain.x, MEAN, noise**2 * COVARIANCE)


def test_with_less_noise_the_adjusted_one_samples_the_colder_density() -> None:
    chain = MALA(gaussian, torch.zeros(10_000, 2), 40, noise=0.5, generator=seeded())
    check_moments(chain.x, MEAN, COVARIANCE / 4)


def test_without_noise_it_is_gradient_descent() -> None:
    chain = langevin(gaussian, torch.zeros(3, 2), 80, STEP, noise=0)
    torch.testing.assert_close(chain.x, MEAN.expand(3, 2))


@EXACT
def test_exact_samplers_find_both_parts_of_a_mixture_and_their_shares(sampler: Callable[..., Chain]) -> None:
    chain = sampler(mixture, torch.zeros(10_000, 1), 90, generator=seeded())
    right = math.erf(HIGH / SPREAD / math.sqrt(2)) / 2 + 0.5
    share = SHARE * right + (1 - SHARE) * (1 - right)
    assert (chain.x > 0).float().mean().item() == pytest.approx(share, abs=5 * 0.5 / 100)
    mean = SHARE * HIGH + (1 - SHARE) * LOW
    variance = SPREAD**2 + SHARE * (1 - SHARE) * (HIGH - LOW) ** 2
    assert chain.x.mean().item() == pytest.approx(mean, abs=5 * math.sqrt(variance) / 100)
    assert chain.x.var().item() == pytest.approx(variance, abs=5 * math.sqrt(2) * variance / 100)


@pytest.mark.parametrize("step_size", [1.0, 1.5])
@pytest.mark.parametrize("name", ["mala", "hmc"])
def test_the_acceptance_rate_is_that_of_a_closed_form(name: str, step_size: float) -> None:
    """A step of either from x ~ N(0, 1) is linear: twice the probability that it comes nearer to 0 is accepted."""
    method = partial(langevin, adjusted=True) if name == "mala" else partial(hmc, leapfrog_steps=1)
    chain = method(harmonic, torch.randn(20_000, 1, generator=seeded(1)), 10, step_size=step_size, generator=seeded())
    s2 = step_size**2
    correlation = -(s2**2) / 4 / math.sqrt((s2 + s2**2 / 4) * (4 - s2 + s2**2 / 4))
    assert chain.acceptance == pytest.approx(1 + 2 / math.pi * math.asin(correlation), abs=0.005)
    assert set(chain.accepted.unique().tolist()) == {0, 1}


@pytest.mark.parametrize(("sampler", "balanced"), [(MALA, True), (HMC, True), (partial(MALA, adjusted=False), False)])
def test_detailed_balance(sampler: Callable[..., Chain], balanced: bool) -> None:
    """From the density itself, as many go from one bin to another as the other way round."""
    x = of_mixture(100_000, seeded(1))
    edges = torch.linspace(-2, 2, 7)
    before, after = (
        torch.bucketize(points[:, 0], edges) for points in (x, sampler(mixture, x, 1, generator=seeded()).x)
    )
    counts = torch.zeros(8, 8).index_put((before, after), torch.ones(len(x)), accumulate=True)
    both = counts + counts.T
    pairs = both.triu(1) >= 20
    statistic = ((counts - counts.T).square() / both)[pairs].sum().item()
    assert (statistic < chi2.ppf(0.9999, int(pairs.sum()))) == balanced, statistic


def coupled(x: Tensor) -> Tensor:
    return x.pow(4).sum(1) / 4 + (x[:, 0] * x[:, 1]).sin()


def test_leapfrog_is_reversible() -> None:
    x, momentum = (torch.randn(50, 2, generator=seeded(i), dtype=torch.float64) for i in (1, 2))
    there, turned = leapfrog(coupled, x, momentum, 0.1, 20)
    assert (there - x).abs().mean() > 0.5
    back, again = leapfrog(coupled, there, -turned, 0.1, 20)
    torch.testing.assert_close((back, -again), (x, momentum))


def test_leapfrog_preserves_volume() -> None:
    """The determinant of the Jacobian of (x, momentum), by central differences, is 1."""
    h = 1e-5
    start = torch.tensor([0.7, -0.4, 0.3, 1.1], dtype=torch.float64)
    nearby = torch.cat([start + h * torch.eye(4), start - h * torch.eye(4)])
    ends = torch.cat(leapfrog(coupled, nearby[:, :2], nearby[:, 2:], 0.2, 10), 1)
    jacobian = (ends[:4] - ends[4:]) / (2 * h)
    assert (jacobian - torch.eye(4)).abs().max() > 0.5
    assert jacobian.det().item() == pytest.approx(1, abs=1e-6)


def test_leapfrog_follows_hamiltons_equations_to_second_order() -> None:
    x, momentum = (torch.randn(5, 3, generator=seeded(i), dtype=torch.float64) for i in (1, 2))
    errors = []
    for steps in (50, 100):
        end, turned = leapfrog(harmonic, x, momentum, 1 / steps, steps)
        rotated = x * math.cos(1) + momentum * math.sin(1), momentum * math.cos(1) - x * math.sin(1)
        errors.append(max((end - rotated[0]).abs().max().item(), (turned - rotated[1]).abs().max().item()))
    assert errors[1] < 1e-4
    assert errors[0] / errors[1] == pytest.approx(4, abs=0.1)


@pytest.mark.parametrize(("first", "target"), [(1e-3, 0.8), (30.0, 0.9)])
def test_the_step_size_adapts_to_the_acceptance_rate(first: float, target: float) -> None:
    scales = torch.linspace(0.2, 1, 20)
    x = scales * torch.randn(50, 20, generator=seeded(1))
    steps: list[int] = []
    chain = hmc(
        lambda x: harmonic(x / scales),
        x,
        60,
        step_size=first,
        warm_up=120,
        target_acceptance=target,
        generator=seeded(),
        advance=steps.append,
    )
    assert chain.acceptance == pytest.approx(target, abs=0.05)
    assert chain.accepted.shape == chain.energies.shape == (60, 50)
    assert len(steps) == sum(steps) == 180


def test_hmc_does_not_go_round_in_periods() -> None:
    """Paths of one length, half a period of the Gaussian, would all lead to the energy where they began."""
    x = torch.randn(16, 400, generator=seeded(1))
    energies = hmc(harmonic, x, 100, step_size=math.pi / 10, leapfrog_steps=10, generator=seeded()).energies
    deviations = energies - energies.mean()
    assert (deviations[1:] * deviations[:-1]).mean() < 0.85 * deviations.square().mean()


def noise_of(x: Tensor, t: Tensor, alpha_bars: Tensor, mean: float, deviation: float) -> Tensor:
    """The best prediction of the noise in x_t where x_0 ~ N(mean, deviation²)."""
    kept = alpha_bars[t].view(-1, 1).to(x)
    return (1 - kept).sqrt() * (x - kept.sqrt() * mean) / (kept * deviation**2 + 1 - kept)


SCHEDULES = pytest.mark.parametrize("alpha_bars", [linear_alpha_bars(), cosine_alpha_bars()], ids=["linear", "cosine"])


@SCHEDULES
@pytest.mark.parametrize(("steps", "deviation"), [(1, 0.0), (7, 0.0), (10, 0.3), (1000, 0.3)])
def test_ddim_on_a_gaussian_is_the_closed_form(alpha_bars: Tensor, steps: int, deviation: float) -> None:
    """Each step multiplies the distance to the mean by a known factor; in the limit x_0 = mean + deviation · noise."""
    x = torch.randn(100, 1, generator=seeded(), dtype=torch.float64)
    seen: list[int] = []

    def predict(x: Tensor, t: Tensor) -> Tensor:
        assert (t.shape, t.dtype) == ((100,), torch.int64)
        seen.append(int(t[0]))
        return noise_of(x, t, alpha_bars, 0.5, deviation)

    made = ddim(predict, x, alpha_bars, steps)
    assert seen == [round(1000 - i * 1000 / steps) for i in range(steps)]
    angles = alpha_bars.sqrt().arccos()
    factor = 1.0
    for now, then in zip(seen, [*seen[1:], 0], strict=True):
        a, b = angles[now], angles[then]
        kept = a.cos() * b.cos() * deviation**2 + a.sin() * b.sin()
        factor *= (kept / (a.cos() ** 2 * deviation**2 + a.sin() ** 2)).item()
    torch.testing.assert_close(made, 0.5 + factor * (x - alpha_bars[-1].sqrt() * 0.5))
    if steps == 1000:
        assert factor == pytest.approx(deviation, rel=0.02)


def test_ddim_with_fresh_noise_has_the_mean_and_the_variance() -> None:
    alpha_bars = linear_alpha_bars()
    predict = partial(noise_of, alpha_bars=alpha_bars, mean=0.5, deviation=0.3)
    start = torch.randn(4000, 1, generator=seeded(1))
    made = ddim(predict, start, alpha_bars, 500, eta=1, generator=seeded())
    check_moments(made, torch.tensor([0.5]), torch.tensor([[0.09]]))
    assert start.T.squeeze().dot(made.squeeze() - 0.5).abs() / 4000 < 5 * 0.3 / math.sqrt(4000), "depends on the start"


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_ddim_draws_the_noise_of_the_posterior_anew(eta: float) -> None:
    """Its deviation is eta times that of Ho et al. 2020, whose square is (1 − ᾱ_1) / (1 − ᾱ_2) · β_2; lastly none."""
    one, two = 0.9, 0.6
    made = ddim(
        lambda x, t: torch.zeros_like(x),
        torch.zeros(10_000, 1),
        torch.tensor([1, one, two]),
        2,
        eta=eta,
        generator=seeded(),
    )
    variance = (1 - one) / (1 - two) * (1 - two / one)
    check_moments(made, torch.zeros(1), torch.full((1, 1), eta**2 * variance / one))


def test_schedules() -> None:
    linear, cosine = linear_alpha_bars(), cosine_alpha_bars()
    assert linear[1].item() == pytest.approx(1 - 1e-4)
    assert linear[-1].item() == pytest.approx(4.036e-5, rel=1e-3)  # of Ho et al. 2020
    f = [math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in (0, 500)]
    assert cosine[500].item() == pytest.approx(f[1] / f[0])
    for schedule in (linear, cosine, linear_alpha_bars(4), cosine_alpha_bars(4)):
        assert schedule.dtype == torch.float64
        assert schedule[0] == 1
        assert (schedule.diff() < 0).all()
        assert schedule[-1] > 0
    assert (linear_alpha_bars(100) - linear[::10]).abs().max() < 0.02


SAMPLERS = {
    "langevin": partial(langevin, steps=4, step_size=0.1),
    "mala": partial(langevin, steps=4, step_size=0.1, adjusted=True),
    "hmc": partial(hmc, steps=4, step_size=0.1),
}


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_chains_keep_no_gradient_and_no_image_of_earlier_steps(sampler: Callable[..., Chain]) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 1)).requires_grad_(False)
    seen: list[weakref.ref[Tensor]] = []

    def energy(x: Tensor) -> Tensor:
        assert sum(earlier() is not None for earlier in seen) <= 2
        seen.append(weakref.ref(x))
        return network(x).squeeze(1) + harmonic(x)

    x = torch.randn(5, 3, 2, 2, generator=seeded())
    before = x.clone()
    with torch.no_grad():
        chain = sampler(energy, x, generator=seeded())
    network.requires_grad_(True)
    steps: list[int] = []
    again = sampler(energy, x, generator=seeded(), advance=steps.append)
    assert torch.equal(chain.x, again.x)
    assert not any(tensor.requires_grad for tensor in (again.x, again.accepted, again.energies))
    assert all(weight.grad is None for weight in network.parameters())
    assert torch.equal(x, before)
    assert chain.x.shape == x.shape
    assert set(steps) == {1}
    torch.testing.assert_close(chain.energies[0], energy(x).detach())
    assert not torch.equal(chain.x, sampler(energy, x, generator=seeded(1)).x)


X = torch.ones(2, 3)
AB = linear_alpha_bars(10)
WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "langevin": (
        lambda: langevin(harmonic, X, 999, 3.0),
        r"step_size: got 3, made the chain diverge at step \d\d, must",
    ),
    "mala": (lambda: langevin(harmonic, X, 9, 1e30, adjusted=True), "step_size: got 1e[+]30, made .* at step 1, must"),
    "hmc": (lambda: hmc(harmonic, X, 9, step_size=1e30), "step_size: got 1e[+]30, made .* diverge at step 1, must"),
    "ddim": (lambda: ddim(lambda x, t: x / 0, X, AB, 5), "noise_of: made x not finite at step 1, at t = 10, must"),
    "start": (lambda: langevin(lambda x: x.log().sum(1), -X, 9, 0.1), "energy: not finite.* where 2 of 2 chains begin"),
    "x": (lambda: langevin(harmonic, X / 0, 9, 0.1), "x: got torch.float32 .*must be finite"),
    "whole": (lambda: hmc(harmonic, X.long(), 9, step_size=0.1), "x: got torch.int64"),
    "energy": (lambda: langevin(torch.square, X, 9, 0.1), r"energy: gave \(2, 3\), must give \(2,\)"),
    "steps": (lambda: langevin(harmonic, X, 0, 0.1), "steps: got 0, must be at least 1"),
    "step_size": (lambda: langevin(harmonic, X, 1, 0.0), "step_size: got 0.0, must be above 0"),
    "noise": (lambda: langevin(harmonic, X, 1, 0.1, noise=-1), "noise: got -1, must be finite and not negative"),
    "no noise": (lambda: langevin(harmonic, X, 1, 0.1, noise=0, adjusted=True), "noise: got 0, must be .* above 0"),
    "leapfrog": (lambda: hmc(harmonic, X, 1, step_size=0.1, leapfrog_steps=0), "leapfrog_steps: got 0"),
    "warm_up": (lambda: hmc(harmonic, X, 1, step_size=0.1, warm_up=-1), "warm_up: got -1, must be at least 0"),
    "target": (lambda: hmc(harmonic, X, 1, step_size=0.1, target_acceptance=1), "target_acceptance: got 1, must be in"),
    "schedule": (lambda: linear_alpha_bars(0), "steps: got 0"),
    "too many": (lambda: ddim(noise_of, X, AB, 11), "steps: got 11, must be in 1 to 10"),
    "eta": (lambda: ddim(noise_of, X, AB, 5, eta=1.5), r"eta: got 1.5, must be in \[0, 1\]"),
}


@pytest.mark.parametrize(("call", "message"), WRONG.values(), ids=WRONG)
def test_errors_name_the_argument(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


def test_hmc_survives_a_first_step_size_that_diverges() -> None:
    chain = hmc(harmonic, X, 20, step_size=1e12, warm_up=120, generator=seeded())
    assert chain.step_size < 3
    assert chain.acceptance > 0.4


def test_no_chains_are_no_error() -> None:
    none = torch.zeros(0, 3)
    assert langevin(harmonic, none, 2, 0.1, adjusted=True).x.shape == (0, 3)
    assert hmc(harmonic, none, 2, step_size=0.1, warm_up=2).x.shape == (0, 3)
    assert ddim(lambda x, t: x, none, linear_alpha_bars(10), 2).shape == (0, 3)
