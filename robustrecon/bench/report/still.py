"""Pictures of a suite: robust risk against eps, undetected success by attack and detector, and what beat us."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure

from ... import plotting
from ...files import slug
from .. import store
from ..key import CellKey, attack_title
from ..runner import Bench
from . import examples as plots
from .tables import doubted

Result = dict[str, Any]

MARKERS = "osD^vPX"
PLACE = ("data", "model", "norm")
LETTER = 0.08  # of a row's name, inches


def risk(entries: Sequence[dict[str, Any]], path: Path) -> Path:
    """Robust risk of the worst case against eps, with its interval: a panel a model and norm, a line a detector."""
    panels = places(entries)
    detectors = list(dict.fromkeys(entry["detector"] for entry in entries))
    with mpl.rc_context(plotting.STYLE):
        figure = Figure(figsize=(max(5.0, 4.0 * len(panels)), 3.8), layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for axis, place in zip(axes, panels, strict=True):
            for index, detector in enumerate(detectors):
                line = curve(entries, place, detector)
                if line:
                    _line(axis, line, detector, index)
            axis.set(title=f"{place[0]}, {place[1]}", xlabel=f"eps ({place[2]})", ylim=(0, 1.01))
            axis.grid(alpha=0.25)
        axes[0].set_ylabel("robust risk, worst case over all attacks")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 5), frameon=False)
        return plotting.write(figure, path)


def places(entries: Sequence[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """Every (data set, model, norm) that there is, of worst cases or of cells' specs."""
    return list(dict.fromkeys((entry["data"], entry["model"], entry["norm"]) for entry in entries))


def curve(entries: Sequence[dict[str, Any]], place: tuple[str, str, str], detector: str) -> list[dict[str, Any]]:
    """The worst case of one detector on a (data set, model, norm), by rising eps."""
    named = {**dict(zip(PLACE, place, strict=True)), "detector": detector}
    found = [entry for entry in entries if all(entry[key] == value for key, value in named.items())]
    return sorted(found, key=lambda entry: entry["eps"])


def heat(results: Sequence[Result], path: Path) -> Path:
    """Undetected success of one model under one norm: a panel an eps, a row an attack, a column a detector."""
    radii = sorted({result["spec"]["eps"] for result in results})
    attacks, detectors = heat_axes(results)
    with mpl.rc_context(plotting.STYLE):
        names = LETTER * max(map(len, attacks))
        size = (names + 1.2 + (0.5 + 0.8 * len(detectors)) * len(radii), 1.6 + 0.32 * len(attacks))
        figure = Figure(figsize=(max(5.0, size[0]), max(2.8, size[1])), layout="constrained")
        axes = figure.subplots(1, len(radii), squeeze=False, sharey=True)[0]
        for axis, eps in zip(axes, radii, strict=True):
            values, texts = heat_values(results, eps)
            image = axis.imshow(values, cmap=plotting.HEAT, vmin=0, vmax=1, aspect="auto")
            for (row, column), value in np.ndenumerate(values):
                colour = "black" if value > 0.5 else "white"
                if np.isfinite(value):
                    axis.text(column, row, texts[row][column], ha="center", va="center", fontsize=7, color=colour)
            axis.set_xticks(range(len(detectors)), detectors, rotation=30, ha="right")
            axis.set_yticks(range(len(attacks)), attacks)
            axis.set_title(f"eps {eps:g}")
        figure.colorbar(image, ax=list(axes), label="undetected success")
        spec = results[0]["spec"]
        figure.suptitle(f"{spec['data']}, {spec['model']}, {spec['norm']}; † a check fired")
        return plotting.write(figure, path)


def heat_axes(results: Sequence[Result]) -> tuple[list[str], list[str]]:
    """The attacks and the detectors of a heat map."""
    attacks = list(dict.fromkeys(attack_title(result["spec"]) for result in results))
    return attacks, list(dict.fromkeys(result["spec"]["detector"] for result in results))


def heat_values(results: Sequence[Result], eps: float) -> tuple[Any, list[list[str]]]:
    """(attacks, detectors) undetected success at one eps, NaN where there is no cell, and what is written there."""
    attacks, detectors = heat_axes(results)
    values = np.full((len(attacks), len(detectors)), np.nan)
    texts = [[""] * len(detectors) for _ in attacks]
    for result in results:
        if result["spec"]["eps"] == eps:
            row, column = attacks.index(attack_title(result["spec"])), detectors.index(result["spec"]["detector"])
            values[row, column] = result["detection"]["undetected_success"]
            texts[row][column] = doubted(f"{100 * values[row, column]:.0f} %", result["checks"])
    return values, texts


def sheets(bench: Bench, results: Sequence[Result], folder: Path, most: int = 8) -> list[Path]:
    """Of each detector of a model, at each budget: up to `most` images that beat it, by as many attacks as can be.

    Args:
        bench: of the model.
        results: of its cells.
        folder: to write to; nothing is written for a detector that nothing beat, or a model that draws nothing.
    """
    written = []
    groups: dict[tuple[str, str, float], list[Result]] = {}
    for result in results:
        spec = result["spec"]
        groups.setdefault((spec["detector"], spec["norm"], spec["eps"]), []).append(result)
    for (detector, norm, eps), cells in groups.items():
        kept = [kept for cell in cells if (kept := store.read_undetected(bench.root, CellKey(**cell["spec"])))]
        chosen = _in_turn([[(int(i), x) for i, x in zip(*pair, strict=True)] for pair in kept], most)
        if not chosen:
            continue
        index, x = torch.tensor([i for i, _ in chosen]), torch.stack([x for _, x in chosen])
        clean, y = bench.x[index.to(bench.device)], bench.y[index.to(bench.device)]
        picked = plots.pick_examples(bench.calibrated(detector), clean, x.to(bench.device), y, most)
        if picked:
            name = slug(f"undetected-{bench.target.data.name}-{bench.target.name}-{detector}-{norm}-{eps:g}")
            title = f"{bench.target.data.name}, {bench.target.name}: images that beat {detector}, {norm} {eps:g}"
            written.append(plots.examples(picked, bench.target.data.classes, folder / f"{name}.png", title))
    return written


def _in_turn(groups: list[list[tuple[int, Any]]], most: int) -> list[tuple[int, Any]]:
    """The first of each group, then the second of each, ... without an image twice."""
    longest = max(map(len, groups), default=0)
    ordered = [group[place] for place in range(longest) for group in groups if place < len(group)]
    first: dict[int, Any] = {}
    for index, x in ordered:
        first.setdefault(index, x)
    return list(first.items())[:most]


def _line(axis: Any, line: list[dict[str, Any]], detector: str, index: int) -> None:
    eps = [entry["eps"] for entry in line]
    colour = plotting.COLOURS[index % len(plotting.COLOURS)]
    low, high = zip(*(entry["robust_risk_interval"] for entry in line), strict=True)
    axis.plot(
        eps,
        [entry["robust_risk"] for entry in line],
        color=colour,
        marker=MARKERS[index % len(MARKERS)],
        markersize=4,
        linewidth=1.6,
        label=detector,
    )
    if len(line) > 1:
        axis.fill_between(eps, low, high, color=colour, alpha=0.18, linewidth=0)
    else:
        axis.vlines(eps, low, high, color=colour, linewidth=1.2)
