"""Training: what it writes, that a killed run goes on as if unbroken, and the accuracies to reach."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from robustrecon import InputError, StyleMemoryNet, checkpoint, load, load_data, train
from robustrecon.data import Dataset
from robustrecon.training import RECIPES, Recipe

SEPARATE = {"style_encoder": "separate"}
QUICK = replace(RECIPES["fast"], name="quick", epochs=3, least_steps=0)


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "robustrecon", "train", *map(str, arguments)]


def test_metrics_and_card(model_dir: Path) -> None:
    with (model_dir / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == list(range(1, 15))
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"]) / 2
    card = json.loads((model_dir / "model.json").read_text())
    assert card["finished"]
    assert card["recipe"]["objective"] == "style-memory"
    assert float(rows[-1]["test_accuracy"]) == pytest.approx(card["accuracy"]["test"], abs=1e-5)
    assert sorted(path.name for path in model_dir.iterdir()) == [
        "metrics.csv",
        "model.calibration.json",
        "model.calibration.safetensors",
        "model.json",
        "model.safetensors",
    ]


def test_stored_accuracy_is_that_of_the_loaded_model(model: StyleMemoryNet, model_dir: Path, digits: Dataset) -> None:
    with torch.no_grad():
        found = (model(digits.test.x).argmax(1) == digits.test.y).double().mean().item()
    assert found == checkpoint.load(model_dir).card["accuracy"]["test"]


@pytest.mark.slow
def test_seed_decides_everything(digits: Dataset, tmp_path: Path) -> None:
    torch.manual_seed(1)
    first = train(digits, tmp_path / "a", QUICK, seed=7, progress=False)
    torch.manual_seed(2)
    second = train(digits, tmp_path / "b", QUICK, seed=7, progress=False)
    other = train(digits, tmp_path / "c", QUICK, seed=8, progress=False)
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, second.state_dict()[name]), name
    assert not torch.equal(first.state_dict()["conv1.weight"], other.state_dict()["conv1.weight"])


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_result(tmp_path: Path) -> None:
    """Kill -9 in mid-run, resume, and compare with an unbroken run, bit by bit."""
    settings = ("--data", "digits", "--epochs", "8", "--seed", "3")
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    process = subprocess.Popen(command(*settings, "--out", broken), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (broken / "model.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)  # somewhere inside an epoch
    process.send_signal(signal.SIGKILL)
    process.wait()
    killed = checkpoint.load(broken).card  # whole, though its run was killed
    assert 0 < killed["epoch"] < 8, "the run ended before it could be killed"
    assert not killed["finished"]
    load(broken)

    subprocess.run(command(*settings, "--out", broken, "--resume"), check=True, capture_output=True)
    subprocess.run(command(*settings, "--out", whole), check=True, capture_output=True)
    unbroken, resumed = checkpoint.load(whole), checkpoint.load(broken)
    for name, tensor in unbroken.tensors.items():
        assert torch.equal(resumed.tensors[name], tensor), name
    for key in unbroken.card["history"][0].keys() - {"seconds", "images_per_second"}:
        assert [row[key] for row in resumed.card["history"]] == [row[key] for row in unbroken.card["history"]]


@pytest.mark.slow
def test_a_run_starts_from_a_trained_model_and_its_card_says_so(
    digits: Dataset, model_dir: Path, tmp_path: Path
) -> None:
    still = replace(QUICK, learning_rate=1e-30)
    first, last = load(model_dir), train(digits, tmp_path, still, start=model_dir, progress=False)
    for name, weight in last.state_dict().items():
        assert torch.equal(weight, first.state_dict()[name]), name
    card = checkpoint.load(model_dir).card
    assert checkpoint.load(tmp_path).card["start"] == {"recipe": card["recipe"]["name"], "sha256": card["sha256"]}
    assert card["start"] is None
    grown = train(
        digits, tmp_path / "grown", replace(still, model_options={"blocks": 1}), start=model_dir, progress=False
    )
    assert torch.equal(grown(digits.test.x), first(digits.test.x))
    again = train(
        digits, tmp_path / "more", replace(still, model_options={"blocks": 2}), start=tmp_path / "grown", progress=False
    )
    assert again.config["blocks"] == 2
    assert torch.equal(again(digits.test.x), first(digits.test.x))
    learned = train(digits, tmp_path / "on", QUICK, start=model_dir, progress=False)
    assert not torch.equal(learned.state_dict()["conv1.weight"], first.state_dict()["conv1.weight"])
    with pytest.raises(InputError, match=r"resume: .* was trained with start brief \(.{12}\), not None$"):
        train(digits, tmp_path, still, resume=True, progress=False)


def test_a_start_that_does_not_fit_is_refused(digits: Dataset, model_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="start: .* must not be given together with model"):
        train(digits, tmp_path, QUICK, start=model_dir, model=StyleMemoryNet(), progress=False)
    with pytest.raises(InputError, match="start: .* has style_encoder shared, must have separate for the recipe"):
        train(digits, tmp_path, replace(QUICK, model_options=SEPARATE), start=model_dir, progress=False)
    two = replace(digits, classes=digits.classes[:2])
    with pytest.raises(InputError, match="model: takes 10 classes .* must take 2"):
        train(two, tmp_path, QUICK, start=model_dir, progress=False)


def test_a_folder_with_a_model_is_not_written_over(digits: Dataset, model_dir: Path) -> None:
    with pytest.raises(InputError, match="already holds a trained model"):
        train(digits, model_dir, QUICK, progress=False)


def test_the_calibration_part_is_never_trained_on(digits: Dataset, tmp_path: Path) -> None:
    """Other calibration images, the same model."""
    blank = replace(digits.calibration, images=torch.zeros_like(digits.calibration.images))
    first = train(digits, tmp_path / "a", QUICK, progress=False)
    second = train(replace(digits, calibration=blank), tmp_path / "b", QUICK, progress=False)
    assert torch.equal(first.state_dict()["head.weight"], second.state_dict()["head.weight"])


def test_recipe_shapes_the_network(digits: Dataset, tmp_path: Path) -> None:
    shaped = replace(QUICK, epochs=1, model_options={"style_dim": 5, **SEPARATE})
    model = train(digits, tmp_path, shaped, progress=False)
    assert (model.config["style_dim"], model.config["style_encoder"]) == (5, "separate")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"recipe": "fats"}, "did you mean 'fast'"),
        ({"device": "tpu9"}, "device: got 'tpu9'"),
        ({"precision": "bf17"}, "precision: unknown name 'bf17'"),
        ({"devices": 3}, "devices: 3 on 1 nodes, must share out a batch of 128 images evenly"),
        ({"devices": 0}, "devices, nodes: got 0, 1, must be at least 1 each"),
        ({"seed": -1}, "seed: got -1"),
        ({"seed": 2**63}, "seed: got 9223372036854775808"),
        ({"model": "style-memroy"}, "model: unknown name 'style-memroy'; did you mean 'style-memory'"),
        ({"objective": "trads"}, "objective: unknown name 'trads'; did you mean 'trades'"),
        ({"recipe": replace(QUICK, model_options={"style_dim": 0})}, "style_dim: got 0, must be at least 1"),
        (
            {"recipe": replace(QUICK, model_options={"style_encoder": "seperate"})},
            "style_encoder: got 'seperate', must be 'shared' or 'separate'",
        ),
        ({"model": StyleMemoryNet(4)}, "model: takes 4 classes of .* must take 10 of .* for digits"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_bad_arguments(digits: Dataset, tmp_path: Path, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        train(digits, tmp_path, progress=False, **arguments)  # type: ignore[arg-type]


def test_an_unwritable_folder_is_told_before_the_first_epoch(digits: Dataset, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        train(digits, tmp_path / "file" / "run", QUICK, progress=False)


@pytest.mark.parametrize("shape", [(3, 12, 9)])
def test_bf16_and_other_shapes(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    from robustrecon.data.splits import split

    images = torch.randint(0, 256, (60, *shape), generator=torch.Generator().manual_seed(0)).byte()
    data = split("noise", ("a", "b"), images, torch.arange(60) % 2)
    tiny = Recipe("tiny", epochs=2, batch_size=8, learning_rate=1e-3, schedule="constant")
    model = train(data, tmp_path, tiny, precision="bf16-mixed", progress=False)
    assert next(model.parameters()).dtype == torch.float32
    assert torch.isfinite(model.class_energies(data.test.x)).all()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_digits_reach_97_percent(digits: Dataset, tmp_path: Path, seed: int) -> None:
    train(digits, tmp_path, "fast", seed=seed, progress=False)
    assert checkpoint.load(tmp_path).card["accuracy"]["test"] >= 0.97


@pytest.mark.slow
def test_mnist_reaches_the_papers_accuracy_in_5_epochs(data_dir: Path, tmp_path: Path) -> None:
    train(load_data("mnist", data_dir), tmp_path, "fast", progress=False)
    card = checkpoint.load(tmp_path).card
    assert card["epoch"] <= 5
    assert card["accuracy"]["test"] >= 0.9848


@pytest.mark.slow
def test_two_processes_get_the_accuracy_of_one(tmp_path: Path) -> None:
    settings = ("--data", "digits", "--device", "cpu", "--epochs", "30")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for processes in ("1", "2"):
        arguments = command(*settings, "--devices", processes, "--out", tmp_path / processes)
        done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("test accuracy") == 1
    cards = [checkpoint.load(tmp_path / processes).card for processes in ("1", "2")]
    assert [card["processes"] for card in cards] == [1, 2]
    assert cards[1]["accuracy"]["test"] == pytest.approx(cards[0]["accuracy"]["test"], abs=0.015)
