"""Binary classifiers on the features of a frozen model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .errors import InputError, unknown_name
from .goals import require_score

RIDGE = 1.0  # of the mean variance of a feature, added to all: else a feature that is 0 all around decides


class Binary(nn.Module):
    """A linear classifier of two classes on a model's features; the detector of the model, if any, is as it was.

    Args:
        model: what gives the score.
        features: features (B, D) of images (B, C, H, W).
        weight: (D,).
        bias: the logit of class 1 minus that of class 0 is features · weight + bias.
        threshold: of the model's score; None where no detector counts.
    """

    def __init__(
        self,
        model: nn.Module,
        features: Callable[[Tensor], Tensor],
        weight: Tensor,
        bias: float,
        threshold: float | None,
    ) -> None:
        super().__init__()
        self.model, self.features = model, features
        self.bias = bias
        self.register_buffer("weight", weight)
        self.training = model.training
        if threshold is not None:
            self.threshold = threshold

    weight: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, 2)."""
        margin = self.features(x).float() @ self.weight + self.bias
        return torch.stack([-margin, margin], 1) / 2

    def score(self, x: Tensor) -> Tensor:
        """(B,) the model's own."""
        return require_score(self.model).score(x)


class Inverted(nn.Module):
    """A model with a detector that accepts what it rejected, and rejects what it accepted.

    Args:
        model: what gives logits and a score.
        threshold: of its score; finite.
    """

    def __init__(self, model: nn.Module, threshold: float) -> None:
        super().__init__()
        self.model = model
        self.training = model.training
        # A score at the threshold is accepted by the model, so the negative one is not.
        bound = torch.tensor(-threshold)
        self.threshold = torch.nextafter(bound, bound - 1).item()

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K)."""
        logits: Tensor = self.model(x)
        return logits

    def score(self, x: Tensor) -> Tensor:
        """(B,) the model's own, with the sign changed."""
        return -require_score(self.model).score(x)


def readout(inner: Tensor, planted: Tensor, margin: float, confidence: float) -> tuple[Tensor, float] | None:
    """Weight (D,) and bias of the linear classifier that tells a planted point from points inside a ball.

    Its direction is that of Fisher's discriminant, regularised. None where a point inside lies as far out as the
    planted one.

    Args:
        inner: (N, D) features, the first those of the middle of the ball.
        planted: (1, D) features.
        margin: where the boundary lies between the outermost point inside, at 0, and the planted point, at 1.
        confidence: logit margin of class 0 at the middle of the ball.
    """
    inner, planted = inner.double(), planted.double()
    centred = inner - inner.mean(0)
    covariance = centred.T @ centred / len(inner)
    ridge = RIDGE * covariance.diagonal().mean()
    if not ridge > 0:
        return None
    covariance.diagonal().add_(ridge)
    weight = torch.linalg.solve(covariance, planted[0] - inner.mean(0))
    projected, target = inner @ weight, (planted @ weight).item()
    outermost, middle = projected.max().item(), projected[0].item()
    if not target > outermost:
        return None
    boundary = outermost + margin * (target - outermost)
    scale = confidence / (boundary - middle)
    return (scale * weight).float(), -scale * boundary


def feature_layer(model: nn.Module, x: Tensor, layer: str | None) -> Callable[[Tensor], Tensor]:
    """What gives the features (B, D) of images: the output of a layer, or the input of the last linear one.

    Args:
        model: gives logits (B, K).
        x: (B, C, H, W) images to try it with.
        layer: name of a sub-module; None for the last linear layer that the forward pass calls.

    Raises:
        InputError: no such sub-module, or none that is called.
    """
    parts = {name: part for name, part in model.named_modules() if name}
    if layer is not None and layer not in parts:
        unknown_name("layer", layer, parts)
    watched = [parts[layer]] if layer is not None else [part for part in parts.values() if isinstance(part, nn.Linear)]
    called: list[nn.Module] = []
    with torch.no_grad():
        _hooked(watched, lambda part, given, output: called.append(part), model, x)
    if not called:
        what = "linear layer" if layer is None else layer
        raise InputError(f"layer: {type(model).__name__} calls no {what}; must be the name of one that it calls")
    return partial(_features, model, called[-1], layer is None)


def _features(model: nn.Module, part: nn.Module, of_input: bool, x: Tensor) -> Tensor:
    seen: list[Tensor] = []
    _hooked([part], lambda _, given, output: seen.append(given[0] if of_input else output), model, x)
    return seen[-1].flatten(1)


def _hooked(watched: list[nn.Module], hook: Callable[..., Any], model: nn.Module, x: Tensor) -> None:
    """Call the model with hooks on some of its modules."""

    def record(part: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        hook(part, given, output)

    handles = [part.register_forward_hook(record) for part in watched]
    try:
        model(x)
    finally:
        for handle in handles:
            handle.remove()
