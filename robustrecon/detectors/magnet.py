"""MagNet: is the image near to what an auto-encoder of the training images makes of it?"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, interpolate, mse_loss, sigmoid

from ..runtime import device_of, seeded
from .base import Evidence, FittedDetector, gathered
from .largest import largest

FILTERS = 3
LAYERS = {"pooled": 5, "plain": 3}  # convolutions of the paper's auto-encoders I and II for MNIST
NOISE = {1: 0.1}  # standard deviation while training, by the number of channels
NOISE_OF_COLOUR = 0.025
TEMPERATURES = (10.0, 40.0)
QUANTILE = 0.99  # of each detector's training scores, which is its unit
BATCH, EPOCHS, MOST_STEPS, LEARNING_RATE = 32, 20, 2500, 0.02
COMPARED = 10_000  # training images that the units are taken from, at most
TINY = 1e-12
SHARPNESS = 2.0  # of the gradient of the largest score, in its unit


class MagNet(FittedDetector):
    """The largest of four scores, each in units of its 99 % quantile over training images.

    The scores are the mean square of x − a(x), the mean absolute value of x − b(x), and the Jensen-Shannon divergence
    of the softmax of f(x) from that of f(a(x)) at temperatures 10 and 40; a and b are the paper's auto-encoders of
    MNIST, 3 filters of 3×3 in all layers, with average pooling and without. They are trained to take Gaussian noise out
    of training images, for at most 2,500 steps of 32 images. The paper gives each score a threshold of its own; here
    the units make it one threshold for all, calibrated jointly. On the way back f(x) is constant in the divergence, and
    the largest score is a smooth one, whose gradient has a part in all four: the attacks of this library that follow it
    break more than with the exact gradient.

    D. Meng, H. Chen, "MagNet: a Two-Pronged Defense against Adversarial Examples", CCS 2017.
    """

    name = "magnet"
    several_passes = True
    units: Tensor

    def statistics(self, model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        self.set_statistics(trained(x, device_of(model)))
        scores = gathered(model, x[:COMPARED], self._scores)
        return {**dict(self.named_buffers()), "units": scores.quantile(QUANTILE, dim=0).clamp_min(TINY)}

    def score(self, evidence: Evidence) -> Tensor:
        scores = evidence.cached(self, lambda: self._scores(evidence))
        return largest(scores / self.units.to(scores), SHARPNESS)

    def _scores(self, evidence: Evidence) -> Tensor:
        weights = {name: tensor.to(evidence.x) for name, tensor in self.named_buffers()}
        pooled, plain = (autoencoded(evidence.x, weights, name) for name in LAYERS)
        redrawn = Evidence(evidence.model, pooled).logits
        divergences = [jensen_shannon(evidence.logits.detach() / t, redrawn / t) for t in TEMPERATURES]
        errors = [
            (evidence.x - pooled).square().flatten(1).mean(1),
            (evidence.x - plain).abs().flatten(1).mean(1),
        ]
        return torch.stack([*errors, *divergences], 1)


def autoencoded(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    """What the auto-encoder `name` of `LAYERS`, with its weights and biases, makes of images (B, C, H, W)."""
    hidden = x
    for index in range(LAYERS[name]):
        hidden = sigmoid(conv2d(hidden, weights[f"{name}_weight_{index}"], weights[f"{name}_bias_{index}"], padding=1))
        if name == "pooled" and index == 0:
            hidden = avg_pool2d(hidden, 2, ceil_mode=True)
        elif name == "pooled" and index == 2:
            hidden = interpolate(hidden, size=x.shape[2:])
    return hidden


def trained(x: Tensor, device: torch.device) -> dict[str, Tensor]:
    """The weights of both auto-encoders, trained to denoise images x (N, C, H, W)."""
    channels = x.shape[1]
    noise = NOISE.get(channels, NOISE_OF_COLOUR)
    steps = min(EPOCHS * math.ceil(len(x) / BATCH), MOST_STEPS)
    with seeded(0), torch.enable_grad():
        weights = {name: tensor.to(device).requires_grad_() for name, tensor in initial(channels).items()}
        optimizer = torch.optim.Adam(weights.values(), LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        order = torch.empty(0, dtype=torch.long)
        for _ in range(steps):
            if not len(order):
                order = torch.randperm(len(x))
            clean, order = x[order[:BATCH]].to(device, torch.float32), order[BATCH:]
            noisy = (clean + noise * torch.randn_like(clean)).clamp(0, 1)
            loss = torch.stack([mse_loss(autoencoded(noisy, weights, name), clean) for name in LAYERS]).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return {name: tensor.detach() for name, tensor in weights.items()}


def initial(channels: int) -> dict[str, Tensor]:
    """Random weights by Glorot, and biases of 0, by name."""
    weights = {}
    for name, layers in LAYERS.items():
        widths = [channels, *[FILTERS] * (layers - 1), channels]
        for index, (incoming, outgoing) in enumerate(pairwise(widths)):
            weights[f"{name}_weight_{index}"] = nn.init.xavier_uniform_(torch.empty(outgoing, incoming, 3, 3))
            weights[f"{name}_bias_{index}"] = torch.zeros(outgoing)
    return weights


def jensen_shannon(logits: Tensor, others: Tensor) -> Tensor:
    """(B,) the Jensen-Shannon divergence of two softmax outputs, in [0, log 2], from logits (B, K)."""
    first, second = logits.log_softmax(1), others.log_softmax(1)
    middle = torch.stack([first, second]).logsumexp(0) - math.log(2)
    return torch.stack([(part.exp() * (part - middle)).sum(1) for part in (first, second)]).mean(0)
