"""A classifier that nobody here trained, alone and with a shipped drawer beside it; for suites and scripts.

robustrecon bench --suite benchmarks/grafted.toml --data-dir DIR --out results/grafted

The classifier is that of the package digit-recognizer-py, as it is. What it was trained on is not known and may be
MNIST's training images, so that it is calibrated and attacked on test images alone: the data `mnist-test`.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from robustrecon import InputError, Normalized, graft, load_defended
from robustrecon.attacks import MultiTarget, Transfer

PACKAGE, VERSION, MODULE = "digit-recognizer-py", "0.1.0", "digit_recognizer"
MEAN, STD = 0.1307, 0.3081  # of its own preprocessing
DRAWER = "robust/mnist"
ALPHA = 0.005  # bound on the false-alarm rate, of the images that the classifier labels right; as grafted.toml says


def classifier() -> nn.Module:
    """The third-party classifier, of images in [0, 1]: (B, 1, 28, 28) to logits (B, 10).

    Raises:
        InputError: the package is not installed, or of another version.
    """
    try:
        found = importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise InputError(f"{PACKAGE}: is not installed, must be {VERSION}") from None
    if found != VERSION:
        raise InputError(f"{PACKAGE}: got {found}, must be {VERSION}")
    folder = Path(str(importlib.metadata.distribution(PACKAGE).locate_file(MODULE)))
    # Its module alone: the package itself imports torchvision, which does not load beside every torch.
    name = f"{MODULE}.model"
    spec = importlib.util.spec_from_file_location(name, folder / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    network: nn.Module = module.CNN()
    network.load_state_dict(torch.load(folder / "models" / "handwriting_model.pth", weights_only=True))
    return Normalized(network.eval(), MEAN, STD)


def grafted() -> nn.Module:
    """The same with a drawer beside it, without any training."""
    return graft(classifier(), DRAWER)


def transfer(**parameters: Any) -> Transfer:
    """Images made on the drawer's own classifier and its detector, by an attacker who does not know the other one."""
    surrogate = load_defended(DRAWER, alpha=0.01)
    return Transfer(surrogate=surrogate, made_by=MultiTarget(targets=3, early_exit=True), **parameters)
