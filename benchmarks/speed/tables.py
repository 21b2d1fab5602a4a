"""The tables of a run, for the terminal and for the README."""

from __future__ import annotations

from robustrecon.bench.report import text

from .report import AttackSpeed, SpeedReport


def tables(report: SpeedReport) -> str:
    """Markdown: our PGD against other libraries, then scoring and training, then what was found beside them."""
    parts = []
    for network, eps, images in dict.fromkeys((row.network, row.eps, row.images) for row in report.attacks):
        rows = [row for row in report.attacks if (row.network, row.eps) == (network, eps)]
        parts += [
            f"**PGD-40 on {network}, L∞ {eps}, {images} images**: how many times as fast as each peer.",
            text.grid(_attack_rows(rows)),
        ]
    ratios = [["what", "images/s", "time, relative to", "ratio", "range over rounds"]]
    for row in report.ratios:
        rate = f"{row.images_per_second:,.0f}"
        ratios.append([row.what, rate, row.against, f"{row.ratio:.2f}", f"{row.least:.2f} – {row.most:.2f}"])
    lines = [
        f"Scoring, {row.what}, in {row.precision} runs at {text.percent(row.share)} of a large {row.precision} matrix "
        f"product beside it ({row.gflops:,.0f} of {row.peak_gflops:,.0f} GFLOP/s)."
        for row in report.peaks
    ]
    lines += [
        f"AUROC of `{row.detector}` over {row.images} clean and {row.images} PGD images of {row.network} "
        f"(L∞ {row.eps}): {row.float32:.4f} scored in float32, {row.bfloat16:.4f} in bfloat16."
        for row in report.agreements
    ]
    return "\n\n".join([*parts, text.grid(ratios), "\n".join(f"- {line}" for line in [*lines, *report.notes])])


def _attack_rows(rows: list[AttackSpeed]) -> list[list[str]]:
    """A row for each of our own, a column a peer, with the images broken and the gradients an image."""
    peers = {row.peer: f"{row.peer} ({row.peer_broken}; {row.peer_gradients:.0f})" for row in rows}
    made = [["own (images broken; gradients an image)", *peers.values()]]
    for own in dict.fromkeys(row.own for row in rows):
        cells = {row.peer: f"{row.speedup:.2f} [{row.least:.2f}, {row.most:.2f}]" for row in rows if row.own == own}
        first = next(row for row in rows if row.own == own)
        title = f"{own} ({first.own_broken}; {first.own_gradients:.1f})"
        made.append([title, *(cells[peer] for peer in peers)])
    return made
