"""What a submission says of its defence, in a TOML file beside its results; known without importing torch."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from ...types import InputError, unknown_name
from ..fields import Fields, Json, WrongJson

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ABOUT_FILE = "defence.toml"


@dataclass(frozen=True)
class Defence:
    """A defence as the leaderboard names it.

    Attributes:
        name: of the defence, or the title of its paper.
        authors: their names, with commas between.
        architecture: of the classifier and of what the detector adds to it.
        additional_data: whether it was trained on more than the data set's training part.
        link: to the paper or the code; empty where there is none.
        venue: where it was published; empty where it was not.
        footnote: what a reader of the figures must know; may be empty.
    """

    name: str
    authors: str
    architecture: str
    additional_data: bool
    link: str = ""
    venue: str = ""
    footnote: str = ""

    def to_json(self) -> dict[str, Json]:
        return asdict(self)

    @classmethod
    def from_fields(cls, given: Fields) -> Defence:
        """The defence among the values of an object.

        Raises:
            WrongJson: a value that is missing or of another type.
        """
        maybe = {name: given.text(name) for name in ("link", "venue", "footnote") if name in given}
        texts = {name: given.text(name) for name in ("name", "authors", "architecture")}
        for name, value in texts.items():
            if not value.strip():
                raise WrongJson(f"{name}: got '', must be a text")
        return cls(**texts, additional_data=given.flag("additional_data"), **maybe)


def read_about(folder: Path) -> Defence:
    """What the file `defence.toml` in a folder of results says.

    Raises:
        InputError: no such folder or file, or one that is not TOML, lacks a key, or has one that is unknown or of
            another type.
    """
    if not folder.is_dir():
        raise InputError(f"folder: no folder {folder}")
    path = folder / ABOUT_FILE
    if not path.is_file():
        raise InputError(f"folder: {folder} has no {ABOUT_FILE}, which says whose defence it is; see CONTRIBUTING.md")
    try:
        values = tomllib.loads(path.read_text())
    except ValueError as error:  # not UTF-8, or not TOML
        raise InputError(f"{path}: is not TOML ({error})") from error
    known = [each.name for each in fields(Defence)]
    for key in values:
        if key not in known:
            unknown_name(f"{path}: key", key, known)
    try:
        return Defence.from_fields(Fields(values, ABOUT_FILE))
    except WrongJson as error:
        raise InputError(f"{path}: {error}") from error
