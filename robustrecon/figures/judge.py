"""An independent network that says what a drawing shows: trained apart from the model that drew it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from .. import checkpoint
from ..data import Dataset
from ..runtime import batched, device_of, evaluating, resolve_device
from ..training import load_recipe, train
from .base import Array

Judge: TypeAlias = Callable[[Array], tuple[Array, Array]]
"""Labels (N,) and features (N, D) of images (N, C, H, W)."""

SEED = 101  # of its weights and its order of images; no model of a figure has it


def train_judge(data: Dataset, folder: str | Path, device: str = "auto", progress: bool = True) -> Judge:
    """A plain CNN for `data`, trained for classification alone and kept in `folder`; features are its logits.

    It is the encoder of the style-memory network without the drawing: the reconstruction has no weight in its loss.

    Raises:
        InputError: the folder cannot be written to, or holds something else.
    """
    recipe = replace(load_recipe("fast"), name="judge", epochs=3, alpha=0.0)
    folder = Path(folder)
    there = (folder / checkpoint.MODEL_FILE).exists()
    network = train(data, folder, recipe, seed=SEED, device=device, resume=there, progress=progress)
    network.to(resolve_device(device))

    def judge(images: Array) -> tuple[Array, Array]:
        def read(x: Tensor) -> tuple[Tensor]:
            return (network(x.to(device_of(network))).cpu(),)

        with evaluating(network):
            logits = batched(read, torch.as_tensor(images))[0].numpy()
        return logits.argmax(1), logits

    return judge
