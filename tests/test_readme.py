"""README and docs tell the truth: code runs, command lines parse, the tables are those of the result files."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import typer

import robustrecon
from benchmarks import readme
from robustrecon import cli

ROOT = Path(__file__).resolve().parents[1]
NO_COMMAND = ("COMMAND", "--help", "--version")


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text()
    return [textwrap.dedent(block) for block in re.findall(rf"^ *```{language}\n(.*?)^ *```", text, re.M | re.S)]


PAGES = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.py"))


@pytest.mark.parametrize(
    "page", ["README.md", "docs/attacks.md", "docs/graft.md", "docs/libraries.md", "docs/monitoring.md"]
)
def test_python_blocks_run(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    for code in blocks(page, "python"):
        exec(compile(code, page, "exec"), {})
    assert capsys.readouterr().out


def test_pages_with_python_are_run_here_or_where_they_are_copied() -> None:
    assert {page for page in PAGES if blocks(page, "python")} == {
        "README.md",
        "docs/attacks.md",
        "docs/graft.md",
        "docs/libraries.md",
        "docs/monitoring.md",
        "CONTRIBUTING.md",
    }


@pytest.mark.slow
@pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda path: path.stem)
def test_tutorials_run(tutorial: Path, tmp_path: Path) -> None:
    environment = os.environ | {"MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(tutorial)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def commands(page: str) -> list[list[str]]:
    """The command lines of a page: in blocks, and among the text in backticks or, in a tutorial, in double ones."""
    text = (ROOT / page).read_text()
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    spans = re.findall(r"``?((?:robustrecon|make) [^`]+)`", re.sub(r"\n#? *", " ", text))
    return [words for line in [*lines, *spans] if (words := shlex.split(line, comments=True))]


@pytest.mark.parametrize("page", [*PAGES, *(str(path.relative_to(ROOT)) for path in TUTORIALS)])
def test_command_lines_parse(page: str) -> None:
    app = typer.main.get_command(cli.app)
    targets = set(re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), re.M))
    for words in commands(page):
        if words[0] == "make":
            assert {word for word in words[1:] if "=" not in word} <= targets, words
        elif words[0] == "robustrecon" and words[1] not in NO_COMMAND:
            assert words[1] in app.commands, words
            app.commands[words[1]].make_context(words[1], words[2:])


def test_the_readme_is_short() -> None:
    text = re.sub(r"<!-- ([\w ]+): start -->.*?<!-- \1: end -->", "", (ROOT / "README.md").read_text(), flags=re.S)
    assert len(text.split()) <= 900


def test_the_version_is_said_alike() -> None:
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.search(rf"^version: {re.escape(robustrecon.__version__)}$", citation, re.M)
    assert f"## {robustrecon.__version__}\n" in (ROOT / "CHANGELOG.md").read_text()


def test_tables_are_those_of_the_result_files() -> None:
    for page in readme.pages(ROOT):
        text = page.read_text()
        assert text == readme.rewritten(text, ROOT / "results"), f"{page.name}: run `make readme`"


@pytest.mark.parametrize("model", ["digits", "mnist"])
def test_results_are_whole_and_agree_with_their_images(model: str) -> None:
    from robustrecon.bench import measure, store

    cells = store.read_folder(ROOT / "results" / model).results
    wanted = {
        (attack, eps, detector)
        for attack in ("fgsm", "pgd")
        for eps in (0.1, 0.2, 0.3)
        for detector in ("label_margin", "global_error")
    }
    assert wanted <= {(cell.key.attack, cell.key.eps, cell.key.detector) for cell in cells}
    for cell in cells:
        again = measure(cell.images, cell.metrics.threshold)
        assert flat(cell.metrics.to_json()) == pytest.approx(flat(again.to_json())), cell.key


def flat(figures: object, name: str = "") -> dict[str, object]:
    """Nested figures by dotted name."""
    if isinstance(figures, dict):
        return {key: value for part, inner in figures.items() for key, value in flat(inner, f"{name}.{part}").items()}
    if isinstance(figures, list):
        return flat(dict(enumerate(figures)), name)
    return {name: figures}


def test_every_public_name_has_a_docstring() -> None:
    import attacks
    import robustrecon

    for package in (robustrecon, attacks):
        for name in package.__all__:
            if name not in ("CATALOGUE", "CHECKS", "RENAMED_PARAMETERS"):
                assert (getattr(package, name).__doc__ or "").strip(), name
