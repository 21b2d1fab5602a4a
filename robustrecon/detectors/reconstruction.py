"""Scores of class energies and drawings: does the predicted label explain the input?

Below, p is the predicted label, E (B, K) the class energies (infinite for labels that are not compared), f (B, K) the
logits.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import kl_div

from .base import Detector, Evidence

TEMPERATURE = 3.0  # of `cycle`; at 1 a sure classifier's gradient is 1e-10, at 10 the score separates less


class LabelMargin(Detector):
    """E[p] − min over k ≠ p of E[k]: positive when another label explains x better than the predicted one.

    This library's own, over the drawings of R. Wiyatno, J. Orchard, "Style Memory: Making a Classifier Network
    Generative", IEEE ICCI*CC 2018; its sign is the "local best" test of Y. Qin et al., "Deflecting Adversarial
    Attacks", 2020.
    """

    name = "label_margin"
    requires = ("class_energies",)

    def score(self, evidence: Evidence) -> Tensor:
        predicted, energies = evidence.predicted[:, None], evidence.energies
        others = energies.scatter(1, predicted, float("inf"))
        return energies.gather(1, predicted).squeeze(1) - others.amin(1)


class GlobalError(Detector):
    """E[p]: how badly the predicted label explains x.

    N. Frosst, S. Sabour, G. Hinton, "DARCCC: Detecting Adversaries by Reconstruction from Class Conditional
    Capsules", 2018.
    """

    name = "global_error"
    requires = ("class_energies",)

    def score(self, evidence: Evidence) -> Tensor:
        return evidence.energies.gather(1, evidence.predicted[:, None]).squeeze(1)


class FreeEnergy(Detector):
    """−logsumexp(−E): how badly all labels together explain x, whichever is predicted.

    W. Grathwohl et al., "Your classifier is secretly an energy based model and you should treat it like one", ICLR
    2020.
    """

    name = "free_energy"
    requires = ("class_energies",)

    def score(self, evidence: Evidence) -> Tensor:
        return -(-evidence.energies).logsumexp(1)


class Cycle(Detector):
    """KL(p(y|x) ‖ p(y|x drawn under p)), both at a temperature: is the drawing classified as x is?

    D. Meng, H. Chen, "MagNet: a Two-Pronged Defense against Adversarial Examples", CCS 2017, with the
    Jensen-Shannon divergence. That one levels off, and its gradient vanishes, where the two disagree most; this one
    goes on rising with the logits.
    """

    name = "cycle"
    requires = ("reconstruct",)

    def score(self, evidence: Evidence) -> Tensor:
        of_x, of_drawing = (
            (logits / TEMPERATURE).log_softmax(1) for logits in (evidence.logits, evidence.redrawn_logits)
        )
        return kl_div(of_drawing, of_x, reduction="none", log_target=True).sum(1)
