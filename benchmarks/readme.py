"""Write the tables of README.md and docs/ from the files in results/: `python -m benchmarks.readme`.

A page has a table where it has its marks, `<!-- NAME: start -->` and `<!-- NAME: end -->`, with a NAME of `TABLES`.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from robustrecon.bench import store
from robustrecon.bench.frame import frame_of
from robustrecon.bench.key import budget
from robustrecon.bench.leaderboard import report as leaderboard
from robustrecon.bench.leaderboard.board import read_board
from robustrecon.bench.report import cells, text, worst_tables
from robustrecon.bench.report.cells import Row
from robustrecon.bench.report.suite import SuiteReport
from robustrecon.bench.worst_case import WorstCase, worst_case
from robustrecon.files import atomic_write

from . import (
    classifier_table,
    detector_tables,
    egc_choices,
    energy_models,
    forced,
    graft_cost,
    graft_tables,
    label_counts,
    nonsense,
    sample_quality,
)
from .graft_tables import System
from .speed.report import SpeedReport
from .speed.tables import tables

ROOT = Path(__file__).resolve().parents[1]
PICTURE = "docs/images/examples.png"  # made by benchmarks/readme_picture.py, with a file of what it shows
DETECTORS = ("label_margin", "global_error")
WORST_CASE = """\
With 95 % Clopper-Pearson intervals. †: all attacks that know the detector tripped a failure check, so the figure may be
too low. A better attack may exist: the figures are lower bounds, and better attacks are welcome. How many images each
attack saw and broke, the curves, and the broken images: `results/robust/report.md`. `make robust DATA_DIR=...` makes it
again from the shipped networks. What each round of training adds: `results/robust/networks.md`; what each part of the
recipe adds: `results/robust/ablation.md`."""
_ALONE = "grafted/mnist-test/benchmarks.grafted-classifier/logit_margin"
GRAFTED_SYSTEMS = (
    System("alone, undefended", _ALONE, undefended=True),
    System("alone, judged by its own confidence", _ALONE),
    System("grafted, `label_margin`, no training", "grafted/mnist-test/benchmarks.grafted-grafted/label_margin"),
)
_DEFAULT = "grafted/default/mnist-test/benchmarks.grafted-grafted"
DEFAULT_SYSTEMS = (
    System("`label_margin` alone", f"{_DEFAULT}/label_margin"),
    System("the default", f"{_DEFAULT}/any_of-label_margin-0-free_energy-0-max_logit"),
)
TRAINED = System(
    "grafted, `label_margin`, a drawer trained for it",
    "grafted/trained/mnist-test/benchmarks.grafts-digits_refined/label_margin",
)
FOREIGN = ("foreign classifier, undefended", "foreign classifier, own confidence", "foreign classifier, grafted")
GRAFTED = "MNIST test images."
_CIFAR = "grafted/cifar10/cifar10-images/benchmarks.grafts-small_cnn"
CIFAR_SYSTEMS = (
    System("small CNN, undefended", f"{_CIFAR}/logit_margin", undefended=True),
    System("small CNN, own confidence", f"{_CIFAR}/logit_margin"),
    *(
        System(f"grafted, {title}", f"{_CIFAR}_{name}/label_margin")
        for title, name in {
            "pixels, contrastive": "pixels_contrastive",
            "pixels, robust": "pixels_robust",
            "a layer, contrastive": "layer_contrastive",
            "a layer, robust": "layer_robust",
        }.items()
    ),
)
CIFAR = "The part of CIFAR-10 that `cifar10-images` names."
_LETTERS = "grafted/letters/emnist-letters/benchmarks.grafts-letters"
LETTERS_SYSTEMS = (
    System("plain CNN, undefended", f"{_LETTERS}_cnn/logit_margin", undefended=True),
    System("plain CNN, own confidence", f"{_LETTERS}_cnn/logit_margin"),
    System("grafted, a drawer trained for it", f"{_LETTERS}_robust/label_margin"),
)
LETTERS = "EMNIST letters, rebuilt split, 26 classes."
STYLE_MEMORY = "style-memory-fast"  # as the suites call it
ENERGY_MODELS = "energy_models"  # folder of results
_OF_ENERGIES = {
    "style memory": STYLE_MEMORY,
    "style memory, contrastive": "style-memory-contrastive",
    "EGC": "egc-egc-large",
    "generative ConvNet": "generative-convnet-generative-convnet",
    "generative gradient": "generative-gradient-generative-gradient",
}
ENERGY_SYSTEMS = tuple(
    System(f"{title}, {kind}", f"{ENERGY_MODELS}/mnist/{model}/{detector}")
    for title, model in _OF_ENERGIES.items()
    for kind, detector in {"reconstruction": "label_margin", "joint": "logit_margin"}.items()
)
SUMMARY_DATA, SUMMARY_NORM, SUMMARY_EPS = "mnist", "linf", 0.3
UNDEFENDED = System("undefended classifier", f"robust/{SUMMARY_DATA}/{STYLE_MEMORY}", undefended=True)
NETWORKS = {STYLE_MEMORY: "style memory", "style-memory-robust-refine": "robust network"}
SUMMARY = """\
MNIST, L∞ 0.3, the first n test images. *Robust risk*: the share of them that are wrong or rejected when clean, or that
at least one of the attacks turns into a wrong label that is accepted, with its 95 % interval; a lower bound, since
better attacks may exist. *Aware*: attacks that know the detector. The *undefended classifier* is the style memory
without its detector. The *foreign classifier* is digit-recognizer-py's, attacked on a random part of the test images;
*grafted* it has the robust network beside it, without any training."""


def examples(results: Path) -> str:
    """The README's picture, with a caption that says how its images were chosen."""
    told = json.loads((results.parent / PICTURE).with_suffix(".json").read_text())
    caption = (
        f"{told['attack']} (L∞ {told['eps']:g}) turned {told['broken']} of the first {told['n']} MNIST test images "
        f"into other digits for `{told['model']}`, and `{told['detector']}`, at a false-alarm rate of "
        f"{100 * told['alpha']:g} %, rejected {told['rejected']} of these. Shown, from the first "
        f"on: {told['shown_rejected']} that it rejected, {told['shown_accepted']} that it accepted. E is the "
        "reconstruction error under a label; an image is rejected where the predicted label's E exceeds the best other "
        "label's by more than the calibrated threshold. This attack does not know the detector."
    )
    alt = "Clean and adversarial digits, the network's drawings of them under two labels, and the verdicts"
    return f"![{alt}]({PICTURE})\n\n" + textwrap.fill(caption, 120, break_on_hyphens=False)


def summary_table(results: Path) -> str:
    """The README's small table: what the detector and the robust training are worth at one budget."""
    folder = results / "robust"
    report = SuiteReport.from_json(json.loads((folder / "report.json").read_text()))
    by_name = {UNDEFENDED.title: _at_summary(worst_case(graft_tables.cells_of(results, UNDEFENDED)))}
    for model, name in NETWORKS.items():
        of_model = [entry for entry in report.worst_case if (entry.data, entry.model) == (SUMMARY_DATA, model)]
        by_name[name] = _at_summary(of_model)
    for system, name in zip(GRAFTED_SYSTEMS, FOREIGN, strict=True):
        by_name[name] = _at_summary(worst_case(graft_tables.cells_of(results, system)))
    rows = [["", "clean accuracy", "robust risk", "attacks (aware)", "n"]]
    notes = [SUMMARY]
    for name, entry in by_name.items():
        undefended = name in (UNDEFENDED.title, FOREIGN[0])
        attacks = str(len(entry.attacks)) if undefended else f"{len(entry.attacks)} ({len(entry.aware)})"
        risk = graft_tables.worst(entry, undefended)
        rows.append([name, text.percent(entry.clean_accuracy), risk, attacks, f"{entry.n:,}"])
        if entry.images_least < entry.n:
            least = f"the first {entry.images_least:,}, which all saw, the risk is {worst_tables.risk_least(entry)}"
            notes.append(f"Some attacks on the {name} saw fewer images; on {least}.")
    return "\n\n".join([text.grid(rows), textwrap.fill(" ".join(notes), 120)])


def _at_summary(entries: Sequence[WorstCase]) -> WorstCase:
    """The one entry at the budget of the summary."""
    (entry,) = [entry for entry in entries if (entry.norm, entry.eps) == (SUMMARY_NORM, SUMMARY_EPS)]
    return entry


def worst_case_table(results: Path) -> str:
    """The headline: the worst case over all attacks of every suite's report under results/robust."""
    reports = sorted((results / "robust").rglob("report.json"), key=lambda path: (len(path.parts), path))
    if not reports:
        return "No suite has been run in full yet: `make robust` does."
    return f"{_worst_cases(reports)}\n\n{WORST_CASE}"


def grafted_table(results: Path) -> str:
    """A classifier that nobody here trained, alone and grafted."""
    return _risks(results, (*GRAFTED_SYSTEMS, TRAINED), GRAFTED, graft_tables.NOTE)


def grafted_default_table(results: Path) -> str:
    """What it costs under attack to reject what is no member of any class."""
    return _risks(results, DEFAULT_SYSTEMS, GRAFTED, "")


def cifar_table(results: Path) -> str:
    """A classifier of small natural images, alone and with drawers that were trained for it."""
    return _risks(results, CIFAR_SYSTEMS, CIFAR, "")


def letters_table(results: Path) -> str:
    """A classifier of letters, alone and with a drawer that was trained for it."""
    return _risks(results, LETTERS_SYSTEMS, LETTERS, "")


def generative_table(results: Path) -> str:
    """The generative models side by side: results/energy_models/models.json and samples."""
    return energy_models.table(results / ENERGY_MODELS).strip()


def generative_attacks_table(results: Path) -> str:
    """What attacks do to the generative models, under either kind of energies."""
    return _risks(results, ENERGY_SYSTEMS, "MNIST, the first test images.", graft_tables.NOTE)


def colour_samples_table(results: Path) -> str:
    """What an independent classifier reads in samples of other data than MNIST."""
    found = sample_quality.read(results / ENERGY_MODELS)
    return sample_quality.table([each for each in found if each.data != "mnist"]).strip()


def egc_table(results: Path) -> str:
    """What EGC's options are worth."""
    return egc_choices.tables(results / ENERGY_MODELS / "egc").strip()


def label_counts_table(results: Path) -> str:
    """Generative pre-training against none, by the number of labels."""
    return label_counts.table(*label_counts.read(results / ENERGY_MODELS / "label-counts" / "runs.json")).strip()


def _risks(results: Path, systems: Sequence[System], images: str, note: str) -> str:
    """The table of systems, and a note that begins with what the images are and ends with `note`."""
    cells = [cell for system in systems for cell in graft_tables.cells_of(results, system)]
    said = textwrap.fill(f"{images} {graft_tables.calibration(cells)} {note}".strip(), 120)
    return f"{graft_tables.robust_risks(results, systems)}\n\n{said}"


def nonsense_table(results: Path) -> str:
    """Who rejects what is no digit: results/grafted/nonsense.json."""
    return nonsense.table(nonsense.read(results / "grafted" / "nonsense.json"))


def forced_table(results: Path) -> str:
    """How near to the clean image an attacker can have it rejected: results/grafted/forced.json."""
    return forced.table(forced.read(results / "grafted" / "forced.json"))


def graft_cost_table(results: Path) -> str:
    """Seconds and memory an image at 224 pixels: results/grafted/cost.json."""
    return graft_cost.table(graft_cost.read(results / "grafted" / "cost.json"))


def _worst_cases(reports: Sequence[Path]) -> str:
    rows = [
        [
            "data",
            "network",
            "detector",
            "budget",
            "n",
            "clean acc.",
            "clean rej.",
            "robust risk",
            "on those that all attacks saw",
            "attacks",
        ]
    ]
    for path in reports:
        for entry in SuiteReport.from_json(json.loads(path.read_text())).worst_case:
            rows.append(
                [
                    entry.data,
                    entry.model,
                    entry.detector,
                    entry.budget,
                    str(entry.n),
                    text.percent(entry.clean_accuracy),
                    text.percent(entry.clean_rejection_rate),
                    worst_tables.risk(entry),
                    f"{worst_tables.risk_least(entry)}, n = {entry.images_least}",
                    f"{len(entry.attacks)}, {len(entry.aware)} aware",
                ]
            )
    return text.grid(rows)


def results_tables(results: Path) -> str:
    """For each model and data set of single runs a table with a row for each attack and budget."""
    paths = results.glob("*/*/*/*.json")  # results/DATA/MODEL/DETECTOR; suites have folders of their own, deeper
    folders = sorted({path.parent.parent for path in paths if store.read(path) is not None})
    parts = []
    for folder in folders:
        found = store.read_folder(folder).results
        mixed = {(result.key.weights, result.key.n, result.key.alpha) for result in found}
        if len(mixed) > 1:
            raise SystemExit(f"{folder}: holds results of different weights, n or alpha, must be of one: {mixed}")
        parts += [f"**{cells.summary(found)}**", _pivot(list(frame_of(found).itertuples(index=False)))]
    return "\n\n".join(parts)


def leaderboard_table(results: Path) -> str:
    """The entries of results/leaderboard.json, and whose they are."""
    entries = read_board(results / "leaderboard.json")
    notes = [textwrap.fill(line, 120, subsequent_indent="  ") for line in leaderboard.footnotes(entries)]
    return "\n".join([leaderboard.table(entries), "", *notes])


def speed_table(results: Path) -> str:
    """The tables of results/speed.json."""
    return tables(SpeedReport.from_json((results / "speed.json").read_text()))


def _pivot(rows: Sequence[Row]) -> str:
    """A row an attack and budget, three columns a detector."""
    by_key: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        by_key.setdefault((cells.title(row), budget(row.norm, row.eps)), {})[row.detector] = row
    head = ["attack", "aware", "budget", "accuracy"]  # and a dagger where a check fired
    for detector in DETECTORS:
        head += [f"{detector}: AUROC", "undetected", "robust risk"]
    made = [head]
    for (attack, radius), found in by_key.items():
        first = found[DETECTORS[0]]
        title = text.doubted(attack, [row for row in found.values() if row.checks])
        shown = [title, "yes" if first.knows_detector else "no", radius, text.percent(first.accuracy)]
        for detector in DETECTORS:
            row = found[detector]
            shown += [text.decimals(row.auroc_success), text.percent(row.undetected_success), cells.risk(row)]
        made.append(shown)
    return text.grid(made)


TABLES: dict[str, Callable[[Path], str]] = {
    "examples": examples,
    "summary": summary_table,
    "worst case": worst_case_table,
    "grafted": grafted_table,
    "grafted default": grafted_default_table,
    "classifiers": classifier_table.table,
    "cifar": cifar_table,
    "letters": letters_table,
    "nonsense": nonsense_table,
    "detectors before": detector_tables.before,
    "detectors after": detector_tables.after,
    "detectors cifar10 before": partial(detector_tables.before, setting=detector_tables.CIFAR),
    "detectors cifar10 after": partial(detector_tables.after, setting=detector_tables.CIFAR),
    "forced": forced_table,
    "graft cost": graft_cost_table,
    "generative models": generative_table,
    "generative attacks": generative_attacks_table,
    "egc choices": egc_table,
    "samples in colour": colour_samples_table,
    "label counts": label_counts_table,
    "leaderboard": leaderboard_table,
    "results": results_tables,
    "speed": speed_table,
}


def pages(root: Path) -> list[Path]:
    """The pages that may have tables."""
    return [root / "README.md", *sorted((root / "docs").rglob("*.md"))]


def named(page: str) -> list[str]:
    """Which tables a page has marks for."""
    return re.findall(r"^<!-- (.+): start -->$", page, re.M)


def rewritten(page: str, results: Path) -> str:
    """A page with its marked blocks replaced by what the results say.

    Raises:
        SystemExit: a mark that names no table, or a start without an end.
    """
    for name in named(page):
        start, end = f"<!-- {name}: start -->", f"<!-- {name}: end -->"
        if name not in TABLES or page.count(start) != 1 or page.count(end) != 1:
            raise SystemExit(f"{start}: must name one of {', '.join(TABLES)}, and have one end on the page")
        head, _, rest = page.partition(start)
        _, _, tail = rest.partition(end)
        page = f"{head}{start}\n\n{TABLES[name](results)}\n\n{end}{tail}"
    return page


if __name__ == "__main__":
    for path in pages(ROOT):
        if named(page := path.read_text()):
            print(atomic_write(path, rewritten(page, ROOT / "results")))
