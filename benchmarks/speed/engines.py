"""PGD-40: images per second of each engine, and of our own where images that meet the goal leave the batch."""

from __future__ import annotations

from functools import partial

import torch

import attacks
from robustrecon.models import StyleMemoryNet

from .timing import Timing, in_turns

STEPS = 40


def engines(model: StyleMemoryNet, x: torch.Tensor, rounds: int) -> dict[str, Timing]:
    with torch.no_grad():
        y = model(x).argmax(1)
    made = {
        engine: attacks.load("pgd", engine, eps=0.3, steps=STEPS, random_start=False)
        for engine in attacks.CATALOGUE["pgd"].engines
    }
    made["own, early exit"] = attacks.load("pgd", "own", eps=0.3, steps=STEPS, random_start=False, early_exit=True)
    return in_turns({engine: partial(attack, model, x, y) for engine, attack in made.items()}, rounds)
