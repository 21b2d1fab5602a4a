"""`robustrecon detect`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from .options import DataDir, Device, Json


def detect(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Image files.")],
    model: Annotated[
        Path,
        typer.Option(help="A trained model's folder, a shipped one's name, or a saved DefendedClassifier."),
    ] = Path("runs/digits"),
    detector: Annotated[
        str | None,
        typer.Option(help="label_margin (the default), global_error, cycle, marginal or 'any_of(NAME,NAME)'."),
    ] = None,
    alpha: Annotated[float | None, typer.Option(help="Bound on the false-alarm rate; 0.05 by default.")] = None,
    data_dir: DataDir = Path("data"),
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Judge image files; exit code 1 when any is rejected.

    A trained model is calibrated first, on the calibration part of the data it was trained on; a saved
    DefendedClassifier is calibrated already. Images are converted to the model's channels and resized.
    """
    from ..bench.model import load_defended
    from ..data import read_images

    defended = load_defended(model, detector, alpha, data_dir, device)
    assert defended.image_shape is not None  # every model that can be loaded by path says it
    verdict = defended.inspect(read_images(files, defended.image_shape))
    rows: list[dict[str, Any]] = [
        {
            "file": str(file),
            "label": label,
            "class": defended.classes[label] if defended.classes else None,
            "score": score,
            "p_value": p_value,
            "rejected": rejected,
        }
        for file, label, score, p_value, rejected in zip(
            files,
            verdict.label.tolist(),
            verdict.score.tolist(),
            verdict.p_value.tolist(),
            verdict.rejected.tolist(),
            strict=True,
        )
    ]
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        width = max(len(row["file"]) for row in rows)
        print(f"{'file':<{width}}  {'label':>8}  {'score':>10}  {'p-value':>8}  verdict")
        for row in rows:
            name = row["label"] if row["class"] is None else row["class"].split(" - ")[0]
            judged = "rejected" if row["rejected"] else "accepted"
            print(f"{row['file']:<{width}}  {name:>8}  {row['score']:>10.4g}  {row['p_value']:>8.4f}  {judged}")
    if verdict.rejected.any():
        raise typer.Exit(1)
