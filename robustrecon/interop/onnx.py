"""A defended classifier as an ONNX file: images in; label, score, p-value and rejection out.

ONNX Runtime runs it without PyTorch and without this library.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch

from ..defence import DefendedClassifier
from ..files import atomic_write, check_writable
from ..provenance import versions
from ..types import InputError
from .graph import OUTPUTS, verdict_graph

OPSET = LEAST_OPSET = 18
"""The lowest in which all operators that PyTorch writes exist, and the default: more runtimes know it."""

NEEDED = ("onnx", "onnxscript")
INSTALL = 'pip install "robustrecon[onnx]"'


def export_onnx(defended: DefendedClassifier, path: str | Path, opset: int = OPSET) -> Path:
    """Write a calibrated classifier as one ONNX graph, for any number of images.

    The input `images` is (B, C, H, W) float32 in [0, 1]. The outputs are those of `DefendedClassifier.inspect`: `label`
    (B,) int64, `score` (B,) float32, `p_value` (B,) float64, `rejected` (B,) bool. What `inspect` checks, the range and
    the shape of the images, the graph does not. The metadata properties of the file hold `opset`, `threshold`, `alpha`,
    `detector`, `n_calibration`, `image_shape`, `classes` (where they are known) and `robustrecon`, the version.

    Args:
        defended: a calibrated classifier, whose model may draw by input gradients of its own.
        path: the .onnx file.
        opset: version of ONNX's operators, 18 or higher.

    Raises:
        InputError: missing packages, an opset that is too low or that is not known, not calibrated, a model or detector
            that cannot be written as one graph, or an unwritable path.
    """
    path = Path(path)
    if path.suffix != ".onnx":
        raise InputError(f"out: got {path}, must end in .onnx")
    check_installed(opset)
    check_writable(path.parent)
    calibration = defended.checked_calibration(exactly=True)
    graph = verdict_graph(defended)
    try:
        with _silent():
            program = torch.onnx.export(
                graph,
                dynamo=True,
                input_names=["images"],
                output_names=[*OUTPUTS],
                opset_version=opset,
                verbose=False,
            )
            assert program is not None
            written = program.model_proto
    except torch.onnx.errors.OnnxExporterError as error:
        reason = str(error.__cause__ or error)
        raise InputError(
            f"model: {type(defended.model).__name__} with {defended.detector.name} has an operation that ONNX has not "
            f"({' '.join(reason.split())[:200]})"
        ) from error
    found = next(entry.version for entry in written.opset_import if not entry.domain)
    if found != opset:
        raise InputError(f"opset: got {opset}, must be {found} for this model")
    for value in (*written.graph.input, *written.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    said = {
        "robustrecon": versions().get("robustrecon", "unknown"),
        "opset": opset,
        "threshold": calibration.threshold,
        "alpha": calibration.alpha,
        "detector": defended.detector.name,
        "n_calibration": len(calibration.scores),
        "image_shape": list(defended.image_shape or ()),
    }
    if defended.classes is not None:
        said["classes"] = list(defended.classes)
    for key, value in said.items():
        entry = written.metadata_props.add()
        entry.key, entry.value = key, value if isinstance(value, str) else json.dumps(value)
    return atomic_write(path, written.SerializeToString())


def check_installed(opset: int = OPSET) -> None:
    """Whether what writes ONNX files is there, and knows the opset.

    Raises:
        InputError: it is not, or does not; the message says what to install.
    """
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise InputError(f"export: needs the package{'s' * (len(missing) > 1)} {' and '.join(missing)}: {INSTALL}")
    import onnx

    newest = onnx.defs.onnx_opset_version()
    if not LEAST_OPSET <= opset <= newest:
        raise InputError(f"opset: got {opset}, must be in {LEAST_OPSET} to {newest}")


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without what the exporter says of its own progress, and of its own code."""
    logger = logging.getLogger("onnxscript")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
