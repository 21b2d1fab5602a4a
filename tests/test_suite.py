"""Suites: reading and refusing, the same figures from several processes, the worst case by hand, and the reports."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import sys
import threading
import time
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from joblib.externals.loky.process_executor import TerminatedWorkerError

from robustrecon import InputError
from robustrecon.bench import parallel, store
from robustrecon.bench.images import Images
from robustrecon.bench.keeping import InFolder
from robustrecon.bench.key import CellKey
from robustrecon.bench.metrics import measure
from robustrecon.bench.report import suite as suite_report
from robustrecon.bench.report import worst_tables
from robustrecon.bench.result import CellResult, Environment, FiredCheck, failed
from robustrecon.bench.suite.read import read_suite
from robustrecon.bench.suite.run import SuiteRun, run_suite
from robustrecon.bench.worst_case import worst_case

ROOT = Path(__file__).resolve().parents[1]

ATTACKS = """
[[attack]]
name = "pgd"
eps = [0.1, 0.2]
parameters = { steps = 3 }
[[attack]]
name = "selective"
eps = 0.2
n = 10
parameters = { steps = 3 }
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "suite.toml"
    path.write_text(text)
    return path


def suite_of(model_dir: Path, folder: Path) -> Path:
    top = 'data = "digits"\nn = 20\nprecision = "float32"\n'
    return written(folder, f'{top}[[model]]\nname = "{model_dir}"\n{ATTACKS}')


@pytest.fixture
def suite_file(model_dir: Path, tmp_path: Path) -> Path:
    return suite_of(model_dir, tmp_path)


@pytest.fixture(scope="module")
def ran(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[SuiteRun, Path]:
    """A suite that was run once in this process, and where its results are."""
    folder = tmp_path_factory.mktemp("suite")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as each of two workers has: figures may differ in the last digits otherwise
    run = run_suite(read_suite(suite_of(model_dir, folder)), folder / "out", progress=False)
    torch.set_num_threads(threads)
    return run, folder / "out"


@pytest.fixture
def out(ran: tuple[SuiteRun, Path], tmp_path: Path) -> Path:
    """A copy of those results."""
    return Path(shutil.copytree(ran[1], tmp_path / "out"))


def figures(run: SuiteRun) -> list[tuple[Any, ...]]:
    return [(cell.key, cell.metrics, cell.images) for cell in run.cells if isinstance(cell, CellResult)]


def test_a_suite_gives_an_attack_for_each_eps(tmp_path: Path) -> None:
    suite = read_suite(
        written(tmp_path, f'data = "digits"\nn = 40\nalpha = 0.1\ncorrect_only = true\nseed = 3\n{ATTACKS}')
    )
    assert suite.false_alarms == "0.1 of the images labelled right"
    assert [(model.name, model.n) for model in suite.models] == [(None, 40)]
    assert [(each.name, each.eps, each.n, each.seed) for each in suite.models[0].attacks] == [
        ("pgd", 0.1, 40, 3),
        ("pgd", 0.2, 40, 3),
        ("selective", 0.2, 10, 3),
    ]
    assert suite.models[0].attacks[0].steps == 3


def test_an_attack_may_be_for_some_models(tmp_path: Path) -> None:
    models = '[[model]]\nname = "one"\n[[model]]\nname = "two"\n'
    suite = read_suite(written(tmp_path, models + PGD + 'models = "one"\n' + PGD.replace("0.1", "0.2")))
    assert [[each.eps for each in model.attacks] for model in suite.models] == [[0.1, 0.2], [0.2]]


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.toml")), ids=lambda path: path.name)
def test_every_suite_of_the_benchmarks_is_read_and_described(path: Path) -> None:
    suite = read_suite(path)
    for model in suite.models:
        assert any(each.attack.knows_detector for each in model.attacks)
    head = path.read_text().partition("\n\n")[0] + path.read_text()[:900]
    assert f"robustrecon bench --suite benchmarks/{path.name}" in head
    assert "Expected time" in head
    assert "Expected figures" in head


PGD = '[[attack]]\nname = "pgd"\neps = 0.1\n'
BAD = [
    ("", "attack: got none, must be at least one"),
    ("a = [", "is not TOML"),
    ('dta = "digits"\n' + PGD, "suite.toml: key: unknown name 'dta'; did you mean 'data'?"),
    ('data = "digit"\n' + PGD, "suite.toml: data: unknown name 'digit'; did you mean 'digits'?"),
    ("n = 0\n" + PGD, "n: got 0, must be at least 1"),
    ("n = 1.5\n" + PGD, "n: got 1.5, must be a whole number"),
    ("n = true\n" + PGD, "n: got True, must be a whole number"),
    ('alpha = "x"\n' + PGD, "alpha: got 'x', must be a number"),
    ("correct_only = 1\n" + PGD, "correct_only: got 1, must be true or false"),
    ("alpha = 1\n" + PGD, r"alpha: got 1, must be in \(0, 1\)"),
    ("attack = 3\n", "attack: got 3, must be a list"),
    ("attack = [3]\n", "attack 1: got 3, must be a table"),
    (PGD + "step = 3\n", "attack 1: key: unknown name 'step'"),
    (PGD + "parameters = { stps = 3 }\n", "attack 1: parameter of pgd: unknown name 'stps'; did you mean 'steps'?"),
    (PGD + "parameters = { steps = 0 }\n", "attack 1: steps: got 0"),
    (PGD + "parameters = { eps = 0.2 }\n", "parameters: got eps, which is said beside them"),
    (PGD + 'engine = "foolbox"\n', "attack 1: engine: unknown name 'foolbox'"),
    (PGD + 'norm = "l0"\n', "attack 1: norm: unknown name 'l0'"),
    (PGD + PGD.replace("0.1", "7"), r"attack 2: eps: got 7.0, must be in \[0, 1\]"),
    (PGD + PGD, "attack: got pgd linf 0.1 twice"),
    (PGD.replace("0.1", "[]"), "attack 1: eps: must be at least one"),
    (PGD.replace("0.1", '["a"]'), "attack 1: eps: got 'a', must be a number"),
    (PGD.replace("pgd", "pdg"), "attack 1: attack: unknown name 'pdg'; did you mean 'pgd'?"),
    ("[[attack]]\neps = 0.1\n", "attack 1: name: is missing"),
    (PGD + '[[model]]\ndetectors = ["label_margni"]\n', "model 1: detector: unknown name 'label_margni'; did you mean"),
    (PGD + 'models = ["tow"]\n[[model]]\nname = "two"\n', "attack 1: models: unknown name 'tow'; did you mean 'two'?"),
    (PGD + "models = []\n", "attack 1: models: must be at least one"),
    (PGD + 'models = "one"\n[[model]]\nname = "one"\n[[model]]\nname = "two"\n', "no attack is for two, must be"),
    (PGD + "[[model]]\nname = 3\n", "model 1: name: got 3, must be a text"),
]


@pytest.mark.parametrize(("text", "message"), BAD, ids=[message for _, message in BAD])
def test_a_wrong_suite_says_where(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_suite(written(tmp_path, text))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [("name = ", 'name = "nowhere" # ', "nowhere"), ('"digits"', '"mnist"', "data_dir: mnist is not in")],
    ids=["model", "data"],
)
def test_what_is_missing_shows_before_anything_runs(
    suite_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, message: str
) -> None:
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    suite = read_suite(written(tmp_path, suite_file.read_text().replace(old, new, 1)))
    with pytest.raises(InputError, match=message):
        run_suite(suite, tmp_path / "out", tmp_path / "no-data", progress=False)
    assert not list((tmp_path / "out").rglob("*.json"))


def test_a_missing_suite_is_an_error_with_the_nearest_name(
    suite_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(InputError, match=r"no file .*nowhere.toml$"):
        read_suite(tmp_path / "nowhere.toml")
    with pytest.raises(InputError, match=f"no file .*siute.toml; did you mean {suite_file}\\?"):
        read_suite(tmp_path / "siute.toml")
    with pytest.raises(InputError, match=r"no file smok; did you mean benchmarks/smoke.toml\?"):
        read_suite("smok")


def test_a_cell_without_a_result_counts_as_failed(
    ran: tuple[SuiteRun, Path], suite_file: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = ran[0].cells[0].key.path
    (out / gone).unlink()
    monkeypatch.setattr(store, "write", lambda *_: None)
    run = run_suite(read_suite(suite_file), out, progress=False)
    assert len(run.cells) == 6
    assert [cell.error for cell in failed(run.cells)] == [
        f"FileNotFoundError: {out / gone}: no result is there after the run"
    ]


def test_an_attack_that_broke_nothing_is_not_the_strongest(ran: tuple[SuiteRun, Path]) -> None:
    nothing = [replace(cell, images=harmless(cell.images)) for cell in ran[0].cells if isinstance(cell, CellResult)]
    text = suite_report.tables(replace(ran[0], cells=tuple(nothing)))
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| digits")]
    assert [row[8].strip() for row in rows] == ["–"] * 4


def harmless(images: Images) -> Images:
    """As though the attack had changed nothing."""
    return replace(images, label=images.clean_label, score=images.clean_score)


def test_two_models_of_one_name_are_refused(suite_file: Path, model_dir: Path, tmp_path: Path) -> None:
    text = suite_file.read_text().replace("[[attack]]", f'[[model]]\nname = "{model_dir}/"\n[[attack]]', 1)
    with pytest.raises(InputError, match="are both called digits/style-memory-brief"):
        run_suite(read_suite(written(tmp_path, text)), tmp_path / "out", progress=False)


def test_two_workers_find_what_one_does(
    ran: tuple[SuiteRun, Path], suite_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("joblib.cpu_count", lambda: 2)
    together = run_suite(read_suite(suite_file), tmp_path / "out", workers=2, progress=False)
    assert len(together.cells) == 6
    assert figures(together) == figures(ran[0])


def test_what_is_done_is_not_run_again(
    ran: tuple[SuiteRun, Path], out: Path, suite_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("*.json")}
    assert len(stamps) == 6
    gone = sorted(stamps)[0]
    gone.unlink()
    again = run_suite(read_suite(suite_file), out)
    assert [cell.key for cell in again.cells] == [cell.key for cell in ran[0].cells]
    assert "done before: 5 of 6 cells" in capsys.readouterr().err
    assert {path for path, stamp in stamps.items() if path.stat().st_mtime_ns != stamp} == {gone}


def test_a_failed_cell_does_not_stop_the_others(suite_file: Path, out: Path, tmp_path: Path) -> None:
    text = suite_file.read_text() + '[[attack]]\nname = "test_bench:Hopeless"\neps = 0.2\n'
    run = run_suite(read_suite(written(tmp_path, text)), out, progress=False)
    assert [cell.error for cell in failed(run.cells)] == ["NonFiniteLoss: the loss is not finite"] * 2
    paths = suite_report.write(run, out)
    report = json.loads(paths[0].read_text())
    at = {entry["eps"]: entry for entry in report["worst_case"]}
    assert at[0.1]["failed"] == []
    assert [each["attack"] for each in at[0.2]["failed"]] == ["test_bench:Hopeless"]
    assert "1 FAILED" in paths[1].read_text()
    assert "the loss is not finite" in paths[2].read_text()


def cell(attack: str, label: list[int], score: list[float], eps: float = 0.1, y: int = 0, **changes: Any) -> CellResult:
    """Six images, the true labels all `y`: right, right, right, right, wrong when clean, rejected when clean."""
    n = len(label)
    images = Images([y] * n, [0, 0, 0, 0, 9, 0][:n], [0.0, 0, 0, 0, 0, 5][:n], label, score)
    key = CellKey("d", "m", "w", "s", attack, None, "linf", eps, None, 0, n, 0.05)
    environment = Environment({}, None, "cpu", 1)
    result = CellResult(key, measure(images, 1.0), False, (), environment, 1.0, float(n), images)
    return replace(result, **changes)


def test_the_worst_case_by_hand() -> None:
    check = FiredCheck("loss-not-risen", "on 9%")
    cells = [
        cell("a", [1, 1, 0, 0, 9, 0], [0.0, 5.0, 0, 0, 0, 5], checks=(check,)),  # image 0; image 1 is caught
        cell("b", [1, 0, 1, 0, 9, 0], [0.0, 0.0, 0, 0, 0, 5]),  # images 0 and 2
        cell("c", [0, 1], [0.0, 0.5]),  # image 1, of the first two
        cell("a", [0, 0, 0, 1, 9, 0], [0.0] * 6, eps=0.05),  # image 3, with less
    ]
    small, large = worst_case(cells)
    assert (small.eps, large.eps) == (0.05, 0.1)
    assert small.robust_risk == 3 / 6
    assert large.n == 6
    assert large.clean_accuracy == 5 / 6
    assert large.clean_rejection_rate == 1 / 6
    assert large.robust_risk == 1.0  # image 3 with the smaller budget
    (alone,) = worst_case(cells[:3])
    assert alone.robust_risk == 5 / 6  # all but image 3
    assert alone.images_least == 2
    assert alone.robust_risk_least == 1.0  # images 0 and 1
    assert alone.robust_risk_least_interval == pytest.approx([0.1581, 1.0], abs=1e-4)
    (kept,) = worst_case([cells[0], cell("c", [0, 0], [0.0, 0.0])])
    assert kept.robust_risk_least == 0.5  # image 0
    low, high = alone.robust_risk_interval
    assert low == pytest.approx(0.3588, abs=1e-4)  # Clopper-Pearson of 5 in 6
    assert high == pytest.approx(0.9958, abs=1e-4)
    counts = {each.attack: (each.images, each.broken, each.only) for each in large.attacks}
    assert counts == {"a": (6, 1, 0), "b": (6, 2, 1), "c": (2, 1, 1)}
    assert [(note.attack, note.check) for note in large.checks] == [("a", check)]


def test_a_risk_is_doubted_where_no_attack_that_knows_the_detector_is_beyond_doubt() -> None:
    fired = (FiredCheck("loss-not-risen", "on 9%"),)
    blind, doubtful = cell("a", [0] * 6, [0.0] * 6), cell("b", [0] * 6, [0.0] * 6, knows_detector=True, checks=fired)
    sound = cell("c", [0] * 6, [0.0] * 6, knows_detector=True)
    shown = [
        worst_tables.risk(worst_case(cells)[0])
        for cells in (
            [blind],
            [blind, doubtful],
            [doubtful, sound],
            [sound, cell("a", [0] * 6, [0.0] * 6, checks=fired)],
        )
    ]
    assert [text.endswith(" †") for text in shown] == [True, True, False, False]
    assert shown[0].startswith("33.3 % [")


def test_results_of_other_images_do_not_mix() -> None:
    with pytest.raises(InputError, match="a and b are of other images"):
        worst_case([cell("b", [0] * 6, [0.0] * 6), cell("a", [0, 0], [0, 0.0], y=1)])


@pytest.fixture(scope="module")
def reported(ran: tuple[SuiteRun, Path]) -> Path:
    run, out = ran
    paths = suite_report.write(run, out, needs_data_dir=True)
    assert all(path.parent == out for path in paths)
    return out


def test_the_report_has_every_table_and_picture(reported: Path) -> None:
    found = json.loads((reported / "report.json").read_text())
    assert [(entry["detector"], entry["eps"]) for entry in found["worst_case"]] == [
        ("label_margin", 0.1),
        ("label_margin", 0.2),
        ("global_error", 0.1),
        ("global_error", 0.2),
    ]
    assert len(found["cells"]) == 6
    assert all((reported / path).exists() for path in found["cells"])
    text = (reported / "report.md").read_text()
    assert "## Worst case, linf 0.2" in text
    assert "selective-3 on 10 of 20 images" in text
    assert text.count("## Every cell: digits, style-memory-brief") == 1
    assert re.search(r"^\| n +\| attack ", text, flags=re.M)
    assert len(re.findall(r"^\| 10 +\| selective-3 ", text, flags=re.M)) == 2
    assert len(re.findall(r"\], N = 10 +\|", text)) == 2  # label_margin and global_error at eps 0.2
    assert f'robustrecon bench --suite {reported.parent / "suite.toml"} --out {reported} --data-dir "$DATA_DIR"' in text
    shown = re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert {"risk.png", "heat-digits-style-memory-brief-linf.png", "roc-digits-style-memory-brief-linf.png"} < {*shown}
    assert "undetected-digits-style-memory-brief-label_margin-linf-0.2.png" in shown
    for name in shown:
        assert (reported / name).read_bytes().startswith(b"\x89PNG")


def test_a_truncated_file_of_images_is_left_out_of_the_report(ran: tuple[SuiteRun, Path], out: Path) -> None:
    for path in out.rglob("*.npz"):
        path.write_bytes(path.read_bytes()[:200])
    benches = tuple(copy(bench) for bench in ran[0].benches)
    for bench in benches:
        bench.kept = InFolder(out)
    written = suite_report.write(replace(ran[0], benches=benches), out)
    assert not [path for path in written if path.name.startswith("undetected-")]


def test_lost_images_come_back_when_the_suite_is_run_again(suite_file: Path, out: Path) -> None:
    lost = sorted(out.rglob("*.npz"))
    before = [path.read_bytes() for path in lost]
    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("*.json")}
    lost[0].unlink()
    lost[-1].write_bytes(before[-1][:100])
    run_suite(read_suite(suite_file), out, progress=False)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.json")} == stamps
    assert sorted(out.rglob("*.npz")) == lost
    assert len(np.load(lost[0])["index"]) > 0
    assert len(np.load(lost[-1])["index"]) > 0


@pytest.mark.slow
def test_a_suite_with_a_budget_of_nothing(suite_file: Path, tmp_path: Path) -> None:
    suite_file.write_text(suite_file.read_text().replace("eps = [0.1, 0.2]", "eps = [0.0, 0.2]"))
    run = run_suite(read_suite(suite_file), tmp_path / "out", progress=False)
    assert not failed(run.cells)
    first = worst_case(run.cells)[0]
    assert first.eps == 0
    assert first.robust_risk == pytest.approx(max(1 - first.clean_accuracy, first.clean_rejection_rate))
    assert "## Worst case, linf 0\n" in suite_report.write(run, tmp_path / "out")[1].read_text()


def test_a_suite_may_name_parameters_as_they_were_named_before(tmp_path: Path) -> None:
    text = '[[attack]]\nname = "multi-target"\neps = 0.1\nparameters = { deepen = 4 }\n'
    (config,) = read_suite(written(tmp_path, text)).models[0].attacks
    assert config.key().parameters == {"extra_restarts": 4}


def test_the_page_opens_without_a_network(reported: Path) -> None:
    text = (reported / "report.html").read_text()
    assert text.count('<img alt="undetected-') == len(list(reported.glob("undetected-*.png"))) > 0
    assert f"--out {reported} --data-dir" in text
    assert text.count("Plotly.newPlot(") >= 3
    assert len(text) > 3_000_000, "holds plotly itself"
    assert "default-src 'none'" in text
    assert not re.search(r"<script[^>]+src", text.lower())
    assert not re.search(
        r"<link[\s>]|@import|<iframe|<img[^>]+src=\"http", re.sub(r"<script.*?</script>", "", text, flags=re.S)
    )
    outside = re.sub(r"<script>.*?</script>|data:image/png;base64,[^\"]*", "", text, flags=re.S)
    assert "http" not in outside.replace('http-equiv="Content-Security-Policy"', "")


def test_workers_and_backends_that_do_not_exist_are_refused(
    suite_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = read_suite(suite_file)
    with pytest.raises(InputError, match="workers: got 0"):
        run_suite(suite, tmp_path, workers=0)
    with pytest.raises(InputError, match="backend: unknown name 'dsk'; did you mean 'dask'"):
        run_suite(suite, tmp_path, backend="dsk")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"ray is not installed; pip install 'robustrecon\[ray\]'"):
        run_suite(suite, tmp_path, backend="ray")


@pytest.mark.slow
def test_the_command_runs_a_suite_and_refuses_other_options(
    suite_file: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from robustrecon.cli import main

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["robustrecon", "bench", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        assert isinstance(stop.value.code, int)
        return stop.value.code

    assert run("--suite", str(suite_file), "--out", str(out)) == 0
    assert "Worst case, linf 0.2" in capsys.readouterr().out
    assert run("--suite", str(suite_file), "--eps", "0.1") == 2
    assert "--eps: cannot be given with --suite" in capsys.readouterr().err
    assert run("--workers", "2") == 2
    assert "--workers: needs --suite" in capsys.readouterr().err
    suite_file.write_text(suite_file.read_text() + '[[attack]]\nname = "test_bench:Hopeless"\neps = 0.2\n')
    assert run("--suite", str(suite_file), "--out", str(out), "--json") == 1
    report = json.loads(capsys.readouterr().out)
    assert len(report["worst_case"]) == 4
    assert len(report["failed"]) == 2


@pytest.mark.parametrize("backend", ["loky", "dask"])
def test_a_killed_worker_is_one_error(
    suite_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    killed = {
        "loky": lambda: TerminatedWorkerError("killed"),
        "dask": lambda: pytest.importorskip("distributed").KilledWorker("job", None, 3),
    }[backend]()

    class Parallel:
        def __init__(self, **_: Any) -> None: ...

        def __call__(self, jobs: Any) -> Any:
            raise killed

    monkeypatch.setattr("joblib.Parallel", Parallel)
    monkeypatch.setattr(parallel, "_backend", lambda *_: contextlib.nullcontext({"backend": "loky"}))
    with pytest.raises(InputError, match="workers: one of 2 was killed"):
        run_suite(read_suite(suite_file), tmp_path / "out", workers=2, backend=backend, progress=False)


@pytest.mark.slow
def test_a_killed_dask_worker_loses_nothing(suite_file: Path, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    text = suite_file.read_text().replace("steps = 3", "steps = 30").replace("0.1, 0.2]", "0.05, 0.1, 0.15, 0.2]")
    suite, out = read_suite(written(tmp_path, text)), tmp_path / "out"
    killed: list[int] = []
    done: list[int] = []

    def kill_one_in_the_middle(pids: list[int]) -> None:
        while not list(out.rglob("*.json")):
            time.sleep(0.01)
        os.kill(pids[0], signal.SIGKILL)
        done.append(len(list(out.rglob("*.json"))))
        killed.append(pids[0])

    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        pids = list(client.run(os.getpid).values())
        assassin = threading.Thread(target=kill_one_in_the_middle, args=(pids,), daemon=True)
        assassin.start()
        run = run_suite(suite, out, workers=2, backend="dask", progress=False)
        assassin.join(timeout=5)
    assert killed
    assert 0 < done[0] < 10
    assert len(run.cells) == len(list(out.rglob("*.json"))) == 10
    assert not failed(run.cells)
