"""The names of the detectors; known without importing torch, so that a wrong one is answered at once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..attacks import import_factory
from ..types import InputError, unknown_name

PLACES: dict[str, str] = {
    "label_margin": "reconstruction:LabelMargin",
    "global_error": "reconstruction:GlobalError",
    "free_energy": "reconstruction:FreeEnergy",
    "cycle": "reconstruction:Cycle",
    "msp": "confidence:MaximumSoftmaxProbability",
    "max_logit": "confidence:MaxLogit",
    "logit_margin": "confidence:LogitMargin",
    "energy": "confidence:Energy",
    "mahalanobis": "mahalanobis:Mahalanobis",
    "relative_mahalanobis": "relative_mahalanobis:RelativeMahalanobis",
    "knn": "nearest_neighbours:KNearestNeighbours",
    "vim": "virtual_logit:VirtualLogitMatching",
    "lid": "intrinsic_dimension:LocalIntrinsicDimensionality",
    "feature_squeezing": "feature_squeezing:FeatureSqueezing",
    "magnet": "magnet:MagNet",
    "odds": "odds:Odds",
    "cpr": "consistent_prediction:ConsistentPrediction",
}
"""Name -> "module:class" in this package; the class has the same `name`."""

ON_A_LAYER = ("mahalanobis", "relative_mahalanobis", "knn", "vim")
"""Those that look at one layer of the network, another one where the name says so: `knn(LAYER)`."""

DEFAULTS = ("label_margin", "global_error")
"""What a benchmark judges by where no detector is named: any model with class energies has what these two need."""

_ANY_OF = "any_of("
_RENAMED = {"marginal": "free_energy"}  # in files of earlier versions


def check_name(name: str) -> None:
    """Whether there is a detector of this name, or all of those that `any_of(NAME,NAME,...)` names.

    Whether a model has the layer of `knn(LAYER)` only the model can tell. A `module:factory` is imported, and
    torch only where the module imports it.

    Raises:
        InputError: unknown name; the message suggests the closest one. A layer of a detector that looks at none of
            one's choice. A module that cannot be imported.
    """
    several = names_in(name)
    if several is not None:
        for each in several:
            part = without_share(each)[0]
            if is_own(part):
                raise InputError(f"detector: got {part} in {name.strip()}, must be a name of the catalogue there")
            check_name(part)
    elif is_own(name):
        check_own_name(name)
        import_factory("detector", name)
    else:
        detector, layer = without_layer(name)
        if detector not in PLACES:
            unknown_name("detector", detector, [*PLACES, f"{_ANY_OF}NAME,NAME)"])
        if layer is not None and not (layer and detector in ON_A_LAYER):
            known = ", ".join(f"{each}(LAYER)" for each in ON_A_LAYER)
            raise InputError(f"detector: got {name.strip()}, must be {detector} alone, or with a layer: {known}")


def is_own(name: str) -> bool:
    """Whether a name is `module:factory`: a detector of the user's own."""
    return ":" in name and names_in(name) is None


def check_own_name(name: str) -> None:
    """Whether a name has the form `module:factory`.

    Raises:
        InputError: it does not.
    """
    module, _, factory = name.partition(":")
    if not all(part.isidentifier() for part in [*module.split("."), factory]):
        raise InputError(f"detector: got {name!r}, must be module:factory, such as my_detector:score in my_detector.py")


def names_in(name: str) -> Sequence[str] | None:
    """The names in `any_of(NAME,NAME,...)`; None for one that stands alone."""
    name = name.strip()
    return name[len(_ANY_OF) : -1].split(",") if name.startswith(_ANY_OF) and name.endswith(")") else None


def with_layer(name: str, layer: str | None) -> str:
    """How a detector is named that looks at another layer than by default: `knn(conv2)`."""
    return name if layer is None else f"{name}({layer})"


def without_layer(name: str) -> tuple[str, str | None]:
    """The name and the layer of `knn(conv2)`; None for the layer that a detector looks at by default."""
    detector, bracket, layer = name.strip().partition("(")
    return (detector.strip(), layer[:-1].strip()) if bracket and layer.endswith(")") else (name.strip(), None)


def with_share(name: str, share: int) -> str:
    """How `any_of` names a detector that has `share` parts of the false-alarm rate: `3*NAME`, NAME for one part."""
    return name if share == 1 else f"{share}*{name}"


def without_share(named: str) -> tuple[str, int]:
    """The name and the share of `3*NAME`."""
    share, times, name = named.strip().partition("*")
    return (name.strip(), int(share)) if times and share.isdecimal() else (named.strip(), 1)


def current_name(stored: str) -> str:
    """What the detector is called now that a file of an earlier version calls `stored`."""
    return _exchanged(stored, _RENAMED)


def former_name(name: str) -> str:
    """What earlier versions called a detector."""
    return _exchanged(name, {new: old for old, new in _RENAMED.items()})


def _exchanged(name: str, names: Mapping[str, str]) -> str:
    if is_own(name):
        return name
    return re.sub(r"\w+", lambda word: names.get(word[0], word[0]), name)
