"""Measure, print the tables, and keep what they are made from in results/speed.json."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import torch

import attacks
from robustrecon.files import atomic_write
from robustrecon.provenance import environment

from .agreement import agreement
from .engines import ATTACKED, attack_speeds
from .exported import exported
from .peers import PEERS
from .report import SpeedReport
from .scoring import scoring
from .tables import tables
from .training import training

OUT = Path("results/speed.json")
NO_BFLOAT16 = f"This processor has no instructions for bfloat16 ({attacks.precision.UNITS}): float32 only."


def main() -> None:
    torch.manual_seed(0)
    cpu = torch.device("cpu")
    unit = attacks.bfloat16_unit(cpu)
    precisions = ["float32"] if unit is None else ["float32", "bfloat16"]
    scored = [scoring(k, precisions, rounds=9) for k in (10, 26)]
    report = SpeedReport(
        ratios=[row for rows, _ in scored for row in rows] + training(rounds=5) + exported(rounds=5),
        attacks=[row for network, eps in ATTACKED for row in attack_speeds(network, eps, precisions, rounds=3)],
        peaks=[row for _, rows in scored for row in rows],
        agreements=[] if unit is None else [agreement()],
        notes=[NO_BFLOAT16] if unit is None else [],
        environment=environment(cpu) | {"bfloat16": unit, "peers": {name: metadata.version(name) for name in PEERS}},
    )
    atomic_write(OUT, report.to_json())
    print(tables(report))


if __name__ == "__main__":
    main()
