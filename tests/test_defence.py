"""The defended classifier: what it says, what it accepts, and what it refuses."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from robustrecon import DefendedClassifier, InputError, StyleMemoryNet, Verdict, attacks, checkpoint, load
from robustrecon.data import Dataset
from robustrecon.types import check_images


class OwnModel(nn.Module):
    """A user's model with the least that can be defended; it knows no shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(12, 3)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.dense(x.flatten(1)))

    def class_energies(self, x: torch.Tensor) -> torch.Tensor:
        return self.dense(x.flatten(1)).exp()


def test_verdict_and_predict_agree(defended: DefendedClassifier, digits: Dataset) -> None:
    x = digits.test.x
    verdict = defended.inspect(x)
    assert isinstance(verdict, Verdict)
    assert len(verdict) == len(x)
    assert verdict.label.dtype == torch.int64
    assert verdict.rejected.dtype == torch.bool
    assert torch.equal(verdict.rejected, verdict.score > defended.threshold)
    assert torch.equal(verdict.rejected, verdict.p_value <= 0.05)
    expected = torch.where(verdict.rejected, -1, verdict.label)
    assert torch.equal(defended.predict(x), expected)
    with torch.no_grad():
        assert torch.equal(defended(x).argmax(1), verdict.label)


def test_noise_is_rejected_and_digits_are_not(model: StyleMemoryNet, digits: Dataset) -> None:
    defended = DefendedClassifier(model, "global_error").calibrate(digits.calibration.x, alpha=0.05)
    noise = torch.rand(100, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    assert defended.inspect(noise).rejected.all()
    assert defended.inspect(digits.test.x).rejected.double().mean() < 0.1


def test_logits_and_score_are_those_of_the_two_calls_for_any_model(model: StyleMemoryNet, digits: Dataset) -> None:
    """Also of one's own, which cannot share the work: there the labels to compare save nothing and change nothing."""
    own = OwnModel().eval()
    for network, x in ((model, digits.test.x[:6]), (own, torch.rand(6, 3, 2, 2))):
        defended = DefendedClassifier(network)
        energies = network.class_energies(x)
        order = energies.argsort(dim=1)
        logits, score = defended.logits_and_score(x, predicted=order[:, 1])
        torch.testing.assert_close(logits, network(x))
        torch.testing.assert_close(score, (energies.gather(1, order[:, 1:2]) - energies.gather(1, order[:, :1]))[:, 0])
        _, compared = defended.logits_and_score(x, predicted=order[:, 1], labels=order[:, :2])
        torch.testing.assert_close(compared, score, rtol=1e-4, atol=1e-4)


def test_numpy_arrays_are_accepted(defended: DefendedClassifier, digits: Dataset) -> None:
    x = digits.test.x[:9]
    for array in (x.numpy(), x.numpy().astype(np.float64)):
        torch.testing.assert_close(defended.inspect(array).score, defended.inspect(x).score)


def test_the_score_is_the_same_whatever_the_batch(defended: DefendedClassifier, digits: Dataset) -> None:
    x = digits.test.x
    alone = torch.cat([defended.inspect(x[i : i + 1]).score for i in range(5)])
    torch.testing.assert_close(defended.inspect(x).score[:5], alone, rtol=1e-4, atol=1e-4)


def test_any_model_with_the_two_methods(tmp_path: Path) -> None:
    torch.manual_seed(0)
    own = OwnModel()
    x = torch.rand(60, 3, 2, 2)
    defended = DefendedClassifier(own, lambda evidence: evidence.energies.amin(1)).calibrate(x, 0.1)
    assert own.training
    assert own.dropout.training
    assert torch.equal(defended.predict(x), defended.predict(x)), "dropout was left on"
    with pytest.raises(InputError, match="detector: '<lambda>' is a function, which cannot be written down"):
        defended.save(tmp_path / "d.safetensors")

    defended = DefendedClassifier(own, "label_margin").calibrate(x, 0.1)
    path = defended.save(tmp_path / "d.safetensors")
    with pytest.raises(InputError, match="model of your own class; pass an instance"):
        DefendedClassifier.load(path)
    torch.manual_seed(1)
    again = DefendedClassifier.load(path, model=OwnModel())
    assert torch.equal(again.predict(x), defended.predict(x))
    with pytest.raises(InputError, match="do not fit Linear"):
        DefendedClassifier.load(path, model=_with_energies(nn.Linear(2, 2)))


def _with_energies(module: nn.Module) -> nn.Module:
    module.class_energies = module.forward  # type: ignore[assignment]
    return module


def test_a_score_that_is_not_a_number_is_rejected(digits: Dataset, model: StyleMemoryNet) -> None:
    score = iter([torch.arange(300.0), torch.full((5,), torch.nan)])
    defended = DefendedClassifier(model, lambda evidence: next(score)).calibrate(digits.calibration.x)
    assert defended.inspect(digits.test.x[:5]).rejected.all()


class Spoiled(nn.Module):
    """Logits that are not numbers for bright images; the energies stay finite."""

    def __init__(self, model: StyleMemoryNet, bad: float) -> None:
        super().__init__()
        self.model, self.bad = model, bad

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x).masked_fill(x.flatten(1).mean(1, keepdim=True) > 0.9, self.bad)

    def class_energies(self, x: torch.Tensor) -> torch.Tensor:
        return torch.arange(10.0) * (1 + x.flatten(1).mean(1, keepdim=True))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_logits_that_are_not_finite_are_rejected(model: StyleMemoryNet, digits: Dataset, bad: float) -> None:
    defended = DefendedClassifier(Spoiled(model, bad)).calibrate(digits.calibration.x)
    verdict = defended.inspect(torch.ones(3, 1, 28, 28))
    assert verdict.rejected.all()
    assert verdict.score.isposinf().all()
    assert verdict.p_value.tolist() == pytest.approx([1 / 301] * 3)
    with pytest.raises(InputError, match="model: gave logits that are not finite on 1 of 301 images"):
        defended.calibrate(torch.cat([digits.calibration.x, torch.ones(1, 1, 28, 28)]))


def test_many_threads_judge_alike_and_leave_training_mode_and_statistics_alone() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.LazyLinear(3))
    x = torch.rand(64, 1, 8, 8)
    model(x)
    defended = DefendedClassifier(model, "msp").calibrate(x, 0.1).train()
    statistics = {name: value.clone() for name, value in model.named_buffers()}
    expected = defended.inspect(x).score
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: defended.inspect(x).score, range(80)))
    assert all(torch.equal(score, expected) for score in found)
    assert all(part.training for part in defended.modules())
    assert all(torch.equal(value, statistics[name]) for name, value in model.named_buffers())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("detector", ["msp", "label_margin"])
def test_models_of_any_floating_point_type(
    model: StyleMemoryNet, digits: Dataset, dtype: torch.dtype, detector: str, tmp_path: Path
) -> None:
    clean, x_test = digits.calibration.x[:60], digits.test.x[:60]
    expected = DefendedClassifier(model, detector).calibrate(clean).inspect(x_test)
    defended = DefendedClassifier(copy.deepcopy(model).to(dtype), detector).calibrate(clean)
    verdict = defended.inspect(x_test)
    assert verdict.score.dtype == torch.float32
    assert (verdict.label == expected.label).double().mean() > 0.96
    assert (verdict.rejected == expected.rejected).double().mean() > 0.9
    x = x_test[:3].clone().requires_grad_()
    assert defended(x).dtype == torch.float32
    assert defended(x.double()).dtype == torch.float64
    assert torch.autograd.grad(defended.score(x).sum(), x)[0].any()
    part = digits.test.head(4)
    for attack in ("pgd", "selective"):
        outcome = attacks.load(attack, eps=0.2, steps=3)(defended, part.x, part.y)
        assert outcome.x.dtype == torch.float32
    again = DefendedClassifier.load(defended.save(tmp_path / "d.safetensors"))
    assert torch.equal(again.inspect(x_test).score, verdict.score)


def test_shapes_are_checked_for_a_model_that_knows_none(tmp_path: Path) -> None:
    torch.manual_seed(0)
    own = OwnModel()
    with pytest.raises(InputError, match=r"x: OwnModel does not take images of shape \(3, 4, 4\) \(mat1 and mat2"):
        DefendedClassifier(own, "msp").calibrate(torch.rand(60, 3, 4, 4))
    defended = DefendedClassifier(own, "msp").calibrate(torch.rand(60, 3, 2, 2))
    with pytest.raises(InputError, match=r"x: shape is \(5, 2, 3, 2\), must be \(B, 3, 2, 2\)"):
        defended.inspect(torch.rand(5, 2, 3, 2))  # as many numbers, so that the model itself would take it
    again = DefendedClassifier.load(defended.save(tmp_path / "d.safetensors"), OwnModel())
    with pytest.raises(InputError, match=r"must be \(B, 3, 2, 2\)"):
        again.inspect(torch.rand(5, 2, 3, 2))


def test_a_score_that_is_the_same_for_all_images_is_refused(model: StyleMemoryNet, digits: Dataset) -> None:
    constant = DefendedClassifier(model, lambda evidence: torch.zeros(len(evidence.x)))
    with pytest.raises(InputError, match="detector: <lambda> gave 300 of 300 images its highest score, 0, must tell"):
        constant.calibrate(digits.calibration.x)
    flag = DefendedClassifier(model, lambda evidence: (torch.arange(len(evidence.x)) % 3 == 0).float())
    with pytest.raises(InputError, match="gave 100 of 300 images its highest score, 1, .* alpha=0.05 does not"):
        flag.calibrate(digits.calibration.x)
    flag.calibrate(digits.calibration.x, alpha=0.4)


def test_images_that_the_model_labels_wrong_can_be_left_out_of_the_calibration() -> None:
    torch.manual_seed(0)
    x = torch.rand(200, 1, 3, 4)
    own = OwnModel().eval()
    y = own(x).argmax(1)
    highest = DefendedClassifier(own).calibrate(x, alpha=0.05).score(x).topk(40).indices
    y[highest] = (y[highest] + 1) % 3  # the detector suspects those that are wrong
    right = torch.ones(200, dtype=torch.bool).scatter(0, highest, False)
    all_images = DefendedClassifier(own).calibrate((x, y), alpha=0.05)
    correct = DefendedClassifier(own).calibrate(DataLoader(TensorDataset(x, y), 64), alpha=0.05, correct_only=True)
    assert correct.threshold == DefendedClassifier(own).calibrate(x[right], alpha=0.05).threshold
    assert correct.threshold < all_images.threshold
    assert correct.inspect(x[~right]).rejected.all()
    with pytest.raises(InputError, match="x: has no labels, must be images and labels where correct_only"):
        DefendedClassifier(own).calibrate(x, correct_only=True)
    with pytest.raises(InputError, match="x: 160 images that the model labels right, must be at least 199"):
        DefendedClassifier(own).calibrate((x, y), alpha=0.005, correct_only=True)


CHANGES = ["in place", "data", "signs", "order", "one weight", "activation", "loaded", "optimised"]


@pytest.mark.parametrize("change", CHANGES)
def test_changed_weights_ask_for_a_new_calibration(
    model: StyleMemoryNet, digits: Dataset, tmp_path: Path, change: str
) -> None:
    defended = DefendedClassifier(model).calibrate(digits.calibration.x)
    defended.predict(digits.test.x[:2])
    if change == "in place":
        with torch.no_grad():
            model.head.bias[0] += 1e-4
    elif change == "data":
        model.head.weight.data.mul_(1.1)
    elif change == "signs":
        model.dense2.weight.data.neg_()
    elif change == "order":
        model.dense2.weight.data.copy_(model.dense2.weight.data.roll(1, 0))
    elif change == "one weight":
        model.dense2.weight.data.numpy()[3, 4] += 1e-4
    elif change == "activation":
        model.add_module("blocks1", nn.Sequential(nn.Tanh()))
    elif change == "loaded":
        model.load_state_dict({key: value * 1.01 for key, value in model.state_dict().items()})
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        model(digits.test.x[:2]).sum().backward()
        optimizer.step()
    for use in (
        defended.predict,
        defended.inspect,
        lambda _: defended.threshold,
        lambda _: defended.save(tmp_path / "d"),
    ):
        with pytest.raises(InputError, match="its weights have changed since it was calibrated; call calibrate again"):
            use(digits.test.x[:2])
    defended.calibrate(digits.calibration.x).predict(digits.test.x[:2])


def test_moving_and_freezing_a_model_keeps_its_calibration(model: StyleMemoryNet, digits: Dataset) -> None:
    defended = DefendedClassifier(model).calibrate(digits.calibration.x)
    expected = defended.inspect(digits.test.x).score
    moved = copy.deepcopy(defended).to("cpu", memory_format=torch.contiguous_format).requires_grad_(False).train()
    torch.testing.assert_close(moved.inspect(digits.test.x).score, expected)


def test_a_state_dict_carries_the_calibration(model: StyleMemoryNet, digits: Dataset, tmp_path: Path) -> None:
    defended = DefendedClassifier(model).calibrate(digits.calibration.x, 0.1)
    torch.save(defended.state_dict(), tmp_path / "state.pt")
    again = DefendedClassifier(StyleMemoryNet())
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert again.threshold == defended.threshold
    assert torch.equal(again.predict(digits.test.x), defended.predict(digits.test.x))
    other = DefendedClassifier(StyleMemoryNet())
    other.load_state_dict(DefendedClassifier(model).state_dict())
    assert other.calibration is None


def test_a_state_dict_of_another_detector_is_refused(model: StyleMemoryNet, digits: Dataset) -> None:
    state = DefendedClassifier(model, "msp").calibrate(digits.calibration.x).state_dict()
    with pytest.raises(InputError, match="state_dict: was calibrated for the detector msp, must be for max_logit"):
        DefendedClassifier(StyleMemoryNet(), "max_logit").load_state_dict(state)


def test_training_images_are_not_calibrated_on(model: StyleMemoryNet, digits: Dataset) -> None:
    """Whoever trained the network, and whatever wraps it."""

    class Wrapped(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x)

    for network in (model, Wrapped(model), load("robust/digits")):
        with pytest.raises(
            InputError, match="x: 300 of 300 images that can be told are among those that the model was"
        ):
            DefendedClassifier(network, "msp").calibrate(digits.train.x[:300])
        DefendedClassifier(network, "msp").calibrate(digits.test.x)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": "x"}, "its card gives alpha as 'x', must be in"),
        ({"detector": 3}, "its card gives the detector as 3, must be a name"),
        ({"detector": "masp"}, "was saved with a detector that this version does not know.*did you mean 'msp'"),
    ],
)
def test_a_card_with_wrong_values_is_one_clear_line(
    model: StyleMemoryNet, digits: Dataset, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    whole = checkpoint.load(DefendedClassifier(model).calibrate(digits.calibration.x).save(tmp_path / "d.safetensors"))
    checkpoint.save(tmp_path / "d.safetensors", whole.tensors, whole.card | change)
    with pytest.raises(InputError, match=message):
        DefendedClassifier.load(tmp_path / "d.safetensors")


def test_files_of_earlier_versions_load(model: StyleMemoryNet, digits: Dataset, tmp_path: Path) -> None:
    """One score an image was stored as a vector, and the free energy was called marginal."""
    for name, stored in (
        ("free_energy", "marginal"),
        ("any_of(label_margin,free_energy)", "any_of(label_margin,marginal)"),
    ):
        defended = DefendedClassifier(model, name).calibrate(digits.calibration.x)
        whole = checkpoint.load(defended.save(tmp_path / "d.safetensors"))
        scores = whole.tensors["calibration.scores"]
        tensors = whole.tensors | {"calibration.scores": scores.squeeze(1)}
        card = {key: value for key, value in whole.card.items() if key != "image_shape"} | {"detector": stored}
        again = DefendedClassifier.load(checkpoint.save(tmp_path / "old.safetensors", tensors, card))
        assert again.detector.name == name
        assert torch.equal(again.inspect(digits.test.x).score, defended.inspect(digits.test.x).score)


def test_a_calibration_of_too_few_images_is_not_loaded(model: StyleMemoryNet, digits: Dataset, tmp_path: Path) -> None:
    whole = checkpoint.load(DefendedClassifier(model).calibrate(digits.calibration.x).save(tmp_path / "d.safetensors"))
    few = whole.tensors | {"calibration.scores": whole.tensors["calibration.scores"][:18]}
    checkpoint.save(tmp_path / "few.safetensors", few, whole.card)
    with pytest.raises(
        InputError, match=r"holds calibration scores \(18, 1\), must be \(19 or more, 1\) for alpha=0.05"
    ):
        DefendedClassifier.load(tmp_path / "few.safetensors")


def test_a_function_of_energies_and_logits_is_told_what_it_must_take(model: StyleMemoryNet) -> None:
    with pytest.raises(InputError, match="detector: got <lambda>, must be a function of one Evidence"):
        DefendedClassifier(model, lambda energies, logits: energies.amin(1))  # type: ignore[arg-type]


def test_before_calibrating(model: StyleMemoryNet, digits: Dataset, tmp_path: Path) -> None:
    defended = DefendedClassifier(model)
    for use in (defended.predict, defended.inspect):
        with pytest.raises(InputError, match="not calibrated; call calibrate"):
            use(digits.test.x)
    with pytest.raises(InputError, match="not calibrated"):
        defended.save(tmp_path / "d.safetensors")
    assert "not calibrated" in repr(defended)


def test_too_few_images_says_how_many_are_needed(model: StyleMemoryNet, digits: Dataset) -> None:
    with pytest.raises(InputError, match=r"x: 98 images, must be at least 99 .* alpha=0\.01"):
        DefendedClassifier(model).calibrate(digits.calibration.x[:98], alpha=0.01)
    DefendedClassifier(model).calibrate(digits.calibration.x[:99], alpha=0.01)


@pytest.mark.parametrize("alpha", [0, 1, -1.0, 1.5, float("nan"), "0.05"])
def test_bad_alpha(model: StyleMemoryNet, digits: Dataset, alpha: float) -> None:
    with pytest.raises(InputError, match="alpha: got"):
        DefendedClassifier(model).calibrate(digits.calibration.x, alpha=alpha)


def test_unknown_detector_suggests_the_nearest(model: StyleMemoryNet) -> None:
    with pytest.raises(InputError, match=r"detector: unknown name 'label_margn'; did you mean 'label_margin'\?"):
        DefendedClassifier(model, "label_margn")


def test_energies_and_scores_of_the_wrong_shape(model: StyleMemoryNet, digits: Dataset) -> None:
    x = digits.calibration.x
    with pytest.raises(InputError, match=r"detector: <lambda> gave scores of shape \(\), must be \(300,\)"):
        DefendedClassifier(model, lambda evidence: evidence.energies.sum()).calibrate(x)
    own = OwnModel()
    own.class_energies = lambda images: images.flatten(1)[:, :2]  # type: ignore[method-assign]
    with pytest.raises(InputError, match="class_energies gave .* must be the logits'"):
        DefendedClassifier(own).calibrate(torch.rand(60, 3, 2, 2))
    with pytest.raises(InputError, match="detector: got 3, must be a detector, its name, or a function"):
        DefendedClassifier(model, 3)  # type: ignore[arg-type]


def test_numpy_numbers_are_numbers(model: StyleMemoryNet, digits: Dataset) -> None:
    DefendedClassifier(model).calibrate(digits.calibration.x, alpha=np.float32(0.05))


def test_a_model_without_energies() -> None:
    message = "detector: got label_margin, which needs class_energies, .* Linear: .* msp, max_logit, .* logits alone"
    with pytest.raises(InputError, match=message):
        DefendedClassifier(nn.Linear(2, 2))
    with pytest.raises(InputError, match="model: got int, must be a torch.nn.Module"):
        DefendedClassifier(3)  # type: ignore[arg-type]


def test_a_bare_model_is_not_a_defended_classifier(model_dir: Path) -> None:
    with pytest.raises(InputError, match="is a model without a calibrated detector"):
        DefendedClassifier.load(model_dir)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.full((2, 1, 28, 28), 1.5), r"x: values span \[1\.5, 1\.5\], must be in \[0, 1\]"),
        (torch.full((2, 1, 28, 28), -0.1), r"must be in \[0, 1\]"),
        (torch.full((2, 1, 28, 28), torch.nan), "x: has values that are not finite"),
        (torch.full((2, 1, 28, 28), torch.inf), "x: has values that are not finite"),
        (torch.zeros(2, 1, 28, 28, dtype=torch.uint8), r"x: dtype is torch\.uint8, must be floating point"),
        (torch.zeros(0, 1, 28, 28), "must hold at least one image"),
        (torch.zeros(1, 28, 28), r"x: shape is \(1, 28, 28\), must be \(B, 1, 28, 28\)"),
        (torch.zeros(2, 3, 28, 28), r"x: shape is \(2, 3, 28, 28\), must be \(B, 1, 28, 28\)"),
        ("picture.png", "x: "),
        ([object], "x: got list, must be a tensor or an array"),
    ],
    ids=lambda value: "" if isinstance(value, str) else str(getattr(value, "shape", value)),
)
def test_bad_images(defended: DefendedClassifier, x: object, message: str) -> None:
    for use in (defended.predict, defended.inspect, defended.calibrate):
        with pytest.raises(InputError, match=message):
            use(x)  # type: ignore[operator]


@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.integers(0, 4), min_size=0, max_size=5).map(tuple),
    dtype=st.sampled_from([np.float16, np.float32, np.float64, np.uint8, np.int64, np.bool_, np.complex64]),
    value=st.sampled_from([0.0, 1.0, 0.5, -0.01, 1.01, np.nan, np.inf]),
)
def test_check_images_accepts_images_and_nothing_else(shape: tuple[int, ...], dtype: type, value: float) -> None:
    with np.errstate(invalid="ignore"):
        x = np.full(shape, value).astype(dtype)
    valid = len(shape) == 4 and 0 not in shape and x.dtype.kind == "f" and np.isfinite(value) and 0 <= value <= 1
    if valid:
        assert check_images(x).dtype == torch.float32
    else:
        with pytest.raises(InputError, match="^x: "):
            check_images(x)


def test_check_images_keeps_the_gradient() -> None:
    x = torch.rand(1, 1, 2, 2, dtype=torch.float64, requires_grad=True)
    check_images(x).sum().backward()
    assert x.grad is not None


def test_loaders_data_sets_and_pairs_are_taken_as_tensors_are(digits: Dataset) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    x, y = digits.calibration.x, digits.calibration.y
    pairs = TensorDataset(x, y)
    expected = DefendedClassifier(model, "msp").calibrate(x)
    for data in (DataLoader(pairs, batch_size=64), pairs, digits.calibration, (x, y), iter(x.split(100))):
        defended = DefendedClassifier(model, "msp").calibrate(data)
        assert defended.calibration is not None
        assert expected.calibration is not None
        torch.testing.assert_close(defended.calibration.scores, expected.calibration.scores)
        assert defended.image_shape == (1, 28, 28)
    loader = DataLoader(TensorDataset(digits.test.x[:70], digits.test.y[:70]), batch_size=32)
    verdict, whole = expected.inspect(loader), expected.inspect(digits.test.x[:70])
    torch.testing.assert_close(verdict.score, whole.score)
    assert torch.equal(verdict.label, whole.label)
    assert torch.equal(expected.predict(loader), expected.predict(digits.test.x[:70]))
    assert expected.fit(loader) is expected
    with pytest.raises(InputError, match="y: got None, must be 70 labels"):
        expected.fit(digits.test.x[:70])
    with pytest.raises(InputError, match=r"x: 10 images, must be at least 19"):
        expected.calibrate(DataLoader(x[:10], batch_size=4))


def test_what_was_trained_on_is_noticed_over_the_batches_of_a_loader(model: StyleMemoryNet, digits: Dataset) -> None:
    with pytest.raises(InputError, match="x: 40 of 40 images that can be told"):
        DefendedClassifier(model, "msp").calibrate(DataLoader(digits.train.x[:40], batch_size=16))
