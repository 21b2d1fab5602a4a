"""`robustrecon detect`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import CalibrationData, Classifier, DataDir, Detector, Device, GivenAlpha, Json, Judge

if TYPE_CHECKING:
    from ..defence import DefendedClassifier

_CHUNK = 512  # files that are held at a time


@dataclass(frozen=True)
class FileVerdict:
    """What the detector says of one file.

    Attributes:
        file: the path as it was given.
        label, score, p_value, rejected: as of `Verdict`; None for a file that could not be read.
        class_name: the label's name, where it is known.
        error: why the file could not be read, else None.
    """

    file: str
    label: int | None = None
    class_name: str | None = None
    score: float | None = None
    p_value: float | None = None
    rejected: bool | None = None
    error: str | None = None

    def to_json(self) -> dict[str, object]:
        """Without `error` for a file that was judged, and with nothing else for one that was not."""
        if self.error is not None:
            return {"file": self.file, "error": self.error}
        found = asdict(self)
        del found["error"]
        return {("class" if key == "class_name" else key): value for key, value in found.items()}


def detect(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="Image files, or folders, of which all image files are judged."),
    ],
    model: Judge = Path("runs/digits"),
    detector: Detector = None,
    alpha: GivenAlpha = None,
    data: CalibrationData = None,
    data_dir: DataDir = Path("data"),
    device: Device = "auto",
    classifier: Classifier = None,
    as_json: Json = False,
) -> None:
    """Judge image files. Exit code 0: all are accepted, 1: one is rejected, 2: one cannot be read.

    Shipped models and those of `robustrecon train` come with calibration scores and need no data. Images are converted
    to the model's channels and resized.
    """
    from ..data.folder import image_files
    from ..defence import load_defended

    found = image_files(files)
    defended = load_defended(model, detector, alpha, data, data_dir, device, classifier)
    verdicts = [verdict for i in range(0, len(found), _CHUNK) for verdict in _judged(defended, found[i : i + _CHUNK])]
    print(json.dumps([verdict.to_json() for verdict in verdicts], indent=2) if as_json else _table(verdicts))
    for verdict in verdicts:
        if verdict.error is not None:
            print(f"robustrecon: error: {verdict.error}", file=sys.stderr)
    code = 2 if any(each.error for each in verdicts) else int(any(each.rejected for each in verdicts))
    if code:
        raise typer.Exit(code)


def _judged(defended: DefendedClassifier, files: Sequence[Path]) -> list[FileVerdict]:
    """A verdict a file, in their order; one that cannot be read does not keep the others from being judged."""
    import torch

    from ..data import read_images
    from ..types import InputError

    if defended.image_shape is None:
        raise InputError("model: does not say the shape of its images, must say it to judge files")
    images, verdicts = [], {}
    for index, file in enumerate(files):
        try:
            images.append((index, read_images([file], defended.image_shape)))
        except InputError as error:
            verdicts[index] = FileVerdict(str(file), error=str(error))
    if images:
        verdict = defended.inspect(torch.cat([x for _, x in images]))
        for row, (index, _) in enumerate(images):
            label = int(verdict.label[row])
            verdicts[index] = FileVerdict(
                str(files[index]),
                label,
                defended.classes[label] if defended.classes else None,
                verdict.score[row].item(),
                verdict.p_value[row].item(),
                bool(verdict.rejected[row]),
            )
    return [verdicts[index] for index in range(len(files))]


def _table(verdicts: Sequence[FileVerdict]) -> str:
    width = max(len(verdict.file) for verdict in verdicts)
    lines = [f"{'file':<{width}}  {'label':>8}  {'score':>10}  {'p-value':>8}  verdict"]
    for verdict in verdicts:
        if verdict.score is None or verdict.p_value is None:
            lines.append(f"{verdict.file:<{width}}  {'–':>8}  {'–':>10}  {'–':>8}  unreadable")
            continue
        name = verdict.label if verdict.class_name is None else verdict.class_name.split(" - ")[0]
        said = "rejected" if verdict.rejected else "accepted"
        lines.append(f"{verdict.file:<{width}}  {name:>8}  {verdict.score:>10.4g}  {verdict.p_value:>8.4f}  {said}")
    return "\n".join(lines)
