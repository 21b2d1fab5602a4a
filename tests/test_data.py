"""Data sets have disjoint parts, upright images and labels from 0; missing data is a clear error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from robustrecon import InputError, load_data
from robustrecon.data import Dataset, read_images
from robustrecon.data.folder import image_files


def rows(images: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


def assert_parts(data: Dataset) -> None:
    for part in (data.train, data.calibration, data.test):
        assert part.images.dtype == torch.uint8
        assert part.images.shape[1:] == data.image_shape
        assert part.y.dtype == torch.int64
        assert len(part.y) == len(part.images) == len(part)
        assert part.y.min() >= 0
        assert part.y.max() < data.n_classes
    x = data.calibration.x
    assert x.dtype == torch.float32
    assert x.min() >= 0
    assert x.max() <= 1


def test_digits_are_the_real_ones_in_disjoint_parts(digits: Dataset) -> None:
    assert_parts(digits)
    assert digits.image_shape == (1, 28, 28)
    assert digits.n_classes == 10
    parts = [rows(part.images) for part in (digits.train, digits.calibration, digits.test)]
    assert sum(map(len, parts)) == 1797
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    assert not parts[1] & parts[2]


def test_split_is_the_same_every_time_and_leaves_the_random_state(digits: Dataset) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    again = load_data("digits")
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(again.train.images, digits.train.images)
    assert torch.equal(again.test.y, digits.test.y)


def test_mnist_has_its_parts_and_its_test_set_in_the_original_order(data_dir: Path) -> None:
    data = load_data("mnist", data_dir)
    assert_parts(data)
    assert (len(data.train), len(data.calibration), len(data.test)) == (55000, 5000, 10000)
    assert data.test.y[:5].tolist() == [7, 2, 1, 0, 4], "the test set is not in its original order"


def test_emnist_letters_stand_upright_and_start_at_0(data_dir: Path) -> None:
    data = load_data("emnist-letters", data_dir)
    assert_parts(data)
    assert data.classes[0] == "a"
    assert data.n_classes == 26
    assert sorted(data.test.y.unique().tolist()) == list(range(26))
    mean = data.test.x[data.test.y == data.classes.index("t")].mean(0)[0]
    top, left = mean[5:9].mean(), mean[:, 5:9].mean()
    assert top > 1.5 * left, "a T's bar is on top; transposed, it is on the left"


def test_fashion_mnist_has_the_layout_of_mnist(data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "FashionMNIST").mkdir()
    (tmp_path / "FashionMNIST" / "raw").symlink_to(data_dir / "MNIST" / "raw")  # MNIST's files in place of its own
    data = load_data("fashion-mnist", tmp_path)
    assert_parts(data)
    assert data.classes[0] == "T-shirt/top"


def test_cifar10_channels_come_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What torchvision gives for CIFAR-10: an array (N, 32, 32, 3) and a list of labels."""
    from robustrecon.data._torchvision import datasets

    class Fake:
        classes = tuple("abcdefghij")

        def __init__(self, root: Path, train: bool, download: bool) -> None:
            self.targets = list(range(10)) * 6
            self.data = np.zeros((60, 32, 32, 3), np.uint8)
            self.data[..., 2] = 255  # blue

    monkeypatch.setattr(datasets, "CIFAR10", Fake)
    data = load_data("cifar10", tmp_path)
    assert_parts(data)
    assert data.image_shape == (3, 32, 32)
    assert data.test.x[:, 2].min() == 1
    assert data.test.x[:, :2].max() == 0


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("cat", "dog", "emu"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(8):
            pixels = rng.integers(0, 256, (20, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{index}.png")
    return tmp_path / "photos"


def test_a_folder_for_each_class_is_a_data_set(photos: Path) -> None:
    data = load_data(f"folder:{photos}")
    assert_parts(data)
    assert data.classes == ("cat", "dog", "emu")
    assert data.image_shape == (3, 20, 16)
    assert len(data.train) + len(data.calibration) + len(data.test) == 24


def test_a_folder_with_train_and_test_keeps_its_test_set(photos: Path, tmp_path: Path) -> None:
    both = tmp_path / "both"
    both.mkdir()
    (both / "test").symlink_to(photos)
    (both / "train").symlink_to(photos)
    data = load_data(f"folder:{both}")
    assert (len(data.train), len(data.calibration), len(data.test)) == (22, 2, 24)


def test_the_head_of_a_folder_test_part_holds_every_class(photos: Path, tmp_path: Path) -> None:
    both = tmp_path / "both"
    both.mkdir()
    (both / "test").symlink_to(photos)
    (both / "train").symlink_to(photos)
    assert set(load_data(f"folder:{both}").test.head(12).y.tolist()) == {0, 1, 2}


def test_a_changed_data_set_has_another_fingerprint(photos: Path) -> None:
    before = load_data(f"folder:{photos}").fingerprint
    assert load_data(f"folder:{photos}").fingerprint == before
    Image.new("RGB", (16, 20)).save(photos / "cat" / "9.png")
    assert load_data(f"folder:{photos}").fingerprint != before


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    deep = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    found = read_images([tmp_path / "deep.png"], (1, 8, 8))[0, 0].numpy()
    np.testing.assert_allclose(found, deep / 65535, atol=0.003)


def test_transparent_pixels_are_black(tmp_path: Path) -> None:
    Image.new("RGBA", (8, 8), (255, 255, 255, 0)).save(tmp_path / "clear.png")
    assert read_images([tmp_path / "clear.png"], (1, 8, 8)).max() == 0


def test_grey_images_have_one_channel_and_others_are_resized(photos: Path) -> None:
    Image.new("L", (9, 7), 128).save(photos / "cat" / "0.png")  # the first image decides
    data = load_data(f"folder:{photos}")
    assert data.image_shape == (1, 7, 9)


def test_pixels_survive_exactly(photos: Path) -> None:
    path = photos / "cat" / "0.png"
    expected = np.asarray(Image.open(path)).transpose(2, 0, 1) / np.float32(255)
    np.testing.assert_array_equal(read_images([path], (3, 20, 16))[0].numpy(), expected)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnits", "data: unknown name 'mnits'; did you mean 'mnist'?"),
        ("folder:/nowhere/at/all", "data: no folder /nowhere/at/all"),
    ],
)
def test_unknown_data_is_an_error_with_the_nearest_name(name: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        load_data(name)
    assert message in str(error.value)


def test_bad_folders_and_damaged_images_are_named(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has 0 class folders, must have at least 2"):
        load_data(f"folder:{photos / 'cat'}")
    (photos / "fox").mkdir()
    with pytest.raises(InputError, match="no images in .*fox"):
        load_data(f"folder:{photos}")
    (photos / "fox" / "0.png").write_text("not a picture")
    with pytest.raises(InputError, match=r"fox/0\.png: is not an image"):
        load_data(f"folder:{photos}")
    whole = (photos / "dog" / "0.png").read_bytes()
    (photos / "fox" / "0.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"fox/0\.png: is a damaged image"):
        load_data(f"folder:{photos}")


def test_a_failed_download_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import urllib.request

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with pytest.raises(InputError) as error:
        load_data("mnist", tmp_path)
    message = str(error.value)
    assert message.startswith(f"data_dir: mnist is not in {tmp_path} and could not be downloaded")
    assert f"put torchvision's files in {tmp_path}/MNIST/raw" in message
    assert "\n" not in message
    assert not list(tmp_path.iterdir()), "a failed download left folders"


def test_torchvision_opens_in_a_fresh_interpreter() -> None:
    """With a CPU-only torch, torchvision from the package registry cannot be imported directly."""
    code = """
import robustrecon
from robustrecon.data._torchvision import datasets, transforms
data = datasets.FakeData(size=3, image_size=(1, 8, 8), transform=transforms.ToTensor())
print(data[0][0].shape[0], len(robustrecon.load_data("digits").test))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["1", "300"], done.stderr


def test_image_files_of_folders_are_found_at_any_depth_and_sorted(photos: Path) -> None:
    (photos / "cat" / "notes.txt").write_text("no image")
    (photos / "empty.png").mkdir()
    single = photos / "nowhere.png"
    found = image_files([single, photos, photos / "emu"])
    assert found[0] == single
    assert found[1:25] == sorted(photos.glob("*/*.png"))
    assert [path.name for path in found[25:]] == [f"{index}.png" for index in range(8)]
    with pytest.raises(InputError, match="empty.png: a folder without images"):
        image_files([photos / "empty.png"])
