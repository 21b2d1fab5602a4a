"""Results as a pandas DataFrame, a row a cell: what every table is made from."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ..types import InputError
from . import store
from .fields import Json
from .metrics import FALSE_POSITIVE_RATES
from .protocols import ACCEPTANCES, at_acceptance
from .result import CellResult

TPR_COLUMNS = {bound: f"tpr_at_fpr_{float(bound) * 100:.0f}" for bound in FALSE_POSITIVE_RATES}
AT_COLUMNS = tuple(f"{figure}_ta_{each}" for each in ACCEPTANCES for figure in ("robust_risk", "robust_accuracy"))


def load_results(folder: str | Path) -> pd.DataFrame:
    """Every result below a folder as a row of numbers, in the order of a table.

    Cells that failed and JSON files that are no results are left out; one line on stderr says how many.

    Args:
        folder: any folder that `robustrecon bench` wrote results to, or one above it.

    Returns:
        Columns for what was measured (`data`, `model`, `weights`, `detector`, `attack`, `engine`, `norm`, `eps`,
        `steps`, `seed`, `n`, `alpha`, `correct_only`, `parameters`, ...), for every figure (`clean_accuracy`,
        `accuracy`, `auroc_success`, `undetected_success`, `robust_risk`, `robust_risk_low`,
        `robust_risk_high`, with the threshold at a true acceptance of 95 or 99 % `robust_risk_ta_95`,
        `robust_accuracy_ta_95`, ...) and for where it comes from (`checks`, `seconds`, `commit`, ...). A rate of no
        images is missing.

    Raises:
        InputError: no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"folder: no folder {folder}")
    stored = store.read_folder(folder)
    counts = {"failed cells": len(stored.failures), "unreadable JSON files": len(stored.unreadable)}
    left_out = [f"{count} {what}" for what, count in counts.items() if count]
    if left_out:
        print(f"{folder}: left out: {', '.join(left_out)}", file=sys.stderr)
    return frame_of(stored.results)


def frame_of(results: Sequence[CellResult]) -> pd.DataFrame:
    """Results in hand as `load_results` gives those of a folder."""
    frame = pd.DataFrame([_row(result) for result in results], columns=COLUMNS)
    return frame.astype({"steps": "Int64", "eps": float, "robust_risk": float, **dict.fromkeys(_MAYBE_MISSING, float)})


def _row(result: CellResult) -> dict[str, Json]:
    key, metrics = result.key, result.metrics
    low, high = metrics.intervals.get("robust_risk") or (None, None)
    return {
        "data": key.data,
        "model": key.model,
        "weights": key.weights,
        "data_fingerprint": key.data_fingerprint,
        "detector": key.detector,
        "attack": key.attack,
        "engine": key.engine,
        "norm": key.norm,
        "eps": key.eps,
        "steps": key.steps,
        "seed": key.seed,
        "n": key.n,
        "alpha": key.alpha,
        "correct_only": key.correct_only,
        "parameters": key.parameter_text,
        "precision": key.precision,
        "knows_detector": result.knows_detector,
        "clean_accuracy": metrics.clean_accuracy,
        "clean_rejection_rate": metrics.clean_rejection_rate,
        "accepted_accuracy": metrics.accepted_accuracy,
        "accuracy": metrics.accuracy,
        "success_rate": metrics.success_rate,
        "successes": int(result.flags.broken.sum()),
        "auroc_success": metrics.auroc_success,
        "auroc_all": metrics.auroc_all,
        **{column: metrics.tpr_at_fpr.get(bound) for bound, column in TPR_COLUMNS.items()},
        "undetected_success": metrics.undetected_success,
        "threshold": metrics.threshold,
        "robust_risk": metrics.robust_risk,
        "robust_risk_low": low,
        "robust_risk_high": high,
        **_at_acceptances(result),
        "checks": ", ".join(check.name for check in result.checks),
        "seconds": result.seconds,
        "images_per_second": result.images_per_second,
        "commit": result.environment.commit,
        "device": result.environment.device,
        "threads": result.environment.threads,
    }


def _at_acceptances(result: CellResult) -> dict[str, Json]:
    """Robust risk and robust accuracy with the threshold at each true acceptance."""
    found = [at_acceptance([result], acceptance) for acceptance in ACCEPTANCES]
    values = [value for at in found for value in ((at.robust_risk, at.robust_accuracy) if at else (None, None))]
    return {name: value.value if value else None for name, value in zip(AT_COLUMNS, values, strict=True)}


_MAYBE_MISSING = ("accepted_accuracy", "success_rate", "auroc_success", "auroc_all", *TPR_COLUMNS.values(), *AT_COLUMNS)
COLUMNS = [
    *("data", "model", "weights", "data_fingerprint", "detector", "attack", "engine", "norm", "eps", "steps", "seed"),
    *("n", "alpha", "correct_only", "parameters", "precision", "knows_detector"),
    *("clean_accuracy", "clean_rejection_rate"),
    *("accepted_accuracy", "accuracy", "success_rate", "successes", "auroc_success", "auroc_all"),
    *TPR_COLUMNS.values(),
    *("undetected_success", "threshold", "robust_risk", "robust_risk_low", "robust_risk_high"),
    *AT_COLUMNS,
    *("checks", "seconds", "images_per_second", "commit", "device", "threads"),
]
