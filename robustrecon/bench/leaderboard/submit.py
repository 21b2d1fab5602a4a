"""Entering a folder of results: what must hold of it, and what becomes of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ...types import InputError
from .. import store
from ..chain.result import ChainResult
from ..key import CellKey
from ..worst_case import WorstCase, worst_case
from .about import read_about
from .board import Entry, read_board, write_board

LEAST = 200  # images, of an entry and of one attack that knows the detector
_ONE_OF = ("data", "data_fingerprint", "model", "weights", "detector", "alpha", "correct_only")


def submit(folder: str | Path, leaderboard: str | Path = "results/leaderboard.json") -> list[Entry]:
    """Check a folder of results and write its entries, one for each norm and eps; those of before are replaced.

    Args:
        folder: cells of one data set, model and detector, as `robustrecon bench` writes them, or worst cases, as it
            does with `--worst-case-only`; and `defence.toml`, which says whose they are.
        leaderboard: the file of entries; made where there is none.

    Returns:
        The entries of this folder.

    Raises:
        InputError: no `defence.toml`, or a bad one; a file that cannot be read, no results, or results of several data
            sets, models, weights, detectors or false-alarm rates; a cell that failed; fewer than `LEAST` images, or no
            attack that knows the detector on as many; an unwritable folder.
    """
    folder, path = Path(folder), Path(leaderboard)
    defence = read_about(folder)
    entries = [Entry(defence, case, _place(folder, path)) for case in checked_cases(folder)]
    taken = {entry.place for entry in entries}
    write_board(path, [*(entry for entry in read_board(path) if entry.place not in taken), *entries])
    return entries


def checked_cases(folder: Path) -> list[WorstCase]:
    """The worst case at each norm and eps of what is stored below a folder, once all that an entry needs is there.

    Raises:
        InputError: as for `submit`.
    """
    stored = store.read_folder(folder)
    if stored.unreadable:
        raise InputError(f"folder: {stored.unreadable[0]} cannot be read as a result; measure it anew, or remove it")
    chains = _chains(folder)
    keys = [*(cell.key for cell in stored.results), *(key for chain in chains for key in chain.key.cells)]
    if stored.failures:
        failure = stored.failures[0]
        raise InputError(f"folder: {failure.key.title}, {failure.key.budget} in {folder} failed ({failure.error})")
    if not keys:
        raise InputError(f"folder: {folder} holds no results of `robustrecon bench`")
    _check_one(folder, keys)
    of_cells = worst_case(stored.results)
    cases = [*of_cells, *(case for chain in chains for case in chain.entries)]
    budgets = [case.budget for case in cases]
    for case in cases:
        if budgets.count(case.budget) > 1:
            raise InputError(f"folder: {folder} has several worst cases for {case.budget}, must have one")
        # An attack of a chain gets the images that the others left, so that it may be few.
        _check_case(folder, case, LEAST if case in of_cells else 0)
    return cases


def _chains(folder: Path) -> list[ChainResult]:
    """The results of `--worst-case-only` below a folder; other JSON is passed over."""
    chains = []
    for path in sorted(folder.rglob("*.json")):
        found = json.loads(path.read_text())  # it can be read: the cells were read before
        if isinstance(found, dict) and "chain" in found:
            try:
                chains.append(ChainResult.from_json(found))
            except ValueError as error:
                raise InputError(f"folder: {path} cannot be read as a result ({error})") from error
    return chains


def _check_one(folder: Path, keys: Sequence[CellKey]) -> None:
    for name in _ONE_OF:
        found = sorted({str(getattr(key, name)) for key in keys})
        if len(found) > 1:
            raise InputError(f"folder: {folder} has results of {name} {' and '.join(found)}, must be of one")


def _check_case(folder: Path, case: WorstCase, least_attacked: int) -> None:
    if case.failed:
        note = case.failed[0]
        raise InputError(f"folder: {note.attack}, {case.budget} in {folder} failed ({note.error})")
    if case.n < LEAST:
        raise InputError(f"folder: {folder} has {case.n} images at {case.budget}, must be at least {LEAST}")
    if not any(attack.images >= least_attacked for attack in case.aware):
        raise InputError(
            f"folder: {folder} has no attack at {case.budget} that knows the detector and was run on at least {LEAST} "
            "images, must have one (see `robustrecon attacks`)"
        )


def _place(folder: Path, leaderboard: Path) -> str:
    root, place = leaderboard.resolve().parent, folder.resolve()
    return place.relative_to(root).as_posix() if place.is_relative_to(root) else place.name
