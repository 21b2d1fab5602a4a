"""The training loop: any energy model, any objective; Lightning Fabric runs it on a CPU, GPUs or machines.

Every epoch draws its order and its noise from (seed, epoch) alone, and the learning rate is a function of the
step, so that a run continued from the checkpoint of an epoch is the unbroken run.
"""

from __future__ import annotations

import copy
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
from ..files import atomic_write
from ..models import MODELS, EnergyModel, stored_scores
from ..runtime import Progress, batched, evaluating, seed_everything
from ..types import InputError
from . import objectives
from .recipes import Recipe
from .resume import can_be_extended, check_epochs, check_same_run, saved_epochs, seal
from .state import objective_state, optimizer_state, training_state, unaveraged_weights, update_average

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_REPORT_EVERY = 10  # steps between reports of the metrics, each of which waits for the device
_REPORTED = ("loss", "accuracy")


def _new_model(recipe: Recipe, data: Dataset) -> EnergyModel:
    options: dict[str, Any] = {"n_classes": data.n_classes, "image_shape": data.image_shape, **recipe.model_options}
    return MODELS[recipe.model](**options)


class Run:
    """One training run on one process of possibly many."""

    def __init__(
        self,
        fabric: Fabric,
        data: Dataset,
        out: Path,
        recipe: Recipe,
        model: EnergyModel | None,
        origin: dict[str, str] | None,
        seed: int,
        precision: str,
        progress: bool,
    ) -> None:
        self.fabric, self.data, self.out, self.recipe, self.seed = fabric, data, out, recipe, seed
        self.origin, self.precision = origin, precision
        self.model = model or _new_model(recipe, data)
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
        self.file = out / checkpoint.MODEL_FILE
        self.scores = stored_scores.file_beside(self.file)
        saved = checkpoint.load(out) if self.file.exists() else None
        self.seal = saved.card["sha256"] if saved is not None else None
        if saved is not None:
            check_same_run(out, saved.card, self._card())
            self.history = saved.card["history"]
            self.model.load_state_dict(models.model_weights(saved.tensors))
        unfinished = len(self.history) < self.epochs
        self.averaged: nn.Module | None = None
        if recipe.average:
            self.averaged = copy.deepcopy(self.model).to(fabric.device).eval().requires_grad_(False)
            if saved is not None and unfinished:
                self.model.load_state_dict(unaveraged_weights(saved.tensors))
        self.objective = objectives.build(recipe.objective, self.model, recipe.objective_options)
        if saved is not None:
            then = saved_epochs(saved.card, self.steps)
            check_epochs(out, len(self.history), then, self.epochs, recipe, self.objective)
            if unfinished:
                self.objective.load_own_state(objective_state(saved.tensors))
        fabric.barrier()
        self.model.train()
        optimizer = torch.optim.Adam(self.objective.parameter_groups(), lr=recipe.learning_rate)
        self.peaks = [group["lr"] for group in optimizer.param_groups]
        self.loss_of, self.optimizer = fabric.setup(self.objective, optimizer)
        if saved is not None and unfinished:
            self.optimizer.load_state_dict(optimizer_state(saved.tensors, optimizer))

    def __call__(self) -> EnergyModel:
        """Train the epochs that are left; returns the result in evaluation mode."""
        train = self.data.train
        images, y = train.images.to(self.fabric.device), train.y.to(self.fabric.device)
        n = self.steps * self.batch_size
        title = f"training {self.model.name} on {self.data.name}, {self.epochs} epochs"
        with Progress(title, n * self.epochs, "images", self.progress) as bar:
            bar.resume(n * len(self.history))
            for epoch in range(len(self.history), self.epochs):
                self._epoch(epoch, images, y, bar)
        if self.fabric.is_global_zero and not self.scores.exists():
            stored_scores.write(self.scores, self.result, self.data)
        self.fabric.barrier()
        result = cast(EnergyModel, self.result.eval().cpu())
        result.trained_on = self.data.sketch
        return result

    @property
    def result(self) -> nn.Module:
        """The network that the run is for: the averaged one where there is one."""
        return self.model if self.averaged is None else self.averaged

    def _epoch(self, epoch: int, images: Tensor, y: Tensor, bar: Progress) -> None:
        started = time.monotonic()
        names = self.objective.metrics
        totals = torch.zeros(len(names), device=self.fabric.device)
        for step, chosen in enumerate(self._batches(epoch)):
            done = (epoch * self.steps + step) / (self.epochs * self.steps)
            for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
                group["lr"] = peak * self.recipe.learning_rate_factor(done)
            metrics = self.loss_of(to_float(images[chosen]), y[chosen], done)
            if metrics.keys() != set(names):
                raise InputError(f"objective: gave the metrics {', '.join(metrics)}, must give {', '.join(names)}")
            self.optimizer.zero_grad(set_to_none=True)
            self.fabric.backward(metrics["loss"])
            if self.recipe.clip:
                self.fabric.clip_gradients(self.loss_of, self.optimizer, max_norm=self.recipe.clip)
            self.optimizer.step()
            if self.averaged is not None:
                update_average(self.averaged, self.model, self.recipe.average)
            totals += torch.stack([metrics[name].detach() for name in names])
            unreported = step % _REPORT_EVERY + 1
            if self.progress and (unreported == _REPORT_EVERY or step + 1 == self.steps):
                means = dict(zip(names, (totals / (step + 1)).tolist(), strict=True))
                shown = {name: means[name] for name in _REPORTED if name in means}
                bar.advance(unreported * self.batch_size, epoch=epoch + 1, **shown)
        means_of_all = self.fabric.all_reduce(totals / self.steps, reduce_op="mean")
        assert isinstance(means_of_all, Tensor)
        seconds = time.monotonic() - started
        self.history.append(
            {
                "epoch": epoch + 1,
                **dict(zip(names, means_of_all.tolist(), strict=True)),
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
        """What of the card is known before the first epoch: all that decides what the run does."""
        architecture = models.architecture(self.model)
        options = {key: value for key, value in self.model.config.items() if key not in ("n_classes", "image_shape")}
        return {
            "kind": "model",
            "architecture": architecture,
            "recipe": self.recipe.to_json() | {"model": self.model.name, "model_options": options},
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
        if seal(self.file) not in (None, self.seal):
            raise InputError(
                f"out: {self.file} was written by another run since this one began; nothing is overwritten"
            )
        finished = len(self.history) == self.epochs
        tensors = {models.WEIGHTS + key: value for key, value in self.result.state_dict().items()}
        tensors[models.TRAINED_ON] = self.data.sketch
        if not finished or can_be_extended(self.recipe, self.objective):
            tensors |= training_state(self.model, self.averaged, self.objective, self.optimizer)
        card = self._card() | {
            "accuracy": {"test": self.history[-1]["test_accuracy"], "n": len(self.data.test)},
            "epoch": len(self.history),
            "finished": finished,
            "versions": provenance.versions(),
            "commit": provenance.commit(),
            "history": self.history,
        }
        if finished:
            card |= self.objective.findings(self.result, self.data)
        stored_scores.remove(self.scores)
        checkpoint.save(self.file, tensors, card)
        self.seal = seal(self.file)
        atomic_write(self.out / "metrics.csv", self._csv())

    def _csv(self) -> str:
        rows = [",".join(self.history[0])] if self.history else []
        rows += [",".join(f"{value:.6g}" for value in row.values()) for row in self.history]
        return "\n".join(rows) + "\n"


def _derived(*parts: int) -> int:
    """A seed of 63 bits from whole numbers, unrelated to that from any others."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


def accuracy(model: nn.Module, part: Part) -> float:
    """Share of the images of `part` that the model labels correctly."""
    device = next(model.parameters()).device
    with evaluating(model):
        (labels,) = batched(lambda images: (model(to_float(images.to(device))).argmax(1),), part.images)
    return (labels.cpu() == part.y).double().mean().item()
