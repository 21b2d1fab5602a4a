"""Runs that go on: from a kill, from an older version, for more epochs; and the line that says why one cannot."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accumulating import Accumulating

from robustrecon import InputError, checkpoint, train
from robustrecon.data import Dataset
from robustrecon.training import OBJECTIVES, RECIPES, Recipe, loop
from robustrecon.training.lock import LOCK_FILE, only_run_in

SEPARATE = {"style_encoder": "separate"}
TINY = Recipe("tiny", epochs=3, batch_size=32, learning_rate=1e-3, schedule="constant", objective="style-memory")


@pytest.fixture
def few(digits: Dataset) -> Dataset:
    return replace(digits, train=digits.train.head(96), test=digits.test.head(20))


@contextmanager
def stopped_in_the_second_epoch() -> Iterator[None]:
    """At its end, before it is written; the first epoch is kept."""
    measure = loop.accuracy
    with pytest.MonkeyPatch.context() as patch:
        calls = iter([measure])
        patch.setattr(loop, "accuracy", lambda *arguments: next(calls, _stop)(*arguments))
        with pytest.raises(KeyboardInterrupt):
            yield


def _stop(*arguments: object) -> float:
    raise KeyboardInterrupt


def assert_same_run(one: Path, other: Path) -> None:
    """The same weights, bit by bit, and the same metrics of every epoch."""
    resumed, unbroken = checkpoint.load(one), checkpoint.load(other)
    assert resumed.tensors.keys() == unbroken.tensors.keys()
    for name, tensor in unbroken.tensors.items():
        assert torch.equal(resumed.tensors[name], tensor), name
    assert len(resumed.card["history"]) == len(unbroken.card["history"])
    for key in unbroken.card["history"][0].keys() - {"seconds", "images_per_second"}:
        assert [row[key] for row in resumed.card["history"]] == [row[key] for row in unbroken.card["history"]]


@pytest.mark.parametrize(
    ("recipe", "objective", "average"),
    [
        ("paper", None, 0.0),
        ("contrastive", None, 0.0),
        ("robust", None, 0.0),
        ("robust", "trades", 0.0),
        ("contrastive", None, 0.9),
        ("contrastive", "accumulating", 0.9),
        ("paper", "accumulating", 0.0),
        ("egc", None, 0.9),
        ("ccat", None, 0.0),
    ],
)
def test_a_stopped_run_of_any_objective_goes_on_to_the_same_result(
    few: Dataset, tmp_path: Path, recipe: str, objective: str | None, average: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(OBJECTIVES, "accumulating", Accumulating)
    options = {"width": 8} if recipe == "egc" else SEPARATE
    tiny = replace(RECIPES[recipe], epochs=3, batch_size=32, least_steps=0, model_options=options, average=average)
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    train(few, whole, tiny, objective=objective, progress=False)
    with stopped_in_the_second_epoch():
        train(few, broken, tiny, objective=objective, progress=False)
    saved = checkpoint.load(broken)
    assert saved.card["epoch"] == 1
    if objective == "accumulating":
        assert saved.tensors["objective.steps"] == 3
    train(few, broken, tiny, objective=objective, resume=True, progress=False)
    assert_same_run(broken, whole)


def test_resuming_a_finished_run_changes_nothing(few: Dataset, tmp_path: Path) -> None:
    first = train(few, tmp_path / "m", TINY, progress=False)
    before = (tmp_path / "m" / "model.safetensors").read_bytes()
    again = train(few, tmp_path / "m", TINY, resume=True, progress=False)
    assert (tmp_path / "m" / "model.safetensors").read_bytes() == before
    assert torch.equal(first.conv1.weight, again.conv1.weight)  # type: ignore[arg-type, union-attr]


def edited(folder: Path, **changes: Any) -> None:
    """The checkpoint with another card."""
    saved = checkpoint.load(folder)
    card = {key: value for key, value in saved.card.items() if key != "sha256"}
    checkpoint.save(folder / checkpoint.MODEL_FILE, saved.tensors, card | changes)


def test_a_run_from_before_a_new_option_goes_on(few: Dataset, tmp_path: Path) -> None:
    """Whatever is new has a default, which is what the older run did."""
    tiny = replace(RECIPES["robust"], epochs=3, batch_size=32, least_steps=0)
    train(few, tmp_path / "whole", tiny, progress=False)
    with stopped_in_the_second_epoch():
        train(few, tmp_path / "old", tiny, progress=False)
    card = checkpoint.load(tmp_path / "old").card
    recipe, architecture = card["recipe"], card["architecture"]
    del recipe["average"], recipe["objective_options"]["distortion"], recipe["objective_options"]["margin_gap"]
    del recipe["model_options"]["blocks"], architecture["blocks"]
    edited(tmp_path / "old", recipe=recipe, architecture=architecture)
    train(few, tmp_path / "old", tiny, resume=True, progress=False)
    assert_same_run(tmp_path / "old", tmp_path / "whole")


@pytest.mark.slow
def test_a_run_with_a_flat_recipe_goes_on(few: Dataset, tmp_path: Path) -> None:
    options = {"noise": 0.0, "eps": 0.31, "ramp": 0.0, "margin_gap": 3.0, "distortion": 1.0, "energy_weight": 0.5}
    tiny = replace(RECIPES["robust-refine"], epochs=3, batch_size=32, least_steps=0, objective_options=options)
    train(few, tmp_path / "whole", tiny, progress=False)
    with stopped_in_the_second_epoch():
        train(few, tmp_path / "old", tiny, progress=False)
    flat = {
        **{"name": "robust-refine", "epochs": 3, "batch_size": 32, "learning_rate": 0.001, "schedule": "one-cycle"},
        **{"least_steps": 0, "noise": 0.0, "alpha": 0.05, "objective": "contrastive", "decoder_input": "softmax"},
        **{"contrast": 0.5, "wrong_labels": 3, "eps": 0.31, "ramp": 0.0, "attack_steps": 7, "clean_share": 0.25},
        **{"trades": 0.0, "gap": 3.0, "warp": 1.0, "style_noise": 0.0, "average": 0.0, "style_dim": 16},
        **{"style_encoder": "shared", "width": 1, "blocks": 2},
    }
    edited(tmp_path / "old", recipe=flat)
    train(few, tmp_path / "old", tiny, resume=True, progress=False)
    assert_same_run(tmp_path / "old", tmp_path / "whole")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "was trained with seed 0, not 1"),
        ({"precision": "bf16-mixed"}, "was trained with precision 32-true, not bf16-mixed"),
        ({"objective_options": {"noise": 0.3}}, r"was trained with objective_options.noise 0\.1, not 0\.3"),
        ({"model_options": {"width": 2}}, "was trained with model_options.width 1, not 2"),
        ({"learning_rate": 1e-4}, r"was trained with learning_rate 0\.001, not 0\.0001"),
        ({"objective": "trades"}, "was trained with objective style-memory, not trades"),
        ({"schedule": "one-cycle"}, "was trained with schedule constant, not one-cycle"),
    ],
    ids=str,
)
def test_one_line_says_what_differs(few: Dataset, trained: Path, changes: dict[str, Any], message: str) -> None:
    arguments = {key: changes.pop(key) for key in ("seed", "precision") if key in changes}
    with pytest.raises(InputError, match=rf"resume: {trained} {message}$"):
        train(few, trained, replace(TINY, **changes), resume=True, progress=False, **arguments)


@pytest.fixture(scope="module")
def trained(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    few = replace(digits, train=digits.train.head(96), test=digits.test.head(20))
    folder = tmp_path_factory.mktemp("tiny")
    train(few, folder, TINY, progress=False)
    return folder


def test_other_data_is_one_line_too(digits: Dataset, trained: Path) -> None:
    more = replace(digits, train=digits.train.head(128), test=digits.test.head(20))
    with pytest.raises(InputError, match="was trained with data n_train 96, not 128$"):
        train(more, trained, TINY, resume=True, progress=False)
    many = replace(digits, train=digits.train.head(96), classes=tuple(f"a long name of {k}" for k in range(10)))
    with pytest.raises(InputError, match=r"was trained with data .*, not .*") as refused:
        train(many, trained, TINY, resume=True, progress=False)
    assert len(str(refused.value)) < 250


def test_what_is_no_training_run_is_not_resumed(few: Dataset, trained: Path, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / checkpoint.MODEL_FILE, checkpoint.load(trained).tensors, {"kind": "other"})
    with pytest.raises(InputError, match=f"resume: {tmp_path} holds no training run"):
        train(few, tmp_path, TINY, resume=True, progress=False)
    (tmp_path / checkpoint.MODEL_FILE).write_bytes(b"PK\x03\x04")
    with pytest.raises(InputError, match="is a pickle"):
        train(few, tmp_path, TINY, resume=True, progress=False)


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_a_run_with_a_constant_learning_rate_may_get_more_epochs(few: Dataset, tmp_path: Path, average: float) -> None:
    """Finished or not, it becomes the run that was to be longer from the beginning."""
    tiny = replace(TINY, average=average)
    train(few, tmp_path / "whole", tiny, progress=False)
    train(few, tmp_path / "more", replace(tiny, name="shorter", epochs=1), progress=False)
    assert checkpoint.load(tmp_path / "more").card["finished"]
    train(few, tmp_path / "more", tiny, resume=True, progress=False)
    assert_same_run(tmp_path / "more", tmp_path / "whole")
    assert checkpoint.load(tmp_path / "more").card["recipe"]["name"] == "tiny"
    with pytest.raises(InputError, match="was trained with epochs 3, not 2: 3 epochs are done$"):
        train(few, tmp_path / "more", replace(tiny, epochs=2), resume=True, progress=False)


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        (replace(TINY, schedule="one-cycle"), "a one-cycle learning rate depends on the number of epochs"),
        (
            replace(TINY, objective="contrastive", objective_options={"eps": 0.1}),
            "the objective 'contrastive' depends on the number of epochs",
        ),
    ],
    ids=["one-cycle", "ramp"],
)
def test_other_runs_may_not_and_say_why(few: Dataset, tmp_path: Path, recipe: Recipe, reason: str) -> None:
    train(few, tmp_path, replace(recipe, epochs=1), progress=False)
    with pytest.raises(InputError, match=f"resume: {tmp_path} was trained with epochs 1, not 2: {reason}$"):
        train(few, tmp_path, replace(recipe, epochs=2), resume=True, progress=False)


def test_the_same_number_of_epochs_may_be_given_otherwise(few: Dataset, tmp_path: Path) -> None:
    """3 steps an epoch: `least_steps` of 5 are 2 epochs."""
    one_cycle = replace(TINY, schedule="one-cycle", epochs=1)
    train(few, tmp_path, replace(one_cycle, least_steps=5), progress=False)
    train(few, tmp_path, replace(one_cycle, name="two", epochs=2), resume=True, progress=False)


def test_a_folder_in_use_is_refused(few: Dataset, tmp_path: Path) -> None:
    with only_run_in(tmp_path), pytest.raises(InputError, match="is in use by another training run"):
        train(few, tmp_path, TINY, progress=False)
    train(few, tmp_path, TINY, progress=False)
    assert not (tmp_path / LOCK_FILE).exists()


def test_a_lock_file_that_a_killed_run_left_is_no_hindrance(few: Dataset, tmp_path: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from robustrecon.training.lock import only_run_in
with only_run_in(Path({str(tmp_path)!r})):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert (tmp_path / LOCK_FILE).exists()
    train(few, tmp_path, TINY, progress=False)


@pytest.mark.slow
def test_of_two_runs_that_begin_together_one_is_refused(tmp_path: Path) -> None:
    """With different seeds, into one folder."""
    commands = [
        [sys.executable, "-m", "robustrecon", "train", "--epochs", "2", "--seed", seed, "--out", str(tmp_path / "run")]
        for seed in ("1", "2")
    ]
    runs = [subprocess.Popen(each, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for each in commands]
    told = [run.communicate()[1] for run in runs]
    codes = [run.returncode for run in runs]
    assert sorted(codes) == [0, 2], told
    refused = told[codes.index(2)]
    assert refused.startswith("robustrecon: error: out: ")
    assert refused.count("\n") == 1
    assert checkpoint.load(tmp_path / "run").card["seed"] == codes.index(0) + 1


def test_a_checkpoint_of_another_run_is_never_written_over(
    few: Dataset, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever way it came there while this run was in its first epoch."""
    measure = loop.accuracy
    content = (trained / checkpoint.MODEL_FILE).read_bytes()

    def disturbed(*arguments: Any) -> float:
        (tmp_path / checkpoint.MODEL_FILE).write_bytes(content)
        return measure(*arguments)

    monkeypatch.setattr(loop, "accuracy", disturbed)
    with pytest.raises(InputError, match="was written by another run since this one began"):
        train(few, tmp_path, replace(TINY, epochs=1), seed=5, progress=False)
    assert (tmp_path / checkpoint.MODEL_FILE).read_bytes() == content


def test_a_lock_is_for_one_holder_at_a_time(tmp_path: Path) -> None:
    """Many threads, each with its own handle: never two inside."""
    inside, most, refused = 0, 0, 0
    guard = threading.Lock()

    def enter() -> None:
        nonlocal inside, most, refused
        for _ in range(30):
            try:
                with only_run_in(tmp_path):
                    with guard:
                        inside += 1
                        most = max(most, inside)
                    with guard:
                        inside -= 1
            except InputError:
                with guard:
                    refused += 1

    threads = [threading.Thread(target=enter) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert refused < 240
