"""The calibration scores that come with the shipped models: `python -m benchmarks.shipped_calibration [NAME...]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from robustrecon import InputError, checkpoint
from robustrecon.bench.model import load_benchmark_model
from robustrecon.models import shipped, stored_scores


def write(name: str, data_dir: str | Path = "data", device: str = "auto") -> Path:
    """Write the scores of the shipped model `name`, over those that are there; returns their file.

    Raises:
        InputError: no such model, or its data is not in `data_dir` or is not what it was trained on.
    """
    shipping = load_benchmark_model(name, data_dir=data_dir, device=device)
    return stored_scores.write(stored_scores.file_beside(shipped.file_of(name)), shipping.model, shipping.data)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shipped_calibration", description=__doc__)
    parser.add_argument("names", nargs="*", help="shipped models; all by default")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where the data is")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    given = parser.parse_args()
    try:
        for name in given.names or shipped.names():
            file = write(name, given.data_dir, given.device)
            scores = checkpoint.load(file).tensors
            n = max(len(column) for column in scores.values())
            print(f"{file}: {file.stat().st_size:,} bytes, n = {n:,}, {', '.join(sorted(scores))}")
    except InputError as error:
        print(f"shipped_calibration: error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
