"""The odds are odd: how do the logits change under noise, and is that usual for the predicted label?"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .base import Evidence, FittedDetector, gathered

NOISE_LEVELS = (0.05, 0.1, 0.2)  # standard deviations, in units of the pixels
DRAWS = 8  # at each level
PER_CLASS = 200  # training images, at most
LEAST = 1e-6  # of a standard deviation


class Odds(FittedDetector):
    """max over k ≠ p and noise levels of (g[p, k] − μ[p, k]) / σ[p, k], g the change of f[k] − f[p] under noise.

    g is the mean over 8 draws of Gaussian noise, at standard deviations 0.05, 0.1 and 0.2; μ and σ (K, K) are its mean
    and standard deviation over up to 200 training images of class p. The draws are the same for all images and at all
    times, so that the score is deterministic and has the exact gradient. Noisy images are not clipped to [0, 1]. Costs
    24 passes, where the paper takes 256 draws.

    K. Roth, Y. Kilcher, T. Hofmann, "The Odds are Odd: A Statistical Test for Detecting Adversarial Examples", ICML
    2019.
    """

    name = "odds"
    several_passes = True
    mean: Tensor
    std: Tensor

    def statistics(self, model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        chosen = torch.cat([(y == k).nonzero()[:PER_CLASS, 0] for k in y.unique()])
        shifts = gathered(model, x[chosen], logit_shifts)  # (N, L, K)
        y = y[chosen].to(shifts.device)
        overall = _mean_and_std(shifts[:, :, None, :] - shifts[:, :, :, None])
        per_class = []
        for k in range(shifts.shape[2]):
            of_class = shifts[y == k]
            change = of_class - of_class[:, :, k : k + 1]
            per_class.append(_mean_and_std(change) if len(change) > 1 else tuple(part[:, k] for part in overall))
        mean, std = (torch.stack(part, 1) for part in zip(*per_class, strict=True))
        return {"mean": mean, "std": std}

    def score(self, evidence: Evidence) -> Tensor:
        shifts, p = evidence.cached(self, lambda: logit_shifts(evidence)), evidence.predicted
        index = p[:, None, None].expand(-1, shifts.shape[1], 1)
        change = shifts - shifts.gather(2, index)
        usual, spread = (part[:, p].transpose(0, 1).to(change) for part in (self.mean, self.std))
        odd = ((change - usual) / spread).scatter(2, index, -torch.inf)
        return odd.amax((1, 2))


def logit_shifts(evidence: Evidence) -> Tensor:
    """(B, L, K): by how much the logits change on average under noise of each of L levels."""
    x = evidence.x
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(DRAWS, *x.shape[1:], generator=generator).to(x)
    means = []
    for level in NOISE_LEVELS:
        logits = sum(Evidence(evidence.model, x + level * draw).logits for draw in noise)
        means.append(logits / DRAWS - evidence.logits)
    return torch.stack(means, 1)


def _mean_and_std(values: Tensor) -> tuple[Tensor, Tensor]:
    return values.mean(0), values.std(0).clamp_min(LEAST)
