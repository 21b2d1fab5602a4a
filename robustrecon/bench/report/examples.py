"""Pictures: ROC curves of all cells, and sheets that show why inputs were flagged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ...defence import DefendedClassifier
from ...plotting import COLOURS, LINES, STYLE, write
from .. import store
from ..key import CellKey, attack_title, budget
from ..metrics import flags, roc_of_successes
from ..model import BenchmarkModel
from ..plan import AttackConfig
from ..runner import Bench

MOST_ACROSS = 4  # panels side by side


def roc(results: Sequence[dict[str, Any]], path: Path, log_x: bool = False) -> Path:
    """ROC curves of every cell, clean against successful adversarial images: a panel an attack.

    Colour is the budget, line style the detector. `log_x` shows the false-positive rate on a logarithmic axis,
    where a detector earns its keep.
    """
    attacks = list(dict.fromkeys(attack_title(result["spec"]) for result in results))
    ordered = sorted(results, key=lambda result: (result["spec"]["norm"], result["spec"]["eps"]))
    budgets = list(dict.fromkeys(budget(result["spec"]) for result in ordered))
    detectors = list(dict.fromkeys(result["spec"]["detector"] for result in results))
    with mpl.rc_context(STYLE):
        across = min(len(attacks), MOST_ACROSS)
        down = -(-len(attacks) // across)
        figure = Figure(figsize=(max(6.4, 0.8 + 3.6 * across), 0.8 + 3.6 * down), layout="constrained")
        grid = figure.subplots(down, across, squeeze=False, sharey=True)
        panels = grid.flatten()
        for panel in panels[len(attacks) :]:
            panel.remove()
        for panel, attack in zip(panels, attacks, strict=False):
            for result in (result for result in results if attack_title(result["spec"]) == attack):
                _curve(panel, result, budgets, detectors)
            panel.set(title=attack, xlabel="false positive rate", ylim=(0, 1.01))
            panel.grid(alpha=0.25)
            if log_x:
                panel.set(xscale="log", xlim=(1 / results[0]["spec"]["n"], 1))
            else:
                panel.set(xlim=(-0.01, 1))
            chance = np.geomspace(1e-4, 1)
            panel.plot(chance, chance, color="0.8", linewidth=0.8)
        for panel in grid[:, 0]:
            panel.set_ylabel("true positive rate, successful attacks")
        handles, labels = _legend(budgets, detectors)
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 5), frameon=False)
        spec = results[0]["spec"]
        figure.suptitle(f"{spec['data']}, {spec['model']}, n = {spec['n']}")
        return write(figure, path)


def draw_examples(
    target: BenchmarkModel, results: Sequence[dict[str, Any]], path: Path, most: int = 8, among: int = 64
) -> Path | None:
    """Attack the first `among` test images again and draw up to `most` that fell; None if none did.

    Of the results, it is the one that tells most of the detector: where it is closest to catching half of what fell.
    """
    result = max(store.measured(results), key=_divided)
    spec = CellKey(**result["spec"])
    bench = Bench(target, [spec.detector], spec.alpha, min(among, spec.n), path.parent, progress=False)
    attacked, defended = bench.attack(AttackConfig.again(spec), spec.detector), bench.calibrated(spec.detector)
    right = attacked.distance > 0
    picked = pick_examples(defended, bench.x[right], attacked.x[right], bench.y[right], most)
    if not picked:
        path.unlink(missing_ok=True)  # of an earlier run
        return None
    title = (
        f"{spec.data}, {spec.model}, {attack_title(result['spec'])} {budget(result['spec'])}: rejected ones first, "
        f"half of each where there are\n{spec.detector} rejects scores above {defended.threshold:.4g}; "
        f"of all attacked images that fell it accepts {_accepted(result):.0%}"
    )
    return examples(picked, target.data.classes, path, title)


def _accepted(result: dict[str, Any]) -> float:
    each = flags(result)
    fell = each.right & each.wrong
    return float((fell & each.undetected).sum() / fell.sum())


def _divided(result: dict[str, Any]) -> float:
    undetected, fell = result["detection"]["undetected_success"], 1 - result["attack"]["accuracy"]
    return min(undetected, fell - undetected)


@dataclass(frozen=True)
class Example:
    """One input, clean and attacked, with what the model draws of it.

    Attributes:
        clean, adversarial: (C, H, W) images.
        clean_energy: of the clean image under its true label.
        drawings: drawings of the adversarial image under the predicted, the best other and the true label, with
            those labels and their energies.
        rejected: what the detector says of the adversarial image.
    """

    clean: Tensor
    adversarial: Tensor
    clean_energy: float
    drawings: list[tuple[Tensor, int, float]]
    score: float
    rejected: bool


def pick_examples(
    defended: DefendedClassifier, clean: Tensor, adversarial: Tensor, y: Tensor, most: int = 8
) -> list[Example]:
    """Up to `most` successful attacks, half of them caught where there are enough of both kinds.

    Args:
        defended: calibrated, over a model with `reconstruct(x, labels)`.
        clean, adversarial: (B, C, H, W) images.
        y: (B,) true labels.
    """
    reconstruct = getattr(defended.model, "reconstruct", None)
    if reconstruct is None:
        return []
    verdict = defended.inspect(adversarial)
    fell = verdict.label != y
    caught, missed = (fell & verdict.rejected).nonzero()[:, 0], (fell & ~verdict.rejected).nonzero()[:, 0]
    half = most // 2
    n_caught = min(len(caught), max(half, most - len(missed)))
    chosen = torch.cat([caught[:n_caught], missed[: most - n_caught]])
    if not len(chosen):
        return []
    x, predicted, true = adversarial[chosen], verdict.label[chosen], y[chosen]
    with torch.no_grad():
        energies = defended.class_energies(x)
        best_other = energies.scatter(1, predicted[:, None], float("inf")).argmin(1)
        labels = torch.stack([predicted, best_other, true], dim=1)
        drawn = torch.stack([reconstruct(x, column) for column in labels.T], dim=1).cpu()
        clean_energies = defended.class_energies(clean[chosen]).gather(1, true[:, None])[:, 0]
    costs = energies.gather(1, labels)
    return [
        Example(
            clean[index].cpu(),
            adversarial[index].cpu(),
            clean_energies[row].item(),
            list(zip(drawn[row], labels[row].tolist(), costs[row].tolist(), strict=True)),
            verdict.score[index].item(),
            bool(verdict.rejected[index]),
        )
        for row, index in enumerate(chosen.tolist())
    ]


def examples(picked: Sequence[Example], classes: Sequence[str], path: Path, title: str) -> Path:
    """A sheet: a column an input; clean, adversarial, and drawn under three labels, with energies."""
    rows = ("clean", "adversarial", "drawn as predicted", "drawn as best other", "drawn as true label")
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1.4 + 1.15 * len(picked), 7.4), layout="constrained")
        axes = figure.subplots(len(rows), len(picked), squeeze=False)
        for column, example in enumerate(picked):
            true, predicted = example.drawings[2][1], example.drawings[0][1]
            verdict = "rejected" if example.rejected else "accepted"
            cells = [
                (example.clean, f"is {_short(classes[true])}: E = {example.clean_energy:.1f}"),
                (example.adversarial, f"read as {_short(classes[predicted])}\nscore {example.score:.1f}\n{verdict}"),
                *((image, f"{_short(classes[label])}: E = {energy:.1f}") for image, label, energy in example.drawings),
            ]
            for axis, (image, text) in zip(axes[:, column], cells, strict=True):
                _image(axis, image)
                axis.set_title(text, fontsize=8)
            colour = COLOURS[2] if example.rejected else COLOURS[1]
            axes[1, column].title.set_color(colour)
            for side in axes[1, column].spines.values():
                side.set(visible=True, color=colour, linewidth=2)
        for axis, name in zip(axes[:, 0], rows, strict=True):
            axis.set_ylabel(name, rotation=0, ha="right", va="center")
        figure.suptitle(title)
        return write(figure, path)


def _curve(panel: Any, result: dict[str, Any], budgets: list[str], detectors: list[str]) -> None:
    curve = roc_of_successes(result)
    if curve is None:
        return
    fpr, tpr = curve
    colour = COLOURS[budgets.index(budget(result["spec"])) % len(COLOURS)]
    line = LINES[detectors.index(result["spec"]["detector"]) % len(LINES)]
    panel.plot(fpr, tpr, color=colour, linestyle=line, linewidth=1.6)


def _legend(budgets: list[str], detectors: list[str]) -> tuple[list[Any], list[str]]:
    from matplotlib.lines import Line2D

    colours = [Line2D([], [], color=COLOURS[i % len(COLOURS)]) for i, _ in enumerate(budgets)]
    lines = [Line2D([], [], color="0.3", linestyle=LINES[i % len(LINES)]) for i, _ in enumerate(detectors)]
    return [*colours, *lines], [*budgets, *detectors]


def _short(name: str) -> str:
    return name.split(" - ")[0]  # torchvision calls MNIST's classes "3 - three"


def _image(axis: Any, image: Tensor) -> None:
    pixels = image.movedim(0, -1).clamp(0, 1).numpy()
    axis.imshow(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels, cmap="gray", vmin=0, vmax=1)
    axis.set(xticks=[], yticks=[])
    for side in axis.spines.values():
        side.set_visible(False)
