"""Scores of the logits alone, for any classifier: how unsure is it of the predicted label?

Below, p is the predicted label and f (B, K) the logits.
"""

from __future__ import annotations

from torch import Tensor

from .base import Detector, Evidence


class MaximumSoftmaxProbability(Detector):
    """log((1 − P[p]) / P[p]) with P the softmax of f: the log odds against the predicted label.

    Ranks inputs as 1 − P[p] does, but neither saturates nor loses its gradient for a sure classifier. D. Hendrycks,
    K. Gimpel, "A Baseline for Detecting Misclassified and Out-of-Distribution Examples in Neural Networks", ICLR 2017.
    """

    name = "msp"

    def score(self, evidence: Evidence) -> Tensor:
        predicted = evidence.predicted[:, None]
        others = evidence.logits.scatter(1, predicted, -float("inf"))
        return others.logsumexp(1) - evidence.logits.gather(1, predicted).squeeze(1)


class MaxLogit(Detector):
    """−f[p].

    D. Hendrycks et al., "Scaling Out-of-Distribution Detection for Real-World Settings", ICML 2022.
    """

    name = "max_logit"

    def score(self, evidence: Evidence) -> Tensor:
        return -evidence.logits.gather(1, evidence.predicted[:, None]).squeeze(1)


class LogitMargin(Detector):
    """max over k ≠ p of f[k], − f[p]: positive when another label has the higher logit.

    The margin that N. Carlini, D. Wagner, "Towards Evaluating the Robustness of Neural Networks", 2017, attack.
    """

    name = "logit_margin"

    def score(self, evidence: Evidence) -> Tensor:
        predicted = evidence.predicted[:, None]
        others = evidence.logits.scatter(1, predicted, -float("inf"))
        return others.amax(1) - evidence.logits.gather(1, predicted).squeeze(1)


class Energy(Detector):
    """−logsumexp(f), whichever label is predicted.

    W. Liu, X. Wang, J. Owens, Y. Li, "Energy-based Out-of-distribution Detection", NeurIPS 2020.
    """

    name = "energy"

    def score(self, evidence: Evidence) -> Tensor:
        return -evidence.logits.logsumexp(1)
