"""`robustrecon submit`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .options import Json


def submit(
    folder: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help="Results of one model and detector, with a defence.toml of whose it is."),
    ],
    leaderboard: Annotated[Path, typer.Option(help="The file of entries.")] = Path("results/leaderboard.json"),
    as_json: Json = False,
) -> None:
    """Check a folder of results and enter its worst cases into the leaderboard, one for each norm and eps.

    All cells must be of one data set, model and detector, none failed, and at every norm and eps an attack that knows
    the detector among them. An entry that is there already is replaced.
    """
    from ..bench.leaderboard.about import read_about

    read_about(folder)  # before anything heavy is imported
    from ..bench.leaderboard import report
    from ..bench.leaderboard.submit import submit as enter

    entries = enter(folder, leaderboard)
    if as_json:
        print(json.dumps([entry.to_json() for entry in entries], indent=2))
    else:
        print(report.table(entries), "", leaderboard, sep="\n")
