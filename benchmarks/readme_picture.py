"""The README's picture: attacked digits, and what the network draws of them under two labels.

python -m benchmarks.readme_picture --data-dir DIR

Expected time: half a minute on one core. Writes docs/images/examples.png, and examples.json, from which
`python -m benchmarks.readme` makes the caption. Nobody chooses the images: they are the first test images that the
detector rejects after the attack, and the first that it accepts.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

import attacks
from robustrecon import DefendedClassifier, InputError, load, load_data, plotting
from robustrecon.bench.report.examples import Example, pick_examples
from robustrecon.files import atomic_write

from .readme import PICTURE, ROOT

MODEL, DATA = "style-memory/mnist", "mnist"
DETECTOR, ALPHA = "label_margin", 0.05
EPS, STEPS = 0.3, 40
N = 64  # test images that are attacked
SHOWN = 3
COLUMNS = ("clean", "adversarial", "drawn as\npredicted", "drawn as\nbest other", "verdict")
WIDTH = 3.6  # inches: a phone shows letters of 8 points at 10 pixels
DPI = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default="data", help="where MNIST is")
    parser.add_argument("--out", type=Path, default=ROOT / PICTURE, help="the picture, .png")
    given = parser.parse_args()
    data = load_data(DATA, given.data_dir)
    x, y = data.test.x[:N], data.test.y[:N]
    defended = DefendedClassifier(load(MODEL), DETECTOR).calibrate(data.calibration.x, ALPHA)
    outcome = attacks.load("pgd", "torchattacks", eps=EPS, steps=STEPS)(defended, x, y)
    broken = outcome.success & (outcome.distance > 0)  # not what was wrong without an attack
    rejected = defended.inspect(outcome.x).rejected & broken
    picked = pick_examples(defended, x[broken], outcome.x[broken], y[broken], SHOWN)
    print(draw(picked, defended.threshold, given.out))
    told = {
        "model": MODEL,
        "detector": DETECTOR,
        "alpha": ALPHA,
        "attack": f"PGD-{STEPS}",
        "eps": EPS,
        "n": N,
        "broken": int(broken.sum()),
        "rejected": int(rejected.sum()),
        "shown_rejected": sum(example.rejected for example in picked),
        "shown_accepted": sum(not example.rejected for example in picked),
    }
    print(atomic_write(given.out.with_suffix(".json"), json.dumps(told, indent=2) + "\n"))


def draw(picked: Sequence[Example], threshold: float, path: Path) -> Path:
    """A row an image: clean, adversarial, drawn under the predicted and the best other label, and the verdict."""
    with mpl.rc_context({**plotting.STYLE, "font.size": 8}):
        figure = Figure(figsize=(WIDTH, 0.35 + 0.85 * len(picked)), dpi=DPI, layout="constrained")
        grid = figure.subplots(len(picked), len(COLUMNS), squeeze=False)
        for axes, example in zip(grid, picked, strict=True):
            (as_predicted, predicted, energy), (as_other, other, least), (_, true, _) = example.drawings
            colour, sign, word = (
                (plotting.COLOURS[2], ">", "rejected") if example.rejected else (plotting.COLOURS[1], "≤", "accepted")
            )
            shown = {
                f"{true}": example.clean,
                f"predicted {predicted}": example.adversarial,
                f"{predicted}: E {energy:.1f}": as_predicted,
                f"{other}: E {least:.1f}": as_other,
            }
            for axis, (text, image) in zip(axes, shown.items(), strict=False):
                axis.imshow(image.squeeze(0).clamp(0, 1).numpy(), cmap="gray", vmin=0, vmax=1)
                axis.set(xticks=[], yticks=[])
                axis.set_xlabel(text, labelpad=2)
                axis.spines[:].set_visible(False)
            axes[1].spines[:].set(visible=True, color=colour, linewidth=2)
            axes[-1].set(xlim=(0, 1), ylim=(0, 1), box_aspect=1)
            axes[-1].set_axis_off()
            margin = f"{energy:.1f} − {least:.1f}\n= {example.score:.1f}\n{sign} {threshold:.1f}"
            axes[-1].text(0.5, 1, word, ha="center", va="top", color=colour, weight="bold")
            axes[-1].text(0.5, 0.72, margin.replace("-", "−"), ha="center", va="top")
        for axis, name in zip(grid[0], COLUMNS, strict=True):
            axis.set_title(name, fontsize=8)
        return plotting.write(figure, path)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"readme_picture: error: {error}")
