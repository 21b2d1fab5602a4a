"""Passes of a model in bfloat16: about twice as fast as float32 on processors that multiply in it.

An attack searches in bfloat16. Whatever is decided or reported is computed in float32.
"""

from __future__ import annotations

import contextlib
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .catalogue import PRECISIONS
from .errors import InputError, unknown_name
from .runtime import frozen_eval

UNITS = "AVX512-BF16, AMX, or CUDA from compute capability 8.0 on"
PASSES = (
    "score",
    "logits_and_score",
    "logits_and_label_scores",
    "class_energies",
    "logits_and_energies",
    "representations",
)


class InBfloat16(nn.Module):
    """A model whose matrix products and convolutions run in bfloat16, and whose outputs are float32.

    Its methods `PASSES` run so too, where the model has them; every other attribute is the model's own. The weights
    stay as they are: PyTorch's autocast decides which operations run in bfloat16.

    Args:
        model: gives logits (B, K) of images (B, C, H, W) in [0, 1].
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.training = model.training

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K), float32."""
        logits: Tensor = _in_bfloat16(self.model, x)
        return logits

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            found = getattr(super().__getattr__("model"), name)
        return partial(_in_bfloat16, found) if name in PASSES else found


def in_precision(model: nn.Module, precision: str) -> nn.Module:
    """The model with its passes in a precision, such as for scoring many images: `in_precision(model, "auto")(x)`.

    Args:
        model: gives logits (B, K) of images (B, C, H, W) in [0, 1], and perhaps scores or class energies.
        precision: "float32" gives the model itself, "bfloat16" an `InBfloat16`, "auto" that where its processor has
            instructions for it.

    Raises:
        InputError: unknown precision, or "bfloat16" where the processor or the model cannot.
    """
    return InBfloat16(model) if resolve_precision(precision, model) == "bfloat16" else model


def exact_model(model: nn.Module) -> nn.Module:
    """The model in its own precision, whether it is in an `InBfloat16` or not."""
    return model.model if isinstance(model, InBfloat16) else model


def resolve_precision(precision: str, model: nn.Module, x: Tensor | None = None) -> str:
    """What a precision comes to for a model: "float32" or "bfloat16".

    Args:
        precision: one of `PRECISIONS`; "auto" is bfloat16 where processor and model can, else float32.
        model: gives logits (B, K) of images (B, C, H, W) in [0, 1].
        x: (B, C, H, W) images, with which every layer is tried; without them, only processor and weights are looked at.

    Raises:
        InputError: unknown precision, or "bfloat16" where the processor, the weights' type or a layer cannot.
    """
    if precision not in PRECISIONS:
        unknown_name("precision", precision, PRECISIONS)
    if precision == "float32":
        return precision
    obstacle = _obstacle(model, x)
    if obstacle is None:
        return "bfloat16"
    if precision == "auto":
        return "float32"
    raise InputError(f"precision: got 'bfloat16', but {obstacle}; must be 'float32', or 'auto', which then is the same")


def bfloat16_unit(device: torch.device) -> str | None:
    """The instructions that multiply in bfloat16, "AMX", "AVX512-BF16" or "CUDA"; None where the processor has none."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return "CUDA" if torch.cuda.is_bf16_supported(including_emulation=False) else None
    if device.type == "cpu":
        if torch.cpu._is_amx_tile_supported():
            return "AMX"
        if torch.cpu._is_avx512_bf16_supported():
            return "AVX512-BF16"
    return None


def _in_bfloat16(function: Any, *arguments: Any) -> Any:
    device = next(argument.device for argument in arguments if isinstance(argument, Tensor))
    with torch.autocast(device.type, torch.bfloat16):
        return _as_float32(function(*arguments))


def _as_float32(output: Any) -> Any:
    if isinstance(output, Tensor):
        return output.float() if output.dtype == torch.bfloat16 else output
    return type(output)(map(_as_float32, output)) if isinstance(output, tuple) else output


def _obstacle(model: nn.Module, x: Tensor | None) -> str | None:
    """Why a model cannot run in bfloat16; None where it can."""
    tensors = [*model.parameters(), *model.buffers()]
    device = tensors[0].device if tensors else torch.device("cpu") if x is None else x.device
    if bfloat16_unit(device) is None:
        return f"the {device.type} has no instructions for it ({UNITS})"
    for tensor in tensors:
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            return f"the model's weights are {tensor.dtype}"
    return None if x is None else _unable_layer(model, x)


def _unable_layer(model: nn.Module, x: Tensor) -> str | None:
    """Which layer fails in bfloat16, forwards or backwards; None where none does, or where it fails in float32 too."""
    entered: list[str] = []
    searched = InBfloat16(model)
    leaf = x.detach().clone().requires_grad_()
    with contextlib.ExitStack() as stack, torch.enable_grad():
        stack.enter_context(frozen_eval(model))
        for name, part in model.named_modules():
            title = f"the layer {name} ({type(part).__name__})" if name else f"{type(part).__name__} itself"
            stack.callback(part.register_forward_pre_hook(partial(_enter, entered, title)).remove)
            stack.callback(part.register_forward_hook(partial(_leave, entered)).remove)
        try:
            for pass_ in (searched, getattr(searched, "logits_and_score", None)):
                if pass_ is None:
                    continue
                outputs = pass_(leaf)
                total = sum(output.sum() for output in (outputs if isinstance(outputs, tuple) else (outputs,)))
                if isinstance(total, Tensor) and total.requires_grad:
                    torch.autograd.grad(total, leaf, allow_unused=True)
        except Exception as error:
            where = entered[-1] if entered else "the model's backward pass"
            entered.clear()
            model(leaf)  # what fails in float32 too is another error, and is raised as such
            reason = str(error).splitlines()[0]
            return f"{where} cannot compute in it ({reason})"
    return None


def _enter(entered: list[str], title: str, *_: Any) -> None:
    entered.append(title)


def _leave(entered: list[str], *_: Any) -> None:
    entered.pop()
