"""`robustrecon figures`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .options import Data, DataDir, Device, Json


def figures(
    model: Annotated[
        Path | None,
        typer.Option(help="A trained model, or a shipped one's name; by default style-memory/DATA, or one is trained."),
    ] = None,
    data: Data = None,
    data_dir: DataDir = Path("data"),
    figure: Annotated[
        list[str] | None,
        typer.Option(
            help="reconstruction, misclassified, neighbours, interpolation, style_transfer or leakage; repeatable; "
            "all by default."
        ),
    ] = None,
    base: Annotated[
        list[int] | None,
        typer.Option(help="Index of a test image whose neighbours to find; repeatable, random by default."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write to; runs/figures/DATA by default.")] = None,
    seed: Annotated[int, typer.Option(help="Of what is drawn at random.")] = 0,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Draw and measure what a style-memory network makes of images: the experiments of its paper, and more.

    Writes each figure as PNG and SVG, and everything that was measured to figures.json; what is done is not done again.
    """
    from ..figures import chosen

    names = chosen(figure)
    from ..bench.model import load_benchmark_model
    from ..files import check_writable, slug
    from ..models import shipped

    if out is not None:
        check_writable(out)
    own = f"style-memory/{data}"
    if model is None and own in shipped.names():
        model = Path(own)
    target = load_benchmark_model(model, data, data_dir, device)
    folder = out or Path("runs/figures") / slug(target.data.name)
    from ..figures import make, report

    title = str(model or target.name)
    further = {"neighbours": {"base": base}} if base else None
    made = make(target.model, target.data, folder, names, title=title, seed=seed, arguments=further)
    print(json.dumps(made, indent=2) if as_json else report(made, names, folder))
