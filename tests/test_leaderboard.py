"""The leaderboard: what a folder of results must have, the entries that it gives, and the shipped ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from robustrecon import InputError
from robustrecon.bench.leaderboard import report
from robustrecon.bench.leaderboard.board import Entry, read_board, write_board
from robustrecon.bench.leaderboard.submit import checked_cases, submit
from robustrecon.cli import app

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
SOURCE = RESULTS / "grafted/mnist-test/benchmarks.grafted-grafted/label_margin"
ABOUT = 'name = "n"\nauthors = "a"\narchitecture = "c"\nadditional_data = false\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two cells at linf 0.3, one of an attack that knows the detector."""
    folder = tmp_path / "results" / "own"
    folder.mkdir(parents=True)
    for attack in ("pgd-linf-0.3-s0", "selective-linf-0.3-s0-steps=100-early_exit=True"):
        shutil.copy(SOURCE / f"{attack}.json", folder)
    (folder / "defence.toml").write_text(ABOUT)
    return folder


def test_an_entry_is_the_worst_case_of_the_folder(folder: Path) -> None:
    board = folder.parent / "leaderboard.json"
    (entry,) = submit(folder, board)
    (case,) = checked_cases(folder)
    assert entry.case == case
    assert entry.results == "own"
    (told,) = json.loads(board.read_text())["entries"]
    assert told["dataset"] == "mnist-test"
    assert (told["threat_model"], told["eps"], told["n"]) == ("Linf", 0.3, 1000)
    assert told["robust_risk"] == pytest.approx(100 * case.robust_risk, abs=0.005)
    assert told["detector_aware"] == ["selective-100 early_exit=True"]
    assert [attack["attack"] for attack in told["attacks"]] == ["pgd-40", "selective-100 early_exit=True"]
    (read,) = read_board(board)
    assert read.to_json() == entry.to_json()
    assert "[" in report.table([read])


def test_the_same_place_is_replaced_and_another_is_added(folder: Path) -> None:
    board = folder.parent / "leaderboard.json"
    submit(folder, board)
    (folder / "defence.toml").write_text(ABOUT.replace('"n"', '"renamed"'))
    changed(folder / "pgd-linf-0.3-s0.json", lambda cell: cell["spec"].update(norm="l2"), keep=True)
    changed(
        folder / "selective-linf-0.3-s0-steps=100-early_exit=True.json", lambda c: c["spec"].update(norm="l2"), True
    )
    submit(folder, board)
    assert [(entry.case.norm, entry.defence.name) for entry in read_board(board)] == [
        ("l2", "renamed"),
        ("linf", "renamed"),
    ]
    assert not list(folder.parent.glob(".*partial"))


def changed(path: Path, change: Callable[[Any], object], keep: bool = False) -> None:
    """A cell with another value; beside the one that was there where `keep`."""
    cell = json.loads(path.read_text())
    change(cell)
    (path.with_name(f"other-{path.name}") if keep else path).write_text(json.dumps(cell))


def only_pgd(folder: Path) -> None:
    next(folder.glob("selective*")).unlink()


def fewer(folder: Path) -> None:
    for path in folder.glob("*.json"):
        changed(path, lambda cell: cell["images"].update({k: v[:150] for k, v in cell["images"].items()}))


def fewer_aware(folder: Path) -> None:
    path = next(folder.glob("selective*"))
    changed(path, lambda cell: cell["images"].update({k: v[:150] for k, v in cell["images"].items()}))


def failed(folder: Path) -> None:
    changed(next(folder.glob("pgd*")), lambda cell: cell.update(status="failed", error="ValueError: no"), keep=True)


def of(key: str, value: object) -> Callable[[Path], None]:
    return lambda folder: changed(next(folder.glob("pgd*")), lambda cell: cell["spec"].update({key: value}))


BAD: list[tuple[Callable[[Path], object], str]] = [
    (only_pgd, "has no attack at linf 0.3 that knows the detector and was run on at least 200"),
    (fewer, "has 150 images at linf 0.3, must be at least 200"),
    (fewer_aware, "no attack at linf 0.3 that knows the detector and was run on at least 200"),
    (failed, r"pgd-40, linf 0.3 in .* failed \(ValueError: no\)"),
    (of("data", "mnist"), "has results of data mnist and mnist-test, must be of one"),
    (of("weights", "0"), "has results of weights 0 and .*, must be of one"),
    (of("alpha", 0.1), "has results of alpha 0.005 and 0.1, must be of one"),
    (lambda folder: (folder / "cell.json").write_text('{"spec": {'), "cell.json cannot be read as a result"),
    (lambda folder: (folder / "cell.json").write_text('{"spec": {}}'), "cell.json cannot be read as a result"),
    (lambda folder: (folder / "cell.json").write_text('{"chain": 1}'), "cell.json cannot be read as a result"),
    (lambda folder: [path.unlink() for path in folder.glob("*.json")], "holds no results of `robustrecon bench`"),
    (lambda folder: (folder / "defence.toml").unlink(), "has no defence.toml"),
    (lambda folder: (folder / "defence.toml").write_text("name = "), "defence.toml: is not TOML"),
    (lambda folder: (folder / "defence.toml").write_text(ABOUT + "venu = ''"), "unknown name 'venu'; did you mean"),
    (lambda folder: (folder / "defence.toml").write_text('name = "n"'), "defence.toml: .*has no authors"),
    (lambda folder: (folder / "defence.toml").write_text(ABOUT.replace("false", "0")), "additional_data: got 0, must"),
]


@pytest.mark.parametrize(("spoil", "message"), BAD)
def test_what_lacks_something_is_one_line_and_nothing_is_written(
    folder: Path, spoil: Callable[[Path], object], message: str
) -> None:
    spoil(folder)
    with pytest.raises(InputError, match=message):
        submit(folder, folder.parent / "leaderboard.json")
    assert not (folder.parent / "leaderboard.json").exists()


def test_a_worst_case_alone_will_do(folder: Path) -> None:
    """As `bench --worst-case-only` writes it."""
    from robustrecon.bench import store
    from robustrecon.bench.chain.result import ChainKey, ChainResult, write

    cells = store.read_folder(folder).results
    (case,) = checked_cases(folder)
    chain = ChainResult(ChainKey(tuple(cell.key for cell in cells)), (case,), (None,), cells[0].environment)
    write(folder, chain)
    with pytest.raises(InputError, match="has several worst cases for linf 0.3, must have one"):
        submit(folder, folder.parent / "leaderboard.json")
    for cell in folder.glob("*.json"):
        cell.unlink()
    (entry,) = submit(folder, folder.parent / "leaderboard.json")
    assert entry.case == case


def test_a_file_that_is_no_leaderboard_stays_as_it_is(folder: Path) -> None:
    board = folder.parent / "leaderboard.json"
    board.write_text("{}")
    with pytest.raises(InputError, match=r"leaderboard: .* is none \(.*has no entries\)"):
        submit(folder, board)
    assert board.read_text() == "{}"


def test_the_command_prints_the_entries(folder: Path) -> None:
    board = folder.parent / "leaderboard.json"
    done = CliRunner().invoke(app, ["submit", str(folder), "--leaderboard", str(board)])
    assert done.exit_code == 0, done.output
    assert "linf 0.3" in done.output
    assert done.output.rstrip().endswith(str(board))
    done = CliRunner().invoke(app, ["submit", str(folder), "--leaderboard", str(board), "--json"])
    assert [Entry.from_json(told).place for told in json.loads(done.output)] == [e.place for e in read_board(board)]


def test_the_shipped_entries_are_those_of_their_folders(tmp_path: Path) -> None:
    entries = read_board(RESULTS / "leaderboard.json")
    folders = {entry.results for entry in entries}
    assert {"style-memory-robust-refine", "benchmarks.grafted-grafted"} <= {Path(each).name for each in folders}
    for folder in folders:
        shutil.copytree(RESULTS / folder, tmp_path / folder, ignore=shutil.ignore_patterns("*.npz"))
        submit(tmp_path / folder, tmp_path / "leaderboard.json")
    assert (tmp_path / "leaderboard.json").read_text() == (RESULTS / "leaderboard.json").read_text()
    write_board(tmp_path / "again.json", entries[::-1])
    assert [e.place for e in read_board(tmp_path / "again.json")] == [entry.place for entry in entries]
