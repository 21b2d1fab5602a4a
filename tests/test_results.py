"""Stored results: those of every version load, foreign files count as absent, and tables are made from them."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import attacks
import robustrecon
from robustrecon import InputError
from robustrecon.bench import CellKey, CellResult, load_results, store
from robustrecon.bench.report import cells, interactive, text
from robustrecon.bench.report.curves import Curves, HeatMap, heat_map, risk_curves, roc_curves
from robustrecon.bench.report.suite import SuiteReport
from robustrecon.bench.result import CellFailure, Environment, cell_from_json
from robustrecon.bench.worst_case import worst_case

RESULTS = Path(__file__).resolve().parents[1] / "results"
DIGITS = RESULTS / "robust" / "digits"
CELL = DIGITS / "digits" / "style-memory-robust-refine" / "label_margin" / "pgd-linf-0.1-s0.json"
STORED = [path for path in sorted(RESULTS.rglob("*.json")) if '"spec"' in path.read_text()[:20]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two results of one model, as they were stored."""
    for name in ("pgd-linf-0.1-s0", "selective-linf-0.1-s0-steps=100-early_exit=True"):
        path = CELL.with_name(f"{name}.json")
        target = tmp_path / path.relative_to(DIGITS)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return tmp_path


def test_every_stored_cell_loads_and_is_found_by_its_key() -> None:
    assert len(STORED) > 200
    for path in STORED:
        cell = store.read(path)
        assert isinstance(cell, CellResult), path
        root = path.parents[3]
        assert path in [root / place for place in cell.key.paths], path
        assert store.find(root, cell.key) == cell


def test_a_cell_is_written_as_it_was_read(tmp_path: Path) -> None:
    cell = store.read(CELL)
    assert cell is not None
    assert store.write(tmp_path, cell).read_text() == CELL.read_text()


@pytest.mark.parametrize("path", sorted((RESULTS / "robust").rglob("report.json")), ids=str)
def test_every_stored_suite_report_is_read_and_written_alike(path: Path) -> None:
    found = json.loads(path.read_text())
    assert SuiteReport.from_json(found).to_json() == found


def test_a_cell_stored_under_old_names_is_the_same_cell(tmp_path: Path) -> None:
    (path,) = CELL.parent.glob("multi-target-linf-0.1-*deepen=4*.json")
    cell = store.read(path)
    assert cell is not None
    assert cell.key.parameters == {"extra_restarts": 4, "early_exit": True}
    assert "extra_restarts=4" in str(cell.key.path)
    assert store.find(DIGITS, cell.key) == cell
    assert store.read_images(DIGITS, cell.key) is not None
    other = replace(cell.key, parameters={"extra_restarts": 5, "early_exit": True})
    assert store.find(DIGITS, other) is None


def test_renamed_parameters_and_detectors_have_their_present_names() -> None:
    key = CellKey(
        *("d", "m", "w", "any_of(cycle,marginal)", "hybrid", "own", "linf", 0.1, 40, 0, 10, 0.05),
        parameters=dict.fromkeys(attacks.RENAMED_PARAMETERS, 1),
    )
    assert key.detector == "any_of(cycle,free_energy)"
    assert set(key.parameters) == {"extra_restarts", "search_fraction"}
    current, old = key.paths
    assert current.parent.name == "any_of-cycle-free_energy"
    assert old.parent.name == "any_of-cycle-marginal"
    assert old.name.endswith("-deepen=1-searched=1.json")
    assert key == CellKey.from_json(key.to_json())


DAMAGES: list[Callable[[dict[str, Any]], object]] = [
    lambda stored: stored.update(checks=3),
    lambda stored: stored.update(checks=["fired"]),
    lambda stored: stored.update(spec=[]),
    lambda stored: stored["spec"].update(eps="much"),
    lambda stored: stored["spec"].update(parameters=["steps"]),
    lambda stored: stored["spec"].pop("n"),
    lambda stored: stored["spec"].update(colour="red"),
    lambda stored: stored.update(images={}),
    lambda stored: stored["images"].update(y=[1]),
    lambda stored: stored["images"].update(score=[None] * 200),
    lambda stored: stored["detection"].update(threshold=None),
    lambda stored: stored["intervals"].update(robust_risk=[0.1]),
    lambda stored: stored.update(environment="here"),
    lambda stored: stored.update(robust_risk=True),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_with_a_results_keys_but_other_values_counts_as_absent(
    folder: Path, damage: Callable[[dict[str, Any]], object], capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / CELL.relative_to(DIGITS)
    stored = json.loads(path.read_text())
    key = CellKey.from_json(stored["spec"])
    damage(stored)
    path.write_text(json.dumps(stored))
    assert store.find(folder, key) is None
    assert store.find(folder, key) is None
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{path}: is not a result (")
    assert len(load_results(folder)) == 1


@pytest.mark.parametrize("value", [None, [], 3, {"spec": {}}, {"spec": None, "status": "failed"}], ids=str)
def test_any_other_json_is_no_cell(value: object) -> None:
    with pytest.raises(ValueError, match="must be|has no"):
        cell_from_json(value)


class TestLoadResults:
    def test_gives_a_row_a_cell(self, folder: Path) -> None:
        frame = robustrecon.load_results(folder)
        assert list(frame["attack"]) == ["pgd", "selective"]
        row, stored = frame.iloc[0], json.loads(CELL.read_text())
        for column in ("data", "model", "weights", "detector", "engine", "norm", "eps", "steps", "seed", "n", "alpha"):
            assert row[column] == stored["spec"][column]
        assert row["clean_accuracy"] == stored["clean"]["accuracy"]
        assert row["accuracy"] == stored["attack"]["accuracy"]
        assert row["tpr_at_fpr_5"] == stored["detection"]["tpr_at_fpr"]["0.05"]
        assert [row["robust_risk_low"], row["robust_risk_high"]] == stored["intervals"]["robust_risk"]
        assert row["commit"] == stored["environment"]["commit"]
        assert frame["knows_detector"].tolist() == [False, True]
        assert frame["parameters"].tolist() == ["", "early_exit=True"]
        assert {"clean_rejection_rate", "accepted_accuracy", "success_rate", "auroc_success", "auroc_all"} < {*frame}
        assert {"tpr_at_fpr_1", "tpr_at_fpr_10", "undetected_success", "checks", "seconds"} < {*frame}

    def test_says_in_one_line_what_it_leaves_out(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (folder / "speed.json").write_text('{"rows": []}')
        (folder / "half.json").write_text("{")
        (folder / "list.json").write_text("[1]")
        key = replace(CellKey.from_json(json.loads(CELL.read_text())["spec"]), eps=0.3)
        store.write(folder, CellFailure(key, "KeyError: 'eps'", Environment({}, None, "cpu", 1)))
        assert len(load_results(folder)) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line == f"{folder}: left out: 1 failed cells, 1 unreadable JSON files"

    def test_of_no_folder_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="folder: no folder .*nowhere"):
            load_results(tmp_path / "nowhere")
        assert load_results(tmp_path).empty

    def test_of_everything_committed(self) -> None:
        frame = load_results(RESULTS)
        assert len(frame) == len(STORED)
        assert frame["steps"].isna().any()
        assert frame["robust_risk"].between(frame["robust_risk_low"], frame["robust_risk_high"]).all()


class TestTable:
    @pytest.fixture
    def printed(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
        from robustrecon.cli import main

        def run(*arguments: str) -> str:
            monkeypatch.setattr(sys, "argv", ["robustrecon", "table", str(folder), *arguments])
            with pytest.raises(SystemExit) as stop:
                main()
            assert stop.value.code == 0
            return capsys.readouterr().out

        return run

    def test_markdown(self, printed: Any, folder: Path) -> None:
        found = printed("--format", "markdown")
        assert found == printed("--format", "md")
        assert found.strip() == text.grid(cells.rows(load_results(folder), cells.WITH_PLACE))
        assert "| digits | style-memory-robust-refine | 0.01  | 200 | pgd-40 " in found
        assert "| selective-100 early_exit=True " in found

    def test_a_table_for_a_terminal_fits_it_and_says_what_its_columns_mean(self, printed: Any, folder: Path) -> None:
        found = printed()
        assert max(map(len, found.splitlines())) <= 100
        assert len(re.findall(r"^(?:pgd|selective)-", found, re.M)) == len(load_results(folder))
        for column in ("aware", "AUROC", "undetected", "robust risk", "†"):
            assert re.search(rf"^{column} +\w", found, re.M), column

    def test_json_has_every_figure(self, printed: Any, folder: Path) -> None:
        found = json.loads(printed("--format", "json"))
        assert [row["robust_risk"] for row in found] == pytest.approx(list(load_results(folder)["robust_risk"]))

    def test_csv_has_every_figure_in_full(self, printed: Any, folder: Path) -> None:
        found = pd.read_csv(StringIO(printed("--format", "csv")))
        assert list(found) == list(load_results(folder))
        assert found["robust_risk"].tolist() == load_results(folder)["robust_risk"].tolist()

    def test_latex_is_escaped(self, printed: Any) -> None:
        found = printed("--format", "latex")
        assert found.startswith("\\begin{tabular}{l")
        assert r"label\_margin" in found
        assert r"97.5 \%" in found
        assert "†" not in found
        assert found.count(r"\\") == 3


def both(figure: Curves) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """Names and numbers of points of the lines, as they are computed and as plotly has them."""
    computed = [(line.label, len(line.x)) for panel in figure.panels for line in panel.lines]
    return computed, [(trace.name, len(trace.x)) for trace in interactive.curves(figure).data]


class TestFigures:
    @pytest.fixture
    def results(self) -> list[CellResult]:
        return store.read_folder(DIGITS).results

    def test_the_interactive_curves_are_those_of_the_still(self, results: list[CellResult]) -> None:
        roc, risk = roc_curves(results, log_x=True), risk_curves(worst_case(results))
        for figure in (roc, risk):
            computed, drawn = both(figure)
            assert computed == drawn
            assert computed
        assert len(roc.panels) == len({result.key.title for result in results})
        assert [line.y for line in risk.panels[0].lines] == [
            tuple(entry.robust_risk for entry in worst_case(results)),
        ]

    def test_the_interactive_heat_map_is_that_of_the_still(self, results: list[CellResult]) -> None:
        figure: HeatMap = heat_map(results)
        traces = interactive.heat(figure).data
        assert [panel.title for panel in figure.panels] == ["eps 0.1", "eps 0.2", "eps 0.3"]
        for panel, trace in zip(figure.panels, traces, strict=True):
            assert [list(row) for row in trace.z] == [list(row) for row in panel.values]
        pgd = figure.rows.index("pgd-40")
        cell = store.read(CELL)
        assert isinstance(cell, CellResult)
        assert figure.panels[0].values[pgd] == (cell.metrics.undetected_success,)
