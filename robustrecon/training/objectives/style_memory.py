"""The objective of the style-memory paper: a classifier and a denoising autoencoder."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from ...models.base import StyleCodes
from ..checks import at_least, one_of
from .base import Objective, ObjectiveOptions


class StyleMemoryObjective(Objective):
    """Cross-entropy + `reconstruction_weight` · ‖x̂ − x‖₂, the norm not squared; noise goes into the encoder only.

    R. Wiyatno, J. Orchard, "Style Memory: Making a Classifier Network Generative", IEEE ICCI*CC 2018, section 3. The
    paper leaves open the noise and what feeds the decoder.
    """

    requires = (StyleCodes,)
    metrics = ("loss", "cross_entropy", "reconstruction", "accuracy")

    @dataclass(frozen=True)
    class Options(ObjectiveOptions):
        """Options of the objective.

        Attributes:
            noise: standard deviation of the Gaussian noise added to the input, in [0, 1] pixel units.
            reconstruction_weight: weight of the reconstruction error beside the cross-entropy; the paper's α.
            decoder_input: "softmax" (the network's own class neurons) or "one-hot" (the true label).

        Raises:
            InputError: one out of its range.
        """

        noise: float = 0.1
        reconstruction_weight: float = 0.05
        decoder_input: str = "softmax"

        def __post_init__(self) -> None:
            at_least(0, self, "noise", "reconstruction_weight")
            one_of(self, "decoder_input", "softmax", "one-hot")

    options: Options

    def forward(self, x: Tensor, y: Tensor, progress: float) -> dict[str, Tensor]:
        """Batch means of `metrics` for images x (B, C, H, W) with labels y (B,)."""
        model, options = self.model, self.options
        assert isinstance(model, StyleCodes)
        logits, style = model.encode(x + options.noise * torch.randn_like(x))
        label = logits.softmax(1) if options.decoder_input == "softmax" else one_hot(y, model.n_classes).to(style.dtype)
        difference = (model.decode(label, style) - x).flatten(1)
        reconstruction = torch.linalg.vector_norm(difference, dim=1).mean()
        classification = cross_entropy(logits, y)
        return {
            "loss": classification + options.reconstruction_weight * reconstruction,
            "cross_entropy": classification,
            "reconstruction": reconstruction,
            "accuracy": (logits.argmax(1) == y).float().mean(),
        }
