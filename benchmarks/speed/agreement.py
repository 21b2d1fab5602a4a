"""Whether a detector's scores in bfloat16 tell adversarial from clean images as those in float32 do."""

from __future__ import annotations

from typing import cast

import torch
from sklearn.metrics import roc_auc_score

import attacks
from robustrecon import DefendedClassifier, load, load_data

from .report import Agreement

NETWORK, DETECTOR, EPS = "robust/digits", "label_margin", 0.3


def agreement() -> Agreement:
    """AUROC over the embedded test digits and what PGD makes of them."""
    part, defended = load_data("digits").test, DefendedClassifier(load(NETWORK).eval(), DETECTOR).eval()
    x_adv = attacks.load("pgd", "own", eps=EPS, early_exit=True)(defended.model, part.x, part.y).x
    images = torch.cat([part.x, x_adv])
    adversarial = torch.arange(len(images)) >= len(part.x)
    auroc = {}
    for precision in ("float32", "bfloat16"):
        with torch.no_grad():
            scores = cast(DefendedClassifier, attacks.in_precision(defended, precision)).score(images)
        auroc[precision] = float(roc_auc_score(adversarial.numpy(), scores.numpy()))
    return Agreement(NETWORK, DETECTOR, EPS, len(part.x), **auroc)
