"""The precision of attacks through benchmark, suites, command line and training, on any processor."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustrecon import InputError, checkpoint, load_results, train
from robustrecon.bench import AttackConfig, BenchmarkModel, BenchmarkPlan, CellKey, CellResult, run, store
from robustrecon.bench.report import cells as report
from robustrecon.bench.report.examples import draw_examples
from robustrecon.bench.result import CellFailure, Environment, measured
from robustrecon.bench.suite.read import read_suite
from robustrecon.bench.suite.run import run_suite
from robustrecon.data import Dataset
from robustrecon.training import RECIPES, Recipe

Processor = Callable[[str | None], None]
HAS = "AVX512-BF16"


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch) -> Processor:
    """Sets the instructions that the processor has for bfloat16; without them PyTorch computes the same, slowly."""

    def set_unit(unit: str | None) -> None:
        for module in ("attacks.precision", "robustrecon.provenance", "robustrecon.training.api"):
            monkeypatch.setattr(f"{module}.bfloat16_unit", lambda _: unit)

    set_unit(HAS)
    return set_unit


class ThroughNumpy(nn.Module):
    """A layer that cannot compute in bfloat16, which numpy does not have."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.from_numpy(0 * x.detach().numpy())


class Means(nn.Module):
    """The nearest class mean; `last` is the last layer of the class energies."""

    def __init__(self, data: Dataset, last: nn.Module | None = None) -> None:
        super().__init__()
        means = torch.stack([data.train.x[data.train.y == k].mean(0) for k in range(10)]).flatten(1)
        self.layer, self.last = nn.Linear(784, 10), last or nn.Identity()
        with torch.no_grad():
            self.layer.weight.copy_(2 * means)
            self.layer.bias.copy_(-means.square().sum(1))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layer(x.flatten(1))
        return logits

    def class_energies(self, x: Tensor) -> Tensor:
        energies: Tensor = self.last(-self(x))
        return energies


@pytest.fixture
def target(digits: Dataset) -> BenchmarkModel:
    return BenchmarkModel(Means(digits), "means", digits)


def bench(target: BenchmarkModel, out: Path, precision: str, name: str = "fgsm") -> list[Any]:
    steps = {} if name == "fgsm" else {"steps": 3}
    plan = BenchmarkPlan([name], eps=[0.2], detectors=["label_margin"], n=20, precision=precision, **steps)
    return run(target, plan, out, progress=False)


def test_key_file_and_title_say_bfloat16_and_leave_out_float32() -> None:
    plain = CellKey("d", "m", "w", "label_margin", "pgd", "torchattacks", "linf", 0.3, 40, 0, 10, 0.05)
    half = replace(plain, precision="bfloat16")
    assert (plain.path.name, half.path.name) == ("pgd-linf-0.3-s0.json", "pgd-linf-0.3-s0-bf16.json")
    assert (plain.title, half.title) == ("pgd-40", "pgd-40 bf16")
    assert replace(half, parameters={"restarts": 5}).title == "pgd-40 restarts=5 bf16"
    assert "precision" not in plain.to_json()
    assert half.to_json()["precision"] == "bfloat16"
    for key in (plain, half):
        assert CellKey.from_json(key.to_json()) == key
        assert AttackConfig.again(key).precision == key.precision
    with pytest.raises(ValueError, match="precision: got 'auto', must be float32 or bfloat16"):
        CellKey.from_json({**plain.to_json(), "precision": "auto"})


def test_the_environment_names_the_instructions(processor: Processor) -> None:
    old = {"versions": {}, "commit": None, "device": "cpu", "threads": 1}
    assert Environment.from_json(old).precision == "float32"
    assert Environment.from_json(old).to_json() == old
    new = Environment.of(torch.device("cpu"), "bfloat16")
    assert new.precision == "bfloat16 (AVX512-BF16)"
    assert Environment.from_json(new.to_json()) == new
    assert "search in bfloat16 (AVX512-BF16);" in str(new)


def test_only_the_search_is_in_bfloat16(target: BenchmarkModel, tmp_path: Path, processor: Processor) -> None:
    (exact,), (half,) = (bench(target, tmp_path, precision, "pgd") for precision in ("float32", "bfloat16"))
    assert half.images.clean_score == exact.images.clean_score
    assert half.metrics.threshold == exact.metrics.threshold
    assert (half.key.precision, half.environment.precision) == ("bfloat16", "bfloat16 (AVX512-BF16)")
    assert half.metrics.accuracy == pytest.approx(exact.metrics.accuracy, abs=0.1)
    frame = load_results(tmp_path)
    assert sorted(frame["precision"]) == ["bfloat16", "float32"]
    assert [report.title(row) for row in frame.itertuples()] == ["pgd-3 bf16", "pgd-3"]


def test_auto_takes_a_stored_result_of_either_precision(
    target: BenchmarkModel, tmp_path: Path, processor: Processor
) -> None:
    exact = bench(target, tmp_path, "float32")
    assert bench(target, tmp_path, "auto") == exact
    assert len(list(tmp_path.rglob("*.json"))) == 1, "nothing is run again to be faster"
    half = bench(target, tmp_path, "bfloat16")
    assert half[0].key != exact[0].key
    assert bench(target, tmp_path, "auto") == half
    processor(None)
    assert bench(target, tmp_path, "auto") == exact
    (tmp_path / exact[0].key.path).unlink()
    assert bench(target, tmp_path, "auto") == half
    assert bench(target, tmp_path, "float32")[0].key == exact[0].key


def test_lost_images_are_made_by_a_search_as_exact_as_the_stored_one(
    target: BenchmarkModel, tmp_path: Path, processor: Processor
) -> None:
    (result,) = bench(target, tmp_path, "float32", "selective")
    before = store.read_images(tmp_path, result.key)
    assert before is not None
    (tmp_path / result.key.path).with_suffix(".npz").unlink()
    assert bench(target, tmp_path, "auto", "selective") == [result]
    after = store.read_images(tmp_path, result.key)
    assert after is not None
    assert torch.equal(before[1], after[1])


@pytest.mark.parametrize(
    ("change", "unit", "message"),
    [
        (lambda model: model, None, "the cpu has no instructions for it"),
        (lambda model: model.bfloat16(), HAS, "the model's weights are torch.bfloat16"),
        (lambda model: model.append(ThroughNumpy()), HAS, r"the layer 2 \(ThroughNumpy\) cannot compute in it"),
    ],
    ids=["processor", "weights", "layer"],
)
def test_bfloat16_that_cannot_be_is_refused_before_anything_is_attacked(
    digits: Dataset, tmp_path: Path, processor: Processor, change: Any, unit: str | None, message: str
) -> None:
    processor(unit)
    target = BenchmarkModel(change(nn.Sequential(nn.Flatten(), nn.Linear(784, 10))), "linear", digits)
    plan = BenchmarkPlan(["fgsm"], eps=[0.1], detectors=["msp"], n=5, precision="bfloat16")
    with pytest.raises(InputError, match=f"^precision: got 'bfloat16', but {message}"):
        run(target, plan, tmp_path, progress=False)
    assert not list(tmp_path.rglob("*.json"))


def test_auto_is_float32_where_a_layer_of_what_is_attacked_cannot(
    digits: Dataset, tmp_path: Path, processor: Processor
) -> None:
    target = BenchmarkModel(Means(digits, ThroughNumpy()), "means", digits)
    (blind,), (aware,) = bench(target, tmp_path, "auto"), bench(target, tmp_path, "auto", "selective")
    assert (blind.key.precision, aware.key.precision) == ("bfloat16", "float32")
    assert isinstance(aware, CellResult)


class Failing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise ValueError("no such images")


def test_a_model_that_fails_in_every_precision_is_a_failed_cell(
    digits: Dataset, tmp_path: Path, processor: Processor
) -> None:
    target = BenchmarkModel(Failing(), "failing", digits)
    (cell,) = run(target, BenchmarkPlan(["fgsm"], eps=[0.1], detectors=["msp"], n=5), tmp_path, progress=False)
    assert isinstance(cell, CellFailure)
    assert cell.error == "ValueError: no such images"


PGD = '[[attack]]\nname = "pgd"\neps = 0.1\n'


def written(folder: Path, text: str) -> Path:
    (folder / "suite.toml").write_text(text)
    return folder / "suite.toml"


def test_a_suites_precision_is_overridden_by_an_attacks_and_both_by_what_is_given(tmp_path: Path) -> None:
    file = written(tmp_path, f'precision = "bfloat16"\n{PGD}[[attack]]\nname = "fgsm"\neps = 0.1\nprecision = "auto"\n')

    def precisions(given: str | None = None) -> list[str]:
        return [each.precision for each in read_suite(file, given).models[0].attacks]

    assert precisions() == ["bfloat16", "auto"]
    assert precisions("float32") == ["float32", "float32"]
    assert read_suite(file, "float32").precision == "float32"
    assert [each.precision for each in read_suite(written(tmp_path, PGD)).models[0].attacks] == ["auto"]
    both = PGD + 'precision = "float32"\n' + PGD + 'precision = "bfloat16"\n'
    assert len(read_suite(written(tmp_path, both)).models[0].attacks) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('precision = "bfloat61"\n' + PGD, "suite.toml: precision: unknown name 'bfloat61'; did you mean 'bfloat16'"),
        (PGD + 'precision = "half"\n', "suite.toml: attack 1: precision: unknown name 'half'"),
        (PGD + "precision = 16\n", "suite.toml: attack 1: precision: got 16, must be a text"),
        (PGD + 'parameters = { precision = "float32" }\n', "got precision, which is said beside them"),
        (PGD + 'precision = "float32"\n' + PGD, "attack: got pgd linf 0.1 twice"),
    ],
)
def test_a_wrong_precision_in_a_suite_says_where(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_suite(written(tmp_path, text))


def test_a_suite_that_cannot_run_in_bfloat16_runs_nothing(
    model_dir: Path, tmp_path: Path, processor: Processor
) -> None:
    model = f'[[model]]\nname = "{model_dir}"\ndetectors = "label_margin"\nn = 20\n'
    file = written(tmp_path, model + PGD.replace("0.1", "0.3") + "parameters = { steps = 3 }\n")
    processor(None)
    with pytest.raises(InputError, match="precision: got 'bfloat16', but the cpu has no instructions"):
        run_suite(read_suite(file, "bfloat16"), tmp_path / "out", progress=False)
    assert not list((tmp_path / "out").rglob("*.json"))
    processor(HAS)
    first = run_suite(read_suite(file), tmp_path / "out", progress=False)
    assert [cell.key.precision for cell in measured(first.cells)] == ["bfloat16"]
    processor(None)
    again = run_suite(read_suite(file), tmp_path / "out", progress=False)
    assert again.cells == first.cells
    picture = tmp_path / "examples.png"
    assert draw_examples(again.benches[0].target, measured(again.cells), picture) is not None, "drawn in float32"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--precision", "bfloat61"], "precision: unknown name 'bfloat61'; did you mean 'bfloat16'?"),
        (["--precision", "bfloat16"], "precision: got 'bfloat16', but the cpu has no instructions for it"),
        (["--suite", "SUITE", "--precision", "half"], "precision: unknown name 'half'"),
    ],
    ids=["unknown", "processor", "suite"],
)
def test_the_command_refuses_in_one_line(
    arguments: list[str],
    message: str,
    model_dir: Path,
    tmp_path: Path,
    processor: Processor,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from robustrecon.cli import main

    processor(None)
    suite = written(tmp_path, PGD)
    if "SUITE" not in arguments:
        arguments = ["--model", str(model_dir), *arguments]
    given = [str(suite) if word == "SUITE" else word for word in arguments]
    monkeypatch.setattr(sys, "argv", ["robustrecon", "bench", *given, "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"robustrecon: error: {message}")
    assert not list((tmp_path / "out").rglob("*.json"))


TINY = Recipe("tiny", epochs=2, batch_size=32, learning_rate=1e-3, schedule="constant")
ROBUST = replace(TINY, objective_options={"eps": 0.1, "ramp": 0.0, "attack_steps": 1})


@pytest.fixture
def few(digits: Dataset) -> Dataset:
    return replace(digits, train=digits.train.head(32), test=digits.test.head(10))


def trained_in(folder: Path) -> str:
    return str(json.loads((folder / "model.json").read_text())["precision"])


@pytest.mark.parametrize(
    ("recipe", "unit", "precision"),
    [(ROBUST, HAS, "bf16-mixed"), (ROBUST, None, "32-true"), (TINY, HAS, "32-true")],
    ids=["adversarial", "no-instructions", "plain"],
)
def test_training_against_an_adversary_is_in_bfloat16_where_the_processor_can(
    few: Dataset, tmp_path: Path, processor: Processor, recipe: Recipe, unit: str | None, precision: str
) -> None:
    processor(unit)
    train(few, tmp_path, replace(recipe, epochs=1), progress=False)
    assert trained_in(tmp_path) == precision


def test_which_recipes_are_adversarial() -> None:
    from robustrecon.training.objectives import options_of

    adversarial = [
        name for name, recipe in RECIPES.items() if options_of(recipe.objective, recipe.objective_options).adversarial
    ]
    assert adversarial == ["robust", "robust-refine", "robust-front", "ccat"]


@pytest.mark.parametrize("begun", ["32-true", "bf16-mixed"])
def test_a_run_goes_on_in_the_precision_that_it_began_with(
    few: Dataset, tmp_path: Path, processor: Processor, begun: str
) -> None:
    """Whatever this processor would begin a run with."""
    processor(HAS if begun == "32-true" else None)
    train(few, tmp_path, replace(ROBUST, epochs=1), precision=begun, progress=False)
    train(few, tmp_path, ROBUST, resume=True, progress=False)
    assert checkpoint.load(tmp_path).card["epoch"] == 2
    assert trained_in(tmp_path) == begun
