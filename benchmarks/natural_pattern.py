"""Natural patterns, each learned from one image by analysis by synthesis, as in the paper of the generative ConvNet.

python -m benchmarks.natural_pattern --out results/energy_models

Expected time: 5 minutes on one core. The images are crops of the two photographs that come with scikit-learn. The
network sums its last features over all positions, so that a pattern may come up anywhere: what is made has the look of
the crop and is no copy. Writes natural_pattern.png and natural_pattern.json.

J. Xie, Y. Lu, S.-C. Zhu, Y. N. Wu, "A Theory of Generative ConvNet", ICML 2016, sections 6.1 and 6.2.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from robustrecon import InputError, plotting, provenance
from robustrecon.files import atomic_write
from robustrecon.runtime import Progress, seeded
from robustrecon.sampling import langevin

SIDE = 64  # pixels of a crop
CROPS = {"china.jpg": (299, 436, 2), "flower.jpg": (125, 212, 3)}  # of a photograph: top, left, and the reduction
SIGMA = 0.04  # of the reference distribution around the crop's mean colour, in [0, 1] pixel units
CHAINS = 5
STEPS = 10  # of Langevin dynamics for each update
STEP_SIZE = 0.5 * SIGMA
UPDATES = 400
LEARNING_RATE = 5e-4
REPORTED_EVERY = 50  # updates


@dataclass(frozen=True)
class Pattern:
    """What was learned of one crop.

    Attributes:
        photograph: file name.
        gaps: f of the crop less that of the chains, a mean of each `REPORTED_EVERY` updates.
        to_crop: root mean squared difference of the chains, less noise, to the crop.
        between_chains: the same between two chains each.
        seconds: of the processor.
    """

    photograph: str
    gaps: tuple[float, ...]
    to_crop: float
    between_chains: float
    seconds: float


class PatternNet(nn.Module):
    """f (B,) of images (B, C, H, W): a sum over positions of weighted ReLU features.

    Args:
        centre: (C, 1, 1) mean of the reference distribution.
        width: channels of the first layer.
    """

    def __init__(self, centre: Tensor, width: int = 32) -> None:
        super().__init__()
        self.centre = centre
        self.network = nn.Sequential(
            nn.Conv2d(3, width, 8, stride=2, padding=3),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 6, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(2 * width, 1, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.network((x - self.centre) / SIGMA)
        return outputs.flatten(1).sum(1)

    def energy(self, x: Tensor) -> Tensor:
        """(B,) ‖x − centre‖² / 2σ² − f(x)."""
        reference: Tensor = (x - self.centre).flatten(1).square().sum(1) / (2 * SIGMA**2)
        return reference - self(x)

    def drawing(self, x: Tensor) -> Tensor:
        """centre + σ² ∂f/∂x: images x (B, C, H, W) without their noise."""
        seen = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(self(seen).sum(), seen)
        return self.centre + SIGMA**2 * gradient


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/energy_models"))
    parser.add_argument("--updates", type=int, default=UPDATES, help="of the weights, for each crop")
    given = parser.parse_args()
    if given.updates < 1:
        raise InputError(f"updates: got {given.updates}, must be at least 1")
    crops = {name: crop(name) for name in CROPS}
    learned = {name: learn(name, image, given.updates) for name, image in crops.items()}
    told = {
        "sigma": SIGMA,
        "step_size": STEP_SIZE,
        "steps": STEPS,
        "updates": given.updates,
        "patterns": [asdict(pattern) for pattern, _ in learned.values()],
        "environment": provenance.environment(torch.device("cpu")),
    }
    print(atomic_write(given.out / "natural_pattern.json", json.dumps(told, indent=2) + "\n"))
    rows = [torch.cat([crops[name][None], made]) for name, (_, made) in learned.items()]
    print(draw(rows, given.out / "natural_pattern.png"))


def crop(photograph: str) -> Tensor:
    """(C, SIDE, SIDE) in [0, 1], a part of a photograph, reduced by means of square blocks."""
    from sklearn.datasets import load_sample_image

    top, left, reduction = CROPS[photograph]
    pixels = torch.tensor(load_sample_image(photograph)).permute(2, 0, 1)
    extent = reduction * SIDE
    part = pixels[:, top : top + extent, left : left + extent].float() / 255
    return nn.functional.avg_pool2d(part, reduction)


def learn(photograph: str, image: Tensor, updates: int) -> tuple[Pattern, Tensor]:
    """What is learned of a crop (C, H, W), and drawings (CHAINS, C, H, W) of where the chains end."""
    began, gaps = time.process_time(), []
    with seeded(0), Progress(photograph, updates, "updates") as bar:
        net = PatternNet(image.mean((1, 2), keepdim=True))
        optimizer = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE, betas=(0.0, 0.99))  # momentum would overshoot
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
        chains = net.centre + SIGMA * torch.randn(CHAINS, *image.shape)
        for _ in range(updates):
            chains = langevin(net.energy, chains, STEPS, STEP_SIZE).x
            gap = net(image + SIGMA * torch.randn_like(chains)).mean() - net(chains).mean()
            optimizer.zero_grad()
            (-gap).backward()
            optimizer.step()
            schedule.step()
            gaps.append(gap.item())
            bar.advance(gap=gap.item())
        made = net.drawing(chains).clamp(0, 1)
    means = tuple(torch.tensor(gaps).split(REPORTED_EVERY))
    apart = torch.cdist(made.flatten(1), made.flatten(1)).sum() / (CHAINS * (CHAINS - 1)) / image.numel() ** 0.5
    to_crop = (made - image).square().mean().sqrt()
    return (
        Pattern(
            photograph,
            tuple(round(mean.mean().item(), 2) for mean in means),
            to_crop.item(),
            apart.item(),
            time.process_time() - began,
        ),
        made,
    )


def draw(rows: Sequence[Tensor], path: Path) -> Path:
    """A row a crop: the crop, and what was made from noise."""
    with mpl.rc_context(plotting.STYLE):
        figure = Figure(figsize=(7, 1.15 * len(rows)), dpi=170, layout="constrained")
        grid = figure.subplots(len(rows), len(rows[0]), squeeze=False)
        for axes, images in zip(grid, rows, strict=True):
            for axis, image in zip(axes, images, strict=True):
                axis.imshow(image.permute(1, 2, 0).numpy())
                axis.set_axis_off()
        grid[0, 0].set_title("crop", fontsize=8)
        grid[0, 1].set_title("made", fontsize=8)
        return plotting.write(figure, path)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"natural_pattern: error: {error}")
