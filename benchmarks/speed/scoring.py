"""Class energies of all K labels against one forward pass and one pass of the autoencoder."""

from __future__ import annotations

from collections.abc import Callable

import torch

from robustrecon.models import StyleMemoryNet

from .timing import Timing, in_turns


def scoring(model: StyleMemoryNet, x: torch.Tensor, rounds: int) -> dict[str, Timing]:
    """`scoring` is the library's; `naive scoring` decodes one batch of B·K (label, style) pairs."""

    def naive() -> torch.Tensor:
        _, style = model.encode(x)
        k = model.n_classes
        labels = torch.eye(k).repeat(len(x), 1)
        drawn = model.decode(labels, style.repeat_interleave(k, 0))
        return (drawn.view(len(x), k, -1) - x.view(len(x), 1, -1)).square().sum(2)

    def without_gradient(function: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        return torch.no_grad()(function)

    candidates = {
        "forward pass": lambda: model(x),
        "autoencoder pass": lambda: model.reconstruct(x),
        "scoring": lambda: model.class_energies(x),
        "naive scoring": naive,
    }
    return in_turns({name: without_gradient(run) for name, run in candidates.items()}, rounds)
