"""The adversary is found whatever else is called `attacks`, and both of its names are of the same modules."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import nn

import attacks
import robustrecon
from robustrecon.runtime import evaluating, frozen

ROOT = Path(__file__).resolve().parents[1]


def python(code: str, cwd: Path) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A folder with a package `attacks` of its own, as most robustness repositories have."""
    (tmp_path / "attacks").mkdir()
    (tmp_path / "attacks" / "__init__.py").write_text("class CarliniWagner: ...\n")
    (tmp_path / "attacks" / "base.py").write_text("raise ImportError('the base of another package')\n")
    return tmp_path


def test_both_names_are_of_the_same_modules() -> None:
    assert robustrecon.attacks is attacks
    goals = importlib.import_module("attacks.goals")
    assert importlib.import_module("robustrecon.attacks.goals") is goals
    assert goals.__spec__ is not None
    assert goals.__spec__.name == "attacks.goals"
    assert robustrecon.InputError is attacks.InputError


def test_another_package_of_the_short_name_is_left_alone(repository: Path) -> None:
    code = """
import robustrecon, attacks
from robustrecon.attacks import InputError, load
import robustrecon.attacks.base
assert attacks.CarliniWagner
assert InputError is robustrecon.InputError
print(type(load("pgd", "own", eps=0.1)).__module__)
"""
    assert python(code, repository) == "robustrecon.attacks.pgd\n"


@pytest.mark.parametrize("arguments", [["attacks"], ["bench", "--model", "robust/digits", "--eps", "0.1", "--n", "4"]])
def test_the_command_line_beside_another_package_of_the_short_name(repository: Path, arguments: list[str]) -> None:
    (repository / "mine.py").write_text("from robustrecon.attacks.pgd import FGSM\n\nclass Mine(FGSM):\n    pass\n")
    if arguments[0] == "bench":
        arguments = [*arguments, "--attack", "mine:Mine", "--attack", "fgsm"]
    code = f"import sys; sys.argv = ['robustrecon', *{arguments}]; from robustrecon.cli import main; main()"
    printed = python(code, repository)
    assert ("mine:Mine" if arguments[0] == "bench" else "Goodfellow") in printed


def test_flags_are_as_they_were_after_many_threads() -> None:
    """The last to leave restores them; nobody sees training mode inside."""
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout()).train()
    model[2].eval()
    model[0].weight.requires_grad_(False)
    wrong: list[str] = []
    ready = threading.Barrier(8)

    def use() -> None:
        ready.wait()
        for _ in range(200):
            with evaluating(model), frozen(model):
                model(torch.rand(3, 2))
                if any(part.training for part in model.modules()) or any(w.requires_grad for w in model.parameters()):
                    wrong.append("a flag is on inside")

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert [part.training for part in model.modules()] == [True, True, True, False]
    assert [weight.requires_grad for weight in model.parameters()] == [False, True, True, True]
    assert model[1].num_batches_tracked == 0
