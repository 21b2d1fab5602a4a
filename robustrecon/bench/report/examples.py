"""Sheets of images that an attack broke: clean, attacked, and what the model draws of them under three labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from ...defence import DefendedClassifier
from ...detectors import Evidence
from ...files import slug
from ...plotting import COLOURS, STYLE, write
from ..model import BenchmarkModel
from ..plan import AttackConfig
from ..result import CellResult
from ..runner import Bench

LEGEND = (
    "E: the reconstruction error under the label (class energy); the lower, the better the label explains the image. "
    "In the first row it is of the clean image, else of the adversarial one.\n"
    "Score: of the detector, the higher the more suspicious. Best other: the label with the lowest E but the predicted."
)


def draws(model: nn.Module) -> bool:
    """Whether a model has what a sheet shows: drawings under a label, and class energies."""
    return all(callable(getattr(model, name, None)) for name in ("reconstruct", "class_energies"))


def draw_examples(
    target: BenchmarkModel, results: Sequence[CellResult], path: Path, most: int = 8, among: int = 64
) -> Path | None:
    """Attack the first `among` test images again and draw up to `most` broken ones.

    Of the results, it is the one that tells most of the detector: where it is closest to catching half of the broken
    images. None, and no file, where no attack broke any, or for a model that draws nothing.
    """
    broken = [result for result in results if result.flags.broken.any()]
    if broken and draws(target.model):
        result = max(broken, key=_divided)
        key = result.key
        n = min(among, key.n)
        bench = Bench(target, [key.detector], key.alpha, n, path.parent, False, key.correct_only)
        config = AttackConfig.again(key)
        if key.precision == "bfloat16":  # which another processor than the one that it was measured on may not have
            config = replace(config, precision="auto")
        attacked = bench.attack(config, key.detector)
        defended, moved = bench.calibrated(key.detector), attacked.distance > 0
        picked = pick_examples(defended, bench.x[moved], attacked.x[moved], bench.y[moved], most)
        if picked:
            title = (
                f"{key.data}, {key.model}, {key.title} {key.budget}: rejected ones first, "
                f"half of each where there are\n{key.detector} rejects scores above {defended.threshold:.4g}; "
                f"of all images that the attack broke it accepts {_accepted(result):.0%}"
            )
            return draw(picked, target.data.classes, path, title)
    path.unlink(missing_ok=True)  # of an earlier run
    return None


def sheets(bench: Bench, results: Sequence[CellResult], folder: Path, most: int = 8) -> list[Path]:
    """Of each detector of a model, at each budget: up to `most` images that broke it, by as many attacks as can be.

    Args:
        bench: of the model.
        results: of its cells.
        folder: to write to; nothing is written for a detector that nothing broke, or a model that draws nothing.
    """
    if not draws(bench.target.model):
        return []
    written = []
    groups: dict[tuple[str, str], list[CellResult]] = {}
    for result in results:
        groups.setdefault((result.key.detector, result.key.budget), []).append(result)
    for (detector, budget), cells in groups.items():
        kept = [kept for cell in cells if (kept := bench.kept.read_images(cell.key))]
        chosen = _in_turn([[(int(i), x) for i, x in zip(*pair, strict=True)] for pair in kept], most)
        if not chosen:
            continue
        index, x = torch.tensor([i for i, _ in chosen]), torch.stack([x for _, x in chosen])
        clean, y = bench.x[index.to(bench.device)], bench.y[index.to(bench.device)]
        picked = pick_examples(bench.calibrated(detector), clean, x.to(bench.device), y, most)
        if picked:
            data, model = bench.target.data.name, bench.target.name
            path = folder / f"{slug(f'undetected-{data}-{model}-{detector}-{budget}')}.png"
            title = (
                f"{data}, {model}: images that {detector} accepts with a wrong label, {budget}\n"
                f"{detector} rejects scores above {bench.calibrated(detector).threshold:.4g}"
            )
            written.append(draw(picked, bench.target.data.classes, path, title))
    return written


def _accepted(result: CellResult) -> float:
    """The share of the broken images that the detector accepts."""
    flags = result.flags
    return float((flags.broken & flags.undetected).sum() / flags.broken.sum())


def _divided(result: CellResult) -> float:
    """How many images the detector catches or misses, whichever is fewer."""
    undetected, misclassified = result.metrics.undetected_success, 1 - result.metrics.accuracy
    return min(undetected, misclassified - undetected)


def _in_turn(groups: list[list[tuple[int, Tensor]]], most: int) -> list[tuple[int, Tensor]]:
    """The first of each group, then the second of each, ... without an image twice."""
    longest = max(map(len, groups), default=0)
    ordered = [group[place] for place in range(longest) for group in groups if place < len(group)]
    first: dict[int, Tensor] = {}
    for index, x in ordered:
        first.setdefault(index, x)
    return list(first.items())[:most]


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
    if not draws(defended.model) or not len(adversarial):
        return []
    reconstruct: Callable[[Tensor, Tensor], Tensor] = defended.model.reconstruct  # type: ignore[assignment]
    verdict = defended.inspect(adversarial)
    misclassified = verdict.label != y
    caught, missed = ((misclassified & rejected).nonzero()[:, 0] for rejected in (verdict.rejected, ~verdict.rejected))
    half = -(-most // 2)
    n_caught = min(len(caught), max(half, most - len(missed)))
    chosen = torch.cat([caught[:n_caught], missed[: most - n_caught]])
    if not len(chosen):
        return []
    x, predicted, true = adversarial[chosen], verdict.label[chosen], y[chosen]
    with torch.no_grad():
        energies = Evidence(defended.model, x).energies  # whether or not the detector looks at them
        best_other = energies.scatter(1, predicted[:, None], float("inf")).argmin(1)
        labels = torch.stack([predicted, best_other, true], dim=1)
        drawn = torch.stack([reconstruct(x, column) for column in labels.T], dim=1).cpu()
        clean_energies = Evidence(defended.model, clean[chosen]).energies.gather(1, true[:, None])[:, 0]
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


def draw(picked: Sequence[Example], classes: Sequence[str], path: Path, title: str) -> Path:
    """A sheet: a column an input; clean, adversarial, and drawn under three labels, with energies."""
    rows = ("clean", "adversarial", "drawn as predicted", "drawn as best other", "drawn as true label")
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1.4 + 1.15 * len(picked), 7.9), layout="constrained")
        axes = figure.subplots(len(rows), len(picked), squeeze=False)
        for column, example in enumerate(picked):
            true, predicted = example.drawings[2][1], example.drawings[0][1]
            verdict = "rejected" if example.rejected else "accepted"
            cells = [
                (example.clean, f"is {_short(classes[true])}: E = {example.clean_energy:.1f}"),
                (example.adversarial, f"predicted {_short(classes[predicted])}\nscore {example.score:.1f}\n{verdict}"),
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
        figure.supxlabel(LEGEND, fontsize=8)
        return write(figure, path)


def _short(name: str) -> str:
    return name.split(" - ")[0]  # torchvision calls MNIST's classes "3 - three"


def _image(axis: Any, image: Tensor) -> None:
    pixels = image.movedim(0, -1).clamp(0, 1).numpy()
    axis.imshow(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels, cmap="gray", vmin=0, vmax=1)
    axis.set(xticks=[], yticks=[])
    for side in axis.spines.values():
        side.set_visible(False)
