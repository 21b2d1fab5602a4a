"""`robustrecon graft`."""

from __future__ import annotations

import contextlib
import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import DataDir, Device, Json, number, read_shape

if TYPE_CHECKING:
    from torch import nn

    from ..models.grafted import Grafted


def graft(
    classifier: Annotated[
        str,
        typer.Option(
            help="module:factory of the classifier, in the current folder or installed: a torch.nn.Module of images in "
            "[0, 1], or what makes one without arguments."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write: the weights of both and a card.")],
    weights: Annotated[
        Path | None,
        typer.Option(help="The classifier's weights: .safetensors, or a state dict that torch.save wrote."),
    ] = None,
    drawer: Annotated[
        str | None,
        typer.Option(
            help="A shipped model (see `robustrecon models`), or a trained one's folder; by default robust/mnist."
        ),
    ] = None,
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
    data: Annotated[
        str | None, typer.Option(help="Train a drawer on this data instead: a data set's name, or folder:PATH.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="For training: fast, contrastive or robust (adversarial; long, the default).")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="For training: number of epochs, instead of the recipe's.")] = None,
    eps: Annotated[
        float | None,
        typer.Option(
            parser=number,
            metavar="NUMBER",
            help="For training: L∞ radius of the adversarial images, such as 8/255.",
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="For training: what the drawer explains, pixels (the default) or layer:NAME of the classifier's."
        ),
    ] = None,
    style_from: Annotated[
        str | None,
        typer.Option(
            help="For training: where the drawer finds the style, pixels or layer:NAME; what it explains by default."
        ),
    ] = None,
    top_labels: Annotated[
        int, typer.Option(help="Compute the energies of so many labels beside the predicted one; 0 for all.")
    ] = 0,
    logit_weight: Annotated[
        float | None,
        typer.Option(
            help="Weight of the drawer's own logits in the energies; 0 for its drawings alone, by default 1 where it "
            "has logits."
        ),
    ] = None,
    style_dim: Annotated[
        int | None, typer.Option(help="For training: the drawer's style neurons, by default 16.")
    ] = None,
    width: Annotated[
        int | None, typer.Option(help="For training: channels of the drawer's first convolution, by default 32.")
    ] = None,
    steepness: Annotated[
        float | None,
        typer.Option(
            help="For training: of the logistic function that the drawer sees each pixel through, for images that are "
            "nearly black and white, such as 20; by default none."
        ),
    ] = None,
    start: Annotated[
        Path | None, typer.Option(help="For training: a trained drawer to go on from, or a shipped one's name.")
    ] = None,
    seed: Annotated[int, typer.Option(help="For training: random seed.")] = 0,
    device: Device = "auto",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the training in --out, from its last epoch.")
    ] = False,
    data_dir: DataDir = Path("data"),
    as_json: Json = False,
) -> None:
    """Put a model that draws beside a classifier that you have: one that there is, or one that is trained on --data.

    Next: calibrate it on images that neither was trained on, `robustrecon calibrate --model DIR --data ...`; DIR also
    is a --model for bench and detect.
    """
    from ..types import InputError

    shape = None if image_shape is None else read_shape(image_shape)
    if ":" not in classifier:
        raise InputError(f"classifier: got {classifier!r}, must be module:factory")
    settings = _given(recipe=recipe, epochs=epochs, eps=eps, target=target, style_from=style_from, start=start)
    options = _given(style_dim=style_dim, width=width, steepness=steepness)
    given = [*settings, *options, *(["resume"] if resume else [])]
    if data is None and given:
        raise InputError(f"{given[0]}: is for training a drawer, must be given with --data")
    if data is not None and (drawer or label or shape or allow_loss):
        raise InputError("data: must not be given with --drawer, --label, --image-shape or --allow-loss")
    from .. import checkpoint

    if not resume and (out / checkpoint.MODEL_FILE).exists():
        raise InputError(f"out: {out} holds a model already, must be another folder")
    from ..models.imported import import_model, load_weights

    module = import_model("classifier", classifier)
    if weights is not None:
        load_weights(module, weights)
    both: dict[str, Any] = {"top_labels": top_labels, "logit_weight": logit_weight}
    if data is not None:
        run = {"seed": seed, "device": device, "resume": resume, "data_dir": data_dir}
        training: dict[str, Any] = {**settings, "drawer_options": options}
        grafted = _trained(module, classifier, data, out, both, training, run)
        from_ = f"a drawer trained on {data}"
    else:
        from ..models.grafting import join, write

        from_ = drawer or "robust/mnist"
        labels = [int(each) if each.isdecimal() else each for each in label] if label else None
        with _told_warnings():
            grafted = join(module, from_, labels=labels, image_shape=shape, allow_loss=allow_loss, **both)
        grafted.config["classifier"] = classifier
        write(grafted, out, from_)
    missed = checkpoint.load(out).card.get("minimum_missed")
    if as_json:
        told = {
            "file": str(out / checkpoint.MODEL_FILE),
            "classifier": classifier,
            "drawer": from_,
            "detector": grafted.default_detector,
            "minimum_missed": missed,
            "labels": grafted.labels.tolist(),
            "image_shape": grafted.image_shape,
        }
        print(json.dumps(told, indent=2))
    else:
        if missed is not None:
            print(
                f"the label of the lowest energy is not among the {top_labels} for {missed['calibration']:.2%} of "
                f"{missed['n']} calibration images"
            )
        print(
            f"{out}: {classifier} beside {from_}, {grafted.n_classes} classes, images {grafted.image_shape}\n"
            f"next: robustrecon calibrate --model {out} --data NAME --alpha 0.01 --out {out}.safetensors"
        )


def _trained(
    module: nn.Module,
    classifier: str,
    data: str,
    out: Path,
    settings: dict[str, Any],
    training: dict[str, Any],
    run: dict[str, Any],
) -> Grafted:
    """The classifier beside a drawer that is trained for it in the folder `out`."""
    from dataclasses import replace

    from ..data import load_data
    from ..training import graft as train_beside
    from ..training import load_recipe

    recipe, epochs = load_recipe(training.pop("recipe", "robust")), training.pop("epochs", None)
    if epochs is not None:
        recipe = replace(recipe, name=f"{recipe.name}-e{epochs}", epochs=epochs, least_steps=0)
    dataset = load_data(data, run.pop("data_dir"))
    with _told_warnings():
        grafted = train_beside(
            module, dataset, recipe=recipe, out=out, made_by=classifier, **settings, **training, **run
        )
    return grafted


@contextlib.contextmanager
def _told_warnings() -> Iterator[None]:
    """Print warnings on standard error, one line each."""
    with warnings.catch_warnings(record=True) as noticed:
        warnings.simplefilter("always", UserWarning)
        yield
    for warning in noticed:
        if issubclass(warning.category, UserWarning):
            print(f"robustrecon: warning: {warning.message}", file=sys.stderr)


def _given(**options: Any) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in options.items() if value is not None}
