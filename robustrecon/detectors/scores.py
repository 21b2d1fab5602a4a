"""Scores: functions of (energies, logits) that say how suspicious an input is; higher is more suspicious.

energies: (B, K), lower is a better explanation, infinite for labels that were not compared. logits: (B, K).
Result: (B,), differentiable in all. The label under which an input is judged is the predicted one, p = argmax logits.
A score with a third parameter, `redrawn`, is given the logits (B, K) of x as the model draws it under p.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor
from torch.nn.functional import kl_div

Score: TypeAlias = Callable[..., Tensor]

TEMPERATURE = 3.0  # of `cycle`; at 1 a sure classifier's gradient is 1e-10, at 10 the score separates less


def label_margin(energies: Tensor, logits: Tensor) -> Tensor:
    """E[p] − min over k ≠ p of E[k]: positive when another label explains x better than the predicted one.

    This library's own, of drawings as in R. Wiyatno, J. Orchard, "Style Memory: Making a Classifier Network
    Generative", IEEE ICCI*CC 2018.
    """
    predicted = logits.argmax(1, keepdim=True)
    others = energies.scatter(1, predicted, float("inf"))
    return energies.gather(1, predicted).squeeze(1) - others.amin(1)


def global_error(energies: Tensor, logits: Tensor) -> Tensor:
    """E[p]: how badly the predicted label explains x.

    N. Frosst, S. Sabour, G. Hinton, "DARCCC: Detecting Adversaries by Reconstruction from Class Conditional
    Capsules", 2018.
    """
    return energies.gather(1, logits.argmax(1, keepdim=True)).squeeze(1)


def marginal(energies: Tensor, logits: Tensor) -> Tensor:
    """−logsumexp(−E): how badly all labels together explain x, whichever is predicted.

    W. Grathwohl et al., "Your classifier is secretly an energy based model and you should treat it like one", ICLR
    2020; W. Liu et al., "Energy-based Out-of-distribution Detection", NeurIPS 2020.
    """
    return -(-energies).logsumexp(1)


def cycle(energies: Tensor, logits: Tensor, redrawn: Tensor) -> Tensor:
    """KL(p(y|x) ‖ p(y|x redrawn under p)), both at a temperature: whether the drawing is still taken for what x was.

    D. Meng, H. Chen, "MagNet: a Two-Pronged Defense against Adversarial Examples", CCS 2017, with the
    Jensen-Shannon divergence. That one levels off, and its gradient vanishes, where the two disagree most; this one
    goes on rising with the logits.
    """
    of_x, of_drawing = ((given / TEMPERATURE).log_softmax(1) for given in (logits, redrawn))
    return kl_div(of_drawing, of_x, reduction="none", log_target=True).sum(1)


def wants_redrawn(score: Score) -> bool:
    """Whether a score has the third parameter."""
    try:
        return "redrawn" in inspect.signature(score).parameters
    except (TypeError, ValueError):  # a callable that does not tell its parameters
        return False
