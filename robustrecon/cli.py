"""The command line: it parses, calls the library and prints. Nothing heavy is imported before it is needed."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Data = Annotated[
    str | None,
    typer.Option(help="digits, mnist, emnist-letters, fashion-mnist, cifar10 or folder:PATH (a folder a class)."),
]
DataDir = Annotated[Path, typer.Option(help="Where the data is, or is downloaded to (torchvision's layout).")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Alpha = Annotated[float, typer.Option(help="Bound on the false-alarm rate, in (0, 1).")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else on standard output.")]


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(version("robustrecon"))
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Defend PyTorch image classifiers against adversarial examples by class-conditional reconstruction."""


@app.command()
def train(
    data: Data = "digits",
    recipe: Annotated[
        str,
        typer.Option(
            help="fast, contrastive, robust (adversarial; long), robust-refine (after robust) or paper (250 epochs)."
        ),
    ] = "fast",
    out: Annotated[Path | None, typer.Option(help="Folder to write to; runs/DATA by default.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Over all devices together, instead of the recipe's.")] = None,
    start: Annotated[
        Path | None, typer.Option(help="A trained model to go on from, or a shipped one's name; anew by default.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of initial weights, order and noise.")] = 0,
    device: Device = "auto",
    devices: Annotated[int, typer.Option(help="Processes on this machine, one a device.")] = 1,
    nodes: Annotated[int, typer.Option(help="Machines.")] = 1,
    precision: Annotated[str, typer.Option(help="32-true or bf16-mixed.")] = "32-true",
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last finished epoch in --out.")] = False,
    data_dir: DataDir = Path("data"),
) -> None:
    """Train a style-memory network; writes model.safetensors, its card model.json, and metrics.csv."""
    from dataclasses import replace

    from . import checkpoint
    from .data import load_data
    from .files import slug
    from .training import load_recipe
    from .training import train as train_model

    chosen = load_recipe(recipe)
    if epochs is not None:
        chosen = replace(chosen, name=f"{chosen.name}-e{epochs}", epochs=epochs, least_steps=0)
    if batch_size is not None:
        chosen = replace(chosen, name=f"{chosen.name}-b{batch_size}", batch_size=batch_size)
    dataset = load_data("digits" if data is None else data, data_dir)
    folder = Path("runs") / slug(dataset.name) if out is None else out
    train_model(
        dataset,
        folder,
        chosen,
        start=start,
        seed=seed,
        device=device,
        devices=devices,
        nodes=nodes,
        precision=precision,
        resume=resume,
    )
    if _first_process():
        accuracy = checkpoint.load(folder).card["accuracy"]
        print(f"test accuracy {accuracy['test']:.2%} (n = {accuracy['n']}); model, card and metrics in {folder}")


@app.command()
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
        list[float] | None, typer.Option(help="Radius of the budget; repeatable. 0.1, 0.2, 0.3 by default.")
    ] = None,
    norm: Annotated[str, typer.Option(help="linf or l2.")] = "linf",
    steps: Annotated[int, typer.Option(help="Gradient steps, of attacks that take steps.")] = 40,
    engine: Annotated[str | None, typer.Option(help="torchattacks, art or own.")] = None,
    model: Annotated[
        Path | None,
        typer.Option(help="A trained model, or a shipped one's name; without it the default one is trained, once."),
    ] = None,
    data: Data = None,
    data_dir: DataDir = Path("data"),
    detector: Annotated[
        list[str] | None,
        typer.Option(
            help="label_margin, global_error (both by default), cycle, marginal or 'any_of(NAME,NAME)'; repeatable."
        ),
    ] = None,
    alpha: Alpha = 0.05,
    n: Annotated[int, typer.Option(help="The first N test images.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the attacks.")] = 0,
    device: Device = "auto",
    out: Annotated[Path, typer.Option(help="Folder of all results; what is there already is not run again.")] = Path(
        "runs/results"
    ),
    log_x: Annotated[bool, typer.Option("--log-x", help="Draw the ROC curves over a logarithmic axis.")] = False,
    workers: Annotated[int, typer.Option(help="Processes that share a suite's cells; 1 is this one.")] = 1,
    backend: Annotated[str, typer.Option(help="Of a suite's workers: loky, dask or ray.")] = "loky",
    as_json: Json = False,
) -> None:
    """Attack a defended model and report accuracy, detection ROC and robust risk.

    With --suite: many models and attacks, and the worst case over all attacks. Exit code 1 when a cell failed.
    """
    if suite is not None:
        _bench_suite(context, suite, data_dir, device, out, workers, backend, as_json)
        return
    _refuse(context, ("workers", "backend"), "needs --suite")

    from .bench import Plan, Spec, draw_examples, report, run, store
    from .detectors import DEFAULTS
    from .subject import load_subject

    plan = Plan(
        attack or ["pgd"],
        eps=eps or [0.1, 0.2, 0.3],
        norm=norm,
        steps=steps,
        engine=engine,
        detectors=detector or DEFAULTS,
        alpha=alpha,
        n=n,
        seed=seed,
    )
    subject = load_subject(model, data, data_dir, device)
    results = run(subject, plan, out)
    last = results[-1]["spec"]
    examples = out / Spec(**last).folder / "examples.png"
    sheet = draw_examples(subject, results, examples) if store.measured(results) else None
    written = [*report.write(out, last, log_x), *([sheet] if sheet else [])]
    if as_json:
        print(json.dumps([store.without_images(result) for result in results], indent=2))
    else:
        parts = [report.summary(results), report.table(results), report.caveat(results), *report.failures(results)]
        print("\n\n".join(parts), end="\n\n")
        for path in written:
            print(path)
    if any(map(store.is_failed, results)):
        raise typer.Exit(1)


def _bench_suite(
    context: typer.Context,
    file: Path,
    data_dir: Path,
    device: str,
    out: Path,
    workers: int,
    backend: str,
    as_json: bool,
) -> None:
    told = ("attack", "eps", "norm", "steps", "engine", "model", "data", "detector", "alpha", "n", "seed", "log_x")
    _refuse(context, told, "cannot be given with --suite, whose file says it")
    from .files import check_suite

    check_suite(file)
    from .bench import report, store, suite_report
    from .bench.suite import read_suite
    from .bench.suite_run import run_suite

    ran = run_suite(read_suite(file), out, data_dir, workers=workers, backend=backend, device=device)
    written = suite_report.write(ran, out, needs_data_dir=_given(context, "data_dir"))
    if as_json:
        print(written[0].read_text(), end="")
    else:
        print("\n\n".join([suite_report.tables(ran), *report.failures(ran.results)]), end="\n\n")
        for path in written:
            print(path)
    if any(map(store.is_failed, ran.results)):
        raise typer.Exit(1)


def _refuse(context: typer.Context, names: tuple[str, ...], why: str) -> None:
    """An error for an option that was given and does not go with another."""
    from .types import InputError

    for name in names:
        if _given(context, name):
            raise InputError(f"--{name.replace('_', '-')}: {why}")


def _given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


@app.command()
def detect(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Image files.")],
    model: Annotated[
        Path,
        typer.Option(help="A trained model's folder, a shipped one's name, or a saved DefendedClassifier."),
    ] = Path("runs/digits"),
    detector: Annotated[
        str | None,
        typer.Option(help="label_margin (the default), global_error, cycle, marginal or 'any_of(NAME,NAME)'."),
    ] = None,
    alpha: Annotated[float | None, typer.Option(help="Bound on the false-alarm rate; 0.05 by default.")] = None,
    data_dir: DataDir = Path("data"),
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Judge image files; exit code 1 when any is rejected.

    A trained model is calibrated first, on the calibration part of the data it was trained on; a saved
    DefendedClassifier is calibrated already. Images are converted to the model's channels and resized.
    """
    from .data import read_images
    from .subject import load_defended

    defended = load_defended(model, detector, alpha, data_dir, device)
    assert defended.image_shape is not None  # every model that can be loaded by path says it
    verdict = defended.inspect(read_images(files, defended.image_shape))
    rows: list[dict[str, Any]] = [
        {
            "file": str(file),
            "label": label,
            "class": defended.classes[label] if defended.classes else None,
            "score": score,
            "p_value": p_value,
            "rejected": rejected,
        }
        for file, label, score, p_value, rejected in zip(
            files,
            verdict.label.tolist(),
            verdict.score.tolist(),
            verdict.p_value.tolist(),
            verdict.rejected.tolist(),
            strict=True,
        )
    ]
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        width = max(len(row["file"]) for row in rows)
        print(f"{'file':<{width}}  {'label':>8}  {'score':>10}  {'p-value':>8}  verdict")
        for row in rows:
            name = row["label"] if row["class"] is None else row["class"].split(" - ")[0]
            judged = "rejected" if row["rejected"] else "accepted"
            print(f"{row['file']:<{width}}  {name:>8}  {row['score']:>10.4g}  {row['p_value']:>8.4f}  {judged}")
    if verdict.rejected.any():
        raise typer.Exit(1)


@app.command()
def figures(
    model: Annotated[
        Path | None,
        typer.Option(help="A trained model, or a shipped one's name; by default style-memory/DATA, or one is trained."),
    ] = None,
    data: Data = None,
    data_dir: DataDir = Path("data"),
    figure: Annotated[
        list[str] | None,
        typer.Option(
            help="reconstruction, misclassified, neighbours, interpolation, style_transfer or leakage; repeatable; "
            "all by default."
        ),
    ] = None,
    base: Annotated[
        list[int] | None,
        typer.Option(help="Index of a test image whose neighbours to find; repeatable, random by default."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write to; runs/figures/DATA by default.")] = None,
    seed: Annotated[int, typer.Option(help="Of what is drawn at random.")] = 0,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Draw and measure what a style-memory network makes of images: the experiments of its paper, and more.

    Writes each figure as PNG and SVG, and everything that was measured to figures.json; what is done is not done again.
    """
    from .figures import chosen

    names = chosen(figure)
    from .files import check_writable, slug
    from .models import shipped
    from .subject import load_subject

    if out is not None:
        check_writable(out)
    own = f"style-memory/{data}"
    if model is None and own in shipped.names():
        model = Path(own)
    subject = load_subject(model, data, data_dir, device)
    folder = out or Path("runs/figures") / slug(subject.data.name)
    from .figures import make, report

    title = str(model or subject.name)
    further = {"neighbours": {"base": base}} if base else None
    made = make(subject.model, subject.data, folder, names, title=title, seed=seed, arguments=further)
    print(json.dumps(made, indent=2) if as_json else report(made, names, folder))


@app.command(name="models")
def list_models(as_json: Json = False) -> None:
    """List the trained models that come with the package, for --model and `robustrecon.load`."""
    from .models import shipped

    rows = shipped.catalogue()
    print(json.dumps(rows, indent=2) if as_json else shipped.listing(rows))


@app.command(name="attacks")
def list_attacks() -> None:
    """List the attacks with their engines and where they were published, and the checks that every one undergoes."""
    from attacks import CATALOGUE, CHECKS

    for name, entry in CATALOGUE.items():
        print(f"{name}: {entry.description}")
        print(f"    engines: {', '.join(entry.engines)}")
        print(f"    {entry.citation}")
    print("\nchecks of attack failure:")
    for name, explanation in CHECKS.items():
        print(f"    {name}: {explanation}")


@app.command(name="detectors")
def list_detectors() -> None:
    """List the detectors with what they compute and where it was published."""
    from .detectors import listing

    print(listing())


def _first_process() -> bool:
    from lightning_fabric.utilities.rank_zero import rank_zero_only

    return getattr(rank_zero_only, "rank", 0) == 0


def main() -> None:
    """Run the command line: bad input is one line on stderr and exit code 2, a stopped run is exit code 130."""
    sys.path.insert(0, "")  # --attack module:factory finds a module in the current folder
    try:
        code = app(standalone_mode=False) or 0
    except typer.TyperException as error:
        code = _fail(error.format_message()) if error.format_message() else 2  # no command: the help is printed
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except ValueError as error:
        from .types import InputError

        if not isinstance(error, InputError):
            raise
        code = _fail(str(error))
    except OSError as error:
        code = _fail(f"{error.filename or 'file'}: {error.strerror or error}")
    if code == 130:  # typer gives it for a keyboard interrupt too
        print("robustrecon: stopped; finished work is kept (train goes on with --resume)", file=sys.stderr)
    sys.exit(code)


def _fail(message: str) -> int:
    if os.environ.get("LOCAL_RANK", "0") == "0":  # one process of several speaks
        print(f"robustrecon: error: {' '.join(message.split())}", file=sys.stderr)
    return 2
