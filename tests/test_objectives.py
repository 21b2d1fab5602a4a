"""Objectives: the paper's, what holds for all of them, and what they may require of a model."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from accumulating import Accumulating
from torch import Tensor, nn

from robustrecon import EnergyModel, InputError, StyleMemoryNet
from robustrecon.data import Dataset
from robustrecon.models.base import Denoises, Features, Reconstructs, Samples, StyleCodes, offers
from robustrecon.training import OBJECTIVES, RECIPES
from robustrecon.training.objectives import build
from robustrecon.training.objectives.style_memory import StyleMemoryObjective


class Prototypes(EnergyModel):
    """A model with energies and nothing else."""

    name = "prototypes"

    def __init__(self, n_classes: int = 10) -> None:
        super().__init__(n_classes, (1, 28, 28))
        self.prototypes = nn.Parameter(torch.rand(n_classes, 1, 28, 28))

    def forward(self, x: Tensor) -> Tensor:
        return -self.class_energies(x)

    def class_energies(self, x: Tensor) -> Tensor:
        return (x.unsqueeze(1) - self.prototypes).flatten(2).square().sum(2) / 100


class Drawing(Prototypes):
    """One that draws too."""

    def reconstruct(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.prototypes[self(x).argmax(1) if labels is None else labels]


@pytest.mark.parametrize("decoder_input", ["softmax", "one-hot"])
def test_objective_is_the_papers(model: StyleMemoryNet, digits: Dataset, decoder_input: str) -> None:
    """Cross-entropy + α ‖x̂ − x‖₂, the norm not squared; without noise it can be computed by hand."""
    options = StyleMemoryObjective.Options(noise=0.0, decoder_input=decoder_input)
    assert options.reconstruction_weight == 0.05
    part = digits.test.head(20)
    with torch.no_grad():
        found = StyleMemoryObjective(model, options)(part.x, part.y, 0.0)
        logits, style = model.encode(part.x)
        label = logits.softmax(1) if decoder_input == "softmax" else torch.eye(10)[part.y]
        norms = (model.decode(label, style) - part.x).flatten(1).square().sum(1).sqrt()
    torch.testing.assert_close(found["reconstruction"], norms.mean())
    torch.testing.assert_close(found["cross_entropy"], -logits.log_softmax(1)[range(20), part.y].mean())
    torch.testing.assert_close(found["loss"], found["cross_entropy"] + 0.05 * found["reconstruction"])
    assert found["accuracy"] == (logits.argmax(1) == part.y).float().mean()


@pytest.mark.parametrize("kind", [StyleMemoryNet, Prototypes, Drawing])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_gives_its_metrics_and_trains_every_model_that_fits(
    name: str, kind: type[EnergyModel], digits: Dataset
) -> None:
    torch.manual_seed(0)
    model = kind()
    if not all(offers(model, required) for required in OBJECTIVES[name].requires):
        with pytest.raises(InputError, match=f"objective: got '{name}', which requires .* but {kind.name} lacks"):
            build(name, model, {})
        return
    adversarial = {"eps": 0.1} if name in ("contrastive", "trades") else {}
    objective, part = build(name, model, adversarial), digits.train.head(16)
    for progress in (0.0, 0.9):
        found = objective(part.x, part.y, progress)
        assert found.keys() == set(objective.metrics)
        assert all(value.shape == () and torch.isfinite(value) for value in found.values())
    found["loss"].backward()
    assert all(weight.grad is not None and torch.isfinite(weight.grad).all() for weight in model.parameters())
    assert objective.own_state() == {}
    (group,) = objective.parameter_groups()
    assert [*map(id, group["params"])] == [*map(id, model.parameters())]


def test_the_reconstruction_error_is_0_only_of_a_model_that_cannot_draw(digits: Dataset) -> None:
    part = digits.train.head(16)
    assert build("contrastive", Prototypes(), {})(part.x, part.y, 0.0)["reconstruction"] == 0
    assert build("contrastive", Drawing(), {})(part.x, part.y, 0.0)["reconstruction"] > 1


def test_style_noise_needs_a_style() -> None:
    for name in ("contrastive", "trades"):
        with pytest.raises(InputError, match=r"style_noise: got 0\.1, must be 0 for prototypes"):
            build(name, Prototypes(), {"style_noise": 0.1})


def test_an_objective_that_does_not_fit_names_those_that_do() -> None:
    with pytest.raises(InputError, match="requires StyleCodes of its model, but prototypes lacks them; must be one of"):
        build("style-memory", Prototypes(), {})


def test_what_models_offer_is_seen_by_protocols() -> None:
    style, prototypes, drawing = StyleMemoryNet(), Prototypes(), Drawing()
    assert isinstance(style, Reconstructs)
    assert isinstance(style, StyleCodes)
    assert not isinstance(style, (Samples, Features))
    assert isinstance(drawing, Reconstructs)
    assert not isinstance(drawing, StyleCodes)
    assert not any(isinstance(prototypes, each) for each in (Reconstructs, StyleCodes, Samples, Features))


@pytest.mark.parametrize("kind", [StyleMemoryNet, Prototypes])
def test_labels_may_be_a_function_of_the_logits(kind: type[EnergyModel]) -> None:
    torch.manual_seed(0)
    model, x = kind().eval(), torch.rand(5, 1, 28, 28)

    def likeliest(logits: Tensor) -> Tensor:
        return logits.topk(3, dim=1).indices

    with torch.no_grad():
        logits, energies = model.logits_and_energies(x, likeliest)
        expected = model.logits_and_energies(x, likeliest(model(x)))
    torch.testing.assert_close((logits, energies), expected)


def test_an_objectives_own_state_is_restored_or_refused() -> None:
    one, other = (Accumulating(Prototypes(), Accumulating.Options()) for _ in range(2))
    one(torch.rand(4, 1, 28, 28), torch.arange(4), 0.0)
    other.load_own_state(one.own_state())
    for name in ("mean", "steps", "weight"):
        assert torch.equal(other.own_state()[name], one.own_state()[name]), name
    with pytest.raises(InputError, match="has the objective's state .*, must be"):
        other.load_own_state({})
    with pytest.raises(InputError, match="state of the objective does not fit"):
        other.load_own_state(one.own_state() | {"mean": torch.zeros(2)})


def test_a_recipe_takes_any_objective_of_the_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OBJECTIVES, "accumulating", Accumulating)
    recipe = replace(RECIPES["fast"], objective="accumulating", objective_options={"decay": 0.9})
    assert recipe.to_json()["objective_options"] == {"decay": 0.9}


class Denoiser(nn.Module):
    """What `Denoises` names, a buffer among it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("alpha_bars", torch.ones(3))

    def noised(self) -> None: ...

    def logits_and_noise(self) -> None: ...


def test_what_a_model_offers_may_be_a_buffer() -> None:
    assert offers(Denoiser(), Denoises)
    assert offers(Denoiser(), Denoiser)
    assert not offers(Drawing(), Denoises)
    assert not offers(Drawing(), Denoiser)
