"""The command line: it parses, calls the library and prints. Nothing heavy is imported before it is needed."""

from __future__ import annotations

import io
import os
import sys
import traceback
from typing import Annotated

import typer

from . import app as app_command
from . import bench, calibrate, detect, export, figures, graft, lists, sample, submit, table, train, visualize

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (
    train.train,
    graft.graft,
    bench.bench,
    table.table,
    submit.submit,
    calibrate.calibrate,
    detect.detect,
    export.export,
    figures.figures,
    sample.sample,
    visualize.visualize,
    app_command.app,
):
    app.command()(command)
for name, listing in (
    ("models", lists.list_models),
    ("attacks", lists.list_attacks),
    ("detectors", lists.list_detectors),
):
    app.command(name=name)(listing)


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


def main() -> None:
    """Run the command line.

    Bad input is one line on stderr and exit code 2, a stopped run is exit code 130, and an error of this library is a
    traceback and exit code 3, so that nobody takes it for a verdict.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may know fewer letters than a class name has
            stream.reconfigure(errors="backslashreplace")
    sys.path.append("")  # --attack module:factory finds a module in the current folder, after this library's own
    try:
        code = app(standalone_mode=False) or 0
    except typer.TyperException as error:
        code = _fail(error.format_message()) if error.format_message() else 2  # no command: the help is printed
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except OSError as error:
        code = _fail(f"{error.filename or 'output'}: {error.strerror or error}")
        code = code if error.filename else 3  # what is printed cannot be: no fault of the input
    except Exception as error:
        from ..types import InputError

        if isinstance(error, InputError):
            code = _fail(str(error))
        else:
            traceback.print_exc()
            code = 3
    if code == 130:  # typer gives it for a keyboard interrupt too
        print("robustrecon: stopped; finished work is kept (train goes on with --resume)", file=sys.stderr)
    sys.exit(code)


def _fail(message: str) -> int:
    if os.environ.get("LOCAL_RANK", "0") == "0":  # one process of several speaks
        print(f"robustrecon: error: {' '.join(message.split())}", file=sys.stderr)
    return 2
