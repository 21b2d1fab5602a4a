"""Models that draw an image under a label by an input gradient of their own outputs, and what follows from that."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..runtime import device_of, pieces
from ..types import ImageShape, InputError, unknown_name
from .base import EnergyModel, Labels

ENERGIES = ("reconstruction", "joint")
PAIRS = 1024  # images times labels that are drawn at a time where no gradient is wanted


class GradientDrawings(EnergyModel):
    """A classifier that is generative by the input gradients of its outputs; a subclass says how they draw.

    A subclass writes `forward` and `logits_and_drawings`. Its energies can be differentiated in x, which takes second
    derivatives of the network.

    Args:
        n_classes: K.
        image_shape: (C, H, W).
        energy: "reconstruction", ‖x − drawing of x under k‖², or "joint", the joint energy −f(x)[k] of image and label,
            with which the label margin is the logit margin and no more.
        config: as for `EnergyModel`.

    Raises:
        InputError: an unknown energy.
    """

    def __init__(self, n_classes: int, image_shape: ImageShape, energy: str = "reconstruction", **config: Any) -> None:
        super().__init__(n_classes, image_shape, energy=energy, **config)
        if energy not in ENERGIES:
            unknown_name("energy", energy, ENERGIES)

    @abstractmethod
    def logits_and_drawings(self, x: Tensor, labels: Labels) -> tuple[Tensor, Tensor]:
        """Logits (B, K) of images x (B, C, H, W), and their drawings (B, J, C, H, W) under `labels` (B, J)."""

    def class_energies(self, x: Tensor) -> Tensor:
        """(B, K) energies of images x (B, C, H, W), as `energy` says; differentiable in x."""
        return self.logits_and_energies(x)[1]

    def logits_and_energies(self, x: Tensor, labels: Labels | None = None) -> tuple[Tensor, Tensor]:
        """Logits (B, K) and the energies of `labels` (B, J), of all K by default, from shared passes."""
        if self.config["energy"] == "joint":
            logits: Tensor = self(x)
            return logits, -logits if labels is None else -logits.gather(1, chosen(labels, logits))
        wanted = torch.arange(self.n_classes, device=x.device).expand(x.shape[0], -1) if labels is None else labels
        size = max(1, PAIRS // self.n_classes)
        parts = []
        images_of = pieces(x, size)
        labels_of: Sequence[Labels] = pieces(wanted, size) if isinstance(wanted, Tensor) else [wanted] * len(images_of)
        for images, some in zip(images_of, labels_of, strict=True):
            logits, drawings = self.logits_and_drawings(images, some)
            parts.append((logits, (images[:, None] - drawings).square().flatten(2).sum(2)))
        logits, energies = (torch.cat(column) for column in zip(*parts, strict=True))
        return logits, energies

    def reconstruct(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images x (B, C, H, W) drawn under `labels` (B,), or under the predicted ones."""
        wanted: Labels = predicted if labels is None else labels[:, None]
        return self.logits_and_drawings(x, wanted)[1][:, 0]

    def checked_labels(self, labels: Tensor) -> Tensor:
        """The labels (B,) to make samples of, on the model's device.

        Raises:
            InputError: one out of range.
        """
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < self.n_classes:
            raise InputError(
                f"labels: span [{int(labels.min())}, {int(labels.max())}], must be in [0, {self.n_classes - 1}]"
            )
        return labels.to(device_of(self))

    def representations(self, x: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """Logits (B, K) and drawing (B, C, H, W) under `labels` (B,) of images x."""
        logits, drawings = self.logits_and_drawings(x, labels[:, None])
        return logits, drawings[:, 0]


def chosen(labels: Labels, logits: Tensor) -> Tensor:
    """The labels (B, J), where they may be a function of the logits (B, K)."""
    return labels(logits) if callable(labels) else labels


def predicted(logits: Tensor) -> Tensor:
    """(B, 1) the labels of the highest logits (B, K)."""
    return logits.argmax(1, keepdim=True)


def with_input_gradients(function: Callable[[Tensor], tuple[Tensor, Tensor]], x: Tensor) -> tuple[Tensor, Tensor]:
    """Something that `function` gives of x, and input gradients of something else that it gives.

    Where gradients are on, both can be differentiated again, in x and in the weights; where they are off (`no_grad`)
    the input gradients are computed all the same, and nothing is kept for later.

    Args:
        function: gives (any tensor, outputs (B, J)) from x, each row from its own image alone.
        x: (B, ...) images.

    Returns:
        The first tensor, and the gradients of the outputs in x: (B, J, ...).
    """
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        seen = x if again and x.requires_grad else x.detach().requires_grad_()
        first, outputs = function(seen)
        gradients = [
            torch.autograd.grad(column.sum(), seen, create_graph=again, retain_graph=True)[0]
            for column in outputs.unbind(1)
        ]
    drawn = torch.stack(gradients, 1)
    return (first, drawn) if again else (first.detach(), drawn.detach())
