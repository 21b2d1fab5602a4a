"""Images that a node of a trained network stands for, sampled by Hamiltonian Monte Carlo."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from .. import plotting
from ..bench.model import loaded_module
from ..files import check_picture
from ..models.grafted import find_layer
from ..models.wrappers import LogitsOf, Normalized
from ..runtime import Progress, device_of, dtype_of, evaluating, frozen, recorded, resolve_device
from ..sampling import hmc
from ..sampling.chain import check_above, normal
from ..types import ImageShape, InputError
from .base import DPI, LETTERS, WIDTH, check_count
from .node_names import parse_node
from .sheets import show

SHIFT = 0.2  # of pixels by the tilt, where no temperature is given: images are seen in the noise, and chains move
SHAPED = 2.5  # how many times as wide as high the sheet is


@dataclass(frozen=True, eq=False)
class NodeSamples:
    """Chains that sampled p(x) ∝ exp(f(x) / T) N(x; centre, σ²I), where f is a node's output.

    Attributes:
        node: LAYER:CHANNEL.
        x: (B, C, H, W) where the B chains ended; not clipped.
        values: (B,) f of x.
        values_before: (B,) f of the N(centre, σ²I) at which the chains began.
        field: top, left, height and width of the node's receptive field, on which alone f depends.
        energies: (steps, B) ‖x − centre‖² / 2σ² − f(x) / T after the warm-up.
        accepted: (steps, B) 1 where the proposal of a step was accepted, else 0.
        step_size: of the leapfrog integrator, as the warm-up left it.
        sigma, centre, temperature: σ, the grey level and T.
    """

    node: str
    x: Tensor
    values: Tensor
    values_before: Tensor
    field: tuple[int, int, int, int]
    energies: Tensor
    accepted: Tensor
    step_size: float
    sigma: float
    centre: float
    temperature: float

    @property
    def acceptance(self) -> float:
        """Share of the proposals that were accepted."""
        return self.accepted.mean().item()

    @property
    def caption(self) -> str:
        """What the picture shows, and the numbers that belong to it."""
        steps, chains = self.energies.shape
        top, left, height, width = self.field
        return (
            f"The last image of each of {chains} chains of {steps} steps, clipped to [0, 1]: {height}×{width} pixels "
            f"from row {top} and column {left} on, the receptive field of {self.node}. Its density is exp(f / T) "
            f"N({self.centre:g}, σ²I), T = {self.temperature:.3g}, σ = {self.sigma:g}. The node's output f went from "
            f"{self.values_before.mean():.3g} in noise to {self.values.mean():.3g}, in the mean. {self.acceptance:.0%} "
            f"of the proposals were accepted at a step size of {self.step_size:.2g}. Below: the energy of each chain, "
            "and the share of its proposals that were accepted until then."
        )

    def save(self, path: str | Path, title: str | None = None) -> Path:
        """Draw the images, the traces of the energy and the acceptance rates as one picture, .png or .svg.

        Raises:
            InputError: another suffix, images that are neither grey nor of three colours, or an unwritable folder.
        """
        path = check_picture(Path(path), "path")
        if self.x.shape[1] not in (1, 3):
            raise InputError(f"x: images of {self.x.shape[1]} channels, must have 1 or 3 to be drawn")
        with mpl.rc_context({**plotting.STYLE, "svg.hashsalt": self.node}):
            sheet, rows = self._sheet()
            high = WIDTH / sheet.shape[1] * rows * sheet.shape[3] / sheet.shape[4]
            canvas = Figure(figsize=(WIDTH, high + 3.4), dpi=DPI, layout="constrained")
            axes = canvas.subplot_mosaic([["images", "images"], ["energy", "rate"]], height_ratios=(high, 2.6))
            show(axes["images"], sheet)
            energy, rate = axes["energy"], axes["rate"]
            energy.plot(range(1, len(self.energies) + 1), self.energies.cpu().numpy(), linewidth=0.8)
            energy.set(xlabel="step after the warm-up", title="energy")
            steps = torch.arange(1, len(self.accepted) + 1)
            rate.plot(steps, self.accepted.cpu().cumsum(0) / steps[:, None], linewidth=0.8)
            rate.set(xlabel="step after the warm-up", title="acceptance rate", ylim=(0, 1.02))
            canvas.suptitle(title or self.node, fontsize=10)
            canvas.supxlabel(textwrap.fill(self.caption, LETTERS), fontsize=8)
            return plotting.write(canvas, path)

    def _sheet(self) -> tuple[np.ndarray, int]:
        """The receptive fields (R, S, C, h, w), white where a row is not full, and R."""
        top, left, height, width = self.field
        images = self.x[:, :, top : top + height, left : left + width].cpu().float().clamp(0, 1)
        n = len(images)
        rows = max(1, round(math.sqrt(n * width / height / SHAPED)))
        columns = -(-n // rows)
        laid = torch.ones(rows * columns, *images.shape[1:])
        laid[:n] = images
        return laid.unflatten(0, (rows, columns)).numpy(), rows


def visualize(
    model: nn.Module | str | Path,
    node: str,
    *,
    image_shape: ImageShape | None = None,
    chains: int = 12,
    steps: int = 100,
    warm_up: int = 150,
    leapfrog_steps: int = 10,
    step_size: float | None = None,
    sigma: float = 0.1,
    centre: float = 0.5,
    temperature: float | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: bool = True,
) -> NodeSamples:
    """Sample the images that a node of a trained network stands for, without any training images.

    The density is p(x) ∝ exp(f(x) / T) N(x; centre, σ²I), where f is the node's output. The node of a convolutional
    layer is its unit in the middle, which sees its receptive field alone, as in the paper.

    J. Dai, Y. Lu, Y. N. Wu, "Generative Modeling of Convolutional Neural Networks", ICLR 2015.

    Args:
        model: a module that takes images (B, C, H, W) in [0, 1], or a trained or shipped model's name, or the
            `module:factory` of one.
        node: LAYER:CHANNEL, such as "layer4.2:17": the name that `named_modules` has, and an index from 0. A layer in a
            `Normalized` or a `LogitsOf` may be named as the model in it calls it.
        image_shape: (C, H, W); by default as the model says.
        chains: how many samples, each from a chain of its own.
        steps, warm_up, leapfrog_steps: as of `sampling.hmc`.
        step_size: of the leapfrog integrator, the first one that is tried; a tenth of σ by default.
        sigma: σ, in [0, 1] pixel units.
        centre: mean of the Gaussian, a grey level. The paper has 0, in images whose mean is subtracted.
        temperature: T; 1 in the paper, with pixels of 0 to 255. By default such that the node moves the pixels that it
            sees by a fifth, in the root mean square, where the chains begin.
        seed: of the random numbers.
        device: "auto", "cpu" or "cuda"; a module stays where it is.
        progress: show progress on stderr.

    Raises:
        InputError: no such model, layer or channel, with the nearest name; a layer that classifying an image does not
            use, or without channels; images of another shape than the model takes; a node that the images at which the
            chains begin do not move; a number out of its range; or a chain that diverges.
    """
    layer_name, channel = parse_node(node)
    check_count(chains, "chains")
    check_above(0, sigma, "sigma")
    if temperature is not None:
        check_above(0, temperature, "temperature")
    network = model if isinstance(model, nn.Module) else loaded_module(model).to(resolve_device(device))
    layer = _find(network, layer_name)
    shape = image_shape or getattr(network, "image_shape", None)
    if shape is None:
        raise InputError(f"image_shape: {type(network).__name__} does not say the shape of its images, must be given")
    generator = torch.Generator().manual_seed(seed)
    zeros = torch.zeros(chains, *shape, dtype=dtype_of(network), device=device_of(network))
    start = centre + sigma * normal(zeros, generator)

    def value(x: Tensor) -> Tensor:
        return _unit(network, layer, x, node, channel)

    with evaluating(network), frozen(network):
        before, gradient = _value_and_gradient(value, start, network)
        seen = gradient.abs().sum((0, 1)) > 0
        if not seen.any():
            raise InputError(
                f"node: {node} does not react to images of N({centre:g}, {sigma:g}²), must be another one, or sigma or "
                "centre others"
            )
        if temperature is None:
            moved = gradient.square().sum((1, 2, 3)) / (seen.sum() * shape[0])
            temperature = sigma**2 * moved.sqrt().mean().item() / SHIFT

        def energy(x: Tensor) -> Tensor:
            return (x - centre).flatten(1).square().sum(1) / (2 * sigma**2) - value(x) / temperature

        with Progress(f"sampling {node}", warm_up + steps, "steps", progress) as bar:
            chain = hmc(
                energy,
                start,
                steps,
                step_size=sigma / 10 if step_size is None else step_size,
                leapfrog_steps=leapfrog_steps,
                warm_up=warm_up,
                generator=generator,
                advance=bar.advance,
            )
        with torch.no_grad():
            after = value(chain.x)
    return NodeSamples(
        node,
        chain.x,
        after,
        before,
        _bounds(seen),
        chain.energies,
        chain.accepted,
        chain.step_size,
        sigma,
        centre,
        temperature,
    )


def _find(network: nn.Module, name: str) -> nn.Module:
    """The layer of this name, of the network or of the one that it wraps."""
    inner = network
    while isinstance(inner, (Normalized, LogitsOf)):
        if name in dict(inner.named_modules()):
            break
        inner = inner.model
    return find_layer(inner, name)


def _unit(network: nn.Module, layer: nn.Module, x: Tensor, node: str, channel: int) -> Tensor:
    """(B,) what a channel of a layer gives for images x (B, C, H, W), in the middle where it is a map."""
    outputs = recorded((layer,), network, x)[1]
    if not outputs:
        raise InputError(f"node: {node} is in a layer that classifying an image does not use, must be in another one")
    output = outputs[-1]
    if output.dim() not in (2, 4):
        raise InputError(
            f"node: {node} is in a layer that gives {tuple(output.shape)}, must give (B, C) or (B, C, H, W)"
        )
    if channel >= output.shape[1]:
        raise InputError(f"node: got channel {channel} of {node}, must be in 0 to {output.shape[1] - 1}")
    of_channel: Tensor = output[:, channel]
    return of_channel if output.dim() == 2 else of_channel[:, output.shape[2] // 2, output.shape[3] // 2]


def _value_and_gradient(value: Callable[[Tensor], Tensor], x: Tensor, network: nn.Module) -> tuple[Tensor, Tensor]:
    """What `value` gives (B,) for images x (B, C, H, W), which the network may not take, and its gradient."""
    with torch.enable_grad():
        seen = x.clone().requires_grad_()
        try:
            found = value(seen)
        except RuntimeError as error:
            shape, reason = tuple(x.shape[1:]), " ".join(str(error).split())
            raise InputError(
                f"image_shape: {type(network).__name__} does not take images of shape {shape} ({reason[:200]})"
            ) from error
        (gradient,) = torch.autograd.grad(found.sum(), seen)
    return found.detach(), gradient


def _bounds(seen: Tensor) -> tuple[int, int, int, int]:
    """Top, left, height and width of the pixels (H, W) that are true."""
    rows, columns = (seen.any(dim).nonzero().flatten().tolist() for dim in (1, 0))
    return rows[0], columns[0], rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
