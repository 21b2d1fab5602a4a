"""Feature squeezing: does the prediction change when detail is taken out of the image?"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import kl_div, pad

from .base import Detector, Evidence
from .largest import largest

BITS = {1: 1}  # by the number of channels; the paper's joint detectors of MNIST and, below, of CIFAR-10
BITS_OF_COLOUR = 5
TINY = 1e-20  # below the rounding errors of a probability
SHARPNESS = 1.0  # of the gradient of the largest distance, in nats


class FeatureSqueezing(Detector):
    """log(d / (2 − d)), d the largest L1 distance of the softmax of f(x) from that of f(x squeezed).

    Ranks inputs as d does. Squeezers are a depth of 1 bit for grey and 5 bits for colour images, and a 2×2 median
    filter; the paper's third for colour, non-local means, is left out.

    What has no useful gradient is replaced on the way back (BPDA; A. Athalye, N. Carlini, D. Wagner, "Obfuscated
    Gradients Give a False Sense of Security", ICML 2018): rounding to a bit depth by the identity, and d, which levels
    off where both outputs are sure, by the divergence KL(softmax f(x) ‖ softmax f(x squeezed)) with f(x) held constant.
    An attack that follows it moves f(x squeezed) to the label of x; the gradient of d moves x to the decision boundary.

    W. Xu, D. Evans, Y. Qi, "Feature Squeezing: Detecting Adversarial Examples in Deep Neural Networks", NDSS 2018.
    """

    name = "feature_squeezing"
    several_passes = True

    def score(self, evidence: Evidence) -> Tensor:
        return evidence.cached(self, lambda: self._score(evidence))

    def _score(self, evidence: Evidence) -> Tensor:
        x = evidence.x
        squeezed = (reduced(x, BITS.get(x.shape[1], BITS_OF_COLOUR)), median_smoothed(x))
        scores = [disagreement(evidence.logits, Evidence(evidence.model, images).logits) for images in squeezed]
        return largest(torch.stack(scores, 1), SHARPNESS)


def reduced(x: Tensor, bits: int) -> Tensor:
    """Images in [0, 1] rounded to 2^bits levels; on the way back, the identity."""
    steps = 2**bits - 1
    return x + ((x * steps).round() / steps - x).detach()


def median_smoothed(x: Tensor) -> Tensor:
    """Images (B, C, H, W) under a 2×2 median filter, of a pixel and those left and above; the upper median of four.

    The borders are mirrored. That is `scipy.ndimage.median_filter` of size 2, which the paper's authors used.
    """
    wide = pad(x, (1, 0, 1, 0), mode="replicate")
    height, width = x.shape[2:]
    window = [wide[:, :, i : i + height, j : j + width] for i in (0, 1) for j in (0, 1)]
    return torch.stack(window).kthvalue(3, dim=0).values


def disagreement(logits: Tensor, others: Tensor) -> Tensor:
    """(B,) log(d / (2 − d)) of the L1 distance d of two softmax outputs, from logits (B, K); not below −46.

    On the way back it is the divergence of the second from the first, which is a constant.
    """
    first, second = logits.detach().double().log_softmax(1), others.double().log_softmax(1)
    divergence = kl_div(second, first, reduction="none", log_target=True).sum(1)
    with torch.no_grad():
        half = (first.exp() - second.exp()).abs().sum(1) / 2  # Σ min(p, q) = 1 − d / 2
        distance = (half + TINY).log() - torch.minimum(first, second).logsumexp(1)
    return (distance + (divergence - divergence.detach())).to(logits.dtype)
