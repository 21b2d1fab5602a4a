"""Where a number comes from: package versions, commit and device, as stored in every card and result."""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from .attacks import bfloat16_unit

PACKAGES = (
    "robustrecon",
    "torch",
    "torchvision",
    "torchattacks",
    "adversarial-robustness-toolbox",
    "numpy",
    "scipy",
    "scikit-learn",
    "lightning-fabric",
)


@cache
def versions() -> dict[str, str]:
    """The installed versions of Python and of the packages that move a result."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


@cache
def commit() -> str | None:
    """The commit of the checkout this package runs from, with `-dirty` where code differs from it.

    None when it runs from an installed wheel or git is not there.
    """
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        head = git("rev-parse", "HEAD")
        dirty = git("status", "--porcelain", "--", "robustrecon", "attacks")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{head}-dirty" if dirty else head


def environment(device: torch.device, precision: str = "float32") -> dict[str, Any]:
    """Versions, commit, device name and thread count of this process, and the precision of what it computes.

    Of bfloat16 it says the processor's instructions too: "bfloat16 (AVX512-BF16)".
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "versions": versions(),
        "commit": commit(),
        "device": name,
        "threads": torch.get_num_threads(),
        "precision": f"bfloat16 ({bfloat16_unit(device)})" if precision == "bfloat16" else precision,
    }
