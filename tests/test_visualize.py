"""Images that a node stands for: a linear node's density is a known Gaussian; the picture; names that are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from robustrecon import InputError, visualize

SHAPE = (1, 6, 6)


def linear_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 3)).eval()


def test_of_a_linear_node_it_samples_the_known_gaussian(tmp_path: Path) -> None:
    net, sigma = linear_network(), 0.5
    found = visualize(
        net, "1:2", image_shape=SHAPE, chains=200, steps=20, warm_up=20, sigma=sigma, centre=0.0, temperature=0.2,
        progress=False,
    )  # fmt: skip
    # exp(w·x / T) N(x; 0, σ²I) is N(x; σ² w / T, σ²I).
    mean = sigma**2 * net[1].weight[2] / 0.2
    torch.testing.assert_close(found.x.flatten(1).mean(0), mean, rtol=0, atol=5 * sigma / 200**0.5)
    assert found.x.flatten(1).std(0).mean().item() == pytest.approx(sigma, rel=0.1)
    assert found.values.mean() > found.values_before.mean()
    assert 0.5 < found.acceptance <= 1
    assert found.save(tmp_path / "node.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("node", "message"),
    [("1", "node: got '1', must be LAYER:CHANNEL"), ("7:0", "7"), ("1:3", "3")],
)
def test_a_node_that_does_not_exist(node: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        visualize(linear_network(), node, image_shape=SHAPE, progress=False)
