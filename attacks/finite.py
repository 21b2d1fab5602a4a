"""A loss or gradient that is not finite gives an attack nothing to follow: that is said, not passed over."""

from __future__ import annotations

from torch import Tensor

from .errors import NonFiniteLoss


def finite(attack_name: str, loss: Tensor, gradient: Tensor) -> None:
    """Check the loss (B,) and its gradient (B, C, H, W); waits for the device.

    Raises:
        NonFiniteLoss: not finite on some image; says which attack and how many images.
    """
    refuse(attack_name, not_finite(loss, gradient))


def not_finite(loss: Tensor, gradient: Tensor) -> Tensor:
    """(B,) bool: the images whose loss (B,) or gradient (B, C, H, W) is not finite; does not wait for the device."""
    return ~(loss.detach() + gradient.flatten(1).sum(1)).isfinite()


def refuse(attack_name: str, broken: Tensor) -> None:
    """Raise NonFiniteLoss where `broken` (B,) is set for any image."""
    if count := int(broken.sum()):
        raise NonFiniteLoss(f"{attack_name}: the loss or its gradient is not finite on {count} of {len(broken)} images")
