"""The paper's experiments: what they measure is checked where the answer is known."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor

from robustrecon import InputError, StyleMemoryNet, figures
from robustrecon.cli import main
from robustrecon.data import Dataset
from robustrecon.data.splits import Part
from robustrecon.figures.base import GAP, Array, sheet


def taking(label: Callable[[Array], Array]) -> figures.Judge:
    """A judge with labels of its own whose features are the pixels."""
    return lambda images: (label(images), images.reshape(len(images), -1))


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


def test_a_probe_reads_a_style_that_tells_the_class_and_no_other() -> None:
    telling, data = marked(lambda k, draw: np.eye(4)[k])
    assert figures.leakage(telling, data).measures["class_read_from_style_style-memory"].value == 1
    network, data = marked(blind)
    made = figures.leakage({"blind": network}, data)
    assert made.majority == 0.25
    assert made.measures["class_read_from_style_blind"].value < 0.5


def test_neighbours_are_those_of_an_exhaustive_search() -> None:
    network, data = marked(blind, n=60)
    made = figures.neighbours(network, data, base=[7, 12], k=5)
    x, style = data.test.x.numpy().reshape(60, -1), data.test.x.numpy()[:, 0, 1, :4]
    for row, base in enumerate((7, 12)):
        for space, points in (("image", x), ("style", style)):
            apart = np.linalg.norm(points - points[base], axis=1)
            expected = [i for i in apart.argsort(kind="stable") if i != base][:5]
            assert made.nearest[space][row].tolist() == expected
            assert made.style_distance[space][row] == pytest.approx(
                np.linalg.norm(style[expected] - style[base], axis=1).mean(), abs=1e-3
            )
            assert made.same_class[space][row] == sum(data.test.y[expected] == data.test.y[base])


@pytest.mark.parametrize("base", [60, -1, [3, 99], 0.5, []])
def test_a_base_that_is_no_index_is_refused(base: object) -> None:
    network, data = marked(blind, n=60)
    with pytest.raises(InputError, match=r"base: got .*\[0, 59\]"):
        figures.neighbours(network, data, base=base, k=5)  # type: ignore[arg-type]


def test_more_neighbours_than_images_are_refused() -> None:
    network, data = marked(blind, n=60)
    with pytest.raises(InputError, match=r"k: got 97, must be in \[1, 59\]"):
        figures.neighbours(network, data)


def test_misclassified_images_and_the_curve_of_risk_and_coverage() -> None:
    network, data = marked(blind, n=40)
    y = data.test.y.clone()
    y[[3, 8]] = (y[[3, 8]] + 1) % 4  # the network says what these were before
    made = figures.misclassified(network, replace(data, test=Part(data.test.images, y)))
    assert sorted(made.true.tolist()) == sorted(y[[3, 8]].tolist())
    assert made.measures["misclassified"].value == 2 / 40
    drawn = network.decode(torch.eye(4)[torch.as_tensor(made.true)], torch.zeros(2, 4))
    assert made.as_true.shape == drawn.shape
    told = replace(made, wrong=np.array([False, True, False, True]), scores={"s": np.array([0.1, 0.2, 0.3, 0.4])})
    coverage, risk = told.risk_coverage("s")
    assert coverage.tolist() == [0.25, 0.5, 0.75, 1]
    assert risk.tolist() == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])
    assert told.measures["auroc_s"].value == 0.75


def test_nothing_misclassified_is_drawn_as_that() -> None:
    network, data = marked(blind, n=40)
    made = figures.misclassified(network, data)
    assert made.measures["misclassified"].value == 0
    made.plot(Figure().subplots())


def test_mixed_pixels_go_straight_in_features_that_are_pixels(model: StyleMemoryNet, digits: Dataset) -> None:
    made = figures.interpolation(model, digits, taking(lambda x: np.full(len(x), 3)), pairs=20)
    assert made.length_pixels == pytest.approx(1, abs=1e-4)
    assert (made.length > 1).all()
    assert made.measures["interpolations_of_the_class"].value == pytest.approx(0.1)  # pairs are two a class
    np.testing.assert_allclose(made.weights, np.arange(11) / 10, atol=1e-6)
    seen = model.reconstruct(torch.as_tensor(made.ends[:, 0]), torch.arange(10)).detach().numpy()
    np.testing.assert_allclose(made.drawings[:, 0], seen, atol=1e-4)  # λ = 0 is the first image's own style


def test_a_judge_that_always_says_three_obeys_only_three(model: StyleMemoryNet, digits: Dataset) -> None:
    made = figures.style_transfer(model, digits, taking(lambda x: np.full(len(x), 3)), n=200)
    assert (made.obeyed[:, 3] == 1).all()
    assert np.delete(made.obeyed, 3, axis=1).max() == 0
    assert made.measures["transfers_of_the_asked_class"].value == pytest.approx(0.1)


def test_reconstructions_are_of_their_own_input(model: StyleMemoryNet, digits: Dataset) -> None:
    made = figures.reconstruction(model, digits)
    drawn = model.reconstruct(digits.test.x).detach()
    expected = (drawn - digits.test.x).flatten(1).norm(dim=1).mean().item()
    assert made.measures["reconstruction_error"].value == pytest.approx(expected, rel=1e-4)
    right = (model(digits.test.x).argmax(1) == digits.test.y).numpy()
    mean = torch.stack([digits.train.x[digits.train.y == k].mean(0) for k in digits.test.y.tolist()])
    generic = (drawn - mean).flatten(1).norm(dim=1).numpy()[right]
    np.testing.assert_allclose(made.generic[~np.isnan(made.generic)], generic, rtol=1e-3)
    assert made.measures["nearer_to_own_input"].value == (made.own[right] < generic).mean()
    assert made.names[::2] == made.names[1::2]  # two of a class side by side
    assert len(made.names) == 10


def test_a_class_of_one_is_refused(model: StyleMemoryNet, digits: Dataset) -> None:
    keep = digits.test.y != 4
    keep[digits.test.y.tolist().index(4)] = True
    lonely = replace(digits, test=Part(digits.test.images[keep], digits.test.y[keep]))
    with pytest.raises(InputError, match="class 4 has [01] correctly classified test images, must have at least 2"):
        figures.interpolation(model, lonely, taking(lambda x: np.zeros(len(x))))


def test_a_model_without_a_decoder_or_for_other_images_is_refused(model: StyleMemoryNet, digits: Dataset) -> None:
    with pytest.raises(InputError, match=r"model: Linear has no decoder"):
        figures.make(torch.nn.Linear(2, 2), digits, "unused")
    _, other = marked(blind)
    with pytest.raises(InputError, match=r"data: marked has 4 classes of \(1, 8, 8\) images, must have 10"):
        figures.reconstruction(model, other)


def test_a_sheet_has_every_image_in_its_place() -> None:
    images = np.arange(6, dtype=np.float32).reshape(2, 3, 1, 1, 1) / 10 * np.ones((2, 3, 1, 4, 5), dtype=np.float32)
    laid = sheet(images)
    assert laid.shape == (2 * 4 + GAP, 3 * 5 + 2 * GAP)
    assert laid[0, 0] == 0
    assert laid[4 + GAP, 2 * (5 + GAP)] == pytest.approx(0.5)
    assert laid[4, 0] == laid[0, 5] == 1
    assert sheet(np.zeros((1, 2, 3, 4, 5))).shape == (4, 10 + GAP, 3)


def test_the_command_draws_measures_and_draws_the_same_again(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for out in (first, second):
        command = ["figures", "--model", str(model_dir), "--out", str(out), "--figure", "reconstruction"]
        monkeypatch.setattr("sys.argv", ["robustrecon", *command, "--figure", "misclassified"])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0
    assert "nearer_to_own_input" in capsys.readouterr().out
    told = json.loads((first / "figures.json").read_text())["figures"]
    files = [file for entry in told.values() for file in entry["files"]]
    assert len(files) == 6
    for file in files:
        assert (first / file).read_bytes() == (second / file).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--figure", "neighbors"], "figure: unknown name 'neighbors'; did you mean 'neighbours'?"),
        (["--data", "mnsit"], "data: unknown name 'mnsit'; did you mean 'mnist'?"),
        (["--model", "nowhere"], "nowhere: no such checkpoint"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_bad_input_is_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["robustrecon", "figures", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


@pytest.mark.slow
def test_the_independent_network_is_right_and_is_trained_once(digits: Dataset, tmp_path: Path) -> None:
    judge = figures.train_judge(digits, tmp_path, progress=False)
    labels, _ = judge(digits.test.x.numpy())
    assert (labels == digits.test.y.numpy()).mean() > 0.95
    before = (tmp_path / "model.safetensors").stat().st_mtime_ns
    figures.train_judge(digits, tmp_path, progress=False)
    assert (tmp_path / "model.safetensors").stat().st_mtime_ns == before
