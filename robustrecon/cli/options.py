"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Data = Annotated[
    str | None,
    typer.Option(help="digits, mnist, mnist-test, emnist-letters, fashion-mnist, cifar10 or folder:PATH (a folder a class)."),
]
DataDir = Annotated[Path, typer.Option(help="Where the data is, or is downloaded to (torchvision's layout).")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Alpha = Annotated[float, typer.Option(help="Bound on the false-alarm rate, in (0, 1).")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else on standard output.")]
