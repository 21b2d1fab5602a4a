"""Signs that an attack failed rather than that the defence held.

N. Carlini et al., "On Evaluating Adversarial Robustness", 2019; M. Pintor et al., "Indicators of Attack Failure",
NeurIPS 2022. A check that fires casts doubt on a low success rate; it does not mean that the model is robust.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .base import Attack, Outcome
from .errors import NonFiniteLoss
from .goals import Goal, Misclassified, ScoredVictim, Undetected, scored
from .probes import MORE_STEPS, QUERIES, go_on, gradient, search, whole_space
from .runtime import frozen_eval, seeded
from .threat import Threat

LOOKED_AT = 256  # images that the checks look at
PROBED = 8  # one in so many images, at least so many, is attacked again if it stands: cheap beside the attack
TOLERATED = 0.05  # share of images that may show a sign by chance
SIZABLE = 0.25  # share of the standing images, of which a few more steps always help some
MARKED = 0.5  # of what the attack raised the loss by

CHECKS: dict[str, str] = {
    "random-outputs": "two passes over the same images differ: the gradient of one pass is not that of the next",
    "probabilities": "the outputs are probabilities, not logits: their gradients saturate",
    "loss-gradient-not-finite": "the loss has no finite gradient to follow",
    "loss-gradient-zero": "the gradient of the loss is zero: masked, saturated or cut off",
    "score-gradient-not-finite": "the detector's score has no finite gradient to follow",
    "score-gradient-zero": "the gradient of the detector's score is zero: masked, saturated or cut off",
    "loss-not-risen": "the loss where the attack ended is no higher than on the clean images",
    "success-miscounted": "the model says of the images something else than the attack's own bookkeeping",
    "accuracy-not-zero": "the attack leaves images standing even when it may change them into any image",
    "black-box-beats-white-box": "a short random search without gradient finds successes that the attack missed",
    "stopped-early": "a few plain gradient steps from where the attack ended still lead much further",
}


@dataclass(frozen=True)
class Check:
    """A sign that was seen.

    Attributes:
        name: which of `CHECKS`.
        message: what was seen, with its figure, and what it casts doubt on.
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
    """The signs that this attack on this model failed; empty when there are none.

    Args:
        model: the attacked model, logits (B, K) of images (B, C, H, W) in [0, 1].
        x: (B, C, H, W) clean images.
        y: (B,) true labels.
        outcome: what the attack on them returned.
        goal: what the attack was after; `Misclassified()` by default.
        attack: the attack. Some of the images that stand are then attacked again, which finds what looking alone
            cannot: "accuracy-not-zero", "black-box-beats-white-box" and "stopped-early".
    """
    goal = Misclassified() if goal is None else goal
    some = slice(LOOKED_AT)
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
        stands, risen = ~met_when_clean & ~met_now, loss > clean_loss
        met = goal.met(model, outcome.x, y)
    random = not torch.equal(logits, again)
    if others and isinstance(model, ScoredVictim):
        with torch.no_grad():
            random |= not torch.equal(model.score(x), model.score(x))
    if random:
        yield Check(
            "random-outputs",
            "two passes over the same images differ; attack the expectation over the model's random numbers",
        )
    if (logits >= 0).all() and torch.allclose(logits.sum(1), torch.ones_like(logits[:, 0]), atol=1e-4):
        yield Check(
            "probabilities",
            "outputs are non-negative and sum to 1: probabilities, not logits; their gradients saturate",
        )
    yield from _gradient_signs("loss", gradient(lambda moved: leading.assess(model, moved, y)[1], x))
    if any(isinstance(part, Undetected) for part in others):
        yield from _gradient_signs("score", gradient(scored(model).score, x))
    share = _share(~risen[stands])
    if share > TOLERATED:
        yield Check("loss-not-risen", f"on {share:.0%} of the attacked images that stand the loss did not rise")
    share = _share(met != outcome.success)
    if share > (TOLERATED if random else 0):
        yield Check("success-miscounted", f"{share:.0%} of the outcomes are not what the model says of them")


def _gradient_signs(of: str, found: Tensor) -> Iterator[Check]:
    share = _share(~torch.isfinite(found).flatten(1).all(1))
    if share:
        yield Check(f"{of}-gradient-not-finite", f"the {of} has no finite gradient on {share:.0%} of the images")
    share = _share((found == 0).flatten(1).all(1))
    if share > TOLERATED:
        yield Check(f"{of}-gradient-zero", f"the gradient of the {of} is zero on {share:.0%} of the images")


def _probed(model: nn.Module, x: Tensor, y: Tensor, outcome: Outcome, goal: Goal, attack: Attack) -> Iterator[Check]:
    most = max(PROBED, len(x) // PROBED)
    rows = (~goal.met(model, outcome.x, y) & ~goal.met(model, x, y)).nonzero()[:most, 0]
    if len(rows):
        yield from _reaches_zero(model, x[rows], y[rows], goal, attack)
        yield from _beaten_by_search(model, x[rows], y[rows], goal, attack.threat)
        yield from _stopped_early(model, x[rows], y[rows], outcome.x[rows], goal, attack.threat)


def _reaches_zero(model: nn.Module, x: Tensor, y: Tensor, goal: Goal, attack: Attack) -> Iterator[Check]:
    widened = whole_space(attack, x)
    budget = f"{widened.threat.norm} {widened.threat.eps:g}"
    try:
        moved = widened(model, x, y, goal).x
    except NonFiniteLoss as error:
        yield Check("loss-gradient-not-finite", f"with a budget of {budget} the attack broke off: {error}")
        return
    left = ~goal.met(model, moved, y)
    if _often(left, TOLERATED):
        yield Check(
            "accuracy-not-zero",
            f"with a budget of {budget}, which covers every image, {int(left.sum())} of {len(x)} images stand",
        )


def _beaten_by_search(model: nn.Module, x: Tensor, y: Tensor, goal: Goal, ball: Threat) -> Iterator[Check]:
    fell = goal.met(model, search(model, x, y, goal, ball), y)
    if _often(fell, TOLERATED):
        yield Check(
            "black-box-beats-white-box",
            f"a random search of {QUERIES} queries breaks {int(fell.sum())} of {len(x)} images that the attack left",
        )


def _stopped_early(model: nn.Module, x: Tensor, y: Tensor, moved: Tensor, goal: Goal, ball: Threat) -> Iterator[Check]:
    leading = goal.parts()[0]
    with torch.no_grad():
        clean = leading.assess(model, x, y)[1]
        met, ended = leading.assess(model, moved, y)
    further, highest = go_on(model, x, y, moved, goal, ball)
    rose = ~met & (highest - ended > MARKED * (ended - clean).clamp_min(0))
    fell = goal.met(model, further, y)
    if _often(fell | rose, SIZABLE):
        yield Check(
            "stopped-early",
            f"{MORE_STEPS} more steps break {int(fell.sum())} of {len(x)} images that stand and raise the loss by at "
            f"least {MARKED:.0%} of what the attack did on {int((rose & ~fell).sum())} others",
        )


def _often(flags: Tensor, share: float) -> bool:
    """One image is an accident, however few there are."""
    return int(flags.sum()) > 1 and _share(flags) > share


def _share(flags: Tensor) -> float:
    return flags.double().mean().item() if len(flags) else 0.0
