"""The training loop against the same steps in bare PyTorch."""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import replace

import torch

from robustrecon import checkpoint, train
from robustrecon.data import Dataset, Part
from robustrecon.data.splits import to_float
from robustrecon.models import StyleMemoryNet
from robustrecon.training import RECIPES
from robustrecon.training.objectives import build

from .report import Ratio
from .timing import Timing

BATCHES = 60
RECIPE = replace(RECIPES["fast"], epochs=1, least_steps=0)


def training(rounds: int) -> list[Ratio]:
    n = BATCHES * RECIPE.batch_size
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, 1, 28, 28), generator=generator).byte()
    y = torch.randint(0, 10, (n,), generator=generator)
    few = Part(images[:64], y[:64])
    data = Dataset("noise", tuple("0123456789"), Part(images, y), few, few)
    seconds: dict[str, list[float]] = {"robustrecon": [], "bare PyTorch": []}
    for counted in range(rounds + 1):
        print(f"training: round {counted} of {rounds}", file=sys.stderr)
        taken = {"robustrecon": _library(data), "bare PyTorch": _bare(data.train)}
        if counted:
            for name, value in taken.items():
                seconds[name].append(value)
    timings = {name: Timing(found) for name, found in seconds.items()}
    return [Ratio.of(n, timings, "robustrecon", "bare PyTorch", "training with ")]


def _library(data: Dataset) -> float:
    with tempfile.TemporaryDirectory() as folder:
        train(data, folder, RECIPE, device="cpu", progress=False)
        return checkpoint.load(folder).card["history"][0]["seconds"]


def _bare(part: Part) -> float:
    objective = build(RECIPE.objective, StyleMemoryNet(), RECIPE.objective_options).train()
    optimizer = torch.optim.Adam(objective.parameters(), lr=1e-3)
    started = time.perf_counter()
    for chosen in torch.randperm(len(part)).split(RECIPE.batch_size):
        optimizer.zero_grad()
        objective(to_float(part.images[chosen]), part.y[chosen], 0.0)["loss"].backward()
        optimizer.step()
    return time.perf_counter() - started
