"""Shipped models are found by name, checked, listed, and as accurate as their cards say."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from benchmarks.ship import MOST_BYTES, main, ship
from robustrecon import DefendedClassifier, InputError, StyleMemoryNet, checkpoint, cli, load, models, train
from robustrecon.bench.model import load_benchmark_model
from robustrecon.data import Dataset
from robustrecon.models import shipped, stored_scores
from robustrecon.training import RECIPES
from robustrecon.training.loop import accuracy

ROOT = Path(__file__).resolve().parents[1]


SHIPPED = shipped.names()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in place of the package's own, and an empty current one."""
    (tmp_path / "shipped").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "shipped")
    return tmp_path / "shipped"


@pytest.fixture
def file(model_dir: Path, folder: Path) -> Path:
    return ship(model_dir, "brief/digits")


def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str, str]:
    """Exit code, output and errors of the command line, run in this process."""
    monkeypatch.setattr(sys, "argv", ["robustrecon", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    printed = capsys.readouterr()
    return int(stop.value.code or 0), printed.out, printed.err


def test_half_precision_file_loads_as_the_model_it_was_made_of(
    file: Path, folder: Path, model: StyleMemoryNet, digits: Dataset
) -> None:
    assert file == folder / "brief/digits.safetensors"
    assert file.stat().st_size < MOST_BYTES
    assert {tensor.dtype for tensor in models.model_weights(checkpoint.load(file).tensors).values()} == {torch.float16}
    loaded = load("brief/digits")
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight.half().float()), name
    x = digits.test.head(50).x
    torch.testing.assert_close(loaded.class_energies(x), model.class_energies(x), rtol=0.02, atol=0.02)


def test_card_has_the_accuracy_of_the_half_precision_weights(file: Path, digits: Dataset, model_dir: Path) -> None:
    card, before = checkpoint.load(file).card, checkpoint.load(model_dir).card
    assert card["accuracy"] == {"test": accuracy(load(file), digits.test), "n": len(digits.test)}
    assert card["history"] == before["history"][-1:]
    for key in ("architecture", "recipe", "data", "seed", "versions", "commit", "finished"):
        assert card[key] == before[key]


def test_accuracy_is_measured_anew(model_dir: Path, folder: Path, tmp_path: Path, digits: Dataset) -> None:
    whole = checkpoint.load(model_dir)
    checkpoint.save(tmp_path / "run" / checkpoint.MODEL_FILE, whole.tensors, whole.card | {"accuracy": {"test": 1.0}})
    card = checkpoint.load(ship(tmp_path / "run", "brief/digits")).card
    assert card["accuracy"]["n"] == len(digits.test)
    assert 0.9 < card["accuracy"]["test"] < 1.0


def test_a_path_that_exists_wins(file: Path, tmp_path: Path) -> None:
    run = Path("brief/digits")
    torch.manual_seed(1)
    other = StyleMemoryNet()
    tensors = {f"model.{key}": value for key, value in other.state_dict().items()}
    checkpoint.save(run / checkpoint.MODEL_FILE, tensors, checkpoint.load(file).card)
    assert torch.equal(load("brief/digits").state_dict()["head.weight"], other.head.weight)
    shutil.rmtree(run)
    assert not torch.equal(load("brief/digits").state_dict()["head.weight"], other.head.weight)


def test_unknown_names_are_errors_with_the_nearest_name(file: Path) -> None:
    with pytest.raises(InputError) as error:
        load("breif/digits")
    assert str(error.value) == (
        "breif/digits: no such checkpoint; did you mean 'brief/digits'? (shipped: brief/digits); must be the name of a "
        "shipped model, or a folder that `robustrecon train` wrote"
    )
    with pytest.raises(InputError, match=r"nowhere: no such checkpoint \(shipped: brief/digits\)"):
        load("nowhere")
    with pytest.raises(InputError, match="is a model without a calibrated detector"):
        DefendedClassifier.load("brief/digits")


def test_damage_is_found_wherever_it_is(file: Path) -> None:
    """One flipped bit in the header, the card or the tensors: an error, or the same model (in the tensors' order)."""
    whole = file.read_bytes()
    right = load(file).state_dict()
    file.with_suffix(".json").unlink()
    header = 8 + int.from_bytes(whole[:8], "little")
    places = [*range(0, header, 37), *range(header, len(whole), 400_000), len(whole) - 1]
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 2
        file.write_bytes(damaged)
        try:
            found = load("brief/digits").state_dict()
        except InputError:
            continue
        assert place < header, f"byte {place} of the tensors was changed and nobody noticed"
        assert all(torch.equal(weight, right[name]) for name, weight in found.items()), f"byte {place} of the header"


def test_damage_is_one_line(file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    blob = bytearray(file.read_bytes())
    blob[-1000] ^= 1
    file.write_bytes(blob)
    for arguments in (["bench", "--model", "brief/digits"], ["detect", "--model", "brief/digits", "x"], ["models"]):
        code, out, errors = command(monkeypatch, capsys, *arguments)
        assert (code, out) == (2, "")
        assert errors.startswith(f"robustrecon: error: {file}: is damaged")


def test_the_listing_has_what_the_card_says(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    card = checkpoint.load(file).card
    code, out, _ = command(monkeypatch, capsys, "models")
    assert code == 0
    assert out == (
        f"brief/digits  data digits, recipe brief, test accuracy {card['accuracy']['test']:.2%} (n = 300), "
        "style-memory style_dim=16 output=sigmoid style_encoder=shared width=1 blocks=0 front_end=None "
        "front_end_energies=False, 1,785,883 parameters, 3.6 MB, "
        f"sha256 {card['sha256'][:12]}\n"
    )
    (row,) = json.loads(command(monkeypatch, capsys, "models", "--json")[1])
    assert row["name"] == "brief/digits"
    assert row["sha256"] == card["sha256"]
    assert row["bytes"] == file.stat().st_size
    assert row["architecture"] == "style-memory"
    assert row["options"]["style_dim"] == 16


def test_models_of_any_architecture_and_with_any_card_are_listed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = {"model.weight": torch.ones(3)}
    other = {"name": "ebm", "n_classes": 10, "image_shape": [1, 28, 28], "steps": 1000}
    checkpoint.save(shipped.file_of("ebm/digits"), weights, {"architecture": other, "accuracy": {"test": 0.5}})
    checkpoint.save(shipped.file_of("empty/digits"), weights, {})
    code, out, errors = command(monkeypatch, capsys, "models")
    assert code == 0, errors
    first, second = out.splitlines()
    assert first.startswith("ebm/digits    test accuracy 50.00%, ebm steps=1000, 3 parameters, 0.0 MB, sha256 ")
    assert second.startswith("empty/digits  unknown architecture, 3 parameters, 0.0 MB, sha256 ")
    rows = json.loads(command(monkeypatch, capsys, "models", "--json")[1])
    assert [row["architecture"] for row in rows] == ["ebm", None]
    assert [row["test_accuracy"] for row in rows] == [0.5, None]


def test_no_shipped_model_is_an_empty_list(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, capsys, "models", "--json")[:2] == (0, "[]\n")
    assert command(monkeypatch, capsys, "models")[:2] == (0, "\n")


def test_the_commands_take_a_name(
    file: Path, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--attack", "fgsm", "--eps", "0.1", "--n", "20", "--json", "--out", str(tmp_path / "results")]
    code, out, errors = command(monkeypatch, capsys, "bench", "--model", "brief/digits", *arguments)
    assert code == 0, errors
    assert {cell["spec"]["model"] for cell in json.loads(out)["cells"]} == {"style-memory-brief"}
    assert (tmp_path / "results" / "digits" / "style-memory-brief").is_dir()
    Image.fromarray(digits.test.images[0, 0].numpy()).save("0.png")
    code, out, errors = command(monkeypatch, capsys, "detect", "--model", "brief/digits", "--json", "0.png")
    assert json.loads(out)[0]["label"] == digits.test.y[0], errors


@pytest.mark.parametrize("name", ["brief", "brief/mnist", "/digits", "two words/digits", "a/b/digits"])
def test_names_that_are_refused(model_dir: Path, folder: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"name: got .*, must be FAMILY/digits"):
        ship(model_dir, name)
    assert not list(folder.iterdir())


def test_runs_that_are_refused(
    model_dir: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = checkpoint.load(model_dir)
    checkpoint.save(tmp_path / "half" / checkpoint.MODEL_FILE, whole.tensors, whole.card | {"finished": False})
    with pytest.raises(InputError, match="is unfinished, at epoch 14"):
        ship(tmp_path / "half", "brief/digits")
    padded = whole.tensors | {"padding": torch.zeros(500_000)}
    checkpoint.save(tmp_path / "large" / checkpoint.MODEL_FILE, padded, whole.card)
    monkeypatch.setattr(sys, "argv", ["ship", str(tmp_path / "large"), "brief/digits"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert "bytes, must be at most 4,000,000" in capsys.readouterr().err
    assert not list(folder.iterdir())


def test_the_wheel_holds_the_files(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", "77")
    for part in ("attacks", "robustrecon"):
        shutil.copytree(ROOT / part, tmp_path / part)
    for part in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / part, tmp_path)
    (tmp_path / "robustrecon/models/shipped/brief").mkdir()
    (tmp_path / "robustrecon/models/shipped/brief/digits.safetensors").write_bytes(b"weights")
    code = f"from setuptools import build_meta; build_meta.build_wheel({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as held:
        for name in ("brief/digits", *SHIPPED):
            assert f"robustrecon/models/shipped/{name}.safetensors" in held.namelist()
        for name in SHIPPED:
            assert f"robustrecon/models/shipped/{name}.calibration.safetensors" in held.namelist()


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_model_is_whole_and_small(name: str) -> None:
    model, path = load(name), shipped.file_of(name)
    assert path.stat().st_size <= MOST_BYTES
    assert {tensor.dtype for tensor in checkpoint.load(path).tensors.values()} <= {torch.float16, torch.int64}
    assert torch.isfinite(model.class_energies(torch.rand(2, *model.image_shape))).all()
    assert name.endswith(f"/{checkpoint.load(path).card['data']['name']}")


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_model_is_as_accurate_as_it_says(
    name: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # data that is not there is not downloaded
    try:
        target = load_benchmark_model(name, data_dir=data_dir, device="cpu")
    except InputError as error:
        if "could not be downloaded" not in str(error):
            raise
        pytest.skip(str(error))
    said = checkpoint.load(shipped.file_of(name)).card["accuracy"]
    assert said["n"] == len(target.data.test)
    assert accuracy(target.model, target.data.test) == pytest.approx(said["test"], abs=2 / said["n"])


def test_a_model_is_shipped_with_the_scores_of_its_half_precision_weights(
    model_dir: Path, digits: Dataset, folder: Path, scores_are_stored: None
) -> None:
    file = ship(model_dir, "brief/digits")
    assert shipped.names() == ["brief/digits"]
    scores = stored_scores.read(folder / "brief/digits.calibration.safetensors", load(file), digits.fingerprint)
    assert scores


def test_train_ship_and_load(digits: Dataset, folder: Path, tmp_path: Path) -> None:
    options = {"style_dim": 4, "style_encoder": "separate"}
    tiny = replace(RECIPES["fast"], name="tiny", epochs=1, least_steps=0, schedule="constant", model_options=options)
    train(digits, tmp_path / "run", tiny, progress=False)
    assert "optimizer.0.exp_avg" in checkpoint.load(tmp_path / "run").tensors  # it may be given more epochs
    ship(tmp_path / "run", "tiny/digits")
    assert {name.split(".")[0] for name in checkpoint.load(shipped.file_of("tiny/digits")).tensors} == {"model"}
    loaded = load("tiny/digits")
    assert isinstance(loaded, StyleMemoryNet)
    assert loaded.config["style_encoder"] == "separate"
    assert load_benchmark_model("tiny/digits").name == "style-memory-tiny"
