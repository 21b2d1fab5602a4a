"""`robustrecon visualize`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .options import Device, Json, read_shape


def visualize(
    node: Annotated[
        str,
        typer.Option(
            help="LAYER:CHANNEL, such as layer4.2:17: the name that named_modules() has, and an index from 0. Of a "
            "convolutional layer it is the unit in the middle."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The picture to write, .png or .svg.")],
    model: Annotated[str | None, typer.Option(help="A trained model's folder, or the name of a shipped one.")] = None,
    classifier: Annotated[
        str | None,
        typer.Option(help="module:factory of a classifier instead: a torch.nn.Module of images in [0, 1]."),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="The classifier's weights: .safetensors, or a state dict that torch.save wrote."),
    ] = None,
    image_shape: Annotated[
        str | None, typer.Option(help="Shape of the images, such as 3x32x32; by default as the model says.")
    ] = None,
    chains: Annotated[int, typer.Option(help="Number of images, each from a Markov chain of its own.")] = 12,
    steps: Annotated[int, typer.Option(help="Steps of a chain.")] = 100,
    warm_up: Annotated[int, typer.Option(help="Steps before these, in which the step size is adapted.")] = 150,
    step_size: Annotated[
        float | None, typer.Option(help="The first step size that is tried; a tenth of --sigma by default.")
    ] = None,
    sigma: Annotated[float, typer.Option(help="Standard deviation of the Gaussian, in [0, 1] pixel units.")] = 0.1,
    centre: Annotated[float, typer.Option(help="Its mean, a grey level; 0 is black.")] = 0.5,
    temperature: Annotated[
        float | None,
        typer.Option(help="Divides the node's output; by default such that the node moves pixels by a fifth."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Draw the images that a node of any trained network stands for, sampled by Hamiltonian Monte Carlo.

    The density is exp(node / temperature) N(centre, sigma²).
    """
    from ..figures.node_names import parse_node
    from ..files import check_picture, check_writable
    from ..types import InputError

    parse_node(node)
    check_picture(out, "out")
    shape = None if image_shape is None else read_shape(image_shape)
    if (model is None) == (classifier is None):
        raise InputError("model, classifier: must be given one of them")
    if weights is not None and classifier is None:
        raise InputError("weights: must be given with --classifier")
    if classifier is not None and ":" not in classifier:
        raise InputError(f"classifier: got {classifier!r}, must be module:factory")
    if not 0 <= seed < 2**63:
        raise InputError(f"seed: got {seed}, must be a whole number from 0 that fits 63 bits")
    check_writable(out.parent)
    from ..figures.node_samples import visualize as sampled
    from ..models import load
    from ..models.imported import import_model, load_weights
    from ..runtime import resolve_device

    network = load(model or "") if classifier is None else import_model("classifier", classifier)
    if weights is not None:
        load_weights(network, weights)
    found = sampled(
        network.to(resolve_device(device)),
        node,
        image_shape=shape,
        chains=chains,
        steps=steps,
        warm_up=warm_up,
        step_size=step_size,
        sigma=sigma,
        centre=centre,
        temperature=temperature,
        seed=seed,
    )
    found.save(out, f"{model or classifier}, {node}")
    numbers = {
        "acceptance": found.acceptance,
        "step_size": found.step_size,
        "temperature": found.temperature,
        "value_before": found.values_before.mean().item(),
        "value": found.values.mean().item(),
    }
    if as_json:
        told = {"file": str(out), "model": model or classifier, "node": node, "seed": seed, "field": found.field}
        print(json.dumps(told | numbers, indent=2))
    else:
        print(f"{out}: {node} of {model or classifier}, " + ", ".join(f"{k} {v:.3g}" for k, v in numbers.items()))
