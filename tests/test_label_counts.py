"""The comparison by the number of labelled images: its choices, its table, and that nothing is run twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import label_counts
from benchmarks.label_counts import CHOOSING, Cost, Run
from robustrecon.data import Dataset

COST = Cost(1.05, 1.0)


def runs() -> list[Run]:
    """Three seeds of 100 labels, of which the generative one has half a point less, and one that lacks its pair."""
    found = [
        Run(100, method, CHOOSING, steps, error, None, 1.0)
        for steps, error in ((200, 0.3), (400, 0.2))
        for method in label_counts.SHARES
    ]
    for seed, error in enumerate((0.10, 0.11, 0.13)):
        found.append(Run(100, "discriminative", seed, 400, 0.1, error, 1.0))
        found.append(Run(100, "generative", seed, 400, 0.1, error - 0.005 + 0.001 * seed, 1.0))
    return [*found, Run(100, "generative", 3, 400, 0.1, 0.9, 1.0)]


def test_the_steps_are_those_of_the_least_calibration_error() -> None:
    assert label_counts.chosen_steps(runs(), 100) == 400


def test_the_table_is_of_the_pairs() -> None:
    (row,) = [line for line in label_counts.table(COST, runs()).splitlines() if line.startswith("| 100 ")]
    assert [cell.strip() for cell in row.split("|")[2:6]] == ["400", "3", "11.33 ± 1.53", "10.93 ± 1.63"]
    assert "-0.40 [-0.65, -0.15]" in row
    assert "1.050 times the processor" in label_counts.table(COST, runs()).replace("\n", " ")


def test_labelled_images_are_of_every_class_and_of_the_seed(digits: Dataset) -> None:
    some, same, other = (label_counts.labelled(digits.train, 50, seed) for seed in (0, 0, 1))
    assert some.y.bincount().tolist() == [5] * 10
    assert some.images.equal(same.images)
    assert not some.images.equal(other.images)
    assert len(label_counts.labelled(digits.train, len(digits.train), 0)) == len(digits.train)


def test_a_finished_run_is_kept_and_not_repeated(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, found = tmp_path / "runs.json", runs()[:-2]
    made: list[tuple[str, int]] = []

    def trained(data: Dataset, labels: int, method: str, seed: int, steps: int) -> Run:
        made.append((method, seed))
        return Run(labels, method, seed, steps, 0.1, 0.1, 1.0)

    monkeypatch.setattr(label_counts, "trained", trained)
    label_counts.complete([(seed, 400) for seed in range(3)], 100, digits, COST, found, file)
    assert made == [("generative", 2)]
    assert label_counts.read(file) == (COST, found)
    assert file.with_name("label-counts.md").exists()
