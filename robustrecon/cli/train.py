"""`robustrecon train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import Data, DataDir, Device


def train(
    data: Data = "digits",
    model: Annotated[
        str | None, typer.Option(help="Name of the network to train, such as style-memory; by default the recipe's.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Name of the recipe: fast, contrastive, robust (adversarial; long), robust-refine (after robust), "
            "paper (250 epochs), or a model's name; by default that of --model, or else fast."
        ),
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(help="Name of the objective, such as contrastive or trades; by default the recipe's."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write to; runs/DATA by default.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Number of epochs, instead of the recipe's.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Batch size over all devices together, instead of the recipe's.")
    ] = None,
    start: Annotated[
        Path | None, typer.Option(help="A trained model to go on from, or a shipped one's name; anew by default.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed for initial weights, order and noise.")] = 0,
    device: Device = "auto",
    devices: Annotated[int, typer.Option(help="Number of processes on this machine, one a device.")] = 1,
    nodes: Annotated[int, typer.Option(help="Number of machines.")] = 1,
    precision: Annotated[
        str,
        typer.Option(
            help="Precision of the arithmetic: 32-true, bf16-mixed, or auto (bf16-mixed for adversarial training where "
            "the processor can, 32-true elsewhere; with --resume what the run began with)."
        ),
    ] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the last finished epoch in --out.")] = False,
    data_dir: DataDir = Path("data"),
) -> None:
    """Train a network; writes model.safetensors, its card model.json, metrics.csv and calibration scores."""
    from dataclasses import replace

    from .. import checkpoint
    from ..data import load_data
    from ..files import slug
    from ..training import default_recipe, load_recipe
    from ..training import train as train_model

    chosen = load_recipe(default_recipe(model) if recipe is None else recipe)
    if epochs is not None:
        chosen = replace(chosen, name=f"{chosen.name}-e{epochs}", epochs=epochs, least_steps=0)
    if batch_size is not None:
        chosen = replace(chosen, name=f"{chosen.name}-b{batch_size}", batch_size=batch_size)
    dataset = load_data("digits" if data is None else data, data_dir)
    folder = Path("runs") / slug(dataset.name) if out is None else out
    train_model(
        dataset,
        folder,
        chosen,
        model=model,
        objective=objective,
        start=start,
        seed=seed,
        device=device,
        devices=devices,
        nodes=nodes,
        precision=precision,
        resume=resume,
    )
    if _first_process():
        accuracy = checkpoint.load(folder).card["accuracy"]
        print(f"test accuracy {accuracy['test']:.2%} (n = {accuracy['n']}); model, card and metrics in {folder}")


def _first_process() -> bool:
    from lightning_fabric.utilities.rank_zero import rank_zero_only

    return getattr(rank_zero_only, "rank", 0) == 0
