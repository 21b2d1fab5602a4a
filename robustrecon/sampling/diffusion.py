"""Diffusion: noise schedules, and DDIM, which turns noise into samples with a noise predictor."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from ..types import InputError
from .chain import Advance, check_count, check_start, normal

MOST = 0.999  # of the noise that a step of a schedule adds, so that the last image keeps a trace of the first


def linear_alpha_bars(steps: int = 1000) -> Tensor:
    """ᾱ of a schedule whose noise rises linearly, from 1e-4 to 0.02 a step where there are 1000.

    J. Ho, A. Jain, P. Abbeel, "Denoising Diffusion Probabilistic Models", NeurIPS 2020; for other numbers of steps
    rescaled as by P. Dhariwal, A. Nichol, "Diffusion Models Beat GANs on Image Synthesis", NeurIPS 2021.

    Returns:
        (steps + 1,) float64, falling; x_t = √ᾱ_t x_0 + √(1 − ᾱ_t) N(0, 1), so that the first, ᾱ_0, is 1.
    """
    check_count(1, steps, "steps")
    scale = 1000 / steps
    return _alpha_bars(torch.linspace(1e-4 * scale, 0.02 * scale, steps, dtype=torch.float64))


def cosine_alpha_bars(steps: int = 1000) -> Tensor:
    """ᾱ that falls as a squared cosine: (steps + 1,) float64 as of `linear_alpha_bars`.

    A. Nichol, P. Dhariwal, "Improved Denoising Diffusion Probabilistic Models", ICML 2021.
    """
    check_count(1, steps, "steps")
    angle = (torch.linspace(0, 1, steps + 1, dtype=torch.float64) + 0.008) / 1.008 * math.pi / 2
    wanted = angle.cos().square()
    return _alpha_bars(1 - wanted[1:] / wanted[:-1])


def _alpha_bars(betas: Tensor) -> Tensor:
    """From the variances (T,) of the noise that each step adds."""
    return torch.cat([torch.ones(1, dtype=torch.float64), (1 - betas.clamp(max=MOST)).cumprod(0)])


@torch.no_grad()
def ddim(
    noise_of: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    alpha_bars: Tensor,
    steps: int,
    *,
    eta: float = 0.0,
    generator: Generator | None = None,
    advance: Advance | None = None,
) -> Tensor:
    """Denoise x in a few steps of a diffusion that was trained with many.

    J. Song, C. Meng, S. Ermon, "Denoising Diffusion Implicit Models", ICLR 2021, equations 12 and 16.

    Args:
        noise_of: the noise (B, ...) that a network sees in x (B, ...) at timesteps (B,) int64 of 1 to T.
        x: (B, ...) standard normal noise to begin with.
        alpha_bars: (T + 1,) the schedule that the network was trained with.
        steps: of 1 to T; the timesteps are evenly spaced and begin with T.
        eta: share of the noise that is drawn anew, in [0, 1]: with 0 the result depends on x alone, with 1 and all T
            steps this is the sampling of Ho et al. 2020.
        generator: random numbers where eta is above 0; torch's own by default.
        advance: told of each finished step.

    Returns:
        (B, ...) the samples.

    Raises:
        InputError: an argument out of its range, or a result that is not finite; says at which step.
    """
    check_start(x)
    last = len(alpha_bars) - 1
    if not 1 <= steps <= last:
        raise InputError(f"steps: got {steps}, must be in 1 to {last}, the steps of the schedule")
    if not 0 <= eta <= 1:
        raise InputError(f"eta: got {eta!r}, must be in [0, 1]")
    times = torch.linspace(last, 0, steps + 1, dtype=torch.float64).round().long().tolist()
    kept = alpha_bars.tolist()
    for step in range(steps):
        now, then = kept[times[step]], kept[times[step + 1]]
        predicted = noise_of(x, torch.full((len(x),), times[step], device=x.device))
        clean = (x - math.sqrt(1 - now) * predicted) / math.sqrt(now)
        fresh = eta * math.sqrt((1 - then) / (1 - now) * (1 - now / then))
        x = math.sqrt(then) * clean + math.sqrt(1 - then - fresh**2) * predicted
        if fresh > 0:
            x = x + fresh * normal(x, generator)
        if not x.isfinite().all():
            raise InputError(
                f"noise_of: made x not finite at step {step + 1}, at t = {times[step]}, must keep it finite"
            )
        if advance is not None:
            advance(1)
    return x.detach()
