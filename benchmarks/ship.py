"""Put a trained model into the package, in half precision: `python -m benchmarks.ship RUN_DIR robust/mnist`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from robustrecon import InputError, checkpoint
from robustrecon.bench.model import load_benchmark_model
from robustrecon.data import Dataset
from robustrecon.models import TRAINED_ON, build, model_weights, shipped, stored_scores
from robustrecon.training.loop import accuracy
from robustrecon.training.state import without_training_state

MOST_BYTES = 4_000_000


def ship(run: str | Path, name: str, data_dir: str | Path = "data", device: str = "auto") -> Path:
    """Write the shipped model `name` from a finished training run, over the one of that name; returns its file.

    Beside it go the scores of its calibration part.

    The test accuracy in its card is measured again, of the half-precision weights; of the history the last epoch stays.

    Args:
        run: a folder that `robustrecon train` wrote.
        name: family/data, a family of letters, digits and hyphens, and the data set that the run was trained on.
        data_dir: where the data is.
        device: to measure on.

    Raises:
        InputError: a name of another form or of other data, an unfinished run, or a file that would be too large.
    """
    benchmarked = load_benchmark_model(run, data_dir=data_dir, device=device)
    saved = checkpoint.load(run)
    trained_on = saved.card["data"]["name"]
    family, _, data = name.partition("/")
    if not family.replace("-", "").isalnum() or data != trained_on:
        raise InputError(f"name: got {name!r}, must be FAMILY/{trained_on}, the family of letters, digits and hyphens")
    kept = without_training_state(saved.tensors)
    kept.pop(TRAINED_ON, None)
    half = {key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in kept.items()}
    model = build(saved.card["architecture"], model_weights(half)).to(next(benchmarked.model.parameters()).device)
    measured = {"test": accuracy(model, benchmarked.data.test), "n": len(benchmarked.data.test)}
    card = saved.card | {"accuracy": measured, "history": saved.card["history"][-1:]}
    target = shipped.file_of(name)
    with tempfile.TemporaryDirectory() as folder:
        size = checkpoint.save(Path(folder) / target.name, half, card).stat().st_size
    if size > MOST_BYTES:
        raise InputError(f"run: {run} makes a file of {size:,} bytes, must be at most {MOST_BYTES:,}")
    add_sketch(benchmarked.data)
    scores = stored_scores.file_beside(target)
    stored_scores.remove(scores)
    checkpoint.save(target, half, card)
    stored_scores.write(scores, model, benchmarked.data)
    return target


def add_sketch(data: Dataset) -> Path:
    """Keep the sketch of the training images of `data` beside the shipped models, by their fingerprint."""
    found = shipped.sketches() | {data.fingerprint: data.sketch}
    return checkpoint.save(shipped.FOLDER / shipped.SKETCHES, found, {"kind": "sketches"})


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ship", description=__doc__)
    parser.add_argument("run", type=Path, help="a folder that `robustrecon train` wrote")
    parser.add_argument("name", help="family/data, robust/mnist say")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where the data is")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    given = parser.parse_args()
    try:
        path = ship(given.run, given.name, given.data_dir, given.device)
    except InputError as error:
        print(f"ship: error: {error}", file=sys.stderr)
        sys.exit(2)
    measured = checkpoint.load(path).card["accuracy"]
    print(f"{path}: {path.stat().st_size:,} bytes, test accuracy {measured['test']:.2%} (n = {measured['n']})")


if __name__ == "__main__":
    main()
