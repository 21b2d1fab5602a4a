"""What the energies of a drawer cost at 224 pixels for 10, 100 and 1,000 classes: seconds and memory an image.

python -m benchmarks.graft_cost --out results/grafted

Expected time: 15 minutes on one core. Weights are random, which changes no cost; the classifier is a ResNet-18. Each
figure is taken in a process of its own, whose peak memory is read at its end, and written at once: a killed run goes on
where it was. What takes more than 15 minutes is left out. Writes cost.json and cost.md.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch

from robustrecon import provenance
from robustrecon.bench.report.text import grid
from robustrecon.files import atomic_write
from robustrecon.models import ClassConditionedAutoencoder
from robustrecon.models.grafted import Grafted

SHAPE = (3, 224, 224)
STYLE_DIM = 64
REPEATS = 3  # of what compares fewer labels than `ONCE_FROM`
ONCE_FROM = 100
LIMIT = 900  # seconds for one figure
CONFIGURATIONS = ((10, 5), (10, 0), (100, 20), (100, 0), (1000, 20), (1000, 0))  # classes, top labels
WORK = ("classifier", "drawing", "scoring", "gradient")


@dataclass(frozen=True)
class Cost:
    """What one kind of work costs for one image; seconds are a median over `runs`.

    Attributes:
        n_classes, top_labels: of the graft.
        work: the "classifier" alone, one "drawing" (classifier, encoder and the energy of one label), "scoring" (logits
            and energies), or the same with the "gradient" in the image.
        runs: how often it was done.
        seconds: for one image.
        peak: MB of memory of the process at most.
        load: how many processes a core wanted to run meanwhile, this one included; a mean of the last minute.
    """

    n_classes: int
    top_labels: int
    work: str
    runs: int
    seconds: float
    peak: float
    load: float

    @property
    def cell(self) -> tuple[int, int, str]:
        return self.n_classes, self.top_labels, self.work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/grafted"))
    file = parser.parse_args().out / "cost.json"
    found = read(file) if file.exists() else []
    for n_classes, top_labels in CONFIGURATIONS:
        for work in WORK:
            if (n_classes, top_labels, work) not in {each.cell for each in found}:
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    try:
                        found.append(pool.apply_async(measure, (n_classes, top_labels, work)).get(LIMIT))
                    except multiprocessing.TimeoutError:
                        print(f"{n_classes} classes, top {top_labels}, {work}: more than {LIMIT} s", flush=True)
                        continue
                print(found[-1], flush=True)
                write(file, found)


def read(file: Path) -> list[Cost]:
    """The figures in cost.json."""
    return [Cost(**each) for each in json.loads(file.read_text())["costs"]]


def write(file: Path, found: Sequence[Cost]) -> None:
    """Write the figures, and what machine they are of."""
    environment = provenance.environment(torch.device("cpu")) | {"threads": 1, "cores": os.cpu_count()}
    told = {"costs": [asdict(each) for each in found], "environment": environment}
    atomic_write(file, json.dumps(told, indent=2) + "\n")
    atomic_write(file.with_suffix(".md"), f"# What a drawer costs\n\n{table(found)}\n")


def measure(n_classes: int, top_labels: int, work: str) -> Cost:
    """One figure, with one thread."""
    from robustrecon.data._torchvision import models

    torch.set_num_threads(1)
    drawer = ClassConditionedAutoencoder(n_classes, STYLE_DIM, SHAPE)
    classifier = models.resnet18(num_classes=n_classes)
    pair = Grafted(classifier, drawer, range(n_classes), SHAPE, SHAPE, top_labels=top_labels).eval()
    x = torch.rand(1, *SHAPE)

    def gradient() -> None:
        x_adv = x.clone().requires_grad_()
        logits, energies = pair.logits_and_energies(x_adv)
        torch.autograd.grad(logits.sum() + energies.sum(), x_adv)

    done: dict[str, Callable[[], object]] = {
        "classifier": torch.no_grad()(lambda: pair(x)),
        "drawing": torch.no_grad()(lambda: pair.logits_and_energies(x, lambda logits: logits.argmax(1, keepdim=True))),
        "scoring": torch.no_grad()(lambda: pair.logits_and_energies(x)),
        "gradient": gradient,
    }
    often = 1 if work in WORK[2:] and (top_labels + 1 if top_labels else n_classes) >= ONCE_FROM else REPEATS
    seconds = _seconds(done[work], often)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Cost(n_classes, top_labels, work, often, seconds, peak, os.getloadavg()[0] / (os.cpu_count() or 1))


def _seconds(work: Callable[[], object], often: int) -> float:
    taken = []
    for _ in range(often + (often > 1)):  # the first one warms up
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return median(taken[1:] or taken)


def table(found: Sequence[Cost]) -> str:
    """A row a configuration; seconds, and how many passes of the classifier that is."""
    costs = {each.cell: each for each in found}
    head = ["classes", "labels compared", "classifier", "one drawing", "scoring", "with gradient", "drawings to score"]
    lines = [[*head, "peak memory"]]
    for n_classes, top_labels in CONFIGURATIONS:
        one, drawing, *others = (costs.get((n_classes, top_labels, work)) for work in WORK)
        shown = [_seconds_and_passes(each, one) for each in (drawing, *others)]
        per_drawing = f"{others[0].seconds / drawing.seconds:.1f}" if drawing and others[0] else "not measured"
        peak = max((each.peak for each in (one, drawing, *others) if each), default=0)
        compared = f"predicted + {top_labels}" if top_labels else "all"
        first = "not measured" if one is None else f"{one.seconds:.2f} s"
        lines.append([f"{n_classes:,}", compared, first, *shown, per_drawing, f"{peak:,.0f} MB"])
    loads = [each.load for each in found]
    said = (
        f"Seconds for one image of {SHAPE[1]}×{SHAPE[2]} colour pixels beside a ResNet-18, in brackets the same in "
        f"passes of the classifier; one thread of a CPU, float32, random weights; medians of {REPEATS}, single runs "
        f"from {ONCE_FROM} labels compared on. One drawing includes classifier and encoder. The peak is of a whole "
        f"process, PyTorch included. The machine was busy ({min(loads):.1f} to {max(loads):.1f} processes a "
        f"core), so the times are upper bounds; what took more than {LIMIT // 60} minutes is not measured."
    )
    return f"{grid(lines)}\n\n{textwrap.fill(said, 120, break_on_hyphens=False)}"


def _seconds_and_passes(cost: Cost | None, classifier: Cost | None) -> str:
    if cost is None or classifier is None:
        return "not measured"
    return f"{cost.seconds:.2f} s ({cost.seconds / classifier.seconds:,.0f})"


if __name__ == "__main__":
    main()
