"""At which budget feature squeezing falls on MNIST: how far an attack can change what its 1-bit squeezer sees.

python -m benchmarks.one_bit --data-dir DIR

Expected time: two minutes on one core. Prints a table: the share of images whose image at 1 bit gets a wrong label when
pixels that can cross 1/2 within the budget are flipped, by a greedy search, and the share that `selective` leaves
undetected. The first does without the other parts of the decision, but a greedy search may miss a set of flips.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn

from robustrecon import DefendedClassifier, load, load_data
from robustrecon.attacks import SelectivePGD
from robustrecon.detectors.feature_squeezing import reduced

MODEL, DATA, DETECTOR, ALPHA = "style-memory/mnist", "mnist", "feature_squeezing", 0.01
BUDGETS = (0.3, 0.35, 0.4, 0.45, 0.5)
N = 50
CALIBRATED = 3000
TRIED = 16  # flips, those of the largest gradient, of which the best is taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default="data")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data, model = load_data(DATA, arguments.data_dir), load(MODEL).requires_grad_(False)
    defended = DefendedClassifier(model, DETECTOR).calibrate(data.calibration.x[:CALIBRATED], alpha=ALPHA)
    part = data.test.pick(torch.randperm(len(data.test), generator=torch.Generator().manual_seed(0))[: 2 * N])
    verdict = defended.inspect(part.x)
    chosen = ((verdict.label == part.y) & ~verdict.rejected).nonzero().squeeze(1)[:N]
    x, y = part.x[chosen], part.y[chosen]
    print(f"| L∞ | pixels that can cross 1/2 | wrong label at 1 bit | undetected under `selective` |\n|{'---|' * 4}")
    for eps in BUDGETS:
        crosses = crossing(x, eps)
        flipped = [
            can_be_flipped(model, *image) for image in zip(x.split(1), y.split(1), crosses.split(1), strict=True)
        ]
        undetected = SelectivePGD(eps=eps, early_exit=True)(defended, x, y).success
        pixels = crosses.flatten(1).sum(1).double().mean().item()
        print(
            f"| {eps} | {pixels:.0f} | {sum(flipped) / len(x):.0%} | {undetected.double().mean().item():.0%} |",
            flush=True,
        )
    print(f"\nn = {len(x)}, correct and accepted when clean; {MODEL}, false-alarm rate {ALPHA}.")


def crossing(x: Tensor, eps: float) -> Tensor:
    """(B, C, H, W) bool: pixels of images x that can be rounded to 0 and to 1 within L∞ distance eps."""
    lowest, highest = (x - eps).clamp_min(0), (x + eps).clamp_max(1)
    return reduced(lowest, 1) != reduced(highest, 1)


def can_be_flipped(model: nn.Module, x: Tensor, y: Tensor, crosses: Tensor) -> bool:
    """Whether a greedy search finds flips of crossing pixels with which x (1, C, H, W) at 1 bit gets a wrong label."""
    z, free = reduced(x, 1), crosses.flatten().clone()
    margin = _margin(model, z, y).item()
    while margin <= 0 and free.any():
        point = z.clone().requires_grad_()
        (grad,) = torch.autograd.grad(_margin(model, point, y).sum(), point)
        gain = ((1 - 2 * z) * grad).flatten().masked_fill(~free, -torch.inf)
        pixels = gain.topk(min(TRIED, int(free.sum()))).indices
        tried = z.flatten().repeat(len(pixels), 1)
        tried[torch.arange(len(pixels)), pixels] = 1 - tried[torch.arange(len(pixels)), pixels]
        with torch.no_grad():
            margins = _margin(model, tried.view(-1, *x.shape[1:]), y.expand(len(pixels)))
        best = int(margins.argmax())
        if margins[best] <= margin:
            break
        margin, z, free[pixels[best]] = margins[best].item(), tried[best].view_as(x), False
    return margin > 0


def _margin(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """(B,) the highest wrong logit minus that of the true labels y (B,)."""
    logits = model(x)
    return logits.scatter(1, y[:, None], -torch.inf).amax(1) - logits.gather(1, y[:, None]).squeeze(1)


if __name__ == "__main__":
    main()
