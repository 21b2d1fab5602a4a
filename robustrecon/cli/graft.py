"""`robustrecon graft`."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import Json

if TYPE_CHECKING:
    from ..types import ImageShape


def graft(
    classifier: Annotated[
        str,
        typer.Option(
            help="module:factory of the classifier, in the current folder or installed: a torch.nn.Module of images in "
            "[0, 1], or what makes one without arguments."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write: its weights and a card.")],
    weights: Annotated[
        Path | None,
        typer.Option(help="The classifier's weights: .safetensors, or a state dict that torch.save wrote."),
    ] = None,
    drawer: Annotated[
        str, typer.Option(help="A shipped model's name (see `robustrecon models`), or a trained model's folder.")
    ] = "robust/mnist",
    label: Annotated[
        list[str] | None,
        typer.Option(
            help="The drawer's label, or its name, for each of the classifier's labels in their order; repeatable. By "
            "default those of the same names, or the same numbers."
        ),
    ] = None,
    image_shape: Annotated[
        str | None,
        typer.Option(help="Shape of the classifier's images, such as 3x32x32; by default as it says, or the drawer's."),
    ] = None,
    allow_loss: Annotated[
        bool, typer.Option("--allow-loss", help="Allow that the drawer sees smaller images, or grey ones.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Put a model that draws beside a classifier that you have, without training.

    Next: calibrate it on images that neither was trained on, `robustrecon calibrate --model DIR --data ...`; DIR also
    is a --model for bench and detect.
    """
    from ..types import InputError

    shape = None if image_shape is None else _shape(image_shape)
    if ":" not in classifier:
        raise InputError(f"classifier: got {classifier!r}, must be module:factory")
    from .. import checkpoint

    if (out / checkpoint.MODEL_FILE).exists():
        raise InputError(f"out: {out} holds a model already, must be another folder")
    from ..models.grafting import graft as join
    from ..models.grafting import write
    from ..models.imported import import_model, load_weights

    labels = [int(each) if each.isdecimal() else each for each in label] if label else None
    module = import_model("classifier", classifier)
    if weights is not None:
        load_weights(module, weights)
    with warnings.catch_warnings(record=True) as noticed:
        warnings.simplefilter("always", UserWarning)
        grafted = join(module, drawer, labels=labels, image_shape=shape, allow_loss=allow_loss)
    for warning in noticed:
        print(f"robustrecon: warning: {warning.message}", file=sys.stderr)
    grafted.config["classifier"] = classifier
    file = write(grafted, out, drawer)
    if as_json:
        told = {"file": str(file), "classifier": classifier, "drawer": drawer, "detector": grafted.default_detector}
        print(json.dumps({**told, "labels": grafted.labels.tolist(), "image_shape": grafted.image_shape}, indent=2))
    else:
        print(
            f"{out}: {classifier} beside {drawer}, {grafted.n_classes} classes, images {grafted.image_shape}\n"
            f"next: robustrecon calibrate --model {out} --data NAME --alpha 0.01 --out {out}.safetensors"
        )


def _shape(text: str) -> ImageShape:
    from ..types import InputError

    sides = text.split("x")
    if len(sides) != 3 or not all(side.isdecimal() and int(side) for side in sides):
        raise InputError(f"image_shape: got {text!r}, must be CHANNELSxHEIGHTxWIDTH, such as 3x32x32")
    return int(sides[0]), int(sides[1]), int(sides[2])
