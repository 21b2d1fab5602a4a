"""What every model is, a classifier that also says how badly each label explains its input, and what it may offer.

Whoever needs more than logits and energies asks for one of the Protocols here, not for a class:
`isinstance(model, Reconstructs)`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias, runtime_checkable

from torch import Generator, Tensor, nn

from ..types import ImageShape, InputError

WEIGHTS = "model."  # names of the tensors of a checkpoint that are the model's own begin so
TRAINED_ON = "trained_on"  # name of the tensor that is the sketch of the training images

Labels: TypeAlias = Tensor | Callable[[Tensor], Tensor]
"""Labels (B, J) int64, or a function that gives them from the logits (B, K)."""


@runtime_checkable
class Reconstructs(Protocol):
    """A model that draws an image again under a label."""

    def reconstruct(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images x (B, C, H, W) as they would look under `labels` (B,), by default the predicted ones."""
        ...


@runtime_checkable
class StyleCodes(Protocol):
    """A model whose drawings come from a label and a style code."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, K) and style codes (B, S) of images x (B, C, H, W)."""
        ...

    def decode(self, label_probabilities: Tensor, style: Tensor) -> Tensor:
        """Images (B, C, H, W) from label probabilities (B, K) and style codes (B, S)."""
        ...

    def energies(self, x: Tensor, style: Tensor, labels: Tensor | None = None) -> Tensor:
        """(B, J) energies of images x under `labels` (B, J), by default all K, and style codes (B, S)."""
        ...


@runtime_checkable
class Samples(Protocol):
    """A model that makes images from nothing."""

    def sample(self, labels: Tensor, generator: Generator | None = None) -> Tensor:
        """New images (B, C, H, W) in [0, 1] of `labels` (B,), on the model's device."""
        ...


@runtime_checkable
class Denoises(Protocol):
    """A model that labels noised images and predicts the noise in them.

    Attributes:
        alpha_bars: (T + 1,) the share of an image's variance that is left at each noise level; 1 at the first.
    """

    alpha_bars: Tensor

    def noised(self, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x_t (B, C, H, W) of images x in [0, 1], standard normal noise and noise levels t (B,) int64 of 0 to T."""
        ...

    def logits_and_noise(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, K) of noised images x_t (B, C, H, W) at t (B,), and the noise (B, C, H, W) that it sees there."""
        ...


@runtime_checkable
class Features(Protocol):
    """A model whose hidden layers can be read."""

    def features(self, x: Tensor, layer: str) -> Tensor:
        """(B, F) activations of `layer` for images x (B, C, H, W)."""
        ...


class EnergyModel(nn.Module, ABC):
    """A model of this library: a name in the catalogue, known shapes, and a configuration for its card.

    A subclass writes `forward` and `class_energies` and passes its constructor's arguments on as `config`.

    Attributes:
        n_classes: K.
        image_shape: (C, H, W).
        config: keyword arguments that build the same architecture again; JSON values only.
        trained_on: (n,) sketch of the training images, by which they are recognised; None where it is not known.
        default_detector: what it is judged by where no detector is named.
    """

    name: str
    default_detector: str = "label_margin"

    def __init__(self, n_classes: int, image_shape: ImageShape, **config: Any) -> None:
        super().__init__()
        if n_classes < 2:
            raise InputError(f"n_classes: got {n_classes}, must be at least 2")
        if len(image_shape) != 3 or min(image_shape) < 1:
            raise InputError(f"image_shape: got {tuple(image_shape)}, must be (channels, height, width)")
        self.n_classes = n_classes
        self.trained_on: Tensor | None = None
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

    def logits_and_energies(self, x: Tensor, labels: Labels | None = None) -> tuple[Tensor, Tensor]:
        """Logits (B, K) and the energies of `labels` (B, J), of all K by default; override it to share work."""
        energies, logits = self.class_energies(x), self(x)
        if labels is None:
            return logits, energies
        return logits, energies.gather(1, labels(logits) if callable(labels) else labels)

    def representations(self, x: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """What the model makes of images x (B, C, H, W) taken for `labels` (B,): (B, ...) each, differentiable."""
        return self.logits_and_energies(x)

    def grown(self, options: Mapping[str, object]) -> EnergyModel:
        """A larger model with the same outputs, as `options` of the constructor ask; by default this one as it is."""
        return self


@runtime_checkable
class Pair(Protocol):
    """A classifier and a model that draws, joined: the logits of the one, the energies of the other."""

    classifier: nn.Module
    drawer: EnergyModel
    n_classes: int
    image_shape: ImageShape

    def for_drawer(self, x: Tensor) -> Tensor:
        """What the drawer sees of images x (B, C, H, W)."""
        ...

    def target(self, x: Tensor) -> Tensor:
        """What the drawer explains of images x (B, C, H, W), and draws."""
        ...


def offers(model: object, kind: type) -> bool:
    """Whether a model is of a class, or has all that a Protocol of this module names.

    For a Protocol, `isinstance` looks past the buffers and sub-modules of a module, from Python 3.12 on.
    """
    if not getattr(kind, "_is_protocol", False):
        return isinstance(model, kind)
    members = {*kind.__annotations__, *vars(kind)}
    return all(hasattr(model, name) for name in members if not name.startswith("_"))
