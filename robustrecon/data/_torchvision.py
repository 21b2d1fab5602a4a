"""The one door to torchvision, which also opens beside a CPU-only torch.

The common Linux build of torchvision is linked against CUDA. Beside a CPU-only torch its operator library does
not load, and importing it dies with "operator torchvision::nms does not exist" (pytorch/vision#9085). Declaring
the two operators it looks up is enough for data sets, transforms and models; where the library loads, nothing is
declared.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch

_BOXES = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared: list[torch.library.Library] = []  # a declaration lives as long as its Library object


def _declare_missing_operators() -> None:
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return
    for library in Path(spec.origin).parent.glob("_C*.*"):
        try:
            torch.ops.load_library(library)
            return
        except OSError:
            continue
    fragment = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        fragment.define(operator + _BOXES)
    _declared.append(fragment)


_declare_missing_operators()

from torchvision import datasets, transforms  # noqa: E402

__all__ = ["datasets", "transforms"]
