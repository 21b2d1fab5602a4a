"""The only module that imports torchvision; it makes the import work with a CPU-only torch as well.

The common Linux build of torchvision is linked against CUDA. With a CPU-only torch its operator library does not load,
and the import fails with "operator torchvision::nms does not exist" (pytorch/vision#9085). Data sets, transforms and
models work as soon as the two operators that torchvision looks up are declared. Where the library loads, this module
declares nothing.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch

_BOXES = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared: list[torch.library.Library] = []  # a declaration ends with its Library object


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

from torchvision import datasets, models, transforms  # noqa: E402

__all__ = ["datasets", "models", "transforms"]
