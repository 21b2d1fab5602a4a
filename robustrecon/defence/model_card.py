"""The README.md of a folder that holds a defended classifier: a model card in Hugging Face's layout.

M. Mitchell et al., "Model Cards for Model Reporting", FAT* 2019. The front matter is YAML, written as JSON values,
which are YAML too.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .about import About, RobustRisk

if TYPE_CHECKING:
    from .classifier import DefendedClassifier

FILE = "README.md"


def model_card(defended: DefendedClassifier) -> str:
    """The text of the card of a calibrated classifier: licence, data, metrics, how to load it."""
    about = defended.about or About()
    lines = [
        *_front_matter(defended, about),
        f"# {about.name or type(defended.model).__name__}",
        "",
        f"A classifier with the detector `{defended.detector.name}` over it, calibrated with "
        "[robustrecon](https://pypi.org/project/robustrecon/): it rejects inputs that it cannot explain.",
        "",
        *_facts(defended, about),
        "",
        "## Metrics",
        "",
        *_metrics(defended, about),
        "",
        "## How to load",
        "",
        "```python",
        "from robustrecon import DefendedClassifier",
        "",
        f'defended = DefendedClassifier.load("PATH_OF_THIS_FOLDER"{_instances(defended)})',
        "verdict = defended.inspect(x)  # images (B, C, H, W) in [0, 1]: label, score, p_value, rejected",
        "```",
        "",
        "`model.safetensors` holds weights, calibration scores and their description, which `model.json` repeats in "
        "readable form. Neither can hold code.",
    ]
    return "\n".join(lines) + "\n"


def _front_matter(defended: DefendedClassifier, about: About) -> list[str]:
    tags = ["robustrecon", "adversarial-robustness", "adversarial-detection", "conformal-prediction"]
    entries: dict[str, Any] = {
        "license": about.license,
        "library_name": "robustrecon",
        "pipeline_tag": "image-classification",
        "tags": tags,
        "datasets": [about.data] if about.data else None,
        "model-index": _model_index(about) or None,
    }
    return ["---", *(f"{key}: {json.dumps(value)}" for key, value in entries.items() if value is not None), "---", ""]


def _model_index(about: About) -> list[dict[str, Any]]:
    found = [] if about.accuracy is None else [{"type": "accuracy", "name": "accuracy", "value": about.accuracy}]
    found += [
        {"type": "robust_risk", "name": f"robust risk, {_budget(each)}", "value": each.risk}
        for each in about.robust_risks
    ]
    data = about.data or "unknown"
    result = {
        "task": {"type": "image-classification"},
        "dataset": {"name": data, "type": data},
        "metrics": found,
    }
    return [{"name": about.name or "defended classifier", "results": [result]}] if found else []


def _facts(defended: DefendedClassifier, about: About) -> list[str]:
    shape = defended.image_shape
    known = {
        "Licence": about.license or "not stated",
        "Training data": about.data or "not stated",
        "Recipe": about.recipe,
        "Images": None if shape is None else f"{shape[0]}×{shape[1]}×{shape[2]} (channels, height, width), in [0, 1]",
        "Classes": None if defended.classes is None else ", ".join(defended.classes),
    }
    return [f"- {key}: {value}" for key, value in known.items() if value is not None]


def _metrics(defended: DefendedClassifier, about: About) -> list[str]:
    calibration = defended.checked_calibration()
    lines = [
        f"- Clean images rejected: at most {calibration.alpha:.2%} on average over calibration sets (split conformal, "
        f"n = {len(calibration.scores):,}); threshold {calibration.threshold:.6g}"
    ]
    if about.accuracy is not None:
        n = "" if about.n is None else f" (n = {about.n:,})"
        lines.append(f"- Clean test accuracy of the classifier alone: {about.accuracy:.2%}{n}")
    lines += [
        f"- **Robust risk, {_budget(each)}: {each.risk:.1%}** (n = {each.n:,}; {each.attacks})"
        for each in about.robust_risks
    ]
    if not about.robust_risks:
        lines.append("- Robust risk: **not measured**. `robustrecon bench` measures it; trust no defence without it.")
    return lines


def _budget(risk: RobustRisk) -> str:
    return f"{risk.norm} {risk.eps:g}"


def _instances(defended: DefendedClassifier) -> str:
    """The further arguments that loading needs, for a model of the user's own class."""
    from ..models import EnergyModel

    return "" if isinstance(defended.model, EnergyModel) else f", model={type(defended.model).__name__}(...)"
