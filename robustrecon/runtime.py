"""How things run: seeds, device, evaluation mode, batches, progress."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from .attacks import evaluating, frozen, seed_everything, seeded
from .types import InputError

__all__ = [
    "Progress",
    "batched",
    "device_of",
    "dtype_of",
    "evaluating",
    "frozen",
    "pieces",
    "recorded",
    "resolve_device",
    "seed_everything",
    "seeded",
    "traced",
]

SCORING_BATCH = 512


def resolve_device(name: str = "auto") -> torch.device:
    """The device called `name`; "auto" is CUDA where there is one, else the CPU.

    On CUDA, convolutions in float32 then are in float32: PyTorch's default rounds what they multiply to 10 bits (TF32).

    Raises:
        InputError: no such device on this machine.
    """
    if name == "auto":
        return resolve_device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type in ("cpu", "cuda"):
            torch.empty(0, device=device)
            if device.type == "cuda":
                torch.backends.cudnn.allow_tf32 = False
            return device
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device: got {name!r}, must be auto, cpu or cuda, and on this machine") from error
    raise InputError(f"device: got {name!r}, must be auto, cpu or cuda")


def device_of(module: nn.Module) -> torch.device:
    """The device of a module's first parameter or buffer; the CPU when it has none."""
    for tensor in [*module.parameters(), *module.buffers()]:
        return tensor.device
    return torch.device("cpu")


def dtype_of(module: nn.Module) -> torch.dtype:
    """The floating-point type of a module's first such parameter or buffer; float32 when it has none."""
    for tensor in [*module.parameters(), *module.buffers()]:
        if tensor.is_floating_point():
            return tensor.dtype
    return torch.float32


def batched(
    function: Callable[[Tensor], tuple[Tensor, ...]], x: Tensor, batch_size: int = SCORING_BATCH
) -> tuple[Tensor, ...]:
    """Apply `function` to slices of `x` without gradient and join each of its outputs: flat in memory."""
    with torch.no_grad():
        parts = [function(part) for part in x.split(batch_size)]
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))


def traced(x: Tensor) -> bool:
    """Whether x stands for a batch of any size: operations on it are written down as a graph."""
    return isinstance(x.shape[0], torch.SymInt)


def pieces(x: Tensor, size: int) -> tuple[Tensor, ...]:
    """Slices of x of `size` rows at most, as `split` gives them; x as a whole where it is traced for any batch."""
    return (x,) if traced(x) else x.split(size)


class Progress:
    """Progress on stderr with rate and time left: a bar on a terminal, a line now and then in a log.

    Used as a context manager; `advance(n, **figures)` counts finished units and shows the figures.
    """

    LOG_EVERY_SECONDS = 10.0

    def __init__(self, title: str, total: int, unit: str, show: bool = True) -> None:
        self.title, self.total, self.unit, self.show = title, total, unit, show
        self.done = self._before = 0
        self._bar: Any = None

    def __enter__(self) -> Progress:
        self._started = self._logged = time.monotonic()
        if self.show and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.percentage:3.0f}%"),
                TextColumn("{task.fields[figures]}"),
                TimeRemainingColumn(compact=True),
                console=Console(stderr=True),
            )
            self._bar.start()
            self._task = self._bar.add_task(self.title, total=self.total, figures="")
        return self

    def resume(self, done: int) -> None:
        """Count `done` units as finished before this process began: they do not enter the rate."""
        self.done = self._before = done

    def advance(self, n: int = 1, **figures: float) -> None:
        """Count `n` more finished units."""
        self.done += n
        if not self.show:
            return
        now = time.monotonic()
        rate = (self.done - self._before) / max(now - self._started, 1e-9)
        speed = f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
        shown = [*(f"{name} {value:.4g}" for name, value in figures.items()), f"{speed} {self.unit}/s"]
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, figures=", ".join(shown))
        elif now - self._logged >= self.LOG_EVERY_SECONDS or self.done >= self.total:
            self._logged = now
            left = (self.total - self.done) / max(rate, 1e-9)
            shown.append(f"{left:.0f} s left" if self.done < self.total else f"{now - self._started:.0f} s")
            print(f"{self.title}: {self.done}/{self.total}, {', '.join(shown)}", file=sys.stderr, flush=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def recorded(
    watched: Sequence[nn.Module], model: Callable[[Tensor], Any], x: Tensor, *, inputs: bool = False
) -> tuple[Any, list[Tensor]]:
    """What `model` gives for images x, and what its modules `watched` gave on the way, in the order of their calls.

    Args:
        watched: modules that `model` calls.
        model: called once, with x.
        x: (B, C, H, W).
        inputs: record what the modules took instead, the first argument.
    """
    seen: list[Tensor] = []
    thread = threading.get_ident()  # other threads may run the same model meanwhile

    def record(_: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        if threading.get_ident() == thread:
            seen.append((given[0] if inputs else output).clone())  # what follows may write to it

    hooks = [part.register_forward_hook(record) for part in watched]
    try:
        return model(x), seen
    finally:
        for hook in hooks:
            hook.remove()
