"""What CONTRIBUTING adds is a file and a catalogue line each, and then trains, scores, attacks and resumes."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch

from robustrecon import checkpoint

ROOT = Path(__file__).resolve().parents[1]
FILES = (
    "robustrecon/models/prototype.py",
    "robustrecon/training/objectives/prototype.py",
    "robustrecon/detectors/soft_margin.py",
    "attacks/margin.py",
)
EDITS = {
    "robustrecon/models/__init__.py": [
        ("import StyleMemoryNet\n", "import StyleMemoryNet\nfrom .prototype import PrototypeNet\n"),
        ("(StyleMemoryNet,", "(PrototypeNet, StyleMemoryNet,"),
    ],
    "robustrecon/training/objectives/__init__.py": [
        ("from .style_memory", "from .prototype import PrototypeObjective\nfrom .style_memory"),
        ('    "trades": TradesObjective,\n', '    "trades": TradesObjective,\n    "prototype": PrototypeObjective,\n'),
    ],
    "robustrecon/detectors/catalogue.py": [
        ('    "msp"', '    "soft_margin": "soft_margin:SoftMargin",\n    "msp"'),
    ],
    "attacks/catalogue.py": [
        (
            "CATALOGUE: dict[str, Entry] = {\n",
            'CATALOGUE: dict[str, Entry] = {\n    "margin-step": '
            'Entry("a", "b", {"own": f"{__package__}.margin:MarginStep"}),\n',
        )
    ],
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the library with model, objective, detector and attack added, and with the contract tests."""
    folder = tmp_path_factory.mktemp("tree")
    for part in ("attacks", "benchmarks", "robustrecon"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("*.safetensors", "__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "tests").mkdir()
    for name in ("conftest.py", "test_contract.py"):
        shutil.copy(ROOT / "tests" / name, folder / "tests")
    written = re.findall(r"^ *```python\n(.*?)^ *```", (ROOT / "CONTRIBUTING.md").read_text(), re.M | re.S)
    for path, code in zip(FILES, written, strict=True):
        (folder / path).write_text(textwrap.dedent(code))
    for path, changes in EDITS.items():
        text = (folder / path).read_text()
        for old, new in changes:
            assert text.count(old) == 1, (path, old)
            text = text.replace(old, new)
        (folder / path).write_text(text)
    return folder


def started(tree: Path, *arguments: str) -> subprocess.Popen[str]:
    """`python -m ARGUMENTS` with the copy."""
    return subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=tree,
        env=os.environ | {"PYTHONPATH": str(tree)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def done(tree: Path, *arguments: str) -> str:
    run = started(tree, *arguments)
    out, errors = run.communicate()
    assert run.returncode == 0, out[-3000:] + errors[-2000:]
    return out


@pytest.mark.slow
def test_the_contract_and_the_types_hold_for_what_was_added(tree: Path) -> None:
    done(tree, "pytest", "-k", "prototype or soft_margin or margin-step")
    assert "Success" in done(tree, "mypy")


@pytest.mark.slow
def test_a_killed_run_of_a_new_model_resumes_to_the_same_result(tree: Path) -> None:
    train = ("train", "--model", "prototype", "--objective", "prototype", "--epochs", "40", "--seed", "3", "--out")
    process = started(tree, "robustrecon", *train, "broken")
    deadline = time.monotonic() + 120
    while not (tree / "broken/model.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)  # somewhere inside an epoch
    process.send_signal(signal.SIGKILL)
    process.wait()
    killed = checkpoint.load(tree / "broken").card
    assert 0 < killed["epoch"] < 40, "the run ended before it could be killed"
    assert "test accuracy" in done(tree, "robustrecon", *train, "broken", "--resume")
    done(tree, "robustrecon", *train, "whole")
    resumed, unbroken = checkpoint.load(tree / "broken"), checkpoint.load(tree / "whole")
    assert torch.equal(resumed.tensors["model.prototypes"], unbroken.tensors["model.prototypes"])
    for key in unbroken.card["history"][0].keys() - {"seconds", "images_per_second"}:
        assert [row[key] for row in resumed.card["history"]] == [row[key] for row in unbroken.card["history"]]
    assert unbroken.card["recipe"]["model"] == "prototype"
    assert unbroken.card["recipe"]["objective_options"] == {"distance_weight": 0.001}
    assert unbroken.card["accuracy"]["test"] > 0.8
    bench = ("bench", "--model", "whole", "--attack", "margin-step", "--detector", "soft_margin", "--eps", "0.1")
    assert "\nmargin-step" in done(tree, "robustrecon", *bench, "--n", "20")


@pytest.mark.slow
def test_a_model_with_energies_alone_is_trained_against_an_adversary(tree: Path) -> None:
    done(tree, "robustrecon", "train", "--model", "prototype", "--recipe", "robust", "--epochs", "2", "--out", "robust")
    card = checkpoint.load(tree / "robust").card
    assert (card["architecture"]["name"], card["recipe"]["objective"]) == ("prototype", "contrastive")


def test_an_objective_that_does_not_fit_is_one_line(tree: Path) -> None:
    process = started(tree, "robustrecon", "train", "--model", "prototype", "--out", "unfit")
    (line,) = process.communicate()[1].splitlines()
    said = "robustrecon: error: objective: got 'style-memory', which requires StyleCodes of its model, but prototype "
    assert line.startswith(f"{said}lacks them; must be one of contrastive, trades, prototype")
    assert process.returncode == 2
    assert not (tree / "unfit" / "model.safetensors").exists()
