"""Whole checkpoints load; everything else is one clear line."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch

from robustrecon import InputError, checkpoint, load, models


@pytest.fixture
def saved(model_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_dir, tmp_path / "model"))


def test_card_is_readable_and_complete(saved: Path) -> None:
    card = json.loads((saved / "model.json").read_text())
    assert card["architecture"] == {
        "name": "style-memory",
        "n_classes": 10,
        "image_shape": [1, 28, 28],
        "style_dim": 16,
        "output": "sigmoid",
        "style_encoder": "shared",
        "width": 1,
        "blocks": 0,
        "front_end": None,
        "front_end_energies": False,
    }
    for key in ("recipe", "data", "seed", "versions", "commit", "accuracy", "history", "sha256"):
        assert key in card
    assert card["accuracy"]["test"] > 0.9


def test_the_file_alone_is_enough(saved: Path) -> None:
    (saved / "model.json").unlink()
    assert load(saved / "model.safetensors").n_classes == 10


class Bomb:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.witness,))


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_pickle_is_refused_and_runs_no_code(saved: Path, tmp_path: Path, protocol: int) -> None:
    witness = tmp_path / "ran"
    (saved / "model.safetensors").write_bytes(pickle.dumps(Bomb(witness), protocol))
    with pytest.raises(InputError, match="pickle|safetensors"):
        load(saved)
    assert not witness.exists()


def test_a_torch_save_file_is_refused(saved: Path, tmp_path: Path) -> None:
    witness = tmp_path / "ran"
    torch.save({"weights": Bomb(witness)}, saved / "model.safetensors")
    with pytest.raises(InputError, match=r"is a pickle \(torch.save\), must be safetensors"):
        load(saved)
    assert not witness.exists()


@pytest.mark.parametrize("keep", [0, 5, 100, 5000, -1])
def test_a_truncated_file_is_refused(saved: Path, keep: int) -> None:
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match="is not a whole safetensors file"):
        load(saved)


def test_a_flipped_byte_is_found(saved: Path) -> None:
    path = saved / "model.safetensors"
    blob = bytearray(path.read_bytes())
    blob[-1000] ^= 1
    path.write_bytes(blob)
    with pytest.raises(InputError, match="is damaged"):
        load(saved)


def test_an_edited_embedded_card_is_found(saved: Path) -> None:
    path = saved / "model.safetensors"
    blob = path.read_bytes()
    edited = blob.replace(rb"\"seed\": 0", rb"\"seed\": 7")
    assert edited != blob
    path.write_bytes(edited)
    with pytest.raises(InputError, match="or its card was edited"):
        load(saved)


def test_a_header_whose_length_begins_like_a_pickle_is_read(tmp_path: Path) -> None:
    starts = set()
    for size in range(640):
        path = checkpoint.save(tmp_path / "m.safetensors", {"a": torch.ones(1)}, {"padding": "x" * size})
        assert checkpoint.load(path).card["padding"] == "x" * size
        starts.add(path.read_bytes()[:2])
    assert starts & {b"\x80\x02", b"\x80\x03", b"\x80\x04"}


def test_tied_weights_can_be_saved(tmp_path: Path) -> None:
    shared = torch.rand(3)
    path = checkpoint.save(tmp_path / "m.safetensors", {"a": shared, "b": shared}, {})
    assert torch.equal(checkpoint.load(path).tensors["b"], shared)


def test_a_foreign_safetensors_file_is_refused(saved: Path) -> None:
    safetensors.torch.save_file({"w": torch.ones(2)}, saved / "model.safetensors")
    with pytest.raises(InputError, match="foreign safetensors file"):
        load(saved)


def test_a_card_beside_that_does_not_match_is_refused(saved: Path) -> None:
    card = json.loads((saved / "model.json").read_text())
    card["architecture"]["style_dim"] = 8
    (saved / "model.json").write_text(json.dumps(card))
    with pytest.raises(InputError, match="does not match model.safetensors; they differ in architecture"):
        load(saved)
    (saved / "model.json").write_text("[]")
    with pytest.raises(InputError, match="is not a card, must be a JSON object"):
        load(saved)
    (saved / "model.json").write_text("{")
    with pytest.raises(InputError, match="is not a readable card"):
        load(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"style_dim": 8}, "do not match the card's architecture"),
        ({"name": "style-memroy"}, "did you mean 'style-memory'"),
        (
            {"name": "glow"},
            r"architecture: this version of robustrecon \(.*\) does not know 'glow' .*known: class-conditioned, ",
        ),
        ({"wings": 2}, "architecture: style-memory has no option 'wings'"),
        ({"blokcs": 2}, "architecture: style-memory has no option 'blokcs'; did you mean 'blocks'?"),
        ({"name": None}, "architecture: got .* must be an object with the `name` of an architecture"),
        ({"width": "wide"}, "architecture: style-memory cannot be built"),
    ],
)
def test_an_embedded_card_that_does_not_match_the_weights_is_refused(
    saved: Path, change: dict[str, object], message: str
) -> None:
    whole = checkpoint.load(saved)
    card = whole.card | {"architecture": whole.card["architecture"] | change}
    checkpoint.save(saved / "model.safetensors", whole.tensors, card)
    with pytest.raises(InputError, match=message) as error:
        load(saved)
    assert str(error.value).startswith(f"{saved}: ")
    assert "\n" not in str(error.value)


def test_options_that_a_card_lacks_have_their_defaults(saved: Path) -> None:
    whole = checkpoint.load(saved)
    checkpoint.save(saved / "model.safetensors", whole.tensors, whole.card | {"architecture": {"name": "style-memory"}})
    assert models.architecture(load(saved)) == whole.card["architecture"]


def test_a_card_without_an_architecture_is_no_model(saved: Path) -> None:
    whole = checkpoint.load(saved)
    for card in ({}, {"architecture": ["style-memory"]}):
        checkpoint.save(saved / "model.safetensors", whole.tensors, card)
        with pytest.raises(InputError, match=f"{saved}: .*architecture"):
            load(saved)


def test_a_file_of_a_newer_version_is_not_called_foreign(saved: Path) -> None:
    tensors = {"w": torch.ones(2)}
    path = saved / "model.safetensors"
    path.with_suffix(".json").unlink()
    safetensors.torch.save_file(tensors, path, metadata={"card": json.dumps({"format": "robustrecon/2"})})
    with pytest.raises(InputError) as error:
        load(saved)
    assert str(error.value) == (
        f"{path}: has the format robustrecon/2, which a newer version of robustrecon wrote; this version reads "
        "robustrecon/1"
    )
    safetensors.torch.save_file(tensors, path, metadata={"card": json.dumps({"format": "other/2"})})
    with pytest.raises(InputError, match="foreign safetensors file"):
        load(saved)


def test_a_missing_checkpoint_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such checkpoint .* or a folder that `robustrecon train` wrote"):
        load(tmp_path / "nowhere")


def test_only_safetensors_are_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must end in \.safetensors"):
        checkpoint.save(tmp_path / "model.pt", {}, {})


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        checkpoint.save(tmp_path / "file" / "m.safetensors", {"w": torch.ones(1)}, {})


def test_half_precision_weights_load_as_float32(saved: Path) -> None:
    whole = checkpoint.load(saved)
    half = {key: value.half() for key, value in whole.tensors.items()}
    checkpoint.save(saved / "half.safetensors", half, whole.card)
    assert next(load(saved / "half.safetensors").parameters()).dtype == torch.float32
