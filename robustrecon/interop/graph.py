"""A defended classifier as one graph of tensor operations: images in, verdict out.

What draws by an input gradient has the operations of its backward pass in the graph, so that who runs it needs no
automatic differentiation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch._decomp import get_decompositions
from torch.export import Dim, ExportedProgram
from torch.fx.experimental.proxy_tensor import make_fx

from ..defence import DefendedClassifier
from ..detectors import parts
from ..detectors.scoring import judged
from ..runtime import device_of, evaluating, frozen
from ..types import ImageShape, InputError

OUTPUTS = ("label", "score", "p_value", "rejected")
TRACED = (5, 7, 11, 13)  # how many images are traced, one that is no side: equal sizes would become one symbol

_aten = torch.ops.aten
_SHORTER = (
    _aten.threshold_backward,
    _aten.silu_backward,
    _aten._softmax_backward_data,
    _aten._log_softmax_backward_data,
    _aten.upsample_nearest2d_backward,
    _aten._unsafe_index_put,
)


def verdict_graph(defended: DefendedClassifier) -> ExportedProgram:
    """The graph of `DefendedClassifier.inspect`, for any number of images.

    Args:
        defended: a calibrated classifier.

    Returns:
        What `torch.export.export` gives: its `module()` takes images (B, C, H, W) in [0, 1] and gives label (B,) int64,
        score (B,) float32, p-value (B,) float64 and rejected (B,) bool. It does not check the images.

    Raises:
        InputError: not calibrated, images of unknown shape, or a model or detector that cannot be written as one graph.
    """
    calibration = defended.checked_calibration()
    if defended.image_shape is None:
        raise InputError("model: does not say the shape of its images, must say it to be exported")
    shape: ImageShape = defended.image_shape
    judges = parts(defended.detector)
    calibration.decide(calibration.scores[:1])  # thresholds and curves are numbers: computed now, not in the graph

    def verdict(x: Tensor) -> tuple[Tensor, ...]:
        # The shape is written down, so that nothing but the number of images is open.
        label, scores, _ = judged(judges, defended.model, x.view(x.shape[0], *shape))
        return label, *calibration.decide(scores)

    traced = next(n for n in TRACED if n not in shape)
    x = torch.rand(traced, *shape, device=device_of(defended.model))
    table = {**get_decompositions(_SHORTER), **_DECOMPOSITIONS}
    with torch.no_grad(), evaluating(defended), frozen(defended):
        try:
            graph = make_fx(verdict, table, tracing_mode="symbolic", _allow_non_fake_inputs=True)(x)
            graph.graph.eliminate_dead_code()
            graph.recompile()
            return torch.export.export(graph, (x,), dynamic_shapes=({0: Dim("batch")},))
        except InputError:
            raise
        except Exception as error:  # a tracer meets whatever a model of the user's does
            raise InputError(
                f"model: {type(defended.model).__name__} with {defended.detector.name} cannot be written as one graph "
                f"for any number of images ({_reason(error)})"
            ) from error


def _reason(error: Exception) -> str:
    """The first sentence of what a tracer says, which may be pages."""
    said = " ".join(str(error).split())
    return (said.split(". ")[0] or type(error).__name__)[:200]


def _searchsorted(known: Tensor, values: Tensor) -> Tensor:
    """How many of `known` (..., n), ascending, are below each of `values` (..., B)."""
    return (~(known[..., None, :] >= values[..., None])).sum(-1)


def _convolution_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias_sizes: object,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: object,
    groups: int,
    needed: Sequence[bool],
) -> Any:
    """The gradient in x of a convolution: the transposed convolution, or the other way round."""
    if any(needed[1:]):
        return NotImplemented
    left_over = [0] * len(stride)
    if not transposed:
        covered = [
            (n - 1) * s - 2 * p + d * (k - 1) + 1
            for n, s, p, d, k in zip(grad.shape[2:], stride, padding, dilation, weight.shape[2:], strict=True)
        ]
        left_over = [int(a) - int(b) for a, b in zip(x.shape[2:], covered, strict=True)]
    found = _aten.convolution(grad, weight, None, stride, padding, dilation, not transposed, left_over, groups)
    return found, None, None


def _max_pool2d_with_indices_backward(
    grad: Tensor,
    x: Tensor,
    kernel_size: object,
    stride: object,
    padding: object,
    dilation: object,
    ceil_mode: bool,
    indices: Tensor,
) -> Tensor:
    """Each gradient goes to the pixel that was the largest."""
    return torch.zeros_like(x).flatten(2).scatter_add(2, indices.flatten(2), grad.flatten(2)).view(x.shape)


def _native_group_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    n: int,
    channels: int,
    positions: int,
    groups: int,
    eps: float,
) -> Any:
    if weight is None or bias is None or x.ndim != 4:
        return NotImplemented
    rows = x.reshape(x.shape[0], groups, -1)
    normal, mean, scale = _aten.native_layer_norm(rows, rows.shape[2:], None, None, eps)
    return normal.view(x.shape) * _per_channel(weight) + _per_channel(bias), mean, scale


def _native_group_norm_backward(
    grad: Tensor,
    x: Tensor,
    mean: Tensor,
    scale: Tensor,
    weight: Tensor | None,
    n: int,
    channels: int,
    positions: int,
    groups: int,
    needed: Sequence[bool],
) -> Any:
    if weight is None or x.ndim != 4 or any(needed[1:]):
        return NotImplemented
    wanted = (grad * _per_channel(weight)).reshape(x.shape[0], groups, -1)
    normal = (x.reshape(x.shape[0], groups, -1) - mean) * scale
    of_scale = normal * (wanted * normal).mean(2, keepdim=True)
    found = (wanted - wanted.mean(2, keepdim=True) - of_scale) * scale
    return found.view(x.shape), None, None


def _per_channel(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1)


def _resized(x: Tensor, size: Sequence[int], align_corners: bool, *scales: object) -> Any:
    """Bilinear with anti-aliasing, as two matrix products."""
    if align_corners:
        return NotImplemented
    rows, columns = (_weights(x.shape[2 + axis], int(size[axis])).to(x) for axis in range(2))
    return rows @ x @ columns.T


def _weights(n: int, m: int) -> Tensor:
    """(m, n): how much each of m pixels takes from each of n, a triangle as wide as two of the larger pixels."""
    scale = n / m
    width = max(scale, 1.0)
    rows = []
    for row in range(m):
        centre = (row + 0.5) * scale
        reached = range(max(0, int(centre - width + 0.5)), min(n, int(centre + width + 0.5)))
        heights = {column: max(0.0, 1 - abs(column + 0.5 - centre) / width) for column in reached}
        total = sum(heights.values())
        rows.append([heights.get(column, 0.0) / total for column in range(n)])
    return torch.tensor(rows)


_DECOMPOSITIONS: dict[Any, Any] = {
    _aten.searchsorted.Tensor: _searchsorted,
    _aten.convolution_backward.default: _convolution_backward,
    _aten.max_pool2d_with_indices_backward.default: _max_pool2d_with_indices_backward,
    _aten.native_group_norm.default: _native_group_norm,
    _aten.native_group_norm_backward.default: _native_group_norm_backward,
    _aten._upsample_bilinear2d_aa.default: _resized,
}
"""What ONNX has no operator for, or what torch's own decomposition writes at length."""
