"""The convolutions next to the pixels against PyTorch's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robustrecon.models.strided import FirstConvolution, LastUpsampling


@pytest.mark.parametrize("size", [(8, 8), (7, 10), (9, 5)])
@pytest.mark.parametrize("channels", [1, 3])
def test_first_convolution_is_the_convolution(channels: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    ours = FirstConvolution(channels, 4).double()
    plain = nn.Conv2d(channels, 4, 5, stride=2, padding=2).double()
    plain.load_state_dict(ours.state_dict())
    x = torch.rand(2, channels, *size, dtype=torch.double, requires_grad=True)
    upstream = torch.randn_like(plain(x))
    assert torch.equal(ours(x), plain(x))
    for layer_inputs in zip(
        torch.autograd.grad(ours(x), [x, *ours.parameters()], upstream),
        torch.autograd.grad(plain(x), [x, *plain.parameters()], upstream),
        strict=True,
    ):
        torch.testing.assert_close(*layer_inputs)


def test_first_convolution_can_be_differentiated_twice() -> None:
    layer = FirstConvolution(1, 2).double()
    x = torch.rand(1, 1, 5, 6, dtype=torch.double, requires_grad=True)
    weight = layer.weight.detach().requires_grad_()

    def call(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, {"weight": weight}, (x,))

    assert torch.autograd.gradcheck(call, (x, weight))
    assert torch.autograd.gradgradcheck(call, (x, weight))


def test_first_convolution_in_bfloat16() -> None:
    layer = FirstConvolution(1, 8)
    x = torch.rand(2, 1, 8, 8, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        features = layer(x)
    assert features.dtype == torch.bfloat16
    found = torch.autograd.grad(features.float().square().sum(), x)[0]
    expected = torch.autograd.grad(nn.Conv2d.forward(layer, x).square().sum(), x)[0]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.02)


def test_first_convolution_under_vmap() -> None:
    layer = FirstConvolution(1, 2)
    x = torch.rand(3, 1, 8, 8)
    single = torch.func.vmap(torch.func.grad(lambda image: layer(image[None]).square().sum()))(x)
    leaf = x.clone().requires_grad_()
    torch.testing.assert_close(single, torch.autograd.grad(layer(leaf).square().sum(), leaf)[0])


@pytest.mark.parametrize("size", [(8, 8), (7, 10)])
def test_last_upsampling_is_the_transposed_convolution(size: tuple[int, int]) -> None:
    layer = LastUpsampling(3, 2, size)
    h = torch.rand(2, 3, -(-size[0] // 2), -(-size[1] // 2))
    expected = nn.ConvTranspose2d.forward(layer, h, list(size))
    torch.testing.assert_close(layer.join(layer(h)), expected, rtol=1e-4, atol=1e-5)
