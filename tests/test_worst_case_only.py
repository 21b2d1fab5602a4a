"""The worst case alone: what a suite finds, with nothing attacked twice, and the same bits however it is run."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from robustrecon import InputError, attacks
from robustrecon.attacks import Attack, Goal, NearestPoints, attack_remaining, probes
from robustrecon.bench.chain import result, run, shard
from robustrecon.bench.chain.result import ChainResult
from robustrecon.bench.chain.run import ChainRun, asked_suite, run_worst_cases
from robustrecon.bench.report import chain as report
from robustrecon.bench.suite.read import Suite, read_suite
from robustrecon.bench.suite.run import run_suite
from robustrecon.bench.worst_case import worst_case

IMAGE = (1, 8, 8)


class Linear(nn.Module):
    """Logits (B, 3) and a score, the mean brightness."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 64, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T

    def score(self, x: Tensor) -> Tensor:
        return x.flatten(1).mean(1)


class Recorded(Attack):
    """An attack of a user's own, that knows nothing of starts: one random step. Keeps what it was called with."""

    name = "recorded"
    needs_gradient = False
    calls: ClassVar[list[tuple[float, Tensor]]] = []

    def perturb(self, victim: nn.Module, x: Tensor, y: Tensor, goal: Goal) -> Tensor:
        self.calls.append((self.eps, x.clone()))
        return x + self.eps * torch.randn_like(x).sign()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[float, Tensor]]]:
    monkeypatch.setattr(Recorded, "calls", [])
    return Recorded.calls


@pytest.fixture
def problem() -> tuple[Linear, Tensor, Tensor]:
    model = Linear()
    x = torch.rand(12, *IMAGE, generator=torch.Generator().manual_seed(1)) * 0.4 + 0.3
    return model, x, model(x).argmax(1)


SUITE = """
data = "digits"
n = 12
precision = "float32"
[[model]]
name = "{model}"
detectors = ["label_margin"]
[[attack]]
name = "selective"
eps = [0.05, 0.1]
parameters = {{ steps = 3 }}
[[attack]]
name = "fgsm"
eps = [0.1, 0.05]
engine = "own"
[[attack]]
name = "hybrid"
eps = 0.1
n = 4
parameters = {{ steps = 3, targets = 1, queries = 20 }}
"""


@pytest.fixture(scope="module")
def suite(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Suite:
    path = tmp_path_factory.mktemp("worst") / "suite.toml"
    path.write_text(SUITE.format(model=model_dir))
    return read_suite(path)


def quicker(patch: pytest.MonkeyPatch) -> None:
    """Small shards, and checks that search for less long."""
    for module in (result, shard, run):
        patch.setattr(module, "SHARD", 6)
    patch.setattr(probes, "QUERIES", 3)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    quicker(monkeypatch)


def figures(ran: ChainRun) -> list[object]:
    """All that was found, without the seconds that it took."""

    def timeless(each: ChainResult) -> object:
        entries = [
            replace(entry, attacks=tuple(replace(attack, seconds=None) for attack in entry.attacks))
            for entry in each.entries
        ]
        return each.key, entries, each.risk_from

    return [timeless(each) for each in ran.results]


@pytest.fixture(scope="module")
def whole(suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> tuple[ChainRun, Path]:
    """The suite's worst case, run once in this process, and where it is stored."""
    out = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        quicker(patch)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        ran = run_worst_cases(suite, out, progress=False)
        torch.set_num_threads(threads)
    return ran, out


def test_it_is_the_robust_risk_of_the_whole_suite(suite: Suite, whole: tuple[ChainRun, Path], tmp_path: Path) -> None:
    full = worst_case(run_suite(suite, tmp_path, progress=False).cells)
    alone = report.entries(whole[0])
    assert [entry.eps for entry in alone] == [0.05, 0.1]
    for entry, other in zip(alone, full, strict=True):
        assert (entry.n, entry.clean_accuracy) == (other.n, other.clean_accuracy)
        assert entry.clean_rejection_rate == other.clean_rejection_rate
        assert entry.robust_risk == pytest.approx(other.robust_risk, abs=0.09)  # an image of 12 more or less
    assert alone[-1].robust_risk > whole[0].results[0].clean_risk


def test_an_image_that_fell_is_not_attacked_again(whole: tuple[ChainRun, Path]) -> None:
    (chain,) = whole[0].results
    standing = chain.key.n - chain.risk_from.count(0.0)
    for entry in chain.entries:
        assert [re.split("[ -]", attack.attack)[0] for attack in entry.attacks][:2] == ["fgsm", "selective"]
        for attack in entry.attacks:
            assert attack.images <= 4 if "hybrid" in attack.attack else attack.images == standing
            standing -= attack.broken
    assert standing == chain.risk_from.count(None)
    assert sum(attack.broken for entry in chain.entries for attack in entry.attacks) > 0


def test_nothing_is_left_but_the_result_and_it_is_not_run_again(
    suite: Suite, whole: tuple[ChainRun, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran, out = whole
    (path,) = [path for path in out.rglob("*") if path.is_file()]
    stored = ChainResult.from_json(json.loads(path.read_text()))
    assert stored == ran.results[0]
    assert stored.to_json() == json.loads(path.read_text())
    monkeypatch.setattr(run, "run_shard", lambda *_: pytest.fail("is done"))
    assert figures(run_worst_cases(suite, out, progress=False)) == figures(ran)
    (changed,) = [replace(key, cells=(replace(key.cells[0], seed=1), *key.cells[1:])) for key in [stored.key]]
    assert changed.path != stored.key.path
    assert result.find(out, changed) is None


class Killed(BaseException):
    pass


def test_a_killed_run_goes_on_with_the_same_bits(
    suite: Suite, whole: tuple[ChainRun, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    attack_one = shard.attack_remaining

    def killed(points: NearestPoints, attack: Attack, *others: object) -> object:
        if len(done) == 8:
            raise Killed
        done.append(attack.name)
        return attack_one(points, attack, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(shard, "attack_remaining", killed)
    with pytest.raises(Killed):
        run_worst_cases(suite, tmp_path, progress=False)
    assert sorted(path.name for path in tmp_path.rglob("*.*z")) == ["0001.npz"]
    done.clear()
    monkeypatch.setattr(shard, "attack_remaining", lambda *given: (done.append(given[1].name), attack_one(*given))[1])
    assert figures(run_worst_cases(suite, tmp_path, progress=False)) == figures(whole[0])
    assert len(done) == 2 * 5 - 8
    assert not list(tmp_path.rglob("*.npz"))


@pytest.mark.slow
def test_two_workers_find_what_one_does(suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # workers have shards of the usual size
    monkeypatch.setattr("joblib.cpu_count", lambda: 2)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    one = run_worst_cases(suite, tmp_path / "one", progress=False)
    torch.set_num_threads(threads)
    two = run_worst_cases(suite, tmp_path / "two", workers=2, progress=False)
    assert figures(two) == figures(one)


def test_an_attack_of_the_users_own_is_one_of_them(
    problem: tuple[Linear, Tensor, Tensor], calls: list[tuple[float, Tensor]]
) -> None:
    model, x, y = problem
    goal = attacks.Misclassified()
    points = NearestPoints.clean(model, x, y, goal)
    points.broken[:3] = True
    first = attack_remaining(points, Recorded(eps=0.05), model, x, y, goal)
    assert torch.equal(calls[0][1], x[3:])
    second = attack_remaining(points, Recorded(eps=0.2), model, x, y, goal)
    assert 0 < len(second.rows) == 9 - int(first.broken.sum())
    assert (goal.met(model, points.x, y) == points.broken)[3:].all()
    fewer = attack_remaining(points, Recorded(eps=0.2), model, x, y, goal, most=2)
    nearest = points.nearness.masked_fill(points.broken, -torch.inf)
    assert len(fewer.rows) == min(2, int((~points.broken).sum()) + int(fewer.broken.sum()))
    assert torch.isfinite(nearest[fewer.rows]).any() or fewer.broken.all()


class Spied(nn.Module):
    """A classifier that never errs, and keeps all images that it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach().clone())
        brightness = x.flatten(1).mean(1)
        return torch.stack([brightness + 9, brightness * 0, -brightness], 1)

    def score(self, x: Tensor) -> Tensor:
        return x.flatten(1).mean(1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", ["square", "square-rejecting"])
def test_square_begins_at_the_start(name: str, norm: str) -> None:
    model, x = Spied(), torch.rand(2, *IMAGE) * 0.4 + 0.3
    attack = attacks.load(name, eps=0.2, norm=norm, queries=3)
    start = attack.threat.project(x + attack.threat.random(x), x)
    goal = attacks.Misclassified() & attacks.Undetected(1.0) if attack.knows_detector else attacks.Misclassified()
    attack(model, x, torch.zeros(2).long(), goal, start=start)
    assert any(seen.shape == start.shape and torch.allclose(seen, start, atol=1e-5) for seen in model.seen)


def test_hybrid_searches_from_the_start_without_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = Spied(), torch.rand(2, *IMAGE) * 0.4 + 0.3
    attack = attacks.load("hybrid", eps=0.2, queries=5)
    start = attack.threat.project(x + attack.threat.random(x), x)
    monkeypatch.setattr(attacks.Hybrid, "find_best", lambda *_: pytest.fail("has a start"))
    attack(model, x, torch.zeros(2).long(), attacks.Misclassified() & attacks.Undetected(1.0), start=start)
    assert any(seen.shape == start.shape and torch.equal(seen, start) for seen in model.seen)


def test_hop_skip_jump_begins_beyond_the_start(problem: tuple[Linear, Tensor, Tensor]) -> None:
    model, x, y = problem
    start = attacks.PGD(eps=0.01, steps=5)(model, x, y).x
    started: list[Tensor] = []

    class Spy(Linear):
        def forward(self, x: Tensor) -> Tensor:
            started.append(x.detach().clone())
            return super().forward(x)

    attacks.load("hop-skip-jump", eps=0.05, queries=60)(Spy(), x[:1], y[:1], start=start[:1])
    (ray,) = [seen for seen in started if len(seen) == 64]
    wrong = ray[model(ray).argmax(1) != y[0]]
    assert len(wrong), "the ray leads to another label"
    assert any(len(seen) == 1 and torch.allclose(seen[0], wrong[0], atol=1e-6) for seen in started)


def test_a_start_of_another_shape_is_an_input_error(problem: tuple[Linear, Tensor, Tensor]) -> None:
    model, x, y = problem
    with pytest.raises(InputError, match="start: got 3 images, must be 12"):
        attacks.PGD()(model, x, y, start=x[:3])
    with pytest.raises(InputError, match=r"start: shape is \(12, 1, 2, 2\)"):
        attacks.PGD()(model, x, y, start=x[..., :2, :2])


def test_a_failed_attack_is_said_and_tried_again(suite: Suite, tmp_path: Path) -> None:
    (model,) = suite.models
    hopeless = replace(model.attacks[0], name="test_bench:Hopeless", parameters={}, eps=0.1)
    ran = run_worst_cases(replace(suite, models=(replace(model, attacks=(hopeless,)),)), tmp_path, progress=False)
    assert [each.error for each in report.failed(ran)] == ["NonFiniteLoss: the loss is not finite"]
    assert "NonFiniteLoss" in report.write(ran, tmp_path, "again")[1].read_text()
    assert result.find(tmp_path, ran.results[0].key) is None


def test_the_report_shows_each_attack_and_its_checks(whole: tuple[ChainRun, Path], tmp_path: Path) -> None:
    written = report.write(whole[0], tmp_path, "robustrecon bench again")
    found = json.loads(written[0].read_text())
    assert [entry["eps"] for entry in found["worst_case"]] == [0.05, 0.1]
    aware = [attack for attack in found["worst_case"][0]["attacks"] if attack["knows_detector"]]
    assert aware[0]["checked"] > 0
    assert aware[0]["seconds"] > 0
    text = written[1].read_text()
    assert "| eps" in text
    assert "at risk when clean" in text
    assert "robustrecon bench again" in text


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    from robustrecon.cli import main

    monkeypatch.setattr(sys, "argv", ["robustrecon", "bench", "--worst-case-only", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    assert isinstance(stop.value.code, int)
    return stop.value.code


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--plan"], "--plan: cannot be given with --worst-case-only"),
        (["--log-x"], "--log-x: cannot be given with --worst-case-only"),
        (["--steps", "3"], "--steps: needs --attack; the default attacks have their own"),
        (["--attack", "worst-case"], "attack: got worst-case, which --worst-case-only is already"),
        (["--attack", "pdg"], "attack: unknown name 'pdg'; did you mean 'pgd'?"),
        (["--eps", "7"], "eps: got 7.0"),
        (["--suite", "nowhere.toml"], "suite: no file nowhere.toml"),
    ],
)
def test_wrong_arguments_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert command(monkeypatch, *arguments) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error


def test_the_command_names_its_report(
    suite: Suite, whole: tuple[ChainRun, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, "--suite", str(suite.path), "--out", str(whole[1])) == 0
    said = capsys.readouterr().out
    assert "Worst case, linf 0.1" in said
    assert "worst-case.md" in said
    text = (whole[1] / "worst-case.md").read_text()
    assert f"robustrecon bench --suite {suite.path} --out {whole[1]} --worst-case-only" in text


def test_by_default_all_attacks_run_and_the_dear_ones_on_fewer_images() -> None:
    asked = asked_suite(
        attack=None,
        eps=[0.3],
        norm="linf",
        steps=40,
        engine=None,
        model="robust/mnist",
        data=None,
        detector=None,
        alpha=0.05,
        n=1000,
        seed=0,
        precision=None,
    )
    counts = {config.name: config.n for config in asked.models[0].attacks}
    assert {"fgsm", "multi-target", "hybrid", "hop-skip-jump-rejecting"} < counts.keys()
    assert (counts["pgd"], counts["square"], counts["fab-t"]) == (1000, 100, 100)
