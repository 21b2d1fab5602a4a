"""Data augmentation: random affine and elastic distortions of training images, as if another hand had written them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate

UNCHANGED = 0.2  # share of the images that stay as they are
ROTATION = 0.12  # radians; this and the next four are standard deviations at strength 1
SCALE = 0.08
SHEAR = 0.16
SHIFT = 0.04  # in half image sides
ELASTIC = 0.04  # displacement of each control point, in half image sides; interpolated between them
CONTROL_POINTS = 6  # a side
CONTRAST = (1.2, 2.2)  # range of the gain that makes up for the blur of the interpolation
PIVOT = (0.35, 0.7)  # range of the grey that the gain keeps: below a half strokes get thicker, above it thinner


def random_distortion(x: Tensor, strength: float) -> Tensor:
    """Images (B, C, H, W) in [0, 1], each rotated, scaled, sheared, shifted, bent and sharpened at random.

    What lies outside of the image is black. `strength` multiplies all standard deviations; 0 leaves only the contrast.

    P. Simard, D. Steinkraus, J. Platt, "Best Practices for Convolutional Neural Networks Applied to Visual Document
    Analysis", ICDAR 2003.
    """

    def normal(deviation: float) -> Tensor:
        return strength * deviation * torch.randn(len(x), device=x.device)

    angle = normal(ROTATION)
    rows = (
        [1 + normal(SCALE), normal(SHEAR) - angle.sin(), normal(SHIFT)],
        [angle.sin(), 1 + normal(SCALE), normal(SHIFT)],
    )
    rows[0][0], rows[1][1] = rows[0][0] * angle.cos(), rows[1][1] * angle.cos()
    affine = torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)
    points = strength * ELASTIC * torch.randn(len(x), 2, CONTROL_POINTS, CONTROL_POINTS, device=x.device)
    elastic = interpolate(points, size=x.shape[2:], mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    grid = affine_grid(affine, list(x.shape), align_corners=False) + elastic
    distorted = grid_sample(x, grid, align_corners=False)
    contrast, pivot = (x.new_empty(len(x), 1, 1, 1).uniform_(*bounds) for bounds in (CONTRAST, PIVOT))
    distorted = ((distorted - pivot) * contrast + pivot).clamp(0, 1)
    unchanged = torch.rand(len(x), 1, 1, 1, device=x.device) < UNCHANGED
    return torch.where(unchanged, x, distorted)
