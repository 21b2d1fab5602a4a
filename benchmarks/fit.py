"""An ordinary training of an ordinary classifier, for the classifiers that a drawer is put beside."""

from __future__ import annotations

import time
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad
from torch.optim.swa_utils import update_bn

from robustrecon.data import Part
from robustrecon.files import atomic_write
from robustrecon.runtime import device_of

BATCH = 128
SETTLING = 40  # batches
SHIFT = 4  # pixels


def fit(network: nn.Module, train: Part, epochs: int, *, peak: float = 0.1, augment: bool = False) -> None:
    """SGD with Nesterov momentum and a one-cycle learning rate (Smith & Topin 2018) up to `peak`.

    With `augment` each image is mirrored or not and shifted by up to 4 pixels. Prints progress every ten seconds. The
    network stays on its device.
    """
    device = device_of(network)
    steps = epochs * (len(train) // BATCH)
    optimiser = torch.optim.SGD(network.parameters(), lr=peak, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, peak, total_steps=steps, pct_start=0.25)
    network.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from torch's types
    begun = told = time.perf_counter()
    rows = torch.empty(0, dtype=torch.long)
    for step in range(1, steps + 1):
        if len(rows) < BATCH:
            rows = torch.randperm(len(train))
        chosen, rows = train.pick(rows[:BATCH]), rows[BATCH:]
        x = (mirrored_and_shifted(chosen.x) if augment else chosen.x).to(device, memory_format=torch.channels_last)
        loss = cross_entropy(network(x), chosen.y.to(device), label_smoothing=0.1)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if (now := time.perf_counter()) - told > 10 or step == steps:
            told, rate = now, step / (now - begun)
            print(
                f"step {step}/{steps}, loss {loss.item():.3f}, {rate * BATCH:.0f} images/s, "
                f"{(steps - step) / rate / 60:.1f} min left",
                flush=True,
            )
    # Statistics of the batch normalisation for the weights as they are now: some networks average them very slowly.
    update_bn(train.head(SETTLING * BATCH).x.split(BATCH), network, device)
    network.eval()


def mirrored_and_shifted(x: Tensor) -> Tensor:
    """Images (B, C, H, W), each mirrored with probability 1/2 and shifted by up to 4 pixels; black comes in."""
    n, _, height, width = x.shape
    across = torch.arange(width) + torch.randint(2 * SHIFT + 1, (n, 1))
    down = torch.arange(height) + torch.randint(2 * SHIFT + 1, (n, 1))
    across = torch.where(torch.rand(n, 1) < 0.5, across, across.flip(1))
    image = torch.arange(n)[:, None, None]
    return pad(x, [SHIFT] * 4).permute(0, 2, 3, 1)[image, down[:, :, None], across[:, None, :]].permute(0, 3, 1, 2)


@torch.no_grad()
def accuracy(network: nn.Module, part: Part) -> float:
    """Share of the images that the network, in evaluation mode, classifies right."""
    device = device_of(network)
    right = sum(
        int((network(x.to(device)).argmax(1).cpu() == y).sum())
        for x, y in zip(part.x.split(500), part.y.split(500), strict=True)
    )
    return right / len(part)


def save(network: nn.Module, path: Path) -> Path:
    """Write the weights as safetensors, all at once or not at all."""
    weights = {name: value.cpu().contiguous() for name, value in network.state_dict().items()}
    return atomic_write(path, safetensors.torch.save(weights))
