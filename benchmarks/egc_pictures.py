"""Pictures of a trained EGC: chains from noise to images of each class, and what it makes of images under each label.

python -m benchmarks.egc_pictures --data-dir DIR --out results/energy_models

Expected time: two minutes on one core. Writes egc-chain.png and egc-drawings.png.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor

from robustrecon import InputError, load, load_data
from robustrecon.data import Part
from robustrecon.models import EGC

from .convnet_pictures import draw

SHOWN = 10  # moments of a chain
STEPS = 100  # of DDIM


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--model", default="egc/mnist", help="a folder that `train` wrote, or a name")
    parser.add_argument("--out", type=Path, default=Path("runs/energy_models"))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    model = load(given.model)
    if not isinstance(model, EGC):
        raise InputError(f"model: got {model.name}, must be {EGC.name}")
    steps, moments = chains(model, torch.Generator().manual_seed(given.seed))
    print(draw(moments, given.out / "egc-chain.png", columns=[*map(str, steps)]))
    part = load_data("mnist", given.data_dir).test
    columns = ["image", *(f"as {k}" for k in range(model.n_classes))]
    print(draw(drawings(model, one_of_each(part)), given.out / "egc-drawings.png", columns=columns))


def chains(model: EGC, generator: torch.Generator) -> tuple[list[int], Tensor]:
    """S numbers of steps, and the images that a chain of each class expects after these: (K, S, C, H, W)."""
    expected: list[Tensor] = []
    model.sample(torch.arange(model.n_classes), generator, steps=STEPS, watch=expected.append)
    steps = torch.linspace(1, STEPS, SHOWN).round().int().tolist()
    return steps, torch.stack([expected[step - 1] for step in steps], 1)


@torch.no_grad()
def drawings(model: EGC, x: Tensor) -> Tensor:
    """Images x (B, C, H, W), each beside its drawings under all K labels: (B, 1 + K, C, H, W)."""
    labels = torch.arange(model.n_classes).expand(len(x), -1)
    return torch.cat([x[:, None], model.logits_and_drawings(x, labels)[1]], 1)


def one_of_each(part: Part) -> Tensor:
    """(K, C, H, W) the first image of each class."""
    rows = [int((part.y == k).nonzero()[0]) for k in part.y.unique()]
    return part.pick(torch.tensor(rows)).x


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"egc_pictures: error: {error}")
