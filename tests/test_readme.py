"""README and CONTRIBUTING tell the truth: their code runs, their tables are those of the result files."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import readme  # noqa: E402


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text()
    return [textwrap.dedent(block) for block in re.findall(rf"^ *```{language}\n(.*?)^ *```", text, re.M | re.S)]


def test_python_blocks_of_the_readme_run(model_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(model_dir, tmp_path / "runs" / "digits")
    wrap, plain, own = blocks("README.md", "python")
    checks = (
        "assert len(labels) == len(verdict) == len(logits) == len(data.test)",
        "assert outcome.success.float().mean() > 0.8",
        "assert (defended.predict(data.test.x) == data.test.y).double().mean() > 0.8",
    )
    for code, check in zip((wrap, plain, own), checks, strict=True):
        done = subprocess.run(
            [sys.executable, "-c", f"{code}\n{check}\n"], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert re.search(r"\| selective-40( bf16)? +\| yes", done.stdout)


def test_commands_of_the_readme_exist() -> None:
    commands = [line.split("#")[0].split() for block in blocks("README.md", "sh") for line in block.splitlines()]
    ours = [command for command in commands if command and command[0] == "robustrecon"]
    assert ours
    for command in ours:
        done = subprocess.run(
            [sys.executable, "-m", *command[:2], "--help"], capture_output=True, text=True, check=False
        )
        for option in [word for word in command if word.startswith("--")]:
            assert option in done.stdout, f"{command[1]} has no {option}"
    targets = [command[1] for command in commands if command and command[0] == "make"]
    for target in targets:
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M), f"no target {target}"


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
