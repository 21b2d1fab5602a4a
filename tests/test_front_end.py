"""Front ends: what they are in a model, and attacks with other backward passes and with starts of the target class."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from robustrecon import DefendedClassifier, InputError, StyleMemoryNet, attacks, checkpoint, models
from robustrecon.attacks import ApproximateBackward, Misclassified, MultiTarget, Transfer, Undetected, front_ends
from robustrecon.bench import benchmark
from robustrecon.bench.chain import run as chain
from robustrecon.bench.suite.front_end import without_gentler_slopes
from robustrecon.bench.suite.read import SuiteModel
from robustrecon.data import Dataset
from robustrecon.models import shipped
from robustrecon.models.front_end import FrontEnd
from robustrecon.training import RECIPES, train

STEEP = {"front_end": 20.0, "front_end_energies": True}


@pytest.fixture
def x() -> Tensor:
    return torch.rand(6, 1, 28, 28, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def steep(model: StyleMemoryNet) -> StyleMemoryNet:
    """The trained model behind a gentle front end, which it was not trained with."""
    return with_front_end(model, front_end=6.0, front_end_energies=True)


def with_front_end(model: StyleMemoryNet, **options: Any) -> StyleMemoryNet:
    """A copy with the same weights."""
    changed = StyleMemoryNet(**{**model.config, **options}).eval()
    changed.load_state_dict(model.state_dict())
    return changed


class TestModel:
    def test_the_encoder_sees_what_the_front_end_lets_through(self, model: StyleMemoryNet, x: Tensor) -> None:
        behind = (20 * (x - 0.5)).sigmoid()
        for style_encoder in ("shared", "separate"):
            torch.manual_seed(0)
            plain = StyleMemoryNet(style_encoder=style_encoder).eval()
            steep = with_front_end(plain, front_end=20.0)
            for found, expected in zip(steep.encode(x), plain.encode(behind), strict=True):
                torch.testing.assert_close(found, expected)

    def test_energies_are_of_the_pixels_or_behind_it(self, model: StyleMemoryNet, x: Tensor) -> None:
        for energies_too in (False, True):
            steep = with_front_end(model, front_end=20.0, front_end_energies=energies_too)
            drawn = steep.reconstruct(x, torch.full((6,), 4))
            target = x
            if energies_too:
                drawn, target = ((20 * (images - 0.5)).sigmoid() for images in (drawn, x))
            expected = (drawn - target).square().flatten(1).sum(1)
            torch.testing.assert_close(steep.class_energies(x)[:, 4], expected, rtol=1e-4, atol=1e-4)

    def test_it_is_part_of_the_card(self, x: Tensor, tmp_path: Path) -> None:
        torch.manual_seed(0)
        net = StyleMemoryNet(**STEEP).eval()
        described = models.architecture(net)
        assert described.items() >= STEEP.items()
        tensors = {models.WEIGHTS + key: value for key, value in net.state_dict().items()}
        again = models.load(checkpoint.save(tmp_path / "m.safetensors", tensors, {"architecture": described}))
        assert torch.equal(again.class_energies(x), net.class_energies(x))
        assert "FrontEnd(slope=20)" in repr(again)

    @pytest.mark.parametrize("name", ["robust/digits", "style-memory/mnist"])
    def test_models_without_are_as_they_were(self, name: str) -> None:
        """The same parts in the same order: their hash, which calibrations were made with, is of the repr too."""
        net = models.load(name)
        assert not front_ends(net)
        assert "front" not in repr(net)
        assert set(net.state_dict()) == set(models.model_weights(checkpoint.load(shipped.file_of(name)).tensors))

    @pytest.mark.parametrize("slope", [0, -1.0, float("nan"), float("inf"), True, "steep"])
    def test_a_slope_is_above_0(self, slope: Any) -> None:
        with pytest.raises(InputError, match="front_end: got .*, must be a slope above 0"):
            StyleMemoryNet(front_end=slope)

    def test_energies_behind_a_front_end_need_one(self) -> None:
        with pytest.raises(InputError, match="front_end_energies: got True, must be False without a front_end"):
            StyleMemoryNet(front_end_energies=True)

    def test_a_recipe_sets_it(self, digits: Dataset, tmp_path: Path) -> None:
        recipe = replace(RECIPES["robust-front"], epochs=1, least_steps=0)
        few = replace(digits, train=digits.train.head(16))
        train(few, tmp_path / "front", replace(recipe, batch_size=16), progress=False, precision="32-true")
        (part,) = front_ends(models.load(tmp_path / "front"))
        assert isinstance(part, FrontEnd)
        assert part.slope == 20
        with pytest.raises(InputError, match="start: robust/digits has front_end None, must have 20.0 for the recipe"):
            train(few, tmp_path / "other", replace(recipe, model_options=STEEP), start="robust/digits", progress=False)


class EveryReLU(nn.Module):
    """Two classes behind ReLUs that are called in every way."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(9, 9) for _ in range(7))

    def forward(self, x: Tensor) -> Tensor:
        relus = (
            torch.relu,
            functional.relu,
            Tensor.relu,
            nn.ReLU(inplace=True),
            torch.relu_,
            lambda h: functional.relu(h, inplace=True),
        )
        h = x.flatten(1)
        for layer, relu in zip(self.layers, relus, strict=False):
            h = relu(layer(h))
        after = self.layers[6](h)
        after.relu_()  # what is returned is not looked at
        return after[:, :2] - after[:, 2:4]


class TestBackwardPass:
    def test_leaky_outputs_are_exact_and_the_gradient_is_that_of_a_leaky_relu(self) -> None:
        torch.manual_seed(0)
        model = EveryReLU()
        x = torch.randn(5, 1, 3, 3, requires_grad=True)
        loose = ApproximateBackward(model, leaky=0.1)
        found = loose(x)
        assert torch.equal(found, model(x))

        h, masks = x.detach().flatten(1), []
        for layer in model.layers:
            h = layer(h)
            masks.append(torch.where(h > 0, 1.0, 0.1))
            h = h.relu()
        expected = torch.tensor([1.0, 0, -1, 0, 0, 0, 0, 0, 0]).expand(5, -1)
        for layer, mask in zip(reversed(model.layers), reversed(masks), strict=True):
            expected = (expected * mask) @ layer.weight  # type: ignore[operator]
        (grad,) = torch.autograd.grad(found[:, 0].sum(), x)
        torch.testing.assert_close(grad.flatten(1), expected)

    def test_a_whole_leak_can_be_differentiated_again(self) -> None:
        x = torch.tensor([-1.0, 2.0], requires_grad=True)
        y = ApproximateBackward(nn.ReLU(), leaky=1.0)(x)
        (grad,) = torch.autograd.grad(y.pow(2).sum(), x, create_graph=True)
        assert grad.tolist() == [0.0, 4.0]
        assert torch.autograd.grad(grad.sum(), x)[0].tolist() == [2.0, 2.0]

    @pytest.mark.parametrize("energies_too", [False, True])
    def test_the_front_end_is_exact_with_the_gradient_of_a_gentler_one(
        self, model: StyleMemoryNet, x: Tensor, energies_too: bool
    ) -> None:
        steep = with_front_end(model, front_end=20.0, front_end_energies=energies_too)
        x = x.requires_grad_()
        through = ApproximateBackward(steep, front_end=2.0)
        for name in ("forward", "class_energies", "logits_and_energies"):
            found, expected = getattr(through, name)(x), getattr(steep, name)(x)
            pairs = zip(found, expected, strict=True) if isinstance(found, tuple) else [(found, expected)]
            assert all(torch.equal(one, other) for one, other in pairs)
        behind = (20 * (x.detach() - 0.5)).sigmoid().requires_grad_()
        plain = with_front_end(model, front_end=None, front_end_energies=False)
        (inner,) = torch.autograd.grad(plain(behind)[:, 3].sum(), behind)
        gentle = (2 * (x.detach() - 0.5)).sigmoid()
        (grad,) = torch.autograd.grad(through(x)[:, 3].sum(), x)
        torch.testing.assert_close(grad, inner * 2 * gentle * (1 - gentle), rtol=1e-3, atol=1e-6)
        assert not any(part._forward_hooks for part in steep.modules())

    def test_a_defended_classifier_keeps_its_score(self, defended: DefendedClassifier, digits: Dataset) -> None:
        x = digits.test.x[:8].clone().requires_grad_()
        loose = ApproximateBackward(defended, leaky=0.1)
        assert torch.equal(loose.score(x), defended.score(x))
        assert loose.threshold == defended.threshold
        grads = [torch.autograd.grad(each.score(x).sum(), x)[0] for each in (loose, defended)]
        assert not torch.allclose(*grads)


AWARE = [("selective", {}), ("multi-target", {"targets": 1}), ("hybrid", {"targets": 1, "queries": 30})]
BLIND = [("bpda", {}), ("pgd", {"engine": "torchattacks"}), ("apgd-t", {"engine": "own"}), ("eot", {"samples": 1})]


class TestAttacks:
    @pytest.mark.parametrize(
        ("name", "others"), [*AWARE, *BLIND], ids=lambda value: value if type(value) is str else ""
    )
    def test_each_follows_the_other_backward_pass(
        self, steep: StyleMemoryNet, digits: Dataset, name: str, others: dict[str, Any]
    ) -> None:
        """They end elsewhere than along the true gradient, and success is still that of the model itself."""
        defended = DefendedClassifier(steep).calibrate(digits.calibration.x, alpha=0.05)
        part = digits.test.head(6)
        found = [
            attacks.load(name, eps=1.0, norm="l2", steps=3, **others, **approximation)(defended, part.x, part.y)
            for approximation in ({}, {"front_end": 2.0}, {"leaky": 0.2})
        ]
        assert not torch.equal(found[0].x, found[1].x)
        assert not torch.equal(found[0].x, found[2].x)
        for outcome in found:
            verdict = defended.inspect(outcome.x)
            assert torch.equal(outcome.label, verdict.label)
            aware = (name, others) in AWARE
            assert torch.equal(outcome.success, (verdict.label != part.y) & (~verdict.rejected | (not aware)))

    def test_signs_of_the_classifiers_gradient_do_not_depend_on_the_slope(
        self, steep: StyleMemoryNet, digits: Dataset
    ) -> None:
        """A function of single pixels that rises: in linf it is the energies behind it whose gradient differs."""
        part = digits.test.head(4)
        plain, gentler = (
            attacks.BPDA(eps=0.1, steps=3, front_end=slope)(steep, part.x, part.y).x for slope in (None, 2.0)
        )
        torch.testing.assert_close(plain, gentler)

    def test_searching_in_bfloat16_too(self, model: StyleMemoryNet, digits: Dataset) -> None:
        x = digits.test.x[:4].clone().requires_grad_()
        both = attacks.in_precision(ApproximateBackward(model, leaky=0.1), "float32")
        assert isinstance(both, ApproximateBackward)
        inside = attacks.precision.InBfloat16(both)
        exact = attacks.precision.InBfloat16(model)
        assert torch.equal(inside.class_energies(x), exact.class_energies(x))
        grads = [torch.autograd.grad(each.class_energies(x).sum(), x)[0] for each in (inside, exact)]
        assert not torch.allclose(*grads)

    def test_transfer_from_a_network_with_a_front_end(
        self, model: StyleMemoryNet, steep: StyleMemoryNet, digits: Dataset
    ) -> None:
        """The attack on the surrogate has its own backward pass."""
        part = digits.test.head(6)
        found = [
            Transfer(surrogate=steep, made_by=attacks.PGD(steps=3, front_end=slope), eps=1.0, norm="l2")(
                model, part.x, part.y
            ).x
            for slope in (None, 2.0)
        ]
        assert not torch.equal(*found)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"front_end": 0}, "front_end: got 0, must be a slope above 0"),
            ({"front_end": -2.0}, "front_end: got -2.0, must be a slope above 0"),
            ({"front_end": "4"}, "front_end: got '4', must be a slope above 0"),
            ({"leaky": 1.5}, r"leaky: got 1.5, must be a slope in \[0, 1\]"),
            ({"leaky": True}, "leaky: got True"),
        ],
        ids=str,
    )
    @pytest.mark.parametrize("name", ["selective", "bpda", "apgd-t"])
    def test_bad_slopes(self, name: str, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(InputError, match=message):
            attacks.load(name, **arguments)

    def test_a_model_without_front_end_says_so(
        self, defended: DefendedClassifier, digits: Dataset, tmp_path: Path
    ) -> None:
        part = digits.test.head(2)
        message = "front_end: got 4.0, must be left out for StyleMemoryNet, which has no front end"
        with pytest.raises(InputError, match=message):
            attacks.load("selective", front_end=4.0)(defended, part.x, part.y)
        with pytest.raises(InputError, match=message):  # before anything runs
            benchmark(
                defended, digits, ["pgd", "bpda"], 0.1, parameters={"bpda.front_end": 4.0}, n=4, out=tmp_path / "none"
            )
        assert not list(tmp_path.rglob("*.json"))


class TestClassStart:
    def test_it_starts_at_an_accepted_image_of_the_target_label(
        self, defended: DefendedClassifier, digits: Dataset, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        part = digits.test.head(60)
        starts: list[Tensor] = []

        def recorded(self: MultiTarget, evaluate: Any, x: Tensor, objective: Any, confirm: Any, start: Tensor) -> Any:
            starts.append(start)
            return original(self, evaluate, x, objective, confirm, start)

        original = MultiTarget.run_apgd
        monkeypatch.setattr(MultiTarget, "run_apgd", recorded)
        attack = MultiTarget(eps=0.1, steps=1, targets=1, class_start=True)
        goal = Misclassified() & Undetected(defended.threshold)
        attack.perturb(defended, part.x, part.y, goal)
        (start,) = starts
        verdict = defended.inspect(part.x)
        examples = part.x[(verdict.label == part.y) & ~verdict.rejected]
        labels = part.y[(verdict.label == part.y) & ~verdict.rejected]
        for image, own, y in zip(start, part.x, part.y, strict=True):
            at = [torch.equal(image, attack.threat.project(each[None], own[None])[0]) for each in examples]
            assert any(at)
            assert all(labels[torch.tensor(at)] != y)

    def test_without_such_an_image_it_is_a_random_start(self, defended: DefendedClassifier, digits: Dataset) -> None:
        alone = digits.test.head(1)
        found = [
            MultiTarget(eps=0.1, steps=2, targets=2, class_start=flag)(defended, alone.x, alone.y).x
            for flag in (False, True)
        ]
        assert torch.equal(*found)


class TestWorstCase:
    def test_default_attacks_for_a_front_end_come_before_the_searches(self) -> None:
        plain, more = attacks.default_attacks("linf"), attacks.default_attacks("linf", front_end=True)
        assert [each for each in more if "front_end" not in each[1]] == plain
        added = [(name, given["front_end"]) for name, given in more if "front_end" in given]
        assert added == [(name, k) for name in ("bpda", "selective", "multi-target") for k in (2.0, 4.0, 6.0)]
        names = [name for name, _ in more]
        assert names.index("hybrid") > max(place for place, (_, given) in enumerate(more) if "front_end" in given)

    def test_it_attacks_a_network_with_a_front_end_through_gentler_slopes(
        self, model: StyleMemoryNet, steep: StyleMemoryNet, digits: Dataset, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        slopes: list[float | None] = []

        def noted(self: attacks.GradientAttack, victim: nn.Module) -> nn.Module:
            slopes.append(self.front_end)
            return victim

        monkeypatch.setattr(attacks.GradientAttack, "searched", noted)
        few = [("selective", {"steps": 1}), *(("bpda", {"steps": 1, "front_end": k}) for k in (2.0, 4.0))]
        monkeypatch.setattr("attacks.worst_case.default_attacks", lambda norm, front_end=False: few)
        part = digits.test.head(2)
        for net in (model, steep):
            defended = DefendedClassifier(net).calibrate(digits.calibration.x, alpha=0.05)
            attacks.load("worst-case", eps=0.001)(defended, part.x, part.y)
        assert slopes == [None, None, 2.0, 4.0]

    def test_the_default_worst_case_of_the_command_has_them(self, steep: StyleMemoryNet, model: StyleMemoryNet) -> None:
        asked = {"norm": "linf", "steps": 40, "engine": None, "model": None, "data": None, "detector": None}
        asked |= {"alpha": 0.05, "n": 10, "seed": 0, "precision": None}
        for attack, net, expected in (
            (None, steep, {2.0, 4.0, 6.0}),
            (None, model, set()),
            (["pgd"], steep, set()),
        ):
            suite = chain.asked_suite(attack=attack, eps=[0.1, 0.3], **asked)  # type: ignore[arg-type]
            configs = chain._attacks_on(suite.models[0], _bench_of(net))
            slopes = {each.parameters["front_end"] for each in configs if "front_end" in each.parameters}
            assert slopes == expected
            assert {each.eps for each in configs} == {0.1, 0.3}

    def test_a_suite_without_them_is_told(self, steep: StyleMemoryNet, model: StyleMemoryNet) -> None:
        plain, gentler = (chain.AttackConfig("selective", 0.3, parameters=given) for given in ({}, {"front_end": 4}))
        target, other = (_bench_of(net).target for net in (steep, model))
        said = without_gentler_slopes(SuiteModel("front", ("label_margin",), 10, (plain,)), target)
        assert said is not None
        assert "front has a front end" in said
        assert without_gentler_slopes(SuiteModel("front", ("label_margin",), 10, (plain, gentler)), target) is None
        assert without_gentler_slopes(SuiteModel("plain", ("label_margin",), 10, (plain,)), other) is None

    def test_the_strongest_of_all_per_image_counts(self, steep: StyleMemoryNet, digits: Dataset) -> None:
        """Cells with another backward pass are cells of their own, and join the worst case."""
        found = benchmark(
            steep,
            digits,
            ["selective", "bpda"],
            0.1,
            "label_margin",
            n=6,
            steps=2,
            parameters={"selective.leaky": 0.1, "bpda.front_end": 2.0},
            precision="float32",
            progress=False,
        )
        (worst,) = found.worst_case
        assert [count.attack for count in worst.attacks] == ["selective-2 leaky=0.1", "bpda-2 front_end=2.0"]
        assert worst.robust_risk >= max(cell.metrics.robust_risk for cell in found.cells)  # type: ignore[union-attr]


def _bench_of(net: StyleMemoryNet) -> Any:
    """All of a bench that is looked at."""

    class Target:
        model, name = net, "front"

    class Bench:
        target = Target

    return Bench
