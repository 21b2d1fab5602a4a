"""The result of a cell, or why there is none, as typed values; stored as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch

from .. import provenance
from .fields import Fields, Json, WrongJson, text
from .images import ImageFlags, Images
from .key import CellKey
from .metrics import Metrics

FAILED = "failed"


@dataclass(frozen=True)
class FiredCheck:
    """A sign that the attack failed rather than that the defence held.

    Attributes:
        name: of `attacks.CHECKS`.
        message: what was seen.
    """

    name: str
    message: str

    def to_json(self) -> dict[str, Json]:
        return {"name": self.name, "message": self.message}

    @classmethod
    def from_json(cls, value: object) -> FiredCheck:
        given = Fields(value, "check")
        return cls(given.text("name"), given.text("message"))


@dataclass(frozen=True)
class Environment:
    """Where a cell was measured: package versions, commit, device, thread count, and what the attack searched in."""

    versions: Mapping[str, str]
    commit: str | None
    device: str
    threads: int
    precision: str = "float32"

    @classmethod
    def of(cls, device: torch.device, precision: str) -> Environment:
        """This process, attacking on `device` by a search in `precision`."""
        return cls.from_json(provenance.environment(device, precision))

    def to_json(self) -> dict[str, Json]:
        """As stored: without `precision` where it is float32."""
        return {
            "versions": dict(self.versions),
            "commit": self.commit,
            "device": self.device,
            "threads": self.threads,
            **({} if self.precision == "float32" else {"precision": self.precision}),
        }

    @classmethod
    def from_json(cls, value: object) -> Environment:
        given = Fields(value, "environment")
        return cls(
            versions=given.mapping("versions", text),
            commit=given.maybe_text("commit"),
            device=given.text("device"),
            threads=given.whole("threads"),
            precision=given.text("precision") if "precision" in given else "float32",
        )

    def __str__(self) -> str:
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return f"Commit {self.commit}, {self.device}, {self.threads} threads, search in {self.precision}; {versions}."


@dataclass(frozen=True)
class CellResult:
    """A cell that was measured.

    Attributes:
        key: what was measured.
        metrics: its figures.
        knows_detector: whether the attack knows the detector.
        checks: those that fired.
        environment: where it was measured.
        seconds: attacking, checking and judging took.
        images_per_second: of all that.
        images: what happened to each image.
    """

    key: CellKey
    metrics: Metrics
    knows_detector: bool
    checks: tuple[FiredCheck, ...]
    environment: Environment
    seconds: float
    images_per_second: float
    images: Images

    @property
    def flags(self) -> ImageFlags:
        """What is true of each image."""
        return self.images.flags(self.metrics.threshold)

    def summary(self) -> dict[str, Json]:
        """As stored, without what happened to each image."""
        return {
            "spec": self.key.to_json(),
            **self.metrics.to_json(),
            "knows_detector": self.knows_detector,
            "checks": [check.to_json() for check in self.checks],
            "environment": self.environment.to_json(),
            "seconds": self.seconds,
            "images_per_second": self.images_per_second,
        }

    def to_json(self) -> dict[str, Json]:
        return {**self.summary(), "images": self.images.to_json()}

    @classmethod
    def from_json(cls, value: object) -> CellResult:
        """What `to_json` gave.

        Raises:
            WrongJson: it is something else.
        """
        given = Fields(value)
        return cls(
            key=CellKey.from_json(given.inner("spec").values),
            metrics=Metrics.from_json(given),
            knows_detector=given.flag("knows_detector"),
            checks=given.several("checks", FiredCheck.from_json),
            environment=Environment.from_json(given.inner("environment").values),
            seconds=given.number("seconds"),
            images_per_second=given.number("images_per_second"),
            images=Images.from_json(given.inner("images").values),
        )


@dataclass(frozen=True)
class CellFailure:
    """A cell that could not be measured.

    Attributes:
        key: what was to be measured.
        error: why not, in a line.
        environment: where it was tried.
    """

    key: CellKey
    error: str
    environment: Environment

    @classmethod
    def of(cls, key: CellKey, error: Exception, environment: Environment) -> CellFailure:
        return cls(key, error_line(error), environment)

    def summary(self) -> dict[str, Json]:
        """As stored."""
        return {
            "spec": self.key.to_json(),
            "status": FAILED,
            "error": self.error,
            "environment": self.environment.to_json(),
        }

    @classmethod
    def from_json(cls, value: object) -> CellFailure:
        given = Fields(value)
        key, environment = (given.inner(name).values for name in ("spec", "environment"))
        return cls(CellKey.from_json(key), given.text("error"), Environment.from_json(environment))


def error_line(error: Exception) -> str:
    """An error in a line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


Cell: TypeAlias = CellResult | CellFailure


def cell_from_json(value: object) -> Cell:
    """A result, or a failure.

    Raises:
        WrongJson: it is neither.
    """
    given = Fields(value)
    if "spec" not in given:
        raise WrongJson("the file: has no spec")
    return CellFailure.from_json(value) if given.values.get("status") == FAILED else CellResult.from_json(value)


def measured(cells: Sequence[Cell]) -> list[CellResult]:
    """Those that were measured."""
    return [cell for cell in cells if isinstance(cell, CellResult)]


def failed(cells: Sequence[Cell]) -> list[CellFailure]:
    """Those that could not be measured."""
    return [cell for cell in cells if isinstance(cell, CellFailure)]
