"""The embedded data set: scikit-learn's 1,797 handwritten digits, enlarged from 8×8 to 28×28.

Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998.
"""

from __future__ import annotations

import torch
from torch.nn.functional import interpolate

from .splits import Dataset, split


def digits() -> Dataset:
    """1,797 digits, (1, 28, 28), 10 classes; one sixth is the calibration part and one sixth the test part."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    small = torch.from_numpy(bunch.images).float().unsqueeze(1) / 16
    images = interpolate(small, size=(28, 28), mode="bilinear", align_corners=False)
    y = torch.from_numpy(bunch.target).long()
    return split("digits", tuple("0123456789"), images.mul(255).round().byte(), y)
