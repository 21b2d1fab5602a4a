"""What the energies of a drawer cost at 224 pixels for 10, 100 and 1,000 classes: seconds and memory an image.

python -m benchmarks.graft_cost --out results/grafted

Expected time: 10 minutes on one core. Weights are random, which changes no cost; the classifier is linear on a coarse
image, so that the cost is the drawer's. Each row is a process of its own, whose peak memory is read at its end. Writes
cost.json and cost.md.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch
from torch import nn

from robustrecon import provenance
from robustrecon.bench.report.text import grid
from robustrecon.files import atomic_write
from robustrecon.models import ClassConditionedAutoencoder
from robustrecon.models.grafted import Grafted

SHAPE = (3, 224, 224)
STYLE_DIM = 64
REPEATS = 3
CONFIGURATIONS = ((10, 0), (10, 5), (100, 0), (100, 20), (1000, 20), (1000, 0))  # classes, top labels


@dataclass(frozen=True)
class Cost:
    """Costs of one configuration; medians over `REPEATS` runs.

    Attributes:
        n_classes, top_labels: of the graft.
        batch: images at once.
        drawing: seconds an image to classify it and draw it once, under one label.
        scoring: seconds an image for logits and energies, without a gradient.
        gradient: the same with the gradient in the image.
        peak: MB of memory of the process at most.
    """

    n_classes: int
    top_labels: int
    batch: int
    drawing: float
    scoring: float
    gradient: float
    peak: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/grafted"))
    arguments = parser.parse_args()
    found = []
    for n_classes, top_labels in CONFIGURATIONS:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found.append(pool.apply(measure, (n_classes, top_labels)))
        print(found[-1], flush=True)
    told = {"costs": [asdict(each) for each in found], "environment": provenance.environment(torch.device("cpu"))}
    print(atomic_write(arguments.out / "cost.json", json.dumps(told, indent=2) + "\n"))
    print(atomic_write(arguments.out / "cost.md", f"# What a drawer costs\n\n{table(found)}\n"))


def measure(n_classes: int, top_labels: int) -> Cost:
    """One configuration, with one thread."""
    torch.set_num_threads(1)
    compared = top_labels + 1 if top_labels else n_classes
    batch = 1 if compared > 100 else 4
    classifier = nn.Sequential(nn.AdaptiveAvgPool2d(8), nn.Flatten(), nn.Linear(64 * SHAPE[0], n_classes))
    drawer = ClassConditionedAutoencoder(n_classes, STYLE_DIM, SHAPE)
    pair = Grafted(classifier, drawer, range(n_classes), SHAPE, SHAPE, top_labels=top_labels).eval()
    x = torch.rand(batch, *SHAPE)

    def drawing() -> None:
        with torch.no_grad():
            pair.logits_and_energies(x, lambda logits: logits.argmax(1, keepdim=True))

    def scoring() -> None:
        with torch.no_grad():
            pair.logits_and_energies(x)

    def gradient() -> None:
        x_adv = x.clone().requires_grad_()
        logits, energies = pair.logits_and_energies(x_adv)
        torch.autograd.grad(logits.sum() + energies.sum(), x_adv)

    often = REPEATS if compared <= 100 else 1
    drawn, scored, with_gradient = (_seconds(work, often) / batch for work in (drawing, scoring, gradient))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Cost(n_classes, top_labels, batch, drawn, scored, with_gradient, peak)


def _seconds(work: Callable[[], None], often: int) -> float:
    taken = []
    for _ in range(often + (often > 1)):  # the first one warms up
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return median(taken[1:] or taken)


def table(found: Sequence[Cost]) -> str:
    """A row a configuration."""
    lines = [
        ["classes", "labels compared", "one drawing", "scoring", "with gradient", "scoring / drawing", "peak memory"]
    ]
    for each in found:
        lines.append(
            [
                f"{each.n_classes:,}",
                f"predicted + {each.top_labels}" if each.top_labels else "all",
                f"{each.drawing:.2f} s",
                f"{each.scoring:.2f} s",
                f"{each.gradient:.2f} s",
                f"{each.scoring / each.drawing:.1f}",
                f"{each.peak:,.0f} MB",
            ]
        )
    said = (
        f"Seconds an image of {SHAPE[1]}×{SHAPE[2]} colour pixels, one thread of a CPU, medians of {REPEATS} (of one "
        "run above 100 labels); random weights. One drawing includes classifier and encoder. The peak is that of the "
        "whole process, PyTorch and the gradient step included."
    )
    return f"{grid(lines)}\n\n{textwrap.fill(said, 120, break_on_hyphens=False)}"


if __name__ == "__main__":
    main()
