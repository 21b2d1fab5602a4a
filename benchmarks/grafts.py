"""Classifiers and the drawers that are trained for them: of digits, of letters and of small natural images.

python -m benchmarks.grafts --data-dir DIR                                    # all of them
python -m benchmarks.grafts --data-dir DIR --only small-cnn --only small-cnn-pixels-robust

What is there is not trained again, and a drawer that was killed goes on. Everything is written to runs/grafts, or the
folder that the environment variable GRAFTS names; the functions of this module, for suites, load from there.

Expected time, on one core: the classifiers of digits 10 minutes in all, letters-cnn and small-cnn 10 minutes each,
resnet18 three hours; drawers one to five hours each. On a GPU all of it takes half an hour.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from robustrecon import InputError, Normalized, from_sklearn, graft, load_data
from robustrecon.data import Dataset
from robustrecon.models import load
from robustrecon.models.imported import load_weights
from robustrecon.runtime import resolve_device
from robustrecon.training import load_recipe
from robustrecon.training.grafting import drawer_recipe
from robustrecon.training.objectives import OptionValue

from . import grafted
from .fit import accuracy, fit, save

FOLDER = Path(os.environ.get("GRAFTS", "runs/grafts"))


@dataclass(frozen=True)
class Network:
    """A classifier that is trained here.

    Attributes:
        data: its training images.
        make: gives it with random weights, for normalised images.
        mean, std: of its normalisation, of all channels or one number each.
        epochs: of its training.
        augment: whether images are mirrored and shifted.
        images: how many of the training part it is trained on; all by default.
        estimator: gives a scikit-learn classifier that is fitted instead, and whose layers the network then has.
    """

    data: str
    make: Callable[[], nn.Module]
    mean: float | tuple[float, ...]
    std: float | tuple[float, ...]
    epochs: int = 0
    augment: bool = False
    images: int | None = None
    estimator: Callable[[], Any] | None = None


@dataclass(frozen=True)
class Drawer:
    """A drawer that is trained here, beside a classifier.

    Attributes:
        classifier: what makes the classifier, in this package.
        data: its training images.
        recipe: of `robustrecon.graft`.
        epochs: of its training.
        eps: radius of the adversarial images; None for none.
        target: "pixels" or a layer of the classifier.
        options: of the drawer.
        start: a trained drawer to go on from.
        learning_rate: the peak, instead of the recipe's.
        objective: options of the objective, beside those of the recipe.
    """

    classifier: str
    data: str
    recipe: str
    epochs: int
    eps: float | None = None
    target: str = "pixels"
    options: Mapping[str, OptionValue] = field(default_factory=dict)
    objective: Mapping[str, OptionValue] = field(default_factory=dict)
    start: str | None = None
    learning_rate: float | None = None


def _cnn(*widths: tuple[int, int, int], n_classes: int) -> nn.Module:
    """Convolutions 3×3 with batch normalisation, from and to so many channels with such a stride."""
    stages = [nn.Sequential(nn.Conv2d(a, b, 3, s, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()) for a, b, s in widths]
    return nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1][1], n_classes))


def _letters_cnn() -> nn.Module:
    """270,000 parameters, for images (B, 1, 28, 28)."""
    return _cnn((1, 32, 1), (32, 64, 2), (64, 64, 1), (64, 128, 2), (128, 128, 1), n_classes=26)


def _small_cnn() -> nn.Module:
    """280,000 parameters, for images (B, 3, 32, 32)."""
    return _cnn((3, 32, 1), (32, 64, 2), (64, 64, 1), (64, 128, 2), (128, 128, 1), n_classes=10)


def _resnet18() -> nn.Module:
    """torchvision's ResNet-18; its first convolution is 3×3 of stride 2, and no pooling follows it."""
    from robustrecon.data._torchvision import models

    network: nn.Module = models.resnet18(num_classes=10)
    network.conv1 = nn.Conv2d(3, 64, 3, 2, 1, bias=False)
    network.maxpool = nn.Identity()
    return network


def _mobilenet() -> nn.Module:
    """torchvision's MobileNetV3-Small; its first convolution is of stride 1, for grey images."""
    from robustrecon.data._torchvision import models

    network: nn.Module = models.mobilenet_v3_small(num_classes=10)
    network.features[0][0] = nn.Conv2d(1, 16, 3, 1, 1, bias=False)  # type: ignore[index, assignment]
    return network


def _shufflenet() -> nn.Module:
    """torchvision's ShuffleNet V2 ×0.5; its first convolution is of stride 1, for grey images."""
    from robustrecon.data._torchvision import models

    network = models.shufflenet_v2_x0_5(num_classes=10)
    network.conv1[0] = nn.Conv2d(1, 24, 3, 1, 1, bias=False)
    return network


def _logistic() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))


def _logistic_regression() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=0.01, max_iter=100)


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10))


def _mlp_classifier() -> Any:
    from sklearn.neural_network import MLPClassifier

    return MLPClassifier((256,), early_stopping=True, max_iter=15, random_state=0)


DIGITS, LETTERS, CIFAR = "mnist", "emnist-letters", "cifar10-images"
CIFAR_EPS, CIFAR_MEAN, CIFAR_STD = 8 / 255, (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)  # as is usual for CIFAR-10
INK = {"steepness": 20.0}  # for ink on paper
PIXELS, STAGE, BLOCKS = "pixels", "layer:model.2", "layer:model.layer2"  # targets of a drawer
STYLE = {"style_dim": 64}  # natural images have more of it

SOME = 20_000  # images
LEAST_ACCURACY = 0.6  # of a training that did not fail

NETWORKS = {
    "digits-logistic": Network(DIGITS, _logistic, 0.0, 1.0, images=SOME, estimator=_logistic_regression),
    "digits-mlp": Network(DIGITS, _mlp, 0.0, 1.0, images=SOME, estimator=_mlp_classifier),
    "digits-mobilenet": Network(DIGITS, _mobilenet, grafted.MEAN, grafted.STD, epochs=2, images=SOME),
    "digits-shufflenet": Network(DIGITS, _shufflenet, grafted.MEAN, grafted.STD, epochs=2, images=SOME),
    "letters-cnn": Network(LETTERS, _letters_cnn, 0.172, 0.331, epochs=2),
    "small-cnn": Network(CIFAR, _small_cnn, CIFAR_MEAN, CIFAR_STD, epochs=12, augment=True),
    "resnet18": Network(CIFAR, _resnet18, CIFAR_MEAN, CIFAR_STD, epochs=30, augment=True),
}
FEW_STEPS = {"attack_steps": 3}  # of the adversary in training, which these classifiers make dear
NO_NOISE = {"noise": 0.0}
_OF_THE_PAIR = {"margin_gap": 3.0, "distortion": 1.0, "pair_share": 0.75, "ramp": 0.0}
DRAWERS = {
    "digits-refined": Drawer(
        "grafted:classifier",
        DIGITS,
        "robust",
        3,
        0.31,
        PIXELS,
        objective=_OF_THE_PAIR,
        start=grafted.DRAWER,
        learning_rate=4e-4,
    ),
    "letters-robust": Drawer("grafts:letters_cnn", LETTERS, "robust", 2, 0.22, PIXELS, INK),
    "small-cnn-pixels-contrastive": Drawer("grafts:small_cnn", CIFAR, "contrastive", 4, options=STYLE),
    "small-cnn-pixels-robust": Drawer("grafts:small_cnn", CIFAR, "robust", 10, CIFAR_EPS, PIXELS, STYLE, FEW_STEPS),
    "small-cnn-layer-contrastive": Drawer("grafts:small_cnn", CIFAR, "contrastive", 8, None, STAGE, STYLE, NO_NOISE),
    "small-cnn-layer-robust": Drawer("grafts:small_cnn", CIFAR, "robust", 10, CIFAR_EPS, STAGE, STYLE, FEW_STEPS),
    "resnet18-pixels-robust": Drawer("grafts:resnet18", CIFAR, "robust", 10, CIFAR_EPS, PIXELS, STYLE, FEW_STEPS),
    "resnet18-layer-robust": Drawer("grafts:resnet18", CIFAR, "robust", 10, CIFAR_EPS, BLOCKS, STYLE, FEW_STEPS),
}


def classifier(name: str) -> nn.Module:
    """The trained classifier of `NETWORKS` called `name`, of images in [0, 1].

    Raises:
        InputError: it is not trained yet.
    """
    network = NETWORKS[name].make()
    load_weights(network, _made(name, FOLDER / f"{name}.safetensors"))
    return Normalized(network.eval(), NETWORKS[name].mean, NETWORKS[name].std)


def graft_of(name: str) -> nn.Module:
    """A classifier with the trained drawer of `DRAWERS` called `name`.

    Raises:
        InputError: one of the two is not trained yet.
    """
    return load(_made(name, FOLDER / name))


def with_shipped_drawer(name: str) -> nn.Module:
    """The classifier of `NETWORKS` called `name` beside a shipped drawer, without any training."""
    return graft(classifier(name), grafted.DRAWER)


digits_logistic = partial(classifier, "digits-logistic")
digits_mlp = partial(classifier, "digits-mlp")
digits_mobilenet = partial(classifier, "digits-mobilenet")
digits_shufflenet = partial(classifier, "digits-shufflenet")
digits_logistic_grafted = partial(with_shipped_drawer, "digits-logistic")
digits_mlp_grafted = partial(with_shipped_drawer, "digits-mlp")
digits_mobilenet_grafted = partial(with_shipped_drawer, "digits-mobilenet")
digits_shufflenet_grafted = partial(with_shipped_drawer, "digits-shufflenet")
letters_cnn = partial(classifier, "letters-cnn")
small_cnn = partial(classifier, "small-cnn")
resnet18 = partial(classifier, "resnet18")
digits_refined = partial(graft_of, "digits-refined")
letters_robust = partial(graft_of, "letters-robust")
small_cnn_pixels_contrastive = partial(graft_of, "small-cnn-pixels-contrastive")
small_cnn_pixels_robust = partial(graft_of, "small-cnn-pixels-robust")
small_cnn_layer_contrastive = partial(graft_of, "small-cnn-layer-contrastive")
small_cnn_layer_robust = partial(graft_of, "small-cnn-layer-robust")
resnet18_pixels_robust = partial(graft_of, "resnet18-pixels-robust")
resnet18_layer_robust = partial(graft_of, "resnet18-layer-robust")


def _made(name: str, path: Path) -> Path:
    if not path.exists():
        raise InputError(f"{name}: no {path}; python -m benchmarks.grafts --data-dir DIR --only {name} makes it")
    return path


def train_classifier(name: str, data: Dataset, device: str) -> None:
    """Train one and write its weights; prints its accuracy on the calibration part, which no report uses."""
    network = NETWORKS[name]
    torch.manual_seed(0)
    model = Normalized(network.make(), network.mean, network.std).to(resolve_device(device))
    part = data.train if network.images is None else data.train.head(network.images)
    if network.estimator is None:
        fit(model, part, network.epochs, augment=network.augment)
    else:
        fitted = network.estimator().fit(part.x.flatten(1).numpy(), part.y.numpy())
        after_flatten = nn.Sequential(*list(model.model.children())[1:])
        after_flatten.load_state_dict(from_sklearn(fitted).layers.state_dict())
    right = accuracy(model, data.calibration)
    print(f"{name}: accuracy {right:.1%} of {len(data.calibration):,}", flush=True)
    if right < LEAST_ACCURACY:
        raise SystemExit(f"{name}: its training failed, nothing is written")
    save(model.model, FOLDER / f"{name}.safetensors")


def train_drawer(name: str, data: Dataset, device: str) -> None:
    """Train one beside its classifier."""
    drawer = DRAWERS[name]
    recipe = drawer_recipe(load_recipe(drawer.recipe))
    objective = {**recipe.objective_options, **drawer.objective}
    rate = drawer.learning_rate or recipe.learning_rate
    graft(
        f"benchmarks.{drawer.classifier}",
        data,
        recipe=replace(recipe, epochs=drawer.epochs, learning_rate=rate, least_steps=0, objective_options=objective),
        eps=drawer.eps,
        target=drawer.target,
        drawer_options=drawer.options,
        start=drawer.start,
        out=FOLDER / name,
        device=device,
        resume=True,
    )


def main() -> None:
    names = [*NETWORKS, *DRAWERS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--only", action="append", choices=names, help="repeatable; by default all")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    arguments = parser.parse_args()
    loaded: dict[str, Dataset] = {}
    for name in arguments.only or names:
        data = NETWORKS[name].data if name in NETWORKS else DRAWERS[name].data
        if data not in loaded:
            loaded[data] = load_data(data, arguments.data_dir)
        if name in DRAWERS:
            train_drawer(name, loaded[data], arguments.device)
        elif not (FOLDER / f"{name}.safetensors").exists():
            train_classifier(name, loaded[data], arguments.device)


if __name__ == "__main__":
    main()
