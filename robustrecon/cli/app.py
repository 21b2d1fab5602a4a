"""`robustrecon app`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import DataDir, Detector, Device, Judge


def app(
    model: Judge = Path("robust/digits"),
    detector: Detector = None,
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 7860,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all of this machine.")] = "127.0.0.1",
    data_dir: DataDir = Path("data"),
    device: Device = "auto",
) -> None:
    """A page in the browser: draw a digit, see it drawn under each label, attack it. Needs the extra `app`."""
    from ..app.serving import serve

    serve(str(model), host, port, detector, str(data_dir), device)
