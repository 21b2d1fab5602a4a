"""Checks for signs that the attack failed, not that the defence is robust.

N. Carlini et al., "On Evaluating Adversarial Robustness", 2019; M. Pintor et al., "Indicators of Attack Failure",
NeurIPS 2022. A check that fires casts doubt on a low success rate; it does not mean that the model is robust.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .averaged import MOST, Averaged, draws_needed
from .base import Attack, Outcome
from .errors import NonFiniteLoss
from .goals import Goal, Misclassified, Rejected, Undetected, has_score, require_score
from .probes import MORE_STEPS, QUERIES, input_gradient, more_steps, random_search, with_whole_space
from .runtime import frozen_eval, seeded
from .threat import Threat

CHECKED = 256  # images that the checks use
PROBED = 8  # one image of so many, at least so many, is attacked again if it remains: cheap beside the attack
TOLERATED = 0.05  # share of images that may show a sign by chance
ROUNDING = 1e-5  # share of the largest output by which two passes may differ
SIZABLE = 0.25  # share of the remaining images; a few more steps always help some
MARKED = 0.5  # share of the rise in loss that the attack reached

CHECKS: dict[str, str] = {
    "random-outputs": "two passes over the same images differ, and so does the gradient from pass to pass",
    "probabilities": "the outputs are probabilities, not logits: their gradients saturate",
    "loss-gradient-not-finite": "the loss has no finite gradient to follow",
    "loss-gradient-zero": "the gradient of the loss is zero: masked, saturated or cut off",
    "score-gradient-not-finite": "the detector's score has no finite gradient to follow",
    "score-gradient-zero": "the gradient of the detector's score is zero: masked, saturated or cut off",
    "loss-not-risen": "the loss where the attack ended is no higher than on the clean images",
    "success-miscounted": "the outcome's successes are not those that the model's outputs show",
    "accuracy-not-zero": "images remain unbroken even when the attack may change them into any image",
    "black-box-beats-white-box": "a short random search without gradients finds successes that the attack missed",
    "bfloat16-missed": "run again on images that it left, the attack breaks more in float32 than in bfloat16",
    "stopped-early": "a few plain gradient steps from where the attack ended still raise the loss a lot",
}


@dataclass(frozen=True)
class Check:
    """A check that fired.

    Attributes:
        name: its name in `CHECKS`.
        message: what was measured, with the number.
    """

    name: str
    message: str

    def __post_init__(self) -> None:
        if self.name not in CHECKS:
            raise KeyError(f"{self.name!r} is not listed in CHECKS")


def check(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    outcome: Outcome,
    goal: Goal | None = None,
    attack: Attack | None = None,
) -> list[Check]:
    """The checks that fire for this attack on this model; empty when none does.

    Args:
        model: the attacked model, logits (B, K) of images (B, C, H, W) in [0, 1].
        x: (B, C, H, W) clean images.
        y: (B,) true labels.
        outcome: the outcome of the attack on these images.
        goal: the goal of the attack; `Misclassified()` by default.
        attack: the attack. When it is given, some of the remaining images are attacked again for the checks
            "accuracy-not-zero", "black-box-beats-white-box", "bfloat16-missed" and "stopped-early".
    """
    goal = Misclassified() if goal is None else goal
    some = slice(CHECKED)
    x, y = x[some], y[some]
    part = Outcome(outcome.x[some], outcome.label[some], outcome.success[some], outcome.distance[some])
    with frozen_eval(model), seeded(0):
        signs = list(_signs(model, x, y, part, goal))
        if attack is not None and attack.threat.eps > 0:
            signs += _probed(model, x, y, part, goal, attack)
    return signs


def _signs(model: nn.Module, x: Tensor, y: Tensor, outcome: Outcome, goal: Goal) -> Iterator[Check]:
    leading, *others = goal.parts()
    with torch.no_grad():
        logits, again = model(x), model(x)
        met_when_clean, clean_loss = leading.assess(model, x, y)
        met_now, loss = leading.assess(model, outcome.x, y)
        remaining, risen = ~met_when_clean & ~met_now, loss > clean_loss
        met = goal.met(model, outcome.x, y)
    random = _differ(logits, again)
    if others and has_score(model):
        with torch.no_grad():
            random |= _differ(model.score(x), model.score(x))
    if random:
        yield Check("random-outputs", _random(model, outcome.x, goal))
    if (logits >= 0).all() and torch.allclose(logits.sum(1), torch.ones_like(logits[:, 0]), atol=1e-4):
        yield Check(
            "probabilities",
            "outputs are non-negative and sum to 1: probabilities, not logits; their gradients saturate",
        )
    yield from _gradient_signs("loss", input_gradient(lambda point: leading.assess(model, point, y)[1], x))
    if any(isinstance(part, Undetected) for part in others):
        yield from _gradient_signs("score", input_gradient(require_score(model).score, x))
    share = _share(~risen[remaining])
    if share > TOLERATED:
        yield Check("loss-not-risen", f"the loss did not rise on {share:.0%} of the attacked images that remain")
    share = _share(met != outcome.success)
    random |= any(isinstance(part, Averaged) for part in model.modules())  # draws depend on the place in a batch
    if share > (TOLERATED if random else 0):
        yield Check("success-miscounted", f"{share:.0%} of the outcomes disagree with the model's outputs")


def _random(model: nn.Module, x: Tensor, goal: Goal) -> str:
    thresholds = [part.threshold for part in goal.parts() if isinstance(part, (Undetected, Rejected))]
    draws = draws_needed(model, x, min(thresholds, default=None))
    wrapped = f"more than {MOST} draws" if draws is None else f"attacks.Averaged(model, draws={draws})"
    return (
        "two passes over the same images differ, so a lucky draw counts as success; attack and judge averaged outputs: "
        f"{wrapped}, for decisions on the attacked images of which fewer than 1 % change from draws to draws"
    )


def _differ(once: Tensor, again: Tensor) -> bool:
    """Whether two passes differ by more than the order in which a GPU happens to add numbers."""
    size = once[once.isfinite()].abs().amax().item() if once.isfinite().any() else 0.0
    return not torch.allclose(once, again, rtol=0, atol=ROUNDING * size, equal_nan=True)


def _gradient_signs(of: str, grad: Tensor) -> Iterator[Check]:
    share = _share(~torch.isfinite(grad).flatten(1).all(1))
    if share:
        yield Check(f"{of}-gradient-not-finite", f"the {of} has no finite gradient on {share:.0%} of the images")
    share = _share((grad == 0).flatten(1).all(1))
    if share > TOLERATED:
        yield Check(f"{of}-gradient-zero", f"the gradient of the {of} is zero on {share:.0%} of the images")


def _probed(model: nn.Module, x: Tensor, y: Tensor, outcome: Outcome, goal: Goal, attack: Attack) -> Iterator[Check]:
    n = max(PROBED, len(x) // PROBED)
    rows = (~goal.met(model, outcome.x, y) & ~goal.met(model, x, y)).nonzero()[:n, 0]
    if len(rows):
        yield from _reaches_zero(model, x[rows], y[rows], goal, attack)
        yield from _beaten_by_search(model, x[rows], y[rows], goal, attack.threat)
        if attack.resolved_precision(model, x[rows]) == "bfloat16":
            yield from _missed_in_bfloat16(model, x[rows], y[rows], goal, attack)
        yield from _stopped_early(model, x[rows], y[rows], outcome.x[rows], goal, attack.threat)


def _reaches_zero(model: nn.Module, x: Tensor, y: Tensor, goal: Goal, attack: Attack) -> Iterator[Check]:
    widened = with_whole_space(attack, x)
    budget = f"{widened.threat.norm} {widened.threat.eps:g}"
    try:
        x_adv = widened(model, x, y, goal).x
    except NonFiniteLoss as error:
        yield Check("loss-gradient-not-finite", f"with a budget of {budget} the attack stopped with an error: {error}")
        return
    remaining = ~goal.met(model, x_adv, y)
    if _often(remaining, TOLERATED):
        yield Check(
            "accuracy-not-zero",
            f"with a budget of {budget}, which contains every image, {int(remaining.sum())} of {len(x)} images "
            "remain unbroken",
        )


def _beaten_by_search(model: nn.Module, x: Tensor, y: Tensor, goal: Goal, threat: Threat) -> Iterator[Check]:
    broken = goal.met(model, random_search(model, x, y, goal, threat), y)
    if _often(broken, TOLERATED):
        yield Check(
            "black-box-beats-white-box",
            f"a random search of {QUERIES} queries breaks {int(broken.sum())} of {len(x)} images that the attack left",
        )


def _missed_in_bfloat16(model: nn.Module, x: Tensor, y: Tensor, goal: Goal, attack: Attack) -> Iterator[Check]:
    # Any second run breaks a few more images: what counts is what float32 does beyond a second run in bfloat16.
    again, exactly = (
        attack.with_precision(precision)(model, x, y, goal).success for precision in ("bfloat16", "float32")
    )
    more = int(exactly.sum()) - int(again.sum())
    if more > 1 and more / len(x) > TOLERATED:
        yield Check(
            "bfloat16-missed",
            f"run again on {len(x)} images that it left, the attack breaks {int(exactly.sum())} in float32 and "
            f"{int(again.sum())} in bfloat16",
        )


def _stopped_early(
    model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, goal: Goal, threat: Threat
) -> Iterator[Check]:
    leading = goal.parts()[0]
    with torch.no_grad():
        clean_loss = leading.assess(model, x, y)[1]
        met, loss = leading.assess(model, x_adv, y)
    x_best, loss_best = more_steps(model, x, y, x_adv, goal, threat)
    risen = ~met & (loss_best - loss > MARKED * (loss - clean_loss).clamp_min(0))
    broken = goal.met(model, x_best, y)
    if _often(broken | risen, SIZABLE):
        yield Check(
            "stopped-early",
            f"{MORE_STEPS} more steps break {int(broken.sum())} of {len(x)} images that remain and raise the loss "
            f"of {int((risen & ~broken).sum())} others by at least {MARKED:.0%} of what the attack did",
        )


def _often(flags: Tensor, share: float) -> bool:
    """Whether more than this share of the flags is set; one image alone can be chance."""
    return int(flags.sum()) > 1 and _share(flags) > share


def _share(flags: Tensor) -> float:
    return flags.double().mean().item() if len(flags) else 0.0
