"""What is known of a defended classifier beside its weights: where it comes from, and what it is worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..types import InputError


@dataclass(frozen=True)
class RobustRisk:
    """A robust risk that was measured: the share of images that are wrong or rejected when clean, or are broken.

    Attributes:
        norm: "linf", "l2" or "l1".
        eps: the budget, in [0, 1] pixel units.
        risk: in [0, 1].
        n: how many images were attacked.
        attacks: which attacks, in words.

    Raises:
        InputError: a risk outside [0, 1], or an eps or n that is not above 0.
    """

    norm: str
    eps: float
    risk: float
    n: int
    attacks: str

    def __post_init__(self) -> None:
        if not 0 <= self.risk <= 1:
            raise InputError(f"risk: got {self.risk}, must be in [0, 1]")
        for name, value in {"eps": self.eps, "n": self.n}.items():
            if not value > 0:
                raise InputError(f"{name}: got {value}, must be above 0")


@dataclass(frozen=True)
class About:
    """What a model card says beyond detector and calibration; None where it is not known.

    Attributes:
        name: what the model is called.
        license: as Hugging Face calls it, such as "mit".
        data: the data set that it was trained on.
        recipe: how it was trained.
        accuracy: share of clean test images that the classifier alone labels right.
        n: how many test images there were.
        robust_risks: with its detector, at each budget that was measured.
    """

    name: str | None = None
    license: str | None = None
    data: str | None = None
    recipe: str | None = None
    accuracy: float | None = None
    n: int | None = None
    robust_risks: tuple[RobustRisk, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """What is known, as JSON values."""
        return {key: value for key, value in asdict(self).items() if value not in (None, ())}

    @classmethod
    def from_json(cls, stored: object, where: str) -> About:
        """What `to_json` gave; `where` is the file, for the message.

        Raises:
            InputError: something else.
        """
        try:
            given: dict[str, Any] = dict(stored)  # type: ignore[call-overload]  # a card may hold anything
            risks = tuple(RobustRisk(**risk) for risk in given.pop("robust_risks", ()))
            return cls(**given, robust_risks=risks)
        except (TypeError, ValueError, InputError) as error:
            raise InputError(f"{where}: its card gives `about` as {str(stored)[:60]} ({error})") from error

    @classmethod
    def of_training(cls, card: Mapping[str, Any], name: str | None = None, license: str | None = None) -> About:
        """What the card of a trained model says."""
        data, recipe, accuracy = (card.get(key) or {} for key in ("data", "recipe", "accuracy"))
        return cls(name, license, data.get("name"), recipe.get("name"), accuracy.get("test"), accuracy.get("n"))
