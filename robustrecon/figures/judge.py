"""An independent classifier for drawings: another architecture, trained separately from the model that draws."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from .. import checkpoint
from ..data import Dataset
from ..data.splits import to_float
from ..files import slug
from ..runtime import Progress, resolve_device, seeded
from ..types import ImageShape, InputError
from .base import Array
from .encoding import evaluated, logits_of

SEED = 101
EPOCHS = 3
LEAST_STEPS = 400
BATCH = 128
PEAK = 2e-3  # learning rate at the peak of its one-cycle schedule


@dataclass(frozen=True)
class Judge:
    """A classifier that says which class a drawing shows.

    Attributes:
        network: the network, with `features` before its last layer.
        accuracy: its accuracy on test images. Shares of drawings that it recognises are not more exact than that.
    """

    network: PlainCNN
    accuracy: float

    def labels(self, images: Array) -> Array:
        """(N,) predicted labels of images (N, C, H, W)."""
        return logits_of(self.network, images).argmax(1)

    def features(self, images: Array) -> Array:
        """(N, 128) inputs of the last layer for images (N, C, H, W)."""
        return evaluated(self.network, lambda part: (self.network.features(part),), torch.as_tensor(images))[0]


class PlainCNN(nn.Module):
    """Three 3×3 convolutions, two of them followed by max pooling, and two dense layers."""

    def __init__(self, n_classes: int, image_shape: ImageShape) -> None:
        super().__init__()
        channels, height, width = image_shape
        self.features = nn.Sequential(
            nn.Conv2d(channels, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2, ceil_mode=True),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2, ceil_mode=True),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * -(-height // 4) * -(-width // 4), 128),
            nn.ReLU(),
        )
        self.head = nn.Linear(128, n_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (B, K) of images (B, C, H, W) in [0, 1]."""
        return self.head(self.features(x))


def train_judge(
    data: Dataset, folder: str | Path = "runs/judges", device: str = "auto", progress: bool = True
) -> Judge:
    """A plain CNN that is trained on the training part of `data` once and then loaded from `folder`.

    Raises:
        InputError: a folder that cannot be written to, or a damaged file in it.
    """
    network = PlainCNN(data.n_classes, data.image_shape)
    path = Path(folder) / f"{slug(data.name)}-{data.fingerprint}.safetensors"
    if path.exists():
        saved = checkpoint.load(path)
        try:
            network.load_state_dict(saved.tensors)
        except RuntimeError as error:
            raise InputError(f"{path}: holds no judge for {data.name}; remove it") from error
        return Judge(network.to(resolve_device(device)).eval(), saved.card["accuracy"])
    with seeded(SEED):
        network = _trained(PlainCNN(data.n_classes, data.image_shape).to(resolve_device(device)), data, progress)
    judge = Judge(network, 0.0)
    accuracy = float((judge.labels(data.test.x.numpy()) == data.test.y.numpy()).mean())
    checkpoint.save(path, network.state_dict(), {"kind": "judge", "data": data.name, "accuracy": accuracy})
    return dataclasses.replace(judge, accuracy=accuracy)


def _trained(network: PlainCNN, data: Dataset, progress: bool) -> PlainCNN:
    device = next(network.parameters()).device
    images, y, size = data.train.images.to(device), data.train.y.to(device), min(BATCH, len(data.train))
    per_epoch = len(y) // size
    steps = max(EPOCHS * per_epoch, LEAST_STEPS)
    optimizer = torch.optim.Adam(network.parameters(), lr=PEAK)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK, total_steps=steps)
    with Progress(f"training an independent classifier on {data.name}", steps * size, "images", progress) as bar:
        for step in range(steps):
            if step % per_epoch == 0:
                order = torch.randperm(len(y)).to(device)
            rows = order[step % per_epoch * size :][:size]
            loss = cross_entropy(network(to_float(images[rows])), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            bar.advance(size)
    return network.eval()
