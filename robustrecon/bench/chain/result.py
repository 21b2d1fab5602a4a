"""What a chain of attacks found, as a typed value, stored as one JSON file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from ...detectors import is_own
from ...files import atomic_write, slug
from ..fields import Fields, Json, number, optional
from ..key import CellKey
from ..result import Environment
from ..worst_case import WorstCase

SHARD = 125  # images that are attacked together, however many workers there are


@dataclass(frozen=True)
class ChainKey:
    """What decides the worst case of one model, detector and norm.

    Attributes:
        cells: what each attack at each radius would be on its own, in the order in which they run; at least one. Their
            `n` is the most images that the attack gets.
    """

    cells: tuple[CellKey, ...]

    @property
    def n(self) -> int:
        """The first n test images."""
        return max(cell.n for cell in self.cells)

    @property
    def n_shards(self) -> int:
        """The parts in which the images are attacked."""
        return -(-self.n // SHARD)

    @property
    def path(self) -> Path:
        """The file of the result, below the folder of all results."""
        cell = self.cells[0]
        said = json.dumps([SHARD, *(each.to_json() for each in self.cells)], sort_keys=True)
        digest = hashlib.sha256(said.encode()).hexdigest()[:12]
        return cell.folder / slug(cell.detector) / f"worst-case-{cell.norm}-s{cell.seed}-{digest}.json"

    @property
    def shards(self) -> Path:
        """The folder of what is done of a chain that is not complete, below the folder of all results."""
        return self.path.with_suffix(".shards")


@dataclass(frozen=True)
class ChainResult:
    """The worst case of one model, detector and norm, at every radius.

    Attributes:
        key: what was run.
        entries: one for each radius, ascending.
        risk_from: for each image the smallest radius at which it is at risk: 0 where it is wrong or rejected when
            clean, None where no attack broke it.
        environment: where the last of it was run.
    """

    key: ChainKey
    entries: tuple[WorstCase, ...]
    risk_from: tuple[float | None, ...]
    environment: Environment

    @property
    def seconds(self) -> float:
        """Attacking and checking took, over all shards."""
        return sum(attack.seconds or 0.0 for entry in self.entries for attack in entry.attacks)

    @property
    def clean_risk(self) -> float:
        """Share of the images that are wrong or rejected when clean."""
        return self.risk_from.count(0.0) / len(self.risk_from)

    @property
    def complete(self) -> bool:
        """Whether no attack failed, so that it need not be run again."""
        return not any(entry.failed for entry in self.entries)

    def to_json(self) -> dict[str, Json]:
        return {
            "chain": [cell.to_json() for cell in self.key.cells],
            "worst_case": [entry.to_json() for entry in self.entries],
            "risk_from": list(self.risk_from),
            "environment": self.environment.to_json(),
        }

    @classmethod
    def from_json(cls, value: object) -> ChainResult:
        """What `to_json` gave.

        Raises:
            WrongJson: it is something else.
        """
        given = Fields(value)
        return cls(
            key=ChainKey(given.several("chain", CellKey.from_json)),
            entries=given.several("worst_case", WorstCase.from_json),
            risk_from=given.several("risk_from", optional(number)),
            environment=Environment.from_json(given.inner("environment").values),
        )


def write(root: Path, result: ChainResult) -> Path:
    """Store a result below `root`."""
    return atomic_write(root / result.key.path, json.dumps(result.to_json(), indent=1, allow_nan=False) + "\n")


def find(root: Path, key: ChainKey) -> ChainResult | None:
    """The stored result of exactly this chain in which no attack failed, or None.

    None too where an attack or the detector is the user's own, which may have changed since.
    """
    if any(cell.engine is None or is_own(cell.detector) for cell in key.cells):
        return None
    try:
        result = ChainResult.from_json(json.loads((root / key.path).read_text()))
    except (OSError, ValueError, RecursionError):  # WrongJson is a ValueError
        return None
    return result if result.key == key and result.complete else None
