"""All figures of a model: computed, drawn and written down, each as soon as it is done."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
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
from . import chosen
from .base import Drawable, check_count, checked, draw
from .interpolations import interpolation
from .judge import Judge, train_judge
from .leaks import leakage
from .mistakes import misclassified
from .neighbourhoods import neighbours
from .reconstructions import reconstruction
from .transfers import style_transfer

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
    """Compute, draw and measure figures; returns what it writes to `out/figures.json`.

    A figure that is there already, of the same weights, data, seed and arguments, is not made again.

    Args:
        model: a style-memory network.
        data: what it was trained on.
        out: folder for the pictures (PNG and SVG) and the measures.
        names: of `FIGURES`; all by default.
        title: what the pictures call the model; its name by default.
        seed: of what is drawn at random.
        judges: folder of the independent networks that judge drawings; one that is missing is trained.
        arguments: further ones of a figure, by its name: {"neighbours": {"base": 7}}.
        progress: show it on stderr.

    Raises:
        InputError: an unknown name, a model without a decoder or for other data, a folder that cannot be written to;
            or too few images for a figure, after the others are done.
    """
    names, out = chosen(names), Path(out)
    arguments = arguments or {}
    chosen(list(arguments))
    check_count(seed, "seed", least=0)
    network = checked(model, data)
    check_writable(out)

    @cache
    def judge() -> Judge:
        return train_judge(data, judges, str(device_of(network)), progress)

    functions: dict[str, Callable[..., Drawable]] = {
        "reconstruction": reconstruction,
        "misclassified": misclassified,
        "neighbours": neighbours,
        "interpolation": lambda model, data, **named: interpolation(model, data, judge(), **named),
        "style_transfer": lambda model, data, **named: style_transfer(model, data, judge(), **named),
        "leakage": leakage,
    }
    about = {
        "model": title or network.name,
        "weights": checkpoint.digest(network.state_dict())[:16],
        "data": data.name,
        "fingerprint": data.fingerprint,
        "n": len(data.test),
        "seed": seed,
    }
    written = _before(out / FILE, about)
    refused = []
    for number, name in enumerate(names, 1):
        further = dict(arguments.get(name, {}))
        if _done(written["figures"].get(name), further, out):
            _say(progress, f"{name}: done before")
            continue
        _say(progress, f"{name} ({number} of {len(names)})")
        started = time.monotonic()
        try:
            made = functions[name](network, data, seed=seed, **further)
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
    """What `make` measured for these figures and where its pictures are, as text."""
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


def _before(path: Path, about: dict[str, Any]) -> dict[str, Any]:
    """What is there of the same model and data; nothing where it is of others, or no such file."""
    try:
        found = json.loads(path.read_text())
        if found["about"] == about:
            return found
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return {"about": about, "figures": {}}


def _done(entry: dict[str, Any] | None, arguments: dict[str, Any], out: Path) -> bool:
    """Whether a figure is there with these arguments and all its pictures."""
    if entry is None or entry["arguments"] != json.loads(json.dumps(arguments)):
        return False
    return all((out / file).exists() for file in entry["files"])


def _say(progress: bool, text: str) -> None:
    if progress:
        print(text, file=sys.stderr, flush=True)
