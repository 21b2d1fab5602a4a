"""Matching attack: look to the network like a clean image of another class."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..base import at_least
from ..goals import judged
from .apgd import Found, Seen
from .base import DetectorAware, Pursuit


@dataclass(kw_only=True, eq=False)
class Matching(DetectorAware):
    """Pulls what the network makes of an image towards what it makes of a clean image of another class, its guide.

    The victim's `representations(x, labels)` are matched: of a style-memory network its logits, its style and the
    drawing under the guide's label; of others logits and class energies, or logits alone. Guides are the nearest
    images in the batch that the victim reads rightly as another class and accepts. F. Tramèr, N. Carlini, W. Brendel,
    A. Madry, "On Adaptive Attacks to Adversarial Example Defenses", NeurIPS 2020, where matching succeeds though
    ascent on the composite likelihood stalls.

    Args:
        guides: guides tried an image, each of another class while there are any.
        Others as for every `DetectorAware` attack.
    """

    name = "matching"

    guides: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        self.guides = at_least(1, self.guides, "guides")

    def hunt(self, victim: nn.Module, x: Tensor, y: Tensor, pursuit: Pursuit) -> Found:
        chosen = _nearest_guides(victim, x, y, pursuit, self.guides)
        best = Found.nothing(x)
        for guide in chosen.T:
            rows = (guide >= 0).nonzero()[:, 0]
            if self.early_exit:
                rows = rows[~(best.misread & (best.score <= pursuit.threshold))[rows]]
            if len(rows):
                found = self._towards(victim, x[rows], y[rows], x[guide[rows]], y[guide[rows]], pursuit)
                best.take(rows, found)
        return best

    def _towards(
        self, victim: nn.Module, x: Tensor, y: Tensor, guide: Tensor, label: Tensor, pursuit: Pursuit
    ) -> Found:
        with torch.no_grad():
            wanted, first = _representations(victim, guide, label), _representations(victim, x, label)
            units = [_squared(there - here).clamp_min(1e-12) for there, here in zip(wanted, first, strict=True)]

        def look(point: Tensor, rows: Tensor) -> Seen:
            moved = point.detach().requires_grad_()
            found = _representations(victim, moved, label[rows])
            parts = zip(found, wanted, units, strict=True)
            value = -torch.stack([_squared(here - there[rows]) / unit[rows] for here, there, unit in parts]).sum(0)
            (gradient,) = torch.autograd.grad(value.sum(), moved)
            with torch.no_grad():
                logits, score = judged(victim, point)
            return Seen(pursuit.misread(logits, y[rows]), score, value.detach(), gradient)

        return self.climb(look, x, pursuit)


def _squared(difference: Tensor) -> Tensor:
    return difference.flatten(1).square().sum(1)


def _representations(victim: nn.Module, x: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
    own = getattr(victim, "representations", None)
    return (victim(x),) if own is None else own(x, labels)


@torch.no_grad()
def _nearest_guides(victim: nn.Module, x: Tensor, y: Tensor, pursuit: Pursuit, most: int) -> Tensor:
    """(B, most) rows of x: the nearest image of each of the nearest other classes; -1 where there is none."""
    logits, score = judged(victim, x)
    fit = (logits.argmax(1) == y) & (score <= pursuit.threshold)
    distance = torch.cdist(x.flatten(1), x.flatten(1))
    distance = distance.masked_fill(~fit[None], torch.inf)
    of_class = torch.full((len(x), logits.shape[1]), torch.inf, device=x.device)
    of_class = of_class.scatter_reduce(1, y.expand(len(x), -1), distance, "amin")
    of_class = of_class.scatter(1, y[:, None], torch.inf)
    if pursuit.target is not None:
        others = torch.arange(logits.shape[1], device=x.device) != pursuit.target
        of_class = of_class.masked_fill(others, torch.inf)
    near = of_class.topk(min(most, logits.shape[1] - 1), dim=1, largest=False)
    same = y[None, None] == near.indices[:, :, None]
    row = distance[:, None].masked_fill(~same, torch.inf).argmin(2)
    return row.masked_fill(torch.isinf(near.values), -1)
