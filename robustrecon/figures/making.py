"""Several figures of a model: each is computed, drawn and stored before the next one begins."""

from __future__ import annotations

import inspect
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from torch import nn

from .. import checkpoint, provenance
from ..data import Dataset
from ..files import atomic_write, check_writable
from ..runtime import device_of
from ..types import InputError
from . import load, selected
from .base import check_count, draw
from .encoding import checked
from .judge import Judge, train_judge

FILE = "figures.json"


def make(
    model: nn.Module,
    data: Dataset,
    out: str | Path,
    names: Sequence[str] | None = None,
    *,
    title: str = "",
    seed: int = 0,
    judges: str | Path = "runs/judges",
    arguments: Mapping[str, Mapping[str, Any]] | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Compute, draw and measure figures; returns the content of `out/figures.json`, which it writes.

    A figure that is already in `out`, of the same weights, data, seed and arguments, is not made again.

    Args:
        model: a model with `encode` and `decode`, such as a style-memory network.
        data: the data set that the model was trained on.
        out: folder for the pictures (PNG and SVG) and the measures.
        names: of `FIGURES`; all by default.
        title: the model's name in the pictures; `model.name` by default.
        seed: random seed for the choice of images and pairs of images.
        judges: folder of the independent classifiers that judge drawings; a missing one is trained.
        arguments: further arguments of figures, by their names: {"neighbours": {"base": 7}}.
        progress: print the progress on stderr.

    Raises:
        InputError: an unknown name, a model without a decoder or for other data, or a folder that cannot be written to.
            When a figure cannot be made, of too few images for example, the error comes after all others are made.
    """
    names, out = selected(names), Path(out)
    arguments = arguments or {}
    selected(list(arguments))
    check_count(seed, "seed", least=0)
    network = checked(model, data)
    check_writable(out)

    @cache
    def judge() -> Judge:
        return train_judge(data, judges, str(device_of(network)), progress)

    about = {
        "model": title or network.name,
        "weights": checkpoint.digest(network.state_dict())[:16],
        "data": data.name,
        "fingerprint": data.fingerprint,
        "n": len(data.test),
        "seed": seed,
    }
    written = _already_made(out / FILE, about)
    refused = []
    for number, name in enumerate(names, 1):
        further = dict(arguments.get(name, {}))
        if _is_made(written["figures"].get(name), further, out):
            _report_progress(progress, f"{name}: already made")
            continue
        _report_progress(progress, f"{name} ({number} of {len(names)})")
        started = time.monotonic()
        try:
            figure = load(name)
            judged = {"judge": judge()} if "judge" in inspect.signature(figure).parameters else {}
            made = figure(network, data, seed=seed, **judged, **further)
        except InputError as error:
            refused.append(f"{name}: {error}")
            continue
        heading = f"{name.replace('_', ' ')}: {about['model']} on {data.name}, n = {about['n']:,}, seed {seed}"
        files = [path.name for path in draw(made, out / name, heading)]
        written["figures"][name] = {
            "arguments": further,
            "measures": {key: asdict(measure) for key, measure in made.measures.items()},
            "files": files,
            "seconds": time.monotonic() - started,
            "environment": provenance.environment(device_of(network)),
        }
        text = json.dumps(written, indent=2, allow_nan=False)
        atomic_write(out / FILE, text + "\n")
        written = json.loads(text)
    if refused:
        raise InputError("; ".join(refused))
    return written


def report(made: dict[str, Any], names: Sequence[str], folder: Path) -> str:
    """The measures of these figures and the paths of their pictures, as text."""
    lines = []
    for name in names:
        entry = made["figures"][name]
        lines.append(f"{name} ({entry['seconds']:.0f} s)")
        for key, measure in entry["measures"].items():
            spread = "" if measure["spread"] is None else f" ± {measure['spread']:.4g}"
            if measure["interval"] is not None:
                spread = " [{:.4g}, {:.4g}]".format(*measure["interval"])
            lines.append(f"    {key}: {measure['value']:.4g}{spread} (n = {measure['n']:,})")
        lines += [f"    {folder / file}" for file in entry["files"]]
    return "\n".join(lines)


def _already_made(path: Path, about: dict[str, Any]) -> dict[str, Any]:
    """The content of `path` if it is about the same model, data and seed, else a file without figures."""
    try:
        found = json.loads(path.read_text())
        if found["about"] == about:
            return found
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return {"about": about, "figures": {}}


def _is_made(entry: dict[str, Any] | None, arguments: dict[str, Any], out: Path) -> bool:
    """Whether a figure was made with these arguments and all its pictures exist."""
    if entry is None or entry["arguments"] != json.loads(json.dumps(arguments)):
        return False
    return all((out / file).exists() for file in entry["files"])


def _report_progress(progress: bool, text: str) -> None:
    if progress:
        print(text, file=sys.stderr, flush=True)
