"""Sampling from a density or with a noise predictor: plain functions, batched over chains, that know no model.

Nothing here keeps the images of more than one step, or a gradient of a network's weights, and all of it works under
`torch.no_grad()`. With a `generator` of one seed the result is the same each time.
"""

from __future__ import annotations

from .chain import Advance, Chain, Energy
from .diffusion import cosine_alpha_bars, ddim, linear_alpha_bars
from .hamiltonian import hmc, leapfrog
from .langevin import langevin

__all__ = [
    "Advance",
    "Chain",
    "Energy",
    "cosine_alpha_bars",
    "ddim",
    "hmc",
    "langevin",
    "leapfrog",
    "linear_alpha_bars",
]
