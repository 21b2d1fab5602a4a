"""The benchmark: figures that can be counted by hand, keys, skipping, and what it draws."""

from __future__ import annotations

import json
import os
import pickle
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta
from torch import Tensor, nn

import attacks
from robustrecon import DefendedClassifier, InputError, load, load_data
from robustrecon.bench import (
    AttackConfig,
    BenchmarkModel,
    BenchmarkPlan,
    CellKey,
    CellResult,
    load_benchmark_model,
    measure,
    run,
    store,
)
from robustrecon.bench.images import Images
from robustrecon.bench.report import cells as report
from robustrecon.bench.report import model as model_report
from robustrecon.bench.report.examples import draw_examples
from robustrecon.bench.result import CellFailure, FiredCheck
from robustrecon.data import Dataset
from robustrecon.files import slug

IMAGES = Images(
    # broken and caught | broken and missed | unbroken | wrong when clean | rejected when clean
    y=[0, 1, 2, 3, 4],
    clean_label=[0, 1, 2, 9, 4],
    clean_score=[0.1, 0.2, 0.3, 0.4, 2.0],
    label=[5, 6, 2, 9, 4],
    score=[3.0, 0.5, 0.3, 0.4, 2.0],
)


def test_figures_counted_by_hand() -> None:
    found = measure(IMAGES, threshold=1.0)
    assert (found.clean_accuracy, found.clean_rejection_rate, found.accepted_accuracy) == (4 / 5, 1 / 5, 3 / 4)
    assert (found.accuracy, found.success_rate) == (2 / 5, 2 / 4)
    assert found.undetected_success == 2 / 5  # image 1 and image 3, which was wrong all along
    assert found.auroc_success == (5 + 4) / 10  # pairs (clean, success) in the right order
    assert found.robust_risk == 3 / 5  # images 1, 3 and 4
    assert found.tpr_at_fpr == {"0.01": 0.5, "0.05": 0.5, "0.10": 0.5}


def test_interval_is_clopper_pearson() -> None:
    interval = measure(IMAGES, 1.0).intervals["robust_risk"]
    assert interval is not None
    assert interval == (pytest.approx(beta.ppf(0.025, 3, 3)), pytest.approx(beta.ppf(0.975, 4, 2)))


def test_rates_without_a_denominator_are_null() -> None:
    nothing_broken = replace(IMAGES, label=IMAGES.clean_label, score=IMAGES.clean_score)
    found = measure(nothing_broken, 1.0)
    assert found.auroc_success is None
    assert set(found.tpr_at_fpr.values()) == {None}
    assert measure(nothing_broken, -1.0).accepted_accuracy is None
    json.dumps(found.to_json(), allow_nan=False)


@pytest.mark.parametrize("columns", [([], [], [], [], []), ([1], [1], [0.0], [1, 2], [0.0])])
def test_columns_of_no_or_different_lengths_are_refused(columns: Any) -> None:
    with pytest.raises(InputError, match="images: must be n > 0"):
        Images(*columns)


@settings(max_examples=50, deadline=None)
@given(n=st.integers(1, 40), seed=st.integers(0, 999), threshold=st.floats(-2, 2))
def test_figures_hang_together(n: int, seed: int, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    y, clean_label = rng.integers(0, 3, (2, n))
    label = np.where(clean_label == y, rng.integers(0, 3, n), clean_label)
    found = measure(Images(y, clean_label, rng.normal(size=n), label, rng.normal(size=n)), threshold)
    assert found.accuracy <= found.clean_accuracy
    assert found.undetected_success <= 1 - found.accuracy + 1e-12
    assert found.robust_risk >= found.undetected_success
    assert found.robust_risk >= 1 - found.clean_accuracy - 1e-12
    stored = found.to_json()
    for name, interval in found.intervals.items():
        part: Any = stored
        for key in name.split("."):
            part = part[key]
        if part is not None:
            assert interval is not None
            assert interval[0] <= part <= interval[1]


@pytest.fixture
def target(model_dir: Path) -> BenchmarkModel:
    return load_benchmark_model(model_dir)


def quick(target: BenchmarkModel, out: Path, **changes: Any) -> list[Any]:
    usual = {"eps": [0.2], "steps": 3, "n": 40, "detectors": ["label_margin", "global_error"], "precision": "float32"}
    settings = usual | changes
    plan = BenchmarkPlan(settings.pop("names", ["fgsm", "pgd"]), **settings)
    return run(target, plan, out, progress=False)


def test_a_cell_has_every_key(target: BenchmarkModel, tmp_path: Path) -> None:
    results = quick(target, tmp_path)
    assert len(results) == 4
    for result in results:
        stored = json.loads((tmp_path / result.key.path).read_text())
        assert stored == result.to_json()
        assert CellResult.from_json(stored) == result
        keys = ["data", "model", "detector", "attack", "engine", "norm", "eps", "steps", "seed", "n", "alpha"]
        assert set(keys) <= set(stored["spec"])
        assert set(stored["clean"]) == {"accuracy", "rejection_rate", "accepted_accuracy"}
        assert set(stored["attack"]) == {"accuracy", "success_rate"}
        assert {"auroc_success", "auroc_all", "tpr_at_fpr", "undetected_success"} <= set(stored["detection"])
        assert set(stored["detection"]["tpr_at_fpr"]) == {"0.01", "0.05", "0.10"}
        assert set(stored["environment"]) == {"versions", "commit", "device", "threads"}
        assert isinstance(stored["checks"], list)
        for key in ("robust_risk", "seconds", "images_per_second"):
            assert isinstance(stored[key], float)
    assert results[0].key.to_json() | {"weights": ""} == {
        "data": "digits",
        "model": "style-memory-brief",
        "weights": "",
        "detector": "label_margin",
        "attack": "fgsm",
        "engine": "torchattacks",
        "norm": "linf",
        "eps": 0.2,
        "steps": None,
        "seed": 0,
        "n": 40,
        "alpha": 0.05,
        "data_fingerprint": target.data.fingerprint,
    }


def test_figures_can_be_computed_again_from_the_file(target: BenchmarkModel, tmp_path: Path) -> None:
    for result in quick(target, tmp_path):
        assert measure(result.images, result.metrics.threshold) == result.metrics


def test_what_is_done_is_not_run_again(target: BenchmarkModel, tmp_path: Path) -> None:
    first = quick(target, tmp_path, names=["pgd"])
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")}
    assert quick(target, tmp_path, names=["pgd"]) == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")} == stamps
    path = tmp_path / first[0].key.path
    path.write_text(path.read_text()[:100])  # half a file, as a crash of the machine may leave
    again = quick(target, tmp_path, names=["pgd"])
    assert [result.images for result in again] == [result.images for result in first]
    other = quick(target, tmp_path, names=["pgd"], n=30)
    assert other[0].key.n == 30


def test_a_model_that_was_trained_again_is_measured_again(target: BenchmarkModel, tmp_path: Path) -> None:
    assert len(target.weights) == 16
    (first,) = quick(target, tmp_path, names=["fgsm"], detectors=["label_margin"])
    with torch.no_grad():
        next(target.model.parameters()).add_(0.01)
    (second,) = quick(target, tmp_path, names=["fgsm"], detectors=["label_margin"])
    assert second.key.weights == target.weights != first.key.weights
    assert second.images.score != first.images.score


def test_weights_of_every_kind_are_hashed(digits: Dataset) -> None:
    def weights(model: nn.Module) -> str:
        return BenchmarkModel(model, "mine", digits).weights

    layer = nn.Linear(2, 2)
    before = weights(layer)
    with torch.no_grad():
        layer.bias += 1
    assert weights(layer) != before
    norm = nn.BatchNorm1d(2, affine=False)
    assert weights(norm) != weights(nn.BatchNorm1d(3, affine=False)), "buffers count"
    assert weights(layer.bfloat16()) == weights(layer)
    assert weights(nn.Flatten()) == weights(nn.Flatten()) != weights(nn.Flatten(2)), "without any: its repr"


def test_a_shipped_models_weights_are_those_of_its_stored_results() -> None:
    assert load_benchmark_model("robust/digits").weights == "ac115cff34991b2a"


@pytest.mark.parametrize("attack", ["fgsm", "selective"])
def test_a_budget_of_nothing_gives_the_clean_figures(target: BenchmarkModel, tmp_path: Path, attack: str) -> None:
    results = quick(target, tmp_path, names=[attack], eps=[0.0, 0.2])
    for nothing in results[:2]:
        assert nothing.images.label == nothing.images.clean_label
        assert nothing.images.score == pytest.approx(nothing.images.clean_score, rel=1e-5)
        assert nothing.metrics.accuracy == nothing.metrics.clean_accuracy
        assert nothing.metrics.success_rate == 0
        assert nothing.checks == ()
    key = results[0].key
    assert draw_examples(target, results[:2], tmp_path / "examples.png") is None
    assert draw_examples(target, results, tmp_path / "examples.png") is not None
    assert model_report.write(tmp_path, key)[0].read_text().count("| linf 0   |") == 2


def test_the_command_with_a_budget_of_nothing(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from robustrecon.cli import main

    for radii in (["--eps", "0"], ["--eps", "0", "--eps", "0.1"]):
        arguments = ["--model", str(model_dir), "--attack", "fgsm", "--n", "20", "--format", "markdown", "--out"]
        arguments.append(str(tmp_path))
        monkeypatch.setattr(sys, "argv", ["robustrecon", "bench", *arguments, *radii])
        with pytest.raises(SystemExit) as stop:
            main()
        assert stop.value.code == 0
        assert capsys.readouterr().out.count("| linf ") == 2 * (len(radii) // 2)


def test_an_attack_is_made_once_for_a_cell(
    target: BenchmarkModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    load = attacks.load
    monkeypatch.setattr(attacks, "load", lambda *given, **options: made.append(given) or load(*given, **options))
    quick(target, tmp_path, names=["pgd"])
    quick(target, tmp_path, names=["pgd"])
    assert len(made) == 2, "once a plan"


def test_an_attack_sent_to_another_process_is_made_there() -> None:
    config = AttackConfig("pgd", 0.1, parameters={"steps": 3})
    assert config.attack is config.attack
    sent = pickle.loads(pickle.dumps(config))
    assert sent == config
    assert "attack" not in vars(sent)
    assert sent.steps == 3


class Distances(nn.Module):
    """Class energies and nothing else: no drawings, no known shape, no name."""

    def __init__(self, data: Dataset) -> None:
        super().__init__()
        self.register_buffer("means", torch.stack([data.train.x[data.train.y == k].mean(0) for k in range(10)]))

    def forward(self, x: Tensor) -> Tensor:
        return -self.class_energies(x)

    def class_energies(self, x: Tensor) -> Tensor:
        return (x[:, None] - self.means).flatten(2).square().sum(2)


def test_a_model_that_cannot_draw_is_measured_without_a_sheet(digits: Dataset, tmp_path: Path) -> None:
    target = BenchmarkModel(Distances(digits), "distances", digits)
    results = quick(target, tmp_path, names=["selective"])
    assert [type(result) for result in results] == [CellResult] * 2
    assert draw_examples(target, results, tmp_path / "examples.png") is None


@pytest.mark.parametrize(
    "damage", ["truncated", *(pytest.param(damage, marks=pytest.mark.slow) for damage in ("deleted", "empty"))]
)
def test_lost_images_come_back_and_figures_stay(target: BenchmarkModel, tmp_path: Path, damage: str) -> None:
    (result,) = quick(target, tmp_path, names=["selective"], steps=20, detectors=["global_error"])
    path = tmp_path / result.key.path
    images, before = path.with_suffix(".npz"), store.read_images(tmp_path, result.key)
    assert before is not None
    if damage == "deleted":
        images.unlink()
    else:
        images.write_bytes(images.read_bytes()[: 200 if damage == "truncated" else 0])
    assert store.read_images(tmp_path, result.key) is None
    stamp = path.stat().st_mtime_ns
    assert quick(target, tmp_path, names=["selective"], steps=20, detectors=["global_error"]) == [result]
    assert path.stat().st_mtime_ns == stamp
    after = store.read_images(tmp_path, result.key)
    assert after is not None
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))


@pytest.mark.slow
def test_an_attack_that_knows_the_detector_gets_each_detector(target: BenchmarkModel, tmp_path: Path) -> None:
    margin, error = quick(target, tmp_path, names=["selective"])
    assert margin.knows_detector
    assert error.knows_detector
    assert margin.images.distance != error.images.distance or margin.images.label != error.images.label
    blind = quick(target, tmp_path, names=["pgd"])
    assert blind[0].images.label == blind[1].images.label
    assert margin.metrics.undetected_success > blind[0].metrics.undetected_success


def test_l2_and_other_engines_are_measured(target: BenchmarkModel, tmp_path: Path) -> None:
    (result, _) = quick(target, tmp_path, names=["pgd"], norm="l2", eps=[1.5], engine="art")
    assert result.key.engine == "art"
    assert max(result.images.distance) <= 1.5 + 1e-5
    assert (tmp_path / "digits" / "style-memory-brief" / "label_margin" / "pgd-art-l2-1.5-s0-steps=3.json").exists()


class Hopeless(attacks.Attack):
    """Fails in a way that an attack may: a loss that is not finite."""

    name = "hopeless"

    def perturb(self, victim: nn.Module, x: Tensor, y: Tensor, goal: attacks.Goal) -> Tensor:
        raise attacks.NonFiniteLoss("the loss is not finite")


def test_a_failed_cell_is_recorded_and_the_others_go_on(target: BenchmarkModel, tmp_path: Path) -> None:
    failure, _, *others = quick(target, tmp_path, names=["test_bench:Hopeless", "fgsm"])
    assert isinstance(failure, CellFailure)
    assert failure.error == "NonFiniteLoss: the loss is not finite"
    assert [result.key.attack for result in others] == ["fgsm", "fgsm"]
    assert store.find(tmp_path, failure.key) is None, "it is tried again"
    stored = store.read_folder(tmp_path)
    assert len(stored.results) == len(stored.failures) == 2
    assert json.loads((tmp_path / failure.key.path).read_text())["status"] == "failed"
    text = model_report.write(tmp_path, failure.key)[0].read_text()
    assert "FAILED" in text
    assert "the loss is not finite" in text


def test_results_on_other_data_are_not_taken_for_these(target: BenchmarkModel, tmp_path: Path) -> None:
    result = quick(target, tmp_path)[0]
    key = result.key
    assert key.data_fingerprint == target.data.fingerprint
    assert store.find(tmp_path, replace(key, data_fingerprint="other")) is None
    stored = result.to_json()
    del stored["spec"]["data_fingerprint"]
    (tmp_path / key.path).write_text(json.dumps(stored))
    assert store.find(tmp_path, key) is not None, "one without a fingerprint stands for any"


class Broken(attacks.Attack):
    """Fails as a slip in an attack of the user's own does."""

    name = "broken"
    runs = 0

    def perturb(self, victim: nn.Module, x: Tensor, y: Tensor, goal: attacks.Goal) -> Tensor:
        Broken.runs += 1
        raise KeyError("eps")


def test_any_error_of_a_blind_attack_is_recorded_once_tried(target: BenchmarkModel, tmp_path: Path) -> None:
    Broken.runs = 0
    results = quick(target, tmp_path, names=["test_bench:Broken"])
    assert [result.error for result in results] == ["KeyError: 'eps'"] * 2
    assert Broken.runs == 1


def test_partial_files_of_killed_runs_are_removed(target: BenchmarkModel, tmp_path: Path) -> None:
    cells = tmp_path / "digits" / "style-memory-brief" / "label_margin"
    cells.mkdir(parents=True)
    old, new, other = cells / ".a.json.x.partial", cells / ".b.json.x.partial", tmp_path / "else" / ".c.partial"
    other.parent.mkdir()
    for path in (old, new, other):
        path.touch()
    for path in (old, other):
        os.utime(path, (0, 0))
    quick(target, tmp_path)
    assert [path.exists() for path in (old, new, other)] == [False, True, True]


def test_images_that_broke_classifier_and_detector_are_kept_exactly(target: BenchmarkModel, tmp_path: Path) -> None:
    (result,) = quick(target, tmp_path, names=["selective"], steps=20, detectors=["global_error"])
    kept = store.read_images(tmp_path, result.key)
    assert kept is not None
    index, x = kept
    assert 0 < len(index) <= 16
    defended = DefendedClassifier(target.model, "global_error").calibrate(target.data.calibration.x, 0.05)
    verdict = defended.inspect(x)
    assert verdict.label.tolist() == [result.images.label[i] for i in index]
    assert (verdict.label != target.data.test.y[index]).all()
    assert not (verdict.score > defended.threshold + 1e-3).any()
    moved = (x - target.data.test.x[index]).flatten(1).abs().amax(1)
    assert moved.tolist() == pytest.approx([result.images.distance[i] for i in index])


def test_parameters_are_part_of_a_cell() -> None:
    plain = CellKey("d", "m", "w", "label_margin", "pgd", "torchattacks", "linf", 0.1, 40, 0, 10, 0.05)
    assert plain.path.name == "pgd-linf-0.1-s0.json"
    assert "parameters" not in plain.to_json()
    other = replace(plain, steps=100, engine="own", parameters={"restarts": 5, "alpha": 0.01})
    assert other.path.name == "pgd-own-linf-0.1-s0-steps=100-alpha=0.01-restarts=5.json"
    assert other.title == "pgd-100 by own alpha=0.01 restarts=5"
    assert CellKey.from_json(other.to_json()) == other


def test_the_report_has_a_table_and_pictures(target: BenchmarkModel, tmp_path: Path) -> None:
    results = quick(target, tmp_path)
    written = model_report.write(tmp_path, results[0].key, log_x=True)
    text = written[0].read_text()
    assert text.count("| fgsm") == 2
    assert "Not every detector here was attacked" in text
    assert written[1].read_bytes().startswith(b"\x89PNG")
    sheet = draw_examples(target, results, tmp_path / "examples.png")
    assert sheet is not None
    assert sheet.stat().st_size > 10_000
    aware = quick(target, tmp_path, names=["selective"])
    assert "attacks that know the detector are the ones to judge it by" in model_report.markdown(aware)


def test_a_fired_check_stands_beside_its_figure(target: BenchmarkModel, tmp_path: Path) -> None:
    (result, *_) = quick(target, tmp_path)
    doubtful = replace(result, checks=(FiredCheck("loss-not-risen", "on 9% the loss did not rise"),))
    assert "loss-not-risen" in report.table([doubtful])
    assert "on 9% the loss did not rise" in model_report.markdown([doubtful])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n": 0}, "n: got 0, must be at least 1"),
        ({"alpha": 2.0}, r"alpha: got 2.0, must be in \(0, 1\)"),
        ({"alpha": 0.001}, "alpha: got 0.001, needs 999 calibration images, digits has 300"),
        ({"detectors": ["label_margni"]}, "detector: unknown name 'label_margni'; did you mean 'label_margin'"),
        ({"names": ["pgdd"]}, "attack: unknown name 'pgdd'; did you mean 'pgd'"),
        ({"engine": "foolbox"}, "engine: unknown name 'foolbox'"),
        ({"eps": [0.1, 7.0]}, "eps: got 7.0"),
        ({"norm": "l0"}, "norm: unknown name 'l0'"),
        ({"detectors": []}, "must be at least one each"),
    ],
    ids=str,
)
def test_bad_arguments_run_nothing(
    target: BenchmarkModel, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        quick(target, tmp_path, **changes)
    assert not list(tmp_path.rglob("*.json"))


def test_a_model_and_data_that_do_not_fit_are_refused(model_dir: Path, tmp_path: Path) -> None:
    from PIL import Image

    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for index in range(6):
            Image.new("RGB", (5, 5), (index, 0, 0)).save(tmp_path / name / f"{index}.png")
    with pytest.raises(InputError, match=r"has 2 classes of \(3, 5, 5\) images, must have 10 of \(1, 28, 28\)"):
        load_benchmark_model(model_dir, f"folder:{tmp_path}")


def test_the_data_is_the_models_own_by_default(target: BenchmarkModel, digits: Dataset) -> None:
    assert target.data.name == "digits"
    assert target.name == "style-memory-brief"


def test_a_slug_is_fit_for_a_file() -> None:
    assert slug("folder:../photos/cats & dogs") == "folder-..-photos-cats-dogs"


def test_results_of_another_kind_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "speed.json").write_text('{"rows": []}')
    (tmp_path / "broken.json").write_text("{")
    stored = store.read_folder(tmp_path)
    assert (stored.results, stored.failures, [path.name for path in stored.unreadable]) == ([], [], ["broken.json"])


def test_an_attack_and_a_benchmark_take_several_detectors_as_one(target: BenchmarkModel, tmp_path: Path) -> None:
    name = "any_of(label_margin,cycle)"
    joint, alone = quick(target, tmp_path, names=["selective"], eps=[0.3], steps=10, detectors=[name, "label_margin"])
    assert joint.metrics.threshold == 0
    assert joint.key.detector == name
    assert joint.metrics.success_rate > 0.5
    assert joint.metrics.undetected_success <= alone.metrics.undetected_success + 0.1
    assert not [check for check in joint.checks if "gradient" in check.name]
    assert any("any_of-label_margin-cycle" in str(path) for path in tmp_path.rglob("*.json"))


def test_a_classifier_that_has_nothing_but_logits_is_benchmarked(digits: Dataset, tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    optimizer = torch.optim.Adam(plain.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(plain(digits.train.x), digits.train.y).backward()
        optimizer.step()
    results = quick(
        BenchmarkModel(plain, "plain", digits),
        tmp_path,
        names=["pgd", "selective", "multi-target", "matching"],
        steps=20,
        detectors=["msp", "energy"],
    )
    assert [type(result) for result in results] == [CellResult] * 8
    for result in results[2:4]:
        assert result.metrics.undetected_success > 0.9, (
            "a linear classifier withstood an attack that knows its detector"
        )


def test_images_that_the_model_was_trained_on_are_noticed_by_content(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained on one folder, benchmarked on a larger one with the same images."""
    from PIL import Image

    from robustrecon import train
    from robustrecon.bench.model import load_benchmark_model
    from robustrecon.training import RECIPES

    monkeypatch.chdir(tmp_path)
    for index, (image, label) in enumerate(zip(digits.train.images[:240], digits.train.y, strict=False)):
        for folder in ("small", "large")[index >= 160 :]:
            path = tmp_path / folder / str(int(label)) / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[0].numpy()).save(path)
    small, large = (f"folder:{tmp_path / name}" for name in ("small", "large"))
    tiny = replace(RECIPES["fast"], name="tiny", epochs=1, batch_size=32, least_steps=0)
    train(load_data(small), tmp_path / "run", tiny, progress=False)
    assert load_benchmark_model(tmp_path / "run", small).data.name.endswith("small")
    with pytest.raises(
        InputError, match=r"data: calibration part of folder:.*large: \d+ of 40 images that can be told"
    ):
        load_benchmark_model(tmp_path / "run", large)
    with pytest.raises(InputError, match="x: 100 of 100 images that can be told are among those that the model was"):
        DefendedClassifier(load(tmp_path / "run")).calibrate(load_data(small).train.x[:100])
