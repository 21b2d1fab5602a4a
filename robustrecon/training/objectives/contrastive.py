"""The contrastive objective: the true label must explain an input better than plausible wrong ones do."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, nll_loss, one_hot

from ...models import StyleMemoryNet
from ..adversary import ascend
from ..augment import warped
from ..recipes import Recipe


class ContrastiveObjective(nn.Module):
    """Cross-entropy on the logits and on −energies, and the paper's reconstruction error.

    The energies are those of the true label and of the wrong ones with the highest logits; they judge the input that
    the network gets, as a detector will. The drawing under the true label is compared with the clean image. With
    `recipe.eps` above 0 the input of all but a `clean_share` of a batch is adversarial: A. Madry et al., "Towards
    Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018. What those
    energies must show, `recipe.gap` shifts: more of clean inputs than of adversarial ones.
    """

    figures = ("loss", "cross_entropy", "contrast", "reconstruction", "accuracy")

    def __init__(self, model: StyleMemoryNet, recipe: Recipe) -> None:
        super().__init__()
        self.model = model
        self.recipe = recipe
        self.wrong_labels = min(recipe.wrong_labels, model.n_classes - 1)

    def forward(self, x: Tensor, y: Tensor, progress: float) -> Tensor:
        """Batch means of `figures`; x (B, C, H, W), y (B,), `progress` the share of the steps that is done."""
        recipe = self.recipe
        if recipe.warp:
            x = warped(x, recipe.warp)
        seen, wanted = x + recipe.noise * torch.randn_like(x), x
        n_clean = len(x) if recipe.trades else round(recipe.clean_share * len(x))
        if eps := recipe.eps_at(progress):
            attacked = slice(0 if recipe.trades else n_clean, None)
            moved = ascend(self.model, x[attacked], y[attacked], eps, recipe.attack_steps)
            seen = torch.cat([seen[:n_clean], moved])
        if recipe.trades and eps:
            y, wanted = y.repeat(2), x.repeat(2, 1, 1, 1)
        logits, style = self.model.encode(seen)
        if recipe.style_noise:
            style = style + recipe.style_noise * torch.randn_like(style)
        wrong = logits.detach().scatter(1, y[:, None], -torch.inf).topk(self.wrong_labels, dim=1).indices
        if recipe.trades and eps:  # the same labels for both, to compare their energies
            wrong = wrong[n_clean:].repeat(2, 1)
        energies = self.model.energies(seen, style, torch.cat([y[:, None], wrong], dim=1))
        drawn = self.model.decode(one_hot(y, self.model.n_classes).to(style.dtype), style)
        reconstruction = torch.linalg.vector_norm((drawn - wanted).flatten(1), dim=1).mean()
        if recipe.trades and eps:
            classification = _trades(logits, y, recipe.trades)
            contrast = _trades(-energies, torch.zeros_like(y), recipe.trades)
        else:
            classification = cross_entropy(logits, y)
            gap = torch.full_like(y, recipe.gap, dtype=energies.dtype)
            gap[n_clean if eps else len(x) :] *= -1
            handicapped = torch.cat([energies[:, :1] + gap[:, None], energies[:, 1:]], dim=1)
            contrast = cross_entropy(-handicapped, torch.zeros_like(y))
        loss = classification + recipe.contrast * contrast + recipe.alpha * reconstruction
        accuracy = (logits.argmax(1) == y).float().mean()
        return torch.stack([loss, classification, contrast, reconstruction, accuracy])


def _trades(logits: Tensor, y: Tensor, weight: float) -> Tensor:
    """Cross-entropy of the first half, clean, and `weight` times the divergence of the second from it.

    H. Zhang et al., "Theoretically Principled Trade-off between Robustness and Accuracy", ICML 2019.
    """
    clean, moved = logits.log_softmax(1).chunk(2)
    return nll_loss(clean, y[: len(clean)]) + weight * kl_div(moved, clean, log_target=True, reduction="batchmean")
