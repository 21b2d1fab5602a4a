"""Scores: functions of (energies, logits) that say how suspicious an input is; higher is more suspicious.

energies: (B, K), lower is a better explanation. logits: (B, K). Result: (B,), differentiable in both.
The label under which an input is judged is the predicted one, p = argmax logits.
"""

from __future__ import annotations

from torch import Tensor


def label_margin(energies: Tensor, logits: Tensor) -> Tensor:
    """E[p] − min over k ≠ p of E[k]: positive when another label explains x better than the predicted one."""
    predicted = logits.argmax(1, keepdim=True)
    others = energies.scatter(1, predicted, float("inf"))
    return energies.gather(1, predicted).squeeze(1) - others.amin(1)


def global_error(energies: Tensor, logits: Tensor) -> Tensor:
    """E[p]: how badly the predicted label explains x.

    N. Frosst, S. Sabour, G. Hinton, "DARCCC: Detecting Adversaries by Reconstruction from Class Conditional
    Capsules", 2018.
    """
    return energies.gather(1, logits.argmax(1, keepdim=True)).squeeze(1)
