"""`robustrecon bench`."""

from __future__ import annotations

import shlex
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import Alpha, Classifier, CorrectOnly, Data, DataDir, Device, Format, Json, checked_format, number

if TYPE_CHECKING:
    from ..bench.suite.read import Suite

IN_A_SUITE = (
    "classifier",
    "attack",
    "eps",
    "norm",
    "steps",
    "engine",
    "param",
    "model",
    "data",
    "detector",
    "alpha",
    "correct_only",
    "n",
    "seed",
    "log_x",
    "check_attack",
)


def bench(
    context: typer.Context,
    suite: Annotated[
        Path | None, typer.Option(help="A TOML file of models and attacks, such as benchmarks/smoke.toml.")
    ] = None,
    attack: Annotated[
        list[str] | None,
        typer.Option(help="An attack (see `robustrecon attacks`) or module:factory; repeatable. pgd by default."),
    ] = None,
    eps: Annotated[
        list[float] | None,
        typer.Option(
            parser=number,
            metavar="NUMBER",
            help="Radius, such as 0.1 or 8/255; repeatable. 0.1, 0.2 and 0.3 by default.",
        ),
    ] = None,
    norm: Annotated[
        str, typer.Option(help="Norm of the budget: linf, l2 or l1 (for MNIST, --eps of about 10).")
    ] = "linf",
    steps: Annotated[int, typer.Option(help="Gradient steps of each attack that takes steps.")] = 40,
    engine: Annotated[str | None, typer.Option(help="Library that runs the attacks: torchattacks, art or own.")] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="A parameter (see `robustrecon attacks`) of all attacks that have it, or ATTACK.NAME=VALUE of one; "
            "repeatable.",
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            help="A folder that `train` or `graft` wrote, a shipped model's name, or module:factory for your own; "
            "by default one is trained, once."
        ),
    ] = None,
    classifier: Classifier = None,
    data: Data = None,
    data_dir: DataDir = Path("data"),
    detector: Annotated[
        list[str] | None,
        typer.Option(
            help="A detector (see `robustrecon detectors`), 'knn(LAYER)', 'any_of(NAME,NAME)', or module:factory for "
            "your own; repeatable. "
            "label_margin and global_error by default; msp for a model of your own without class energies."
        ),
    ] = None,
    alpha: Alpha = 0.05,
    correct_only: CorrectOnly = False,
    n: Annotated[int, typer.Option(help="Number of test images to attack, from the first.")] = 1000,
    seed: Annotated[int, typer.Option(help="Random seed for the attacks.")] = 0,
    precision: Annotated[
        str | None,
        typer.Option(
            help="In which the attacks search: float32, bfloat16, or auto (bfloat16 where processor and model can, the "
            "default). Figures are float32. With --suite: instead of what its file says."
        ),
    ] = None,
    device: Device = "auto",
    out: Annotated[Path, typer.Option(help="Folder of all results; cells stored there are not run again.")] = Path(
        "runs/results"
    ),
    log_x: Annotated[bool, typer.Option("--log-x", help="Draw the ROC curves over a logarithmic axis.")] = False,
    workers: Annotated[int, typer.Option(help="Number of processes that share a suite's cells.")] = 1,
    backend: Annotated[str, typer.Option(help="What runs a suite's workers: loky, dask or ray.")] = "loky",
    plan: Annotated[
        bool, typer.Option("--plan", help="Show a suite's cells and how long they are expected to take; run nothing.")
    ] = False,
    worst_case_only: Annotated[
        bool,
        typer.Option(
            "--worst-case-only",
            help="Only the robust risk under all attacks (of the suite, or --attack, or all by default), without their "
            "own figures: each attacks the images that the cheaper ones left.",
        ),
    ] = False,
    check_attack: Annotated[
        bool,
        typer.Option(
            "--check-attack",
            help="Test the attacks too: does each find adversarial examples that are planted in small binary problems?",
        ),
    ] = False,
    format: Format = None,
    as_json: Json = False,
) -> None:
    """Attack a defended model and report accuracy, detection ROC and robust risk.

    With --suite: many models and attacks, and the worst case over all attacks. Exit code 1 when a cell failed.
    """
    chosen = checked_format(format, as_json)
    as_json = chosen == "json"
    if (suite is not None or worst_case_only) and chosen in ("csv", "latex"):
        _refuse(
            context, ("format",), f"got {chosen}, must be table, markdown or json with --suite or --worst-case-only"
        )
    if check_attack and chosen in ("csv", "latex"):
        _refuse(context, ("format",), f"got {chosen}, must be table, markdown or json with --check-attack")
    if worst_case_only:
        _worst_case_only(context, as_json)
        return
    if suite is not None and plan:
        _plan_suite(context, suite, data_dir, device, out, workers, backend, precision, as_json)
        return
    if suite is not None:
        _bench_suite(context, suite, data_dir, device, out, workers, backend, precision, as_json)
        return
    _refuse(context, ("workers", "backend", "plan"), "needs --suite")

    from ..bench import BenchmarkPlan

    asked = BenchmarkPlan(
        attack or ["pgd"],
        eps=eps or [0.1, 0.2, 0.3],
        norm=norm,
        steps=steps,
        engine=engine,
        detectors=detector or None,
        alpha=alpha,
        correct_only=correct_only,
        n=n,
        seed=seed,
        precision="auto" if precision is None else precision,
        parameters=_parameters(param or []),
    )
    from ..bench import load_benchmark_model
    from ..bench.attack_tests import tested_attacks
    from ..bench.report import formats
    from ..bench.report import model as model_report
    from ..bench.report.examples import draw_examples
    from ..bench.result import failed, measured
    from ..bench.runner import prepared

    target = load_benchmark_model(model, data, data_dir, device, classifier=classifier)
    measuring = prepared(target, asked, out, progress=True)
    cells = measuring.run(asked.attacks)
    tests = tested_attacks(measuring, asked.attacks) if check_attack else []
    key = cells[-1].key
    sheet = draw_examples(target, measured(cells), out / key.folder / "examples.png")
    written = [*model_report.write(out, key, log_x), *([sheet] if sheet else [])]
    print(formats.of_cells(cells, chosen, tests))
    if chosen in ("table", "markdown"):
        print("", *written, sep="\n")
    if failed(cells):
        raise typer.Exit(1)


def _parameters(given: list[str]) -> dict[str, str]:
    """What --param says, by the names before the first `=`."""
    from ..types import InputError

    found = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not (name and equals and value):
            raise InputError(f"param: got {each!r}, must be NAME=VALUE or ATTACK.NAME=VALUE")
        found[name] = value
    return found


def _bench_suite(
    context: typer.Context,
    file: Path,
    data_dir: Path,
    device: str,
    out: Path,
    workers: int,
    backend: str,
    precision: str | None,
    as_json: bool,
) -> None:
    suite = _read_suite(context, file, precision)
    from ..bench.report import suite as suite_report
    from ..bench.report.cells import failures
    from ..bench.report.forced import forced_failures
    from ..bench.suite.run import run_suite

    ran = run_suite(suite, out, data_dir, workers=workers, backend=backend, device=device)
    written = suite_report.write(ran, out, needs_data_dir=_given(context, "data_dir"))
    if as_json:
        print(written[0].read_text(), end="")
    else:
        said = [*failures(ran.cells), *forced_failures(ran.forced)]
        print("\n\n".join([suite_report.tables(ran), *said]), end="\n\n")
        for path in written:
            print(path)
    if not ran.complete:
        raise typer.Exit(1)


def _read_suite(context: typer.Context, file: Path, precision: str | None) -> Suite:
    """The suite in a file, which is looked for before anything heavy is imported."""
    _refuse(context, IN_A_SUITE, "cannot be given with --suite, whose file says it")
    from ..files import check_suite

    check_suite(file)
    from ..bench.suite.read import read_suite

    return read_suite(file, precision)


def _plan_suite(
    context: typer.Context,
    file: Path,
    data_dir: Path,
    device: str,
    out: Path,
    workers: int,
    backend: str,
    precision: str | None,
    as_json: bool,
) -> None:
    suite = _read_suite(context, file, precision)
    import json

    from ..bench.parallel import check_workers
    from ..bench.suite.plan import plan_suite

    check_workers(workers, backend)
    planned = plan_suite(suite, out, data_dir, workers=workers, device=device)
    print(json.dumps(planned.to_json(), indent=2) if as_json else planned.text())


def _worst_case_only(context: typer.Context, as_json: bool) -> None:
    given = context.params
    _refuse(context, ("plan", "log_x", "param", "classifier", "check_attack"), "cannot be given with --worst-case-only")
    if given["suite"] is None and not given["attack"]:
        _refuse(context, ("steps", "engine"), "needs --attack; the default attacks have their own")
    from ..bench.chain.run import asked_suite, run_worst_cases
    from ..bench.report import chain as report

    suite = (
        _read_suite(context, given["suite"], given["precision"])
        if given["suite"]
        else asked_suite(**{name: given[name] for name in signature(asked_suite).parameters})
    )
    settings = {name: given[name] for name in ("workers", "backend", "device")}
    ran = run_worst_cases(suite, given["out"], given["data_dir"], **settings)
    written = report.write(ran, given["out"], _again(context))
    if as_json:
        print(written[0].read_text(), end="")
    else:
        print("\n\n".join([report.tables(ran), *report.failures(ran)]), end="\n\n")
        for path in written:
            print(path)
    if report.failed(ran):
        raise typer.Exit(1)


def _again(context: typer.Context) -> str:
    """The command as it was given, but for what only this machine has."""
    words = ["robustrecon", "bench"]
    for option in context.command.params:
        name = option.name or ""
        if not _given(context, name) or name in ("data_dir", "workers", "backend", "device", "as_json", "format"):
            continue
        value = context.params[name]
        if value is True:
            words.append(option.opts[0])
        else:
            for each in value if isinstance(value, (list, tuple)) else [value]:
                words += [option.opts[0], str(each)]
    command = shlex.join(words)
    return f'{command} --data-dir "$DATA_DIR"' if _given(context, "data_dir") else command


def _refuse(context: typer.Context, names: tuple[str, ...], why: str) -> None:
    """An error for an option that was given and does not go with another."""
    from ..types import InputError

    for name in names:
        if _given(context, name):
            raise InputError(f"--{name.replace('_', '-')}: {why}")


def _given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
