"""What the energies of a drawer cost at 224 pixels for 10, 100 and 1,000 classes: seconds and memory an image.

python -m benchmarks.graft_cost --out results/grafted

Expected time: 15 minutes on one core. Weights are random, which changes no cost; the classifier is a ResNet-18. Seconds
are those of the processor, which other work on the machine changes less than those of a clock. Each figure is taken in
a process of its own, whose peak memory is read at its end, and written at once: a killed run goes on where it was. What
takes more than 15 minutes is left out. Writes cost.json and cost.md.
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
NOT_MEASURED = "not measured"
WORK = ("drawing", "scoring", "gradient")


@dataclass(frozen=True)
class Cost:
    """What one kind of work costs for one image; seconds are a median over `runs`.

    Attributes:
        n_classes, top_labels: of the graft.
        work: one "drawing" (classifier, encoder and the energy of one label), "scoring" (logits and energies), or the
            same with the "gradient" in the image.
        runs: how often it was done.
        seconds: of the processor, for one image.
        classifier: the same for one pass of the classifier, just before and after; a median.
        peak: MB of memory of the process at most.
        load: how many processes a core wanted to run meanwhile, this one included; a mean of the last minute.
    """

    n_classes: int
    top_labels: int
    work: str
    runs: int
    seconds: float
    classifier: float
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
        "drawing": torch.no_grad()(lambda: pair.logits_and_energies(x, lambda logits: logits.argmax(1, keepdim=True))),
        "scoring": torch.no_grad()(lambda: pair.logits_and_energies(x)),
        "gradient": gradient,
    }
    alone = torch.no_grad()(lambda: pair(x))
    often = 1 if work != "drawing" and (top_labels + 1 if top_labels else n_classes) >= ONCE_FROM else REPEATS
    before, taken, after = _seconds(alone, REPEATS), _seconds(done[work], often), _seconds(alone, REPEATS)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    return Cost(n_classes, top_labels, work, often, median(taken), median([*before, *after]), peak, load)


def _seconds(work: Callable[[], object], often: int) -> list[float]:
    taken = []
    for _ in range(often + (often > 1)):  # the first one warms up
        started = time.process_time()
        work()
        taken.append(time.process_time() - started)
    return taken[1:] or taken


def table(found: Sequence[Cost]) -> str:
    """A row a configuration; seconds, and how many passes of the classifier that is."""
    costs = {each.cell: each for each in found}
    head = ["classes", "labels compared", "one drawing", "scoring", "with gradient", "drawings to score", "peak memory"]
    lines = [head]
    for n_classes, top_labels in CONFIGURATIONS:
        row = [costs.get((n_classes, top_labels, work)) for work in WORK]
        drawing, scoring, _ = row
        drawings = f"{scoring.seconds / drawing.seconds:.1f}" if drawing and scoring else NOT_MEASURED
        peak = max((each.peak for each in row if each), default=None)
        lines.append(
            [
                f"{n_classes:,}",
                f"predicted + {top_labels}" if top_labels else "all",
                *(_shown(each) for each in row),
                drawings,
                NOT_MEASURED if peak is None else f"{peak:,.0f} MB",
            ]
        )
    loads, passes = [each.load for each in found], [each.classifier for each in found]
    said = (
        f"Processor seconds for one image of {SHAPE[1]}×{SHAPE[2]} colour pixels beside a ResNet-18, in brackets the "
        f"same in passes of the classifier ({median(passes):.2f} s in the median); one thread, random weights; "
        f"medians of {REPEATS}, single runs from {ONCE_FROM} labels compared on. One drawing includes classifier and "
        "encoder. The peak is of a whole process, PyTorch included. The machine was busy with other work "
        f"({min(loads):.1f} to {max(loads):.1f} processes a core), which makes times longer and uneven; what took more "
        f"than {LIMIT // 60} minutes is not measured."
    )
    return f"{grid(lines)}\n\n{textwrap.fill(said, 120, break_on_hyphens=False)}"


def _shown(cost: Cost | None) -> str:
    if cost is None:
        return NOT_MEASURED
    return f"{cost.seconds:.2f} s ({cost.seconds / cost.classifier:,.1f})"


if __name__ == "__main__":
    main()
