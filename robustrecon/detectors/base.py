"""What a detector sees, and what a detector is."""

from __future__ import annotations

import copy
import difflib
import inspect
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, ClassVar, TypeAlias, TypeVar, final

import torch
from torch import Tensor, nn

from ..runtime import batched, device_of, dtype_of, recorded
from ..types import InputError, nearest

Cached = TypeVar("Cached")


class Evidence:
    """B images and what a model makes of them; each part is computed when it is first asked for, and once.

    Everything is differentiable in x, on its device, and in its precision (float32 where x has half of that).

    Args:
        model: any `nn.Module` that gives logits (B, K). Some parts ask for further methods: `class_energies(x)`,
            `reconstruct(x, labels)`, `logits_and_energies(x, labels)` (to share work).
        x: (B, C, H, W) images in [0, 1].
        predicted: (B,) labels to judge x under; by default those of the highest logit.
        compared: (B, J) the only labels whose energies are computed, the predicted one among them; the energies of the
            others are infinite. All K by default.
        with_energies: whether energies will be asked for, so that one pass may give them with the logits.
    """

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        predicted: Tensor | None = None,
        compared: Tensor | None = None,
        with_energies: bool = False,
    ) -> None:
        self.model, self.x = model, x
        self._predicted, self._compared, self._with_energies = predicted, compared, with_energies
        self._features: dict[str | None, Tensor] = {}
        self._cached: dict[object, Any] = {}

    def under(self, predicted: Tensor) -> Evidence:
        """The same images judged under other labels (B,); shares what was computed and does not depend on them."""
        other = copy.copy(self)
        other._predicted = predicted
        for part in ("reconstruction", "redrawn_logits"):
            other.__dict__.pop(part, None)
        return other

    @property
    def predicted(self) -> Tensor:
        """(B,) int64 labels that x is judged under."""
        return self.logits.argmax(1) if self._predicted is None else self._predicted

    @cached_property
    def logits(self) -> Tensor:
        """(B, K).

        Raises:
            InputError: the model gives something else.
        """
        if self._with_energies and callable(getattr(self.model, "logits_and_energies", None)):
            logits, self.__dict__["energies"] = self._logits_and_energies()
            return logits
        return self._as_logits(self.model(self._input))

    @cached_property
    def energies(self) -> Tensor:
        """(B, K): how badly each label explains x, lower is better; infinite for labels that are not compared.

        Raises:
            InputError: the model has no `class_energies`, or it gives another shape than (B, K).
        """
        if "logits" not in self.__dict__ and callable(getattr(self.model, "logits_and_energies", None)):
            self.__dict__["logits"], energies = self._logits_and_energies()
            return energies
        energies = self._in_precision(self._ask("class_energies", self._input))
        if energies.shape != self.logits.shape:
            raise InputError(
                f"model: class_energies gave {tuple(energies.shape)}, must be the logits' {tuple(self.logits.shape)}"
            )
        return energies

    @cached_property
    def reconstruction(self) -> Tensor:
        """(B, C, H, W): x drawn again under the predicted label.

        Raises:
            InputError: the model has no `reconstruct`.
        """
        return self._in_precision(self._ask("reconstruct", self._input, self.predicted))

    @cached_property
    def redrawn_logits(self) -> Tensor:
        """(B, K) logits of the reconstruction."""
        return self._as_logits(self.model(self.reconstruction.to(self._input.dtype)))

    def features(self, layer: str | None = None) -> Tensor:
        """(B, D): what a layer of the model gives for x, flattened.

        Args:
            layer: name of a sub-module, as `named_modules` gives it, whose output is taken; by default the input of the
                last linear layer that the forward pass calls.

        Raises:
            InputError: no such sub-module, or none that was called.
        """
        if layer not in self._features:
            if layer is not None:
                check_layer(self.model, layer)
            modules = dict(self.model.named_modules())
            watched = [modules[layer]] if layer else [part for part in modules.values() if isinstance(part, nn.Linear)]
            what = f"the layer {layer}" if layer else "a linear layer"
            self._features[layer] = self._recorded(watched, what, inputs=layer is None)[-1].flatten(1)
        return self._features[layer]

    def cached(self, key: object, compute: Callable[[], Cached]) -> Cached:
        """What `compute` gives, computed when `key` is first asked for: for what does not depend on `predicted`.

        A detector that runs the model on changed images uses itself as the key, and runs it once for all labels.
        """
        if key not in self._cached:
            self._cached[key] = compute()
        return self._cached[key]

    @cached_property
    def layer_outputs(self) -> list[Tensor]:
        """(B, ...) each: what every convolutional and linear layer gives for x, in the order of the forward pass.

        Raises:
            InputError: the model calls none.
        """
        watched = [part for part in self.model.modules() if isinstance(part, (nn.Linear, nn.modules.conv._ConvNd))]
        return self._recorded(watched, "a convolutional or linear layer")

    @cached_property
    def _input(self) -> Tensor:
        return self.x.to(dtype_of(self.model))

    def _logits_and_energies(self) -> tuple[Tensor, Tensor]:
        given, energies = self._ask("logits_and_energies", self._input, self._compared)
        logits = self._as_logits(given)
        wanted = logits.shape if self._compared is None else self._compared.shape
        if energies.shape != wanted:
            raise InputError(
                f"model: logits_and_energies gave energies {tuple(energies.shape)}, must be {tuple(wanted)}"
            )
        if self._compared is not None:
            energies = torch.full_like(logits, torch.inf).scatter(1, self._compared, energies.to(logits.dtype))
        return logits, self._in_precision(energies)

    def _ask(self, method: str, *arguments: Any) -> Any:
        found = getattr(self.model, method, None)
        if not callable(found):
            raise InputError(f"model: {type(self.model).__name__} has no {method}, which the detector needs")
        return found(*arguments)

    def _as_logits(self, output: Any) -> Tensor:
        if not isinstance(output, Tensor):
            raise InputError(
                f"model: {type(self.model).__name__} gave a {type(output).__name__}, must give logits (B, K) as a "
                "tensor; wrap it in a module that picks them"
            )
        if output.ndim != 2 or output.shape[0] != self.x.shape[0] or not output.is_floating_point():
            raise InputError(
                f"model: {type(self.model).__name__} gave {output.dtype} of shape {tuple(output.shape)}, must give "
                f"floating-point logits ({len(self.x)}, K)"
            )
        return self._in_precision(output)

    def _in_precision(self, values: Tensor) -> Tensor:
        """Half precision is for passing through a network, not for sums and differences of what comes out."""
        return values.double() if self.x.dtype == torch.float64 else values.float()

    def _recorded(self, watched: Sequence[nn.Module], what: str, *, inputs: bool = False) -> list[Tensor]:
        given, seen = recorded(watched, self.model, self._input, inputs=inputs)
        output = self._as_logits(given)
        self.__dict__.setdefault("logits", output)
        if not seen:
            raise InputError(f"layer: {type(self.model).__name__} does not call {what}, must be one that it calls")
        return [self._in_precision(values) for values in seen]


def check_layer(model: nn.Module, layer: str) -> None:
    """Whether a model has a sub-module of this name, as `named_modules` gives it.

    Raises:
        InputError: it has not; the message has the nearest names.
    """
    known = [name for name, _ in model.named_modules() if name]
    if layer not in known:
        close = difflib.get_close_matches(layer, known, n=5, cutoff=0.3) or known[:5]
        some = f"among others {', '.join(close)}" if close else "none"
        raise InputError(f"layer: unknown name {layer!r}{nearest(layer, known)} ({type(model).__name__} has {some})")


class Detector(nn.Module, ABC):
    """A score of an input; higher is more suspicious. A subclass writes `score`.

    Attributes:
        name: what the catalogue, cards and results call it.
        requires: methods that its model must have beside `forward`.
        several_passes: whether the score runs the model on changed images too. No calibration scores of such a detector
            are stored beside a trained model.
        differentiable: whether the score has a gradient in x. One that has none makes attacks that follow it fail:
            they refuse it, and say which attacks need no gradient.
    """

    name: str
    requires: ClassVar[tuple[str, ...]] = ()
    several_passes: ClassVar[bool] = False
    differentiable: ClassVar[bool] = True

    @abstractmethod
    def score(self, evidence: Evidence) -> Tensor:
        """(B,) scores of the images, judged under `evidence.predicted`."""

    def extra_repr(self) -> str:
        return repr(self.name)


class FittedDetector(Detector):
    """A detector that needs training images before it can score. A subclass writes `statistics` and `score`.

    `score` reads what `statistics` gave as attributes of the same names; they are saved with the classifier.

    Attributes:
        fit_seconds: what `fit` took; None where the statistics came from a file.
    """

    fit_seconds: float | None = None

    @abstractmethod
    def statistics(self, model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Tensors by name, from training images x (N, C, H, W) in [0, 1] with labels y (N,); without gradient."""

    @property
    def is_fitted(self) -> bool:
        """Whether there are statistics."""
        return bool(self._buffers)

    @final
    def fit(self, model: nn.Module, x: Tensor, y: Tensor) -> FittedDetector:
        """Learn from the model's training images (N, C, H, W) in [0, 1] and their labels (N,); returns self."""
        started = time.monotonic()
        with torch.no_grad():
            self.set_statistics(self.statistics(model, x, y))
        self.fit_seconds = time.monotonic() - started
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        own = {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}
        self.set_statistics({name: torch.empty_like(value) for name, value in own.items()})
        super()._load_from_state_dict(state_dict, prefix, *others)

    @final
    def set_statistics(self, tensors: dict[str, Tensor]) -> None:
        """Take on statistics that were computed before."""
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)


def gathered(model: nn.Module, x: Tensor, question: Callable[[Evidence], Tensor]) -> Tensor:
    """What `question` says of images x (N, C, H, W), batch by batch on the model's device: (N, ...)."""
    device = device_of(model)
    (answers,) = batched(lambda part: (question(Evidence(model, part.to(device))),), x)
    return answers


Score: TypeAlias = Callable[[Evidence], Tensor]


class FunctionDetector(Detector):
    """A function of an `Evidence` that gives scores (B,), as a detector.

    Raises:
        InputError: it does not take one argument.
    """

    def __init__(self, function: Score) -> None:
        super().__init__()
        self.function = function
        self.name = getattr(function, "__name__", repr(function))
        try:
            inspect.signature(function).bind(None)
        except TypeError as error:
            raise InputError(
                f"detector: got {self.name}, must be a function of one Evidence (its logits, energies, ...): {error}"
            ) from error
        except ValueError:  # a callable that does not tell its parameters
            return

    def score(self, evidence: Evidence) -> Tensor:
        return self.function(evidence)
