"""Reading a suite, a TOML file of models and attacks; all of it is checked before anything runs."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from ...attacks import PRECISIONS
from ...data import DATASETS
from ...detectors import DEFAULTS
from ...files import check_suite
from ...types import InputError, check_fraction, unknown_name
from ..key import budget, false_alarms
from ..plan import AttackConfig, check_detectors

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SUITE_KEYS = ("data", "n", "alpha", "correct_only", "seed", "precision", "forced_rejection", "model", "attack")
FOLDER = "folder:"
MODEL_KEYS = ("name", "detectors", "n")
ATTACK_KEYS = ("name", "norm", "eps", "engine", "parameters", "n", "models", "precision", "unseen")

Asked: TypeAlias = tuple[AttackConfig, list[str], bool]
"""An attack, the names of the models that it is for (none for all), and whether its budget is marked unseen."""


@dataclass(frozen=True)
class SuiteModel:
    """A model of a suite.

    Attributes:
        name: a shipped model, a folder or a file; None for the default model for the data.
        detectors: names of scores.
        n: the first n test images.
        attacks: what it meets, an entry for each eps; their `n` is the most images, of the model's own n.
        unseen: the budgets (norm, eps) that training did not see, by what the attacks' tables say.
        default_attacks: whether the attacks are those of the default worst case, which has more of them for a model
            with a front end.
    """

    name: str | None
    detectors: tuple[str, ...]
    n: int
    attacks: tuple[AttackConfig, ...] = ()
    unseen: frozenset[tuple[str, float]] = frozenset()
    default_attacks: bool = False


@dataclass(frozen=True)
class Suite:
    """What a suite's file says.

    Attributes:
        path: the file.
        data: the data set's name; None for that of the models.
        alpha: bound on the false-alarm rate.
        models: what is attacked, and with what.
        precision: of all attacks, where it was given instead of what the file says.
        correct_only: whether alpha bounds the rate among the images that a model labels right.
        forced_rejection: images on which rejections are forced at every budget; 0 for none.
    """

    path: Path
    data: str | None
    alpha: float
    models: tuple[SuiteModel, ...]
    precision: str | None = None
    correct_only: bool = False
    forced_rejection: int = 0

    @property
    def false_alarms(self) -> str:
        """What reports call the calibration."""
        return false_alarms(self.alpha, self.correct_only)


def read_suite(path: str | Path, precision: str | None = None) -> Suite:
    """Read a suite and check all of it: every attack is made once.

    Args:
        path: the TOML file. At its top `data`, `n` (1000), `alpha` (0.05), `correct_only` (false), `seed` (0),
            `precision` ("auto") and `forced_rejection` (0, a number of images); a table [[model]] for each model, with
            `name`, `detectors` (names or `module:factory`; label_margin and global_error by default) and `n`, none for
            the default model; a table [[attack]] for each attack, with `name`, `eps` (a number or several), `norm`
            ("linf"), `engine`, `parameters`, `n`, `precision`, `models` (names of those that it is for, all by default)
            and `unseen` (false; true where training did not see these budgets, which tables then say).
        precision: in which all attacks search, instead of what the file says.

    Raises:
        InputError: no such file, not TOML, an unknown key or name, a value of the wrong type or out of range, the
            same attack twice on a model, or a model without any.
    """
    path = Path(path)
    check_suite(path)
    top = _Table(_parsed(path), str(path), SUITE_KEYS)
    n, seed = top.whole("n", 1000, least=1), top.whole("seed", 0, least=0)
    data = top.text("data")
    if data is not None and not data.startswith(FOLDER) and data not in DATASETS:
        unknown_name(f"{path}: data", data, [*DATASETS, FOLDER + "PATH"])
    with top.saying_where():
        alpha = check_fraction(top.value("alpha", 0.05, (float,)), "alpha")
    correct_only: bool = top.value("correct_only", False, (bool,))
    models = [
        SuiteModel(table.text("name"), _detectors(table), table.whole("n", n, least=1))
        for table in top.tables("model", MODEL_KEYS)
    ]
    if not models:
        models = [SuiteModel(None, DEFAULTS, n)]
    most = max(model.n for model in models)
    usual, tables = top.precision("auto"), top.tables("attack", ATTACK_KEYS)
    config = [each for table in tables for each in _attacks(table, seed, most, models, usual)]
    if precision is not None:
        config = [(replace(each, precision=precision), names, unseen) for each, names, unseen in config]
    if not config:
        raise InputError(f"{path}: attack: got none, must be at least one [[attack]] table")
    met = tuple(_meeting(model, config, path) for model in models)
    return Suite(path, data, alpha, met, precision, correct_only, top.whole("forced_rejection", 0, least=0))


def _meeting(model: SuiteModel, config: list[Asked], path: Path) -> SuiteModel:
    """The model with the attacks that are for it."""
    here = [(each, unseen) for each, names, unseen in config if not names or model.name in names]
    meets = [each for each, _ in here]
    if not meets:
        raise InputError(f"{path}: model: no attack is for {model.name}, must be at least one")
    files = [file for each in meets for file in _files(each)]
    for each in meets:
        if any(files.count(file) > 1 for file in _files(each)):
            raise InputError(f"{path}: attack: got {each.name} {budget(each.norm, each.eps)} twice, must be there once")
    marked = frozenset((each.norm, each.eps) for each, unseen in here if unseen)
    return replace(model, attacks=tuple(meets), unseen=marked)


def _files(config: AttackConfig) -> set[Path]:
    """Where an attack's result may be stored; "auto" may come to either precision."""
    precisions = ("float32", "bfloat16") if config.precision == "auto" else (config.precision,)
    return {config.key(precision=precision).path for precision in precisions}


def _parsed(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise InputError(f"suite: {path} cannot be read ({error.strerror})") from error
    except ValueError as error:  # not UTF-8, or not TOML
        raise InputError(f"suite: {path} is not TOML ({error})") from error


def _detectors(table: _Table) -> tuple[str, ...]:
    names = table.several("detectors", str, list(DEFAULTS))
    with table.saying_where():
        check_detectors(names)
    return tuple(dict.fromkeys(names))


def _attacks(table: _Table, seed: int, most: int, models: Sequence[SuiteModel], usual: str) -> list[Asked]:
    """One attack at each of its eps."""
    name, norm, engine = table.text("name"), table.text("norm") or "linf", table.text("engine")
    n, parameters = table.whole("n", most, least=1), table.value("parameters", {}, (dict,))
    precision = table.precision(usual)
    if name is None:
        raise InputError(f"{table.where}: name: is missing")
    with table.saying_where():
        config = [
            AttackConfig(name, float(eps), norm, engine, seed, n, parameters, precision)
            for eps in dict.fromkeys(table.several("eps", float, []))
        ]
        for each in config:
            _ = each.attack
    chosen = table.several("models", str, []) if "models" in table.values else []
    for model in chosen:
        if model not in (names := [each.name for each in models if each.name]):
            unknown_name(f"{table.where}: models", model, names)
    unseen: bool = table.value("unseen", False, (bool,))
    return [(each, chosen, unseen) for each in config]


class _Table:
    """A table of the file, whose errors say where they are."""

    def __init__(self, values: Any, where: str, keys: Iterable[str]) -> None:
        if not isinstance(values, Mapping):
            raise InputError(f"{where}: got {values!r}, must be a table")
        self.values, self.where = values, where
        for key in values:
            if key not in keys:
                unknown_name(f"{where}: key", key, keys)

    def tables(self, key: str, keys: Iterable[str]) -> list[_Table]:
        """Those of an array of tables."""
        found = self.value(key, [], (list,))
        return [_Table(values, f"{self.where}: {key} {index}", keys) for index, values in enumerate(found, 1)]

    def value(self, key: str, default: Any, kinds: tuple[type, ...]) -> Any:
        """A value of one of these types; a whole number is a number, a truth value is none."""
        found = self.values.get(key, default)
        allowed = (*kinds, int) if float in kinds else kinds
        if found is not default and (not isinstance(found, allowed) or (isinstance(found, bool) and bool not in kinds)):
            names = " or ".join(_KINDS[kind] for kind in kinds)
            raise InputError(f"{self.where}: {key}: got {found!r}, must be {names}")
        return found

    def text(self, key: str) -> str | None:
        found: str | None = self.value(key, None, (str,))
        return found

    def precision(self, default: str) -> str:
        found: str = self.value("precision", default, (str,))
        if found not in PRECISIONS:
            unknown_name(f"{self.where}: precision", found, PRECISIONS)
        return found

    def whole(self, key: str, default: int, least: int) -> int:
        found: int = self.value(key, default, (int,))
        if found < least:
            raise InputError(f"{self.where}: {key}: got {found}, must be at least {least}")
        return found

    def several(self, key: str, kind: type, default: list[Any]) -> list[Any]:
        """One value or a list of them."""
        found = self.value(key, default, (kind, list))
        found = found if isinstance(found, list) else [found]
        if not found:
            raise InputError(f"{self.where}: {key}: must be at least one")
        for each in found:
            _Table({key: each}, self.where, [key]).value(key, None, (kind,))
        return found

    @contextlib.contextmanager
    def saying_where(self) -> Iterator[None]:
        """An error inside says where the table is."""
        try:
            yield
        except InputError as error:
            where = "" if str(error).startswith(self.where) else f"{self.where}: "
            raise InputError(f"{where}{error}") from error


_KINDS: dict[type, str] = {
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "a table",
}
