"""Recipes: their numbers, their checks, and that cards of the older, flat form are understood."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.ablation import VARIANTS
from robustrecon import InputError, checkpoint
from robustrecon.models import shipped
from robustrecon.training import RECIPES, Recipe
from robustrecon.training.recipes import completed

ROOT = Path(__file__).resolve().parents[1]


FLAT: dict[str, Any] = {
    "name": "robust-refine",
    "epochs": 24,
    "batch_size": 128,
    "learning_rate": 0.001,
    "schedule": "one-cycle",
    "least_steps": 3000,
    "noise": 0.0,
    "alpha": 0.05,
    "objective": "contrastive",
    "decoder_input": "softmax",
    "contrast": 1.0,
    "wrong_labels": 3,
    "eps": 0.31,
    "ramp": 0.0,
    "attack_steps": 7,
    "clean_share": 0.25,
    "trades": 0.0,
    "gap": 3.0,
    "warp": 1.0,
    "style_noise": 0.0,
    "average": 0.0,
    "style_dim": 16,
    "style_encoder": "shared",
    "width": 1,
    "blocks": 2,
}


def test_paper_recipe_has_the_papers_numbers() -> None:
    paper = RECIPES["paper"]
    options = paper.to_json()["objective_options"]
    assert (paper.learning_rate, paper.epochs, paper.schedule) == (1e-5, 250, "constant")
    assert options["reconstruction_weight"] == 0.05
    assert {paper.learning_rate_factor(share) for share in (0.0, 0.3, 0.99)} == {1.0}


def test_one_cycle_rises_and_falls() -> None:
    rates = [RECIPES["fast"].learning_rate_factor(share / 100) for share in range(101)]
    peak = rates.index(max(rates))
    assert max(rates) == pytest.approx(1)
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] < 1e-9


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("least_steps", -1),
        ("learning_rate", 0.0),
        ("schedule", "cosine"),
        ("average", 1.0),
        ("average", float("nan")),
        ("clip", -1.0),
    ],
)
def test_bad_recipe(argument: str, value: object) -> None:
    with pytest.raises(InputError, match=f"{argument}: got {value!r}, must"):
        replace(RECIPES["robust"], **{argument: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("objective", "option", "value"),
    [
        ("style-memory", "noise", -1.0),
        ("style-memory", "decoder_input", "labels"),
        ("style-memory", "reconstruction_weight", float("nan")),
        ("contrastive", "energy_weight", -0.1),
        ("contrastive", "wrong_labels", 0),
        ("contrastive", "eps", 1.5),
        ("contrastive", "eps", float("nan")),
        ("contrastive", "ramp", -0.1),
        ("contrastive", "attack_steps", 0),
        ("contrastive", "clean_share", 1.0),
        ("contrastive", "margin_gap", -1.0),
        ("contrastive", "distortion", -1.0),
        ("trades", "beta", -1.0),
        ("trades", "style_noise", -1.0),
        ("generative-convnet", "chains", "long"),
        ("generative-convnet", "steps", 0),
        ("generative-convnet", "noise", -1.0),
        ("generative-convnet", "restarts", 1.5),
    ],
)
def test_bad_options_of_an_objective(objective: str, option: str, value: float | str) -> None:
    with pytest.raises(InputError, match=f"{option}: got {value!r}, must"):
        replace(RECIPES["fast"], objective=objective, objective_options={option: value})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "style-memroy"}, "model: unknown name 'style-memroy'; did you mean 'style-memory'"),
        ({"objective": "trade"}, "objective: unknown name 'trade'; did you mean 'trades'"),
        ({"model_options": {"witdh": 2}}, "model_options of style-memory: unknown name 'witdh'; did you mean 'width'"),
        ({"objective_options": {"eps": 0.3}}, "objective_options of style-memory: unknown name 'eps'"),
        ({"objective": "trades", "objective_options": {"margin_gap": 1.0}}, "objective_options of trades: unknown"),
    ],
    ids=str,
)
def test_unknown_names_are_told(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(RECIPES["fast"], **changes)


def test_a_card_names_every_option() -> None:
    told = RECIPES["robust-refine"].to_json()
    assert told["model_options"] == {"style_dim": 16, "output": "sigmoid", "style_encoder": "shared", "width": 1} | {
        "blocks": 2,
        "front_end": None,
        "front_end_energies": False,
    }
    assert told["objective_options"]["margin_gap"] == 3.0
    assert told["objective_options"]["attack_steps"] == 7


def test_what_a_card_leaves_out_has_its_default() -> None:
    told = RECIPES["robust"].to_json()
    del told["average"], told["objective_options"]["distortion"], told["model_options"]["blocks"]
    assert completed(told) == RECIPES["robust"].to_json()


def test_a_flat_recipe_is_that_of_today() -> None:
    assert completed(FLAT) == RECIPES["robust-refine"].to_json()
    older = {name: FLAT[name] for name in FLAT if name not in ("gap", "warp", "trades", "average", "width", "blocks")}
    options = completed(older)["objective_options"]
    assert (options["margin_gap"], options["distortion"]) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("changes", "objective", "options"),
    [
        ({"objective": "paper", "alpha": 0.1}, "style-memory", {"noise", "reconstruction_weight", "decoder_input"}),
        ({"trades": 6.0, "gap": 0.0}, "trades", {"beta", "distortion", "energy_weight", "eps"}),
        ({"contrast": 0.5}, "contrastive", {"clean_share", "margin_gap"}),
    ],
    ids=["style-memory", "trades", "contrastive"],
)
def test_a_flat_recipe_names_its_objective(changes: dict[str, Any], objective: str, options: set[str]) -> None:
    told = completed(FLAT | changes)
    assert told["objective"] == objective
    assert options <= told["objective_options"].keys()
    if objective == "style-memory":
        assert told["objective_options"]["reconstruction_weight"] == 0.1
    if objective == "trades":
        assert told["objective_options"]["beta"] == 6.0
    if objective == "contrastive":
        assert told["objective_options"]["energy_weight"] == 0.5


@pytest.mark.parametrize("name", shipped.names())
def test_the_recipes_of_the_shipped_networks_are_those_of_today(name: str) -> None:
    recipe = completed(checkpoint.load(shipped.file_of(name)).card["recipe"])
    assert recipe == RECIPES[recipe["name"]].to_json()


def test_the_recipes_of_all_results_are_understood() -> None:
    files = sorted((ROOT / "results/robust/ablation").glob("*.json"))
    assert files
    for file in files:
        short = replace(RECIPES["robust"], name=f"ablation-{file.stem}", epochs=2, least_steps=0)
        assert completed(json.loads(file.read_text())["recipe"]) == VARIANTS[file.stem].applied(short).to_json()


def test_another_model_or_objective_has_its_default_options() -> None:
    refine = RECIPES["robust-refine"]
    changed = refine.with_objective("style-memory")
    assert changed == replace(refine, name="robust-refine-style-memory", objective="style-memory", objective_options={})
    assert refine.with_objective("contrastive") is refine
    assert refine.with_model("style-memory") is refine
    assert isinstance(refine, Recipe)
