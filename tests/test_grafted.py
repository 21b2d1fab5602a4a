"""A classifier beside a drawer: what the pair is, what is converted, and what `graft` notices."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

import robustrecon
from robustrecon import DefendedClassifier, InputError, attacks
from robustrecon.data import Dataset
from robustrecon.models import EnergyModel
from robustrecon.models.grafted import Grafted, converted
from robustrecon.models.imported import load_weights
from robustrecon.types import ImageShape

SHAPE = (1, 8, 8)


class Linear(nn.Module):
    """A classifier of someone else's."""

    def __init__(self, n_classes: int = 3, shape: ImageShape = SHAPE, classes: Sequence[str] | None = None) -> None:
        super().__init__()
        self.shape, self.classes = shape, classes
        self.dense = nn.Linear(shape[0] * shape[1] * shape[2], n_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(x.view(len(x), -1))  # refuses the strides of channels-last images, as many do


class Prototypes(EnergyModel):
    """A drawer that knows one image a class."""

    name = "prototypes"

    def __init__(self, n_classes: int = 3, shape: ImageShape = SHAPE, classes: Sequence[str] | None = None) -> None:
        super().__init__(n_classes, shape)
        self.classes = classes
        self.prototypes = nn.Parameter(torch.rand(n_classes, *shape, generator=torch.Generator().manual_seed(3)))

    def forward(self, x: Tensor) -> Tensor:
        return -self.class_energies(x)

    def class_energies(self, x: Tensor) -> Tensor:
        return (x.unsqueeze(1) - self.prototypes).flatten(2).square().sum(2)

    def reconstruct(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        drawn = self.prototypes[self(x).argmax(1) if labels is None else labels]
        return drawn.contiguous(memory_format=torch.channels_last)


@pytest.fixture(autouse=True)
def _warnings_are_errors() -> Any:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


@pytest.fixture
def x() -> Tensor:
    return torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(1))


def test_the_logits_are_the_classifiers_and_the_energies_the_drawers(x: Tensor) -> None:
    classifier, drawer = Linear().eval(), Prototypes()
    grafted = robustrecon.graft(classifier, drawer, logit_weight=0)
    assert torch.equal(grafted(x), classifier(x))
    assert torch.equal(grafted.class_energies(x), drawer.class_energies(x))
    logits, energies = grafted.logits_and_energies(x)
    assert torch.equal(logits, classifier(x))
    assert torch.equal(energies, drawer.class_energies(x))
    assert grafted.image_shape == SHAPE
    assert grafted.n_classes == 3
    labels = torch.tensor([2, 0, 1, 1, 0, 2])
    assert torch.equal(grafted.reconstruct(x, labels), drawer.prototypes[labels])
    assert torch.equal(grafted.reconstruct(x), drawer.prototypes[classifier(x).argmax(1)])


def test_the_drawers_own_logits_count(x: Tensor) -> None:
    drawer = Prototypes(5)
    mapped = torch.tensor([4, 0, 2])
    grafted = robustrecon.graft(Linear(), drawer, labels=mapped.tolist())
    joint = drawer.class_energies(x) - drawer(x).log_softmax(1)
    torch.testing.assert_close(grafted.class_energies(x), joint[:, mapped])
    chosen = torch.tensor([[1, 2]]).expand(len(x), 2)
    torch.testing.assert_close(grafted.logits_and_energies(x, chosen)[1], joint[:, mapped][:, 1:])
    torch.testing.assert_close(grafted.logits_and_energies(x, lambda logits: chosen)[1], joint[:, mapped][:, 1:])
    heavier = robustrecon.graft(Linear(), drawer, labels=mapped.tolist(), logit_weight=2)
    torch.testing.assert_close(heavier.class_energies(x), (joint - drawer(x).log_softmax(1))[:, mapped])


def test_labels_are_mapped_everywhere(x: Tensor) -> None:
    """Also of a drawer that has more classes than the classifier."""
    classifier, drawer, mapped = Linear(), Prototypes(5), torch.tensor([4, 0, 2])
    grafted = robustrecon.graft(classifier, drawer, labels=mapped.tolist(), logit_weight=0)
    energies = drawer.class_energies(x)[:, mapped]
    assert torch.equal(grafted.class_energies(x), energies)
    best = grafted.logits_and_energies(x, lambda logits: logits.topk(2).indices)
    assert torch.equal(best[1], energies.gather(1, classifier(x).topk(2).indices))
    ones = torch.ones(6, dtype=torch.long)
    assert torch.equal(grafted.reconstruct(x, ones), drawer.prototypes[[0] * 6])
    representations = grafted.representations(x, ones)
    assert torch.equal(representations[0], classifier(x))
    assert all(len(each) == len(x) for each in representations)


class OnlyEnergies(nn.Module):
    """A drawer with the least that one needs."""

    image_shape = SHAPE

    def class_energies(self, x: Tensor) -> Tensor:
        return torch.stack([(x - level).flatten(1).square().sum(1) for level in (0.2, 0.5, 0.8)], 1)


def test_a_drawer_needs_nothing_but_energies(x: Tensor) -> None:
    grafted = robustrecon.graft(Linear(), OnlyEnergies(), labels=[2, 1, 0])
    assert torch.equal(grafted.logits_and_energies(x)[1], OnlyEnergies().class_energies(x).flip(1))
    assert len(grafted.representations(x, torch.zeros(6, dtype=torch.long))) == 2
    assert not hasattr(grafted, "reconstruct")
    with pytest.raises(InputError, match="needs reconstruct"):
        DefendedClassifier(grafted, "cycle")


@pytest.mark.parametrize(
    ("classes", "drawn", "expected"),
    [
        (("one", "two", "zero"), ("0 - zero", "1 - one", "2 - two"), [1, 2, 0]),
        (("2", "1"), ("0 - zero", "1 - one", "2 - two"), [2, 1]),
        ((" Cat", "dog"), ("dog", "cat"), [1, 0]),
        (None, ("dog", "cat"), [0, 1]),
        (("dog", "cat"), None, [0, 1]),
    ],
)
def test_labels_go_by_the_names_of_the_classes(
    classes: tuple[str, ...] | None, drawn: tuple[str, ...] | None, expected: list[int]
) -> None:
    n_drawn = len(drawn or expected)
    grafted = robustrecon.graft(Linear(len(expected), classes=classes), Prototypes(n_drawn, classes=drawn))
    assert grafted.labels.tolist() == expected


@pytest.mark.parametrize(
    ("given", "wanted"),
    [((1, 8, 8), (1, 28, 28)), ((1, 8, 8), (3, 8, 8)), ((3, 12, 12), (1, 8, 8)), ((1, 8, 8), (3, 12, 6))],
)
def test_conversion_is_differentiable_in_every_pixel(given: ImageShape, wanted: ImageShape) -> None:
    x = torch.rand(2, *given).requires_grad_()
    out = converted(x, wanted)
    assert out.shape == (2, *wanted)
    assert 0 <= out.detach().min() <= out.detach().max() <= 1
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert (gradient > 0).all()


def test_conversion_to_grey_keeps_grey_images() -> None:
    grey = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(converted(converted(grey, (3, 8, 8)), (1, 8, 8)), grey)


def test_smaller_and_grey_images_are_converted_for_the_drawer(x: Tensor) -> None:
    drawer = Prototypes(shape=(3, 16, 16))
    grafted = robustrecon.graft(Linear(), drawer, image_shape=SHAPE, logit_weight=0)
    torch.testing.assert_close(grafted.class_energies(x), drawer.class_energies(converted(x, (3, 16, 16))))
    drawing = grafted.reconstruct(x)
    assert drawing.shape == x.shape
    assert grafted(drawing).shape == (6, 3)  # what `cycle` asks for


@pytest.mark.parametrize(
    ("given", "wanted", "lost"),
    [
        ((3, 8, 8), (1, 8, 8), "lose colour;"),
        ((1, 12, 12), (1, 8, 8), "lose resolution (12×12 pixels become 8×8);"),
        ((3, 8, 12), (1, 8, 8), "lose colour and resolution (8×12 pixels become 8×8);"),
    ],
)
def test_images_that_lose_something_need_allow_loss(given: ImageShape, wanted: ImageShape, lost: str) -> None:
    classifier, drawer = Linear(shape=given), Prototypes(shape=wanted)
    with pytest.raises(InputError) as error:
        robustrecon.graft(classifier, drawer, image_shape=given)
    assert lost in str(error.value)
    assert "allow_loss=True" in str(error.value)
    grafted = robustrecon.graft(classifier, drawer, image_shape=given, allow_loss=True, logit_weight=0)
    images = torch.rand(2, *given)
    torch.testing.assert_close(grafted.class_energies(images), drawer.class_energies(converted(images, wanted)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classifier": "cnn"}, "classifier: 'cnn' cannot be imported"),
        ({"classifier": 3}, "classifier: got int, must be a torch.nn.Module that gives logits"),
        ({"drawer": 3}, "drawer: got int, must be a torch.nn.Module, or a model's name or path"),
        ({"drawer": Linear()}, "drawer: Linear has no class_energies"),
        ({"drawer": "robust/mnits"}, "did you mean 'robust/mnist'"),
        ({"classifier": Linear(4)}, "labels: the classifier has 4 classes and the drawer 3; must name"),
        ({"labels": [0, 1]}, "labels: got 2, must be 3"),
        ({"labels": [0, 1, 1]}, "labels: got the drawer's label 1 for more than one class"),
        ({"labels": [0, 1, 3]}, "labels: got 3, must be in [0, 2]"),
        ({"labels": ["cat", "dog", "cow"]}, "labels: the drawer has no class 'cow'; did you mean 'crow'?"),
        ({"classifier": Linear(classes=("cat", "dog", "x"))}, "labels: the drawer has no class 'x'"),
        ({"image_shape": (1, 7, 7)}, "image_shape: Linear does not take images of shape (1, 7, 7)"),
        ({"image_shape": (28, 28)}, "image_shape: got (28, 28), must be (channels, height, width)"),
        ({"classifier": Linear(shape=(2, 8, 8)), "image_shape": (2, 8, 8)}, "image_shape: got 2 channels, must be 1"),
        ({"x": torch.rand(2, 3, 8, 8), "image_shape": SHAPE}, "x: shape is (2, 3, 8, 8), must be (B, 1, 8, 8)"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_what_does_not_fit_is_an_error(arguments: dict[str, Any], message: str) -> None:
    given = {"classifier": Linear(), "drawer": Prototypes(classes=("cat", "dog", "crow")), **arguments}
    with pytest.raises(InputError) as error:
        robustrecon.graft(**given)
    assert message in str(error.value)


class Changed(nn.Module):
    """A classifier whose logits a function changes."""

    def __init__(self, change: Any) -> None:
        super().__init__()
        self.linear, self.change = Linear(), change

    def forward(self, x: Tensor) -> Tensor:
        return self.change(self.linear(x))


def test_logits_that_are_no_numbers_are_an_error() -> None:
    with pytest.raises(InputError, match="classifier: gave logits that are not finite on 16 of 16 images"):
        robustrecon.graft(Changed(lambda logits: logits / 0), Prototypes())
    with pytest.raises(InputError, match="gave a tuple, must give logits"):
        robustrecon.graft(Changed(lambda logits: (logits,)), Prototypes())
    with pytest.raises(InputError, match="classifier: gave 1 logit, must give one for each of 2 classes or more"):
        robustrecon.graft(Changed(lambda logits: logits[:, :1]), Prototypes())


CHANGED = {
    "probabilities": Changed(lambda logits: logits.softmax(1)),
    "random": Changed(lambda logits: logits + torch.rand_like(logits)),
    "batch": Changed(lambda logits: logits - logits.mean(0)),
}


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        ("probabilities", "gives probabilities, .*LogitsOf"),
        ("random", "other logits each time.*attack it with eot"),
        ("batch", "when other images are in its batch"),
    ],
)
def test_a_classifier_that_is_not_what_it_should_be_is_a_warning(change: str, warning: str) -> None:
    before = torch.get_rng_state()
    with pytest.warns(UserWarning, match=f"classifier: .*{warning}"):
        robustrecon.graft(CHANGED[change], Prototypes())
    assert torch.equal(torch.get_rng_state(), before)


def test_layers_in_training_mode_are_a_warning() -> None:
    """Only those that act otherwise then; the mode itself stays as it was."""
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(), nn.Flatten(), nn.Linear(72, 3))
    with pytest.warns(UserWarning, match="classifier: is in training mode, in which BatchNorm2d, Dropout give other"):
        robustrecon.graft(net, Prototypes())
    assert net[1].training
    robustrecon.graft(net.eval(), Prototypes())  # no warning


def test_a_drawer_that_knows_other_images_is_a_warning(x: Tensor) -> None:
    drawer = Prototypes()
    robustrecon.graft(drawer, drawer, x=x)  # they agree everywhere
    with pytest.warns(UserWarning, match="and drawer agree on the label of 0 of 6 images x"):
        robustrecon.graft(drawer, drawer, labels=[1, 2, 0], x=x)


def test_the_detector_of_a_graft_is_attacked_through_the_conversion(x: Tensor) -> None:
    """Both halves have a gradient, and a selective attack runs."""
    grafted = robustrecon.graft(Linear(shape=(3, 8, 8)), Prototypes(), image_shape=(3, 8, 8), allow_loss=True)
    images = torch.rand(40, 3, 8, 8)
    defended = DefendedClassifier(grafted, "label_margin").calibrate(images, alpha=0.1)
    leaf = images[:4].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(defended.score(leaf).sum(), leaf)
    assert (gradient.flatten(1).norm(dim=1) > 0).all()
    attack = attacks.load("selective", eps=0.1, steps=3)
    assert attack(defended, images[:4], grafted(images[:4]).argmax(1)).x.shape == (4, 3, 8, 8)


def test_from_a_classifier_to_a_saved_defence(digits: Dataset, tmp_path: Path) -> None:
    """The whole way with a shipped drawer and a classifier of someone else's: least squares on the pixels."""
    x, y = digits.test.x[:100], digits.test.y[:100]
    classifier = Linear(10, (1, 28, 28)).eval()
    pixels, truth = digits.train.x.flatten(1), nn.functional.one_hot(digits.train.y, 10).float()
    with torch.no_grad():  # ridge regression
        classifier.dense.weight.copy_(torch.linalg.solve(pixels.T @ pixels + 10 * torch.eye(784), pixels.T @ truth).T)
        classifier.dense.bias.zero_()
    defended = DefendedClassifier(robustrecon.graft(classifier, "robust/digits", x=digits.calibration.x[:20]))
    defended.calibrate(digits.calibration.x[:120], alpha=0.05)
    assert "label_margin" in defended.detector.name
    verdict = defended.inspect(x)
    assert torch.equal(verdict.label, classifier(x).argmax(1))
    accepted = ~verdict.rejected
    assert accepted.float().mean() > 0.85
    assert (verdict.label == y)[accepted].float().mean() > 0.95
    x_adv = attacks.load("pgd", eps=0.1, steps=5)(defended, x[:60], y[:60]).x
    attacked = defended.inspect(x_adv)
    wrong = attacked.label != y[:60]
    assert wrong.float().mean() > 0.5
    assert attacked.rejected[wrong].float().mean() > 0.9
    path = defended.save(tmp_path / "defended.safetensors")
    fresh = robustrecon.graft(Linear(10, (1, 28, 28)), "robust/digits")
    again = DefendedClassifier.load(path, model=fresh).inspect(x)
    assert torch.equal(again.score, verdict.score)
    assert torch.equal(again.rejected, verdict.rejected)
    assert isinstance(fresh, Grafted)


MODULE = """
import torch
from torch import nn
from robustrecon import Normalized

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(784, 10)

    def forward(self, x):
        return self.dense(x.flatten(1))

def net():
    return Normalized(Net(), 0.1, 0.3)
"""


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs the command line in an empty folder with a module `own_digits_net` and weights for it, `net.pt`."""
    from robustrecon.cli import main

    (tmp_path / "own_digits_net.py").write_text(MODULE)
    torch.save({"dense.weight": torch.rand(10, 784), "dense.bias": torch.rand(10)}, tmp_path / "net.pt")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_digits_net", raising=False)

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["robustrecon", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        return int(stop.value.code or 0)

    return run


GRAFT = ("graft", "--classifier", "own_digits_net:net", "--drawer", "robust/digits")


def test_a_folder_that_the_command_wrote_is_a_model(
    command: Callable[..., int], digits: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(*GRAFT, "--weights", "net.pt", "--out", "g") == 0
    weights = torch.load("net.pt", weights_only=True)
    loaded = robustrecon.load("g")
    assert isinstance(loaded, Grafted)
    assert not loaded.training
    assert torch.equal(loaded.state_dict()["classifier.model.dense.weight"], weights["dense.weight"])
    x = digits.test.x[:5]
    logits, energies = robustrecon.load("robust/digits").logits_and_energies(x)
    torch.testing.assert_close(loaded.class_energies(x), energies - logits.log_softmax(1))
    assert loaded.trained_on is not None
    again = DefendedClassifier(loaded).calibrate(digits.calibration.x[:120])
    path = again.save("defended.safetensors")
    assert torch.equal(DefendedClassifier.load(path).score(x), again.score(x))
    assert command(*GRAFT, "--out", "g") == 2
    assert command("bench", "--model", "g") == 2
    told = capsys.readouterr().err.splitlines()
    assert "out: g holds a model already" in told[0]
    assert "data: must be named for g, whose card does not say what it was trained on" in told[1]


def test_a_classifier_that_is_gone_can_be_named_anew(
    command: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command(*GRAFT, "--out", "g") == 0
    (tmp_path / "own_digits_net.py").rename(tmp_path / "moved_digits_net.py")
    monkeypatch.delitem(sys.modules, "own_digits_net")
    importlib.invalidate_caches()
    with pytest.raises(InputError, match="'own_digits_net:net' cannot be imported .* may be named"):
        robustrecon.load("g")
    assert isinstance(robustrecon.load("g", classifier="moved_digits_net:net"), Grafted)
    with pytest.raises(InputError, match="classifier: got a:b, must be left out for style-memory"):
        robustrecon.load("robust/digits", classifier="a:b")
    with pytest.raises(InputError, match="weights: are not those of Linear and its drawer"):
        robustrecon.load("g", classifier=Linear())


def test_a_graft_of_a_module_is_loaded_with_the_module(tmp_path: Path) -> None:
    """Nothing says how to make it."""
    grafted = robustrecon.graft(Linear(10, (1, 28, 28)), "robust/digits")
    x = torch.rand(60, 1, 28, 28)
    path = DefendedClassifier(grafted, "msp").calibrate(x).save(tmp_path / "own.safetensors")
    with pytest.raises(InputError, match="classifier: is one of your own, and the card does not say how to make it"):
        DefendedClassifier.load(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--classifier", "own_digits_net"], "classifier: got 'own_digits_net', must be module:factory"),
        (["--classifier", "own_digits_net:nte"], "classifier: 'own_digits_net:nte' cannot be imported"),
        (["--weights", "gone.pt"], "weights: no file gone.pt"),
        (["--weights", "own_digits_net.py"], "weights: own_digits_net.py cannot be read as weights alone"),
        (["--drawer", "style-memory/emnist-letters"], "labels: the classifier has 10 classes and the drawer 26"),
        (["--drawer", "robust/digit"], "did you mean 'robust/digits'"),
        (["--image-shape", "28"], "image_shape: got '28', must be CHANNELSxHEIGHTxWIDTH"),
        (["--image-shape", "3x28x28"], "image_shape: Normalized does not take images of shape (3, 28, 28)"),
        (["--label", "1", "--label", "2"], "labels: got 2, must be 10"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_writes_nothing(
    command: Callable[..., int], arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(*GRAFT, *arguments, "--out", "g") == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert told[0].startswith("robustrecon: error: ")
    assert message in told[0]
    assert not Path("g").exists()


def test_weights_are_read_from_either_format(tmp_path: Path) -> None:
    weights = Linear().state_dict()
    safetensors.torch.save_file(weights, tmp_path / "w.safetensors")
    torch.save({"state_dict": weights, "epoch": 3}, tmp_path / "w.pt")
    torch.save(Linear(), tmp_path / "module.pt")
    for name in ("w.safetensors", "w.pt"):
        model = Linear()
        load_weights(model, tmp_path / name)
        assert torch.equal(model.dense.weight, weights["dense.weight"])
    with pytest.raises(InputError, match="cannot be read as weights alone"):
        load_weights(Linear(), tmp_path / "module.pt")
    with pytest.raises(InputError, match="w.pt does not fit Linear .*size mismatch for dense.weight"):
        load_weights(Linear(4), tmp_path / "w.pt")


@pytest.mark.slow
def test_a_classifier_that_nobody_here_trained(data_dir: Path) -> None:
    """Undefended it is lost at 0.2; grafted, a PGD that does not know of the drawing gets nothing accepted."""
    pytest.importorskip("robustrecon.data._torchvision")  # without it the package beside a CPU-only torch is lost
    pytest.importorskip("digit_recognizer")
    from benchmarks.grafted import grafted

    digits = robustrecon.load_data("mnist-test", data_dir)
    defended = DefendedClassifier(grafted()).calibrate(digits.calibration.x[:1000], alpha=0.01)
    x, y = digits.test.x[:300], digits.test.y[:300]
    clean = defended.inspect(x)
    assert (clean.label == y).float().mean() > 0.97
    assert clean.rejected.float().mean() < 0.04
    assert defended.inspect(torch.zeros(1, 1, 28, 28)).rejected.all()
    attacked = defended.inspect(attacks.load("pgd", eps=0.2, steps=20)(defended, x[:40], y[:40]).x)
    assert (attacked.label != y[:40]).float().mean() > 0.9
    assert attacked.rejected[attacked.label != y[:40]].float().mean() > 0.9
