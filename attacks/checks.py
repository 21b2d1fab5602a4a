"""Signs that an attack failed rather than that the defence held.

N. Carlini et al., "On Evaluating Adversarial Robustness", 2019; M. Pintor et al., "Indicators of Attack Failure",
NeurIPS 2022. A check that fires casts doubt on a low success rate; it does not mean that the model is robust.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .base import Outcome, still
from .goals import Goal, Misclassified, Undetected, scored

LOOKED_AT = 256  # images that the checks look at
TOLERATED = 0.05  # share of images that may show a sign by chance


@dataclass(frozen=True)
class Check:
    """A sign that was seen.

    Attributes:
        name: which.
        message: what was seen, with its figure, and what it casts doubt on.
    """

    name: str
    message: str


def check(model: nn.Module, x: Tensor, y: Tensor, outcome: Outcome, goal: Goal | None = None) -> list[Check]:
    """The signs that this attack on this model failed; empty when there are none.

    Args:
        model: the attacked model, logits (B, K) of images (B, C, H, W) in [0, 1].
        x: (B, C, H, W) clean images.
        y: (B,) true labels.
        outcome: what the attack on them returned.
        goal: what the attack was after; `Misclassified()` by default.
    """
    goal = Misclassified() if goal is None else goal
    some = slice(LOOKED_AT)
    part = Outcome(outcome.x[some], outcome.label[some], outcome.success[some], outcome.distance[some])
    with still(model):
        return list(_signs(model, x[some], y[some], part, goal))


def _signs(model: nn.Module, x: Tensor, y: Tensor, outcome: Outcome, goal: Goal) -> Iterator[Check]:
    leading, *others = goal.parts()
    with torch.no_grad():
        logits, again = model(x), model(x)
        met_when_clean, clean_loss = leading.assess(model, x, y)
        met_now, loss = leading.assess(model, outcome.x, y)
        stands, risen = ~met_when_clean & ~met_now, loss > clean_loss
        met = goal.met(model, outcome.x, y)
    if not torch.equal(logits, again):
        yield Check(
            "random-outputs",
            "two passes over the same images differ; attack the expectation over the model's random numbers",
        )
    if (logits >= 0).all() and torch.allclose(logits.sum(1), torch.ones_like(logits[:, 0]), atol=1e-4):
        yield Check(
            "probabilities",
            "outputs are non-negative and sum to 1: probabilities, not logits; their gradients saturate",
        )
    yield from _gradient_signs("loss", _gradient(lambda moved: leading.assess(model, moved, y)[1], x))
    if any(isinstance(part, Undetected) for part in others):
        yield from _gradient_signs("score", _gradient(scored(model).score, x))
    share = _share(~risen[stands])
    if share > TOLERATED:
        yield Check("loss-not-risen", f"on {share:.0%} of the attacked images that stand the loss did not rise")
    share = _share(met != outcome.success)
    if share > (0 if torch.equal(logits, again) else TOLERATED):
        yield Check("success-miscounted", f"{share:.0%} of the outcomes are not what the model says of them")


def _gradient_signs(of: str, gradient: Tensor) -> Iterator[Check]:
    share = _share(~torch.isfinite(gradient).flatten(1).all(1))
    if share:
        yield Check(f"{of}-gradient-not-finite", f"the {of} has no finite gradient on {share:.0%} of the images")
    share = _share((gradient == 0).flatten(1).all(1))
    if share > TOLERATED:
        yield Check(f"{of}-gradient-zero", f"the gradient of the {of} is zero on {share:.0%} of the images")


def _gradient(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with torch.enable_grad():
        moved = x.detach().clone().requires_grad_()
        values = function(moved).sum()
        if not values.requires_grad:  # cut off from x: no gradient at all
            return torch.zeros_like(x)
        (gradient,) = torch.autograd.grad(values, moved, allow_unused=True)
        return torch.zeros_like(x) if gradient is None else gradient


def _share(flags: Tensor) -> float:
    return flags.double().mean().item() if len(flags) else 0.0
