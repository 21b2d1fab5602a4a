"""What models with a style code have in common: everything that follows from `encode` and `decode`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn.functional import one_hot

from ..types import InputError
from .base import EnergyModel


class Autoencoder(EnergyModel):
    """An energy model whose drawings come from a label and a style code.

    A subclass writes `encode`, `decode` and `logits_and_energies`; `StyleCodes` says what the first two give.
    """

    if TYPE_CHECKING:

        def encode(self, x: Tensor) -> tuple[Tensor, Tensor]: ...

        def decode(self, label_probabilities: Tensor, style: Tensor) -> Tensor: ...

    def extra_repr(self) -> str:
        return f"n_classes={self.n_classes}, style_dim={self.config['style_dim']}, image_shape={self.image_shape}"

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K) of images (B, C, H, W) in [0, 1]."""
        return self.encode(x)[0]

    def reconstruct(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Draw x (B, C, H, W) again from its own style under `labels` (B,), or under the predicted ones."""
        logits, style = self.encode(x)
        labels = logits.argmax(1) if labels is None else labels
        return self.decode(one_hot(labels, self.n_classes).to(style.dtype), style)

    def representations(self, x: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """Logits (B, K), style (B, style_dim) and drawing (B, C, H, W) under `labels` (B,) of images x."""
        logits, style = self.encode(x)
        return logits, style, self.decode(one_hot(labels, self.n_classes).to(style.dtype), style)

    def _check_shape(self, x: Tensor, shape: tuple[int, ...] | None = None) -> None:
        shape = shape or self.image_shape
        if tuple(x.shape[1:]) != shape:
            raise InputError(f"x: shape is {tuple(x.shape)}, must be (B, {', '.join(map(str, shape))})")
