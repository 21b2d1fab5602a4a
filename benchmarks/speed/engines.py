"""PGD-40: our own in each precision, with and without early exit, against the same attack of other libraries."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn

import attacks
from attacks.runtime import frozen_eval
from robustrecon import load, load_data

from .peers import PEERS, Peer
from .report import AttackSpeed
from .timing import in_turns

STEPS, BATCH, IMAGES = 40, 128, 512
ATTACKED = (("style-memory/mnist", 0.3), ("style-memory/mnist", 0.045))  # all images are broken; about a third remain
TOLERANCE = 0.005  # share of the images by which the engines may differ in how many they break


def attack_speeds(network: str, eps: float, precisions: Sequence[str], rounds: int) -> list[AttackSpeed]:
    """Speed-ups of our own attack over each peer, on the first embedded digits that the network classifies correctly.

    Raises:
        SystemExit: the engines do not break equally many images.
    """
    model, part = load(network).eval(), load_data("digits").train
    with torch.no_grad():
        chosen = (model(part.x).argmax(1) == part.y).nonzero()[:IMAGES, 0]
    x, y = part.x[chosen], part.y[chosen]
    made = {
        precision + (", early exit" if early_exit else ""): attacks.load(
            "pgd",
            "own",
            eps=eps,
            steps=STEPS,
            random_start=False,
            batch_size=BATCH,
            precision=precision,
            early_exit=early_exit,
        )
        for precision in precisions
        for early_exit in (False, True)
    }
    x_adv: dict[str, Tensor] = {}
    gradients: dict[str, int] = {}

    def run_own(name: str) -> None:
        with _counted(model, name, gradients):
            x_adv[name] = made[name](model, x, y).x

    def run_peer(name: str, peer: Peer) -> None:
        alpha = attacks.PGD(eps=eps, steps=STEPS).step_size
        with _counted(model, name, gradients):
            batches = zip(x.split(BATCH), y.split(BATCH), strict=True)
            x_adv[name] = torch.cat([peer(model, images, labels, eps, alpha, STEPS) for images, labels in batches])

    candidates = {name: partial(run_own, name) for name in made}
    candidates |= {name: partial(run_peer, name, peer) for name, peer in PEERS.items()}
    with frozen_eval(model):
        timings = in_turns(f"PGD-{STEPS} on {network}, eps {eps}", candidates, rounds)
        broken = {name: int((model(found).argmax(1) != y).sum()) for name, found in x_adv.items()}
    if max(broken.values()) - min(broken.values()) > TOLERANCE * len(x):
        raise SystemExit(f"{network}, eps {eps}: of {len(x)} images the engines broke {broken}, must be equally many")
    rows = []
    for own in made:
        for peer in PEERS:
            least, median, most = timings[peer].over(timings[own])
            rows.append(
                AttackSpeed(
                    network,
                    eps,
                    len(x),
                    own,
                    broken[own],
                    gradients[own] / len(x),
                    peer,
                    broken[peer],
                    gradients[peer] / len(x),
                    median,
                    least,
                    most,
                )
            )
    return rows


@contextlib.contextmanager
def _counted(model: nn.Module, name: str, gradients: dict[str, int]) -> Iterator[None]:
    """Count the images that gradients are computed for, whoever asks for them."""
    gradients[name] = 0

    def add(grad: Tensor) -> None:
        gradients[name] += len(grad)

    def watch(module: nn.Module, inputs: tuple[Tensor, ...], logits: Tensor) -> None:
        if logits.requires_grad:
            logits.register_hook(add)

    handle = model.register_forward_hook(watch)
    try:
        yield
    finally:
        handle.remove()
