"""`robustrecon sample`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from .options import Device, Json


def sample(
    model: Annotated[Path, typer.Option(help="A shipped model's name, or a folder that `train` wrote.")],
    out: Annotated[Path, typer.Option(help="The .png file to write.")],
    label: Annotated[
        list[str] | None,
        typer.Option(help="A class, by its name or its index from 0. Repeatable; all classes by default."),
    ] = None,
    n: Annotated[int, typer.Option(help="Number of images of each class.")] = 8,
    guidance: Annotated[
        float | None,
        typer.Option(help="Of egc: how strongly the label pulls; more is clearer and less varied."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Draw a sheet of images that a generative model makes from nothing."""
    from ..files import check_writable
    from ..types import InputError

    if out.suffix != ".png":
        raise InputError(f"out: got {out}, must end in .png")
    if guidance is not None and not 0 <= guidance < float("inf"):
        raise InputError(f"guidance: got {guidance}, must be at least 0 and finite")
    if not 0 <= seed < 2**63:
        raise InputError(f"seed: got {seed}, must be a whole number from 0 that fits 63 bits")
    check_writable(out.parent)
    from ..defence.loading import load_finished
    from ..figures import draw
    from ..figures.samples import samples
    from ..figures.sheets import short
    from ..models import class_names
    from ..runtime import resolve_device

    loaded, card = load_finished(model)
    known = class_names(card.get("data", {}).get("classes"), loaded, model)
    names = known or [str(k) for k in range(loaded.n_classes)]
    labels = _labels(label or names, names)
    chosen = [short(names[k]) for k in labels]
    settings = {} if guidance is None else {"guidance": guidance}
    sheet = samples(loaded.to(resolve_device(device)), labels, chosen, n, seed=seed, settings=settings)
    draw(sheet, out.with_suffix(""), f"samples: {model}, seed {seed}", (".png",))
    if as_json:
        summary = {"file": str(out), "model": str(model), "labels": labels, "classes": chosen, "n": n, "seed": seed}
        print(json.dumps(summary, indent=2))
    else:
        print(f"{out}: {n} images of each of {', '.join(chosen)} by {model}, seed {seed}")


def _labels(given: Sequence[str], names: Sequence[str]) -> list[int]:
    """The labels of classes that are given by their names or as indices, each once."""
    from ..figures.sheets import short
    from ..types import InputError, unknown_name

    by_name = {short(name): k for k, name in enumerate(names)} | {name: k for k, name in enumerate(names)}
    labels = []
    for text in given:
        if text in by_name:
            labels.append(by_name[text])
        elif not text.removeprefix("-").isdecimal():
            unknown_name("label", text, names)
        elif not 0 <= int(text) < len(names):
            raise InputError(f"label: got {text}, must be 0 to {len(names) - 1}, or the name of a class")
        else:
            labels.append(int(text))
    return list(dict.fromkeys(labels))
