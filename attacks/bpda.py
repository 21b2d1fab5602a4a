"""Backward pass differentiable approximation: the attack on models with parts that have no useful gradient."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .errors import InputError, unknown_name
from .goals import Goal, require_gradient
from .pgd import PGD


@dataclass(kw_only=True, eq=False)
class BPDA(PGD):
    """Projected gradient ascent in which some parts of the victim are the identity to the backward pass.

    For parts that squeeze, round, quantise or purify, so that their output is close to their input. A. Athalye,
    N. Carlini, D. Wagner, "Obfuscated Gradients Give a False Sense of Security", ICML 2018.

    Args:
        parts: names of the victim's sub-modules, as `named_modules` gives them; each must keep the shape of what
            it is given. By default those without weights that keep the shape and pass no gradient on.
        Others as for `PGD`.
    """

    name = "bpda"
    needs_gradient = False  # of the victim as it is; with its parts replaced, `run` looks itself

    parts: Sequence[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.parts, str):
            raise InputError(f"parts: got {self.parts!r}, must be a list of names")

    def run(self, victim: nn.Module, x: Tensor, y: Tensor, goal: Goal) -> Tensor:
        chosen = _blocking(victim, x, y, goal) if self.parts is None else _named(victim, self.parts)
        with identity_backward(chosen):
            require_gradient(victim, x[:1], y[:1], goal, self.name)
            return super().run(victim, x, y, goal)


@contextlib.contextmanager
def identity_backward(parts: Mapping[str, nn.Module]) -> Iterator[None]:
    """Inside, the gradient passes through `parts` (name -> module) as though they returned their input.

    Raises:
        InputError: a part is called whose output has not the shape of its input.
    """
    with contextlib.ExitStack() as hooks:
        for name, part in parts.items():

            def straight(_: nn.Module, given: tuple[Any, ...], output: Any, name: str = name) -> Tensor:
                if not _keeps_shape(given, output):
                    raise InputError(f"parts: {name} does not keep the shape of its input, must for bpda")
                return output.detach() + (given[0] - given[0].detach())  # the output, with the gradient of the input

            hooks.callback(part.register_forward_hook(straight).remove)
        yield


def _named(victim: nn.Module, names: Sequence[str]) -> dict[str, nn.Module]:
    known = dict(victim.named_modules())
    for name in names:
        if name not in known:
            unknown_name("parts", name, known)
    return {name: known[name] for name in names}


def _blocking(victim: nn.Module, x: Tensor, y: Tensor, goal: Goal) -> dict[str, nn.Module]:
    """The parts without weights that keep the shape of their input and pass no gradient on."""
    found: dict[str, nn.Module] = {}
    looking = [True]  # off while a part is called by itself

    with contextlib.ExitStack() as hooks:
        for name, part in victim.named_modules():
            if any(True for _ in part.children()) or any(True for _ in part.parameters()):
                continue

            def look(part: nn.Module, given: tuple[Any, ...], output: Any, name: str = name) -> None:
                if not (looking[0] and _keeps_shape(given, output)):
                    return
                looking[0] = False
                if not _passes_gradient(part, given[0]):
                    found[name] = part
                looking[0] = True

            hooks.callback(part.register_forward_hook(look).remove)
        with torch.no_grad():
            goal.assess(victim, x[:8], y[:8])
    return found


def _keeps_shape(given: tuple[Any, ...], output: Any) -> bool:
    return (
        len(given) == 1
        and all(isinstance(value, Tensor) for value in (*given, output))
        and (given[0].shape == output.shape)
    )


@torch.enable_grad()
def _passes_gradient(part: nn.Module, given: Tensor) -> bool:
    if not given.is_floating_point():
        return True
    leaf = given.detach().clone().requires_grad_()
    output = part(leaf * 1.0)  # a part may write to what it is given
    if not output.requires_grad:
        return False
    # A product with noise, not a sum: the outputs of a softmax always sum to 1. Its own noise, not the attack's.
    noise = torch.randn(output.shape, generator=torch.Generator().manual_seed(0)).to(output)
    (gradient,) = torch.autograd.grad((output * noise).sum(), leaf, allow_unused=True)
    return gradient is not None and bool(gradient.any())
