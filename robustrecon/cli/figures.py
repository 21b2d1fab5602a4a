"""`robustrecon figures`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..figures import FIGURES, selected
from .options import Data, DataDir, Device, Json


def figures(
    model: Annotated[
        Path | None,
        typer.Option(
            help="A trained model, or the name of a shipped one. By default style-memory/DATA, or, where that is not "
            "shipped, a model that is trained first."
        ),
    ] = None,
    data: Data = None,
    data_dir: DataDir = Path("data"),
    figure: Annotated[
        list[str] | None,
        typer.Option(help=f"A figure to make: {', '.join(FIGURES)}. Repeatable; all figures by default."),
    ] = None,
    base: Annotated[
        list[int] | None,
        typer.Option(help="Index of a test image for the figure neighbours. Repeatable; random images by default."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write to; runs/figures/DATA by default.")] = None,
    seed: Annotated[int, typer.Option(help="Random seed for the choice of images and pairs of images.")] = 0,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Draw and measure what a style-memory network makes of images: the experiments of its paper, and more.

    Writes each figure as PNG and SVG, and all measured numbers to figures.json. A figure that is already there, of the
    same model, data, seed and arguments, is not made again.
    """
    names = selected(figure)
    from ..bench.model import load_benchmark_model
    from ..files import check_writable, slug
    from ..models import shipped

    if out is not None:
        check_writable(out)
    shipped_name = f"style-memory/{data}"
    if model is None and shipped_name in shipped.names():
        model = Path(shipped_name)
    target = load_benchmark_model(model, data, data_dir, device)
    folder = out or Path("runs/figures") / slug(target.data.name)
    from ..figures import make, report

    title = str(model or target.name)
    arguments = {"neighbours": {"base": base}} if base else None
    made = make(target.model, target.data, folder, names, title=title, seed=seed, arguments=arguments)
    print(json.dumps(made, indent=2) if as_json else report(made, names, folder))
