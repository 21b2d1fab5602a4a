"""What fitted detectors learned is shared by processes and runs; a plan lets none of them learn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustrecon.bench import BenchmarkModel, BenchmarkPlan
from robustrecon.bench.cost import ALONE
from robustrecon.bench.runner import Bench, prepared
from robustrecon.bench.suite.forced import forced_jobs
from robustrecon.bench.suite.plan import SuitePlan, plan_suite
from robustrecon.bench.suite.read import read_suite
from robustrecon.bench.suite.run import load_benches, run_suite
from robustrecon.data import Dataset
from robustrecon.defence import fitting
from robustrecon.detectors import Evidence, FittedDetector
from robustrecon.models.style_memory import StyleMemoryNet

CELLS = """
[[attack]]
name = "selective"
eps = 0.2
parameters = { steps = 3 }
"""


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "FITTED_ON", 200)


@pytest.fixture(autouse=True)
def bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor on which a precision has to be tried."""
    monkeypatch.setattr("attacks.precision.bfloat16_unit", lambda _: "AVX512-BF16")


@pytest.fixture
def learned_from(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the detectors that learn."""
    names: list[str] = []
    fit: Callable[..., FittedDetector] = FittedDetector.fit

    def noted(detector: FittedDetector, *arguments: Any) -> FittedDetector:
        names.append(detector.name)
        return fit(detector, *arguments)

    monkeypatch.setattr(FittedDetector, "fit", noted)
    return names


def suite_of(model_dir: Path, folder: Path, top: str = "", detectors: str = '"knn", "any_of(knn,msp)"') -> Path:
    path = folder / "suite.toml"
    path.write_text(
        f'data = "digits"\nn = 20\n{top}[[model]]\nname = "{model_dir}"\ndetectors = [{detectors}]\n{CELLS}'
    )
    return path


def test_a_plan_lets_no_detector_learn(model_dir: Path, tmp_path: Path, learned_from: list[str]) -> None:
    suite = suite_of(model_dir, tmp_path, 'forced_rejection = 5\nprecision = "bfloat16"\n', '"knn", "magnet", "msp"')
    planned = plan_suite(read_suite(suite), tmp_path / "out")
    sources = {row.detectors[0]: row.cost.source for row in (*planned.attacks, *planned.curves) if row.cost}
    assert sources == {"knn": ALONE, "magnet": ALONE, "msp": "estimated"}
    assert "without the detector, which has not learned from training images yet" in planned.text()
    assert not learned_from
    assert list(tmp_path.iterdir()) == [suite]


def test_all_runs_and_detectors_share_what_one_learned(
    model_dir: Path, tmp_path: Path, learned_from: list[str]
) -> None:
    suite, out = suite_of(model_dir, tmp_path), tmp_path / "out"
    first = run_suite(read_suite(suite), out, progress=False)
    assert first.complete
    assert learned_from == ["knn"], "once, for two detectors"
    suite.write_text(suite.read_text() + CELLS.replace("0.2", "0.1"))
    (planned,) = {row.cost.source for row in plan_suite(read_suite(suite), out).attacks if row.cost}
    assert planned == "recorded"
    again = run_suite(read_suite(suite), out, progress=False)
    assert len(again.cells) == 4
    assert again.complete
    assert learned_from == ["knn"]
    assert [cell.metrics.threshold for cell in again.cells[:2]] == [cell.metrics.threshold for cell in first.cells]  # type: ignore[union-attr]
    assert len(list(out.rglob("fitted/*"))) == 1


def bench(model: nn.Module, digits: Dataset, out: Path | None, detector: Any = "knn") -> Bench:
    plan = BenchmarkPlan(["selective"], eps=[0.2], steps=3, detectors=[detector], n=20)
    return prepared(BenchmarkModel(model, "m", digits), plan, out, False)


def test_other_weights_and_a_damaged_file_are_learned_anew(
    digits: Dataset, tmp_path: Path, learned_from: list[str]
) -> None:
    model = StyleMemoryNet()
    scores = bench(model, digits, tmp_path).fitted("knn").score(digits.test.x[:9])
    (file,) = tmp_path.rglob("fitted/*")
    whole = file.read_bytes()
    file.write_bytes(whole[:100])
    assert not bench(model, digits, tmp_path).can_score("knn")
    assert torch.equal(bench(model, digits, tmp_path).fitted("knn").score(digits.test.x[:9]), scores)
    assert file.read_bytes() == whole
    with torch.no_grad():
        next(model.parameters()).mul_(2)
    assert not bench(model, digits, tmp_path).can_score("knn")
    assert learned_from == ["knn", "knn"]


class InNumpy(FittedDetector):
    """Cannot compute in bfloat16, which numpy does not have."""

    name = "in-numpy"
    mean: Tensor

    def statistics(self, model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {"mean": x.mean(0)}

    def score(self, evidence: Evidence) -> Tensor:
        features = evidence.model[1](evidence.x.flatten(1))  # type: ignore[operator, index]
        zero: Tensor = torch.from_numpy(0 * features.detach().numpy()).sum(1)
        return (evidence.x - self.mean).square().sum((1, 2, 3)) + zero


def test_a_detector_is_tried_in_bfloat16_once_it_has_learned(
    digits: Dataset, tmp_path: Path, learned_from: list[str]
) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    judged = bench(model, digits, tmp_path, InNumpy())
    config = BenchmarkPlan(["selective"], eps=[0.2], steps=3, detectors=[InNumpy()], n=20).attacks[0]
    assert judged.precision(config, "in-numpy") == "bfloat16", "the model alone can"
    (cell,) = judged.run([config])
    assert hasattr(cell, "metrics")
    assert cell.key.precision == cell.environment.precision == "float32"
    assert not list(tmp_path.rglob("fitted/*")), "one of the user's own may change"
    assert bench(model, digits, None, InNumpy()).fitted("in-numpy").detector.is_fitted  # type: ignore[operator]
    assert learned_from == ["in-numpy"] * 2


def test_forced_rejection_counts_in_a_plan(model_dir: Path, tmp_path: Path) -> None:
    suite = read_suite(suite_of(model_dir, tmp_path, "forced_rejection = 2\n", '"msp", "energy"'))
    out = tmp_path / "out"

    def planned() -> SuitePlan:
        return plan_suite(suite, out)

    before = planned()
    assert [(row.attack, row.eps, row.detectors, row.n) for row in before.curves] == [
        ("force-reject", 0.2, (name,), 2) for name in ("msp", "energy")
    ]
    assert "0 of 2 curves of forced rejection are done" in before.text()
    cells = SuitePlan(before.path, before.attacks)
    curves = [row.cost.seconds for row in before.curves if row.cost and row.cost.seconds]
    assert before.seconds[2] == pytest.approx(cells.seconds[2] + sum(curves))
    run_suite(suite, out, progress=False)
    (stored, _) = out.rglob("forced-rejection-*.json")
    after = planned()
    assert (after.to_json()["curves"], after.to_json()["curves_done"], after.seconds[1]) == (2, 2, 0)
    stored.unlink()
    left = planned()
    assert (left.done, left.to_json()["curves_done"]) == (2, 1)
    assert [row.cost is None for row in left.curves] == [True, False]
    assert left.seconds[1] > 0
    assert "Expected time for what is left" in left.text()


def test_a_curve_takes_its_searches(model_dir: Path, tmp_path: Path) -> None:
    suite = read_suite(suite_of(model_dir, tmp_path, "forced_rejection = 4\n", '"msp"'))
    (loaded,) = load_benches(suite, tmp_path, "data", "cpu", progress=False)
    (job,) = forced_jobs(suite, suite.models[0], loaded)
    steps = job.wrong_label.passes(10)
    assert job.passes == 4 * (steps + 4 * 2 * 100), "9 radii and none are told apart by 4 tries of two ascents"
