"""Pictures of a trained generative ConvNet: chains from noise, and drawings as sums of functions.

python -m benchmarks.convnet_pictures --model runs/convnet --out results/energy_models

Expected time: a minute on one core. Writes convnet-chain.png and convnet-basis.png.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Generator, Tensor, nn

from robustrecon import InputError, load, plotting
from robustrecon.figures.base import WIDTH
from robustrecon.figures.sheets import show
from robustrecon.models import GenerativeConvNet
from robustrecon.runtime import recorded

SHOWN = 10  # moments of a chain
TERMS = 7  # basis functions of a drawing that are shown one by one
DPI = 170


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="generative-convnet/mnist", help="a folder that `train` wrote, or a name")
    parser.add_argument("--out", type=Path, default=Path("runs/energy_models"))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    model = load(given.model)
    if not isinstance(model, GenerativeConvNet):
        raise InputError(f"model: got {model.name}, must be {GenerativeConvNet.name}")
    generator = torch.Generator().manual_seed(given.seed)
    labels = torch.arange(model.n_classes)
    samples = model.sample(labels, generator)
    steps, moments = chains(model, labels, generator)
    print(draw(moments, given.out / "convnet-chain.png", columns=[*map(str, steps), "drawing"]))
    titles = ["drawing", *["basis function"] * TERMS, "all others"]
    print(draw(basis(model, samples, labels), given.out / "convnet-basis.png", columns=titles))


def chains(model: GenerativeConvNet, labels: Tensor, generator: Generator) -> tuple[list[int], Tensor]:
    """S numbers of steps, and chains of `labels` (B,) after these, the last drawn too (B, S + 1, C, H, W)."""
    steps = np.unique(np.geomspace(1, model.steps + 1, SHOWN).round().astype(int) - 1).tolist()
    moments = [model.reference_noise(len(labels), generator)]
    for before, after in itertools.pairwise(steps):
        moments.append(model.chain(moments[-1], labels, after - before, generator=generator).x)
    with torch.no_grad():
        drawn = model.reconstruct(moments[-1], labels)
    return steps, torch.stack([*moments, drawn], 1)


def basis(model: GenerativeConvNet, x: Tensor, labels: Tensor) -> Tensor:
    """Drawings of images x (B, C, H, W) under `labels` (B,), and what they are sums of: (B, TERMS + 2, C, H, W).

    The largest basis functions are shown alone, on grey and in full contrast, then the sum of all others.
    """
    functions = basis_functions(model, x, labels)
    order = functions.flatten(2).norm(dim=2).argsort(1, descending=True)
    functions = functions[torch.arange(len(x))[:, None], order]
    shown, others = functions[:, :TERMS], functions[:, TERMS:].sum(1, keepdim=True)
    contrast = shown.abs().amax((2, 3, 4), keepdim=True).clamp_min(1e-12)
    drawings = model.centre + functions.sum(1, keepdim=True)
    return torch.cat([drawings, 0.5 + shown / contrast / 2, 0.5 + others / 2], 1)


def basis_functions(model: GenerativeConvNet, x: Tensor, labels: Tensor) -> Tensor:
    """(B, N, C, H, W) one for each neuron of the last hidden layer: they add up to drawing − centre.

    Each is σ² times the gradient of f_k through its neuron, and nothing where that is off.
    """
    hidden, last = model.network[-2], model.network[-1]
    assert isinstance(last, nn.Linear)
    seen = x.clone().requires_grad_()
    _, (on,) = recorded([hidden], model.log_ratios, seen)
    parts = (last.weight[labels] * on).sum(0)
    gradients = [torch.autograd.grad(part, seen, retain_graph=True)[0] for part in parts]
    return (model.sigma**2 * torch.stack(gradients, 1)).detach()


def draw(images: Tensor, path: Path, columns: Sequence[str]) -> Path:
    """Images (R, S, C, H, W) as a sheet."""
    height, width = images.shape[0] * images.shape[3], images.shape[1] * images.shape[4]
    with mpl.rc_context(plotting.STYLE):
        figure = Figure(figsize=(WIDTH, WIDTH * height / width + 0.3), dpi=DPI, layout="constrained")
        show(figure.subplots(), images.numpy(), columns=columns)
        return plotting.write(figure, path)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"convnet_pictures: error: {error}")
