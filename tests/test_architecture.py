"""Dependencies point one way, and nothing heavy is imported before it is needed."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = [
    {"attacks"},
    {"types"},
    {"files", "provenance", "runtime", "statistics"},
    {"checkpoint", "data", "detectors", "plotting", "sampling"},
    {"models"},
    {"training"},
    {"defence"},
    {"bench"},
    {"figures", "interop"},
    {"app"},
    {"cli"},
]
RANK = {module: rank for rank, layer in enumerate(LAYERS) for module in layer}
MODULES = sorted((ROOT / "robustrecon").rglob("*.py"))
ENTRANCES = {"__init__.py", "__main__.py"}


def imported(path: Path) -> set[str]:
    """Full names of what a file imports, anywhere in it."""
    package = path.relative_to(ROOT).parent.parts
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1]] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            names |= {f"{stem}.{alias.name}" for alias in node.names}
    return names


def part_of(path: Path) -> str:
    return path.relative_to(ROOT / "robustrecon").parts[0].removesuffix(".py")


@pytest.mark.parametrize(
    "path",
    [path for path in MODULES if not (path.parent.name == "robustrecon" and path.name in ENTRANCES)],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_imports_only_from_the_left(path: Path) -> None:
    here = part_of(path)
    for name in imported(path):
        if name.startswith("robustrecon."):
            there = name.split(".")[1]
            assert there == here or RANK[there] < RANK[here], f"{here} imports {there}"


@pytest.mark.parametrize("path", sorted((ROOT / "attacks").rglob("*.py")), ids=lambda path: path.name)
def test_attacks_never_import_the_defence(path: Path) -> None:
    assert not [name for name in imported(path) if name.split(".")[0] == "robustrecon"]


SHARED = {
    f"robustrecon.attacks.{name}"
    for name in (
        "InputError",
        "art_estimator",
        "bfloat16_unit",
        "check_images",
        "evaluating",
        "frozen",
        "import_factory",
        "nearest",
        "seed_everything",
        "seeded",
        "unknown_name",
    )
}


def test_only_bench_and_those_beyond_it_run_attacks() -> None:
    """The others take from `attacks` what is no attack: errors, checks of arguments, modes and seeds."""
    taken = {(part_of(path), name) for path in MODULES for name in imported(path)}
    users = {part for part, name in taken if name.startswith("robustrecon.attacks") and name not in SHARED}
    assert users <= {"bench", "app", "cli"}


def test_attacks_are_imported_under_the_name_that_nothing_else_has() -> None:
    users = {path.name for path in MODULES for name in imported(path) if name.split(".")[0] == "attacks"}
    assert users == {"attacks.py"}


def test_torchvision_has_one_door() -> None:
    users = {path.name for path in MODULES for name in imported(path) if name.split(".")[0] == "torchvision"}
    assert users == {"_torchvision.py"}


def test_no_file_is_long() -> None:
    files = [*MODULES, *(ROOT / "attacks").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    assert [path.name for path in files if len(path.read_text().splitlines()) > 400] == []


PRIVATE = re.compile(r"\b(misread|hunt|pursuit|pursues|climb|praise|leeway)\b", re.I)


def test_names_and_prose_use_the_words_of_the_field() -> None:
    files = [*MODULES, *(ROOT / "attacks").rglob("*.py")]
    assert [path.name for path in files if PRIVATE.search(path.read_text())] == []


def test_results_are_typed() -> None:
    files = (ROOT / "robustrecon" / "bench").rglob("*.py")
    assert [path.name for path in files if "dict[str, Any]" in path.read_text()] == []


QUICK = [
    ["--help"],
    ["bench", "--help"],
    ["bench", "--nonsense"],
    ["bench", "--norm", "l7"],
    ["bench", "--eps", "8/0"],
    ["bench", "--attack", "pdg"],
    ["bench", "--detector", "nope"],
    ["bench", "--n", "0"],
    ["bench", "--format", "cvs"],
    ["bench", "--suite", "nowhere.toml"],
    ["figures", "--figure", "neighbors"],
    ["bench", "--suite", "nowhere.toml", "--eps", "0.1"],
    ["bench", "--workers", "2"],
    ["bench", "--worst-case-only", "--plan"],
    ["table", ".", "--format", "latx"],
    ["table", "nowhere"],
    ["bench", "--detector", "nowhere:score"],
    ["submit", "nowhere"],
    ["submit", "tests"],
]


@pytest.mark.parametrize("arguments", QUICK, ids=" ".join)
def test_help_and_wrong_arguments_import_nothing_heavy(arguments: list[str]) -> None:
    code = f"""
import sys
sys.argv = ["robustrecon", *{arguments}]
from robustrecon.cli import main
try:
    main()
except SystemExit:
    pass
heavy = {{"torch", "numpy", "art", "torchattacks", "matplotlib", "pandas", "sklearn", "scipy"}} & set(sys.modules)
print("heavy:", *heavy, file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "heavy:"


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import robustrecon, sys; print({'torch', 'numpy', 'typer'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
