"""The paper's objective: cross-entropy + α ‖x̂ − x‖₂ of a denoising autoencoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from ...models import StyleMemoryNet
from ..recipes import Recipe


class PaperObjective(nn.Module):
    """Wiyatno & Orchard 2018, section 3. The norm is Euclidean, not squared; noise goes into the encoder only."""

    figures = ("loss", "cross_entropy", "reconstruction", "accuracy")

    def __init__(self, model: StyleMemoryNet, recipe: Recipe) -> None:
        super().__init__()
        self.model = model
        self.recipe = recipe

    def forward(self, x: Tensor, y: Tensor, progress: float) -> Tensor:
        """Batch means of `figures`; x (B, C, H, W), y (B,), `progress` the share of the steps that is done."""
        logits, style = self.model.encode(x + self.recipe.noise * torch.randn_like(x))
        if self.recipe.decoder_input == "softmax":
            label = logits.softmax(1)
        else:
            label = one_hot(y, self.model.n_classes).to(style.dtype)
        difference = (self.model.decode(label, style) - x).flatten(1)
        reconstruction = torch.linalg.vector_norm(difference, dim=1).mean()
        classification = cross_entropy(logits, y)
        loss = classification + self.recipe.alpha * reconstruction
        accuracy = (logits.argmax(1) == y).float().mean()
        return torch.stack([loss, classification, reconstruction, accuracy])
