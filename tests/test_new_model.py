"""A new model and its objective are a file and a catalogue line each, and `robustrecon train` trains them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from robustrecon import checkpoint

ROOT = Path(__file__).resolve().parents[1]

MODEL = '''
import torch
from torch import Tensor, nn

from robustrecon.models.base import EnergyModel
from robustrecon.types import ImageShape


class PrototypeNet(EnergyModel):
    """One learned prototype a class; the energy is the squared distance to it."""

    name = "prototype"

    def __init__(self, n_classes: int = 10, image_shape: ImageShape = (1, 28, 28)) -> None:
        super().__init__(n_classes, image_shape)
        self.prototypes = nn.Parameter(torch.rand(n_classes, *image_shape))

    def forward(self, x: Tensor) -> Tensor:
        return -self.class_energies(x)

    def class_energies(self, x: Tensor) -> Tensor:
        return (x.unsqueeze(1) - self.prototypes).flatten(2).square().sum(2)
'''

OBJECTIVE = '''
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import cross_entropy

from robustrecon.training.checks import at_least
from robustrecon.training.objectives.base import Objective, ObjectiveOptions


class PrototypeObjective(Objective):
    """Cross-entropy on −energies and the energy of the true label (H.-M. Yang et al., CVPR 2018)."""

    metrics = ("loss", "distance", "accuracy")

    @dataclass(frozen=True)
    class Options(ObjectiveOptions):
        """`distance_weight`: weight of the true label's energy."""

        distance_weight: float = 0.001

        def __post_init__(self) -> None:
            at_least(0, self, "distance_weight")

    options: Options

    def forward(self, x: Tensor, y: Tensor, progress: float) -> dict[str, Tensor]:
        energies = self.model.class_energies(x)
        distance = energies.gather(1, y[:, None]).mean()
        loss = cross_entropy(-energies, y) + self.options.distance_weight * distance
        return {"loss": loss, "distance": distance, "accuracy": (energies.argmin(1) == y).float().mean()}
'''

EDITS = {
    "robustrecon/models/__init__.py": [
        ("import StyleMemoryNet\n", "import StyleMemoryNet\nfrom .prototype import PrototypeNet\n"),
        ("(StyleMemoryNet,)", "(StyleMemoryNet, PrototypeNet)"),
    ],
    "robustrecon/training/objectives/__init__.py": [
        ("from .style_memory", "from .prototype import PrototypeObjective\nfrom .style_memory"),
        ('    "trades": TradesObjective,\n', '    "trades": TradesObjective,\n    "prototype": PrototypeObjective,\n'),
    ],
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the library with the two added."""
    folder = tmp_path_factory.mktemp("tree")
    for part in ("attacks", "robustrecon"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("*.safetensors", "__pycache__"))
    (folder / "robustrecon/models/prototype.py").write_text(MODEL)
    (folder / "robustrecon/training/objectives/prototype.py").write_text(OBJECTIVE)
    for page, changes in EDITS.items():
        text = (folder / page).read_text()
        for old, new in changes:
            assert text.count(old) == 1, (page, old)
            text = text.replace(old, new)
        (folder / page).write_text(text)
    return folder


def started(tree: Path, *arguments: str) -> subprocess.Popen[str]:
    """`robustrecon` of the copy."""
    return subprocess.Popen(
        [sys.executable, "-m", "robustrecon", *arguments],
        cwd=tree,
        env=os.environ | {"PYTHONPATH": str(tree)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def done(tree: Path, *arguments: str) -> str:
    run = started(tree, *arguments)
    out, errors = run.communicate()
    assert run.returncode == 0, errors
    return out


def test_a_killed_run_of_a_new_model_goes_on_to_the_same_result(tree: Path) -> None:
    train = ("train", "--model", "prototype", "--objective", "prototype", "--epochs", "40", "--seed", "3", "--out")
    process = started(tree, *train, "broken")
    deadline = time.monotonic() + 120
    while not (tree / "broken/model.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)  # somewhere inside an epoch
    process.send_signal(signal.SIGKILL)
    process.wait()
    killed = checkpoint.load(tree / "broken").card
    assert 0 < killed["epoch"] < 40, "the run ended before it could be killed"
    assert "test accuracy" in done(tree, *train, "broken", "--resume")
    done(tree, *train, "whole")
    resumed, unbroken = checkpoint.load(tree / "broken"), checkpoint.load(tree / "whole")
    assert torch.equal(resumed.tensors["model.prototypes"], unbroken.tensors["model.prototypes"])
    for key in unbroken.card["history"][0].keys() - {"seconds", "images_per_second"}:
        assert [row[key] for row in resumed.card["history"]] == [row[key] for row in unbroken.card["history"]]
    assert unbroken.card["recipe"]["model"] == "prototype"
    assert unbroken.card["recipe"]["objective_options"] == {"distance_weight": 0.001}
    assert unbroken.card["accuracy"]["test"] > 0.8


def test_a_model_with_energies_alone_is_trained_against_an_adversary(tree: Path) -> None:
    done(tree, "train", "--model", "prototype", "--recipe", "robust", "--epochs", "2", "--out", "robust")
    card = checkpoint.load(tree / "robust").card
    assert (card["architecture"]["name"], card["recipe"]["objective"]) == ("prototype", "contrastive")


def test_an_objective_that_does_not_fit_is_one_line(tree: Path) -> None:
    process = started(tree, "train", "--model", "prototype", "--out", "unfit")
    assert process.communicate()[1].splitlines() == [
        "robustrecon: error: objective: got 'style-memory', which requires StyleCodes of its model, but prototype "
        "lacks them; must be one of contrastive, trades, prototype"
    ]
    assert process.returncode == 2
    assert not (tree / "unfit" / "model.safetensors").exists()
