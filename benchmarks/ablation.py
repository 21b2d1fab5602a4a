"""What makes a network robust: each change to a shortened robust recipe, trained and attacked alike.

python -m benchmarks.ablation --data mnist --data-dir DIR --out results/robust

Expected time: about 7 minutes a variant on one core with bf16. No figure here is of the test part: detectors are
calibrated on all but the last images of the calibration part, and those are attacked. A variant that is done with the
same recipe is not run again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

import attacks
from robustrecon import DefendedClassifier, InputError, provenance
from robustrecon.bench.report.text import bounded, grid, percent
from robustrecon.data import Dataset, load_data
from robustrecon.files import atomic_write
from robustrecon.statistics import clopper_pearson
from robustrecon.training import Recipe, load_recipe, train
from robustrecon.training.objectives import OptionValue
from robustrecon.training.recipes import completed


@dataclass(frozen=True)
class Variant:
    """A change to the recipe: what it is in words, and the options that it sets."""

    description: str
    model_options: Mapping[str, OptionValue] = field(default_factory=dict)
    objective_options: Mapping[str, OptionValue] = field(default_factory=dict)
    objective: str = "contrastive"
    average: float = 0.0

    def applied(self, recipe: Recipe) -> Recipe:
        """The recipe with this change."""
        return replace(
            recipe,
            objective=self.objective,
            average=self.average,
            model_options={**recipe.model_options, **self.model_options},
            objective_options={**recipe.objective_options, **self.objective_options},
        )


VARIANTS: dict[str, Variant] = {
    "reference": Variant("PGD training on logits and energies"),
    "fgsm": Variant("one step from a random start instead of PGD", objective_options={"attack_steps": 1}),
    "trades": Variant("TRADES: divergence from the clean outputs, weight 6", objective="trades"),
    "no-energies": Variant("no energies in the loss", objective_options={"energy_weight": 0.0}),
    "style-8": Variant("8 style neurons", {"style_dim": 8}),
    "style-32": Variant("32 style neurons", {"style_dim": 32}),
    "style-noise": Variant("noise of 0.1 on the style", objective_options={"style_noise": 0.1}),
    "separate": Variant("an encoder of its own for the style", {"style_encoder": "separate"}),
    "averaged": Variant("weights averaged, decay 0.99", average=0.99),
    "warps": Variant("images distorted at random", objective_options={"distortion": 1.0}),
    "gap": Variant("a gap of 3 between clean and adversarial energies", objective_options={"margin_gap": 3.0}),
    "wide": Variant("twice the channels", {"width": 2}),
    "blocks": Variant("a residual block after each convolution of the encoder", {"blocks": 1}),
    "front-end": Variant(
        "a front end of slope 20, energies behind it", {"front_end": 20.0, "front_end_energies": True}
    ),
    "front-end-encoder": Variant("a front end of slope 20, energies of the pixels", {"front_end": 20.0}),
    "all-adversarial": Variant("no clean images in a batch", objective_options={"clean_share": 0.0}),
    "eps-0.3": Variant("trained at 0.3", objective_options={"eps": 0.3}),
}
EPOCHS = 2
ATTACKED = 300  # images
ALPHA = 0.01
EPS = 0.3
DETECTOR = "label_margin"
OUTCOMES = ("clean acc.", "clean rej.", f"robust risk, {EPS:g}")
TARGETS = 3  # the likeliest wrong labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--out", type=Path, default=Path("runs/robust"))
    parser.add_argument("--variant", action="append", choices=list(VARIANTS), help="repeatable; all by default")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    arguments = parser.parse_args()
    data = load_data(arguments.data, arguments.data_dir)
    for name in arguments.variant or VARIANTS:
        path = arguments.out / "ablation" / f"{name}.json"
        short = replace(load_recipe("robust"), name=f"ablation-{name}", epochs=arguments.epochs, least_steps=0)
        recipe = VARIANTS[name].applied(short)
        if path.exists() and completed(json.loads(path.read_text())["recipe"]) == recipe.to_json():
            print(f"done before: {path}", file=sys.stderr)
            continue
        atomic_write(path, json.dumps(measure(data, recipe, name), indent=2) + "\n")
    results = [json.loads(path.read_text()) for path in sorted((arguments.out / "ablation").glob("*.json"))]
    print(atomic_write(arguments.out / "ablation.md", markdown(results)))


def measure(data: Dataset, recipe: Recipe, name: str) -> dict[str, Any]:
    """Train one variant and attack it on classifier and detector together."""
    started = time.monotonic()
    model = train(data, Path("runs") / "ablation" / name, recipe, precision="bf16-mixed", resume=True)
    seconds = time.monotonic() - started
    x, y = data.calibration.x, data.calibration.y
    clean, clean_y = x[-ATTACKED:], y[-ATTACKED:]
    defended = DefendedClassifier(model, DETECTOR).calibrate(x[:-ATTACKED], ALPHA)
    attack = attacks.load("multi-target", eps=EPS, targets=TARGETS, early_exit=True)
    return {
        "variant": name,
        "data": data.name,
        "alpha": ALPHA,
        "recipe": recipe.to_json(),
        "training_seconds": seconds,
        "detector": DETECTOR,
        "environment": provenance.environment(next(model.parameters()).device),
        **attacked(defended, clean, clean_y, attack),
    }


def attacked(defended: DefendedClassifier, x: Tensor, y: Tensor, attack: attacks.Attack) -> dict[str, Any]:
    """What becomes of images x with labels y: clean, and where those that are safe meet an attack."""
    verdict = defended.inspect(x)
    right = verdict.label == y
    safe = right & ~verdict.rejected
    goal = attacks.Misclassified() & attacks.Undetected(defended.threshold)
    risky = int((~safe).sum() + attack(defended, x[safe], y[safe], goal).success.sum())
    return {
        "n": len(x),
        "eps": attack.threat.eps,
        "clean_accuracy": right.double().mean().item(),
        "clean_rejection_rate": verdict.rejected.double().mean().item(),
        "robust_risk": risky / len(x),
        "interval": clopper_pearson(risky, len(x)),
    }


def outcomes(result: dict[str, Any]) -> list[str]:
    """The columns `OUTCOMES` of what `attacked` told."""
    clean = [percent(result[key]) for key in ("clean_accuracy", "clean_rejection_rate")]
    return [*clean, bounded(result["robust_risk"], result["interval"])]


def markdown(results: list[dict[str, Any]]) -> str:
    """The table of all variants that are done, in the order of `VARIANTS`."""
    order = list(VARIANTS)
    results = sorted(results, key=lambda result: order.index(result["variant"]))
    lines = [["variant", "what changed", *OUTCOMES]]
    lines += [[result["variant"], VARIANTS[result["variant"]].description, *outcomes(result)] for result in results]
    first = results[0]
    return (
        f"# What makes a network robust\n\n{first['data']}; the recipe `robust` shortened to "
        f"{first['recipe']['epochs']} epochs, one training each: differences within the intervals mean nothing. "
        f"Robust risk, with its 95 % interval, of {first['n']} images of the calibration part that no detector was "
        f"calibrated on, under `multi-target` (the {TARGETS} likeliest wrong labels, 100 steps each), with "
        f"{first['detector']} at a false-alarm rate of {first['alpha']}. Made by "
        f"`python -m benchmarks.ablation`.\n\n{grid(lines)}\n"
    )


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"ablation: error: {error}")
