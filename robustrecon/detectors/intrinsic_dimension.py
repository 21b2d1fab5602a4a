"""How fast the number of neighbours grows with the distance, at every layer."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from ..runtime import batched, device_of
from ..types import InputError
from .base import Evidence, FittedDetector
from .features import sampled

REFERENCE = 100  # training images among which neighbours are looked for
NEIGHBOURS = 20  # of them
LEARNED_FROM = 1000  # other training images that the weights of the layers are learned from, at most
LEAST = 200  # training images that it takes
GRID = 8  # a convolution's output is averaged to at most so many rows and columns
STEPS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32)  # L∞ sizes of a step along the gradient, the smallest that turns a label
LEAST_ADVERSARIAL = 10  # images whose label such a step changes


class LocalIntrinsicDimensionality(FittedDetector):
    """Σ over layers of w · LID, LID = −1 / mean over i ≤ k of log(r[i] / r[k]), r the distances to the nearest images.

    X. Ma et al., "Characterizing Adversarial Subspaces Using Local Intrinsic Dimensionality", ICLR 2018: the
    maximum-likelihood estimate at the output of every convolutional and linear layer, among a batch of 100 training
    images, which is kept, with k = 20; the layers' weights are those of a logistic regression that tells adversarial
    images from clean and noisy ones, and the score is its log odds. There are only training images to learn from:
    adversarial is one after the smallest step along the sign of the gradient that changes its label (I. Goodfellow et
    al., "Explaining and Harnessing Adversarial Examples", ICLR 2015), noisy is one after a Gaussian step of the same
    length. Outputs of convolutions are averaged to at most 8 × 8 positions.
    """

    name = "lid"
    weights: Tensor
    bias: Tensor

    def statistics(self, model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler

        if len(x) < LEAST:
            raise InputError(f"x: got {len(x)} training images, must be at least {LEAST} for {self.name}")
        order = sampled(len(x), REFERENCE + LEARNED_FROM)
        device = device_of(model)
        references = _layers(Evidence(model, x[order[:REFERENCE]].to(device)))
        clean, noisy, adversarial = _examples(model, x[order[REFERENCE:]], y[order[REFERENCE:]])
        if len(adversarial) < LEAST_ADVERSARIAL:
            raise InputError(
                f"model: a step along the gradient changes the label of {len(adversarial)} of "
                f"{len(order) - REFERENCE} training images, must be at least {LEAST_ADVERSARIAL} for {self.name}"
            )

        def dimensions(images: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
            (found,) = batched(
                lambda part: (_dimensions(_layers(Evidence(model, part.to(device))), references),), images
            )
            return found.double().cpu().numpy()

        rows = np.concatenate([dimensions(clean), dimensions(noisy), dimensions(adversarial)])
        scaler = StandardScaler().fit(rows)
        regression = LogisticRegression(class_weight="balanced", max_iter=1000)
        regression.fit(scaler.transform(rows), np.arange(len(rows)) >= len(clean) + len(noisy))
        weights = regression.coef_[0] / scaler.scale_
        bias = regression.intercept_[0] - weights @ scaler.mean_
        learned = {"weights": torch.tensor(weights).float(), "bias": torch.tensor(bias).float()}
        return {name: value.to(device) for name, value in learned.items()} | {
            f"reference{index}": layer for index, layer in enumerate(references)
        }

    def score(self, evidence: Evidence) -> Tensor:
        references = [getattr(self, f"reference{index}") for index in range(len(self.weights))]
        layers = _layers(evidence)
        with torch.autocast(evidence.x.device.type, enabled=False):
            return (_dimensions(layers, references) * self.weights).sum(1) + self.bias


def local_dimension(distances: Tensor) -> Tensor:
    """(B,) maximum-likelihood estimates from distances (B, M) to M images, of which the nearest count."""
    nearest = distances.topk(NEIGHBOURS, largest=False).values.clamp_min(torch.finfo(distances.dtype).tiny)
    return 1 / (nearest[:, -1:] / nearest).log().mean(1).clamp_min(1e-4)


def _dimensions(layers: list[Tensor], references: list[Tensor]) -> Tensor:
    """(B, L) estimates at L layers, (B, D) each, with (M, D) for reference."""
    columns = [
        # Not by matrix products, whose rounding is as large as the smallest distances.
        local_dimension(torch.cdist(layer, reference, compute_mode="donot_use_mm_for_euclid_dist"))
        for layer, reference in zip(layers, references, strict=True)
    ]
    return torch.stack(columns, 1)


def _layers(evidence: Evidence) -> list[Tensor]:
    """(B, D) of each layer, float32."""
    return [_averaged(output).flatten(1).float() for output in evidence.layer_outputs]


def _averaged(output: Tensor) -> Tensor:
    if output.ndim != 4:
        return output
    return avg_pool2d(output, [-(-size // GRID) for size in output.shape[2:]], ceil_mode=True, count_include_pad=False)


def _examples(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Clean, noisy and adversarial images, (n, C, H, W) each, of those that one step along the gradient can turn."""
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    parts = [list(_turned(model, *batch)) for batch in zip(x.split(256), noise.split(256), y.split(256), strict=True)]
    clean, noisy, adversarial = (
        torch.cat(column) for column in zip(*(each for part in parts for each in part), strict=True)
    )
    return clean, noisy, adversarial


def _turned(model: nn.Module, x: Tensor, noise: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Clean, noisy and adversarial images for each of the `STEPS`: those that no smaller one turns."""
    device = device_of(model)
    x, noise, y = x.to(device), noise.to(device), y.to(device)
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        logits = Evidence(model, leaf).logits
        true = logits.gather(1, y[:, None]).squeeze(1)
        margin = logits.scatter(1, y[:, None], -torch.inf).amax(1) - true
        if not margin.requires_grad:
            raise InputError("model: its logits have no gradient, which lid needs to learn from")
        (gradient,) = torch.autograd.grad(margin.sum(), leaf)
    remaining = logits.argmax(1) == y
    for size in STEPS:
        adversarial = (x + size * gradient.sign()).clamp(0, 1)
        turned = remaining & (Evidence(model, adversarial).logits.argmax(1) != y)
        remaining = remaining & ~turned
        length = (adversarial - x).flatten(1).norm(dim=1) / noise.flatten(1).norm(dim=1)
        noisy = (x + length.view(-1, 1, 1, 1) * noise).clamp(0, 1)
        yield x[turned], noisy[turned], adversarial[turned]
