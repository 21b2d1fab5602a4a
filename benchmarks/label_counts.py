"""Generative pre-training against discriminative training, by the number of labelled images (MNIST).

python -m benchmarks.label_counts --data-dir DIR --out results/energy_models/label-counts

Expected time: 40 minutes on one core. Dai, Lu, Wu (ICLR 2015) say that pre-training by the generative gradient improves
a network. Both have the same network, initial weights, images, batches, number of steps and learning rates; half of
the steps are generative pre-training in the one, none in the other. How many steps there are is chosen, for each number
of labels, by the calibration images, on a seed that is not reported. Finished runs are kept in runs.json and not
repeated: a killed run goes on. Writes label-counts.md.
"""

from __future__ import annotations

import argparse
import json
import textwrap
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, median, stdev

import torch
from scipy.stats import ttest_rel
from torch import Tensor

from robustrecon import load_data, provenance
from robustrecon.bench.report.text import grid
from robustrecon.data import Dataset, Part
from robustrecon.data.splits import to_float
from robustrecon.files import atomic_write
from robustrecon.models import GenerativeGradientCNN
from robustrecon.runtime import Progress, seeded
from robustrecon.training import Recipe
from robustrecon.training.loop import accuracy
from robustrecon.training.objectives import Objective, build

SHARES = {"discriminative": 0.0, "generative": 0.5}  # of the steps that are generative pre-training
CANDIDATES = {100: (200, 400), 1_000: (400, 800), 10_000: (600, 1200), 55_000: (800, 1600)}  # steps, by labels
SEEDS = range(5)
CHOOSING = 1000  # the seed by which the steps are chosen
SCHEDULE = Recipe("label-counts", epochs=1, batch_size=64, learning_rate=2e-3, schedule="one-cycle")
TIMED = 40  # steps of each kind whose times are compared
REPORT_EVERY = 20  # steps between reports


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        labels: number of labelled images.
        method: a key of `SHARES`.
        seed: of the choice of the images, the initial weights and the order.
        steps: number of gradient steps.
        calibration_error: share of the calibration images that are misclassified.
        test_error: the same of the test images; None of a run that chooses the number of steps.
        seconds: of the processor, for the training.
    """

    labels: int
    method: str
    seed: int
    steps: int
    calibration_error: float
    test_error: float | None
    seconds: float

    @property
    def key(self) -> tuple[int, str, int, int]:
        return self.labels, self.method, self.seed, self.steps


@dataclass(frozen=True)
class Cost:
    """Median processor seconds of a step of each kind, taken in turns."""

    generative: float
    discriminative: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, default=Path("runs/label-counts"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    data, file = load_data("mnist", given.data_dir), given.out / "runs.json"
    cost, runs = read(file) if file.exists() else (measured_cost(data), [])
    for labels, candidates in CANDIDATES.items():
        wanted = [(CHOOSING, steps) for steps in candidates]
        complete(wanted, labels, data, cost, runs, file)
        complete([(seed, chosen_steps(runs, labels)) for seed in SEEDS], labels, data, cost, runs, file)


def complete(
    wanted: Sequence[tuple[int, int]], labels: int, data: Dataset, cost: Cost, runs: list[Run], file: Path
) -> None:
    """Do the runs of these seeds and steps that are not there yet, and write each when it is finished."""
    for seed, steps in wanted:
        for method in SHARES:
            if (labels, method, seed, steps) not in {run.key for run in runs}:
                runs.append(trained(data, labels, method, seed, steps))
                print(runs[-1], flush=True)
                write(file, cost, runs)


def trained(data: Dataset, labels: int, method: str, seed: int, steps: int) -> Run:
    """Train on some labelled images, and measure the error."""
    part = labelled(data.train, labels, seed)
    with seeded(seed):
        model = GenerativeGradientCNN(data.n_classes, data.image_shape)
        objective = build("generative-gradient", model, {"generative_share": SHARES[method]})
        started = time.process_time()
        train(objective, part, steps, f"{labels} labels, {method}, seed {seed}")
        seconds = time.process_time() - started
    test_error = None if seed == CHOOSING else 1 - accuracy(model, data.test)
    return Run(labels, method, seed, steps, 1 - accuracy(model, data.calibration), test_error, seconds)


def labelled(part: Part, n: int, seed: int) -> Part:
    """n images at random, as many of each class where n allows it."""
    order = torch.randperm(len(part), generator=torch.Generator().manual_seed(seed))
    if n == len(part):
        return part
    y, classes = part.y[order], int(part.y.max()) + 1
    return part.pick(torch.cat([order[y == k][: n // classes] for k in range(classes)]))


def train(objective: Objective, part: Part, steps: int, title: str) -> None:
    """Train for some steps, with the batches of a shuffled epoch after the other."""
    size = min(SCHEDULE.batch_size, len(part))
    optimizer = torch.optim.Adam(objective.parameter_groups(), lr=SCHEDULE.learning_rate)
    rows = torch.empty(0, dtype=torch.long)
    with Progress(title, steps, "steps") as bar:
        for step in range(steps):
            if len(rows) < size:
                rows = torch.randperm(len(part))
            chosen, rows = rows[:size], rows[size:]
            for group in optimizer.param_groups:
                group["lr"] = SCHEDULE.learning_rate * SCHEDULE.learning_rate_factor(step / steps)
            descend(objective, optimizer, to_float(part.images[chosen]), part.y[chosen], step / steps)
            if (step + 1) % REPORT_EVERY == 0:
                bar.advance(REPORT_EVERY)


def descend(objective: Objective, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, progress: float) -> None:
    """One step."""
    loss = objective(x, y, progress)["loss"]
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def measured_cost(data: Dataset) -> Cost:
    """What a step costs; the first ones warm up."""
    model = GenerativeGradientCNN(data.n_classes, data.image_shape)
    objective = build("generative-gradient", model, {"generative_share": 0.5})
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    part = data.train.head(SCHEDULE.batch_size)
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(TIMED):
        for times, progress in zip(taken, (0.0, 0.9), strict=True):
            started = time.process_time()
            descend(objective, optimizer, part.x, part.y, progress)
            times.append(time.process_time() - started)
    return Cost(*(median(times[5:]) for times in taken))


def chosen_steps(runs: Sequence[Run], labels: int) -> int:
    """The number of steps after which the two methods have the least calibration error, in the mean of both."""
    choosing = [run for run in runs if run.labels == labels and run.seed == CHOOSING]
    return min(
        CANDIDATES[labels], key=lambda steps: mean(run.calibration_error for run in choosing if run.steps == steps)
    )


def read(file: Path) -> tuple[Cost, list[Run]]:
    """What runs.json holds."""
    told = json.loads(file.read_text())
    return Cost(**told["cost"]), [Run(**run) for run in told["runs"]]


def write(file: Path, cost: Cost, runs: Sequence[Run]) -> None:
    """Write the runs, what machine they are of, and their table."""
    environment = provenance.environment(torch.device("cpu")) | {"threads": 1}
    told = {"cost": asdict(cost), "runs": [asdict(run) for run in runs], "environment": environment}
    atomic_write(file, json.dumps(told, indent=2) + "\n")
    atomic_write(file.with_name("label-counts.md"), f"# Generative pre-training\n\n{table(cost, runs)}\n")


def table(cost: Cost, runs: Sequence[Run]) -> str:
    """A row a number of labels, of those that have at least two seeds of both methods."""
    lines = [["labels", "steps", "seeds", *(f"{name} (%)" for name in SHARES), "difference (points)", "p"]]
    for labels in CANDIDATES:
        pairs = pairs_of(runs, labels)
        if len(pairs) > 1:
            first, second = zip(*pairs, strict=True)
            test = ttest_rel(second, first)
            low, high = test.confidence_interval(0.95)
            steps = next(run.steps for run in runs if run.labels == labels and run.test_error is not None)
            errors = [f"{100 * mean(each):.2f} ± {100 * stdev(each):.2f}" for each in (first, second)]
            difference = f"{100 * (mean(second) - mean(first)):+.2f} [{100 * low:+.2f}, {100 * high:+.2f}]"
            shown = f"{test.pvalue:.3f}" if test.pvalue >= 0.001 else "< 0.001"
            lines.append([f"{labels:,}", f"{steps:,}", str(len(pairs)), *errors, difference, shown])
    ratio = cost.generative / cost.discriminative
    said = (
        "Error on MNIST's 10,000 test images, mean and standard deviation over seeds, each with other labelled images "
        "and other initial weights. *Discriminative*: cross-entropy over labels. *Generative*: the first "
        f"{SHARES['generative']:.0%} of the steps with the generative gradient, a cross-entropy over the images of the "
        f"batch of {SCHEDULE.batch_size}, the others discriminative. Difference: generative − discriminative, with its "
        "95 % interval; negative is in favour of pre-training. p: paired t-test over the seeds, not corrected for the "
        f"{len(CANDIDATES)} rows. A generative step takes {ratio:.3f} times the processor seconds of a discriminative "
        f"one (medians of {TIMED} in turns)."
    )
    return f"{grid(lines)}\n\n{textwrap.fill(said, 120, break_on_hyphens=False)}"


def pairs_of(runs: Sequence[Run], labels: int) -> list[tuple[float, float]]:
    """The test errors of both methods, in the order of `SHARES`, for each seed that has both."""
    found = {(run.seed, run.method): run.test_error for run in runs if run.labels == labels}
    pairs = [tuple(found.get((seed, method)) for method in SHARES) for seed in SEEDS]
    return [(first, second) for first, second in pairs if first is not None and second is not None]


if __name__ == "__main__":
    main()
