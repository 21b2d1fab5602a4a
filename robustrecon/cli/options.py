"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..types import ImageShape

FORMATS = ("table", "markdown", "csv", "json", "latex")
_SHORT = {"md": "markdown"}

Data = Annotated[
    str | None,
    typer.Option(
        help="digits, mnist, mnist-test, emnist-letters, fashion-mnist, cifar10 or folder:PATH (a folder a class)."
    ),
]
DataDir = Annotated[Path, typer.Option(help="Where the data is, or is downloaded to (torchvision's layout).")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Judge = Annotated[
    Path,
    typer.Option(help="A shipped model's name, a folder that `train` or `graft` wrote, or a file of `calibrate`."),
]
GivenAlpha = Annotated[float | None, typer.Option(help="Bound on the false-alarm rate; 0.05 by default.")]
Alpha = Annotated[float, typer.Option(help="Bound on the false-alarm rate, in (0, 1).")]
CorrectOnly = Annotated[
    bool,
    typer.Option(
        "--correct-only", help="Bound the rate among the images that the model labels right: for models that err often."
    ),
]
Format = Annotated[
    str | None, typer.Option(help=f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}; {FORMATS[0]} by default.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else on standard output.")]
Detector = Annotated[
    str | None,
    typer.Option(
        help="A detector (see `robustrecon detectors`) or 'any_of(NAME,NAME)'; label_margin by default, a graft's own "
        "for a graft."
    ),
]
Classifier = Annotated[
    str | None,
    typer.Option(help="For a graft: the module:factory that makes its classifier, instead of what its card says."),
]
CalibrationData = Annotated[
    str | None,
    typer.Option(
        help="Calibrate on this data: a data set's name, or folder:PATH where the model's own has moved. By default "
        "the scores that come with the model, or else the data that it was trained on."
    ),
]


def checked_format(given: str | None, as_json: bool = False) -> str:
    """The format that was asked for, by its name in `FORMATS`.

    Raises:
        InputError: unknown, or another one than the --json that was given too.
    """
    from ..types import InputError, unknown_name

    name = _SHORT.get(given or "", given or ("json" if as_json else FORMATS[0]))
    if name not in FORMATS:
        unknown_name("format", name, FORMATS)
    if as_json and name != "json":
        raise InputError(f"format: got {given} and --json, must be one of them")
    return name


def number(text: str) -> float:
    """A number, or a fraction such as 8/255; for options."""
    from ..attacks import read_number

    try:
        return read_number(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a number, or a fraction such as 8/255") from None


def read_shape(text: str) -> ImageShape:
    """The shape of images, written as 3x32x32.

    Raises:
        InputError: something else.
    """
    from ..types import InputError

    sides = text.split("x")
    if len(sides) != 3 or not all(side.isdecimal() and int(side) for side in sides):
        raise InputError(f"image_shape: got {text!r}, must be CHANNELSxHEIGHTxWIDTH, such as 3x32x32")
    return int(sides[0]), int(sides[1]), int(sides[2])
