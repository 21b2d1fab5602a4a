"""Models judge by the calibration scores that lie beside them, and only by scores of their own weights and data."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from robustrecon import DefendedClassifier, InputError, StyleMemoryNet, checkpoint, cli, load, load_defended, train
from robustrecon.data import Dataset
from robustrecon.detectors import applicable
from robustrecon.models import shipped, stored_scores
from robustrecon.training import RECIPES

TINY = replace(RECIPES["fast"], name="tiny", epochs=1, least_steps=0, batch_size=128)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, without any data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    return tmp_path


def scores_of(folder: Path) -> Path:
    return stored_scores.file_beside(folder)


def edited(file: Path, **changes: object) -> None:
    saved = checkpoint.load(file)
    checkpoint.save(file, saved.tensors, saved.card | changes)


@pytest.mark.parametrize("name", shipped.names())
def test_every_shipped_model_judges_offline(name: str, here: Path) -> None:
    defended = load_defended(name, alpha=0.02)
    assert defended.classes is not None
    card = checkpoint.load(shipped.file_of(name)).card
    assert list(defended.classes) == card["data"]["classes"]
    scores = checkpoint.load(stored_scores.file_beside(shipped.file_of(name))).tensors
    assert scores.keys() == set(applicable(defended.model))
    assert defended.calibration is not None
    assert torch.equal(defended.calibration.scores[:, 0], scores["label_margin"])
    assert defended.inspect(torch.zeros(1, *defended.image_shape or ())).label.shape == (1,)


def test_shipped_scores_are_those_of_the_calibration_part(digits: Dataset) -> None:
    stored = checkpoint.load(stored_scores.file_beside(shipped.file_of("robust/digits"))).tensors
    assert {column.dtype for column in stored.values()} == {torch.float32}
    few = replace(digits, calibration=digits.calibration.head(12))
    for name, scores in stored_scores.measured(load("robust/digits"), few).items():
        assert len(stored[name]) == len(digits.calibration)
        distance = (stored[name][:, None] - scores).abs().amin(0)
        assert (distance <= 1e-4 * (1 + scores.abs())).all(), name


def test_stored_scores_calibrate_as_the_data_does(model_dir: Path, digits: Dataset, here: Path) -> None:
    detector = "any_of(msp,label_margin)"
    stored = load_defended(model_dir, detector, 0.1)
    computed = DefendedClassifier(load(model_dir), detector).calibrate(digits.calibration, 0.1)
    assert stored.calibration is not None
    assert computed.calibration is not None
    assert stored.calibration.thresholds == pytest.approx(computed.calibration.thresholds, rel=1e-4, abs=1e-4)
    assert stored.classes == digits.classes


def test_a_model_without_scores_is_calibrated_on_its_data(model_dir: Path, here: Path) -> None:
    shutil.copytree(model_dir, here / "run")
    with_scores = load_defended("run").threshold
    stored_scores.remove(scores_of(here / "run"))
    assert not list((here / "run").glob("*calibration*"))
    assert load_defended("run").threshold == pytest.approx(with_scores, rel=1e-4)


def test_scores_are_of_the_finished_weights_whenever_a_training_is_killed(
    digits: Dataset, scores_are_stored: None, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More epochs replace the weights: the scores of before go first, and come back at the end."""
    few = replace(digits, train=digits.train.head(256), calibration=digits.calibration.head(40))
    brief = replace(TINY, schedule="constant")
    train(few, here / "run", brief, progress=False)
    before = checkpoint.load(scores_of(here / "run"))
    assert before.card["data"] == {"name": "digits", "fingerprint": few.fingerprint}

    def killed(*_: object) -> Path:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(stored_scores, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            train(few, here / "run", replace(brief, epochs=2), resume=True, progress=False)
    assert checkpoint.load(here / "run").card["finished"]
    assert not scores_of(here / "run").exists()
    train(few, here / "run", replace(brief, epochs=2), resume=True, progress=False)
    after = checkpoint.load(scores_of(here / "run"))
    assert after.card["weights"] != before.card["weights"]
    assert load_defended("run").calibration is not None


def test_scores_that_are_not_finite_are_left_out(digits: Dataset) -> None:
    model = StyleMemoryNet()
    with torch.no_grad():
        model.head.weight.fill_(torch.nan)
    assert stored_scores.measured(model, replace(digits, calibration=digits.calibration.head(4))) == {}


BAD = {
    "version": ({"version": 2}, "holds calibration scores of version 2, must be of version 1"),
    "weights": ({"weights": "0" * 64}, "holds calibration scores of other weights than the model has"),
    "data": ({"data": {"name": "digits", "fingerprint": "0"}}, "holds calibration scores of other data"),
    "kind": ({"kind": "sketches"}, "holds sketches, must hold calibration scores"),
    "format": ({"format": "robustrecon/2"}, "has the format robustrecon/2, which a newer version"),
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD)
def test_scores_that_do_not_belong_are_one_line(
    changes: dict[str, object],
    message: str,
    model_dir: Path,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(model_dir, here / "run")
    edited(scores_of(here / "run"), **changes)
    monkeypatch.setattr(sys, "argv", ["robustrecon", "detect", "--model", "run", "x.png"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    (line,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2
    assert line.startswith("robustrecon: error: run/model.calibration.safetensors: ")
    assert message in line


def test_class_names_must_be_as_many_as_the_classes(model_dir: Path, digits: Dataset, here: Path) -> None:
    saved = checkpoint.load(model_dir)
    for classes, message in (
        (["0", "1"], "run: names 2 classes, must name the model's 10"),
        (["0", *[None] * 9], "must be a list with a name a label"),
        ("0123456789", "must be a list with a name a label"),
    ):
        card = saved.card | {"data": saved.card["data"] | {"classes": classes}}
        checkpoint.save(here / "run" / checkpoint.MODEL_FILE, saved.tensors, card)
        shutil.copy(scores_of(model_dir), here / "run")
        with pytest.raises(InputError, match=message):
            load_defended("run")
    defended = load_defended(model_dir)
    defended.classes = ("zero", "one")
    with pytest.raises(InputError, match="classes: names 2 classes, must name the model's 10"):
        defended.save("short.safetensors")


def test_what_does_not_calibrate_is_refused(model_dir: Path, here: Path) -> None:
    with pytest.raises(InputError, match=r"alpha: got 0.001, which needs the scores of at least 999 images.* of 300"):
        load_defended("robust/digits", alpha=0.001)
    with pytest.raises(InputError, match="alpha: got 5, must be in"):
        load_defended("robust/digits", alpha=5)
    with pytest.raises(InputError, match="detector: unknown name 'margin'"):
        load_defended("robust/digits", "margin")
    with pytest.raises(InputError, match="data: digits has 10 classes .* must have 26"):
        load_defended("style-memory/emnist-letters", data="digits")


def test_calibrate_writes_what_detect_takes(
    model_dir: Path, digits: Dataset, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["robustrecon", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        printed = capsys.readouterr()
        return int(stop.value.code or 0), printed.out, printed.err

    given = ["calibrate", "--model", str(model_dir), "--alpha", "0.1", "--out"]
    code, out, errors = command(*given, "a.safetensors")
    assert code == 0, errors
    loaded = DefendedClassifier.load("a.safetensors")
    assert out == (
        f"a.safetensors: label_margin over {model_dir}, threshold {loaded.threshold:.6g} from n = 300 clean images, "
        "expected false-alarm rate at most 9.967% (alpha 0.1)\n"
    )
    assert loaded.classes == digits.classes
    summary = json.loads(command(*given, "b.safetensors", "--detector", "msp", "--json")[1])
    assert (summary["detector"], summary["n"], summary["alpha"]) == ("msp", 300, 0.1)
    for arguments, message in (
        ([*given, "c.bin"], "out: got c.bin, must end in .safetensors"),
        (["calibrate", "--model", "a.safetensors", "--out", "c.safetensors"], "a.safetensors is calibrated already"),
        (["detect", "--model", "a.safetensors", "--data", "digits", "x.png"], "correct_only must be left"),
    ):
        code, out, errors = command(*arguments)
        assert (code, out) == (2, "")
        assert message in errors
