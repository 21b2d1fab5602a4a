"""What fitted detectors learned, kept beside the results, so that processes and later runs share it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError

from ..data import Dataset
from ..defence import DefendedClassifier, fit_to, unfitted
from ..detectors import FittedDetector
from ..files import atomic_write, slug
from ..runtime import device_of

FOLDER = "fitted"


@dataclass(frozen=True)
class Learned:
    """The statistics of one model's fitted detectors. As with cells, a change to a detector asks for a new folder.

    Attributes:
        folder: of the model's results; None keeps nothing.
        weights: hash of the model's weights.
        data: what detectors learn from.
    """

    folder: Path | None
    weights: str
    data: Dataset

    def recall(self, defended: DefendedClassifier) -> bool:
        """Take on what is kept; returns whether all parts of the detector can score now. Nothing is trained."""
        for part in unfitted(defended):
            path = self._path(part)
            try:
                stored = safetensors.torch.load(path.read_bytes()) if path else {}
            except (OSError, SafetensorError):
                stored = {}
            part.set_statistics({name: tensor.to(device_of(defended.model)) for name, tensor in stored.items()})
        return not unfitted(defended)

    def learn(self, defended: DefendedClassifier) -> None:
        """Take on what is kept, let the others learn from the training images, and keep that.

        Raises:
            InputError: the data set has no training images, or the folder cannot be written to.
        """
        if self.recall(defended):
            return
        learning = unfitted(defended)
        fit_to(defended, self.data)
        for part in learning:
            if path := self._path(part):
                tensors = {name: tensor.cpu().contiguous() for name, tensor in part.state_dict().items()}
                atomic_write(path, safetensors.torch.save(tensors))

    def _path(self, part: FittedDetector) -> Path | None:
        if self.folder is None:
            return None
        known = hashlib.sha256(f"{part.name} {self.weights} {self.data.fingerprint}".encode()).hexdigest()[:16]
        return self.folder / FOLDER / f"{slug(part.name)}-{known}.safetensors"
