"""Who only wants to be in the way: how near to a clean image can an attacker have it rejected?

python -m benchmarks.forced --data-dir DIR --out results/grafted

Expected time: 13 minutes on one core. A classifier that nobody here trained, alone under its own confidence and with a
drawer beside it, each calibrated on what it labels right of 3,000 random MNIST test images and attacked on others.
Writes forced.json, .md and .png.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from torch import nn

from robustrecon import DefendedClassifier, InputError, plotting, provenance
from robustrecon.attacks import ForceReject, MultiTarget
from robustrecon.bench import ForcedRejection, forced_rejection
from robustrecon.bench.key import false_alarms
from robustrecon.bench.report.text import decimals, grid
from robustrecon.data import Dataset, load_data
from robustrecon.files import atomic_write

from .grafted import ALPHA, DRAWER, PACKAGE, VERSION, classifier, grafted

N = 200
EPS = (0.1, 0.2, 0.3)
FORCE = ForceReject(steps=100)
WRONG_LABEL = MultiTarget(steps=40, targets=1, early_exit=True)
DETECTORS = {"classifier alone": "logit_margin", "grafted": "label_margin"}
SHOWN = (0, 0.05, 0.1, 0.2, 0.3, 0.5, 1)  # fractions of eps in the table; the picture has all


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--out", type=Path, default=Path("runs/grafted"))
    parser.add_argument("--n", type=int, default=N, help="images that are attacked")
    arguments = parser.parse_args()
    data = load_data("mnist-test", arguments.data_dir)
    found = {
        "classifier alone": measure(classifier(), DETECTORS["classifier alone"], data, arguments.n),
        "grafted": measure(grafted(), DETECTORS["grafted"], data, arguments.n),
    }
    told = {
        "classifier": f"{PACKAGE} {VERSION}",
        "drawer": DRAWER,
        "alpha": ALPHA,
        "force": repr(FORCE),
        "wrong_label": repr(WRONG_LABEL),
        "detectors": DETECTORS,
        "curves": {name: [curve.to_json() for curve in curves] for name, curves in found.items()},
        "environment": provenance.environment(torch.device("cpu")),
    }
    print(atomic_write(arguments.out / "forced.json", json.dumps(told) + "\n"))
    print(atomic_write(arguments.out / "forced.md", markdown(found)))
    print(draw(found, arguments.out / "forced.png"))


def measure(model: nn.Module, detector: str, data: Dataset, n: int) -> tuple[ForcedRejection, ...]:
    """The curves of a model and a detector, one for each radius."""
    print(f"{detector}: {n} images", file=sys.stderr)
    known = data.calibration
    defended = DefendedClassifier(model, detector).calibrate((known.x, known.y), ALPHA, correct_only=True)
    part = data.test.head(n)
    return forced_rejection(defended, part.x, part.y, EPS, force=FORCE, wrong_label=WRONG_LABEL)


def read(path: Path) -> dict[str, tuple[ForcedRejection, ...]]:
    """What `main` wrote to forced.json: the curves by what was attacked."""
    curves = json.loads(path.read_text())["curves"]
    return {name: tuple(map(ForcedRejection.from_json, each)) for name, each in curves.items()}


def markdown(found: Mapping[str, tuple[ForcedRejection, ...]]) -> str:
    """The report."""
    picture = "![The curves](forced.png)"
    return f"# Forced rejection\n\n{table(found)}\n\n{picture}\n\nMade by `python -m benchmarks.forced`.\n"


def table(found: Mapping[str, tuple[ForcedRejection, ...]]) -> str:
    """A row for each of what was attacked, radius and figure; a column a fraction of the radius; and what it means."""
    rows = [["", "L∞ eps", "share, in %", *(f"{fraction:g} eps" for fraction in SHOWN)]]
    for name, curves in found.items():
        for curve in curves:
            place = [f"{name}, `{DETECTORS[name]}`", f"{curve.eps:g}"]
            rejected = [_percent(curve.rejection(fraction)[0]) for fraction in SHOWN]
            error = [_percent(curve.total_error(fraction)[0]) for fraction in SHOWN]
            rows += [[*place, "rejected", *rejected], [*place, "total error", *error]]
    every = [curve for curves in found.values() for curve in curves]
    widest = max(high - low for curve in every for low, high in [curve.total_error(at)[1] for at in SHOWN])
    said = (
        f"*Rejected*: share of the images that are right and accepted when clean, and that `force-reject` has rejected "
        "by a change of at most that fraction of eps. *Total error* (Chen et al. 2023): share of all images that are "
        "wrong or rejected when clean, or rejected within that fraction, or turned into a wrong label that is accepted "
        f"within eps: at 0 it is the robust risk. {PACKAGE} {VERSION}, alone and with the drawing of `{DRAWER}` beside "
        f"it, calibrated to a false-alarm rate of {false_alarms(ALPHA, True)} of 3,000 random MNIST test images; the "
        f"first {len(every[0])} others. Lower bounds, the more so of the robust risk, for "
        "which the table of the whole list of attacks is the one to read: here it is of one attack of "
        f"{WRONG_LABEL.steps} steps. 95 % Clopper-Pearson intervals are at most "
        f"{decimals(100 * widest, 0)} points wide."
    )
    return f"{grid(rows)}\n\n{textwrap.fill(said, 120, break_on_hyphens=False)}"


def draw(found: Mapping[str, tuple[ForcedRejection, ...]], path: Path) -> Path:
    """The total error over the distance within which a rejection counts as one, with its intervals."""
    with mpl.rc_context(plotting.STYLE):
        figure = Figure(figsize=(3.0 * len(EPS), 2.9), layout="constrained")
        axes = figure.subplots(1, len(EPS), squeeze=False, sharey=True)[0]
        for colour, (name, curves) in zip(plotting.COLOURS, found.items(), strict=False):
            for axis, curve in zip(axes, curves, strict=True):
                distance = [fraction * curve.eps for fraction in curve.fractions]
                error = [curve.total_error(fraction) for fraction in curve.fractions]
                low, high = zip(*(ends for _, ends in error), strict=True)
                axis.plot(distance, [share for share, _ in error], color=colour, marker=".", label=name)
                axis.fill_between(distance, low, high, color=colour, alpha=0.18, linewidth=0)
                axis.set(title=f"L∞ {curve.eps:g}", xlabel="a rejection within this is an error", ylim=(0, 1.02))
        axes[0].set_ylabel("total error")
        axes[0].legend(frameon=False)
        return plotting.write(figure, path)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"forced: error: {error}")
