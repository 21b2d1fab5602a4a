"""All figures of a model: computed, drawn and written down."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from .. import provenance
from ..data import Dataset
from ..files import atomic_write, check_writable
from ..runtime import device_of
from ..types import unknown_name
from .base import Drawable, checked, draw
from .interpolation import interpolation
from .judge import Judge, train_judge
from .leakage import leakage
from .misclassified import misclassified
from .neighbours import neighbours
from .reconstruction import reconstruction
from .style_transfer import style_transfer

FIGURES: dict[str, Callable[..., Drawable]] = {
    made.__name__: made for made in (reconstruction, misclassified, neighbours, interpolation, style_transfer, leakage)
}
JUDGED = ("interpolation", "style_transfer")  # those that ask an independent network


def chosen(names: Sequence[str] | None) -> list[str]:
    """These figures, each once; all of them where none is named.

    Raises:
        InputError: an unknown name.
    """
    for name in names or ():
        if name not in FIGURES:
            unknown_name("figure", name, FIGURES)
    return list(dict.fromkeys(names or FIGURES))


def make(
    model: nn.Module,
    data: Dataset,
    out: str | Path,
    names: Sequence[str] | None = None,
    title: str = "",
    seed: int = 0,
    progress: bool = True,
) -> dict[str, Any]:
    """Compute, draw and measure figures; returns what it writes to `out/figures.json`.

    Args:
        model: a style-memory network.
        data: what it was trained on.
        out: folder for the pictures (PNG and SVG), the measures, and the independent network that judges drawings.
        names: of `FIGURES`; all by default.
        title: what the pictures call the model; its name by default.
        seed: of what is drawn at random.
        progress: show it on stderr.

    Raises:
        InputError: an unknown name, a model without a decoder or for other data, too few images, or a folder that
            cannot be written to.
    """
    names, out = chosen(names), Path(out)
    check_writable(out)
    network = checked(model, data)
    judge: Judge | None = None
    if set(names) & set(JUDGED):
        judge = train_judge(data, out / "judge", str(device_of(network)), progress)
    measures: dict[str, Any] = {}
    for name in names:
        started = time.monotonic()
        made = FIGURES[name](network, data, *([judge] if name in JUDGED else []), seed=seed)
        heading = f"{name.replace('_', ' ')}: {title or network.name} on {data.name}, seed {seed}"
        files = [path.name for path in draw(made, out / name, heading)]
        seconds = time.monotonic() - started
        values = {key: {"value": m.value, "spread": m.spread, "n": m.n} for key, m in made.measures.items()}
        measures[name] = {"measures": values, "files": files, "seconds": seconds}
        if progress:
            print(f"{name}: {seconds:.0f} s, {', '.join(files)}", file=sys.stderr, flush=True)
    written = {
        "model": title or network.name,
        "data": data.name,
        "seed": seed,
        "figures": measures,
        "environment": provenance.environment(device_of(network)),
    }
    atomic_write(out / "figures.json", json.dumps(written, indent=2) + "\n")
    return written


def report(made: dict[str, Any], folder: Path) -> str:
    """What `make` measured and where its pictures are, as text."""
    lines = []
    for name, entry in made["figures"].items():
        lines.append(f"{name} ({entry['seconds']:.0f} s)")
        for key, measure in entry["measures"].items():
            spread = "" if measure["spread"] is None else f" ± {measure['spread']:.4g}"
            lines.append(f"    {key}: {measure['value']:.4g}{spread} (n = {measure['n']:,})")
        lines += [f"    {folder / file}" for file in entry["files"]]
    return "\n".join(lines)
