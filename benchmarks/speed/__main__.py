"""Measure, print the table, and keep it in results/speed.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import attacks
from robustrecon import load, load_data
from robustrecon.files import atomic_write
from robustrecon.models import EnergyModel, StyleMemoryNet
from robustrecon.provenance import environment

from .engines import STEPS, engines
from .scoring import scoring
from .timing import Timing
from .training import BATCHES, RECIPE, training

OUT = Path("results/speed.json")
N_SCORED, N_ATTACKED = 512, 256
ATTACKED = ("style-memory/mnist", "robust/digits")  # all images fall, and few


def row(what: str, n: int, timing: Timing, peer: str, other: Timing) -> dict[str, Any]:
    low, middle, high = timing.over(other)
    return {
        "what": what,
        "images_per_second": n / timing.median,
        "against": peer,
        "time_ratio": middle,
        "time_ratio_range": [low, high],
        "rounds": len(timing.rounds),
    }


def read_right(model: EnergyModel) -> tuple[Tensor, Tensor]:
    """The first embedded digits that the model reads right, and their labels: (N, 1, 28, 28), (N,)."""
    part = load_data("digits").train
    with torch.no_grad():
        right = (model(part.x).argmax(1) == part.y).nonzero()[:N_ATTACKED, 0]
    return part.x[right], part.y[right]


def main() -> None:
    torch.manual_seed(0)
    x = torch.rand(N_SCORED, 1, 28, 28)
    rows = []
    for k in (10, 26):
        found = scoring(StyleMemoryNet(k).eval(), x, rounds=15)
        for peer in ("forward pass", "autoencoder pass", "naive scoring"):
            rows.append(row(f"scoring, K = {k}", N_SCORED, found["scoring"], peer, found[peer]))
    for name in ATTACKED:
        model = load(name).eval()
        images, labels = read_right(model)
        found, fallen = engines(model, images, labels, rounds=5)
        for peer in ("own", "own, early exit"):
            for engine in attacks.CATALOGUE["pgd"].engines:
                if engine != "own":
                    what = f"PGD-{STEPS} on {name}, engine {engine}, {fallen[engine]} fall"
                    against = f"engine {peer}, {fallen[peer]} fall"
                    rows.append(row(what, len(images), found[engine], against, found[peer]))
    found = training(rounds=5)
    n = BATCHES * RECIPE.batch_size
    rows.append(row("training", n, found["robustrecon"], "bare PyTorch", found["bare PyTorch"]))
    atomic_write(OUT, json.dumps({"rows": rows, "environment": environment(torch.device("cpu"))}, indent=2) + "\n")
    for entry in rows:
        low, high = entry["time_ratio_range"]
        print(
            f"{entry['what']:<26} {entry['images_per_second']:>9,.0f} images/s   "
            f"{entry['time_ratio']:5.2f} [{low:.2f}, {high:.2f}] times the time of {entry['against']}"
        )


if __name__ == "__main__":
    main()
