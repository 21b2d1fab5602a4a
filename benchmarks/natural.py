"""Classifiers of small natural images, and drawers beside them: what a graft is worth away from digits.

python -m benchmarks.natural --data-dir DIR                  # all of them
python -m benchmarks.natural --data-dir DIR --only small-cnn --only small-cnn-pixels-robust

Trains, on the train part of `cifar10-images`, a small CNN and torchvision's ResNet-18 (its first convolution 3×3 of
stride 2, no pooling after it: a quarter of the work of stride 1), and drawers for them: of pixels and of a layer, on
clean images (`contrastive`) and on adversarial ones (`robust`, L∞ 8/255). What is there is not trained again, and a
drawer that was killed goes on.

Expected time, on one core: small CNN 12 minutes, its drawers 15 to 40 minutes each; ResNet-18 over an hour.
Expected accuracy: small CNN above 70 %.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from robustrecon import InputError, Normalized, graft, load_data
from robustrecon.data import Dataset
from robustrecon.models.imported import load_weights
from robustrecon.training import load_recipe

from .fit import accuracy, fit, save

DATA = "cifar10-images"
FOLDER = Path(os.environ.get("NATURAL_RUNS", "runs/natural"))
MEAN, STD = (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)  # of CIFAR-10's training images, as is usual
EPS = 8 / 255
STYLE_DIM = 64
EPOCHS = {"contrastive": 6, "robust": 5}


def small_cnn() -> nn.Module:
    """The trained small CNN, of images (B, 3, 32, 32) in [0, 1]."""
    return _loaded("small-cnn")


def resnet18() -> nn.Module:
    """The trained ResNet-18, of images (B, 3, 32, 32) in [0, 1]."""
    return _loaded("resnet18")


def _new_small_cnn() -> nn.Module:
    """Five convolutions 3×3 with batch normalisation, 32 to 128 channels, 280,000 parameters."""
    widths = ((3, 32, 1), (32, 64, 2), (64, 64, 1), (64, 128, 2), (128, 128, 1))
    stages = [
        nn.Sequential(nn.Conv2d(a, b, 3, stride, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
        for a, b, stride in widths
    ]
    return nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))


def _new_resnet18() -> nn.Module:
    from robustrecon.data._torchvision import models

    network: nn.Module = models.resnet18(num_classes=10)
    network.conv1 = nn.Conv2d(3, 64, 3, 2, 1, bias=False)
    network.maxpool = nn.Identity()
    return network


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int, str]] = {  # what makes it, epochs, layer to explain
    "small-cnn": (_new_small_cnn, 12, "2"),
    "resnet18": (_new_resnet18, 12, "layer2"),
}


def _loaded(name: str) -> nn.Module:
    path = FOLDER / f"{name}.safetensors"
    if not path.exists():
        raise InputError(f"{name}: no file {path}; python -m benchmarks.natural --data-dir DIR --only {name} makes it")
    network = NETWORKS[name][0]()
    load_weights(network, path)
    return Normalized(network.eval(), MEAN, STD)


def train_classifier(name: str, data: Dataset) -> None:
    """Train one and write its weights; its accuracy on the calibration part, which no report uses, is printed."""
    make, epochs, _ = NETWORKS[name]
    torch.manual_seed(0)
    network = Normalized(make(), MEAN, STD)
    fit(network, data.train, epochs, augment=True)
    save(network.model, FOLDER / f"{name}.safetensors")
    print(f"{name}: accuracy {accuracy(network, data.calibration):.1%} of {len(data.calibration):,}", flush=True)


def train_drawer(name: str, network: str, target: str, recipe: str, data: Dataset) -> None:
    """Train a drawer beside a trained classifier, into a folder that `bench` takes."""
    layer = NETWORKS[network][2]  # in `Normalized`, which calls the network `model`
    graft(
        f"benchmarks.natural:{network.replace('-', '_')}",
        data,
        recipe=replace(load_recipe(recipe), epochs=EPOCHS[recipe], least_steps=0),
        eps=EPS if recipe == "robust" else None,
        target="pixels" if target == "pixels" else f"layer:model.{layer}",
        drawer_options={"style_dim": STYLE_DIM},
        out=FOLDER / name,
        resume=True,
    )


def drawers() -> dict[str, tuple[str, str, str]]:
    """Network, target and recipe of each drawer, by its name."""
    return {
        f"{network}-{target}-{recipe}": (network, target, recipe)
        for network in NETWORKS
        for target in ("pixels", "layer")
        for recipe in ("contrastive", "robust")
    }


def main() -> None:
    names = [*NETWORKS, *drawers()]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--only", action="append", choices=names, help="repeatable; by default all")
    arguments = parser.parse_args()
    data = load_data(DATA, arguments.data_dir)
    for name in arguments.only or names:
        if name in NETWORKS:
            if not (FOLDER / f"{name}.safetensors").exists():
                train_classifier(name, data)
        else:
            train_drawer(name, *drawers()[name], data)


if __name__ == "__main__":
    main()
