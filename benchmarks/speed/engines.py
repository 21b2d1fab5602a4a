"""PGD-40: seconds of each engine, and of our own where images that meet the goal leave the batch."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

import attacks

from .timing import Timing, in_turns

STEPS = 40
EPS = 0.3


def engines(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, rounds: int
) -> tuple[dict[str, Timing], dict[str, int]]:
    """Each engine's timing on images (N, C, H, W) that `model` reads as y, and how many of them fell to it."""
    made = {
        engine: attacks.load("pgd", engine, eps=EPS, steps=STEPS, random_start=False)
        for engine in attacks.CATALOGUE["pgd"].engines
    }
    made["own, early exit"] = attacks.load("pgd", "own", eps=EPS, steps=STEPS, random_start=False, early_exit=True)
    fallen: dict[str, int] = {}

    def run(engine: str) -> None:
        fallen[engine] = int(made[engine](model, x, y).success.sum())

    return in_turns({engine: partial(run, engine) for engine in made}, rounds), fallen
