"""A classifier that someone else made, beside a model that draws: the logits of the one, the energies of the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ..runtime import dtype_of
from ..types import ImageShape
from .base import EnergyModel, Labels

DETECTOR = "any_of(label_margin,0*free_energy,0*max_logit)"
"""Label margin against who changes the label; free energy and highest logit, of the least share of the false-alarm
rate, reject what is a member of no class (results/grafted/nonsense.md). Equal shares would triple the robust risk."""

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


class Grafted(EnergyModel):
    """`forward` is the classifier's, bit for bit; `class_energies` are the drawer's, of the image brought to its shape.

    The two share nothing, so that who changes the classifier's label has not yet changed the drawer's opinion. `graft`
    makes one and checks that the two fit together.

    Args:
        classifier: gives logits (B, K) of images (B, C, H, W) in [0, 1].
        drawer: has `class_energies(x)`; `reconstruct`, `logits_and_energies` and `representations` are used where it
            has them.
        labels: the drawer's label for each of the K labels of the classifier, all different.
        image_shape: (C, H, W) of the classifier's images.
        drawer_shape: (C, H, W) of the drawer's.

    Attributes:
        labels: (K,) int64.
        config: as of every model; `classifier` in it is a description of one of this library, or the `module:factory`
            of another, or None where nobody knows how to make it.
    """

    name = "grafted"
    default_detector = DETECTOR
    labels: Tensor

    def __init__(
        self,
        classifier: nn.Module,
        drawer: nn.Module,
        labels: Sequence[int],
        image_shape: ImageShape,
        drawer_shape: ImageShape,
    ) -> None:
        parts = {"classifier": _described(classifier), "drawer": _described(drawer)}
        super().__init__(len(labels), image_shape, labels=list(labels), drawer_shape=list(drawer_shape), **parts)
        self.classifier, self.drawer, self.drawer_shape = classifier, drawer, drawer_shape
        self.register_buffer("labels", torch.tensor(labels))

    def extra_repr(self) -> str:
        return f"labels={self.labels.tolist()}, image_shape={self.image_shape}, drawer_shape={self.drawer_shape}"

    def train(self, mode: bool = True) -> Grafted:
        """Training mode is the drawer's alone: the classifier is never trained here."""
        super().train(mode)
        if mode:
            self.classifier.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """The classifier's logits (B, K) of images (B, C, H, W)."""
        logits: Tensor = self.classifier(x)
        return logits

    def class_energies(self, x: Tensor) -> Tensor:
        """(B, K): how badly the drawer explains x under each of the classifier's labels; differentiable in x."""
        return self._energies(x, self.labels.expand(len(x), -1))

    def logits_and_energies(self, x: Tensor, labels: Labels | None = None) -> tuple[Tensor, Tensor]:
        """The classifier's logits (B, K), and the drawer's energies of `labels` (B, J), of all K by default."""
        logits = self(x)
        if labels is None:
            return logits, self.class_energies(x)
        return logits, self._energies(x, self.labels[labels(logits) if callable(labels) else labels])

    def representations(self, x: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """The classifier's logits of x, and what the drawer makes of x taken for `labels` (B,): (B, ...) each."""
        own = getattr(self.drawer, "representations", None)
        if not callable(own):
            return self.logits_and_energies(x)
        found: tuple[Tensor, ...] = own(self._for_drawer(x), self.labels[labels])
        return self(x), *found

    @property
    def reconstruct(self) -> Callable[..., Tensor]:
        """x drawn again by the drawer and brought back to the classifier's shape; absent where the drawer cannot.

        `reconstruct(x, labels)`: (B, C, H, W) from images of this shape and `labels` (B,), by default those that the
        classifier predicts. It is for detectors that classify the drawing, and for pictures: the energies are of the
        drawer's own shape.
        """
        own = getattr(self.drawer, "reconstruct", None)
        if not callable(own):
            raise AttributeError("reconstruct")

        def reconstruct(x: Tensor, labels: Tensor | None = None) -> Tensor:
            predicted = self(x).argmax(1) if labels is None else labels
            drawn = converted(own(self._for_drawer(x), self.labels[predicted]), self.image_shape).to(x.dtype)
            # Strides as of any image: a classifier may look at them, and `contiguous` ignores those of one channel.
            return drawn.clone(memory_format=torch.contiguous_format)

        return reconstruct

    def _energies(self, x: Tensor, wanted: Tensor) -> Tensor:
        """(B, J) energies of the drawer's labels `wanted` (B, J)."""
        images = self._for_drawer(x)
        shared = getattr(self.drawer, "logits_and_energies", None)
        if callable(shared):
            energies: Tensor = shared(images, wanted)[1]
            return energies
        of_all: Callable[[Tensor], Tensor] = self.drawer.class_energies  # type: ignore[assignment]
        return of_all(images).gather(1, wanted)

    def _for_drawer(self, x: Tensor) -> Tensor:
        return converted(x, self.drawer_shape).to(dtype_of(self.drawer))


def converted(x: Tensor, shape: ImageShape) -> Tensor:
    """Images (B, C, H, W) as images (B, *shape), differentiable.

    Grey is repeated for colour, colour becomes luma (ITU-R BT.601); sides are resized bilinearly, with anti-aliasing
    where they shrink.
    """
    channels, height, width = shape
    if x.shape[1] == len(LUMA) and channels == 1:
        x = (x * x.new_tensor(LUMA).view(-1, 1, 1)).sum(1, keepdim=True)
    elif x.shape[1] == 1 and channels > 1:
        x = x.expand(-1, channels, -1, -1)
    if tuple(x.shape[2:]) != (height, width):
        x = interpolate(x, (height, width), mode="bilinear", antialias=True)
    return x


def _described(model: nn.Module) -> dict[str, Any] | None:
    """What a card says of a model of this library; None for others."""
    return {"name": model.name, **model.config} if isinstance(model, EnergyModel) else None


def loss_in_conversion(given: ImageShape, wanted: ImageShape) -> str | None:
    """What images of the shape `given` lose when they are `converted` to the shape `wanted`; None where nothing."""
    lost = []
    if given[0] > wanted[0]:
        lost.append("colour")
    if given[1] > wanted[1] or given[2] > wanted[2]:
        lost.append(f"resolution ({given[1]}×{given[2]} pixels become {wanted[1]}×{wanted[2]})")
    return " and ".join(lost) or None
