"""The contrastive objective: the true label must explain an input better than plausible wrong ones do."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from ..models import StyleMemoryNet
from ..types import InputError
from .adversary import ascend
from .recipes import Recipe


class ContrastiveObjective(nn.Module):
    """Cross-entropy on the logits and on −energies, and the paper's reconstruction error.

    The energies are those of the true label and of the wrong ones with the highest logits; they judge the input that
    the network gets, as a detector will. The drawing under the true label is compared with the clean image. With
    `recipe.eps` above 0 the input of all but a `clean_share` of a batch is adversarial: A. Madry et al., "Towards
    Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018.

    Raises:
        InputError: a recipe that asks for more wrong labels than the model has.
    """

    figures = ("loss", "cross_entropy", "contrast", "reconstruction", "accuracy")

    def __init__(self, model: StyleMemoryNet, recipe: Recipe) -> None:
        super().__init__()
        if recipe.wrong_labels >= model.n_classes:
            raise InputError(
                f"wrong_labels: got {recipe.wrong_labels}, must be below the number of classes, {model.n_classes}"
            )
        self.model = model
        self.recipe = recipe

    def forward(self, x: Tensor, y: Tensor, progress: float) -> Tensor:
        """Batch means of `figures`; x (B, C, H, W), y (B,), `progress` the share of the steps that is done."""
        seen = x + self.recipe.noise * torch.randn_like(x)
        n_clean = round(self.recipe.clean_share * len(x))
        if eps := self.recipe.eps_at(progress):
            moved = ascend(self.model, x[n_clean:], y[n_clean:], eps, self.recipe.attack_steps)
            seen = torch.cat([seen[:n_clean], moved])
        logits, style = self.model.encode(seen)
        wrong = logits.detach().scatter(1, y[:, None], -torch.inf).topk(self.recipe.wrong_labels, dim=1).indices
        energies = self.model.energies(seen, style, torch.cat([y[:, None], wrong], dim=1))
        drawn = self.model.decode(one_hot(y, self.model.n_classes).to(style.dtype), style)
        reconstruction = torch.linalg.vector_norm((drawn - x).flatten(1), dim=1).mean()
        classification = cross_entropy(logits, y)
        contrast = cross_entropy(-energies, torch.zeros_like(y))
        loss = classification + self.recipe.contrast * contrast + self.recipe.alpha * reconstruction
        accuracy = (logits.argmax(1) == y).float().mean()
        return torch.stack([loss, classification, contrast, reconstruction, accuracy])
