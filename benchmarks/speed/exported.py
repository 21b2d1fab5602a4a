"""Verdicts of exported graphs in ONNX Runtime against those of PyTorch, on one thread each."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnxruntime
import torch

from robustrecon import DefendedClassifier, export_onnx, load_defended

from .report import Ratio
from .timing import in_turns

NETWORKS = {
    "style-memory/mnist": 256,
    "robust/mnist": 256,
    "generative-convnet/mnist": 256,
    "generative-gradient/mnist": 256,
    "egc/mnist": 16,
}
"""Networks, and how many images each judges in a round."""


def exported(rounds: int) -> list[Ratio]:
    """How long ONNX Runtime takes as a multiple of the time of `DefendedClassifier.inspect`."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [_of(network, n, rounds) for network, n in NETWORKS.items()]
    finally:
        torch.set_num_threads(threads)


def _of(network: str, n: int, rounds: int) -> Ratio:
    defended = load_defended(network)
    session, x = _session(defended), torch.rand(n, *(defended.image_shape or ()))
    timings = in_turns(
        f"ONNX Runtime, {network}",
        {"ONNX Runtime": lambda: session.run(None, {"images": x.numpy()}), "PyTorch": lambda: defended.inspect(x)},
        rounds,
    )
    return Ratio.of(n, timings, "ONNX Runtime", "PyTorch", f"verdicts of {network} in ")


def _session(defended: DefendedClassifier) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        return onnxruntime.InferenceSession(export_onnx(defended, Path(folder) / "graph.onnx"), options)
