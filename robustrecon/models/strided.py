"""5×5 convolutions of stride 2 next to the pixels, with what a CPU does slowly done as a convolution into blocks.

A transposed convolution into one channel, or the input gradient of a convolution of one channel, which is the same,
leaves most of a vector unit idle; a convolution of stride 2 into 16 channels, one a pixel of a 4×4 block, is 2 to 5
times as fast. W. Shi et al., "Is the deconvolution layer the same as a convolutional layer?", 2016.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad, pixel_shuffle, pixel_unshuffle
from torch.nn.grad import conv2d_weight

KERNEL = 5
# Row r of block a reads input row 2a-1+d through tap r+4-2d, which is none outside 0..4; padding puts tap 0 at 2.
_TAPS = torch.arange(4)[:, None] + 4 - 2 * torch.arange(4) + 2


class FirstConvolution(nn.Conv2d):
    """A 5×5 convolution of stride 2 whose gradient in the image is computed in blocks, on a CPU."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, KERNEL, stride=2, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, channels_out, ⌈H/2⌉, ⌈W/2⌉) of images (N, channels_in, H, W)."""
        if x.requires_grad and torch.is_grad_enabled() and x.device.type == "cpu":
            features: Tensor = _Strided.apply(x, self.weight, self.bias)
            return features
        return super().forward(x)


class LastUpsampling(nn.ConvTranspose2d):
    """A 5×5 transposed convolution of stride 2, computed in blocks; the same weights and the same result."""

    def __init__(self, channels_in: int, channels_out: int, size: tuple[int, int]) -> None:
        super().__init__(channels_in, channels_out, KERNEL, stride=2, padding=2)
        self.size = size

    def forward(self, h: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Blocks (N, C·16, ⌈H/4⌉, ⌈W/4⌉) of input (N, channels_in, ⌈H/2⌉, ⌈W/2⌉)."""
        assert self.bias is not None
        return _blocks(h, self.weight, self.bias.repeat_interleave(16))

    def join(self, blocks: Tensor) -> Tensor:
        """Blocks as images (N, C, H, W)."""
        return _join(blocks, self.size).contiguous()

    def cut(self, images: Tensor) -> Tensor | None:
        """Images as blocks; None where their sides are no multiples of 4."""
        return None if self.size[0] % 4 or self.size[1] % 4 else pixel_unshuffle(images, 4)


class _Strided(torch.autograd.Function):
    """The convolution of `FirstConvolution`; all steps of its backward pass can be differentiated again."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return conv2d(x, weight, bias, stride=2, padding=2)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
        x, weight, _ = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        grad_x = grad_weight = grad_bias = None
        if of_x:
            grad_x = _join(_blocks(grad_output, weight.to(grad_output.dtype)), x.shape[-2:]).to(x.dtype)
        if of_weight:
            x_like = x.to(grad_output.dtype)
            grad_weight = conv2d_weight(x_like, weight.shape, grad_output, 2, 2).to(weight.dtype)
        if of_bias:
            grad_bias = grad_output.sum((0, 2, 3)).to(weight.dtype)
        return grad_x, grad_weight, grad_bias


def _blocks(h: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The transposed convolution of h (N, I, ⌈H/2⌉, ⌈W/2⌉) with weights (I, C, 5, 5): (N, C·16, ⌈H/4⌉, ⌈W/4⌉)."""
    taps = _TAPS.to(weight.device)
    weight = pad(weight, (2, 3, 2, 3))[:, :, taps][..., taps].permute(1, 2, 4, 0, 3, 5).reshape(-1, len(weight), 4, 4)
    h = pad(h, (0, h.shape[3] % 2, 0, h.shape[2] % 2))
    return conv2d(h, weight.contiguous(memory_format=torch.channels_last), bias, stride=2, padding=1)


def _join(blocks: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Blocks as images (N, C, H, W) of a size (H, W)."""
    return pixel_shuffle(blocks, 4)[:, :, : size[0], : size[1]]
