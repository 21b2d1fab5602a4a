"""`robustrecon calibrate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .options import Alpha, CalibrationData, Classifier, CorrectOnly, DataDir, Detector, Device, Json


def calibrate(
    out: Annotated[
        Path, typer.Option(help="The .safetensors file to write, or a folder, with a model card for Hugging Face.")
    ],
    model: Annotated[
        Path, typer.Option(help="A shipped model's name, or a folder that `train` or `graft` wrote.")
    ] = Path("runs/digits"),
    detector: Detector = None,
    alpha: Alpha = 0.05,
    data: CalibrationData = None,
    data_dir: DataDir = Path("data"),
    device: Device = "auto",
    classifier: Classifier = None,
    correct_only: CorrectOnly = False,
    as_json: Json = False,
) -> None:
    """Write a classifier with a calibrated detector to one file or folder, for `detect` and `export`."""
    from ..files import check_writable
    from ..types import InputError

    if not out.is_dir() and out.suffix not in ("", ".safetensors"):
        raise InputError(f"out: got {out}, must end in .safetensors, or be a folder")
    check_writable(out.parent)
    from ..defence import load_defended

    defended = load_defended(model, detector, alpha, data, data_dir, device, classifier, correct_only)
    calibration = defended.checked_calibration()
    summary = {
        "file": str(defended.save(out)),
        "model": str(model),
        "detector": defended.detector.name,
        "alpha": calibration.alpha,
        "threshold": calibration.threshold,
        "n": len(calibration.scores),
        "expected_false_alarm_rate": calibration.expected_false_alarm_rate,
    }
    if as_json:
        print(json.dumps(summary, indent=2))
    else:
        print(
            f"{out}: {summary['detector']} over {model}, threshold {calibration.threshold:.6g} from "
            f"n = {summary['n']:,} clean images, expected false-alarm rate at most "
            f"{calibration.expected_false_alarm_rate:.3%} (alpha {calibration.alpha:g})"
        )
