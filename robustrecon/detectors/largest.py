"""The largest of several scores, with a gradient in all of them."""

from __future__ import annotations

from torch import Tensor


def largest(scores: Tensor, sharpness: float) -> Tensor:
    """(B,) the largest of scores (B, m), exactly; on the way back logsumexp(sharpness · scores) / sharpness.

    An attack that lowers the largest score alone raises the others meanwhile, and goes to and fro between them.
    """
    smooth = (sharpness * scores).logsumexp(1) / sharpness
    return scores.amax(1).detach() + (smooth - smooth.detach())
