"""A defended classifier as a folder with a model card."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from robustrecon import DefendedClassifier, InputError, load, load_defended
from robustrecon.cli import main
from robustrecon.defence import About, RobustRisk

ABOUT = About(
    name="digits",
    license="mit",
    data="digits",
    recipe="brief",
    accuracy=0.97,
    n=300,
    robust_risks=(RobustRisk("linf", 0.3, 0.25, 100, "selective-100"),),
)


@pytest.fixture
def defended() -> DefendedClassifier:
    shipped = load_defended("robust/digits")
    shipped.about = None
    return shipped


def test_a_folder_is_what_was_saved(defended: DefendedClassifier, tmp_path: Path) -> None:
    defended.about, defended.classes = ABOUT, tuple("0123456789")
    folder = defended.save(tmp_path / "digits")
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "model.json", "model.safetensors"]
    x = torch.rand(6, 1, 28, 28)
    for again in (DefendedClassifier.load(folder), load_defended(folder)):
        assert torch.equal(again.inspect(x).score, defended.inspect(x).score)
        assert again.about == ABOUT
    assert torch.equal(load(folder)(x), defended(x))
    again.save(folder)  # over itself
    assert DefendedClassifier.load(folder).about == ABOUT


def test_the_card_is_one_that_hugging_face_reads(defended: DefendedClassifier, tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    defended.about = ABOUT
    card = hub.ModelCard.load(defended.save(tmp_path / "digits") / "README.md")
    assert (card.data.license, card.data.library_name, card.data.datasets) == ("mit", "robustrecon", ["digits"])
    values = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert values == {"accuracy": 0.97, "robust risk, linf 0.3": 0.25}
    assert "**Robust risk, linf 0.3: 25.0%** (n = 100; selective-100)" in card.text
    assert "DefendedClassifier.load(" in card.text


def test_a_card_says_what_is_not_known(defended: DefendedClassifier, tmp_path: Path) -> None:
    text = (defended.save(tmp_path / "unknown") / "README.md").read_text()
    assert "Licence: not stated" in text
    assert "Robust risk: **not measured**" in text
    assert "license:" not in text
    own = DefendedClassifier(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3)), "msp")
    own.calibrate(torch.rand(40, 1, 2, 2)).save(tmp_path / "own")
    assert "model=Sequential(...)" in (tmp_path / "own" / "README.md").read_text()


def test_shipped_models_know_where_they_come_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "robust"
    monkeypatch.setattr(sys, "argv", ["robustrecon", "calibrate", "--model", "robust/digits", "--out", str(out)])
    with pytest.raises(SystemExit) as left:
        main()
    assert not left.value.code
    about = load_defended(out).about
    assert about == About("robust/digits", "mit", "digits", "robust-refine", 0.98, 300)


def test_damaged_cards_are_one_line(defended: DefendedClassifier, tmp_path: Path) -> None:
    folder = defended.save(tmp_path / "digits")
    beside = folder / "model.json"
    whole = beside.read_text()
    for text in (whole[:100], whole.replace('"alpha": 0.05', '"alpha": 0.5'), "[]"):
        beside.write_text(text)
        with pytest.raises(InputError) as error:
            DefendedClassifier.load(folder)
        assert str(error.value).startswith(str(beside))
        assert "\n" not in str(error.value)
    for about in ("x", {"accuracy": 1, "size": 3}, {"robust_risks": [{"norm": "linf"}]}):
        with pytest.raises(InputError, match="its card gives `about` as"):
            About.from_json(about, "model.safetensors")
    for wrong in ({"risk": 25.0}, {"eps": 0.0}, {"n": 0}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            RobustRisk(**{"norm": "linf", "eps": 0.3, "risk": 0.1, "n": 10, "attacks": "pgd", **wrong})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="must end in .safetensors"):
        defended.save(tmp_path / "model.bin")
