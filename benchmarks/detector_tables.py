"""Tables of published detectors on one network: against attacks that ignore them, and against those that know them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from robustrecon.bench import store
from robustrecon.bench.key import radius
from robustrecon.bench.report import text, worst_tables
from robustrecon.bench.result import CellResult
from robustrecon.bench.worst_case import worst_case
from robustrecon.detectors.catalogue import PLACES

from .detector_cost import Cost
from .detector_cost import read as read_costs
from .graft_tables import calibration

IGNORING = ("fgsm", "pgd", "apgd-ce")
AWARE = ("selective", "orthogonal", "reconstructive", "multi-target", "hybrid", "square-rejecting")
NOT_MEASURED = "Not measured yet: `robustrecon bench` does, with the suite below."
BEFORE = """\
Attacks on the classifier alone, L∞ {eps}. AUROC, and the true positive rate at a false positive rate of 1 and 5 %, of
telling successful adversarial images from clean ones; *undetected*: share of all images that end with a wrong label and
are accepted. Dashes where no attack succeeded. {n}"""
AFTER = """\
Robust risk under attacks that know the detector, L∞ {eps}, and in the *worst case* over all attacks, those of the table
above too, image by image, on the images that all of them saw, with its 95 % Clopper-Pearson interval. *Clean*: wrong or
rejected without an attack. †: a check fired, so the attack may have failed. Lower bounds: a better attack may exist.
{n}"""
COSTS = " Fitting and scoring: processor seconds, one thread, on the robust network."


@dataclass(frozen=True)
class Setting:
    """Where detectors are compared.

    Attributes:
        data: the folder of its results, below that of all detectors.
        said: what its images are.
        networks: titles of the networks, by the folders of their results.
        eps: the L∞ budget that the tables show.
        costs: whether `detector_cost` measured the detectors there.
    """

    data: str
    said: str
    networks: Mapping[str, str]
    eps: float
    costs: bool = False


MNIST = Setting(
    "mnist", "MNIST.", {"style-memory-fast": "plain", "style-memory-robust-refine": "robust"}, 0.3, costs=True
)
CIFAR = Setting(
    "cifar10-images",
    "The part of CIFAR-10 that `cifar10-images` names.",
    {"benchmarks.grafts-small_cnn": "small CNN"},
    8 / 255,
)


def before(results: Path, setting: Setting = MNIST) -> str:
    """What each detector is worth against attacks that do not know of it: three figures an attack."""
    head = ["network", "detector"]
    for attack in IGNORING:
        head += [f"{attack}: AUROC", "TPR at 1, 5 %", "undetected"]
    rows, every = [head], []
    for network, detector, cells in _by_detector(results, setting):
        found = {cell.key.attack: cell for cell in cells if _at(cell, setting.eps)}
        if not found.keys() & set(IGNORING):
            continue
        row = [network, f"`{detector}`"]
        for attack in IGNORING:
            row += _detection(found.get(attack))
        rows.append(row)
        every += [found[attack] for attack in IGNORING if attack in found]
    return _table(rows, BEFORE, setting, every)


def after(results: Path, setting: Setting = MNIST) -> str:
    """The same detectors against attacks that know them, and what they cost."""
    costs = {cost.detector: cost for cost in read_costs(results / "detectors" / "cost.json")}
    found = [(network, name, cells, _aware(cells, setting)) for network, name, cells in _by_detector(results, setting)]
    met = [attack for attack in AWARE if any(attack in aware for *_, aware in found)]
    rows = [["network", "detector", "clean", *met, "worst case"]]
    if setting.costs:
        rows[0] += ["fit, s", "score, µs an image"]
    every: list[CellResult] = []
    for network, detector, cells, aware in found:
        if not aware:
            continue
        (entry,) = [entry for entry in worst_case(cells) if (entry.norm, entry.eps) == ("linf", setting.eps)]
        largest = max(cells, key=lambda cell: len(cell.images))
        row = [network, f"`{detector}`", text.percent(float(largest.flags.at_risk_when_clean.mean()))]
        row += [_risk(aware.get(attack)) for attack in met]
        row.append(text.doubted(worst_tables.risk_least(entry), worst_tables.doubts(entry)))
        rows.append(row + (_cost(costs.get(detector)) if setting.costs else []))
        every += aware.values()
    return _table(rows, AFTER + (COSTS if setting.costs else ""), setting, every)


def _aware(cells: Sequence[CellResult], setting: Setting) -> dict[str, CellResult]:
    """Those of attacks that know the detector, by attack."""
    return {cell.key.attack: cell for cell in cells if _at(cell, setting.eps) and cell.knows_detector}


def _by_detector(results: Path, setting: Setting) -> Iterator[tuple[str, str, list[CellResult]]]:
    """The cells of each detector on each network, in the order of the catalogue."""
    for model, network in setting.networks.items():
        folder = results / "detectors" / setting.data / model
        for detector in PLACES:
            if cells := store.read_folder(folder / detector).results:
                yield network, detector, cells


def _at(cell: CellResult, eps: float) -> bool:
    return (cell.key.norm, cell.key.eps) == ("linf", eps)


def _detection(cell: CellResult | None) -> list[str]:
    if cell is None:
        return ["", "", ""]
    metrics = cell.metrics
    rates = [metrics.tpr_at_fpr.get(bound) for bound in ("0.01", "0.05")]
    shown = ", ".join("–" if rate is None else f"{100 * rate:.0f}" for rate in rates)
    undetected = text.doubted(text.percent(metrics.undetected_success), cell.checks)
    return [text.decimals(metrics.auroc_success, 3), shown, undetected]


def _risk(cell: CellResult | None) -> str:
    return "" if cell is None else text.doubted(text.percent(cell.metrics.robust_risk), cell.checks)


def _cost(cost: Cost | None) -> list[str]:
    return ["", ""] if cost is None else [text.decimals(cost.fit_seconds, 1), f"{cost.score_microseconds:,.0f}"]


def _table(rows: list[list[str]], note: str, setting: Setting, cells: Sequence[CellResult]) -> str:
    if len(rows) == 1:
        return NOT_MEASURED
    sizes = sorted({len(cell.images) for cell in cells})
    n = f"n = {' to '.join(f'{size:,}' for size in dict.fromkeys((sizes[0], sizes[-1])))}."
    said = f"{setting.said} {calibration(cells)} {note.format(eps=radius(setting.eps), n=n)}"
    return f"{text.grid(rows)}\n\n{textwrap.fill(said, 120, break_on_hyphens=False)}"
