"""The worst case: image by image, over all attacks of a suite. That is its headline, not one attack's figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..statistics import Flags, Rate
from ..types import InputError
from .key import attack_title
from .metrics import flags
from .store import is_failed, measured

Result = dict[str, Any]

SHARED = ("data", "model", "weights", "detector", "norm", "alpha")


def worst_case(results: Sequence[Result]) -> list[dict[str, Any]]:
    """An entry for each data set, model, detector, norm and eps, in the order in which they come.

    An image is at risk when it is wrong or rejected when clean, or when some attack ends with a wrong label that is
    accepted; attacks with a smaller eps of the same norm too, which an adversary with the larger may use. An attack
    that was run on fewer images counts for those alone, so that the risk stays a lower bound.

    Args:
        results: of cells, with their `images`; failures too.

    Returns:
        For each the figures with their intervals; `images_least`, the first images that every attack was run on, and
        `robust_risk_least` over those alone, which no attack on fewer images lowers; and of the attacks at this eps:
        `attacks`: for each attack the images that it was run on, those that it broke of the ones that were not at
        risk when clean, and those that only it broke; `checks` that fired; `failed` attacks.

    Raises:
        InputError: cells of one data set that are of other images.
    """
    entries = []
    for key in dict.fromkeys(_key(result) for result in results):
        group = [result for result in results if _key(result) == key]
        for eps in sorted({result["spec"]["eps"] for result in group}):
            at = [result for result in group if result["spec"]["eps"] == eps]
            within = [result for result in group if result["spec"]["eps"] <= eps]
            if measured(at):
                entries.append(_entry(at, within))
    return entries


def _entry(at: list[Result], within: list[Result]) -> dict[str, Any]:
    cells = measured(at)
    largest = max(measured(within), key=lambda result: len(result["images"]["y"]))
    spec, n = cells[0]["spec"], len(largest["images"]["y"])
    clean = flags(largest)
    at_risk = ~clean.right | clean.rejected
    broken = np.stack([_broken(result, largest) & ~at_risk for result in cells])
    risky = at_risk | np.any([_broken(result, largest) for result in measured(within)], axis=0)
    least = min(len(result["images"]["y"]) for result in measured(within))
    risk, risk_least = Rate(risky), Rate(risky[:least])
    return {
        **{name: spec[name] for name in SHARED},
        "eps": spec["eps"],
        "n": n,
        "clean_accuracy": float(clean.right.mean()),
        "clean_rejection_rate": float(clean.rejected.mean()),
        "robust_risk": risk.value,
        "robust_risk_interval": risk.interval,
        "images_least": least,
        "robust_risk_least": risk_least.value,
        "robust_risk_least_interval": risk_least.interval,
        "attacks": [
            {
                "attack": attack_title(result["spec"]),
                "knows_detector": result["knows_detector"],
                "images": len(result["images"]["y"]),
                "broke": int(broke.sum()),
                "only": int((broke & (broken.sum(0) == 1)).sum()),
                "checks": [sign["name"] for sign in result["checks"]],
            }
            for result, broke in zip(cells, broken, strict=True)
        ],
        "checks": [{"attack": attack_title(result["spec"]), **sign} for result in cells for sign in result["checks"]],
        "failed": [
            {"attack": attack_title(result["spec"]), "error": result["error"]} for result in at if is_failed(result)
        ],
    }


def _broken(result: Result, largest: Result) -> Flags:
    """(n,) images of the largest cell that this cell's attack ends with an accepted wrong label, where it was run."""
    images, all_images = result["images"], largest["images"]
    n = len(images["y"])
    if images["y"] != all_images["y"][:n]:
        raise InputError(
            f"results: {attack_title(result['spec'])} and {attack_title(largest['spec'])} are of other images, must be "
            "of one data set; measure them anew"
        )
    broken = np.zeros(len(all_images["y"]), dtype=np.bool_)
    broken[:n] = flags(result).undetected
    return broken


def _key(result: Result) -> tuple[Any, ...]:
    return tuple(result["spec"][name] for name in SHARED)
