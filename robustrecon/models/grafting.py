"""Joining a classifier and a drawer, and what is looked at before the two are trusted together."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from .. import checkpoint, provenance
from ..detectors import Evidence
from ..runtime import device_of, evaluating, seeded
from ..types import ImageShape, InputError, check_images, nearest
from . import architecture, build, load_with_card, trained_on
from .base import TRAINED_ON, WEIGHTS
from .grafted import LUMA, Grafted, converted, has_logits, loss_in_conversion
from .imported import classifier_module, import_model

if TYPE_CHECKING:
    from ..types import Images

DRAWER = "robust/mnist"
TRIED = 16  # images drawn at random
SHARED = 64  # the most images that one batch of the checks holds
BATCH_TOLERANCE = 1e-3  # of a logit, in units of the largest
LEAST_AGREEMENT = 0.5  # share of images on which the drawer's best label is the classifier's


def join(
    classifier: nn.Module | str,
    drawer: str | Path | nn.Module = DRAWER,
    *,
    labels: Sequence[int | str] | None = None,
    image_shape: ImageShape | None = None,
    allow_loss: bool = False,
    x: Images | None = None,
    top_labels: int = 0,
    logit_weight: float | None = None,
) -> Grafted:
    """Put a model that draws beside a classifier, without any training; `DefendedClassifier` takes what comes out.

    Who wants a wrong label accepted then has to mislead both into the same label. Neither is changed or copied.

    Args:
        classifier: any `nn.Module` that gives logits (B, K) of images (B, C, H, W) in [0, 1], or "module:factory" for
            what makes it, so that a file of it can be loaded again without it; `Normalized` and `LogitsOf` make one of
            a model that wants or gives something else.
        drawer: any model with `class_energies(x) -> (B, K')`, or the name or path of a trained one.
        labels: the drawer's label, or the name of its class, for each of the classifier's K labels. By default those of
            the same names, where `classifier.classes` and the drawer have names; else the same numbers, if K' is K.
        image_shape: (C, H, W) of the classifier's images; by default its `image_shape`, or that of `x`, or the
            drawer's.
        allow_loss: allow that the drawer sees less than the classifier: larger images in its own resolution, or colour
            images in grey.
        x: (B, C, H, W) a few clean images in [0, 1], on which the two are also tried; images drawn at random always
            are.
        top_labels: compute the energies of the predicted label and of so many others only, those of the drawer's own
            highest logits; `minimum_missed(x)` of what comes out tells how often that matters. 0 for all.
        logit_weight: weight of the drawer's own logits in the energies, so that an attacker has to mislead these too;
            by default 1 where it has them, 0 where it draws only.

    Warns:
        UserWarning: the classifier gives probabilities, is random, has layers in training mode, or gives an image other
            logits in another batch; or the two disagree on most of `x`.

    Raises:
        InputError: a classifier that does not take the images or gives no finite logits, a drawer without energies,
            labels that do not map, or images that would lose something in the conversion.
    """
    module = classifier_module(classifier)
    drawn, names = _loaded(drawer)
    clean = None if x is None else check_images(x, image_shape)
    drawer_shape: ImageShape | None = getattr(drawn, "image_shape", None)
    shape = image_shape or getattr(module, "image_shape", None) or _shape_of(clean) or drawer_shape
    if shape is None:
        raise InputError("image_shape: got None, must be (C, H, W): neither classifier nor drawer says it")
    image_shape = _checked_shape(shape)
    drawer_shape = drawer_shape or image_shape
    samples = _samples(image_shape, clean).to(device_of(module))
    logits = checked_logits(module, samples)
    _check_conversion(image_shape, drawer_shape, allow_loss)
    n_drawn = _n_classes(drawn, converted(samples[:1], drawer_shape))
    mapped = _mapped(labels, logits.shape[1], n_drawn, getattr(module, "classes", None), names)
    weight = float(has_logits(drawn)) if logit_weight is None else logit_weight
    grafted = Grafted(
        module,
        drawn.to(samples.device),
        mapped,
        image_shape,
        drawer_shape,
        top_labels=top_labels,
        logit_weight=weight,
    )
    if clean is not None:
        _check_agreement(grafted, samples[TRIED:])
    if isinstance(classifier, str):
        grafted.config["classifier"] = classifier
    return grafted


def rebuilt(
    described: Mapping[str, Any], weights: Mapping[str, Tensor] | None, classifier: nn.Module | str | None = None
) -> Grafted:
    """The graft that a card describes, with its weights, in evaluation mode.

    Args:
        described: what `Grafted.config` said.
        weights: its state dict; by default those that its parts are made with.
        classifier: the classifier, or the `module:factory` that makes it, instead of what the card says.

    Raises:
        InputError: a card that does not say how to make the classifier, a factory that cannot be imported, or weights
            that do not fit.
    """
    made = described.get("classifier") if classifier is None else classifier
    if isinstance(made, str):
        try:
            made = import_model("classifier", made)
        except InputError as error:
            raise InputError(
                f"{error}; it is looked for in the current folder and among installed packages, and another one may be "
                "named (--classifier)"
            ) from error
    elif isinstance(made, Mapping):
        made = build(made)
    if not isinstance(made, nn.Module):
        raise InputError(
            "classifier: is one of your own, and the card does not say how to make it; must be given: --classifier "
            "module:factory on the command line, model=graft(classifier) in Python"
        )
    if not isinstance(described.get("drawer"), Mapping):
        raise InputError("drawer: is one of your own; model=graft(classifier, drawer) must be given in Python")
    image_shape, drawer_shape = (_checked_shape(described.get(name, ())) for name in ("image_shape", "drawer_shape"))
    known = ("layer", "top_labels", "logit_weight", "style_from")
    options = {name: described[name] for name in known if name in described}
    drawer, labels = build(described["drawer"]), described.get("labels", ())
    model = Grafted(made, drawer, labels, image_shape, drawer_shape, **options)
    model.config["classifier"] = classifier if isinstance(classifier, str) else described.get("classifier")
    if weights is not None:
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"weights: are not those of {type(made).__name__} and its drawer ({reason})") from error
    return model.eval()


def write(grafted: Grafted, folder: str | Path, drawer: str) -> Path:
    """Write a graft to `folder`, for `load`.

    Args:
        grafted: what `graft` made; `config["classifier"]` says how its classifier is made.
        folder: made where it is missing.
        drawer: where its drawer came from, for the card.

    Raises:
        InputError: the folder cannot be written to.
    """
    tensors = {WEIGHTS + key: value for key, value in grafted.state_dict().items()}
    if (sketch := trained_on(grafted)) is not None:
        tensors[TRAINED_ON] = sketch
    card = {
        "kind": "model",
        "architecture": architecture(grafted),
        "drawer": drawer,
        "versions": provenance.versions(),
        "commit": provenance.commit(),
    }
    return checkpoint.save(Path(folder) / checkpoint.MODEL_FILE, tensors, card)


def _loaded(drawer: str | Path | nn.Module) -> tuple[nn.Module, Sequence[str] | None]:
    """The drawer, and the names of its classes where they are known."""
    if isinstance(drawer, (str, Path)):
        model, card = load_with_card(drawer)
        return model, card.get("data", {}).get("classes")
    if not isinstance(drawer, nn.Module):
        raise InputError(f"drawer: got {type(drawer).__name__}, must be a torch.nn.Module, or a model's name or path")
    if not callable(getattr(drawer, "class_energies", None)):
        raise InputError(
            f"drawer: {type(drawer).__name__} has no class_energies, must be a model that says how badly each label "
            "explains an image, such as 'robust/mnist'"
        )
    return drawer, getattr(drawer, "classes", None)


def _shape_of(x: Tensor | None) -> Sequence[int] | None:
    return None if x is None else x.shape[1:]


def _checked_shape(shape: Sequence[int]) -> ImageShape:
    if len(shape) != 3 or not all(isinstance(side, int) and side > 0 for side in shape):
        raise InputError(f"image_shape: got {tuple(shape)}, must be (channels, height, width)")
    return shape[0], shape[1], shape[2]


def _check_conversion(given: ImageShape, wanted: ImageShape, allow_loss: bool) -> None:
    convertible = given[0] in (1, wanted[0]) or (given[0], wanted[0]) == (len(LUMA), 1)
    if not convertible:
        raise InputError(
            f"image_shape: got {given[0]} channels, must be {wanted[0]}, which the drawer takes, or grey, or colour "
            "for a grey drawer"
        )
    lost = loss_in_conversion(given, wanted)
    if lost and not allow_loss:
        raise InputError(
            f"drawer: takes images of shape {wanted}, in which those of the classifier, {given}, lose {lost}; must be "
            "a drawer that sees as much; or allow it: allow_loss=True, --allow-loss"
        )


def _samples(shape: ImageShape, clean: Tensor | None) -> Tensor:
    """Images drawn at random, and some of the clean ones."""
    drawn = torch.rand(TRIED, *shape, generator=torch.Generator().manual_seed(0))
    if clean is None:
        return drawn
    if tuple(clean.shape[1:]) != shape:
        raise InputError(f"x: shape is {tuple(clean.shape)}, must be (B, {', '.join(map(str, shape))})")
    return torch.cat([drawn, clean.detach().cpu()[: SHARED - TRIED]])


def checked_logits(classifier: nn.Module, x: Tensor) -> Tensor:
    """Logits (B, K) of images x, once nothing about them is amiss that could be noticed."""
    if names := sorted({type(part).__name__ for part in classifier.modules() if _waits_for_eval(part)}):
        _warn(
            f"is in training mode, in which {', '.join(names)} give other logits than when it is defended; call eval()"
        )
    with evaluating(classifier), torch.no_grad(), seeded(0):
        try:
            logits, again = Evidence(classifier, x).logits, Evidence(classifier, x).logits
            alone = torch.cat([Evidence(classifier, image[None]).logits for image in x[:4]])
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"image_shape: {type(classifier).__name__} does not take images of shape {tuple(x.shape[1:])} "
                f"({reason}); must be the shape that it takes"
            ) from error
    if count := int((~logits.isfinite()).any(1).sum()):
        raise InputError(f"classifier: gave logits that are not finite on {count} of {len(x)} images")
    if logits.shape[1] < 2:
        raise InputError(f"classifier: gave {logits.shape[1]} logit, must give one for each of 2 classes or more")
    if not torch.equal(logits, again):
        _warn("gives the same images other logits each time: so are its verdicts; attack it with eot")
    elif (alone - logits[:4]).abs().max() > BATCH_TOLERANCE * logits.abs().max().clamp_min(1):
        _warn("gives an image other logits when other images are in its batch, so that a verdict depends on them")
    if logits.min() >= 0 and (logits.sum(1) - 1).abs().max() < 1e-4:
        _warn(
            "gives probabilities, whose gradients vanish where it is sure, so that attacks fail that a real attacker "
            "would not: give its logits, or LogitsOf(classifier, pick=lambda p: p.clamp_min(1e-12).log())"
        )
    return logits


def _waits_for_eval(part: nn.Module) -> bool:
    return part.training and isinstance(part, (_NormBase, _DropoutNd))


def _n_classes(drawer: nn.Module, image: Tensor) -> int:
    """How many labels the drawer has energies of."""
    with evaluating(drawer), torch.no_grad():
        energies: Tensor = drawer.class_energies(image.to(device_of(drawer)))  # type: ignore[operator]
    if energies.ndim != 2 or not energies.isfinite().all():
        raise InputError(f"drawer: gave energies {tuple(energies.shape)}, must be finite ones (B, K)")
    return energies.shape[1]


def _mapped(
    labels: Sequence[int | str] | None,
    n_classes: int,
    n_drawn: int,
    names: Sequence[str] | None,
    drawn_names: Sequence[str] | None,
) -> list[int]:
    """The drawer's label for each of the classifier's."""
    if labels is None:
        labels = list(names) if names and drawn_names else list(range(n_drawn))
        if len(labels) != n_classes:
            raise InputError(
                f"labels: the classifier has {n_classes} classes and the drawer {n_drawn}; must name the drawer's "
                "label for each of the classifier's"
            )
    if len(labels) != n_classes:
        raise InputError(f"labels: got {len(labels)}, must be {n_classes}, one for each class of the classifier")
    found = [_label(each, n_drawn, drawn_names or ()) for each in labels]
    if twice := {each for each in found if found.count(each) > 1}:
        raise InputError(f"labels: got the drawer's label {min(twice)} for more than one class, must be all different")
    return found


def _label(given: int | str, n_drawn: int, names: Sequence[str]) -> int:
    """A label of the drawer, from its number or the name of its class: "7 - seven" is also called "7" and "seven"."""
    if isinstance(given, str):
        known = {alias: label for label, name in enumerate(names) for alias in _aliases(name)}
        for alias in _aliases(given):
            if alias in known:
                return known[alias]
        listed = ", ".join(names) or "none that it gives"
        raise InputError(
            f"labels: the drawer has no class {given!r}{nearest(given, known)} (its classes: {listed}); must be its "
            "label for each class of the classifier"
        )
    if isinstance(given, bool) or not isinstance(given, int) or not 0 <= given < n_drawn:
        raise InputError(f"labels: got {given!r}, must be in [0, {n_drawn - 1}], the drawer's labels, or a name")
    return given


def _aliases(name: str) -> Iterable[str]:
    whole = name.strip().casefold()
    return dict.fromkeys([whole, *(part.strip() for part in whole.split(" - "))])


def _check_agreement(grafted: Grafted, x: Tensor) -> None:
    with evaluating(grafted), torch.no_grad():
        evidence = Evidence(grafted, x, with_energies=True)
        same = evidence.logits.argmax(1) == evidence.energies.argmin(1)
    if same.float().mean() < LEAST_AGREEMENT:
        _warn(
            f"and drawer agree on the label of {int(same.sum())} of {len(x)} images x: what draws badly here rejects "
            "badly; look at `labels`, at the range and polarity of the images, and whether the drawer knows such images"
        )


def _warn(message: str) -> None:
    warnings.warn(f"classifier: {message}", stacklevel=5)
