"""`graft`: a model that draws put beside a classifier; one that is there already, or one that is trained for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..attacks import seeded
from ..data import Dataset
from ..files import slug
from ..models import ClassConditionedAutoencoder, EnergyModel
from ..models.grafted import PIXELS, Grafted, find_layer, layer_of
from ..models.grafting import DRAWER, checked_logits, join
from ..models.imported import classifier_module
from ..runtime import device_of, evaluating, frozen, recorded
from ..types import ImageShape, InputError
from .api import started, train
from .objectives import OptionValue
from .objectives.pair import PairObjective
from .recipes import Recipe, load_recipe

if TYPE_CHECKING:
    from ..types import Images

LEAST_SIDE = 4  # of what a layer gives
STANDARDISED_ON = 2000  # training images
TRIED_ON = 48  # training images


def graft(
    classifier: nn.Module | str,
    drawer: str | Path | nn.Module | Dataset = DRAWER,
    *,
    labels: Sequence[int | str] | None = None,
    image_shape: ImageShape | None = None,
    allow_loss: bool = False,
    x: Images | None = None,
    top_labels: int = 0,
    logit_weight: float | None = None,
    recipe: str | Recipe | None = None,
    eps: float | None = None,
    target: str = PIXELS,
    style_from: str | None = None,
    drawer_options: Mapping[str, OptionValue] | None = None,
    start: str | Path | None = None,
    out: str | Path | None = None,
    made_by: str | None = None,
    **run: Any,
) -> Grafted:
    """Put a model that draws beside a classifier; `DefendedClassifier` takes what comes out.

    Who wants a wrong label accepted then has to mislead both into the same label. The classifier is never trained: its
    logits stay its own, bit for bit. Given a trained drawer nothing is trained at all; given data, a drawer is.

    Args:
        classifier: any `nn.Module` that gives logits (B, K) of images (B, C, H, W) in [0, 1], or "module:factory" for
            what makes it, so that a file of it can be loaded again without it; `Normalized` and `LogitsOf` make one of
            a model that wants or gives something else.
        drawer: any model with `class_energies(x) -> (B, K')`, the name or path of a trained one, or the data to train
            one on, as `load_data` gives it.
        labels, image_shape, allow_loss, x: of a drawer that is there already; see `robustrecon.models.grafting.join`.
        top_labels: compute the energies of the predicted label and of so many others only, those of the drawer's own
            highest logits; `minimum_missed(x)` of what comes out tells how often that matters. 0 for all.
        logit_weight: weight of the drawer's own logits in the energies, so that an attacker has to mislead these too;
            by default 1 where it has them, 0 where it draws only.
        recipe: for training: "fast" (draws under the true label; energies are not trained), "contrastive" or "robust"
            (adversarial, of classifier and drawer together), another name of `RECIPES`, or a `Recipe`; "robust" by
            default.
        eps: linf radius of the adversarial images, instead of the recipe's.
        target: what the trained drawer explains: "pixels", or "layer:NAME", the output (B, C, H, W) of a sub-module of
            the classifier as `named_modules` calls it. The second is not independent of the classifier.
        style_from: where the trained drawer finds the style, and its own logits, in the same words; what it explains by
            default. Of a layer beside a target in pixels it is cheap, and not independent either.
        drawer_options: options of `ClassConditionedAutoencoder` for the trained drawer, such as `style_dim`, `width`
            and `steepness`.
        start: a trained drawer to go on from, a folder, a file or a shipped one's name, instead of a new one.
        out: folder for the trained one, with checkpoints while it is trained; runs/graft-DATA by default.
        made_by: the "module:factory" of a classifier that is given as a module; a card of the trained one says so.
        **run: `seed`, `device`, `devices`, `nodes`, `precision`, `resume`, `progress`, as `train` takes them.

    Warns:
        UserWarning: the classifier gives probabilities, is random, has layers in training mode, or gives an image other
            logits in another batch; or the two disagree on most of `x`.

    Raises:
        InputError: a classifier that does not take the images or gives no finite logits, a drawer without energies,
            labels that do not map, images that would lose something in the conversion, a layer that does not exist or
            gives no maps, or what `train` refuses.
    """
    if not isinstance(drawer, Dataset):
        options = {"style_from": style_from, "drawer_options": drawer_options, "start": start}
        given = {"recipe": recipe, "eps": eps, **options, "out": out, "made_by": made_by, **run}
        wrong = [name for name, value in given.items() if value is not None] + ["target"] * (target != PIXELS)
        if wrong:
            raise InputError(f"{wrong[0]}: is for training a drawer, must be left out beside one that is there already")
        return join(
            classifier,
            drawer,
            labels=labels,
            image_shape=image_shape,
            allow_loss=allow_loss,
            x=x,
            top_labels=top_labels,
            logit_weight=logit_weight,
        )
    if labels is not None or image_shape is not None or allow_loss or x is not None:
        raise InputError("labels, image_shape, allow_loss, x: must be left out where a drawer is trained on the data")
    module = classifier_module(classifier)
    named = "robust" if recipe is None else recipe
    recipe = drawer_recipe(load_recipe(named) if isinstance(named, str) else named)
    if eps is not None:
        recipe = replace(recipe, objective_options={**recipe.objective_options, "eps": eps})
    folder = Path("runs") / f"graft-{slug(drawer.name)}" if out is None else Path(out)
    settings = {
        "top_labels": top_labels,
        "logit_weight": 1.0 if logit_weight is None else logit_weight,
        "style_from": None if style_from == target else style_from,
    }
    begun, origin = (None, None) if start is None else started(start, recipe)
    if begun is not None and drawer_options:
        raise InputError(
            f"drawer_options: got {', '.join(drawer_options)}, must be left out where a drawer is gone on from"
        )
    seed = int(run.get("seed", 0))
    pair = _new_pair(module, drawer, target, settings, dict(drawer_options or {}), begun, seed)
    if (factory := classifier if isinstance(classifier, str) else made_by) is not None:
        pair.config["classifier"] = factory
    home = device_of(module)
    with frozen(module):
        trained = train(drawer, folder, recipe, model=pair, origin=origin, **run)
    module.to(home)
    assert isinstance(trained, Grafted)
    return trained


def drawer_recipe(recipe: Recipe) -> Recipe:
    """The recipe with the objective of a drawer beside a classifier, and what options the two objectives share."""
    known = {each.name for each in fields(PairObjective.Options)}
    options = {name: value for name, value in recipe.objective_options.items() if name in known}
    if recipe.objective == "style-memory":
        options["energy_weight"] = 0.0  # that objective draws under the true label alone
    return replace(recipe, objective="pair", objective_options=options, model_options={})


def _new_pair(
    classifier: nn.Module,
    data: Dataset,
    target: str,
    settings: Mapping[str, Any],
    options: dict[str, Any],
    begun: EnergyModel | None,
    seed: int,
) -> Grafted:
    """The classifier beside the drawer `begun`, or beside one with random weights."""
    samples = data.train.head(TRIED_ON).x.to(device_of(classifier))
    logits = checked_logits(classifier, samples)
    if logits.shape[1] != data.n_classes:
        raise InputError(
            f"classifier: gave {logits.shape[1]} logits, must give {data.n_classes}, one for each class of {data.name}"
        )
    shape = _shape_of("target", target, classifier, samples[:1])
    style_from = settings["style_from"]
    if style_from is not None:
        options["style_shape"] = _shape_of("style_from", style_from, classifier, samples[:1])
    if (layer := layer_of("target", target)) is not None:
        options["output"] = "linear"
    if begun is None:
        with seeded(seed):
            drawer: EnergyModel = ClassConditionedAutoencoder(data.n_classes, image_shape=shape, **options)
    elif (begun.n_classes, begun.image_shape, style_from) != (data.n_classes, shape, None):
        raise InputError(
            f"start: draws {begun.n_classes} classes of {begun.image_shape}, must draw {data.n_classes} of {shape}, "
            "with the style found there too"
        )
    else:
        drawer = begun
    labels = range(data.n_classes)
    pair = Grafted(classifier, drawer.to(samples.device), labels, data.image_shape, shape, layer, **settings)
    if {layer, style_from} - {None, PIXELS}:
        chosen = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(seed))[:STANDARDISED_ON]
        pair.standardise(data.train.pick(chosen).x)
    return pair


def _shape_of(argument: str, text: str, classifier: nn.Module, x: torch.Tensor) -> ImageShape:
    """Shape (C, H, W) of what "pixels" or "layer:NAME" stands for, on images x."""
    layer = layer_of(argument, text)
    if layer is None:
        return x.shape[1], x.shape[2], x.shape[3]
    with evaluating(classifier), torch.no_grad():
        seen = recorded((find_layer(classifier, layer),), classifier, x)[1]
    shape = tuple(seen[-1].shape[1:]) if seen else ()
    if len(shape) != 3 or min(shape[1:]) < LEAST_SIDE:
        raise InputError(
            f"{argument}: the layer {layer} gives {shape or 'nothing'}, must give (channels, height, width) with sides "
            f"of at least {LEAST_SIDE}"
        )
    return shape
