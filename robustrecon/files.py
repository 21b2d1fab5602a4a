"""Files that are whole or absent: written beside their place, flushed, then renamed into it."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from .types import InputError

_SUFFIX = ".partial"


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
    """Make `folder` and clear what killed writers left in it.

    Raises:
        InputError: it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f".*{_SUFFIX}"):
            left.unlink()
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror or error})") from error


def slug(name: str) -> str:
    """A name fit for a file: `folder:photos/cats` becomes `folder-photos-cats`."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
