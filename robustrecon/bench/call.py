"""A benchmark in one call: any model, any data, the result in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from .. import models
from ..data import Dataset, Part, load_data
from ..data.batches import as_images_and_labels, check_labels
from ..defence import SAVED_KIND, DefendedClassifier
from ..detectors import DETECTORS, parts
from ..detectors.catalogue import without_layer
from ..files import check_writable
from ..runtime import resolve_device
from ..types import InputError
from .frame import frame_of
from .keeping import Keeper, copy
from .key import DEFAULT_STEPS
from .model import BenchmarkModel, is_factory, load_benchmark_model, loaded_module, logits_of_one, own_model
from .plan import BenchmarkPlan
from .report import formats
from .result import Cell, measured
from .runner import prepared
from .worst_case import WorstCase, worst_case

if TYPE_CHECKING:
    import pandas as pd

    from ..detectors import AnyOf, Detector, Score
    from .fields import Json

OWN_DATA = "own-data"


@dataclass(frozen=True, repr=False)
class BenchmarkResult:
    """What `benchmark` measured. Printed, it is a table; in a notebook too.

    Attributes:
        cells: one for each attack, radius and detector, in that order; a `CellFailure` for one that failed.
        classes: the class names, in label order.
    """

    cells: tuple[Cell, ...]
    classes: tuple[str, ...]
    _kept: Keeper = field(compare=False)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """A row a measured cell, as `load_results` gives them."""
        return frame_of(measured(self.cells))

    @cached_property
    def worst_case(self) -> list[WorstCase]:
        """The worst case over all attacks, image by image: one for each detector and radius."""
        return worst_case(self.cells)

    def save(self, folder: str | Path) -> list[Path]:
        """Write what `out=folder` would have written, for `load_results` and `robustrecon table`; returns the files.

        Raises:
            InputError: an unwritable folder.
        """
        check_writable(Path(folder))
        return copy(self.cells, self._kept, Path(folder))

    def __repr__(self) -> str:
        return formats.of_cells(self.cells, "table")

    def _repr_markdown_(self) -> str:
        return formats.of_cells(self.cells, "markdown")


def benchmark(
    model: str | Path | nn.Module,
    data: str | Dataset | Sequence[Any] | None = None,
    attacks: str | Sequence[str] = ("pgd", "selective"),
    eps: float | Sequence[float] = (0.1, 0.2, 0.3),
    detectors: str | Detector | AnyOf | Score | Sequence[str | Detector | AnyOf | Score] | None = None,
    n: int = 1000,
    out: str | Path | None = None,
    *,
    norm: str = "linf",
    steps: int = DEFAULT_STEPS,
    engine: str | None = None,
    parameters: Mapping[str, Json] | None = None,
    alpha: float | None = None,
    correct_only: bool = False,
    seed: int = 0,
    precision: str = "auto",
    classes: Sequence[str] | None = None,
    data_dir: str | Path = "data",
    device: str = "auto",
    progress: bool = True,
) -> BenchmarkResult:
    """Attack a model and its detectors, and say how well they hold.

    Args:
        model: any `nn.Module` that gives logits (B, K) of images (B, C, H, W) in [0, 1]; a `DefendedClassifier`, which
            is calibrated anew on the calibration images; or the name or path of a trained, shipped or saved model, or
            `module:factory`.
        data: a data set or its name; or (x_test, y_test, x_calibration), tensors or arrays, images (N, C, H, W) in
            [0, 1]. A `DataLoader` or a torch data set may stand for images; y_test may be None or left out where x_test
            gives labels. By default what a named model was trained on.
        attacks: names of `robustrecon.attacks.CATALOGUE`, or `module:factory`.
        eps: radii of the budget.
        detectors: names, `module:factory`, detectors, or functions of an `Evidence`. By default that of a
            `DefendedClassifier`; `label_margin` and `global_error` for a model with class energies; `msp` for any
            other.
        n: the first n test images.
        out: folder of results, from which cells that are there already are taken; by default nothing is written.
        norm, steps, engine, seed, precision: of the attacks, as `BenchmarkPlan` has them.
        parameters: others of the attacks: {"restarts": 5, "multi-target.targets": 2}.
        alpha: bound on the false-alarm rate; by default that of a calibrated classifier, or 0.05.
        correct_only: let alpha bound the rate among the calibration images that the model labels right; x_calibration
            comes with labels then.
        classes: the class names; by default the data set's, the classifier's, or numbers.
        data_dir: where a named data set is.
        device: to attack on. A module that is passed in stays where it is, unless this names another device.
        progress: show progress on stderr.

    Raises:
        InputError: an unknown name, a value out of range, data that do not fit the model or each other, or too few
            calibration images for alpha.
    """
    if isinstance(model, (str, Path)) and not is_factory(model) and _is_saved_classifier(model):
        model = DefendedClassifier.load(model).to(resolve_device(device))
    own: DefendedClassifier | None = model if isinstance(model, DefendedClassifier) else None
    if own is not None:
        detectors = _by_name(own.detector) if detectors is None else detectors
        calibrated = own.calibration
        alpha = calibrated.alpha if alpha is None and calibrated is not None else alpha
        classes = own.classes if classes is None else classes
    plan = BenchmarkPlan(
        [attacks] if isinstance(attacks, str) else attacks,
        eps=[eps] if isinstance(eps, (int, float)) else eps,
        norm=norm,
        steps=steps,
        engine=engine,
        detectors=detectors if detectors is None or isinstance(detectors, (list, tuple)) else [detectors],  # type: ignore[list-item]
        alpha=0.05 if alpha is None else alpha,
        n=n,
        seed=seed,
        precision=precision,
        parameters=parameters,
        correct_only=correct_only,
    )
    target = _target(model, data, classes, data_dir, device, progress)
    bench = prepared(target, plan, out, progress)
    return BenchmarkResult(tuple(bench.run(plan.attacks)), target.data.classes, bench.kept)


def _target(
    model: str | Path | nn.Module,
    data: str | Dataset | Sequence[Any] | None,
    classes: Sequence[str] | None,
    data_dir: str | Path,
    device: str,
    progress: bool,
) -> BenchmarkModel:
    if isinstance(model, (str, Path)):
        if data is None or isinstance(data, (str, Dataset)):
            return load_benchmark_model(model, data, data_dir, device, progress)
        name, module = str(model), loaded_module(model).to(resolve_device(device))
    elif isinstance(model, nn.Module):
        module = model.model if isinstance(model, DefendedClassifier) else model
        name = type(module).__name__
        if device != "auto":
            module = module.to(resolve_device(device))
    else:
        raise InputError(f"model: got {type(model).__name__}, must be a torch.nn.Module, or a model's name or path")
    if data is None:
        raise InputError("data: got None, must be a data set, its name, or (x_test, y_test, x_calibration)")
    if isinstance(data, str):
        data = load_data(data, data_dir)
    return own_model(module, name, data if isinstance(data, Dataset) else _own_data(data, module, classes))


def _own_data(data: Sequence[Any], model: nn.Module, classes: Sequence[str] | None) -> Dataset:
    """(x_test, y_test, x_calibration), or (labelled x_test, x_calibration), as a data set without a training part."""
    if not isinstance(data, (tuple, list)) or len(data) not in (2, 3):
        got = f"{type(data).__name__} of {len(data)}" if isinstance(data, (tuple, list)) else type(data).__name__
        raise InputError(f"data: got {got}, must be a data set, its name, or (x_test, y_test, x_calibration)")
    shape = getattr(model, "image_shape", None)
    x, y = as_images_and_labels(data[0], shape, "x_test")
    if len(data) == 3 and data[1] is not None:
        y = check_labels(data[1], len(x), "y_test")
    if y is None:
        raise InputError("y_test: got none, must be labels, one for each image of x_test, or come with x_test")
    channels, height, width = x.shape[1:]
    calibration, others = as_images_and_labels(data[-1], (channels, height, width), "x_calibration")
    n_classes = logits_of_one(model, x[:1]).shape[1]
    named = tuple(map(str, range(n_classes) if classes is None else classes))
    if len(named) != n_classes:
        raise InputError(f"classes: got {len(named)} names, must be {n_classes}, one for each logit")
    unknown = torch.full((len(calibration),), -1)
    images, labels = x.detach().cpu(), y.cpu()
    return Dataset(
        OWN_DATA,
        named,
        Part(images[:0], labels[:0]),
        Part(calibration.detach().cpu(), unknown if others is None else others.cpu()),
        Part(images, labels),
    )


def _is_saved_classifier(model: str | Path) -> bool:
    return models.read(model).card.get("kind") == SAVED_KIND


def _by_name(detector: Detector | AnyOf) -> str | Detector | AnyOf:
    """The name of a detector that the catalogue has as it is; else the detector, whose cells are run anew each time."""
    for part in parts(detector):
        if type(part) is not DETECTORS.get(without_layer(part.name)[0]) or part.state_dict():
            return detector
    return detector.name
