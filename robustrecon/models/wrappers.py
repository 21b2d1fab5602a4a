"""Modules around a model that normalises outside of itself, or that returns more than logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..types import InputError

_OF_IMAGES = ("class_energies", "logits_and_energies", "representations")  # methods whose first argument is images
_SHAPES = ("image_shape", "n_classes")


class Normalized(nn.Module):
    """A model that wants normalised images, as one of images in [0, 1]: (x − mean) / std is its first layer.

    Budgets, detectors and attacks then are in pixel units. Where the model has `class_energies`, it gets the normalised
    image too: its energies are those of the space that it was trained in, not of pixels. What its `reconstruct` draws
    is brought back to pixels. `image_shape` and `n_classes` are the model's.

    Args:
        model: gives logits (B, K) of images (B, C, H, W), normalised by a mean and a standard deviation a channel.
        mean: C numbers in [0, 1], or one for all channels.
        std: C numbers in (0, 1], or one for all channels.

    Raises:
        InputError: another number of values than the model's channels, a std that is not positive, or values that are
            not of pixels in [0, 1].
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, mean: float | Sequence[float], std: float | Sequence[float]) -> None:
        super().__init__()
        _check_module(model)
        self.model = model
        channels = (getattr(model, "image_shape", None) or (None,))[0]
        found = {"mean": _channels(mean, "mean", channels), "std": _channels(std, "std", channels)}
        if len(found["mean"]) != len(found["std"]):
            raise InputError(f"std: got {len(found['std'])} values, must be {len(found['mean'])}, as many as of mean")
        if not (found["std"] > 0).all():
            raise InputError(f"std: got {std}, must be above 0")
        for name, values in found.items():
            if values.min() < 0 or values.max() > 1:
                raise InputError(
                    f"{name}: got {values.tolist()}, must be of pixels in [0, 1]; divide by 255 what is of [0, 255]"
                )
            self.register_buffer(name, values.view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K) of images (B, C, H, W) in [0, 1]."""
        logits: Tensor = self.model(self._normalized(x))
        return logits

    def extra_repr(self) -> str:
        return f"mean={self.mean.flatten().tolist()}, std={self.std.flatten().tolist()}"

    def __getattr__(self, name: str) -> Any:
        found = _of_model(name, super().__getattr__)
        if name in _OF_IMAGES:
            return lambda x, *others: found(self._normalized(x), *others)
        if name == "reconstruct":
            return lambda x, *others: found(self._normalized(x), *others) * self.std + self.mean
        return found

    def _normalized(self, x: Tensor) -> Tensor:
        if len(self.mean) not in (1, x.shape[1]):
            raise InputError(f"x: got {x.shape[1]} channels, must be {len(self.mean)}, as many as mean and std have")
        return (x - self.mean) / self.std


class LogitsOf(nn.Module):
    """A model that returns a tuple, a dictionary or an object with the logits in it, as one that returns the logits.

    `class_energies`, `reconstruct`, `image_shape` and `n_classes` are the model's, where it has them.

    Args:
        model: takes images (B, C, H, W).
        pick: the key or the index of the logits (B, K) in what the model returns, the name of its attribute, or a
            function that takes them from it.

    Raises:
        InputError: the model's output has no such key; the message names those that there are.
    """

    def __init__(self, model: nn.Module, pick: str | int | Callable[[Any], Tensor]) -> None:
        super().__init__()
        _check_module(model)
        if isinstance(pick, bool) or not (isinstance(pick, (str, int)) or callable(pick)):
            raise InputError(f"pick: got {pick!r}, must be a key, an index or a function of the model's output")
        self.model, self.pick = model, pick

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K) of images (B, C, H, W)."""
        logits = _picked(self.model(x), self.pick)
        if not isinstance(logits, Tensor):
            raise InputError(f"pick: {self.pick!r} gave a {type(logits).__name__}, must give logits (B, K) as a tensor")
        return logits

    def extra_repr(self) -> str:
        return f"pick={self.pick!r}"

    def __getattr__(self, name: str) -> Any:
        return _of_model(name, super().__getattr__)


def _picked(output: Any, pick: str | int | Callable[[Any], Tensor]) -> Any:
    if callable(pick):
        return pick(output)
    if isinstance(output, Mapping):
        if pick not in output:
            raise InputError(f"pick: got {pick!r}, must be one of {', '.join(map(repr, output))}, the output's keys")
        return output[pick]
    if isinstance(pick, str):
        if not hasattr(output, pick):
            fields = [*getattr(output, "_fields", ()), *getattr(output, "__dict__", ())]
            has = f"with {', '.join(fields)}" if fields else "without names"
            raise InputError(f"pick: got {pick!r}, must be in what the model returns, a {type(output).__name__} {has}")
        return getattr(output, pick)
    if isinstance(output, Tensor) or not isinstance(output, Sequence):
        raise InputError(f"pick: got {pick!r}, must be of a tuple or list; the model returns a {type(output).__name__}")
    if not -len(output) <= pick < len(output):
        raise InputError(f"pick: got {pick}, must be in [0, {len(output) - 1}], as the output has {len(output)} parts")
    return output[pick]


def _check_module(model: Any) -> None:
    if not isinstance(model, nn.Module):
        raise InputError(f"model: got {type(model).__name__}, must be a torch.nn.Module")


def _channels(values: Any, argument: str, channels: int | None) -> Tensor:
    """(C,) numbers, or (1,)."""
    try:
        found = torch.as_tensor(values, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{argument}: got {values!r}, must be a number a channel") from error
    found = found.reshape(-1) if found.ndim == 0 or found.numel() == found.shape[0] else found
    if found.ndim != 1 or not len(found) or not found.isfinite().all():
        raise InputError(f"{argument}: got {values!r}, must be a finite number a channel")
    if channels is not None and len(found) not in (1, channels):
        raise InputError(f"{argument}: got {len(found)} values, must be {channels}, one a channel of the images")
    return found


def _of_model(name: str, own: Callable[[str], Any]) -> Any:
    """An attribute of a wrapper, or what it passes on from its model; AttributeError where the model has none."""
    return getattr(own("model"), name) if name in (*_OF_IMAGES, "reconstruct", *_SHAPES) else own(name)
