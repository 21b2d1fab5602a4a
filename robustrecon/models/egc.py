"""EGC: a network that classifies an image in its forward pass and denoises it in its backward pass."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Generator, Tensor

from ..runtime import pieces, traced
from ..sampling import Advance, ddim, linear_alpha_bars
from ..sampling.chain import normal
from ..types import ImageShape, InputError, unknown_name
from .base import Labels
from .gradient_drawings import GradientDrawings, chosen, with_input_gradients
from .recomputed import recomputed
from .unet import GROUPS, UNet

READINGS = ("pooled", "map")
TIMESTEPS = 1000
NOISE_SEED = 0  # of the noises that all drawings share
GUIDANCE = 4.0  # of samples, by default
PAIRS, GPU_PAIRS = 256, 4096  # noised images times one more than labels that are drawn at a time
SAMPLES = 128  # images that are denoised at a time


class EGC(GradientDrawings):
    """One function f(x_t, t) -> K logits of a noised image, whose energy's input gradient is the noise in it.

    x_t = √ᾱ_t (2x − 1) + √(1 − ᾱ_t) N(0, 1) has the noise level t, 0 to 1000, of a linear schedule. A U-Net gives a map
    for each class; attention without parameters, in which the mean of all positions looks at each, pools the maps to
    logits f. With F = −energy, the predicted noise is −∂F/∂x_t, without a factor, and the score is ∂F/∂x_t divided by
    √(1 − ᾱ_t): F is √(1 − ᾱ_t) log p_t(x_t) and a constant. Two readings of F:

    pooled: F = logsumexp_k f_k of the very logits that classify, f = √ᾱ_t N pool(maps) − √(1 − ᾱ_t) ‖x_t‖²/2.
    map:    F = √ᾱ_t Σ_positions logsumexp_k maps − √(1 − ᾱ_t) ‖x_t‖²/2, as in the authors' code, where f = pool(maps)
            classifies: the energy is not that of the logits.

    N is the number of positions. The last term, the energy of pure noise, and the factor √ᾱ_t are not in the paper:
    with them the network has only to tell what is not noise. They are 0 and 1 at t = 0, where images are classified.

    The drawing under label k is what is left of x at the noise level `level` without the noise that is predicted for
    p_t(x_t, k) = p_t(x_t) softmax(f)_k: E[x | x_t, k] of a perfect network, averaged over `draws` noises that all
    images and labels share.

    Q. Guo et al., "EGC: Image Generation and Classification via a Diffusion Energy-Based Model", ICCV 2023.

    Args:
        n_classes: K.
        image_shape: (C, H, W).
        width: channels of the U-Net's first resolution; a multiple of 8.
        reading: of the energy, "pooled" or "map".
        level: t of the drawings, in 1 to 1000.
        draws: m, noises that a drawing is averaged over.
        energy: "reconstruction" or "joint", as for `GradientDrawings`.

    Raises:
        InputError: an argument out of its range.
    """

    name = "egc"
    alpha_bars: Tensor
    noises: Tensor

    def __init__(
        self,
        n_classes: int = 10,
        image_shape: ImageShape = (1, 28, 28),
        width: int = 48,
        reading: str = "pooled",
        level: int = 500,
        draws: int = 1,
        energy: str = "reconstruction",
    ) -> None:
        super().__init__(n_classes, image_shape, energy, width=width, reading=reading, level=level, draws=draws)
        if width < 1 or width % GROUPS:
            raise InputError(f"width: got {width}, must be a multiple of {GROUPS}")
        if reading not in READINGS:
            unknown_name("reading", reading, READINGS)
        if not 1 <= level <= TIMESTEPS:
            raise InputError(f"level: got {level}, must be in 1 to {TIMESTEPS}")
        if draws < 1:
            raise InputError(f"draws: got {draws}, must be at least 1")
        self.reading, self.level, self.draws = reading, level, draws
        self.unet = UNet(self.image_shape[0], n_classes, width)
        self.register_buffer("alpha_bars", linear_alpha_bars(TIMESTEPS).float(), persistent=False)
        noises = torch.randn(draws, *self.image_shape, generator=torch.Generator().manual_seed(NOISE_SEED))
        self.register_buffer("noises", noises)

    def extra_repr(self) -> str:
        return f"n_classes={self.n_classes}, image_shape={self.image_shape}, reading={self.reading!r}"

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K) of images (B, C, H, W) in [0, 1], at t = 0."""
        if x.shape[1:] != self.image_shape:
            raise InputError(f"x: shape is {tuple(x.shape)}, must be (B, {', '.join(map(str, self.image_shape))})")
        return self.logits_at(2 * x - 1, self._times(x, 0))

    def noised(self, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x_t (B, C, H, W) of images x in [0, 1] and standard normal noise, at noise levels t (B,) int64."""
        kept, added = self._scales(t)
        return kept * (2 * x - 1) + added * noise

    def logits_at(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Logits (B, K) of noised images x_t (B, C, H, W), in [-1, 1] at t = 0, at noise levels t (B,) int64."""
        return self._logits_and_log_density(x_t, t)[0]

    def log_density(self, x_t: Tensor, t: Tensor) -> Tensor:
        """F (B,), the negative energies, of noised images x_t (B, C, H, W) at noise levels t (B,)."""
        return self._logits_and_log_density(x_t, t)[1]

    def logits_and_noise(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, K), and the predicted noise −∂F/∂x_t, from one pass; both can be differentiated in the weights."""

        def outputs(x_t: Tensor) -> tuple[Tensor, Tensor]:
            logits, log_density = self._logits_and_log_density(x_t, t)
            return logits, log_density[:, None]

        logits, gradients = with_input_gradients(outputs, x_t)
        return logits, -gradients[:, 0]

    def noise_of(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None, guidance: float = 1.0) -> Tensor:
        """The predicted noise (B, C, H, W): −√(1 − ᾱ_t) times the score of p_t(x_t) p_t(k | x_t)^guidance.

        Args:
            x_t: (B, C, H, W) noised images.
            t: (B,) int64 noise levels, in 0 to 1000.
            labels: (B,) k; by default none, and the score is that of p_t(x_t).
            guidance: 1 gives the score of p_t(x_t | k), more gives clearer images of less variety.
        """
        if labels is None:
            return self.logits_and_noise(x_t, t)[1]
        return -self._gradients(x_t, t, labels[:, None], guidance)[:, 0]

    def logits_and_drawings(self, x: Tensor, labels: Labels) -> tuple[Tensor, Tensor]:
        """Logits (B, K) of images x (B, C, H, W), and their drawings (B, J, C, H, W) under `labels` (B, J).

        The memory needed grows with B only by what is returned, with a gradient too.
        """
        logits = self(x)
        wanted = chosen(labels, logits)
        size = max(1, (GPU_PAIRS if x.is_cuda else PAIRS) // (self.draws * (1 + wanted.shape[1])))
        images_of = pieces(x, size)
        weights = [] if len(images_of) == 1 else [*self.parameters()]
        parts = []
        for images, some in zip(images_of, pieces(wanted, size), strict=True):
            drawings = partial(self._drawings, labels=some)
            parts.append(recomputed(drawings, images, weights) if weights else drawings(images))
        return logits, torch.cat(parts)

    def sample(
        self,
        labels: Tensor | None,
        generator: Generator | None = None,
        *,
        n: int = 1,
        steps: int = 100,
        guidance: float = GUIDANCE,
        eta: float = 0.0,
        advance: Advance | None = None,
        watch: Callable[[Tensor], None] | None = None,
    ) -> Tensor:
        """New images (B, C, H, W) in [0, 1] of `labels` (B,), on the model's device, by DDIM.

        Args:
            labels: (B,) int64; None for `n` images of any class.
            generator: of the noise to begin with; torch's own by default.
            n: number of images where there are no labels.
            steps: of DDIM, in 1 to 1000.
            guidance: as for `noise_of`.
            eta: of DDIM, 0 for none of its steps to add noise.
            advance: told of each finished step.
            watch: given the image (B, C, H, W) in [0, 1] that each step expects at the end.

        Raises:
            InputError: a label out of range, or another argument out of its range.
        """
        if n < 1:
            raise InputError(f"n: got {n}, must be at least 1")
        wanted = None if labels is None else self.checked_labels(labels)
        start = normal(self.alpha_bars.new_empty(n if labels is None else len(labels), *self.image_shape), generator)

        def noise_of(x_t: Tensor, t: Tensor) -> Tensor:
            """As the method, but that the image that is expected keeps to its range."""
            each = [None] * len(x_t.split(SAMPLES)) if wanted is None else wanted.split(SAMPLES)
            parts = zip(x_t.split(SAMPLES), t.split(SAMPLES), each, strict=True)
            noise = torch.cat([self.noise_of(some, when, k, guidance) for some, when, k in parts])
            kept, added = self._scales(t)
            clean = ((x_t - added * noise) / kept).clamp(-1, 1)
            if watch is not None:
                watch((clean + 1) / 2)
            return (x_t - kept * clean) / added

        images = ddim(noise_of, start, self.alpha_bars, steps, eta=eta, generator=generator, advance=advance)
        return ((images + 1) / 2).clamp(0, 1)

    def _logits_and_log_density(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        kept, added = (scale.flatten(1) for scale in self._scales(t))
        of_noise = added * x_t.flatten(1).square().sum(1, keepdim=True) / 2
        maps = self.unet(x_t, t).flatten(2)
        logits = attention_pool(maps)
        if self.reading == "map":
            return logits, (kept * maps.logsumexp(1).sum(1, keepdim=True) - of_noise)[:, 0]
        logits = kept * maps.shape[2] * logits - of_noise
        return logits, logits.logsumexp(1)

    def _gradients(self, x_t: Tensor, t: Tensor, labels: Tensor, guidance: float = 1.0) -> Tensor:
        """(B, J, C, H, W) gradients of √(1 − ᾱ_t) log p_t(x_t) p_t(k | x_t)^guidance for `labels` k (B, J)."""

        def outputs(x_t: Tensor) -> tuple[Tensor, Tensor]:
            logits, log_density = self._logits_and_log_density(x_t, t)
            of_label = logits.log_softmax(1).gather(1, labels)
            return logits, log_density[:, None] + guidance * self._scales(t)[1].flatten(1) * of_label

        return with_input_gradients(outputs, x_t)[1]

    def _drawings(self, x: Tensor, labels: Tensor) -> Tensor:
        """(B, J, C, H, W) drawings of images x (B, C, H, W) under `labels` (B, J)."""
        t = self._times(x, self.level).repeat(self.draws)
        x_t = self.noised(x.repeat(self.draws, 1, 1, 1), t, self.noises.repeat_interleave(x.shape[0], 0))
        labels = labels.repeat(self.draws, 1)
        # On a GPU many small operations cost more than one forward pass a label does; a traced graph would be huge.
        if x.is_cuda or traced(x):
            n = labels.shape[1]
            each = (x_t.repeat_interleave(n, 0), t.repeat_interleave(n), labels.reshape(-1, 1))
            gradients = self._gradients(*each).view(x_t.shape[0], n, *self.image_shape)
        else:
            gradients = self._gradients(x_t, t, labels)
        kept, added = self._scales(t)
        clean = (x_t[:, None] + added[:, None] * gradients) / kept[:, None]
        return (clean.unflatten(0, (self.draws, x.shape[0])).mean(0) + 1) / 2

    def _scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """√ᾱ_t and √(1 − ᾱ_t) at noise levels t (B,): (B, 1, 1, 1) each."""
        alpha_bars = self.alpha_bars[t][:, None, None, None]
        return alpha_bars.sqrt(), (1 - alpha_bars).sqrt()

    def _times(self, x: Tensor, t: int) -> Tensor:
        """(B,) the same noise level for all images x (B, ...)."""
        return torch.full((x.shape[0],), t, device=x.device)


def attention_pool(maps: Tensor) -> Tensor:
    """(B, K) from maps (B, K, N): the mean of the positions attends to itself and to each of them."""
    mean = maps.mean(2, keepdim=True)
    tokens = torch.cat([mean, maps], dim=2)
    weights = ((mean * tokens).sum(1, keepdim=True) / math.sqrt(maps.shape[1])).softmax(2)
    return (weights * tokens).sum(2)
