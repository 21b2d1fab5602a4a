"""Which reading of EGC's energy, which weight of the cross-entropy, which guidance, which noise level of the drawings?

python -m benchmarks.egc_choices --data-dir DIR --out results/energy_models/egc
python -m benchmarks.egc_choices --data-dir DIR --out results/energy_models/egc --only pooled-0.01
python -m benchmarks.egc_choices --data-dir DIR --out results/energy_models/egc --levels egc/mnist

Expected time: on a GPU ten minutes for each network and three for the levels; on a CPU a day for each. Each network is
that of the recipe egc-large, kept in runs/egc, and goes on where it was. An independent classifier reads samples of
each, with several guidances. With `--levels`, drawings of one network are made at several noise levels instead, and
what they detect is measured. Every figure is of calibration images, or of samples. Writes NETWORK.json, levels.json and
egc.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from robustrecon import InputError, provenance
from robustrecon.attacks import PGD
from robustrecon.bench.report.text import bounded, decimals, grid
from robustrecon.data import Dataset, Part, load_data
from robustrecon.detectors import load_detector, parts
from robustrecon.detectors.scoring import labels_and_scores
from robustrecon.figures.judge import Judge, train_judge
from robustrecon.figures.mistakes import auroc
from robustrecon.figures.samples import samples
from robustrecon.files import atomic_write
from robustrecon.models import EGC, load
from robustrecon.runtime import resolve_device
from robustrecon.statistics import clopper_pearson, frechet_distance
from robustrecon.training import load_recipe, train
from robustrecon.training.loop import accuracy

RECIPE = "egc-large"
READINGS, WEIGHTS = ("pooled", "map"), (0.01, 0.1)
NETWORKS = {f"{reading}-{weight}": (reading, weight) for reading in READINGS for weight in WEIGHTS}
GUIDANCES = (1.0, 2.0, 4.0, 8.0, 16.0)
SAMPLES = 100  # of each class and guidance
LEVELS, DRAWS = (50, 100, 200, 300, 500), (1, 4)
IMAGES = 1000  # that are scored, of a kind
ATTACK_EPS = 0.1
DETECTORS = ("label_margin", "global_error")


@dataclass(frozen=True)
class Guided:
    """Samples of a network with some guidance.

    Attributes:
        guidance: of the sampler.
        n: samples.
        read: how many of them the independent classifier reads as the class that was asked for.
        distance: Fréchet distance, in the features of that classifier, to n calibration images.
    """

    guidance: float
    n: int
    read: int
    distance: float


@dataclass(frozen=True)
class Level:
    """Drawings at a noise level.

    Attributes:
        level, draws: of the drawings.
        attacked, letters: AUROC of each detector, by its name, between calibration images and those that PGD on the
            classifier alone made wrong, or letters.
        n_attacked: number of the former.
        milliseconds: to score an image.
    """

    level: int
    draws: int
    attacked: dict[str, float]
    letters: dict[str, float]
    n_attacked: int
    milliseconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--only", action="append", choices=NETWORKS, help="repeatable; by default all")
    parser.add_argument("--levels", help="a network, whose noise levels are compared instead")
    parser.add_argument("--epochs", type=int, help="instead of the recipe's")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--out", type=Path, default=Path("runs/energy_models/egc"))
    arguments = parser.parse_args()
    data, device = load_data("mnist", arguments.data_dir), resolve_device(arguments.device)
    environment = {"environment": provenance.environment(device)}
    if arguments.levels:
        network = load(arguments.levels)
        if not isinstance(network, EGC):
            raise InputError(f"levels: {arguments.levels} must be a network of the kind egc")
        letters = load_data("emnist-letters", arguments.data_dir).test
        found = [asdict(each) for each in levels(network.to(device), data.calibration, letters)]
        told = {"network": arguments.levels, "levels": found} | environment
        print(atomic_write(arguments.out / "levels.json", json.dumps(told, indent=2) + "\n"))
    else:
        judge = train_judge(data, device=arguments.device)
        for name in arguments.only or NETWORKS:
            network = trained(name, data, arguments.device, arguments.epochs).to(device)
            told = {
                "accuracy": accuracy(network, data.calibration),
                "n": len(data.calibration),
                "guided": [asdict(guided(network, guidance, data.calibration, judge)) for guidance in GUIDANCES],
            } | environment
            print(atomic_write(arguments.out / f"{name}.json", json.dumps(told, indent=2) + "\n"))
    print(atomic_write(arguments.out / "egc.md", tables(arguments.out)))


def trained(name: str, data: Dataset, device: str, epochs: int | None) -> EGC:
    """One of `NETWORKS`, trained here unless it is already."""
    reading, weight = NETWORKS[name]
    recipe = load_recipe(RECIPE)
    recipe = replace(
        recipe,
        name=f"{RECIPE}-{name}",
        epochs=epochs or recipe.epochs,
        least_steps=0,
        model_options=dict(recipe.model_options, reading=reading),
        objective_options={"classification_weight": weight},
    )
    network = train(data, Path("runs/egc") / name, recipe, device=device, resume=True)
    assert isinstance(network, EGC)
    return network


def guided(network: EGC, guidance: float, compared: Part, judge: Judge) -> Guided:
    """What the independent classifier says of samples with a guidance."""
    classes = range(network.n_classes)
    made = samples(network, classes, list(map(str, classes)), SAMPLES, settings={"guidance": guidance}).images
    images = made.reshape(-1, *network.image_shape)
    asked = torch.arange(network.n_classes).repeat_interleave(SAMPLES).numpy()
    distance = frechet_distance(judge.features(images), judge.features(compared.head(len(images)).x.numpy()))
    return Guided(guidance, len(images), int((judge.labels(images) == asked).sum()), distance)


def levels(network: EGC, part: Part, letters: Part) -> list[Level]:
    """What drawings at each level, averaged over each number of draws, detect."""
    device = network.alpha_bars.device
    clean = part.head(IMAGES)
    attacked = PGD(eps=ATTACK_EPS, steps=40)(network, clean.x.to(device), clean.y.to(device))
    kinds = (clean.x.to(device), attacked.x[attacked.success], letters.head(IMAGES).x.to(device))
    found = []
    for level in LEVELS:
        for draws in DRAWS:
            drawing = EGC(**(network.config | {"level": level, "draws": draws})).to(device)
            drawing.unet.load_state_dict(network.unet.state_dict())
            detectors = [part for name in DETECTORS for part in parts(load_detector(name))]
            started = time.perf_counter()
            scores = [labels_and_scores(detectors, drawing, images)[1].cpu() for images in kinds]
            spent = (time.perf_counter() - started) / sum(map(len, kinds))
            clean_scores, *others = (each.T.numpy() for each in scores)
            aurocs = [
                {name: auroc(*pair).value for name, *pair in zip(DETECTORS, clean_scores, other, strict=True)}
                for other in others
            ]
            found.append(Level(level, draws, aurocs[0], aurocs[1], len(kinds[1]), 1000 * spent))
    return found


def tables(folder: Path) -> str:
    """What is in a folder: a row a network and guidance, and a row a level."""
    rows = [["reading", "γ", "accuracy", "guidance", "read as asked for", "Fréchet distance"]]
    for name, (reading, weight) in NETWORKS.items():
        if (path := folder / f"{name}.json").exists():
            told = json.loads(path.read_text())
            for each in map(lambda given: Guided(**given), told["guided"]):
                share = bounded(each.read / each.n, clopper_pearson(each.read, each.n))
                of_network = [reading, str(weight), decimals(100 * told["accuracy"], 2) + " %"]
                rows.append([*of_network, f"{each.guidance:g}", share, decimals(each.distance, 1)])
    found = [grid(rows)]
    if (path := folder / "levels.json").exists():
        told = json.loads(path.read_text())
        found.append(level_table([Level(**each) for each in told["levels"]]))
    return "\n\n".join(found) + "\n"


def level_table(found: Sequence[Level]) -> str:
    """A row a level and number of draws."""
    rows = [["noise level", "draws", *(f"{kind}, `{name}`" for kind in ("PGD", "letters") for name in DETECTORS), "ms"]]
    for each in found:
        values = [decimals(of_kind[name], 3) for of_kind in (each.attacked, each.letters) for name in DETECTORS]
        rows.append([str(each.level), str(each.draws), *values, decimals(each.milliseconds, 2)])
    return grid(rows)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"egc_choices: error: {error}")
