"""An objective with a state of its own, for tests."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from robustrecon import EnergyModel
from robustrecon.training import Objective, ObjectiveOptions


class Accumulating(Objective):
    """Cross-entropy, towards a mean image that every step moves, through a weight of its own."""

    metrics = ("accuracy", "distance", "loss")

    @dataclass(frozen=True)
    class Options(ObjectiveOptions):
        decay: float = 0.5

    options: Options
    mean: Tensor

    def __init__(self, model: EnergyModel, options: ObjectiveOptions) -> None:
        super().__init__(model, options)
        self.weight = nn.Parameter(torch.rand(()))
        self.register_buffer("mean", torch.rand(model.image_shape))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor, y: Tensor, progress: float) -> dict[str, Tensor]:
        self.steps += 1
        self.mean.lerp_(x.mean(0), 1 - self.options.decay)
        logits = self.model(x + 0.1 * self.weight * self.mean)
        distance = (self.mean - x).square().mean()
        loss = cross_entropy(logits, y) + self.weight.square() * distance
        return {"loss": loss, "distance": distance, "accuracy": (logits.argmax(1) == y).float().mean()}
