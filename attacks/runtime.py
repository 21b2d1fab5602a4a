"""Contexts in which models are run: evaluation mode, frozen weights, a seed. Flags and states are restored."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor, nn


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the random numbers inside, and restore the caller's random state (Python, numpy, torch)."""
    state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 - libraries draw from it
    with torch.random.fork_rng():
        seed_everything(seed)
        try:
            yield
        finally:
            random.setstate(state)
            np.random.set_state(numpy_state)  # noqa: NPY002


def seed_everything(seed: int) -> None:
    """Seed Python's, numpy's and torch's global generators, on every device."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.manual_seed(seed)


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards every sub-module's training flag is restored.

    Several threads may evaluate one module, or modules that share parts: the last thread to leave restores the flags.
    """
    with _TRAINING.off(module.modules()):
        yield


@contextlib.contextmanager
def frozen_eval(module: nn.Module) -> Iterator[None]:
    """`evaluating`, and no gradients for the weights, which saves their computation."""
    with _TRAINING.off(module.modules()), frozen(module):
        yield


@contextlib.contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """No gradients for the weights inside; afterwards every weight's flag is restored."""
    with _LEARNING.off(module.parameters()):
        yield


class _Flag:
    """A boolean attribute that stays off while some thread needs it off."""

    def __init__(self, attribute: str) -> None:
        self._attribute = attribute
        self._lock = threading.Lock()
        self._users: dict[int, int] = {}  # id of an owner -> how many need its flag off
        self._before: dict[int, bool] = {}

    @contextlib.contextmanager
    def off(self, owners: Iterable[nn.Module | Tensor]) -> Iterator[None]:
        held = list({id(owner): owner for owner in owners}.values())
        with self._lock:
            for owner in held:
                self._before.setdefault(id(owner), getattr(owner, self._attribute))
                self._users[id(owner)] = self._users.get(id(owner), 0) + 1
                if self._before[id(owner)]:
                    setattr(owner, self._attribute, False)
        try:
            yield
        finally:
            with self._lock:
                for owner in held:
                    self._users[id(owner)] -= 1
                    if not self._users[id(owner)]:
                        del self._users[id(owner)]
                        setattr(owner, self._attribute, self._before.pop(id(owner)))


_TRAINING, _LEARNING = _Flag("training"), _Flag("requires_grad")
