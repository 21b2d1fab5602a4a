"""Digits drawn by another hand: random affine and elastic distortions of training images."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate

KEPT = 0.2  # share of the images that stay as they are
ROTATION = 0.12  # radians; this and the others are standard deviations at strength 1
SCALE = 0.08
SHEAR = 0.16
SHIFT = 0.04  # in half image sides
BEND = 0.04  # in half image sides, of each knot of a grid that is smoothly filled in
KNOTS = 6
CONTRAST = (1.2, 2.2)  # makes up for the blur of the interpolation, more or less, so that edges are grey and sharp
MIDDLE = (0.35, 0.7)  # grey that stays: below a half strokes grow with the contrast, above they get thinner


def warped(x: Tensor, strength: float) -> Tensor:
    """Images (B, C, H, W) in [0, 1], each rotated, scaled, sheared, shifted, bent and inked at random; black moves in.

    P. Simard, D. Steinkraus, J. Platt, "Best Practices for Convolutional Neural Networks Applied to Visual Document
    Analysis", ICDAR 2003.
    """

    def drawn(deviation: float) -> Tensor:
        return strength * deviation * torch.randn(len(x), device=x.device)

    angle = drawn(ROTATION)
    rows = [1 + drawn(SCALE), drawn(SHEAR) - angle.sin(), drawn(SHIFT)], [angle.sin(), 1 + drawn(SCALE), drawn(SHIFT)]
    rows[0][0], rows[1][1] = rows[0][0] * angle.cos(), rows[1][1] * angle.cos()
    affine = torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)
    knots = strength * BEND * torch.randn(len(x), 2, KNOTS, KNOTS, device=x.device)
    bend = interpolate(knots, size=x.shape[2:], mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    grid = affine_grid(affine, list(x.shape), align_corners=False) + bend
    moved = grid_sample(x, grid, align_corners=False)
    contrast, middle = (x.new_empty(len(x), 1, 1, 1).uniform_(*bounds) for bounds in (CONTRAST, MIDDLE))
    moved = ((moved - middle) * contrast + middle).clamp(0, 1)
    kept = torch.rand(len(x), 1, 1, 1, device=x.device) < KEPT
    return torch.where(kept, x, moved)
