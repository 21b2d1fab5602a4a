"""A detector of the user's own, by `module:factory`: what it may be, that it is measured anew, and wrong ones."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from robustrecon import InputError, benchmark
from robustrecon.bench.chain.result import ChainKey, ChainResult, find, write
from robustrecon.bench.plan import BenchmarkPlan
from robustrecon.bench.result import Environment, measured
from robustrecon.bench.suite.read import read_suite
from robustrecon.bench.suite.run import run_suite
from robustrecon.data import Dataset
from robustrecon.detectors import AnyOf, Detector, current_name, load_detector

N = 12
SOURCE = """
import torch
from robustrecon.detectors import Detector, any_of

def unsure(evidence):
    return -evidence.logits.amax(1)

def still(evidence):
    return -evidence.logits.detach().amax(1)

def half(evidence):
    score = -evidence.logits.amax(1)
    return torch.where(score < score.median(), score, torch.nan)

def pair(first, second):
    return first

class Unsure(Detector):
    def score(self, evidence):
        return unsure(evidence)

class Scaled(Unsure):
    name = "scaled"

    def __init__(self, scale):
        super().__init__()

def make():
    return Unsure()

instance = Unsure()
several = any_of("msp", unsure)
text = "unsure"
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file of detectors that can be imported."""
    path = tmp_path / "own_detectors.py"
    path.write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield path
    sys.modules.pop(path.stem, None)


def plain() -> nn.Module:
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10, bias=False))
    with torch.no_grad():
        net[1].weight.copy_(torch.randn(10, 784, generator=torch.Generator().manual_seed(0)))
    return net


def measure(digits: Dataset, detector: str, attacks: str = "pgd", out: Path | None = None) -> list[float]:
    """The scores of the clean images of the one cell."""
    x = digits.test.x[:N]
    with torch.no_grad():
        y = plain()(x).argmax(1)
    data = (x, y, digits.calibration.x[:60])
    (cell,) = benchmark(plain(), data, attacks, 0.05, detector, N, out, steps=2, progress=False).cells
    (result,) = measured([cell]) or pytest.fail(getattr(cell, "error", ""))
    assert result.key.detector == detector
    return list(result.images.clean_score)


@pytest.mark.parametrize("name", ["unsure", "Unsure", "make", "instance"])
def test_a_function_a_class_an_instance_and_what_makes_one(module: Path, digits: Dataset, name: str) -> None:
    with torch.no_grad():
        expected = -plain()(digits.test.x[:N]).amax(1)
    assert measure(digits, f"own_detectors:{name}", "selective") == pytest.approx(expected.tolist(), rel=1e-5)
    assert isinstance(load_detector(f"own_detectors:{name}"), Detector)


def test_several_in_one_and_a_name_where_the_class_has_none(module: Path) -> None:
    assert isinstance(load_detector("own_detectors:several"), AnyOf)
    assert load_detector("own_detectors:instance").name == "own_detectors:instance"
    assert current_name("own_detectors:marginal") == "own_detectors:marginal"


def test_it_is_measured_anew(module: Path, digits: Dataset, tmp_path: Path) -> None:
    before = measure(digits, "own_detectors:unsure", out=tmp_path / "out")
    del sys.modules[module.stem]
    module.write_text(SOURCE.replace("-evidence.logits.amax(1)", "-2 * evidence.logits.amax(1) + 0"))
    assert measure(digits, "own_detectors:unsure", out=tmp_path / "out") == pytest.approx([2 * s for s in before])


def test_in_a_suite_it_is_measured_anew_too(module: Path, model_dir: Path, tmp_path: Path) -> None:
    suite = tmp_path / "own.toml"
    suite.write_text(
        f'data = "digits"\nn = {N}\n[[model]]\nname = "{model_dir}"\ndetectors = ["own_detectors:unsure", "msp"]\n'
        '[[attack]]\nname = "fgsm"\neps = 0.1\n'
    )

    def seconds() -> dict[str, float]:
        ran = run_suite(read_suite(suite), tmp_path / "out", progress=False)
        return {cell.key.detector: cell.seconds for cell in measured(ran.cells)}

    first, second = seconds(), seconds()
    assert first["msp"] == second["msp"]
    assert first["own_detectors:unsure"] != second["own_detectors:unsure"]


def test_a_stored_worst_case_is_of_no_use_for_it(tmp_path: Path) -> None:
    (config,) = BenchmarkPlan(["fgsm"], eps=[0.1]).attacks
    environment = Environment.of(torch.device("cpu"), "float32")
    for detector, found in (("msp", True), ("own_detectors:unsure", False)):
        key = ChainKey((config.key(detector=detector, data="digits", model="m", weights="w"),))
        write(tmp_path, ChainResult(key, (), (None,), environment))
        assert (find(tmp_path, key) is not None) is found


@pytest.mark.parametrize(
    ("name", "attack", "message"),
    [
        ("still", "selective", "no gradient .* which selective follows; attack it with square-rejecting or hop-skip-"),
        ("half", "pgd", r"detector: half gave scores that are not finite on \d+ of 60 images, must be finite"),
    ],
)
def test_scores_that_no_attack_can_follow_are_one_line(
    module: Path, digits: Dataset, name: str, attack: str, message: str
) -> None:
    with pytest.raises(pytest.fail.Exception, match=message):
        measure(digits, f"own_detectors:{name}", attack)


def test_what_needs_no_gradient_attacks_a_score_without_one(module: Path, digits: Dataset) -> None:
    assert len(measure(digits, "own_detectors:still", "square-rejecting")) == N


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own_detectors:pair", "detector: got pair, must be a function of one Evidence"),
        ("own_detectors:Scaled", "own_detectors:Scaled cannot be made .*must need no arguments"),
        ("own_detectors:text", "own_detectors:text is a str, must be a Detector"),
        ("own_detectors:nothing", "detector: 'own_detectors:nothing' cannot be imported .*must be module:factory"),
        ("no_such_module:score", "detector: 'no_such_module:score' cannot be imported"),
        ("own_detectors:", "detector: got 'own_detectors:', must be module:factory"),
        ("own/detectors.py:unsure", r"detector: got 'own/detectors\.py:unsure', must be module:factory"),
        ("any_of(msp,own_detectors:unsure)", "detector: got own_detectors:unsure in any_of"),
    ],
)
def test_wrong_ones_are_one_line(module: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        BenchmarkPlan(["pgd"], detectors=[name])


def test_the_command_line_finds_it_in_the_current_folder(module: Path) -> None:
    """And says what is wrong without torch, where the module does not import it."""
    module.with_name("light.py").write_text("score = 'no detector'\n")
    code = """
import sys
sys.argv = ["robustrecon", "bench", "--detector", sys.argv[1], "--n", sys.argv[2]]
from robustrecon.cli import main
try:
    main()
finally:
    print("torch" in sys.modules)
"""
    root = str(Path(__file__).resolve().parents[1])
    for name, n, said, heavy in (
        ("nowhere:score", "1", "cannot be imported (No module named 'nowhere')", "False"),
        ("light:score", "0", "n: got 0, must be at least 1", "False"),
        ("light:score", "1", "light:score is a str, must be a Detector", "True"),
    ):
        command = [sys.executable, "-c", code, name, n]
        environment = os.environ | {"PYTHONPATH": root}
        done = subprocess.run(command, cwd=module.parent, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout.strip()) == (2, heavy), done.stderr
        assert said in done.stderr
