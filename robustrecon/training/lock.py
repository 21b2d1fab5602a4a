"""One run at a time in a folder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from ..types import InputError

LOCK_FILE = ".train.lock"


@contextlib.contextmanager
def only_run_in(folder: Path) -> Iterator[None]:
    """Hold the folder's lock. The system holds it for the process, so that a killed one leaves nothing behind.

    Raises:
        InputError: another process holds it.
    """
    try:
        import fcntl  # noqa: F401
    except ImportError:  # Windows: nothing keeps two runs apart before the first checkpoint
        yield
        return
    handle = _locked(folder / LOCK_FILE)
    try:
        yield
    finally:
        (folder / LOCK_FILE).unlink(missing_ok=True)  # first, so that nobody gets the lock of a file that goes away
        os.close(handle)


def _locked(path: Path) -> int:
    import fcntl

    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise InputError(
                f"out: {path.parent} is in use by another training run; wait for it or name another folder"
            ) from None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), os.stat(path)):
                return handle
        os.close(handle)  # its holder removed the file before we got the lock: lock the new one
