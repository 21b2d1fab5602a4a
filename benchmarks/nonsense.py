"""What is no digit, before a classifier of digits that nobody here trained, with a drawer beside it: who rejects it?

python -m benchmarks.nonsense --data-dir DIR --out results/grafted

Expected time: a minute on 2 cores. Each detector is calibrated on what the classifier labels right of 3,000 random
MNIST test images; clean images are the others. Writes nonsense.json and nonsense.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from robustrecon import InputError, provenance
from robustrecon.bench.key import false_alarms
from robustrecon.bench.report.text import bounded, grid, percent
from robustrecon.data import Dataset, load_data
from robustrecon.detectors import Calibration, calibrate, load_detector, parts, shares_of
from robustrecon.detectors.scoring import labels_and_scores
from robustrecon.files import atomic_write
from robustrecon.statistics import clopper_pearson

from .grafted import ALPHA, DRAWER, PACKAGE, VERSION, grafted

N = 2000  # images of a kind, where there are as many
LEVELS = 101  # grey levels of blank images
CANDIDATES = (
    "logit_margin",
    "msp",
    "max_logit",
    "energy",
    "label_margin",
    "global_error",
    "free_energy",
    "any_of(label_margin,global_error)",
    "any_of(label_margin,free_energy)",
    "any_of(label_margin,logit_margin)",
    "any_of(label_margin,msp)",
    "any_of(label_margin,max_logit)",
    "any_of(label_margin,free_energy,msp)",
    "any_of(label_margin,free_energy,max_logit)",
    "any_of(label_margin,0*max_logit)",
    "any_of(label_margin,0*free_energy,0*msp)",
    "any_of(label_margin,0*free_energy,0*max_logit)",
)


@dataclass(frozen=True)
class Rejection:
    """How many of a kind of images a detector rejects.

    Attributes:
        detector: its name.
        images: the kind.
        n, rejected: counts.
        wrong: those that are accepted under a label that is not theirs; None for images without a label.
    """

    detector: str
    images: str
    n: int
    rejected: int
    wrong: int | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--out", type=Path, default=Path("runs/grafted"))
    arguments = parser.parse_args()
    found = measure(load_data("mnist-test", arguments.data_dir), load_data("emnist-letters", arguments.data_dir))
    told = {
        "classifier": f"{PACKAGE} {VERSION}",
        "drawer": DRAWER,
        "alpha": ALPHA,
        "rejections": [asdict(each) for each in found],
        "environment": provenance.environment(torch.device("cpu")),
    }
    print(atomic_write(arguments.out / "nonsense.json", json.dumps(told, indent=2) + "\n"))
    print(atomic_write(arguments.out / "nonsense.md", markdown(found)))


def measure(digits: Dataset, letters: Dataset) -> list[Rejection]:
    """Each candidate on clean test images and on each kind of nonsense."""
    model = grafted()
    singles = {part.name: part for name in CANDIDATES for part in parts(load_detector(name))}
    names = list(singles)

    def scored(x: Tensor) -> tuple[Tensor, Tensor]:
        labels, scores, _ = labels_and_scores(list(singles.values()), model, x)
        return labels, scores

    labels, calibration = scored(digits.calibration.x)
    calibration = calibration[labels == digits.calibration.y]
    told = {kind: scored(x) for kind, x in {"clean": digits.test.head(N).x, **nonsense(digits, letters)}.items()}
    y = digits.test.head(N).y
    found = []
    for candidate in CANDIDATES:
        detector = load_detector(candidate)
        columns = [names.index(part.name) for part in parts(detector)]
        threshold: Calibration = calibrate(calibration[:, columns], ALPHA, shares_of(detector))
        for kind, (labels, scores) in told.items():
            rejected = threshold.combined(scores[:, columns]) > threshold.threshold
            wrong = int(((labels != y) & ~rejected).sum()) if kind == "clean" else None
            found.append(Rejection(candidate, kind, len(rejected), int(rejected.sum()), wrong))
    return found


def nonsense(digits: Dataset, letters: Dataset) -> dict[str, Tensor]:
    """Images (N, 1, 28, 28) that are of no class, by their kind."""
    generator = torch.Generator().manual_seed(0)
    shape = (N, *digits.image_shape)
    levels = torch.linspace(0, 1, LEVELS).view(-1, 1, 1, 1)
    density = 0.3 * torch.rand(N, 1, 1, 1, generator=generator)
    chosen = torch.randperm(len(letters.test), generator=generator)[:N]
    return {
        "black": levels[:1].expand(-1, *digits.image_shape),
        "blank": levels.expand(-1, *digits.image_shape),
        "noise": torch.rand(shape, generator=generator),
        "dots": (torch.rand(shape, generator=generator) < density).float(),
        "inverted": 1 - digits.test.head(N).x,
        "letters": letters.test.pick(chosen).x,
    }


def markdown(found: Sequence[Rejection]) -> str:
    """The report."""
    return f"# What is no digit\n\n{table(found)}\n\nMade by `python -m benchmarks.nonsense`.\n"


def read(path: Path) -> list[Rejection]:
    """What `main` wrote to nonsense.json."""
    return [Rejection(**each) for each in json.loads(path.read_text())["rejections"]]


def table(found: Sequence[Rejection]) -> str:
    """A row a detector, the share that it rejects of each kind, and what the kinds are."""
    kinds = list(dict.fromkeys(each.images for each in found if each.images != "clean"))
    lines = [["detector", "clean: rejected", "clean: rejected or wrong", *kinds]]
    for detector in dict.fromkeys(each.detector for each in found):
        of_kind = {each.images: each for each in found if each.detector == detector}
        lines.append([f"`{detector}`", *_clean(of_kind["clean"]), *_shares(of_kind, kinds)])
    clean = next(each for each in found if each.images == "clean")
    said = (
        f"Share rejected. {PACKAGE} {VERSION} with the drawing of `{DRAWER}` beside it, each detector calibrated to a "
        f"false-alarm rate of {false_alarms(ALPHA, True)} of 3,000 random MNIST test images; clean: {clean.n:,} "
        "others, with 95 % Clopper-Pearson intervals. "
        f"The black image, blank images of {LEVELS} grey levels, uniform noise, random white dots (up to 30 "
        "%), inverted digits, EMNIST letters (the rebuilt split; many have the shape of a digit: "
        "O, I, l, S, Z, ...)."
    )
    return f"{grid(lines)}\n\n{textwrap.fill(said, 120, break_on_hyphens=False)}"


def _clean(of: Rejection) -> list[str]:
    assert of.wrong is not None
    return [bounded(count / of.n, clopper_pearson(count, of.n)) for count in (of.rejected, of.rejected + of.wrong)]


def _shares(of_kind: Mapping[str, Rejection], kinds: Sequence[str]) -> list[str]:
    return [percent(of_kind[kind].rejected / of_kind[kind].n) for kind in kinds]


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"nonsense: error: {error}")
