"""`robustrecon sample`: a sheet of what a model makes from nothing, and errors of one line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Generator, Tensor, nn

from robustrecon import EnergyModel, InputError, checkpoint, models
from robustrecon.cli import main
from robustrecon.figures.samples import BATCH, samples
from robustrecon.figures.sheets import sheet


class Stripes(EnergyModel):
    """A model that makes an image with the row of its label white, and the last row random."""

    name = "stripes"

    def __init__(self, n_classes: int = 4, image_shape: tuple[int, int, int] = (1, 6, 5)) -> None:
        super().__init__(n_classes, image_shape)
        self.offset = nn.Parameter(torch.zeros(()))
        self.batches: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0, : self.n_classes].mean(2)

    def class_energies(self, x: Tensor) -> Tensor:
        return -self(x)

    def sample(self, labels: Tensor, generator: Generator | None = None) -> Tensor:
        assert not self.training
        self.batches.append(len(labels))
        made = torch.zeros(len(labels), *self.image_shape) + self.offset
        made[range(len(labels)), :, labels] = 1.0
        made[:, :, -1] = torch.rand(made[:, :, -1].shape, generator=generator)
        return made


def test_each_label_has_its_images_and_the_seed_decides() -> None:
    model, n = Stripes().train(), BATCH // 2 + 8
    made = samples(model, [2, 0], ["two", "zero"], n, seed=3, progress=False)
    assert made.images.shape == (2, n, 1, 6, 5)
    assert made.images[:, :, 0, :4, 0].argmax(2).tolist() == [[2] * n, [0] * n]
    assert model.batches == [BATCH, 2 * n - BATCH]
    assert model.training
    again, other = (samples(model, [2, 0], ["two", "zero"], n, seed=seed, progress=False) for seed in (3, 4))
    assert np.array_equal(made.images, again.images)
    assert not np.array_equal(made.images, other.images)
    assert len(np.unique(made.images[..., -1, 0])) == 2 * n, "two images had the same random numbers"


@pytest.mark.parametrize(
    ("labels", "n", "grid"),
    [(1, 64, (8, 8)), (1, 7, (3, 3)), (4, 4, (4, 4)), (4, 8, (4, 8)), (4, 40, (12, 14)), (3, 1, (3, 1))],
)
def test_a_sheet_is_about_square_and_white_where_no_image_is(labels: int, n: int, grid: tuple[int, int]) -> None:
    from matplotlib.figure import Figure

    made = samples(Stripes(), range(labels), [*"abcd"[:labels]], n, progress=False)
    ax = Figure().subplots()
    made.plot(ax)
    (shown,) = ax.images
    blank = np.ones((*grid, 1, 6, 5))
    assert shown.get_array().shape == sheet(blank).shape
    names = [text.get_text() for text in ax.texts]
    assert [name for name in names if name] == [*"abcd"[:labels]]
    assert len(names) == grid[0]
    if n == 7:
        assert (shown.get_array()[-6:, -5:] == 1).all()
        assert (shown.get_array()[-6:, :5] == 0).any()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A trained model in the current folder, whose classes have names as torchvision gives them to MNIST's."""
    monkeypatch.setitem(models.MODELS, "stripes", Stripes)
    monkeypatch.chdir(tmp_path)
    model = Stripes()
    tensors = {models.WEIGHTS + name: value for name, value in model.state_dict().items()}
    classes = ["0 - zero", "1 - one", "3", "2"]
    card = {"architecture": models.architecture(model), "data": {"classes": classes}}
    checkpoint.save(tmp_path / "run" / checkpoint.MODEL_FILE, tensors, card)
    return tmp_path


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], int]:
    """Runs `robustrecon sample` and these arguments in this process, and gives the exit code."""

    def run(arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["robustrecon", "sample", *arguments.split()])
        with pytest.raises(SystemExit) as stop:
            main()
        assert isinstance(stop.value.code, int)
        return stop.value.code

    return run


def test_the_command_writes_a_sheet(
    folder: Path, command: Callable[[str], int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--model run --label 1 --label 3 --label 3 --n 5 --out new/sheet.png --json") == 0
    printed = capsys.readouterr()
    summary = json.loads(printed.out)
    assert summary["labels"] == [1, 2], "a name comes before an index"
    assert summary["classes"] == ["1", "3"]
    assert "samples: 10/10" in printed.err
    assert [path.name for path in (folder / "new").iterdir()] == ["sheet.png"]
    first = np.asarray(Image.open(folder / "new/sheet.png"))
    assert command("--model run --n 2 --seed 1 --out all.png") == 0
    assert capsys.readouterr().out == "all.png: 2 images of each of 0, 1, 3, 2 by run, seed 1\n"
    assert np.asarray(Image.open(folder / "all.png")).shape != first.shape, "more rows"


ERRORS = [
    ("--model style-memory/mnist --out a.png", "model: style-memory has no sampler, it makes no images from nothing"),
    ("--model run --label 4 --out a.png", "label: got 4, must be 0 to 3, or the name of a class"),
    ("--model run --label -1 --out a.png", "label: got -1, must be 0 to 3"),
    ("--model run --label zreo --out a.png", "label: unknown name 'zreo'"),
    ("--model run --guidance 2 --out a.png", "guidance: is nothing that the sampler of stripes has"),
    ("--model run --guidance -1 --out a.png", "guidance: got -1.0, must be at least 0 and finite"),
    ("--model run --n 0 --out a.png", "n: got 0, must be at least 1"),
    ("--model run --seed -1 --out a.png", "seed: got -1, must be a whole number"),
    ("--model run --out a.jpg", "out: got a.jpg, must end in .png"),
    ("--model run --out /proc/nowhere/a.png", "/proc/nowhere: cannot be written"),
    ("--model nowhere --out a.png", "nowhere: no such checkpoint"),
    ("--model run", "Missing option '--out'"),
]


@pytest.mark.parametrize(("arguments", "message"), ERRORS, ids=[arguments for arguments, _ in ERRORS])
def test_bad_input_is_one_line(
    arguments: str, message: str, folder: Path, command: Callable[[str], int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("robustrecon: error: ")
    assert message in line
    assert not (folder / "a.png").exists()


def test_a_model_that_only_reconstructs_has_no_sampler() -> None:
    drawer = models.ClassConditionedAutoencoder(4, image_shape=(1, 28, 28))
    with pytest.raises(InputError, match="model: class-conditioned has no sampler.* must have a method `sample`"):
        samples(drawer, [0], ["a"], progress=False)


def test_a_model_of_two_channels_cannot_be_drawn() -> None:
    with pytest.raises(InputError, match="makes images of 2 channels, must be 1 or 3"):
        samples(Stripes(image_shape=(2, 6, 5)), [0], ["a"], progress=False)
