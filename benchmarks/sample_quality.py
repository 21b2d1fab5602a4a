"""How good are the samples of a generative model? An independent classifier reads them.

python -m benchmarks.sample_quality --data-dir DIR --model egc/mnist --out results/energy_models

For each model: the share of its samples that a plain CNN, trained separately, reads as the class that was asked for,
and the Fréchet distance of their features in that CNN to those of test images, beside the distance of as many training
images to the same test images. Writes samples/MODEL.json and a sheet, samples/MODEL.png. Expected time: the CNN two
minutes, once; the samples as long as the model takes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import torch
from torch import nn

from robustrecon import InputError, provenance
from robustrecon.bench.report.text import bounded, decimals, grid
from robustrecon.data import Dataset, load_data
from robustrecon.figures import draw
from robustrecon.figures.judge import Judge, train_judge
from robustrecon.figures.samples import SampleSheet, samples
from robustrecon.figures.sheets import short
from robustrecon.files import atomic_write, slug
from robustrecon.models import load_with_card
from robustrecon.runtime import batched, device_of, evaluating, resolve_device
from robustrecon.statistics import clopper_pearson, frechet_distance

N, SHOWN = 1000, 10  # images in all; of each class on the sheet


@dataclass(frozen=True)
class Quality:
    """What was measured of a model's samples.

    Attributes:
        model, data: names.
        n: samples, as many of each class.
        read: how many of them the independent classifier reads as the class that was asked for.
        distance: Fréchet distance, in the features of that classifier, of the samples to n test images.
        distance_of_training: that of n training images to the same test images.
        judge_accuracy: of the independent classifier on test images.
        seconds: to make the samples.
        accuracy: of the model itself on test images; None in a file of a version that did not measure it.
        training_images, epochs: what it was trained on, and how often; None where its card does not say.
    """

    model: str
    data: str
    n: int
    read: int
    distance: float
    distance_of_training: float
    judge_accuracy: float
    seconds: float
    accuracy: float | None = None
    training_images: int | None = None
    epochs: int | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--model", action="append", required=True, help="a name, folder or file; repeatable")
    parser.add_argument("--n", type=int, default=N, help="samples of each model")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--out", type=Path, default=Path("runs/energy_models"))
    arguments = parser.parse_args()
    data, device = load_data(arguments.data, arguments.data_dir), resolve_device(arguments.device)
    judge = train_judge(data, device=arguments.device)
    for name in arguments.model:
        model, card = load_with_card(name)
        quality, sheet = measure(model.to(device), name, data, judge, arguments.n)
        quality = replace(quality, training_images=card.get("data", {}).get("n_train"), epochs=card.get("epoch"))
        place = arguments.out / "samples" / slug(name)
        told = asdict(quality) | {"environment": provenance.environment(device)}
        print(atomic_write(place.with_suffix(".json"), json.dumps(told, indent=2) + "\n"))
        draw(sheet, place, f"samples: {name}", (".png",))
    print(table(read(arguments.out)))


def measure(model: nn.Module, name: str, data: Dataset, judge: Judge, n: int) -> tuple[Quality, SampleSheet]:
    """The quality of n samples, and a sheet of some."""
    labels, each = range(data.n_classes), max(1, n // data.n_classes)
    started = time.perf_counter()
    made = samples(model, labels, [short(title) for title in data.classes], each)
    seconds = time.perf_counter() - started
    images = made.images.reshape(-1, *data.image_shape)
    asked = torch.arange(data.n_classes).repeat_interleave(each).numpy()
    generator = torch.Generator().manual_seed(0)
    some = [
        judge.features(part.pick(torch.randperm(len(part), generator=generator)[: len(images)]).x.numpy())
        for part in (data.test, data.train)
    ]
    quality = Quality(
        model=name,
        data=data.name,
        n=len(images),
        read=int((judge.labels(images) == asked).sum()),
        distance=frechet_distance(judge.features(images), some[0]),
        distance_of_training=frechet_distance(some[1], some[0]),
        judge_accuracy=judge.accuracy,
        seconds=seconds,
        accuracy=accuracy(model, data),
    )
    return quality, SampleSheet(made.images[:, :SHOWN], made.names)


def accuracy(model: nn.Module, data: Dataset) -> float:
    """The share of the test images that a model labels right."""
    with evaluating(model):
        labels = batched(lambda part: (model(part).argmax(1),), data.test.x.to(device_of(model)))[0]
    return float((labels.cpu() == data.test.y).float().mean())


def read(folder: Path) -> list[Quality]:
    """What `main` wrote below a folder."""
    known = {each.name for each in fields(Quality)}
    told = [json.loads(path.read_text()) for path in sorted((folder / "samples").glob("*.json"))]
    return [Quality(**{name: each[name] for name in known & each.keys()}) for each in told]


def table(found: Sequence[Quality]) -> str:
    """A row a model."""
    rows = [["model", "data", "trained on", "accuracy", "reader's accuracy", "n", "read as asked for"]]
    rows[0] += ["Fréchet distance", "of training images", "s / 1,000"]
    for each in found:
        share = bounded(each.read / each.n, clopper_pearson(each.read, each.n))
        per_thousand = decimals(1000 * each.seconds / each.n, 0)
        distances = [decimals(value, 1) for value in (each.distance, each.distance_of_training)]
        trained = "–" if each.epochs is None else f"{each.epochs} x {each.training_images:,} images"
        own = "–" if each.accuracy is None else f"{each.accuracy:.1%}"
        of = [f"`{each.model}`", each.data, trained, own, f"{each.judge_accuracy:.1%}"]
        rows.append([*of, f"{each.n:,}", share, *distances, per_thousand])
    return grid(rows)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"sample_quality: error: {error}")
