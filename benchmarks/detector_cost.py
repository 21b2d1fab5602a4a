"""What each detector of the catalogue costs on one network: seconds to fit, microseconds to score an image.

python -m benchmarks.detector_cost --data-dir DIR --out results/detectors

Expected time: five minutes on one core, most of it for `magnet`. Writes cost.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from robustrecon import DefendedClassifier, InputError, load, load_data, provenance
from robustrecon.detectors import DETECTORS, FittedDetector, load_detector, parts
from robustrecon.detectors.scoring import labels_and_scores
from robustrecon.files import atomic_write

MODEL, DATA = "robust/mnist", "mnist"
FITTED = 10_000  # training images
SCORED = 200
REPEATS = 3


@dataclass(frozen=True)
class Cost:
    """Processor seconds, one thread.

    Attributes:
        detector: its name.
        fit_seconds: on `FITTED` training images; None where there is nothing to fit.
        score_microseconds: for an image, the classifier's own pass included; median of `REPEATS`.
    """

    detector: str
    fit_seconds: float | None
    score_microseconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--out", type=Path, default=Path("runs/detectors"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data, model = load_data(DATA, arguments.data_dir), load(MODEL)
    some = data.train.pick(torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))[:FITTED])
    found = []
    for name in DETECTORS:
        defended = DefendedClassifier(model, load_detector(name))
        fit = None
        if issubclass(DETECTORS[name], FittedDetector):
            started = time.process_time()
            defended.fit(some.x, some.y)
            fit = time.process_time() - started
        taken = []
        for _ in range(REPEATS):
            started = time.process_time()
            labels_and_scores(parts(defended.detector), model, data.test.x[:SCORED])
            taken.append(time.process_time() - started)
        found.append(Cost(name, fit, sorted(taken)[REPEATS // 2] / SCORED * 1e6))
        print(f"{name}: fit {fit}, {found[-1].score_microseconds:.0f} µs", file=sys.stderr)
    told = {
        "model": MODEL,
        "fitted_on": FITTED,
        "detectors": [asdict(each) for each in found],
        "environment": provenance.environment(torch.device("cpu")),
    }
    print(atomic_write(arguments.out / "cost.json", json.dumps(told, indent=2) + "\n"))


def read(path: Path) -> list[Cost]:
    """What `main` wrote; nothing where there is no such file."""
    return [Cost(**each) for each in json.loads(path.read_text())["detectors"]] if path.exists() else []


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"detector_cost: error: {error}")
