"""Exported graphs judge as PyTorch does: through ONNX Runtime, `torch.export` and `torch.compile`."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustrecon import DefendedClassifier, InputError, export_onnx, graft, load_data, load_defended
from robustrecon.cli import main
from robustrecon.data import Dataset
from robustrecon.detectors import calibrate
from robustrecon.interop import graph
from robustrecon.interop import onnx as interop
from robustrecon.models import EGC, GenerativeConvNet, GenerativeGradientCNN, shipped

ort = pytest.importorskip("onnxruntime")


def session(file: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return ort.InferenceSession(file, options)


def assert_judges_alike(found: list[Tensor], defended: DefendedClassifier, x: Tensor) -> None:
    """Labels and rejections are equal, scores to 1e-4: of the score, or of the energies whose difference it is."""
    verdict = defended.inspect(x)
    label, score, p_value, rejected = found
    assert label.dtype == torch.int64
    assert torch.equal(label, verdict.label)
    assert torch.equal(rejected, verdict.rejected)
    scale = verdict.score.abs()
    if hasattr(defended, "class_energies"):
        with torch.no_grad():
            scale = scale.maximum(defended.class_energies(x).amax(1))
    assert ((score - verdict.score).abs() <= TOLERANCE * scale).all()
    assert (p_value - verdict.p_value).abs().max() < 0.03
    assert rejected.any()
    assert not rejected.all()


TOLERANCE = 1e-4


def run(file: Path, x: Tensor) -> list[Tensor]:
    return [torch.from_numpy(column) for column in session(file).run(None, {"images": x.numpy()})]


@pytest.fixture(scope="module")
def defended() -> DefendedClassifier:
    return load_defended("robust/digits", alpha=0.05)


def calibrated(model: nn.Module, detector: str, shape: tuple[int, int, int]) -> DefendedClassifier:
    torch.manual_seed(0)
    return DefendedClassifier(model.eval(), detector).calibrate(torch.rand(80, *shape), alpha=0.2)


def cnn() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 5, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14 * 14, 10)
    ).eval()


def test_verdicts_of_onnx_are_those_of_pytorch(defended: DefendedClassifier, digits: Dataset, tmp_path: Path) -> None:
    file = export_onnx(defended, tmp_path / "defended.onnx")
    assert_judges_alike(run(file, digits.test.x), defended, digits.test.x)
    assert_judges_alike(
        run(file, digits.train.x[:600]), defended, digits.train.x[:600]
    )  # more than are scored at a time
    (images,) = session(file).get_inputs()
    assert images.shape == ["batch", 1, 28, 28]
    said = session(file).get_modelmeta().custom_metadata_map
    assert json.loads(said["threshold"]) == defended.threshold
    assert said["opset"] == "18"
    assert json.loads(said["classes"]) == list(digits.classes)
    broken = run(file, torch.full((2, 1, 28, 28), torch.nan))
    assert broken[3].all()


@pytest.mark.slow
@pytest.mark.parametrize("model", [GenerativeConvNet(width=4), GenerativeGradientCNN(width=4)], ids=lambda m: m.name)
def test_drawings_by_input_gradients_are_exported(model: nn.Module, tmp_path: Path) -> None:
    defended = calibrated(model, "global_error", (1, 28, 28))
    x = torch.rand(50, 1, 28, 28)
    assert_judges_alike(run(export_onnx(defended, tmp_path / "m.onnx"), x), defended, x)


def test_every_part_of_a_combination_is_in_the_graph() -> None:
    defended = calibrated(
        graft(cnn(), image_shape=(3, 32, 32), allow_loss=True), "any_of(label_margin,msp)", (3, 32, 32)
    )
    x = torch.rand(50, 3, 32, 32)
    assert_judges_alike([*graph.verdict_graph(defended).module()(x)], defended, x)


@pytest.mark.slow
def test_egc_as_a_graph() -> None:
    model = EGC(width=8, image_shape=(1, 12, 12))
    for parameter in model.parameters():  # its last layer begins as zero
        nn.init.normal_(parameter, std=0.1)
    defended = calibrated(model, "global_error", (1, 12, 12))
    x = torch.rand(40, 1, 12, 12)
    assert_judges_alike([*graph.verdict_graph(defended).module()(x)], defended, x)


def test_resizing_with_anti_aliasing_is_two_matrix_products() -> None:
    x = torch.rand(2, 3, 17, 9)
    for size in ((8, 9), (20, 4), (17, 30)):
        wanted = nn.functional.interpolate(x, size, mode="bilinear", antialias=True)
        assert torch.allclose(graph._resized(x, size, False, None, None), wanted, atol=1e-6)


def test_torch_export_and_compile_of_a_defended_classifier(defended: DefendedClassifier) -> None:
    x = torch.rand(5, 1, 28, 28)
    dynamic = ({0: torch.export.Dim("batch")},)
    exported = torch.export.export(defended.eval(), (x[:3],), dynamic_shapes=dynamic).module()
    assert torch.allclose(exported(x), defended(x), atol=1e-5)
    compiled = torch.compile(defended, backend="aot_eager")
    assert torch.allclose(compiled(x), defended(x), atol=1e-5)


def test_a_calibrated_classifier_is_exported_in_training_mode_too(defended: DefendedClassifier) -> None:
    defended.train()
    exported = graph.verdict_graph(defended).module()
    assert defended.training
    x = torch.rand(4, 1, 28, 28)
    assert torch.equal(exported(x)[0], defended.inspect(x).label)


class FixedBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :10] * (1.0 if int(x.sum()) % 2 else 2.0)


def test_bad_input_is_one_line(
    defended: DefendedClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "m.onnx"
    for opset in (12, 99):
        with pytest.raises(InputError, match=f"opset: got {opset}, must be in 18 to"):
            export_onnx(defended, file, opset)
    with pytest.raises(InputError, match="must end in .onnx"):
        export_onnx(defended, tmp_path / "m.pt")
    with pytest.raises(InputError, match="model: FixedBatch with msp cannot be written as one graph"):
        graph.verdict_graph(calibrated(FixedBatch(), "msp", (1, 28, 28)))
    with pytest.raises(InputError, match="not calibrated"):
        graph.verdict_graph(DefendedClassifier(defended.model))
    found = importlib.util.find_spec
    monkeypatch.setattr(
        interop.importlib.util, "find_spec", lambda name, *rest: None if name == "onnxscript" else found(name, *rest)
    )
    monkeypatch.setattr(sys, "argv", ["robustrecon", "export", "--model", "robust/digits", "--out", str(file)])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert said == ['robustrecon: error: export: needs the package onnxscript: pip install "robustrecon[onnx]"']
    assert not file.exists()


def test_the_command_exports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "digits.onnx"
    argv = ["robustrecon", "export", "--model", "robust/digits", "--alpha", "0.1", "--opset", "20", "--json"]
    monkeypatch.setattr(sys, "argv", [*argv, "--out", str(file)])
    with pytest.raises(SystemExit) as left:
        main()
    assert not left.value.code
    said = json.loads(capsys.readouterr().out)
    meta = session(file).get_modelmeta().custom_metadata_map
    assert (meta["opset"], json.loads(meta["threshold"])) == ("20", said["threshold"])


@pytest.mark.slow
@pytest.mark.parametrize("name", shipped.names())
def test_shipped_models_judge_1000_images_alike(name: str, data_dir: Path, tmp_path: Path) -> None:
    defended = load_defended(name)
    data = "digits" if name.endswith("digits") else "emnist-letters" if "letters" in name else "mnist-test"
    dataset = load_data(data, data_dir)
    x = torch.cat([dataset.test.x, dataset.train.x])[:900] if data == "digits" else dataset.test.x[:900]
    x = torch.cat([x, torch.rand(100, 1, 28, 28, generator=torch.Generator().manual_seed(0))])
    assert_judges_alike(run(export_onnx(defended, tmp_path / "m.onnx"), x), defended, x)


def test_an_infinite_threshold_rejects_nothing_but_what_is_no_number() -> None:
    calibration = calibrate(torch.arange(9.0)[:, None], alpha=0.01)
    _, p_value, rejected = calibration.decide(torch.tensor([[1e9], [torch.nan]]))
    assert rejected.tolist() == [False, True]
    assert np.allclose(p_value[0], 0.1)
