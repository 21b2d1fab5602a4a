"""What every model is: a classifier that also says how badly each label explains its input."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from ..types import ImageShape, InputError


class EnergyModel(nn.Module, ABC):
    """A model of this library: a name in the catalogue, known shapes, and a configuration for its card.

    A subclass writes `forward` and `class_energies` and passes its constructor's arguments on as `config`.

    Attributes:
        n_classes: K.
        image_shape: (C, H, W).
        config: keyword arguments that build the same architecture again; JSON values only.
    """

    name: str

    def __init__(self, n_classes: int, image_shape: ImageShape, **config: Any) -> None:
        super().__init__()
        if n_classes < 2:
            raise InputError(f"n_classes: got {n_classes}, must be at least 2")
        if len(image_shape) != 3 or min(image_shape) < 1:
            raise InputError(f"image_shape: got {tuple(image_shape)}, must be (channels, height, width)")
        self.n_classes = n_classes
        channels, height, width = image_shape
        self.image_shape: ImageShape = (channels, height, width)
        self.config: dict[str, Any] = {
            "n_classes": n_classes,
            "image_shape": list(self.image_shape),
            **config,
        }

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K) of images (B, C, H, W) in [0, 1]."""

    @abstractmethod
    def class_energies(self, x: Tensor) -> Tensor:
        """(B, K): how badly each label explains x; lower is better. Finite and differentiable in x."""

    def logits_and_energies(self, x: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits (B, K) and the energies of `labels` (B, J), of all K by default; override it to share work."""
        energies = self.class_energies(x)
        return self(x), energies if labels is None else energies.gather(1, labels)

    def representations(self, x: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """What the model makes of images x (B, C, H, W) taken for `labels` (B,): (B, ...) each, differentiable."""
        return self.logits_and_energies(x)
