"""The training loop: Lightning Fabric runs it on a CPU, one or several GPUs or machines.

Every epoch draws its order and its noise from (seed, epoch) alone, and the learning rate is a function of the
step, so that a run continued from the checkpoint of an epoch is the unbroken run.
"""

from __future__ import annotations

import copy
import dataclasses
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from .. import checkpoint, models, provenance
from ..data import Dataset, Part
from ..data.splits import to_float
from ..files import atomic_write, check_writable
from ..models import EnergyModel, StyleMemoryNet
from ..runtime import Progress, batched, evaluating, resolve_device, seed_everything, seeded
from ..types import InputError, unknown_name
from .objectives.contrastive import ContrastiveObjective
from .objectives.style_memory import PaperObjective
from .recipes import Recipe, load_recipe

if TYPE_CHECKING:
    from lightning_fabric import Fabric

PRECISIONS = ("32-true", "bf16-mixed")
OBJECTIVES: dict[str, type[PaperObjective] | type[ContrastiveObjective]] = {
    "paper": PaperObjective,
    "contrastive": ContrastiveObjective,
}
_OPTIMIZER = "optimizer."
_UNAVERAGED = "unaveraged."
_REPORT_EVERY = 10  # steps between looks at the figures, each of which waits for the device


def train(
    data: Dataset,
    out: str | Path,
    recipe: str | Recipe = "fast",
    *,
    model: StyleMemoryNet | None = None,
    start: str | Path | None = None,
    seed: int = 0,
    device: str = "auto",
    devices: int = 1,
    nodes: int = 1,
    precision: str = "32-true",
    resume: bool = False,
    progress: bool = True,
) -> EnergyModel:
    """Train a style-memory network on the training part of `data`; returns it in evaluation mode.

    After every epoch `out` holds `model.safetensors` with its card (while training, the optimiser's state too)
    and `metrics.csv`.

    Args:
        data: what to train on; its calibration part is left untouched.
        out: folder to write to.
        recipe: a name of `RECIPES` or a `Recipe`.
        model: the network to train; by default one that fits the data, initialised from the seed.
        start: a trained model to go on from instead: a folder, a .safetensors file or a shipped model's name.
        seed: seeds the initial weights, the order of the images and the noise.
        device: "auto", "cpu" or "cuda".
        devices: processes on this machine, one a device; the batch is shared out among them.
        nodes: machines.
        precision: one of `PRECISIONS`.
        resume: continue from the last finished epoch in `out`; with nothing there, start.
        progress: show progress on stderr.

    Raises:
        InputError: unknown recipe or device, a `start` that is no model for this data, `out` holds a model already or
            cannot be written to, or a checkpoint to resume that was made with other settings.
    """
    if isinstance(recipe, str):
        recipe = load_recipe(recipe)
    if precision not in PRECISIONS:
        unknown_name("precision", precision, PRECISIONS)
    if min(devices, nodes) < 1:
        raise InputError(f"devices, nodes: got {devices}, {nodes}, must be at least 1 each")
    if not 0 <= seed < 2**63:
        raise InputError(f"seed: got {seed}, must be a whole number from 0 that fits 63 bits")
    world, batch_size = devices * nodes, min(recipe.batch_size, len(data.train))
    if batch_size % world:
        raise InputError(f"devices: {devices} on {nodes} nodes, must share out a batch of {batch_size} images evenly")
    place, out = resolve_device(device), Path(out)
    _check_out(out, resume)
    origin = None
    if start is not None:
        model, origin = _started(start, model, recipe)
    from lightning_fabric import Fabric  # a second of imports that only training needs

    fabric = Fabric(
        accelerator=place.type,
        devices=devices if place.index is None else [place.index],
        num_nodes=nodes,
        strategy="ddp" if world > 1 else "auto",
        precision=precision,  # type: ignore[arg-type]  # one of PRECISIONS
    )
    fabric.launch()
    with seeded(seed):
        return _Run(fabric, data, out, recipe, model, origin, seed, precision, progress)()


def _check_out(out: Path, resume: bool) -> None:
    """Tell of a folder that cannot be used before any process is started or epoch trained."""
    if not (out / checkpoint.MODEL_FILE).exists():
        check_writable(out)
        if resume:
            print(f"nothing to resume in {out}: starting", file=sys.stderr)
    elif not resume:
        raise InputError(f"out: {out} already holds a trained model; resume it (--resume) or name another folder")


def _started(start: str | Path, model: StyleMemoryNet | None, recipe: Recipe) -> tuple[StyleMemoryNet, dict[str, str]]:
    """The network to go on from, and what a card says of it."""
    if model is not None:
        raise InputError(f"start: got {start}, must not be given together with model")
    found, card = models.load_with_card(start)
    if not isinstance(found, StyleMemoryNet) or "recipe" not in card:
        raise InputError(f"start: {start} holds a {found.name}, must be a style-memory network that was trained here")
    if recipe.blocks > found.config["blocks"]:
        grown = StyleMemoryNet(**{**found.config, "blocks": recipe.blocks})
        grown.load_state_dict(found.state_dict(), strict=False)  # all that it lacks are the further blocks
        found = grown
    return found.requires_grad_(), {"recipe": card["recipe"]["name"], "sha256": card["sha256"]}


class _Run:
    """One training run on one process of possibly many."""

    def __init__(
        self,
        fabric: Fabric,
        data: Dataset,
        out: Path,
        recipe: Recipe,
        model: StyleMemoryNet | None,
        origin: dict[str, str] | None,
        seed: int,
        precision: str,
        progress: bool,
    ) -> None:
        self.origin = origin
        self.fabric, self.data, self.out, self.recipe, self.seed = fabric, data, out, recipe, seed
        self.precision = precision
        self.model = model or StyleMemoryNet(
            data.n_classes,
            recipe.style_dim,
            data.image_shape,
            style_encoder=recipe.style_encoder,
            width=recipe.width,
            blocks=recipe.blocks,
        )
        if self.model.image_shape != data.image_shape or self.model.n_classes != data.n_classes:
            raise InputError(
                f"model: takes {self.model.n_classes} classes of {self.model.image_shape} images, must take "
                f"{data.n_classes} of {data.image_shape} for {data.name}"
            )
        self.batch_size = min(recipe.batch_size, len(data.train))
        self.steps = len(data.train) // self.batch_size
        self.epochs = recipe.epochs_for(self.steps)
        self.progress = progress and fabric.is_global_zero
        self.history: list[dict[str, float]] = []
        self.averaged: nn.Module | None = None
        saved = self._saved()
        if saved is not None:
            self.history = saved.card["history"]
            self.model.load_state_dict(models.model_weights(saved.tensors))
        if recipe.average:
            self.averaged = copy.deepcopy(self.model).to(fabric.device).eval().requires_grad_(False)
            if saved is not None and len(self.history) < self.epochs:
                self.model.load_state_dict(models.model_weights(saved.tensors, _UNAVERAGED))
        fabric.barrier()
        self.model.train()
        optimizer = torch.optim.Adam(self.model.parameters(), lr=recipe.learning_rate)
        self.objective, self.optimizer = fabric.setup(OBJECTIVES[recipe.objective](self.model, recipe), optimizer)
        self.figures = OBJECTIVES[recipe.objective].figures
        if saved is not None and len(self.history) < self.epochs:
            self.optimizer.load_state_dict(_optimizer_from(saved.tensors, optimizer, self.model))

    def __call__(self) -> EnergyModel:
        train = self.data.train
        images, y = train.images.to(self.fabric.device), train.y.to(self.fabric.device)
        seen = self.steps * self.batch_size
        title = f"training {self.model.name} on {self.data.name}, {self.epochs} epochs"
        with Progress(title, seen * self.epochs, "images", self.progress) as bar:
            bar.resume(seen * len(self.history))
            for epoch in range(len(self.history), self.epochs):
                self._epoch(epoch, images, y, bar)
        return cast(EnergyModel, self.result.eval().cpu())

    @property
    def result(self) -> nn.Module:
        """The network that the run is for: the averaged one where there is one."""
        return self.model if self.averaged is None else self.averaged

    def _epoch(self, epoch: int, images: Tensor, y: Tensor, bar: Progress) -> None:
        started = time.monotonic()
        totals = torch.zeros(len(self.figures), device=self.fabric.device)
        for step, chosen in enumerate(self._batches(epoch)):
            done = (epoch * self.steps + step) / (self.epochs * self.steps)
            for group in self.optimizer.param_groups:
                group["lr"] = self.recipe.learning_rate_at(done)
            figures = self.objective(to_float(images[chosen]), y[chosen], done)
            self.optimizer.zero_grad(set_to_none=True)
            self.fabric.backward(figures[0])
            self.optimizer.step()
            if self.averaged is not None:
                _follow(self.averaged, self.model, self.recipe.average)
            totals += figures.detach()
            unreported = step % _REPORT_EVERY + 1
            if self.progress and (unreported == _REPORT_EVERY or step + 1 == self.steps):
                shown = dict(zip(self.figures, (totals / (step + 1)).tolist(), strict=True))
                bar.advance(
                    unreported * self.batch_size,
                    epoch=epoch + 1,
                    loss=shown["loss"],
                    accuracy=shown["accuracy"],
                )
        means = self.fabric.all_reduce(totals / self.steps, reduce_op="mean")
        assert isinstance(means, Tensor)
        seconds = time.monotonic() - started
        self.history.append(
            {
                "epoch": epoch + 1,
                **dict(zip(self.figures, means.tolist(), strict=True)),
                "test_accuracy": accuracy(self.result, self.data.test),
                "seconds": seconds,
                "images_per_second": self.steps * self.batch_size / seconds,
            }
        )
        if self.fabric.is_global_zero:
            self._save()
        self.fabric.barrier()

    def _batches(self, epoch: int) -> Iterator[Tensor]:
        """This process's share of each batch; the incomplete last one of an epoch is left out."""
        generator = torch.Generator().manual_seed(_derived(self.seed, epoch))
        order = torch.randperm(len(self.data.train), generator=generator)
        seed_everything(_derived(self.seed, epoch, self.fabric.global_rank))
        order = order[: self.steps * self.batch_size].to(self.fabric.device)
        for batch in order.split(self.batch_size):
            yield batch[self.fabric.global_rank :: self.fabric.world_size]

    def _card(self) -> dict[str, Any]:
        return {
            "kind": "model",
            "architecture": models.architecture(self.model),
            "recipe": dataclasses.asdict(self.recipe),
            "data": {
                "name": self.data.name,
                "n_train": len(self.data.train),
                "fingerprint": self.data.fingerprint,
                "classes": list(self.data.classes),
            },
            "start": self.origin,
            "seed": self.seed,
            "precision": self.precision,
            "processes": self.fabric.world_size,
        }

    def _save(self) -> None:
        finished = len(self.history) == self.epochs
        tensors = {models.WEIGHTS + key: value for key, value in self.result.state_dict().items()}
        if not finished:
            if self.averaged is not None:
                tensors |= {_UNAVERAGED + key: value for key, value in self.model.state_dict().items()}
            tensors |= _optimizer_tensors(self.optimizer.state_dict())
        card = self._card() | {
            "accuracy": {"test": self.history[-1]["test_accuracy"], "n": len(self.data.test)},
            "epoch": len(self.history),
            "finished": finished,
            "versions": provenance.versions(),
            "commit": provenance.commit(),
            "history": self.history,
        }
        checkpoint.save(self.out / checkpoint.MODEL_FILE, tensors, card)
        atomic_write(self.out / "metrics.csv", self._csv())

    def _csv(self) -> str:
        rows = [",".join(self.history[0])] if self.history else []
        rows += [",".join(f"{value:.6g}" for value in row.values()) for row in self.history]
        return "\n".join(rows) + "\n"

    def _saved(self) -> checkpoint.Checkpoint | None:
        """The checkpoint to go on from, or None for a fresh start."""
        if not (self.out / checkpoint.MODEL_FILE).exists():
            return None
        saved = checkpoint.load(self.out)
        wanted = self._card()
        for key in wanted:
            if saved.card.get(key) != wanted[key]:
                raise InputError(f"resume: {self.out} was trained with {key} {saved.card.get(key)}, not {wanted[key]}")
        return saved


def _derived(*parts: int) -> int:
    """A seed of 63 bits from whole numbers, unrelated to that from any others."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


def accuracy(model: nn.Module, part: Part) -> float:
    """Share of the images of `part` that the model labels correctly."""
    device = next(model.parameters()).device
    with evaluating(model):
        (labels,) = batched(lambda images: (model(to_float(images.to(device))).argmax(1),), part.images)
    return (labels.cpu() == part.y).double().mean().item()


@torch.no_grad()
def _follow(averaged: nn.Module, model: nn.Module, decay: float) -> None:
    """Move the average a step towards the weights."""
    torch._foreach_lerp_(list(averaged.parameters()), list(model.parameters()), 1 - decay)


def _optimizer_tensors(state: dict[str, Any]) -> dict[str, Tensor]:
    """Adam's state as named tensors: `optimizer.<parameter number>.<moment>`."""
    return {
        f"{_OPTIMIZER}{number}.{key}": torch.as_tensor(value)
        for number, moments in state["state"].items()
        for key, value in moments.items()
    }


def _optimizer_from(tensors: dict[str, Tensor], optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Any]:
    state: dict[int, dict[str, Tensor]] = {number: {} for number, _ in enumerate(model.parameters())}
    for name, tensor in tensors.items():
        if name.startswith(_OPTIMIZER):
            number, key = name.removeprefix(_OPTIMIZER).split(".")
            state[int(number)][key] = tensor
    if any(set(moments) != {"step", "exp_avg", "exp_avg_sq"} for moments in state.values()):
        raise InputError("resume: the checkpoint lacks the optimiser's state; train anew")
    return {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
