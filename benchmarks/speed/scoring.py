"""Class energies of all K labels against passes in float32, and as a share of what a matrix product reaches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import attacks
from robustrecon.models import StyleMemoryNet

from .report import PeakShare, Ratio
from .timing import in_turns

IMAGES = 512
SIDE = 2048  # of the matrices whose product is the peak
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
PASSES = ("float32 forward pass", "float32 autoencoder pass")


def scoring(k: int, precisions: Sequence[str], rounds: int) -> tuple[list[Ratio], list[PeakShare]]:
    """`scoring` is the library's; `naive scoring` decodes one batch of B·K (label, style) pairs in float32."""
    model, x = StyleMemoryNet(k).eval(), torch.rand(IMAGES, 1, 28, 28)

    def naive() -> Tensor:
        _, style = model.encode(x)
        labels = torch.eye(k).repeat(len(x), 1)
        drawn = model.decode(labels, style.repeat_interleave(k, 0))
        return (drawn.view(len(x), k, -1) - x.view(len(x), 1, -1)).square().sum(2)

    candidates: dict[str, Callable[[], object]] = {
        PASSES[0]: lambda: model(x),
        PASSES[1]: lambda: model.reconstruct(x),
        "naive scoring": naive,
    }
    for precision in precisions:
        candidates[f"scoring in {precision}"] = _scoring(model, precision, x)
        candidates[f"{precision} GEMM"] = _gemm(DTYPES[precision])
    with torch.no_grad():
        timings = in_turns(f"scoring, K = {k}", candidates, rounds)
        with FlopCounterMode(display=False) as counter:
            model.class_energies(x)
    operations, gemm_operations = counter.get_total_flops(), 2 * SIDE**3
    ratios, peaks = [], []
    for precision in precisions:
        what, gemm = f"scoring in {precision}", f"{precision} GEMM"
        ratios += [Ratio.of(IMAGES, timings, what, peer, f"K = {k}, ") for peer in (*PASSES, "naive scoring")]
        share = timings[gemm].over(timings[what])[1] * operations / gemm_operations
        gflops = operations / timings[what].median / 1e9
        peaks.append(PeakShare(f"K = {k}", precision, gflops, gemm_operations / timings[gemm].median / 1e9, share))
    return ratios, peaks


def _scoring(model: StyleMemoryNet, precision: str, x: Tensor) -> Callable[[], object]:
    scored = cast(StyleMemoryNet, attacks.in_precision(model, precision))
    return lambda: scored.class_energies(x)


def _gemm(dtype: torch.dtype) -> Callable[[], object]:
    a, b = torch.rand(2, SIDE, SIDE).to(dtype)
    return lambda: a @ b
