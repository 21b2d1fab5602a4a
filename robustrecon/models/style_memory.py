"""The style-memory network: a classifier with a few style neurons, unrolled backwards into a decoder.

R. Wiyatno, J. Orchard, "Style Memory: Making a Classifier Network Generative", IEEE ICCI*CC 2018.

The paper leaves open how the convolutions are padded (here: by 2, so that each halves the image) and what
squashes the decoder's output (here: a logistic function, since pixels lie in [0, 1]).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, relu

from ..runtime import pieces
from ..types import ImageShape, InputError
from .autoencoder import Autoencoder
from .base import EnergyModel, Labels
from .front_end import FrontEnd
from .strided import KERNEL, FirstConvolution, LastUpsampling

WIDTHS = (32, 64)
HIDDEN = (256, 128)
CPU_DECODES = 480  # decodes at a time whose activations stay in the cache: the middle of a plateau, 320 to 640
GPU_DECODES = 16384


class StyleMemoryNet(Autoencoder):
    """Encoder: conv 32, conv 64 (5×5, stride 2), dense 256, dense 128, then K class and `style_dim` neurons.

    The decoder is the same stack backwards with weights of its own. Activations are ReLU, the style neurons
    are logistic.

    Args:
        n_classes: K.
        style_dim: number of style neurons, 16 in the paper.
        image_shape: (C, H, W), 28×28 grey in the paper; any channels, sides of at least 4.
        output: "sigmoid" (pixels in [0, 1]) or "linear".
        style_encoder: "shared" as in the paper, or "separate": the style comes from a smaller stack of its own
            (conv 16, conv 32, dense 64), so that what misleads the classifier need not mislead the drawing.
        width: multiplies the channels of the convolutions.
        blocks: residual blocks after each convolution of the encoder; none in the paper. A new one changes nothing, so
            that a network without takes up learning where it was (K. He et al., CVPR 2016, for the block).
        front_end: slope of a `FrontEnd` before the encoder; None, as in the paper, for none.
        front_end_energies: whether image and drawing are compared behind the front end too. Drawings themselves are of
            the pixels either way.

    Raises:
        InputError: an argument out of its range.
    """

    name = "style-memory"

    def __init__(
        self,
        n_classes: int = 10,
        style_dim: int = 16,
        image_shape: ImageShape = (1, 28, 28),
        output: str = "sigmoid",
        style_encoder: str = "shared",
        width: int = 1,
        blocks: int = 0,
        front_end: float | None = None,
        front_end_energies: bool = False,
    ) -> None:
        settings = {
            "style_dim": style_dim,
            "output": output,
            "style_encoder": style_encoder,
            "width": width,
            "blocks": blocks,
            "front_end": front_end,
            "front_end_energies": front_end_energies,
        }
        super().__init__(n_classes, image_shape, **settings)
        if style_dim < 1:
            raise InputError(f"style_dim: got {style_dim}, must be at least 1")
        if output not in ("sigmoid", "linear"):
            raise InputError(f"output: got {output!r}, must be 'sigmoid' or 'linear'")
        if width < 1:
            raise InputError(f"width: got {width}, must be at least 1")
        if blocks < 0:
            raise InputError(f"blocks: got {blocks}, must not be negative")
        if style_encoder not in ("shared", "separate"):
            raise InputError(f"style_encoder: got {style_encoder!r}, must be 'shared' or 'separate'")
        if front_end_energies and front_end is None:
            raise InputError(f"front_end_energies: got {front_end_energies}, must be False without a front_end")
        first, second = (width * channels for channels in WIDTHS)
        channels, height, width = self.image_shape
        if min(height, width) < 4:
            raise InputError(f"image_shape: got {self.image_shape}, height and width must be at least 4")
        half = (-(-height // 2), -(-width // 2))
        self._grid = (-(-half[0] // 2), -(-half[1] // 2))
        self.style_dim = style_dim
        features = second * self._grid[0] * self._grid[1]

        self.front_end = None if front_end is None else FrontEnd(front_end)
        self.conv1 = FirstConvolution(channels, first)
        self.conv2 = nn.Conv2d(first, second, KERNEL, stride=2, padding=2)
        self.blocks1 = nn.Sequential(*(_Block(first) for _ in range(blocks)))
        self.blocks2 = nn.Sequential(*(_Block(second) for _ in range(blocks)))
        self.dense1 = nn.Linear(features, HIDDEN[0])
        self.dense2 = nn.Linear(HIDDEN[0], HIDDEN[1])
        shared = style_encoder == "shared"
        self.head = nn.Linear(HIDDEN[1], n_classes + (style_dim if shared else 0))
        self.style_tower = None if shared else _style_tower(channels, self._grid, style_dim)

        self.unhead = nn.Linear(n_classes + style_dim, HIDDEN[1])
        self.undense2 = nn.Linear(HIDDEN[1], HIDDEN[0])
        self.undense1 = nn.Linear(HIDDEN[0], features)
        self.unconv2 = nn.ConvTranspose2d(
            second,
            first,
            KERNEL,
            stride=2,
            padding=2,
            output_padding=(1 - half[0] % 2, 1 - half[1] % 2),
        )
        self.unconv1 = LastUpsampling(first, channels, (height, width))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from torch's types

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, K) and style memory (B, style_dim) in [0, 1] of images (B, C, H, W)."""
        self._check_shape(x)
        x = x.contiguous(memory_format=torch.channels_last)
        if self.front_end is not None:
            x = self.front_end(x)
        h = self.blocks1(relu(self.conv1(x), inplace=True))
        h = self.blocks2(relu(self.conv2(h), inplace=True))
        h = h.permute(0, 2, 3, 1).flatten(1)  # no copy: this is how channels-last lies in memory
        h = relu(self.dense2(relu(self.dense1(h), inplace=True)), inplace=True)
        if self.style_tower is not None:
            return self.head(h), self.style_tower(x).sigmoid()
        logits, style = self.head(h).split((self.n_classes, self.style_dim), dim=1)
        return logits, style.sigmoid()

    def decode(self, label_probabilities: Tensor, style: Tensor) -> Tensor:
        """Images (B, C, H, W) drawn from label probabilities (B, K) and style memory (B, style_dim)."""
        return self.unconv1.join(self._draw(self.unhead(torch.cat([label_probabilities, style], dim=1))))

    def class_energies(self, x: Tensor) -> Tensor:
        """‖x − decode(k, style(x))‖² for every label k: (B, K), differentiable in x; perhaps behind the front end.

        One pass of the encoder an image. The decoder's first layer is linear, so its label part and its style
        part are computed once and added; the rest runs over as many (image, label) pairs at a time as fit the
        cache, so that without gradient the memory needed does not grow with B.
        """
        return self.logits_and_energies(x)[1]

    def logits_and_energies(self, x: Tensor, labels: Labels | None = None) -> tuple[Tensor, Tensor]:
        """`forward` (B, K) and `class_energies`, from one pass of the encoder.

        Args:
            x: (B, C, H, W) images.
            labels: (B, J) the labels whose energies are wanted, or a function that gives them from the logits; all K
                by default. The energies are (B, J).
        """
        pairs = CPU_DECODES if x.device.type == "cpu" else GPU_DECODES
        encoded = [self.encode(images) for images in pieces(x, pairs)]
        logits, style = (torch.cat(parts) for parts in zip(*encoded, strict=True))
        if callable(labels):
            labels = labels(logits)
        chunk = max(1, pairs // (self.n_classes if labels is None else labels.shape[1]))
        images, codes = pieces(x, chunk), pieces(style, chunk)
        parts = [None] * len(images) if labels is None else pieces(labels, chunk)
        return logits, torch.cat([*map(self.energies, images, codes, parts)])

    def energies(self, x: Tensor, style: Tensor, labels: Tensor | None = None) -> Tensor:
        """(B, J) energies of images x under `labels` (B, J), all K by default, and a style (B, style_dim) at once."""
        label_weight, style_weight = self.unhead.weight.split((self.n_classes, self.style_dim), dim=1)
        named = label_weight.T if labels is None else label_weight.T[labels]
        h = linear(style, style_weight, self.unhead.bias).unsqueeze(1) + named
        drawn = self._draw(h.flatten(0, 1))
        # A sum over pixels does not ask for their order: rather cut x into blocks once than join K drawings.
        target = self.unconv1.cut(x)
        if target is None:
            drawn, target = self.unconv1.join(drawn), x
        if self.front_end is not None and self.config["front_end_energies"]:
            drawn, target = self.front_end(drawn), self.front_end(target)
        drawn = drawn.permute(0, 2, 3, 1).reshape(x.shape[0], h.shape[1], -1)
        return (drawn - target.permute(0, 2, 3, 1).reshape(x.shape[0], 1, -1)).square().sum(2)

    def grown(self, options: Mapping[str, object]) -> EnergyModel:
        """With as many `blocks` as `options` have, where that is more; the outputs stay the same."""
        blocks = options.get("blocks", 0)
        if not isinstance(blocks, int) or blocks <= self.config["blocks"]:
            return self
        larger = StyleMemoryNet(**{**self.config, "blocks": blocks})
        larger.load_state_dict(self.state_dict(), strict=False)  # all that is missing are the further blocks
        return larger

    def _draw(self, h: Tensor) -> Tensor:
        """The decoder from the sum that enters its first ReLU (N, 128) to blocks of pixels."""
        h = relu(self.undense2(relu(h)), inplace=True)
        h = relu(self.undense1(h), inplace=True)
        h = h.unflatten(1, (*self._grid, -1)).permute(0, 3, 1, 2)  # channels-last without a copy
        blocks = self.unconv1(relu(self.unconv2(h), inplace=True))
        return blocks.sigmoid() if self.config["output"] == "sigmoid" else blocks


def _style_tower(channels: int, grid: tuple[int, int], style_dim: int) -> nn.Module:
    return nn.Sequential(
        FirstConvolution(channels, WIDTHS[0] // 2),
        nn.ReLU(inplace=True),
        nn.Conv2d(WIDTHS[0] // 2, WIDTHS[1] // 2, KERNEL, stride=2, padding=2),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(WIDTHS[1] // 2 * grid[0] * grid[1], HIDDEN[0] // 4),
        nn.ReLU(inplace=True),
        nn.Linear(HIDDEN[0] // 4, style_dim),
    )


class _Block(nn.Module):
    """ReLU(h + two 3×3 convolutions of h), the identity on ReLU's outputs as long as the second one is zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]  # it has one

    def forward(self, h: Tensor) -> Tensor:
        return relu(h + self.conv2(relu(self.conv1(h), inplace=True)), inplace=True)
