"""Tables and reports, made from results alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...files import atomic_write
from .. import store
from ..key import CellKey, attack_title, budget
from . import examples as plots

Result = dict[str, Any]

BLIND = (
    "Not every detector here was attacked by an attack that knows it. The others say what a detector sees of "
    "attacks on the classifier alone; an adversary who attacks both together does better, so read the robust risk "
    "as a lower bound. Add `--attack selective`."
)
AWARE = (
    "The attacks that know the detector are the ones to judge it by; an adversary may be better still, so read the "
    "robust risk as a lower bound."
)
DEFINITIONS = """\
- **aware**: whether the attack knows the detector.
- **clean acc.**, **clean rej.**: accuracy and rejection rate on the clean images.
- **acc.**: accuracy under attack; an image that was wrong when clean is not attacked and counts as wrong.
- **success (n)**: share, and number, of the images classified correctly when clean that end with a wrong label.
- **AUROC**: of the score, clean images against successful adversarial ones; **AUROC all**: against all of them.
- **TPR @ 5 %**: share of successful attacks with a score above what 5 % of the clean images exceed.
- **undetected**: share of all images that end with a wrong label and are accepted.
- **robust risk**: share of images that are wrong or rejected when clean, or end wrong and accepted; with its 95 %
  Clopper-Pearson interval.
- **checks**, **†**: signs that the attack failed rather than that the defence held; a dash where none fired."""


def percent(value: float | None) -> str:
    """A rate for a table; a dash where there is none."""
    return "–" if value is None else f"{100 * value:.1f} %"


def bounded(value: float, interval: Sequence[float]) -> str:
    """A rate with its interval for a table."""
    low, high = interval
    return f"{percent(value)} [{100 * low:.1f}, {100 * high:.1f}]"


def decimals(value: float | None) -> str:
    """An AUROC for a table; a dash where there is none."""
    return "–" if value is None else f"{value:.4f}"


def doubted(title: str, checks: Sequence[object]) -> str:
    """A title with a dagger where checks fired."""
    return f"{title} †" if checks else title


def risk(result: Result) -> str:
    """The robust risk for a table, with its interval."""
    return bounded(result["robust_risk"], result["intervals"]["robust_risk"])


COLUMNS: dict[str, Callable[[Result], str]] = {
    "attack": lambda result: doubted(attack_title(result["spec"]), result["checks"]),
    "aware": lambda result: "yes" if result["knows_detector"] else "no",
    "budget": lambda result: budget(result["spec"]),
    "detector": lambda result: result["spec"]["detector"],
    "clean acc.": lambda result: percent(result["clean"]["accuracy"]),
    "clean rej.": lambda result: percent(result["clean"]["rejection_rate"]),
    "acc.": lambda result: percent(result["attack"]["accuracy"]),
    "success (n)": lambda result: f"{percent(result['attack']['success_rate'])} ({n_fell(result)})",
    "AUROC": lambda result: decimals(result["detection"]["auroc_success"]),
    "AUROC all": lambda result: decimals(result["detection"]["auroc_all"]),
    "TPR @ 5 %": lambda result: percent(result["detection"]["tpr_at_fpr"]["0.05"]),
    "undetected": lambda result: percent(result["detection"]["undetected_success"]),
    "robust risk": risk,
    "checks": lambda result: ", ".join(sign["name"] for sign in result["checks"]) or "–",
}


def rows(results: Sequence[Result], columns: Mapping[str, Callable[[Result], str]] = COLUMNS) -> list[list[str]]:
    """A heading, and a row a cell; a cell that failed has none, see `failures`."""
    measured = store.measured(results)
    return [list(columns), *([column(result) for column in columns.values()] for result in measured)]


def table(results: Sequence[Result]) -> str:
    """Those as a Markdown table."""
    return grid(rows(results))


def failures(results: Sequence[Result]) -> list[str]:
    """The cells that could not be measured and why, as a part of a report; none where there are none."""
    lines = [f"- {_named(result['spec'])}: {result['error']}" for result in results if store.is_failed(result)]
    return ["Cells that FAILED, so that no figure here speaks of them:\n\n" + "\n".join(lines)] if lines else []


def _named(spec: dict[str, Any]) -> str:
    """A cell in words."""
    place = f"{spec['model']} on {spec['data']}, n = {spec['n']}"
    return f"{attack_title(spec)}, {budget(spec)}, {spec['detector']} ({place})"


def grid(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table of a heading and rows, padded so that it also reads well as plain text."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def summary(results: Sequence[Result]) -> str:
    """What the rows of a table have in common, in a line."""
    spec = results[0]["spec"]
    engines = dict.fromkeys(f"{result['spec']['attack']} by {_engine(result['spec'])}" for result in results)
    return (
        f"{spec['data']}, {spec['model']}: the first {spec['n']} test images; detectors calibrated to a false-alarm "
        f"rate of {spec['alpha']:g}; {', '.join(engines)}."
    )


def n_fell(result: Result) -> int:
    """How many images the attack turned from right to wrong: what the detection figures rest on."""
    images = result["images"]
    columns = zip(images["y"], images["clean_label"], images["label"], strict=True)
    return sum(clean == y != label for y, clean, label in columns)


def caveat(results: Sequence[Result]) -> str:
    """How far the figures can be trusted."""
    measured = store.measured(results)
    met = {result["spec"]["detector"] for result in measured if result["knows_detector"]}
    return AWARE if met == {result["spec"]["detector"] for result in results} else BLIND


def _engine(spec: dict[str, Any]) -> str:
    return "this library" if spec["engine"] == "own" else spec["engine"] or "the user"


def markdown(results: Sequence[Result], examples: bool = True) -> str:
    """The report of one model on one data set; `examples` says whether there is a sheet of them."""
    environment = results[0]["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items())
    spec = results[0]["spec"]
    parts = [
        f"# {spec['model']} on {spec['data']}",
        summary(results),
        table(results),
        f"**{caveat(results)}**",
        DEFINITIONS,
        *failures(results),
        *fired(results),
        "![ROC curves](roc.png)",
        *(["![Examples](examples.png)"] if examples else []),
        f"Commit {environment['commit']}, {environment['device']}, {environment['threads']} threads; {versions}.",
    ]
    return "\n\n".join(parts) + "\n"


def write(root: Path, spec: dict[str, Any], log_x: bool = False) -> list[Path]:
    """Write `report.md` and `roc.png` from all results under `root` that can stand beside that of `spec`.

    They are those for the same data, model, weights, images and false-alarm rate.
    """
    folder = root / CellKey(**spec).folder
    shared = ("weights", "n", "alpha")
    found = [*store.read_all(folder), *store.read_failures(folder)]
    results = [result for result in found if all(result["spec"][key] == spec[key] for key in shared)]
    written = [atomic_write(folder / "report.md", markdown(results, (folder / "examples.png").exists()))]
    measured = store.measured(results)
    return [*written, plots.roc(measured, folder / "roc.png", log_x)] if measured else written


def fired(results: Sequence[Result]) -> list[str]:
    """The checks that fired, as a part of a report; none where none did."""
    lines = [
        f"- {_named(result['spec'])}: {sign['name']}: {sign['message']}"
        for result in store.measured(results)
        for sign in result["checks"]
    ]
    return ["Checks that fired, each a doubt about the row it names:\n\n" + "\n".join(lines)] if lines else []
