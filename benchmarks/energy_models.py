"""Four ways to make a classifier generative, side by side: size, accuracy, cost, samples, and what is no digit.

python -m benchmarks.energy_models --data-dir DIR --out results/energy_models

Expected time: 15 minutes on one core, most of it for egc. What `benchmarks.sample_quality` found of a model's samples
is in the table too; what attacks do to them is `robustrecon bench --suite benchmarks/energy_models.toml`. Writes
models.json and models.md. A model that is measured already is not measured again.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from robustrecon import InputError, provenance
from robustrecon.bench.report.text import bounded, decimals, grid
from robustrecon.data import Part, load_data
from robustrecon.detectors import load_detector, parts
from robustrecon.detectors.scoring import labels_and_scores
from robustrecon.figures.mistakes import auroc
from robustrecon.files import atomic_write
from robustrecon.models import load_with_card
from robustrecon.statistics import clopper_pearson

from . import sample_quality

MODELS = (
    "style-memory/mnist",
    "contrastive/mnist",
    "egc/mnist",
    "generative-convnet/mnist",
    "generative-gradient/mnist",
)
RECONSTRUCTION, JOINT = ("label_margin", "global_error"), ("logit_margin", "energy")
N = 1000  # digits, and letters
TIMED = 200  # images, whose scoring is timed
REPEATS = 3
NOTE = f"""\
*Accuracy* on MNIST's 10,000 test images. *Scoring*: processor seconds for 1,000 images, one thread, the median of
{REPEATS}: of the reconstruction energies, and of the joint ones, which are the logits. *Letters*: AUROC of a score
between {N:,} random test digits and as many EMNIST letters (the rebuilt split), with its 95 % interval (DeLong);
`{RECONSTRUCTION[0]}` and `{RECONSTRUCTION[1]}` are of reconstruction energies, `{JOINT[0]}` and `{JOINT[1]}` of joint
ones. *Samples*: how many of 1,000 an independent classifier reads as the class that was asked for, and their Fréchet
distance to test images in its features."""


@dataclass(frozen=True)
class Measured:
    """What was measured of a model.

    Attributes:
        model: its name.
        parameters: their number.
        accuracy, n: on test images.
        seconds: to score 1,000 images, by the kind of energies.
        letters: AUROC and its interval, of each score, against letters.
    """

    model: str
    parameters: int
    accuracy: float
    n: int
    seconds: dict[str, float]
    letters: dict[str, list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--out", type=Path, default=Path("runs/energy_models"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    digits, letters = (load_data(name, arguments.data_dir).test for name in ("mnist", "emnist-letters"))
    found = read(arguments.out)
    for name in MODELS:
        if name not in [each.model for each in found]:
            found.append(measure(name, some(digits), some(letters)))
            told = {
                "models": [asdict(each) for each in found],
                "environment": provenance.environment(torch.device("cpu")),
            }
            print(atomic_write(arguments.out / "models.json", json.dumps(told, indent=2) + "\n"))
    print(atomic_write(arguments.out / "models.md", table(arguments.out)))


def measure(name: str, digits: Part, letters: Part) -> Measured:
    """Score digits and letters with a model."""
    model, card = load_with_card(name)
    letters_found = {}
    for kind in (RECONSTRUCTION, JOINT):
        detectors = [part for each in kind for part in parts(load_detector(each))]
        scores = [labels_and_scores(detectors, model, part.x)[1].T.numpy() for part in (digits, letters)]
        for each, *pair in zip(kind, *scores, strict=True):
            measured = auroc(*pair)
            assert measured.interval is not None
            letters_found[each] = [measured.value, *measured.interval]
    return Measured(
        model=name,
        parameters=sum(weights.numel() for weights in model.parameters()),
        accuracy=card["accuracy"]["test"],
        n=card["accuracy"]["n"],
        seconds={kind[0]: seconds(kind[0], model, digits) for kind in (RECONSTRUCTION, JOINT)},
        letters=letters_found,
    )


def some(part: Part) -> Part:
    """A random sample, the same each time."""
    return part.pick(torch.randperm(len(part), generator=torch.Generator().manual_seed(0))[:N])


def seconds(detector: str, model: nn.Module, part: Part) -> float:
    """Processor seconds to score 1,000 images, the median of some repeats."""
    x, taken = part.head(TIMED).x, []
    for _ in range(REPEATS):
        started = time.process_time()
        labels_and_scores(parts(load_detector(detector)), model, x)
        taken.append(time.process_time() - started)
    return sorted(taken)[REPEATS // 2] * 1000 / len(x)


def read(folder: Path) -> list[Measured]:
    """What `main` wrote to a folder, in the order of `MODELS`."""
    path = folder / "models.json"
    found = [Measured(**each) for each in json.loads(path.read_text())["models"]] if path.exists() else []
    return sorted(found, key=lambda each: MODELS.index(each.model))


def table(folder: Path) -> str:
    """A row a model, with the note."""
    rows = [["model", "parameters", "accuracy", "scoring, s", "joint, s"]]
    rows[0] += [f"letters, `{name}`" for name in (*RECONSTRUCTION, *JOINT)] + ["samples read", "Fréchet distance"]
    of_samples = {each.model: each for each in sample_quality.read(folder)}
    for each in read(folder):
        aurocs = [interval(each.letters[name]) for name in (*RECONSTRUCTION, *JOINT)]
        taken = [decimals(each.seconds[kind[0]], 1) for kind in (RECONSTRUCTION, JOINT)]
        quality, samples = of_samples.get(each.model), ["–", "–"]
        if quality is not None:
            share = bounded(quality.read / quality.n, clopper_pearson(quality.read, quality.n))
            samples = [share, decimals(quality.distance, 1)]
        rows.append([f"`{each.model}`", f"{each.parameters:,}", f"{each.accuracy:.2%}", *taken, *aurocs, *samples])
    beside = sorted({each.distance_of_training for each in of_samples.values() if each.data == "mnist"})
    note = f"{NOTE} Of as many training images it is {', '.join(decimals(each, 1) for each in beside)}."
    return f"{grid(rows)}\n\n{textwrap.fill(note, 120, break_on_hyphens=False)}\n"


def interval(measured: Sequence[float]) -> str:
    """An AUROC and its interval."""
    value, low, high = measured
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"energy_models: error: {error}")
