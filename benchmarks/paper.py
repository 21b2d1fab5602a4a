"""The paper's numbers beside ours: everything under results/paper, from nothing.

python -m benchmarks.paper --data-dir DIR --out results/paper

Expected time: some hours on two cores; a training or a figure that is done is not made again.
Expected figures: MNIST >= 98.48 %, EMNIST letters (rebuilt split) >= 91.27 %; results/paper/paper.md has them all.
The trainings are 3 seeds of the recipe `fast` on either data set, 25 of the 250 epochs of the recipe `paper` on either
(`--epochs 250` for all of them), and style memories of 2 to 32 neurons under both objectives on MNIST.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from robustrecon import InputError, figures, load, load_data, plotting, provenance, train
from robustrecon.bench.report.text import grid
from robustrecon.data import Dataset
from robustrecon.files import atomic_write
from robustrecon.models import EnergyModel, load_with_card, shipped
from robustrecon.runtime import device_of
from robustrecon.training import Recipe, load_recipe
from robustrecon.training.recipes import completed

DATA = ("mnist", "emnist-letters")
SEEDS = (0, 1, 2)
STYLE = 16  # style neurons of the recipes, and of the paper
STYLES = (2, 4, 8, 16, 32)
OBJECTIVES = {"paper": "fast", "contrastive": "contrastive"}  # what results call them, and the recipes
EPOCHS = 25  # of the paper's 250
RUNS = Path("runs/paper")
LEAKS = ("class_read_from_style", "lowest_energy_is_true")

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
EFFECTS = {"image_distance": "rises", "style_distance": "falls", "same_class": "falls"}  # image to style neighbours


@dataclass(frozen=True)
class Row:
    """A line of paper.json.

    Attributes:
        name: what was measured.
        paper: the paper's number, or the direction of its effect; None where it has neither.
        ours: the mean over seeds, or over n.
        spread: standard deviation over the seeds, or over n where there is one seed; of a share half its interval.
        n: test images, pairs or base images.
        seeds: of trainings.
        file: where the number is from, beside paper.json.
        reproduced: of a direction, whether ours is the same.
    """

    name: str
    paper: float | str | None
    ours: float
    spread: float | None
    n: int
    seeds: int
    file: str
    reproduced: bool | None = None


def trained(data: Dataset, recipe: Recipe, seed: int, out: Path) -> dict[str, Any]:
    """Train, unless that was done, and keep what came of it in `out/trainings`; the network stays in `runs/paper`."""
    name = f"{data.name}-{recipe.name}-s{seed}"
    path = out / "trainings" / f"{name}.json"
    about = {"data": data.name, "fingerprint": data.fingerprint, "recipe": recipe.to_json(), "seed": seed}
    if path.exists():
        told = json.loads(path.read_text())
        if told["about"] | {"recipe": completed(told["about"]["recipe"])} == about:
            return told
    model = train(data, RUNS / name, recipe, seed=seed, resume=True)
    card = load_with_card(RUNS / name)[1]
    drawn = figures.reconstruction(model, data)
    told = {
        "about": about,
        "accuracy": card["accuracy"],
        "history": card["history"],
        "reconstruction": {key: asdict(measure) for key, measure in drawn.measures.items()},
        "leakage": {key: asdict(m) for key, m in figures.leakage({"": model}, data).measures.items()},
        "environment": provenance.environment(device_of(model)),
    }
    atomic_write(path, json.dumps(told, indent=2) + "\n")
    return told


def accuracy_rows(data: Dataset, out: Path) -> Iterator[Row]:
    """Test accuracy and reconstruction error: means over seeds of the recipe `fast`."""
    told = [trained(data, load_recipe("fast"), seed, out) for seed in SEEDS]
    prefix, file = data.name.replace("-", "_"), f"trainings/{data.name}-fast-s*.json"
    values = {
        "accuracy": [each["accuracy"]["test"] for each in told],
        "reconstruction_error_over_trainings": [
            each["reconstruction"]["reconstruction_error"]["value"] for each in told
        ],
    }
    for key, found in values.items():
        name = f"{prefix}_{key}"
        mean, spread = float(np.mean(found)), float(np.std(found, ddof=1))
        yield Row(name, PUBLISHED.get(name), mean, spread, told[0]["accuracy"]["n"], len(SEEDS), file)


def recipe_rows(data: Dataset, epochs: int, out: Path) -> Iterator[Row]:
    """The paper's own recipe, for as many of its epochs as were asked for, with its curve."""
    recipe = load_recipe("paper")
    whole = recipe.epochs
    if epochs != whole:
        recipe = replace(recipe, name=f"paper-e{epochs}", epochs=epochs)
    told = trained(data, recipe, 0, out)
    prefix = data.name.replace("-", "_")
    name = f"{prefix}_accuracy_paper_recipe_{epochs}_of_{whole}_epochs"
    published = PUBLISHED[f"{prefix}_accuracy"]
    file = f"trainings/{data.name}-{recipe.name}-s0.json"
    with mpl.rc_context(plotting.STYLE):
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        axes = figure.subplots()
        axes.plot(
            [row["epoch"] for row in told["history"]],
            [row["test_accuracy"] for row in told["history"]],
            color=plotting.COLOURS[0],
            marker=".",
        )
        axes.axhline(published, color="0.4", linestyle=":")
        axes.annotate(f"the paper's {published:.2%} after {whole}", (1, published), va="bottom", fontsize=8)
        axes.set(
            xlabel="epoch", ylabel="test accuracy", title=f"{data.name}: the paper's recipe, {epochs} epochs, seed 0"
        )
        plotting.write(figure, out / f"{data.name}-paper-recipe.png")
    accuracy = told["accuracy"]
    yield Row(name, published if epochs == whole else None, accuracy["test"], None, accuracy["n"], 1, file)


def leakage_rows(data: Dataset, out: Path) -> Iterator[Row]:
    """How much of the class the style gives away, by objective and size of the style, as lines too."""
    found: dict[str, dict[str, list[float]]] = {}
    rows = []
    for objective, recipe_name in OBJECTIVES.items():
        for size in STYLES:
            recipe = load_recipe(recipe_name)
            if size != STYLE:
                recipe = replace(recipe, name=f"{recipe_name}-style-{size}", model_options={"style_dim": size})
            told = trained(data, recipe, 0, out)
            for key in LEAKS:
                measure = told["leakage"][f"{key}_"]
                found.setdefault(key, {}).setdefault(objective, []).append(measure["value"])
                name = f"{data.name}_{key}_{objective}_style_{size}"
                file = f"trainings/{data.name}-{recipe.name}-s0.json"
                rows.append(Row(name, None, measure["value"], _spread(measure), measure["n"], 1, file))
    with mpl.rc_context(plotting.STYLE):
        figure = Figure(figsize=(8.4, 3.8), layout="constrained")
        for axes, (key, lines) in zip(figure.subplots(1, len(LEAKS), sharey=True), found.items(), strict=True):
            for index, (objective, values) in enumerate(lines.items()):
                axes.plot(
                    STYLES,
                    values,
                    color=plotting.COLOURS[index],
                    linestyle=plotting.LINES[index],
                    marker="o",
                    label=objective,
                )
            axes.set_xscale("log", base=2)
            axes.set(
                xticks=STYLES, xticklabels=STYLES, xlabel="style neurons", title=key.replace("_", " "), ylim=(0, 1)
            )
            axes.grid(alpha=0.25)
        figure.axes[0].legend(title="objective", frameon=False)
        figure.axes[0].set_ylabel(f"share of {rows[0].n:,} test images")
        plotting.write(figure, out / "leakage-by-style.png")
    yield from rows


def figure_rows(data: Dataset, out: Path) -> Iterator[Row]:
    """What the figures measure, all of them: of the shipped network where there is one, else of the first training."""
    name, folder = f"style-memory/{data.name}", out / data.name
    model: EnergyModel = load(name) if name in shipped.names() else load(RUNS / f"{data.name}-fast-s0")
    made = figures.make(model, data, folder, title=name)
    measures = {key: entry for figure in made["figures"].values() for key, entry in figure["measures"].items()}
    prefix, file = data.name.replace("-", "_"), f"{data.name}/figures.json"
    for key, entry in measures.items():
        name = f"{prefix}_{key}"
        yield Row(name, PUBLISHED.get(name), entry["value"], _spread(entry), entry["n"], 1, file)
    for effect, direction in EFFECTS.items():
        one, other = (measures[f"{effect}_of_{space}_neighbours"] for space in ("image", "style"))
        change = other["value"] - one["value"]
        same = (change > 0) == (direction == "rises")
        name = f"{prefix}_change_of_{effect}_from_image_to_style_neighbours"
        yield Row(name, direction, change, None, one["n"], 1, file, same)


def markdown(rows: list[Row]) -> str:
    """The table of all rows."""
    lines = [["what", "paper", "here", "spread", "n", "trainings", "from"]]
    for row in rows:
        paper = _number(row.name, row.paper) if isinstance(row.paper, float) else row.paper or "–"
        ours = _number(row.name, row.ours)
        if row.reproduced is not None:
            ours += ", reproduced" if row.reproduced else ", **not reproduced**"
        spread = "–" if row.spread is None else _number(row.name, row.spread)
        where = row.file if "*" in row.file else f"[{row.file}]({row.file})"
        lines.append([row.name, paper, ours, spread, f"{row.n:,}", str(row.seeds), where])
    return (
        "# The paper's numbers and ours\n\n"
        'R. Wiyatno, J. Orchard, "Style Memory: Making a Classifier Network Generative", IEEE ICCI*CC 2018. Its '
        "distances between neighbours are of one image each, ours are means over n; distances in pixels are a property "
        "of the images alone, and that the nearest in either space are nearer there follows from what nearest means. "
        "Spread: standard deviation over trainings where there are several, else over n; of a share or an AUROC half "
        "the width of its 95 % interval. EMNIST letters: a rebuilt split of 80 to 20, close in kind to the official "
        f"one but not the same. Made by `python -m benchmarks.paper`.\n\n{grid(lines)}\n\n"
        "![Style given away, by size of the style](leakage-by-style.png)\n\n"
        "![The paper's recipe on MNIST](mnist-paper-recipe.png)\n\n"
        "![The paper's recipe on EMNIST letters](emnist-letters-paper-recipe.png)\n"
    )


def _spread(measure: Mapping[str, Any]) -> float | None:
    if measure["interval"] is not None:
        low, high = measure["interval"]
        return (high - low) / 2
    return measure["spread"]


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
