"""Running chains: the worst case over all attacks for each model, detector and norm; stored ones are not run again."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ... import attacks
from ...attacks import DEAR, DEAR_IMAGES, cheapest_first
from ...detectors import DEFAULTS
from ...files import check_writable
from ...runtime import Progress
from ...statistics import Rate
from ...types import InputError
from ..fields import Json
from ..metrics import ends, share
from ..plan import AttackConfig, BenchmarkPlan
from ..runner import Bench
from ..suite.read import Suite, SuiteModel
from ..suite.run import load_benches, worker_setup
from ..worst_case import AttackCount, AttackNote, WorstCase
from .result import SHARD, ChainKey, ChainResult, find, write
from .shard import ShardJob, ShardRecord, Stage, chain_key, read_record, run_shard


@dataclass(frozen=True)
class ChainRun:
    """Chains that were run.

    Attributes:
        suite: what was to be measured.
        benches: one for each of its models.
        results: one for each model, detector and norm, in the order of the suite.
    """

    suite: Suite
    benches: tuple[Bench, ...]
    results: tuple[ChainResult, ...]


@dataclass(frozen=True)
class _Chain:
    """The attacks of one norm on one model with one detector, in the order in which they run."""

    model: SuiteModel
    bench: Bench
    configs: tuple[AttackConfig, ...]
    detector: str

    @property
    def key(self) -> ChainKey:
        return chain_key(self.bench, self.configs, self.detector)


def asked_suite(
    *,
    attack: Sequence[str] | None,
    eps: Sequence[float] | None,
    norm: str,
    steps: int,
    engine: str | None,
    model: str | Path | None,
    data: str | None,
    detector: Sequence[str] | None,
    alpha: float,
    n: int,
    seed: int,
    precision: str | None,
    correct_only: bool = False,
) -> Suite:
    """A suite of one model, as the command line asks for it: the arguments are its options.

    Raises:
        InputError: an unknown name or a value out of range.
    """
    radii = eps or (0.1, 0.2, 0.3)
    plan = BenchmarkPlan(
        attack or ["pgd"],  # for the checks of everything else
        eps=radii,
        norm=norm,
        steps=steps,
        engine=engine,
        detectors=detector or DEFAULTS,
        alpha=alpha,
        n=n,
        seed=seed,
        precision=precision or "auto",
        correct_only=correct_only,
    )
    configs = tuple(plan.attacks) if attack else default_attacks(radii, norm, seed, n, plan.attacks[0].precision)
    name = None if model is None else str(model)
    return Suite(
        Path(name or "default model"),
        data,
        plan.alpha,
        (SuiteModel(name, tuple(dict.fromkeys(detector or DEFAULTS)), n, configs, default_attacks=not attack),),
        precision,
        plan.correct_only,
    )


def default_attacks(
    eps: Sequence[float], norm: str, seed: int, n: int, precision: str = "auto", front_end: bool = False
) -> tuple[AttackConfig, ...]:
    """Those of `attacks.default_attacks(norm, front_end)` at each radius; a dear one gets at most `DEAR_IMAGES` images.

    Raises:
        InputError: a value out of range.
    """
    configs = []
    for name, given in attacks.default_attacks(norm, front_end):
        engine = given.get("engine")
        parameters: dict[str, Json] = {key: value for key, value in given.items() if key != "engine"}
        most = min(n, DEAR_IMAGES) if name in DEAR else n
        configs += [
            AttackConfig(name, radius, norm, engine, seed, most, parameters, precision) for radius in dict.fromkeys(eps)
        ]
    for config in configs:
        _ = config.attack
    return tuple(configs)


def check_attacks(suite: Suite) -> None:
    """Whether all attacks of a suite can be in a chain.

    Raises:
        InputError: one is the worst case itself.
    """
    if any(config.name == attacks.WorstCase.name for model in suite.models for config in model.attacks):
        raise InputError(
            f"attack: got {attacks.WorstCase.name}, which --worst-case-only is already; must be other attacks"
        )


def run_worst_cases(
    suite: Suite,
    out: str | Path = "runs/results",
    data_dir: str | Path = "data",
    *,
    workers: int = 1,
    backend: str = "loky",
    device: str = "auto",
    progress: bool = True,
) -> ChainRun:
    """The worst case over the attacks of a suite, without the figures of each attack on its own.

    At each radius, the smallest first, the attacks run cheapest first, each on the images that none has broken yet. An
    image that is broken at one radius counts as broken at larger ones. Dear attacks (`attacks.worst_case.DEAR`) begin
    at the nearest points that others found. An attack that a suite runs on fewer images gets as many of those that
    remain, the nearest to being broken. An attack that fails is recorded, and the others go on.

    Images are attacked in shards of 125, whatever the number of workers. After each attack a shard is stored, and a
    killed run goes on from there.

    Args:
        As for `run_suite`.

    Raises:
        InputError: as for `run_suite`, or an attack that is the worst case itself.
    """
    from ..parallel import check_workers

    check_attacks(suite)
    check_workers(workers, backend)
    check_writable(Path(out))
    benches = tuple(load_benches(suite, Path(out), data_dir, device, progress))
    chains = [chain for model, bench in zip(suite.models, benches, strict=True) for chain in _chains(model, bench)]
    found = [find(chain.bench.root, chain.key) for chain in chains]
    todo = [chain for chain, result in zip(chains, found, strict=True) if result is None]
    if progress and len(todo) < len(chains):
        print(f"done before: {len(chains) - len(todo)} of {len(chains)} worst cases", file=sys.stderr)
    total = sum(len(chain.configs) * chain.key.n_shards for chain in todo)
    with Progress("worst case", total, "attacks", progress and bool(todo)) as bar:
        for n in _run(todo, data_dir, workers, backend, device, bar):
            bar.advance(n)
    results = [result or _finished(chain) for chain, result in zip(chains, found, strict=True)]
    return ChainRun(suite, benches, tuple(results))


def _chains(model: SuiteModel, bench: Bench) -> Iterator[_Chain]:
    configs: list[AttackConfig] = []
    for config in map(_without_waste, _attacks_on(model, bench)):
        if config not in configs:
            configs.append(config)
    n_classes = bench.target.data.n_classes
    configs.sort(key=lambda each: (each.eps, *cheapest_first(each.attack, n_classes)))
    for detector in model.detectors:
        for norm in dict.fromkeys(each.norm for each in model.attacks):
            yield _Chain(model, bench, tuple(each for each in configs if each.norm == norm), detector)


def _attacks_on(model: SuiteModel, bench: Bench) -> Sequence[AttackConfig]:
    """The attacks of a model; among the default ones, those with gentler slopes where it has a front end."""
    if not model.default_attacks or not attacks.front_ends(bench.target.model):
        return model.attacks
    first, radii = model.attacks[0], [each.eps for each in model.attacks]
    return default_attacks(radii, first.norm, first.seed, model.n, first.precision, front_end=True)


def _without_waste(config: AttackConfig) -> AttackConfig:
    """With early exit where the attack knows the detector: an image that meets the whole goal needs no more steps.

    Other attacks stay as they are: they go on after the label is wrong, and may end at a point that is accepted.
    """
    if not config.attack.knows_detector or config.engine_name is None:
        return config
    if not attacks.has_parameter(config.name, "early_exit", config.engine):
        return config
    return replace(config, parameters={"early_exit": True, **config.parameters})


def _run(
    todo: list[_Chain], data_dir: str | Path, workers: int, backend: str, device: str, bar: Progress
) -> Iterator[int]:
    """Run every shard that is left; yields numbers of attacks as they are done, where `bar` does not show them."""
    if workers == 1 and backend == "loky":
        for chain in todo:
            for index in range(chain.key.n_shards):
                run_shard(chain.bench, chain.configs, chain.detector, index, bar.advance)
        return
    from ..parallel import run_jobs

    jobs = [
        ShardJob(
            worker_setup(chain.bench, chain.model, data_dir, device, workers), chain.configs, chain.detector, index
        )
        for chain in todo
        for index in range(chain.key.n_shards)
    ]
    if jobs:
        yield from run_jobs(jobs, workers, backend)


def _finished(chain: _Chain) -> ChainResult:
    """The result of a chain whose shards are all done: stored, and the shards are removed."""
    root, key = chain.bench.root, chain.key
    records = []
    for index in range(key.n_shards):
        record = read_record(root, key, index)
        if record is None:  # such as on a disk that is not shared with the workers
            raise InputError(
                f"out: no result is in {root / key.shards} for shard {index} after the run; start it again"
            )
        records.append(record)
    entries, risk_from = summarized(key, [config.attack.knows_detector for config in chain.configs], records)
    searched = "bfloat16" if any(cell.precision == "bfloat16" for cell in key.cells) else "float32"
    result = ChainResult(key, entries, risk_from, chain.bench.environment(searched))
    write(root, result)
    shutil.rmtree(root / key.shards, ignore_errors=True)
    return result


def summarized(
    key: ChainKey, aware: Sequence[bool], records: Sequence[ShardRecord]
) -> tuple[tuple[WorstCase, ...], tuple[float | None, ...]]:
    """The worst case at each radius, and for each image the radius from which on it is at risk.

    Args:
        key: of the chain.
        aware: whether each of its attacks knows the detector.
        records: of all its shards, complete.
    """
    wrong, rejected = np.zeros(key.n, dtype=np.bool_), np.zeros(key.n, dtype=np.bool_)
    for index, record in enumerate(records):
        wrong[[index * SHARD + row for row in record.wrong]] = True
        rejected[[index * SHARD + row for row in record.rejected]] = True
    at_risk = wrong | rejected
    risk_from: list[float | None] = [0.0 if flag else None for flag in at_risk]
    entries = []
    for eps in dict.fromkeys(cell.eps for cell in key.cells):
        counts, checks, failures = [], [], []
        for position, cell in enumerate(key.cells):
            if cell.eps != eps:
                continue
            stages = [record.stages[position] for record in records]
            for row in (index * SHARD + row for index, stage in enumerate(stages) for row in stage.broken):
                at_risk[row], risk_from[row] = True, eps
            fired = [AttackNote(cell.title, check) for stage in stages for check in stage.checks]
            errors = [stage.error for stage in stages if stage.error]
            checks += fired
            failures += [AttackNote(cell.title, error=error) for error in dict.fromkeys(errors)]
            if len(errors) < len(stages):
                counts.append(_count(cell.title, aware[position], stages))
        risk = Rate(at_risk)
        first = key.cells[0]
        entries.append(
            WorstCase(
                data=first.data,
                model=first.model,
                weights=first.weights,
                detector=first.detector,
                norm=first.norm,
                alpha=first.alpha,
                correct_only=first.correct_only,
                eps=eps,
                n=key.n,
                clean_accuracy=float(1 - wrong.mean()),
                clean_rejection_rate=float(rejected.mean()),
                robust_risk=share(risk),
                robust_risk_interval=ends(risk),
                images_least=key.n,
                robust_risk_least=share(risk),
                robust_risk_least_interval=ends(risk),
                attacks=tuple(counts),
                checks=tuple(checks),
                failed=tuple(failures),
            )
        )
    return tuple(entries), tuple(risk_from)


def _count(title: str, aware: bool, stages: Sequence[Stage]) -> AttackCount:
    broken = sum(len(stage.broken) for stage in stages)
    return AttackCount(
        attack=title,
        knows_detector=aware,
        images=sum(stage.images for stage in stages),
        broken=broken,
        only=broken,
        checks=tuple(dict.fromkeys(check.name for stage in stages for check in stage.checks)),
        seconds=sum(stage.seconds for stage in stages),
        checked=sum(stage.checked for stage in stages),
    )
