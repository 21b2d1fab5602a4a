"""Where the cells of a run are kept: in a folder, or in memory until someone saves them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from torch import Tensor

from . import store
from .key import CellKey
from .result import Cell, CellResult


class Keeper(Protocol):
    """What a run asks of the place that its cells are kept in; `store` says what each method does."""

    def place(self, key: CellKey) -> str:
        """Where a cell is, for a message."""
        ...

    def find(self, key: CellKey) -> Cell | None: ...

    def write(self, cell: Cell) -> None: ...

    def has_images(self, result: CellResult) -> bool: ...

    def read_images(self, key: CellKey) -> tuple[Tensor, Tensor] | None: ...

    def write_images(self, key: CellKey, index: Tensor, x: Tensor) -> None: ...

    def remove_images(self, key: CellKey) -> None: ...


class InFolder:
    """Cells in files below a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def place(self, key: CellKey) -> str:
        return str(self.root / key.path)

    def find(self, key: CellKey) -> Cell | None:
        return store.find_any(self.root, key)

    def write(self, cell: Cell) -> None:
        store.write(self.root, cell)

    def has_images(self, result: CellResult) -> bool:
        return store.has_images(self.root, result)

    def read_images(self, key: CellKey) -> tuple[Tensor, Tensor] | None:
        return store.read_images(self.root, key)

    def write_images(self, key: CellKey, index: Tensor, x: Tensor) -> None:
        store.write_images(self.root, key, index, x)

    def remove_images(self, key: CellKey) -> None:
        store.remove_images(self.root, key)


class InMemory:
    """Cells of this process, by the files that `save` writes them to."""

    def __init__(self) -> None:
        self.cells: dict[Path, Cell] = {}
        self.images: dict[Path, tuple[Tensor, Tensor]] = {}

    def place(self, key: CellKey) -> str:
        return f"{key.title}, {key.budget}, {key.detector}"

    def find(self, key: CellKey) -> Cell | None:
        return self.cells.get(key.path)

    def write(self, cell: Cell) -> None:
        self.cells[cell.key.path] = cell

    def has_images(self, result: CellResult) -> bool:
        return True

    def read_images(self, key: CellKey) -> tuple[Tensor, Tensor] | None:
        return self.images.get(key.path)

    def write_images(self, key: CellKey, index: Tensor, x: Tensor) -> None:
        self.images[key.path] = index, x

    def remove_images(self, key: CellKey) -> None:
        self.images.pop(key.path, None)


def copy(cells: Sequence[Cell], kept: Keeper, root: Path) -> list[Path]:
    """Write cells, and the images that are kept with them, to files below `root`; returns the cells' files.

    Raises:
        InputError: an unwritable folder.
    """
    written = []
    for cell in cells:
        written.append(store.write(root, cell))
        images = kept.read_images(cell.key)
        if images is None:
            store.remove_images(root, cell.key)
        else:
            store.write_images(root, cell.key, *images)
    return written
