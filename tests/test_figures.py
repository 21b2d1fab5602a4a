"""The paper's experiments, measured on models and data for which the answers are known."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from scipy.stats import norm
from sklearn.metrics import roc_auc_score
from torch import Tensor

from robustrecon import EnergyModel, InputError, StyleMemoryNet, figures
from robustrecon.cli import main
from robustrecon.data import Dataset
from robustrecon.data.splits import Part
from robustrecon.figures.base import Array
from robustrecon.figures.judge import PlainCNN
from robustrecon.figures.mistakes import auroc
from robustrecon.figures.sheets import GAP, sheet


class Pixels(figures.Judge):
    """A judge that always says three and whose features are the pixels."""

    def __init__(self) -> None:
        super().__init__(PlainCNN(10, (1, 28, 28)), accuracy=1.0)

    def labels(self, images: Array) -> Array:
        return np.full(len(images), 3)

    def features(self, images: Array) -> Array:
        return images.reshape(len(images), -1)


class Telling(StyleMemoryNet):
    """A network that reads class and style from marks in the image: pixel k of row 0 for class k, row 1 for style."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, 0, 0, : self.n_classes], x[:, 0, 1, : self.style_dim]


def marked(style: Callable[[int, np.random.Generator], Array], n: int = 400) -> tuple[Telling, Dataset]:
    """Such a network and images of 4 classes, each image marked with its class and with `style` of it."""
    draw = np.random.default_rng(0)
    y = np.arange(n) % 4
    images = np.zeros((n, 1, 8, 8), dtype=np.uint8)
    images[np.arange(n), 0, 0, y] = 255
    images[:, 0, 1, :4] = np.stack([style(int(k), draw) for k in y]) * 255
    part = Part(torch.as_tensor(images), torch.as_tensor(y))
    data = Dataset("marked", tuple("abcd"), part, part.head(100), part)
    return Telling(4, style_dim=4, image_shape=(1, 8, 8)), data


def blind(k: int, draw: np.random.Generator) -> Array:
    return draw.random(4)


def test_a_probe_predicts_the_class_from_a_style_that_tells_it_and_from_no_other() -> None:
    telling, data = marked(lambda k, draw: np.eye(4)[k])
    assert figures.leakage(telling, data).measures["class_read_from_style_style-memory"].value == 1
    network, data = marked(blind)
    made = figures.leakage({"blind": network}, data)
    assert made.majority == 0.25
    assert made.measures["class_read_from_style_blind"].value < 0.5


def test_neighbours_are_those_of_an_exhaustive_search() -> None:
    network, data = marked(blind, n=60)
    made = figures.neighbours(network, data, base=[7, 12], k=5)
    assert made.by_chance.tolist() == pytest.approx([14 * 5 / 59] * 2)
    x, style = data.test.x.numpy().reshape(60, -1), data.test.x.numpy()[:, 0, 1, :4]
    for row, base in enumerate((7, 12)):
        for space, points in (("image", x), ("style", style)):
            apart = np.linalg.norm(points - points[base], axis=1)
            expected = [i for i in apart.argsort(kind="stable") if i != base][:5]
            assert made.nearest[space][row].tolist() == expected
            assert made.style_distance[space][row] == pytest.approx(
                np.linalg.norm(style[expected] - style[base], axis=1).mean(), abs=1e-3
            )
            assert made.over_all[space][row] == pytest.approx(apart.sum() / 59, abs=1e-3)
            assert made.same_class[space][row] == sum(data.test.y[expected] == data.test.y[base])


@pytest.mark.parametrize("base", [60, -1, [3, 99], 0.5, []])
def test_a_base_that_is_no_index_is_refused(base: object) -> None:
    network, data = marked(blind, n=60)
    with pytest.raises(InputError, match=r"base: got .*\[0, 59\]"):
        figures.neighbours(network, data, base=base, k=5)  # type: ignore[arg-type]


def test_more_neighbours_than_images_are_refused() -> None:
    network, data = marked(blind, n=60)
    with pytest.raises(InputError, match=r"k: got 97, must be in \[1, 59\]"):
        figures.neighbours(network, data, k=97)
    assert figures.neighbours(network, data).nearest["image"].shape == (60, 59)


def test_misclassified_images_and_the_curve_of_risk_and_coverage() -> None:
    network, data = marked(blind, n=40)
    y = data.test.y.clone()
    y[[3, 8]] = (y[[3, 8]] + 1) % 4  # the network predicts their former labels
    made = figures.misclassified(network, replace(data, test=Part(data.test.images, y)))
    assert sorted(made.indices.tolist()) == [3, 8]
    x = data.test.x[made.indices]
    logits, style = network.encode(x)
    for drawn, label in ((made.as_predicted, logits.softmax(1)), (made.as_true, torch.eye(4)[y[made.indices]])):
        np.testing.assert_allclose(drawn, network.decode(label, style).detach(), atol=1e-5)
    cost = (torch.as_tensor(made.as_true) - x).square().flatten(1).sum(1)
    np.testing.assert_allclose(made.energies[made.indices, y[made.indices]], cost, rtol=1e-4)
    assert made.measures["misclassified"].value == 2 / 40
    better = made.energies[made.indices, y[made.indices]] < made.energies[made.indices, (y[made.indices] - 1) % 4]
    assert made.measures["true_label_explains_misclassified_better"].value == better.mean()
    four_images = {"y": np.zeros(4, int), "labels": np.array([0, 1, 0, 1]), "energies": np.zeros((4, 4))}
    small = replace(made, scores={"s": np.array([0.1, 0.2, 0.3, 0.4])}, **four_images)
    coverage, risk = small.risk_coverage("s")
    assert coverage.tolist() == [0.25, 0.5, 0.75, 1]
    assert risk.tolist() == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])
    assert small.measures["auroc_s"].value == 0.75


def test_auroc_is_scikit_learns_and_its_interval_covers() -> None:
    draw = np.random.default_rng(0)
    negative, positive = draw.normal(0, 1, (400, 300)), draw.normal(1, 1, (400, 40))
    found = [auroc(*pair) for pair in zip(negative, positive, strict=True)]
    expected = roc_auc_score([0] * 300 + [1] * 40, [*negative[0], *positive[0]])
    assert found[0].value == pytest.approx(expected)
    truth = norm.cdf(1 / np.sqrt(2))
    covered = np.mean([low <= truth <= high for low, high in (m.interval for m in found if m.interval)])
    assert 0.9 < covered < 0.99


def test_a_model_without_errors_has_a_picture_that_says_so() -> None:
    network, data = marked(blind, n=40)
    made = figures.misclassified(network, data)
    assert made.measures["misclassified"].value == 0
    made.plot(Figure().subplots())


def test_interpolated_pixels_have_equal_steps_in_features_that_are_pixels(
    model: StyleMemoryNet, digits: Dataset
) -> None:
    made = figures.interpolation(model, digits, Pixels(), pairs=20)
    assert made.pixels.largest_step == pytest.approx(1 / 10, abs=1e-4)
    assert (made.styles.largest_step > 1 / 10).all()
    assert made.measures["interpolation_of_the_class"].value == pytest.approx(0.1)  # pairs are two a class
    np.testing.assert_allclose(made.weights, np.arange(10, -1, -1) / 10, atol=1e-6)
    for end, first in ((0, 0), (1, -1)):
        x = torch.as_tensor(made.ends[:, end])
        np.testing.assert_allclose(made.drawings[:, first], model.reconstruct(x, torch.arange(10)).detach(), atol=1e-4)
    shown = figures.interpolation(model, digits, Pixels(), ends=[(0, 0)], pairs=10)
    assert shown.names == (digits.classes[digits.test.y[0]],)


@pytest.mark.parametrize("ends", [[(0, 10_000)], [(0, 1, 2)], [], "0"])
def test_ends_that_are_no_pairs_are_refused(model: StyleMemoryNet, digits: Dataset, ends: object) -> None:
    with pytest.raises(InputError, match="ends: got"):
        figures.interpolation(model, digits, Pixels(), ends=ends, pairs=10)  # type: ignore[arg-type]


def test_ends_of_two_classes_are_refused(model: StyleMemoryNet, digits: Dataset) -> None:
    other = int((digits.test.y != digits.test.y[0]).nonzero()[0])
    with pytest.raises(InputError, match="must be pairs of one class each"):
        figures.interpolation(model, digits, Pixels(), ends=[(0, other)], pairs=10)


def test_only_transfers_to_three_are_recognised_by_a_judge_that_always_says_three(
    model: StyleMemoryNet, digits: Dataset
) -> None:
    made = figures.style_transfer(model, digits, Pixels(), n=200)
    assert (made.recognised[:, 3] == 1).all()
    assert np.delete(made.recognised, 3, axis=1).max() == 0
    asked = np.mean(np.where(made.y == 3, 0, 1 / 9))
    assert made.measures["transfers_of_the_asked_class"].value == pytest.approx(asked)
    assert made.measures["transfers_still_of_the_own_class"].value == pytest.approx(np.mean(made.y == 3))
    x = torch.as_tensor(made.originals)
    np.testing.assert_allclose(made.drawings[:, 7], model.reconstruct(x, torch.full((10,), 7)).detach(), atol=1e-4)


def test_reconstructions_are_of_their_own_input(model: StyleMemoryNet, digits: Dataset) -> None:
    made = figures.reconstruction(model, digits)
    x, y = digits.test.x, digits.test.y
    logits, style = model.encode(x)
    drawn, label = model.decode(logits.softmax(1), style).detach(), logits.argmax(1)
    error = (drawn - x).flatten(1).norm(dim=1)
    assert made.measures["reconstruction_error"].value == pytest.approx(error.mean().item(), rel=1e-4)
    mean = torch.stack([digits.train.x[digits.train.y == k].mean(0) for k in label.tolist()])
    np.testing.assert_allclose(made.to_mean, (drawn - mean).flatten(1).norm(dim=1), rtol=1e-3)
    np.testing.assert_allclose(made.input_to_mean, (x - mean).flatten(1).norm(dim=1), rtol=1e-3)
    nearer = [((drawn[i] - x[y == y[i]]).flatten(1).norm(dim=1) < error[i] * (1 - 1e-6)).sum() for i in range(50)]
    assert made.rank[:50].tolist() == nearer
    assert made.names[::2] == made.names[1::2]  # two of a class side by side
    assert len(made.names) == 10


def test_a_class_of_one_is_refused(model: StyleMemoryNet, digits: Dataset) -> None:
    keep = digits.test.y != 4
    keep[digits.test.y.tolist().index(4)] = True
    lonely = replace(digits, test=Part(digits.test.images[keep], digits.test.y[keep]))
    with pytest.raises(InputError, match="class 4 has [01] correctly classified test images, must have at least 2"):
        figures.interpolation(model, lonely, Pixels())


def test_a_model_without_a_decoder_or_for_other_images_is_refused(
    model: StyleMemoryNet, digits: Dataset, tmp_path: Path
) -> None:
    for ask in (lambda bare: figures.make(bare, digits, tmp_path / "new"), lambda bare: figures.leakage(bare, digits)):
        with pytest.raises(InputError, match=r"model: Linear has no decoder"):
            ask(torch.nn.Linear(2, 2))
    assert not (tmp_path / "new").exists()
    _, other = marked(blind)
    with pytest.raises(InputError, match=r"data: marked has 4 classes of \(1, 8, 8\) images, must have 10"):
        figures.reconstruction(model, other)


NEW_FIGURE = """
from dataclasses import dataclass
import numpy as np
from .base import Drawable, Measure

@dataclass(frozen=True)
class Brightness(Drawable):
    means: np.ndarray
    measures = property(lambda self: {"brightness": Measure.mean(self.means)})
    caption = "The mean pixel of every test image."

    def plot(self, ax):
        ax.hist(self.means)

def brightness(model, data, seed=0):
    return Brightness(data.test.x.numpy().mean((1, 2, 3)))
"""


def test_a_new_figure_is_one_module_and_one_line(model_dir: Path, tmp_path: Path) -> None:
    root = Path(figures.__file__).parents[2]
    for package in ("attacks", "robustrecon"):
        shutil.copytree(root / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    folder = tmp_path / "robustrecon" / "figures"
    (folder / "histograms.py").write_text(NEW_FIGURE)
    registry = (folder / "__init__.py").read_text()
    line = '    "leakage": "leaks:leakage",\n'
    assert line in registry
    (folder / "__init__.py").write_text(registry.replace(line, f'{line}    "brightness": "histograms:brightness",\n'))

    def command(*arguments: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(tmp_path), "COLUMNS": "500"}
        run = [sys.executable, "-m", "robustrecon", "figures", *arguments]
        done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "leakage, brightness" in command("--help")
    out = command("--model", str(model_dir), "--figure", "brightness", "--out", "out")
    assert "brightness: 0." in out
    assert (tmp_path / "out" / "brightness.png").is_file()


def test_every_figure_is_found_by_its_name_and_hidden_by_no_module() -> None:
    for name in figures.FIGURES:
        assert getattr(figures, name) is figures.load(name)
        assert importlib.util.find_spec(f"robustrecon.figures.{name}") is None
    with pytest.raises(AttributeError):
        figures.leak  # noqa: B018
    with pytest.raises(InputError, match="figure: unknown name 'leakages'; did you mean 'leakage'?"):
        figures.load("leakages")


class OtherCodes(EnergyModel):
    """A model of another class with style codes: mean pixels of the image's halves, which it draws as they are."""

    name = "other"

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0, 0, : self.n_classes]

    def class_energies(self, x: Tensor) -> Tensor:
        return -self(x)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self(x), x.flatten(1).unflatten(1, (2, -1)).mean(2)

    def decode(self, label_probabilities: Tensor, style: Tensor) -> Tensor:
        return style.repeat_interleave(32, dim=1).reshape(-1, *self.image_shape)


def test_any_model_with_style_codes_has_figures(tmp_path: Path) -> None:
    _, data = marked(blind, n=200)
    model = OtherCodes(4, (1, 8, 8))
    names = ["reconstruction", "misclassified", "neighbours", "leakage"]
    made = figures.make(model, data, tmp_path, names, progress=False)
    assert list(made["figures"]) == names
    assert made["figures"]["leakage"]["measures"]["lowest_energy_is_true_other"]["value"] == 1


def test_a_sheet_has_every_image_in_its_place() -> None:
    images = np.arange(6, dtype=np.float32).reshape(2, 3, 1, 1, 1) / 10 * np.ones((2, 3, 1, 4, 5), dtype=np.float32)
    laid = sheet(images)
    assert laid.shape == (2 * 4 + GAP, 3 * 5 + 2 * GAP)
    assert laid[0, 0] == 0
    assert laid[4 + GAP, 2 * (5 + GAP)] == pytest.approx(0.5)
    assert laid[4, 0] == laid[0, 5] == 1
    assert sheet(np.zeros((1, 2, 3, 4, 5))).shape == (4, 10 + GAP, 3)


def test_the_command_measures_and_writes_the_same_pictures_every_time(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for out in (first, second):
        command = ["figures", "--model", str(model_dir), "--out", str(out), "--figure", "reconstruction"]
        monkeypatch.setattr("sys.argv", ["robustrecon", *command, "--figure", "misclassified"])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0
    assert "own_input_is_nearest_of_its_class" in capsys.readouterr().out
    told = json.loads((first / "figures.json").read_text())["figures"]
    files = [file for entry in told.values() for file in entry["files"]]
    assert len(files) == 6
    for file in files:
        assert (first / file).read_bytes() == (second / file).read_bytes()


def test_a_figure_that_cannot_be_made_is_an_error_after_all_others_are_made_and_kept(
    model: StyleMemoryNet, digits: Dataset, tmp_path: Path
) -> None:
    bad = {"neighbours": {"k": 10_000}}
    with pytest.raises(InputError, match="neighbours: k: got 10000"):
        figures.make(model, digits, tmp_path, ["neighbours", "leakage"], arguments=bad, progress=False)
    written = json.loads((tmp_path / "figures.json").read_text())
    assert list(written["figures"]) == ["leakage"]
    before = (tmp_path / "leakage.png").stat().st_mtime_ns
    made = figures.make(model, digits, tmp_path, ["leakage", "reconstruction"], progress=False)
    assert set(made["figures"]) == {"leakage", "reconstruction"}
    assert (tmp_path / "leakage.png").stat().st_mtime_ns == before
    other = figures.make(model, digits, tmp_path, ["leakage"], seed=1, progress=False)
    assert set(other["figures"]) == {"leakage"}  # the others are of another seed


def test_colours_and_many_classes_are_drawn(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    y = torch.arange(26 * 6) % 26
    part = Part(torch.as_tensor(draw.integers(0, 255, (len(y), 3, 8, 8), dtype=np.uint8)), y)
    data = Dataset("letters", tuple("abcdefghijklmnopqrstuvwxyz"), part, part, part)

    class Knowing(StyleMemoryNet):
        def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
            which = torch.cdist(x.flatten(1), part.x.flatten(1)).argmin(1)
            return torch.eye(26)[y[which]], x.flatten(1)[:, :32]

    network = Knowing(26, 32, (3, 8, 8))
    names = [name for name in figures.FIGURES if name not in ("interpolation", "style_transfer")]
    made = figures.make(network, data, tmp_path, names, progress=False)
    assert set(made["figures"]) == set(names)
    judge = figures.Judge(PlainCNN(26, (3, 8, 8)), 0.0)
    for drawn in (figures.interpolation(network, data, judge, pairs=26), figures.style_transfer(network, data, judge)):
        drawn.plot(Figure().subplots())
        assert drawn.caption


@pytest.mark.slow
def test_the_judge_is_accurate_and_is_trained_once(digits: Dataset, tmp_path: Path) -> None:
    judge = figures.train_judge(digits, tmp_path, progress=False)
    assert (judge.labels(digits.test.x.numpy()) == digits.test.y.numpy()).mean() == judge.accuracy > 0.9
    (file,) = tmp_path.glob("*.safetensors")
    before = file.stat().st_mtime_ns
    again = figures.train_judge(digits, tmp_path, progress=False)
    assert file.stat().st_mtime_ns == before
    assert again.accuracy == judge.accuracy
    np.testing.assert_array_equal(again.features(digits.test.x.numpy()), judge.features(digits.test.x.numpy()))
