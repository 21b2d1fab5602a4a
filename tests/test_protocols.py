"""The figures of other papers' protocols by hand, forced rejection in a suite, and budgets unseen in training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from robustrecon import InputError, load_results
from robustrecon.bench import load_benchmark_model, store
from robustrecon.bench.frame import frame_of
from robustrecon.bench.images import Images
from robustrecon.bench.key import CellKey
from robustrecon.bench.metrics import measure
from robustrecon.bench.protocols import at_acceptance, caught, plain_accuracy, protocols
from robustrecon.bench.report import suite as suite_report
from robustrecon.bench.report.protocol_tables import protocol_tables
from robustrecon.bench.result import CellResult, Environment
from robustrecon.bench.suite import forced
from robustrecon.bench.suite.read import read_suite
from robustrecon.bench.suite.run import run_suite
from robustrecon.bench.suite.unseen import unmarked
from robustrecon.bench.worst_case import worst_case

ROOT = Path(__file__).resolve().parents[1]
N = 101  # the last image is wrong when clean


def cell(label: Sequence[int], score: Sequence[float], threshold: float = 200.0, **changes: Any) -> CellResult:
    """Clean scores 1 to 100 of the images classified correctly, 0.5 of the one that is not; n attacked images."""
    n = len(label)
    clean = [*(float(index) for index in range(1, N)), 0.5]
    images = Images([0] * n, ([0] * (N - 1) + [1])[:n], clean[:n], label, score)
    values = {"data": "d", "model": "m", "weights": "w", "detector": "s", "attack": "a", "engine": None, "norm": "linf"}
    values |= {"eps": 0.2, "steps": None, "seed": 0, "n": n, "alpha": 0.05} | changes
    knows = values.pop("knows_detector", False)
    key = CellKey(**values)
    return CellResult(key, measure(images, threshold), knows, (), Environment({}, None, "cpu", 1), 1.0, 1.0, images)


def attacked(wrong: dict[int, float], n: int = N) -> tuple[list[int], list[float]]:
    """Labels and scores: the images of `wrong` get the label 1 and this score, the others are as they were."""
    label = [int(index in wrong or index == N - 1) for index in range(n)]
    return label, [wrong.get(index, 0.5 if index == N - 1 else index + 1.0) for index in range(n)]


def test_the_threshold_accepts_a_share_of_what_is_right() -> None:
    one = cell(*attacked({0: 10.0, 1: 96.0, 2: 300.0}))
    at95, at99 = at_acceptance([one], 95), at_acceptance([one], 99)
    assert at95 is not None
    assert at99 is not None
    assert (at95.threshold, at99.threshold) == (95.0, 99.0)
    # Rejected when clean: 5, or 1; wrong when clean: 1; undetected: image 0, with the laxer threshold image 1 too.
    assert at95.robust_risk.value == (5 + 1 + 1) / 101
    assert at99.robust_risk.value == (1 + 1 + 2) / 101
    # Accepted when clean: 95 and the one that is wrong.
    assert at95.robust_accuracy.value == (96 - 2) / 96
    assert at99.robust_accuracy.value == (100 - 3) / 100
    assert not at95.stricter  # the attack does not know the detector


def test_the_worst_case_at_a_true_acceptance_is_over_all_attacks() -> None:
    whole, part = cell(*attacked({0: 10.0})), cell(*attacked({1: 20.0}, n=50), knows_detector=True)
    at = at_acceptance([part, whole], 99)
    assert at is not None
    assert at.robust_risk.value == (1 + 1 + 2) / 101
    assert at.stricter  # it worked towards the threshold 200
    lax = at_acceptance([replace(part, metrics=measure(part.images, 10.0)), whole], 99)
    assert lax is not None
    assert not lax.stricter


def test_an_image_that_is_rejected_when_clean_and_accepted_wrong_counts_as_accepted() -> None:
    found = at_acceptance([cell(*attacked({99: 1.0}))], 99)
    assert found is not None
    assert found.robust_accuracy.value == (101 - 2) / 101


def test_without_an_image_that_is_right_there_is_no_threshold() -> None:
    images = Images([0, 0], [1, 1], [0.0, 1.0], [1, 1], [0.0, 1.0])
    wrong = replace(cell(*attacked({})), images=images, metrics=measure(images, 1.0))
    assert at_acceptance([wrong], 95) is None
    assert frame_of([wrong])["robust_risk_ta_95"].isna().all()
    (entry,) = protocols([wrong])
    assert entry.caught.value is None
    tables = protocol_tables([entry])
    assert tables[0].rows[1][-4:] == ["–"] * 4
    assert tables[2].rows[1][-1] == "–"


def test_an_image_is_caught_only_under_all_attacks() -> None:
    cells = [cell(*attacked({0: 300.0, 1: 300.0, 2: 10.0})), cell(*attacked({0: 300.0, 1: 10.0}, n=50))]
    assert caught(cells[:1]).value == 2 / 3
    assert caught(cells).value == 1 / 3  # image 0
    assert caught(cells).n == 3


def test_the_classifier_alone_at_eps_and_at_half_of_it() -> None:
    cells = [
        cell(*attacked({0: 300.0, 1: 10.0})),
        cell(*attacked({2: 10.0}), detector="other"),  # another detector's attack is one on the classifier too
        cell(*attacked({3: 300.0}), eps=0.1),
        cell(*attacked({4: 10.0}), eps=0.05),
        cell(*attacked({5: 10.0}), norm="l2"),
    ]
    found = {(each.worst.detector, each.worst.norm, each.worst.eps): each for each in protocols(cells)}
    large = found["s", "linf", 0.2]
    assert large.plain is not None
    assert large.plain_half is not None
    assert large.plain.value == (101 - 1 - 5) / 101
    assert large.plain_half.value == (101 - 1 - 2) / 101
    assert found["s", "l2", 0.2].plain_half is None
    assert found["other", "linf", 0.2].plain_half is not None
    assert plain_accuracy(cells, 0.15) is None
    _, beside, _ = protocol_tables([large])
    assert beside.rows[1][5].startswith("97.0 % [")  # all but images 1 and 4 and the one that is wrong
    assert beside.rows[1][6].startswith("94.1 % [")


def test_every_stored_result_has_the_figures() -> None:
    frame = load_results(ROOT / "results" / "digits")
    assert len(frame) > 10
    for column in ("robust_risk_ta_95", "robust_risk_ta_99", "robust_accuracy_ta_95", "robust_accuracy_ta_99"):
        assert frame[column].between(0, 1).all()
    assert (frame.robust_risk_ta_95 >= 0.04).all()  # at least what is rejected when clean


SUITE = """
data = "digits"
n = 12
precision = "float32"
forced_rejection = 3
[[model]]
name = "{model}"
detectors = ["label_margin"]
[[attack]]
name = "pgd"
eps = [0.1, 0.2]
parameters = {{ steps = 2 }}
[[attack]]
name = "pgd"
eps = 0.3
unseen = true
parameters = {{ steps = 2 }}
"""


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few steps."""
    from robustrecon import attacks

    monkeypatch.setattr(forced.ForcedJob, "force", property(lambda job: attacks.ForceReject(norm=job.norm, steps=2)))
    wrong = property(lambda job: attacks.SelectivePGD(norm=job.norm, steps=2, early_exit=True))
    monkeypatch.setattr(forced.ForcedJob, "wrong_label", wrong)


def suite_of(model_dir: Path, folder: Path) -> Path:
    path = folder / "suite.toml"
    path.write_text(SUITE.format(model=model_dir))
    return path


@pytest.mark.usefixtures("brief")
def test_a_suite_forces_rejections_once_and_reports_all(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = read_suite(suite_of(model_dir, tmp_path))
    out = tmp_path / "out"
    run = run_suite(suite, out, progress=False)
    assert run.complete
    assert [(each.detector, each.eps, len(each.curve or ())) for each in run.forced] == [
        ("label_margin", eps, 3) for eps in (0.1, 0.2, 0.3)
    ]
    suite_report.write(run, out)
    text = (out / "report.md").read_text()
    for said in (
        "## Worst case, linf 0.3 (unseen)",
        "## Threshold at a true acceptance",
        "## The detector beside the classifier alone",
        "## Caught under all attacks",
        "## Forced rejection",
        "![forced](forced.png)",
        "linf 0.3 (unseen) |",
        "0.3 (unseen) | pgd-2",
    ):
        assert said in text
    assert "0.2 (unseen)" not in text
    assert "Forced rejection" in (out / "report.html").read_text()
    worst = json.loads((out / "report.json").read_text())["worst_case"]
    assert [entry.get("unseen", False) for entry in worst] == [False, False, True]
    assert len(store.read_folder(out).results) == 3  # a curve is no cell

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("ran again")

    monkeypatch.setattr(forced, "forced_rejection", fail)
    again = run_suite(suite, out, progress=False)
    assert again.forced == run.forced
    path = next(out.rglob("forced-rejection-linf-0.1-n3.json"))
    path.write_text(path.read_text().replace('"alpha": 0.05', '"alpha": 0.01'))
    lost = run_suite(suite, out, progress=False)
    assert [each.error for each in lost.forced] == ["AssertionError: ran again", "", ""]
    assert not lost.complete
    suite_report.write(lost, out)
    assert "Curves of forced rejection that FAILED" in (out / "report.md").read_text()


def test_a_suite_that_asks_for_none_forces_none(model_dir: Path, tmp_path: Path) -> None:
    path = suite_of(model_dir, tmp_path)
    path.write_text(path.read_text().replace("forced_rejection = 3", "").replace("n = 12", "n = 3"))
    run = run_suite(read_suite(path), tmp_path / "out", progress=False)
    assert run.forced == ()
    suite_report.write(run, tmp_path / "out")
    assert "Forced rejection" not in (tmp_path / "out" / "report.md").read_text()


def test_forced_rejection_is_a_number_of_images(model_dir: Path, tmp_path: Path) -> None:
    path = suite_of(model_dir, tmp_path)
    path.write_text(path.read_text().replace("forced_rejection = 3", "forced_rejection = -1"))
    with pytest.raises(InputError, match="forced_rejection: got -1, must be at least 0"):
        read_suite(path)


def test_what_the_card_says_of_the_training_decides_what_should_be_marked(tmp_path: Path) -> None:
    robust = load_benchmark_model("robust/digits", progress=False)
    assert robust.trained_eps == 0.31
    path = tmp_path / "suite.toml"
    tables = '[[attack]]\nname = "pgd"\neps = [0.3, 0.4]\n{}[[attack]]\nname = "pgd"\nnorm = "l2"\neps = 1.0\n{}'
    head = 'data = "digits"\n[[model]]\nname = "robust/digits"\n'
    path.write_text(head + tables.format("", ""))
    (plain,) = read_suite(path).models
    said = unmarked(plain, robust)
    assert said is not None
    assert said.startswith("robust/digits was trained against linf 0.31, not linf 0.4, l2 1: set unseen = true")
    assert unmarked(plain, replace(robust, trained_eps=None)) is None
    path.write_text(head + tables.format("unseen = true\n", "unseen = true\n"))
    (marked,) = read_suite(path).models
    assert marked.unseen == {("linf", 0.3), ("linf", 0.4), ("l2", 1.0)}
    assert unmarked(marked, robust) is None


def test_an_unseen_budget_stays_so_in_json() -> None:
    (entry,) = worst_case([cell(*attacked({}))])
    assert "unseen" not in entry.to_json()
    marked = replace(entry, unseen=True)
    assert type(marked).from_json(json.loads(json.dumps(marked.to_json()))) == marked
    assert marked.budget == "linf 0.2 (unseen)"


def test_a_model_of_ones_own_says_nothing_of_its_training() -> None:
    from robustrecon.bench.model import _training_radius

    assert _training_radius(None) is None
    assert _training_radius({"name": "fast", "objective": "paper", "eps": 0.0}) is None
