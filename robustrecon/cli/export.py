"""`robustrecon export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .options import CalibrationData, Classifier, DataDir, Detector, GivenAlpha, Json, Judge


def export(
    out: Annotated[Path, typer.Option(help="The .onnx file to write.")],
    model: Judge = Path("runs/digits"),
    detector: Detector = None,
    alpha: GivenAlpha = None,
    data: CalibrationData = None,
    data_dir: DataDir = Path("data"),
    classifier: Classifier = None,
    opset: Annotated[int, typer.Option(help="Version of ONNX's operators, 18 or higher.")] = 18,
    as_json: Json = False,
) -> None:
    """Write a classifier with a calibrated detector as one ONNX graph: images in, verdict out."""
    from ..types import InputError

    if out.suffix != ".onnx":
        raise InputError(f"out: got {out}, must end in .onnx")
    from ..defence import load_defended
    from ..interop.graph import OUTPUTS
    from ..interop.onnx import check_installed, export_onnx

    check_installed(opset)
    defended = load_defended(model, detector, alpha, data, data_dir, "cpu", classifier)
    calibration = defended.checked_calibration()
    summary = {
        "file": str(export_onnx(defended, out, opset)),
        "model": str(model),
        "detector": defended.detector.name,
        "alpha": calibration.alpha,
        "threshold": calibration.threshold,
        "opset": opset,
        "input": ["images", [None, *(defended.image_shape or ())]],
        "outputs": list(OUTPUTS),
    }
    if as_json:
        print(json.dumps(summary, indent=2))
    else:
        print(
            f"{out}: {summary['detector']} over {model}, threshold {calibration.threshold:.6g}, opset {opset}; images "
            f"(B, {', '.join(map(str, defended.image_shape or ()))}) to {', '.join(OUTPUTS)}"
        )
