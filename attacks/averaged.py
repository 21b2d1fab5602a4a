"""Models that draw random numbers: decisions on outputs averaged over draws, and how many draws that takes."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .base import at_least
from .goals import require_score
from .precision import PASSES
from .runtime import seeded

TRIED = 16  # passes from which the number of draws is estimated
FLIPS = 0.01  # share of the decisions that may change from one set of draws to another
MOST = 2**16  # draws; more are not worth counting


class Averaged(nn.Module):
    """A model that draws random numbers, as one whose outputs are means over several passes.

    A random model is to be judged by its averaged decision, not by one lucky draw. Where no gradient with respect to
    the images is asked for, the draws are the same each time: labels, scores, thresholds and the success of attacks are
    decided on them. Where one is asked for, the draws are new each time, so that an attack follows the gradient of the
    expectation and does not fit the draws that it is judged by. A search without gradients sees the latter, and fits
    them where they are few: judge its images by another seed. An image's draws depend on its place in the batch.

    The model's `score`, `class_energies`, `reconstruct` and the like are averaged too, where it has them; every other
    attribute is the model's own. To defend a random model, defend its average: `DefendedClassifier(Averaged(model, 64),
    "msp")`.

    A. Athalye, N. Carlini, D. Wagner, "Obfuscated Gradients Give a False Sense of Security", ICML 2018, attack such
    means (EOT).

    Args:
        model: gives logits (B, K) of images (B, C, H, W) in [0, 1].
        draws: number of passes; `draws_needed` estimates how many are enough.
        seed: of the draws that decide.

    Raises:
        InputError: a number out of range.
    """

    def __init__(self, model: nn.Module, draws: int, seed: int = 0) -> None:
        super().__init__()
        self.model = model
        self.draws, self.seed = at_least(1, draws, "draws"), at_least(0, seed, "seed")
        self.training = model.training

    def extra_repr(self) -> str:
        return f"draws={self.draws}, seed={self.seed}"

    def forward(self, x: Tensor) -> Tensor:
        """Mean logits (B, K)."""
        logits: Tensor = self._mean(self.model, x)
        return logits

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            found = getattr(super().__getattr__("model"), name)
        if name == "logits_and_energies":
            return partial(self._logits_and_energies, found)
        return partial(self._mean, found) if name in (*PASSES, "reconstruct") else found

    def _logits_and_energies(self, found: Any, x: Tensor, labels: Any = None) -> Any:
        # A function of the logits gets their means, so that the energies are those of the same labels in all draws.
        return self._mean(found, x, labels(self(x)) if callable(labels) else labels)

    def _mean(self, function: Any, x: Tensor, *others: Any) -> Any:
        if torch.is_grad_enabled() and x.requires_grad:
            return _mean([function(x, *others) for _ in range(self.draws)])
        with seeded(self.seed):
            return _mean([function(x, *others) for _ in range(self.draws)])


@torch.no_grad()
def draws_needed(model: nn.Module, x: Tensor, threshold: float | None = None) -> int | None:
    """About how many draws a random model's outputs are to be averaged over, for decisions that are stable on images x.

    Stable: of the decisions on these images, averaged over so many draws, fewer than 1 % are expected to differ from
    those on the expectation. Estimated from the mean and the spread of the margins in 16 passes, as if they were
    normal; on images near the boundary, such as those that an attack ends on, it takes many draws.

    Args:
        model: gives logits (B, K), and a score (B,) where a threshold is given; in evaluation mode.
        x: (B, C, H, W) images in [0, 1].
        threshold: scores above it are rejected.

    Returns:
        The number, 1 for a model that draws nothing; None where it is more than 65,536.

    Raises:
        InputError: a threshold is given, but the model has no score.
    """
    logits = torch.stack([model(x) for _ in range(TRIED)])
    label, rival = logits.mean(0).topk(2, dim=1).indices.expand(TRIED, -1, -1).split(1, dim=2)
    margins = [logits.gather(2, label) - logits.gather(2, rival)]
    if threshold is not None:
        scored = require_score(model)
        margins.append((torch.stack([scored.score(x) for _ in range(TRIED)]) - threshold)[:, :, None])
    margin = torch.cat(margins, dim=2).double()
    mean, spread = margin.mean(0).abs(), margin.std(0)

    def stable(draws: int) -> bool:
        flips = torch.special.ndtr(-mean * draws**0.5 / spread).nan_to_num(0)  # no margin and no spread: 0 / 0
        return flips.sum(1).mean().item() < FLIPS

    least, most = 1, MOST
    if not stable(most):
        return None
    while least < most:
        middle = (least + most) // 2
        least, most = (least, middle) if stable(middle) else (middle + 1, most)
    return most


def _mean(passes: list[Any]) -> Any:
    if isinstance(passes[0], Tensor):
        return torch.stack(passes).mean(0)
    return tuple(_mean(list(column)) for column in zip(*passes, strict=True))
