"""Files that are whole or absent: written beside their place, flushed, then renamed into it."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from .types import InputError

_SUFFIX = ".partial"
_PARTIAL = f".*{_SUFFIX}"
_KILLED = 3600  # seconds after which no writer can still be at it


def atomic_write(path: str | Path, content: bytes | str) -> Path:
    """Write `content` to `path` so that a reader, or a killed writer, never sees half of it.

    Raises:
        InputError: the folder cannot be made or written to.
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_SUFFIX)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
    return path


def check_writable(folder: Path) -> None:
    """Make `folder`, and clear what killed writers left in it.

    Raises:
        InputError: it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _clear(folder.glob(_PARTIAL))
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror or error})") from error


def clear_partial(folder: Path) -> None:
    """Clear what killed writers left in `folder` and below; what others may be writing now stays."""
    _clear(folder.rglob(_PARTIAL))


def _clear(files: Iterable[Path]) -> None:
    for left in list(files):
        with contextlib.suppress(OSError):  # another run clears it too
            if time.time() - left.stat().st_mtime > _KILLED:
                left.unlink()


def check_picture(path: Path, argument: str) -> Path:
    """The path of a picture to write.

    Raises:
        InputError: it ends in neither .png nor .svg; names the argument.
    """
    if path.suffix not in (".png", ".svg"):
        raise InputError(f"{argument}: got {path}, must end in .png or .svg")
    return path


def check_suite(path: Path) -> None:
    """Whether there is such a suite; here, so that the command line can tell before it imports what runs one.

    Raises:
        InputError: there is none; with the nearest beside it or in `benchmarks`.
    """
    if not path.is_file():
        known = {other.stem: other for folder in (Path("benchmarks"), path.parent) for other in folder.glob("*.toml")}
        close = difflib.get_close_matches(path.stem, known, n=1, cutoff=0.5)
        hint = f"; did you mean {known[close[0]]}?" if close else ""
        raise InputError(f"suite: no file {path}{hint}")


def slug(name: str) -> str:
    """A name fit for a file: `folder:photos/cats` becomes `folder-photos-cats`."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
