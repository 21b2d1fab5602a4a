"""The paper's architecture, and that the fast ways of computing it compute it."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import conv_transpose2d, one_hot, relu

from robustrecon import InputError, StyleMemoryNet
from robustrecon.models.style_memory import CPU_DECODES


def test_architecture_is_the_papers() -> None:
    shapes = {name: tuple(weight.shape) for name, weight in StyleMemoryNet().named_parameters() if "weight" in name}
    assert shapes == {
        "conv1.weight": (32, 1, 5, 5),
        "conv2.weight": (64, 32, 5, 5),
        "dense1.weight": (256, 64 * 7 * 7),
        "dense2.weight": (128, 256),
        "head.weight": (10 + 16, 128),
        "unhead.weight": (128, 10 + 16),
        "undense2.weight": (256, 128),
        "undense1.weight": (64 * 7 * 7, 256),
        "unconv2.weight": (64, 32, 5, 5),
        "unconv1.weight": (32, 1, 5, 5),
    }


def test_a_separate_style_does_not_hear_the_classifier() -> None:
    net = StyleMemoryNet(style_encoder="separate")
    x = torch.rand(2, 1, 28, 28)
    before, style = net.encode(x)
    with torch.no_grad():
        net.conv1.weight.add_(1)
    after, same = net.encode(x)
    assert style.shape == (2, 16)
    assert torch.equal(style, same)
    assert not torch.equal(before, after)


def test_energies_of_more_images_than_fit_at_a_time() -> None:
    """Labels stay with their images across the cuts."""
    net = StyleMemoryNet(3, 2, (1, 8, 8)).eval()
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2 * CPU_DECODES + 7, 1, 8, 8, generator=generator)
    labels = torch.randint(3, (len(x), 2), generator=generator)
    with torch.no_grad():
        logits, energies = net.logits_and_energies(x, labels)
        torch.testing.assert_close(energies, net.class_energies(x).gather(1, labels), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(logits, net(x))
        calls: list[int] = []

        def chosen(logits: torch.Tensor) -> torch.Tensor:
            calls.append(len(logits))
            return labels

        torch.testing.assert_close(net.logits_and_energies(x, chosen), (logits, energies))
        assert calls == [len(x)], "a function of all logits is called once"


def plain_decode(net: StyleMemoryNet, label: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
    """The decoder layer by layer, as the paper has it."""
    h = relu(net.unhead(torch.cat([label, style], 1)))
    h = relu(net.undense1(relu(net.undense2(h)))).view(len(h), *net._grid, 64).permute(0, 3, 1, 2)
    h = relu(net.unconv2(h))
    odd = [1 - side % 2 for side in net.image_shape[1:]]
    return conv_transpose2d(h, net.unconv1.weight, net.unconv1.bias, 2, 2, odd).sigmoid()


@settings(max_examples=25, deadline=None)
@given(
    channels=st.integers(1, 3),
    height=st.integers(4, 33),
    width=st.integers(4, 33),
    classes=st.integers(2, 6),
    style_dim=st.integers(1, 20),
    style_encoder=st.sampled_from(["shared", "separate"]),
)
def test_decoder_and_energies_on_any_shape(
    channels: int, height: int, width: int, classes: int, style_dim: int, style_encoder: str
) -> None:
    torch.manual_seed(0)
    net = StyleMemoryNet(classes, style_dim, (channels, height, width), style_encoder=style_encoder).eval()
    x = torch.rand(3, channels, height, width)
    with torch.no_grad():
        _, style = net.encode(x)
        energies = net.class_energies(x)
        for label in range(classes):
            chosen = torch.full((3,), label)
            drawn = net.decode(one_hot(chosen, classes).float(), style)
            assert drawn.shape == x.shape
            torch.testing.assert_close(drawn, plain_decode(net, one_hot(chosen, classes).float(), style))
            torch.testing.assert_close(drawn, net.reconstruct(x, chosen))
            torch.testing.assert_close(energies[:, label], (drawn - x).flatten(1).square().sum(1), rtol=1e-4, atol=1e-4)


def test_gradient_of_the_energies_is_that_of_the_plain_decoder(model: StyleMemoryNet) -> None:
    x = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0)).requires_grad_()
    _, style = model.encode(x)
    label = torch.eye(10)[[3] * 4]
    expected = torch.autograd.grad((plain_decode(model, label, style) - x).square().sum(), x)[0]
    found = torch.autograd.grad(model.class_energies(x)[:, 3].sum(), x)[0]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("blocks", [1, 2])
def test_new_blocks_change_nothing_and_learn(model: StyleMemoryNet, blocks: int) -> None:
    grown = StyleMemoryNet(blocks=blocks)
    lacking = grown.load_state_dict(model.state_dict(), strict=False)
    assert lacking.unexpected_keys == []
    assert len(lacking.missing_keys) == 8 * blocks
    x = torch.rand(4, 1, 28, 28)
    for found, expected in zip(grown.logits_and_energies(x), model.logits_and_energies(x), strict=True):
        torch.testing.assert_close(found, expected)
    grown.class_energies(x).sum().backward()
    assert all(block.conv2.weight.grad.abs().sum() > 0 for block in [*grown.blocks1, *grown.blocks2])


def test_reconstruct_uses_the_predicted_label(model: StyleMemoryNet) -> None:
    x = torch.rand(4, 1, 28, 28)
    torch.testing.assert_close(model.reconstruct(x), model.reconstruct(x, model(x).argmax(1)))


def test_style_lies_between_0_and_1(model: StyleMemoryNet) -> None:
    style = model.encode(torch.rand(9, 1, 28, 28))[1]
    assert style.shape == (9, 16)
    assert style.min() >= 0
    assert style.max() <= 1


def test_linear_output_is_not_squashed() -> None:
    torch.manual_seed(0)
    net = StyleMemoryNet(output="linear")
    assert net.reconstruct(torch.rand(8, 1, 28, 28)).min() < 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_classes": 1}, "n_classes: got 1, must be at least 2"),
        ({"style_dim": 0}, "style_dim: got 0, must be at least 1"),
        ({"image_shape": (1, 3, 28)}, "image_shape: .* must be at least 4"),
        ({"image_shape": (28, 28)}, r"image_shape: got \(28, 28\)"),
        ({"output": "tanh"}, "output: got 'tanh', must be"),
        ({"style_encoder": "none"}, "style_encoder: got 'none', must be 'shared' or 'separate'"),
    ],
)
def test_bad_arguments(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        StyleMemoryNet(**arguments)  # type: ignore[arg-type]


def test_wrong_image_shape(model: StyleMemoryNet) -> None:
    with pytest.raises(InputError, match=r"x: shape is \(2, 3, 32, 32\), must be \(B, 1, 28, 28\)"):
        model(torch.rand(2, 3, 32, 32))


@pytest.mark.slow
def test_memory_of_scoring_does_not_grow_with_the_number_of_images() -> None:
    """Peak memory of 512 and of 8,192 images, in a process of its own."""
    code = """
import resource, torch
from robustrecon import StyleMemoryNet
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
net, x = StyleMemoryNet().eval(), torch.rand(8192, 1, 28, 28)
with torch.no_grad():
    for _ in range(3):
        net.class_energies(x[:512])
    few = peak()
    net.class_energies(x)
print(peak() - few)
"""
    grown = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert grown < 60, f"{grown:.0f} MB more for 16 times the images (a batch of all decodes takes 2,000)"
