"""A small U-Net: from images at noise levels to maps of outputs, at half the resolution of the images."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad, pixel_unshuffle, silu

GROUPS = 8  # of channels that are normalised together
HEADS = 4
LONGEST = 10_000  # timesteps, about, in the slowest wave of the time embedding


class UNet(nn.Module):
    """Two resolutions: half the image's, where a position is 2×2 pixels, and a quarter of it, with self-attention.

    O. Ronneberger, P. Fischer, T. Brox, "U-Net", MICCAI 2015, with the residual blocks and the time embedding of J. Ho,
    A. Jain, P. Abbeel, "Denoising Diffusion Probabilistic Models", NeurIPS 2020. It can be differentiated any number of
    times. The last layer begins as zero.

    Args:
        channels: of the images.
        outputs: K, maps that come out.
        width: channels at the higher resolution, twice as many at the lower one; a multiple of 8.
    """

    def __init__(self, channels: int, outputs: int, width: int) -> None:
        super().__init__()
        self.width = width
        time = 4 * width
        self.time = nn.Sequential(nn.Linear(width, time), nn.SiLU(), nn.Linear(time, time), nn.SiLU())
        self.first = nn.Conv2d(4 * channels, width, 3, padding=1)
        self.before = ResidualBlock(width, width, time)
        self.down = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.low1 = ResidualBlock(2 * width, 2 * width, time)
        self.attention = SelfAttention(2 * width)
        self.low2 = ResidualBlock(2 * width, 2 * width, time)
        self.up = nn.Conv2d(2 * width, width, 3, padding=1)
        self.after = ResidualBlock(2 * width, width, time)
        self.norm = nn.GroupNorm(GROUPS, width)
        self.last = zero(nn.Conv2d(width, outputs, 3, padding=1))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Maps (B, K, h, w) of images x (B, C, H, W) at timesteps t (B,); h and w are H/2 and W/2 or a little more."""
        time = self.time(waves(t.to(x.dtype), self.width))
        positions = pixel_unshuffle(pad(x, (0, -x.shape[3] % 4, 0, -x.shape[2] % 4)), 2)
        high = self.before(self.first(positions), time)
        low = self.low2(self.attention(self.low1(self.down(high), time)), time)
        joined = torch.cat([interpolate(self.up(low), scale_factor=2.0), high], dim=1)
        return self.last(silu(self.norm(self.after(joined, time))))


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut; the time adds to each channel between them."""

    def __init__(self, channels: int, outputs: int, time: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(GROUPS, channels), nn.GroupNorm(GROUPS, outputs)
        self.conv1 = nn.Conv2d(channels, outputs, 3, padding=1)
        self.conv2 = zero(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.of_time = nn.Linear(time, outputs)
        self.shortcut = nn.Identity() if channels == outputs else nn.Conv2d(channels, outputs, 1)

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        """From (B, channels, h, w) to (B, outputs, h, w), at a time (B, T)."""
        inner = self.conv1(silu(self.norm1(h))) + self.of_time(time)[..., None, None]
        return self.shortcut(h) + self.conv2(silu(self.norm2(inner)))


class SelfAttention(nn.Module):
    """Every position looks at all others; beside a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.project = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zero(nn.Conv2d(channels, channels, 1))

    def forward(self, h: Tensor) -> Tensor:
        """From (B, channels, h, w) to the same shape."""
        query, key, value = self.project(self.norm(h)).flatten(2).unflatten(1, (3, HEADS, -1)).unbind(1)
        # Written out, since the fused kernels cannot be differentiated twice.
        weights = (query.mT @ key / math.sqrt(query.shape[2])).softmax(3)
        return h + self.out((value @ weights.mT).flatten(1, 2).unflatten(2, h.shape[2:]))


def waves(t: Tensor, size: int) -> Tensor:
    """(B, size) sines and cosines, from fast to slow, of timesteps t (B,)."""
    frequency = LONGEST ** (-torch.arange(size // 2, device=t.device, dtype=t.dtype) / (size // 2))
    angle = t[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def zero(convolution: nn.Conv2d) -> nn.Conv2d:
    """The same convolution, whose weights begin as zero."""
    for parameter in convolution.parameters():
        nn.init.zeros_(parameter)
    return convolution
