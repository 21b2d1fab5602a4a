"""Checkpoints: tensors in a safetensors file, everything else in a JSON card. Neither can hold code.

The card is stored in the header of the safetensors file, and once more in a readable `.json` file beside it. The
safetensors file alone is a complete checkpoint, so that one atomic rename replaces it. A `.json` file that differs from
the stored card is an error. A safetensors file is an 8-byte header length, a JSON header and the tensors' bytes.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from .files import atomic_write
from .types import InputError

FORMAT = "robustrecon/1"
MODEL_FILE = "model.safetensors"
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by name, and the card that describes them; the card's `sha256` is the hash of both."""

    tensors: dict[str, Tensor]
    card: dict[str, Any]


def save(path: str | Path, tensors: Mapping[str, Tensor], card: Mapping[str, Any]) -> Path:
    """Write `path` (.safetensors) atomically, and its card beside it as `.json`.

    Raises:
        InputError: the path does not end in .safetensors or cannot be written.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise InputError(f"path: got {path}, must end in .safetensors")
    # Tied weights share memory, which safetensors does not allow: each tensor is copied.
    copied = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    described = {"format": FORMAT, **card}
    complete = {**described, "sha256": _sealed(safetensors.torch.save(copied), described)}
    blob = safetensors.torch.save(copied, metadata={"card": json.dumps(complete)})
    beside = path.with_suffix(".json")
    # A run that is killed here leaves the old pair of files, one safetensors file or the new pair: each can be loaded.
    if beside.exists():
        beside.unlink()
    atomic_write(path, blob)
    atomic_write(beside, json.dumps(complete, indent=2) + "\n")
    return path


def load(path: str | Path) -> Checkpoint:
    """Read a checkpoint: a .safetensors file, or a folder that holds `model.safetensors`.

    Raises:
        InputError: no such file, a pickle, a truncated, damaged or foreign file, one that a newer version wrote, or a
            `.json` file beside it that differs from its card.
    """
    path = Path(path)
    if path.is_dir():
        path = path / MODEL_FILE
    try:
        blob = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such checkpoint; `robustrecon train` makes one") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        tensors = safetensors.torch.load(blob)
    except SafetensorError as error:
        # Asked only now: the length of a header may begin with the same bytes.
        if blob.startswith(_PICKLE_STARTS):
            raise InputError(
                f"{path}: is a pickle (torch.save), must be safetensors; pickles are never loaded "
                "because reading one can run code"
            ) from error
        raise InputError(f"{path}: is not a whole safetensors file ({error})") from error
    card = _embedded_card(blob)
    written_as = str(card.get("format"))
    if written_as != FORMAT:
        if re.fullmatch(r"robustrecon/\d+", written_as):
            raise InputError(
                f"{path}: has the format {written_as}, which a newer version of robustrecon wrote; this version reads "
                f"{FORMAT}"
            )
        raise InputError(f"{path}: is a foreign safetensors file, must hold a {FORMAT} card")
    if card.get("sha256") != _sealed(blob, card):
        raise InputError(f"{path}: is damaged, or its card was edited: they do not have the hash that the card gives")
    _check_card_beside(path, card)
    return Checkpoint(tensors, card)


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of named tensors, which does not depend on the card that they are stored with."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        found.update(name.encode())
        found.update(tensors[name].detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _sealed(blob: bytes, card: Mapping[str, Any]) -> str:
    """SHA-256 of the card, without its own `sha256`, and of the tensors' bytes."""
    described = {key: value for key, value in card.items() if key != "sha256"}
    found = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    found.update(memoryview(blob)[_header_end(blob) :])
    return found.hexdigest()


def _header_end(blob: bytes) -> int:
    return 8 + int.from_bytes(blob[:8], "little")


def _embedded_card(blob: bytes) -> dict[str, Any]:
    """The card in the header of a safetensors file; empty where the header holds none."""
    header = json.loads(blob[8 : _header_end(blob)])
    try:
        card = json.loads(header["__metadata__"]["card"])
    except (KeyError, TypeError, ValueError):
        return {}
    return card if isinstance(card, dict) else {}


def _check_card_beside(path: Path, card: dict[str, Any]) -> None:
    beside = path.with_suffix(".json")
    if not beside.exists():
        return
    try:
        readable = json.loads(beside.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{beside}: is not a readable card ({error})") from error
    if not isinstance(readable, dict):
        raise InputError(f"{beside}: is not a card, must be a JSON object")
    if readable != card:
        keys = sorted(key for key in {*card, *readable} if readable.get(key) != card.get(key))
        raise InputError(f"{beside}: does not match {path.name}; they differ in {', '.join(keys)}")


class WeightsWatch:
    """Tells whether a module is still the one that it was made with: its architecture, weights and buffers.

    Looks at a checksum first, projections of the weights on a fixed random vector, which takes a fraction of a forward
    pass, and at the hash where that differs: rounding may differ on another device.
    """

    def __init__(self, module: nn.Module, fingerprint: str | None = None) -> None:
        self.fingerprint = _fingerprint(module) if fingerprint is None else fingerprint
        self._checksum = _checksum(module) if fingerprint is None else None

    def unchanged(self, module: nn.Module, exactly: bool = False) -> bool:
        """Whether the module is the one of then; `exactly` compares the hash in any case."""
        checksum = _checksum(module)
        if exactly or self._checksum is None or not torch.equal(checksum, self._checksum):
            if _fingerprint(module) != self.fingerprint:
                return False
            self._checksum = checksum
        return True


_PROJECTED = 1024  # weights at a time


def _fingerprint(module: nn.Module) -> str:
    architecture = re.sub(r" at 0x[0-9a-f]+", "", repr(module))  # addresses differ from process to process
    return hashlib.sha256((digest(dict(_named_tensors(module))) + architecture).encode()).hexdigest()


def _checksum(module: nn.Module) -> Tensor:
    """(P,) float64: projections of `_PROJECTED` weights each, and one number for the architecture."""
    found = [torch.tensor([float(hash(repr(module)))], dtype=torch.float64)]
    vector = torch.randn(_PROJECTED, generator=torch.Generator().manual_seed(0))
    for _, tensor in _named_tensors(module):
        flat = tensor.detach().flatten()
        flat = flat if flat.dtype in (torch.float32, torch.float64) else flat.float()
        direction = vector.to(flat)
        whole = len(flat) // _PROJECTED * _PROJECTED
        rest = flat[whole:] @ direction[: len(flat) - whole]
        found += [(flat[:whole].view(-1, _PROJECTED) @ direction).double().cpu(), rest[None].double().cpu()]
    return torch.cat(found)


def _named_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Floating-point weights and buffers; what counts batches is of no consequence in evaluation mode."""
    for name, tensor in itertools.chain(module.named_parameters(), module.named_buffers()):
        if tensor.is_floating_point():
            yield name, tensor
