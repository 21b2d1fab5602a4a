"""The paper's numbers beside ours: everything under results/paper, from nothing.

python -m benchmarks.paper --data-dir DIR --out results/paper

Expected time: about two and a half hours on two cores; a training or a set of figures that is done is not made again.
Expected figures: MNIST >= 98.48 %, EMNIST letters (rebuilt split) >= 91.27 %; results/paper/paper.md has them all.
The trainings are 3 seeds of the recipe `fast` on either data set, 25 of the 250 epochs of the recipe `paper` on either
(`--epochs 250` for all of them), and style memories of 2 to 32 neurons under both objectives on MNIST.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from robustrecon import InputError, figures, load, load_data, provenance, train
from robustrecon.bench.report import grid
from robustrecon.data import Dataset
from robustrecon.files import atomic_write
from robustrecon.models import load_with_card
from robustrecon.models.shipped import names as shipped_names
from robustrecon.runtime import device_of
from robustrecon.training import Recipe, load_recipe

DATA = ("mnist", "emnist-letters")
SEEDS = (0, 1, 2)
STYLES = (2, 4, 8, 16, 32)
OBJECTIVES = ("fast", "contrastive")
EPOCHS = 25  # of the paper's 250

# R. Wiyatno, J. Orchard, "Style Memory: Making a Classifier Network Generative", IEEE ICCI*CC 2018, section 4. The
# distances are of one base image and its 97 nearest neighbours each.
PUBLISHED: dict[str, float] = {
    "mnist_accuracy": 0.9848,
    "emnist_letters_accuracy": 0.9127,
    "mnist_image_distance_of_image_neighbours": 8.6,
    "mnist_image_distance_of_style_neighbours": 9.3,
    "mnist_style_distance_of_image_neighbours": 1.2,
    "mnist_style_distance_of_style_neighbours": 0.98,
}
EFFECTS = {  # from the neighbours by pixels to those by style; the paper's direction
    "image_distance": 1,
    "style_distance": -1,
    "same_class": -1,
}


@dataclass(frozen=True)
class Row:
    """A line of paper.json.

    Attributes:
        name: what was measured.
        paper: the paper's number, or its words; None where it has neither.
        ours: the mean over seeds, or over n.
        spread: standard deviation over the seeds, or over n where there is one seed.
        n: test images, pairs or base images.
        seeds: of trainings.
        file: where the number is from, beside paper.json.
    """

    name: str
    paper: float | str | None
    ours: float
    spread: float | None
    n: int
    seeds: int
    file: str


def trained(data: Dataset, recipe: Recipe, seed: int, out: Path) -> dict[str, Any]:
    """Train, unless that was done, and keep what came of it in `out/trainings`; the network stays in `runs/paper`."""
    name = f"{data.name}-{recipe.name}-s{seed}"
    path = out / "trainings" / f"{name}.json"
    if path.exists() and (told := json.loads(path.read_text()))["recipe"] == asdict(recipe):
        return told
    folder = Path("runs") / "paper" / name
    model = train(data, folder, recipe, seed=seed, resume=True)
    card = load_with_card(folder)[1]
    told = {
        "data": data.name,
        "recipe": asdict(recipe),
        "seed": seed,
        "accuracy": card["accuracy"],
        "history": card["history"],
        "leakage": {key: asdict(m) for key, m in figures.leakage({"model": model}, data).measures.items()},
        "environment": provenance.environment(device_of(model)),
    }
    atomic_write(path, json.dumps(told, indent=2) + "\n")
    return told


def accuracy_rows(data: Dataset, out: Path) -> Iterator[Row]:
    """Test accuracy: the mean over seeds of `fast`, and of the paper's recipe as far as it was run."""
    name = f"{data.name.replace('-', '_')}_accuracy"
    told = [trained(data, load_recipe("fast"), seed, out)["accuracy"] for seed in SEEDS]
    found = np.array([accuracy["test"] for accuracy in told])
    yield Row(
        name,
        PUBLISHED[name],
        found.mean(),
        found.std(ddof=1),
        told[0]["n"],
        len(SEEDS),
        f"trainings/{data.name}-fast-s0.json",
    )


def recipe_rows(data: Dataset, epochs: int, out: Path) -> Iterator[Row]:
    """The paper's own recipe, for as many of its epochs as were asked for."""
    recipe = load_recipe("paper")
    if epochs != recipe.epochs:
        recipe = replace(recipe, name=f"paper-e{epochs}", epochs=epochs)
    accuracy = trained(data, recipe, 0, out)["accuracy"]
    name = data.name.replace("-", "_")
    yield Row(
        f"{name}_accuracy_paper_recipe_{epochs}_of_250_epochs",
        PUBLISHED[f"{name}_accuracy"] if epochs == 250 else None,
        accuracy["test"],
        None,
        accuracy["n"],
        1,
        f"trainings/{data.name}-{recipe.name}-s0.json",
    )


def leakage_rows(data: Dataset, out: Path) -> Iterator[Row]:
    """How much of the class the style gives away, by objective and size of the style."""
    for objective in OBJECTIVES:
        for size in STYLES:
            recipe = load_recipe(objective)
            recipe = replace(recipe, name=f"{objective}-style-{size}", style_dim=size) if size != 16 else recipe
            told = trained(data, recipe, 0, out)
            for key, measure in told["leakage"].items():
                name = f"{data.name}_{key.removesuffix('_model')}_{told['recipe']['objective']}_style_{size}"
                file = f"trainings/{data.name}-{recipe.name}-s0.json"
                yield Row(name, None, measure["value"], None, measure["n"], 1, file)


def figure_rows(data: Dataset, out: Path) -> Iterator[Row]:
    """What the figures of the shipped network measure, all of them."""
    model, folder = f"style-memory/{data.name}", out / data.name
    path = folder / "figures.json"
    made = json.loads(path.read_text()) if path.exists() else None
    if made is None or set(made["figures"]) != set(figures.FIGURES):
        made = figures.make(load(model), data, folder, title=model)
    measures = {key: entry for figure in made["figures"].values() for key, entry in figure["measures"].items()}
    prefix = data.name.replace("-", "_")
    for key, entry in measures.items():
        name = f"{prefix}_{key}"
        file = f"{data.name}/figures.json"
        yield Row(name, PUBLISHED.get(name), entry["value"], entry["spread"], entry["n"], 1, file)
    for effect, sign in EFFECTS.items():
        change = measures[f"{effect}_of_style_neighbours"]["value"] - measures[f"{effect}_of_image_neighbours"]["value"]
        words = f"{'rises' if sign > 0 else 'falls'}; here it {'does' if change * sign > 0 else 'does not'}"
        n = measures[f"{effect}_of_style_neighbours"]["n"]
        yield Row(f"{prefix}_{effect}_from_image_to_style_neighbours", words, change, None, n, 1, file)


def markdown(rows: list[Row]) -> str:
    """The table of all rows."""
    lines = [["what", "paper", "here", "spread", "n", "trainings", "from"]]
    for row in rows:
        shown = _number(row.name, row.paper) if isinstance(row.paper, float) else row.paper or "–"
        spread = "–" if row.spread is None else _number(row.name, row.spread)
        where = f"[{row.file}]({row.file})"
        lines.append([row.name, shown, _number(row.name, row.ours), spread, f"{row.n:,}", str(row.seeds), where])
    return (
        "# The paper's numbers and ours\n\n"
        'R. Wiyatno, J. Orchard, "Style Memory: Making a Classifier Network Generative", IEEE ICCI*CC 2018. Its '
        "distances between neighbours are of one image each, ours are means over n. Spread: standard deviation over "
        "trainings where there are several, else over n. EMNIST letters: a rebuilt split of 80 to 20, close in kind to "
        "the official one but not the same. Made by `python -m benchmarks.paper`.\n\n" + grid(lines) + "\n"
    )


def _number(name: str, value: float) -> str:
    return f"{value:.2%}" if "accuracy" in name else f"{value:.4g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default="data", help="where MNIST and EMNIST are")
    parser.add_argument("--out", type=Path, default=Path("runs/paper-results"))
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of the recipe `paper`, at most 250")
    given = parser.parse_args()
    rows: list[Row] = []
    for name in DATA:
        data = load_data(name, given.data_dir)
        rows += accuracy_rows(data, given.out)
        if f"style-memory/{name}" in shipped_names():
            rows += figure_rows(data, given.out)
        rows += recipe_rows(data, given.epochs, given.out)
    rows += leakage_rows(load_data("mnist", given.data_dir), given.out)
    text = json.dumps({"rows": [asdict(row) for row in rows]}, indent=2) + "\n"
    print(atomic_write(given.out / "paper.json", text))
    print(atomic_write(given.out / "paper.md", markdown(rows)))


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"paper: error: {error}")
