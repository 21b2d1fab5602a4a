"""The networks on the way to the shipped robust one, attacked alike: what each round of training was worth.

python -m benchmarks.networks runs/one runs/two robust/mnist --data-dir DIR --out results/robust

Expected time: 2 minutes a network on one core. The images are test images after the first 1,000, which the suites
report on, so that nobody chooses a network by those. A network that was attacked before is not attacked again.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import attacks
from robustrecon import DefendedClassifier, InputError, provenance
from robustrecon.bench.report.text import grid, percent
from robustrecon.data import Dataset, load_data
from robustrecon.files import atomic_write
from robustrecon.models import load_with_card
from robustrecon.runtime import device_of
from robustrecon.training.recipes import completed

from .ablation import DETECTOR, EPS, OUTCOMES, attacked, outcomes

FIRST, N = 2000, 400  # test images
ALPHA = 0.005  # as in the suites
SETTINGS = ("epochs", "style_encoder", "blocks", "eps", "margin_gap", "distortion")  # of the recipe, which differ


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", help="folders, files or names of shipped networks, the oldest first")
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--out", type=Path, default=Path("runs/robust"))
    arguments = parser.parse_args()
    data = load_data(arguments.data, arguments.data_dir)
    for name in arguments.networks:
        model, card = load_with_card(name)
        path = arguments.out / "networks" / f"{card['sha256'][:12]}.json"
        if path.exists():
            print(f"done before: {path}", file=sys.stderr)
            continue
        defended = DefendedClassifier(model, DETECTOR).calibrate(data.calibration.x, ALPHA)
        told = {"name": Path(name).name, "card": _kept(card), **measured(defended, data)}
        print(atomic_write(path, json.dumps(told, indent=2) + "\n"))
    results = [json.loads(path.read_text()) for path in (arguments.out / "networks").glob("*.json")]
    print(atomic_write(arguments.out / "networks.md", markdown(results)))


def measured(defended: DefendedClassifier, data: Dataset) -> dict[str, Any]:
    """Under an attack on classifier and detector."""
    chosen = slice(FIRST, FIRST + N)
    attack = attacks.load("selective", eps=EPS, early_exit=True)
    found = attacked(defended, data.test.x[chosen], data.test.y[chosen], attack)
    return {"data": data.name, "environment": provenance.environment(device_of(defended)), **found}


def _kept(card: dict[str, Any]) -> dict[str, Any]:
    return {key: card.get(key) for key in ("recipe", "architecture", "start", "seed", "accuracy", "sha256")}


def markdown(results: list[dict[str, Any]]) -> str:
    """The table of all networks, each after the one that it started from."""
    names = {result["card"]["sha256"]: result["name"] for result in results}
    lines = [["network", "from", *SETTINGS, "test acc.", *OUTCOMES]]
    for result in sorted(results, key=lambda result: result["name"]):
        card = result["card"]
        recipe = completed(card["recipe"])
        settings = {**recipe, **recipe["model_options"], **recipe["objective_options"]}
        start = (card["start"] or {}).get("sha256", "")
        lines.append(
            [
                result["name"],
                names.get(start, "another") if start else "–",
                *(str(settings[key]) for key in SETTINGS),
                percent(card["accuracy"]["test"]),
                *outcomes(result),
            ]
        )
    first = results[0]
    return (
        "# Networks on the way to the robust one\n\n"
        f"{first['data']}, test images {FIRST:,} to {FIRST + N - 1:,}, none of those that the suites report on. Robust "
        f"risk, with its 95 % interval, under `selective` with {DETECTOR} at a false-alarm rate of {ALPHA}. "
        "*From*: the network that it started from, where that was recorded. "
        f"Made by `python -m benchmarks.networks`.\n\n{grid(lines)}\n"
    )


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"networks: error: {error}")
