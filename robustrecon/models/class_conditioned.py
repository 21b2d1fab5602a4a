"""A class-conditioned autoencoder: an encoder of its own, and a decoder that is told the label at every stage.

It scales with the image and with the number of classes, which the style-memory network does not.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import relu
from torch.utils.checkpoint import checkpoint

from ..runtime import pieces
from ..types import ImageShape, InputError
from .autoencoder import Autoencoder
from .base import Labels
from .strided import KERNEL, FirstConvolution, LastUpsampling

HIDDEN = 256
LARGEST_GRID = 8  # side below which the encoder no longer halves
WIDEST = 4  # times `width`: the most channels
CACHE = 6e6  # numbers of the last layers that are worked on at a time: what a CPU's cache holds
GPU_MEMORY = 2e9  # the same on a GPU
RECOMPUTED_FROM = 32  # labels; with so many, the backward pass decodes again instead of keeping all activations


class ClassConditionedAutoencoder(Autoencoder):
    """Logits and a style code from a convolutional encoder; drawings from the style, modulated by the label (FiLM).

    The encoder halves the image until its sides are at most 8: a 5×5 convolution of stride 2 each time, then a dense
    layer. The decoder is the same backwards. After each of its layers every channel is scaled and shifted by numbers
    that the label decides.

    P. Oza, V. M. Patel, "C2AE: Class Conditioned Auto-Encoder for Open-set Recognition", CVPR 2019; the modulation is
    that of E. Perez et al., "FiLM: Visual Reasoning with a General Conditioning Layer", AAAI 2018.

    Args:
        n_classes: K.
        style_dim: number of style neurons.
        image_shape: (C, H, W), sides of at least 4.
        width: channels of the first convolution; twice as many in the second, four times in all further ones.
        steepness: k of a logistic function of each pixel, 1 / (1 + exp(−k (x − 1/2))), rescaled to [0, 1]; encoder and
            energies then see what comes out. It takes small changes from images that are nearly black and white. 0 for
            none: natural images.
        output: "sigmoid" (pixels in [0, 1]) or "linear".
        style_shape: (C', H', W'), sides of at least 4, where the encoder sees another thing than what is drawn; then x,
            of all methods, is (B, C·H·W + C'·H'·W'), made by `packed`, and `steepness` is for what is drawn alone.

    Raises:
        InputError: an argument out of its range.
    """

    name = "class-conditioned"

    def __init__(
        self,
        n_classes: int = 10,
        style_dim: int = 16,
        image_shape: ImageShape = (1, 28, 28),
        width: int = 32,
        steepness: float = 0.0,
        output: str = "sigmoid",
        style_shape: Sequence[int] | None = None,
    ) -> None:
        settings = {"style_dim": style_dim, "width": width, "steepness": steepness, "output": output}
        other = {} if style_shape is None else {"style_shape": list(style_shape)}
        super().__init__(n_classes, image_shape, **settings, **other)
        for name, value in {"style_dim": style_dim, "width": width}.items():
            if value < 1:
                raise InputError(f"{name}: got {value}, must be at least 1")
        if not 0 <= steepness < 100:
            raise InputError(f"steepness: got {steepness}, must be in [0, 100)")
        if output not in ("sigmoid", "linear"):
            raise InputError(f"output: got {output!r}, must be 'sigmoid' or 'linear'")
        if steepness and output == "linear":
            raise InputError(f"steepness: got {steepness}, must be 0 where the output is linear")
        self.style_shape = None if style_shape is None else tuple(style_shape)
        seen, drawn = _Stages(self.style_shape or self.image_shape, width), _Stages(self.image_shape, width)
        self.style_dim, self._grid = style_dim, drawn.sizes[-1]
        self._activations = max(seen.activations, drawn.activations)

        self.first = FirstConvolution(seen.channels, width)
        self.further = nn.ModuleList(nn.Conv2d(a, b, KERNEL, stride=2, padding=2) for a, b in seen.pairs)
        self.dense = nn.Linear(seen.features, HIDDEN)
        self.head = nn.Linear(HIDDEN, n_classes + style_dim)
        self.undense1 = nn.Linear(style_dim, HIDDEN)
        self.undense2 = nn.Linear(HIDDEN, drawn.features)
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(b, a, KERNEL, stride=2, padding=2, output_padding=(1 - up[0] % 2, 1 - up[1] % 2))
            for (a, b), up in reversed(list(zip(drawn.pairs, drawn.sizes[1:], strict=False)))
        )
        self.last = LastUpsampling(width, drawn.channels, self.image_shape[1:])
        self.films = nn.ModuleList(_Film(n_classes, size) for size in (HIDDEN, *reversed(drawn.widths)))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from torch's types

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, K) and style codes (B, style_dim) in [0, 1] of images (B, C, H, W)."""
        seen = self._target_and_seen(x)[1].contiguous(memory_format=torch.channels_last)
        h = relu(self.first(seen if self.style_shape else self._steep(seen)), inplace=True)
        for convolution in self.further:
            h = relu(convolution(h), inplace=True)
        h = relu(self.dense(h.permute(0, 2, 3, 1).flatten(1)), inplace=True)  # no copy of what is channels-last
        logits, style = self.head(h).split((self.n_classes, self.style_dim), dim=1)
        return logits, style.sigmoid()

    def decode(self, label_probabilities: Tensor, style: Tensor) -> Tensor:
        """Images (B, C, H, W) drawn from label probabilities (B, K) and style codes (B, style_dim)."""
        drawn = self.last.join(self._draw(style, label_probabilities))
        steepness = self.config["steepness"]
        if self.config["output"] == "linear":
            return drawn
        return (drawn / steepness + 0.5).clamp(0, 1) if steepness else drawn.sigmoid()

    def class_energies(self, x: Tensor) -> Tensor:
        """‖s(x) − s(decode(k, style(x)))‖² for every label k: (B, K), differentiable in x; s is what `steepness` says.

        The memory needed grows with B · K only by the energies themselves, with a gradient too where K is large.
        """
        return self.logits_and_energies(x)[1]

    def logits_and_energies(self, x: Tensor, labels: Labels | None = None) -> tuple[Tensor, Tensor]:
        """`forward` (B, K) and `class_energies`, from one pass of the encoder.

        Args:
            x: (B, C, H, W) images.
            labels: (B, J) the labels whose energies are wanted, or a function that gives them from the logits; all K
                by default. The energies are (B, J).
        """
        encoded = [self.encode(images) for images in pieces(x, self._pairs(x))]
        logits, style = (torch.cat(parts) for parts in zip(*encoded, strict=True))
        return logits, self.energies(x, style, labels(logits) if callable(labels) else labels)

    def energies(self, x: Tensor, style: Tensor, labels: Tensor | None = None) -> Tensor:
        """(B, J) energies of images x under `labels` (B, J), all K by default, and style codes (B, style_dim)."""
        if labels is None:
            labels = torch.arange(self.n_classes, device=x.device).expand(x.shape[0], -1)
        again = torch.is_grad_enabled() and labels.shape[1] >= RECOMPUTED_FROM
        return torch.cat([torch.cat(list(row), 1) for row in self._chunks(x, style, labels, again)])

    def _chunks(self, x: Tensor, style: Tensor, labels: Tensor, again: bool) -> Iterator[Iterator[Tensor]]:
        pairs = self._pairs(x)
        images = max(1, pairs // labels.shape[1])
        for part in zip(*(pieces(each, images) for each in (x, style, labels)), strict=True):
            target, codes = self._steep(self._target_and_seen(part[0])[0]), part[1]
            yield (
                checkpoint(self._errors, target, codes, chosen, use_reentrant=False)
                if again
                else self._errors(target, codes, chosen)
                for chosen in part[2].split(pairs, dim=1)
            )

    def _errors(self, target: Tensor, style: Tensor, labels: Tensor) -> Tensor:
        """(B, J): squared distances of what the network sees of images from its drawings, decoded at once."""
        drawn = self._draw(style, labels)
        # A sum over pixels does not ask for their order: rather cut the images into blocks than join the drawings.
        blocks = self.last.cut(target)
        if blocks is None:
            drawn, blocks = self.last.join(drawn), target
        if self.config["output"] == "sigmoid":
            drawn = drawn.sigmoid()
        drawn = drawn.permute(0, 2, 3, 1).unflatten(0, labels.shape).flatten(2)
        return (drawn - blocks.permute(0, 2, 3, 1).flatten(1)[:, None]).square().sum(2)

    def _draw(self, style: Tensor, labels: Tensor) -> Tensor:
        """What enters the output, in blocks: (B·J, ...) of labels (B, J), (B, ...) of label probabilities (B, K)."""
        first, *others = (cast(_Film, film).of(labels) for film in self.films)
        h = relu(_modulated(self.undense1(style), first), inplace=True)
        h = self.undense2(h).unflatten(1, (*self._grid, -1)).permute(0, 3, 1, 2)  # channels-last without a copy
        for up, film in zip(self.ups, others, strict=False):
            h = up(relu(_modulated(h, film), inplace=True))
        return self.last(relu(_modulated(h, others[-1]), inplace=True))

    def _target_and_seen(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What is drawn (B, *image_shape), and what the encoder sees, the same or (B, *style_shape)."""
        if self.style_shape is None:
            self._check_shape(x)
            return x, x
        sizes = [math.prod(self.image_shape), math.prod(self.style_shape)]
        self._check_shape(x, (sum(sizes),))
        target, seen = x.split(sizes, dim=1)
        return target.unflatten(1, self.image_shape), seen.unflatten(1, self.style_shape)

    def _steep(self, x: Tensor) -> Tensor:
        """Images as `steepness` lets them be seen."""
        if not (steepness := self.config["steepness"]):
            return x
        lowest = torch.sigmoid(torch.tensor(-steepness / 2)).item()
        return (torch.sigmoid(steepness * (x - 0.5)) - lowest) / (1 - 2 * lowest)

    def _pairs(self, x: Tensor) -> int:
        """How many drawings are made at a time."""
        return max(1, int((CACHE if x.device.type == "cpu" else GPU_MEMORY) / self._activations))


def packed(target: Tensor, seen: Tensor) -> Tensor:
    """x (B, N) of a network with a `style_shape`, of what it draws (B, C, H, W) and what its encoder sees."""
    return torch.cat([target.flatten(1), seen.flatten(1)], dim=1)


class _Stages:
    """Sizes and channels of the convolutions on images of a shape (C, H, W).

    Attributes:
        channels: C.
        sizes: heights and widths, from the image's to the smallest.
        widths: channels of each size but the first.
        pairs: channels before and after each convolution but the first.
        features: numbers of the smallest size.
        activations: numbers of all sizes.

    Raises:
        InputError: a side below 4.
    """

    def __init__(self, shape: Sequence[int], width: int) -> None:
        self.channels, *size = shape
        if len(size) != 2 or min(size) < 4:
            raise InputError(f"image_shape: got {tuple(shape)}, height and width must be at least 4")
        self.sizes = [tuple(size), _halved(size)]
        while max(self.sizes[-1]) > LARGEST_GRID:
            self.sizes.append(_halved(self.sizes[-1]))
        self.widths = [min(2**stage, WIDEST) * width for stage in range(len(self.sizes) - 1)]
        self.pairs = list(itertools.pairwise(self.widths))
        self.features = self.widths[-1] * math.prod(self.sizes[-1])
        channels = [self.channels, *self.widths]
        self.activations = sum(n * math.prod(side) for n, side in zip(channels, self.sizes, strict=True))


class _Film(nn.Module):
    """A scale and a shift of every channel for every label; none at first but small random shifts."""

    def __init__(self, n_classes: int, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(n_classes, channels))
        self.shift = nn.Parameter(0.1 * torch.randn(n_classes, channels))

    def of(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Scales and shifts, (B, J, channels) each, of labels (B, J), or of label probabilities (B, K) with J = 1."""
        if labels.is_floating_point():
            return (labels @ self.scale)[:, None], (labels @ self.shift)[:, None]
        return self.scale[labels], self.shift[labels]


def _modulated(h: Tensor, film: tuple[Tensor, Tensor]) -> Tensor:
    """h (B, channels, ...) or (B·J, channels, ...), scaled and shifted for each of J labels: (B·J, channels, ...)."""
    scale, shift = (each.to(h.dtype) for each in film)
    if h.ndim == 2:  # not yet one for each label
        return (h[:, None] * scale + shift).flatten(0, 1)
    return torch.addcmul(shift.flatten(0, 1)[..., None, None], h, scale.flatten(0, 1)[..., None, None])


def _halved(size: list[int] | tuple[int, ...]) -> tuple[int, ...]:
    return tuple(-(-side // 2) for side in size)
