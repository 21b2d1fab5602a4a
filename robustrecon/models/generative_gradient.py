"""The network of the generative gradient: a plain CNN, of which each output tilts a Gaussian towards a class."""

from __future__ import annotations

from torch import Generator, Tensor, nn

from ..sampling import Advance, hmc
from ..types import ImageShape, InputError
from .tilted_gaussian import TiltedGaussian

KERNEL = 5
LEAST_UNPADDED = 16  # height and width from which, as in LeNet, the convolutions need no padding


class GenerativeGradientCNN(TiltedGaussian):
    """p(x|k) ∝ exp(f_k(x) / T) N(x; 0, σ²I), where f_k is the k-th of the K outputs of a LeNet.

    Two convolutions of 5×5 with ReLU, each followed by max pooling of 2×2, and two dense layers: with 20, 50 and 500
    neurons, by default, the network that the paper trains on MNIST. It is linear in x wherever no ReLU and no maximum
    changes; there p(x|k) is a Gaussian around σ² ∂f_k/∂x / T, the drawing under k. What the training leaves open is how
    strong the outputs are beside the Gaussian. The paper has T = 1 and pixels of 0 to 255. With pixels of 0 to 1 such
    samples are white noise, since f changes by some ten nats and 784 pixels of noise have more; hence the low
    temperature T here, and a σ whose noise does not hide the image.

    J. Dai, Y. Lu, Y. N. Wu, "Generative Modeling of Convolutional Neural Networks", ICLR 2015.

    Args:
        n_classes: K.
        image_shape: (C, H, W), sides of at least 4.
        width: channels of the first convolution; the other layers have 2.5 and 25 times as many neurons.
        sigma: σ, in [0, 1] pixel units.
        temperature: T. Drawings are in proportion to σ² / T.
        energy: as for `GradientDrawings`. In the images of its own class an output of a well-trained network hardly
            changes, so that their drawing under it is nearly black: for energies that detect, train it by the
            objective `contrastive`.

    Raises:
        InputError: an argument out of its range.
    """

    name = "generative-gradient"

    def __init__(
        self,
        n_classes: int = 10,
        image_shape: ImageShape = (1, 28, 28),
        width: int = 20,
        sigma: float = 0.1,
        temperature: float = 0.002,
        energy: str = "reconstruction",
    ) -> None:
        super().__init__(n_classes, image_shape, energy, width=width, sigma=sigma, temperature=temperature)
        if width < 1:
            raise InputError(f"width: got {width}, must be at least 1")
        channels, *sides = self.image_shape
        if min(sides) < 4:
            raise InputError(f"image_shape: got {self.image_shape}, height and width must be at least 4")
        padding = 0 if min(sides) >= LEAST_UNPADDED else KERNEL // 2
        lost = KERNEL - 1 - 2 * padding
        height, width_of_image = (_pooled(_pooled(side - lost) - lost) for side in sides)
        second, hidden = 5 * width // 2, 25 * width
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, KERNEL, padding=padding),
            nn.ReLU(),
            nn.MaxPool2d(2, ceil_mode=True),
            nn.Conv2d(width, second, KERNEL, padding=padding),
            nn.ReLU(),
            nn.MaxPool2d(2, ceil_mode=True),
            nn.Flatten(),
            nn.Linear(second * height * width_of_image, hidden),
            nn.ReLU(),
            nn.Linear(hidden, n_classes),
        )

    def log_ratios(self, x: Tensor) -> Tensor:
        """f (B, K) of images x (B, C, H, W)."""
        outputs: Tensor = self.layers(x)
        return outputs

    def logits_of(self, ratios: Tensor) -> Tensor:
        """f itself, (B, K)."""
        return ratios

    def sample(
        self,
        labels: Tensor,
        generator: Generator | None = None,
        *,
        steps: int = 20,
        warm_up: int = 100,
        leapfrog_steps: int = 10,
        advance: Advance | None = None,
    ) -> Tensor:
        """Images of p(x|k), clipped to [0, 1], by Hamiltonian Monte Carlo that begins at N(0, σ²I).

        Args:
            labels: (B,) int64, a chain for each.
            generator: random numbers; torch's own by default.
            steps, warm_up, leapfrog_steps, advance: as of `sampling.hmc`.

        Returns:
            (B, C, H, W) in [0, 1], on the model's device.

        Raises:
            InputError: a label that is none of the K, or a chain that diverges.
        """
        labels = self.checked_labels(labels)
        chain = hmc(
            lambda x: self.energy_of(x, labels),
            self.reference_noise(len(labels), generator),
            steps,
            step_size=self.sigma / 10,
            leapfrog_steps=leapfrog_steps,
            warm_up=warm_up,
            generator=generator,
            advance=advance,
        )
        return chain.x.clamp(0, 1)


def _pooled(side: int) -> int:
    """Of a side that is pooled by 2; an odd one keeps its last pixel."""
    return -(-side // 2)
