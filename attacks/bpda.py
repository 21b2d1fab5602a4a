"""Backward pass differentiable approximation (BPDA): the attack on models with parts without a useful gradient."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .backward import attacked_model
from .errors import InputError, unknown_name
from .goals import Goal, require_gradient
from .pgd import PGD


@dataclass(kw_only=True, eq=False)
class BPDA(PGD):
    """Projected gradient ascent that treats some parts of the victim as the identity in the backward pass.

    It suits parts that squeeze, round, quantise or purify, whose output is close to their input. A. Athalye,
    N. Carlini, D. Wagner, "Obfuscated Gradients Give a False Sense of Security", ICML 2018. A front end, which has a
    gradient, but a steep one, is better given a gentler slope by `front_end`.

    Args:
        parts: names of the victim's sub-modules, as `named_modules` gives them; each must keep the shape of its
            input. By default all sub-modules without weights that keep the shape and pass no gradient on.
        Others: as for `PGD`.
    """

    name = "bpda"
    needs_gradient = False  # `perturb` checks the gradient once the parts are replaced

    parts: Sequence[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.parts, str):
            raise InputError(f"parts: got {self.parts!r}, must be a list of names")

    def perturb(self, victim: nn.Module, x: Tensor, y: Tensor, goal: Goal) -> Tensor:
        model = attacked_model(victim)
        chosen = (
            _parts_without_gradient(model, x, y, goal) if self.parts is None else _modules_by_name(model, self.parts)
        )
        with identity_backward(chosen):
            require_gradient(victim, x[:1], y[:1], goal, self.name)
            return super().perturb(victim, x, y, goal)


@contextlib.contextmanager
def identity_backward(parts: Mapping[str, nn.Module]) -> Iterator[None]:
    """Inside the context, the gradient passes through `parts` (name -> module) as if they returned their input.

    Raises:
        InputError: the output of a part does not have the shape of its input.
    """
    with contextlib.ExitStack() as hooks:
        for name, part in parts.items():

            def straight_through(_: nn.Module, given: tuple[Any, ...], output: Any, name: str = name) -> Tensor:
                if not _keeps_shape(given, output):
                    raise InputError(f"parts: {name} does not keep the shape of its input, which bpda requires")
                return output.detach() + (given[0] - given[0].detach())  # the output, with the gradient of the input

            hooks.callback(part.register_forward_hook(straight_through).remove)
        yield


def _modules_by_name(victim: nn.Module, names: Sequence[str]) -> dict[str, nn.Module]:
    known = dict(victim.named_modules())
    for name in names:
        if name not in known:
            unknown_name("parts", name, known)
    return {name: known[name] for name in names}


def _parts_without_gradient(victim: nn.Module, x: Tensor, y: Tensor, goal: Goal) -> dict[str, nn.Module]:
    """The sub-modules without weights that keep the shape of their input and pass no gradient on."""
    found: dict[str, nn.Module] = {}
    active = [True]  # off while the hook itself calls a part

    with contextlib.ExitStack() as hooks:
        for name, part in victim.named_modules():
            if any(True for _ in part.children()) or any(True for _ in part.parameters()):
                continue

            def check_part(part: nn.Module, given: tuple[Any, ...], output: Any, name: str = name) -> None:
                if not (active[0] and _keeps_shape(given, output)):
                    return
                active[0] = False
                if not _passes_gradient(part, given[0]):
                    found[name] = part
                active[0] = True

            hooks.callback(part.register_forward_hook(check_part).remove)
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
    output = part(leaf * 1.0)  # a part may write to its input
    if not output.requires_grad:
        return False
    # A product with noise, not a sum, because the outputs of a softmax always sum to 1. The attack's generator is
    # not used, so that its random numbers do not change.
    noise = torch.randn(output.shape, generator=torch.Generator().manual_seed(0)).to(output)
    (gradient,) = torch.autograd.grad((output * noise).sum(), leaf, allow_unused=True)
    return gradient is not None and bool(gradient.any())
