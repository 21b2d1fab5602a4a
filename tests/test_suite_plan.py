"""What cells are expected to cost, the order in which a suite runs them, and `--plan`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from robustrecon import attacks
from robustrecon.bench import cost, store
from robustrecon.bench.cost import UNKNOWN, Cost, Costs, duration, wall_clock
from robustrecon.bench.images import Images
from robustrecon.bench.key import CellKey
from robustrecon.bench.metrics import measure
from robustrecon.bench.plan import AttackConfig
from robustrecon.bench.result import Cell, CellResult, Environment
from robustrecon.bench.runner import Bench
from robustrecon.bench.suite.plan import plan_suite
from robustrecon.bench.suite.read import read_suite
from robustrecon.bench.suite.run import load_benches, run_suite

ATTACKS = """
[[attack]]
name = "selective"
eps = 0.2
parameters = { steps = 30 }
[[attack]]
name = "fgsm"
eps = [0.1, 0.2]
"""


@pytest.fixture(autouse=True)
def no_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Titles and costs that do not depend on the processor."""
    monkeypatch.setattr(attacks.precision, "bfloat16_unit", lambda device: None)


def suite_of(models: Sequence[str | Path], folder: Path) -> Path:
    path = folder / "suite.toml"
    listed = "".join(f'[[model]]\nname = "{name}"\n' for name in models)
    path.write_text(f'data = "digits"\nn = 20\n{listed}{ATTACKS}')
    return path


@pytest.fixture
def suite_file(model_dir: Path, tmp_path: Path) -> Path:
    return suite_of([model_dir], tmp_path)


@pytest.fixture
def bench(suite_file: Path, tmp_path: Path) -> Bench:
    (loaded,) = load_benches(read_suite(suite_file), tmp_path / "out", "data", "cpu", progress=False)
    return loaded


def stored(key: CellKey, seconds: float) -> CellResult:
    """A result as though it had taken so long; no image was broken."""
    nothing = [0] * key.n
    images = Images(nothing, nothing, [0.0] * key.n, nothing, [0.0] * key.n)
    environment = Environment({}, None, "cpu", 1)
    return CellResult(key, measure(images, 1.0), False, (), environment, seconds, key.n / seconds, images)


@pytest.mark.parametrize(
    ("name", "parameters", "passes"),
    [
        ("fgsm", {}, 1),
        ("pgd", {"steps": 40, "restarts": 5}, 200),
        ("eot", {"steps": 10, "samples": 16}, 160),
        ("bpda", {"steps": 10}, 10),
        ("selective", {"steps": 50}, 50),
        ("reconstructive", {"steps": 50, "searches": 4}, 200),
        ("reconstructive", {"steps": 50, "mode": "alternating"}, 50),
        ("matching", {"steps": 50, "guides": 3}, 150),
        ("multi-target", {"steps": 100}, 900),
        ("multi-target", {"steps": 100, "targets": 2, "extra_restarts": 4}, 400),
        ("hybrid", {"steps": 100, "targets": 1, "queries": 1024, "search_fraction": 0.5}, 220),
        ("apgd-ce", {"steps": 100}, 100),
        ("apgd-t", {"steps": 100}, 900),
        ("fab-t-rejecting", {"steps": 10}, 90),
        ("square", {"queries": 1000}, 500),
        ("hop-skip-jump", {"queries": 1000, "restarts": 2}, 2000),
        ("worst-case", {"attacks": ["fgsm", "pgd"]}, 41),
    ],
)
def test_passes_of_an_attack_by_hand(name: str, parameters: dict[str, object], passes: int) -> None:
    assert attacks.load(name, **parameters).passes(10) == passes


def test_fewer_labels_mean_fewer_targets() -> None:
    assert attacks.load("apgd-t", steps=10).passes(4) == attacks.load("multi-target", steps=10).passes(4) == 30
    assert attacks.load("matching", steps=10, guides=3).passes(2) == 10


def test_a_recorded_time_of_the_nearest_cell_counts(bench: Bench) -> None:
    config = AttackConfig("selective", 0.2, n=20, parameters={"steps": 30})
    key = bench.key(config, "label_margin")
    elsewhere = replace(key, model="other", n=10)
    other_eps = replace(key, eps=0.3, n=10)
    recorded = [stored(elsewhere, 7), stored(other_eps, 5), stored(replace(key, eps=0.9), 9), stored(key, 3)]

    def expected(cells: list[CellResult]) -> Cost:
        return Costs(cells).of(bench, config, ["label_margin"])

    assert expected(recorded) == Cost(3, "recorded")
    assert expected(recorded[:3]) == Cost(10, "recorded")  # of the same model, twice the images
    assert expected(recorded[:1]) == Cost(14, "recorded")
    other_attacks = [
        replace(key, attack="orthogonal"),
        replace(key, engine="art"),
        replace(key, steps=31),
        replace(key, parameters={"early_exit": True}),
        replace(key, norm="l2"),
        replace(key, eps=0.0),
    ]
    assert expected([stored(other, 3) for other in other_attacks]).source == "estimated"


TIMES = {(None, "float32"): 0.25, (None, "bfloat16"): 0.125, ("label_margin", "float32"): 0.5}


def test_without_a_record_a_cell_costs_its_passes_and_its_checks(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "_timed", lambda _, detector, precision: TIMES[detector, precision])
    costs, names = Costs([]), ("label_margin", "global_error")
    pgd, selective = AttackConfig("pgd", 0.1, n=20), AttackConfig("selective", 0.1, n=20)
    assert costs.of(bench, pgd, names) == Cost(0.25 * (41 * 20 + 150 * 20), "estimated")
    assert costs.of(bench, selective, names[:1]) == Cost(0.5 * (101 * 20 + 210 * 20), "estimated")
    assert costs.of(bench, AttackConfig("pgd", 0.0, n=20), names).seconds == 0.25 * 20
    monkeypatch.setattr(attacks.precision, "bfloat16_unit", lambda device: "TEST")
    assert costs.of(bench, AttackConfig("pgd", 0.0, n=20, precision="bfloat16"), names).seconds == 0.125 * 20


def test_a_pass_is_timed_and_leaves_no_trace(bench: Bench) -> None:
    model, state = bench.target.model.train(), torch.random.get_rng_state()
    plain, through_the_score = (cost._timed(bench, detector, "float32") for detector in (None, "label_margin"))
    assert plain is not None
    assert through_the_score is not None
    assert 0 < plain < through_the_score < 1
    assert model.training
    assert all(weight.grad is None and weight.requires_grad for weight in model.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_model_that_fails_in_a_pass_has_no_expected_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(x: Tensor) -> Tensor:
        raise RuntimeError("out of order")

    monkeypatch.setattr(bench.target.model, "forward", failing)
    assert Costs([]).of(bench, AttackConfig("pgd", 0.1), ["label_margin"]) == UNKNOWN


def test_the_expected_time_of_several_workers_by_hand() -> None:
    costs = [UNKNOWN, *(Cost(seconds, "recorded") for seconds in (1.0, 2.0, 3.0, 4.0))]
    assert [wall_clock(costs, workers) for workers in (1, 2, 3, 128)] == [10, 6, 5, 4]
    assert wall_clock([], 2) == 0
    assert [duration(seconds) for seconds in (0.44, 59.6, 90, 5400)] == ["0.4 s", "60 s", "1.5 min", "1.5 h"]


def test_cheap_cells_run_first_and_are_listed_as_in_the_file(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[tuple[str, str]] = []

    def cells(bench: Bench, config: AttackConfig, detectors: Sequence[str]) -> list[Cell]:
        ran.append((bench.target.name, config.name))
        return [store.CellFailure.of(bench.key(config, name), RuntimeError(), bench.environment) for name in detectors]

    monkeypatch.setattr(Bench, "cells", cells)
    suite = read_suite(suite_of([model_dir, "robust/digits"], tmp_path))
    run = run_suite(suite, tmp_path / "out")
    assert [name for _, name in ran] == ["fgsm"] * 4 + ["selective"] * 4
    assert len({model for model, _ in ran[:4]}) == 2
    assert [cell.key.attack for cell in run.cells] == ["selective", "selective", *["fgsm"] * 4] * 2
    assert "expected: about " in capsys.readouterr().err


def test_a_plan_says_what_is_done_and_what_is_left(suite_file: Path, bench: Bench, tmp_path: Path) -> None:
    out, suite = tmp_path / "out", read_suite(suite_file)
    selective, weak, strong = suite.models[0].attacks
    for config, detector, seconds in [
        (selective, "global_error", 50),
        (weak, "label_margin", 2),
        (weak, "global_error", 2),
        (strong, "label_margin", 3),
    ]:
        store.write(out, stored(bench.key(config, detector), seconds))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    planned = plan_suite(suite, out, workers=3)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert [(each.attack, each.eps, each.detectors, each.cost) for each in planned.attacks] == [
        ("selective-30", 0.2, ("global_error",), None),
        ("fgsm", 0.1, ("label_margin", "global_error"), None),
        ("fgsm", 0.2, ("label_margin",), None),
        ("fgsm", 0.2, ("global_error",), Cost(3, "recorded")),
        ("selective-30", 0.2, ("label_margin",), Cost(50, "recorded")),
    ]
    assert (planned.cells, planned.done, planned.unknown) == (6, 4, 0)
    assert planned.seconds == {1: 53, 2: 50, 3: 50, 16: 50, 128: 50}


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int | str | None:
    from robustrecon.cli import main

    monkeypatch.setattr(sys, "argv", ["robustrecon", "bench", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    return stop.value.code


def test_the_command_shows_a_plan_and_makes_nothing(
    suite_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    given = ("--suite", suite_file, "--plan", "--out", tmp_path / "nowhere")
    assert command(monkeypatch, *given) == 0
    text = capsys.readouterr().out
    assert text.count("estimated |") == 4
    assert "0 of 6 cells are done" in text
    assert "with 128." in text
    assert command(monkeypatch, *given, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["attack"] for each in found["attacks"]] == ["fgsm", "fgsm", "selective-30", "selective-30"]
    assert {each["source"] for each in found["attacks"]} == {"estimated"}
    assert found["expected_seconds"]["1"] > found["expected_seconds"]["128"] > 0
    assert list(tmp_path.iterdir()) == [suite_file]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--plan"], "--plan: needs --suite"),
        (["--plan", "--suite", "nowhere.toml"], "suite: no file nowhere.toml"),
        (["--plan", "--suite", "suite.toml", "--eps", "0.1"], "--eps: cannot be given with --suite"),
        (["--plan", "--suite", "suite.toml", "--workers", "0"], "workers: got 0, must be at least 1"),
    ],
    ids=lambda value: None if isinstance(value, list) else value,
)
def test_a_plan_that_cannot_be_made_is_one_line(
    arguments: list[str],
    message: str,
    suite_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(suite_file.parent)
    assert command(monkeypatch, *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_plan_trains_no_default_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    suite_file = suite_of([], tmp_path)
    assert command(monkeypatch, "--suite", suite_file, "--plan") == 0
    text = capsys.readouterr().out
    assert text.count("| default, not trained yet |") == 4
    assert "6 cells have no expected time" in text
    assert "Expected time" not in text
    assert list(tmp_path.iterdir()) == [suite_file]


def test_a_plan_knows_a_default_model_that_is_trained(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "digits").symlink_to(model_dir)
    planned = plan_suite(read_suite(suite_of([], tmp_path)))
    assert {each.model for each in planned.attacks} == {"runs/digits"}
    assert planned.unknown == 0
