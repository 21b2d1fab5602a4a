"""What a run measures, with types, and its JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from .timing import Timing


@dataclass(frozen=True)
class Ratio:
    """How long `what` takes as a multiple of the time of `against`: the median over rounds, the least and the most."""

    what: str
    images_per_second: float
    against: str
    ratio: float
    least: float
    most: float

    @classmethod
    def of(cls, n: int, timings: dict[str, Timing], what: str, against: str, title: str = "") -> Ratio:
        """The ratio of two of the timings, of n images a round."""
        least, median, most = timings[what].over(timings[against])
        return cls(f"{title}{what}", n / timings[what].median, against, median, least, most)


@dataclass(frozen=True)
class AttackSpeed:
    """How many times as fast one of our own attacks is as a peer, on the same network, images, steps and step size.

    Attributes:
        network, eps, images: what is attacked, and how many images.
        own, peer: the two engines.
        own_broken, peer_broken: images whose label in float32 is wrong afterwards.
        own_gradients, peer_gradients: gradients that the engine computed, an image.
        speedup, least, most: the peer's time over our own, the median over rounds and its ends.
    """

    network: str
    eps: float
    images: int
    own: str
    own_broken: int
    own_gradients: float
    peer: str
    peer_broken: int
    peer_gradients: float
    speedup: float
    least: float
    most: float


@dataclass(frozen=True)
class PeakShare:
    """Floating-point operations a second of scoring, and of the matrix product in the same precision beside it."""

    what: str
    precision: str
    gflops: float
    peak_gflops: float
    share: float


@dataclass(frozen=True)
class Agreement:
    """AUROC of the detector's scores in both precisions, over the same clean and adversarial images."""

    network: str
    detector: str
    eps: float
    images: int
    float32: float
    bfloat16: float


@dataclass(frozen=True)
class SpeedReport:
    """All of a run; `notes` say what was left out."""

    ratios: list[Ratio]
    attacks: list[AttackSpeed]
    peaks: list[PeakShare]
    agreements: list[Agreement]
    notes: list[str]
    environment: dict[str, Any]

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> SpeedReport:
        given = json.loads(text)
        kinds: dict[str, Callable[..., Any]] = {
            "ratios": Ratio,
            "attacks": AttackSpeed,
            "peaks": PeakShare,
            "agreements": Agreement,
        }
        rows = {name: [kind(**row) for row in given[name]] for name, kind in kinds.items()}
        return cls(**rows, notes=given["notes"], environment=given["environment"])
