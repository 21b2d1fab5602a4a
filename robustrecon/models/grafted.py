"""A classifier that someone else made, beside a model that draws: the logits of the one, the energies of the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ..runtime import batched, device_of, dtype_of, evaluating, recorded
from ..types import ImageShape, InputError, unknown_name
from .base import EnergyModel, Labels
from .class_conditioned import packed

DETECTOR = "any_of(label_margin,0*free_energy,0*max_logit)"
"""Label margin against who changes the label; free energy and highest logit, of the least share of the false-alarm
rate, reject what is a member of no class (results/grafted/nonsense.md). Equal shares would make its threshold laxer."""

PIXELS, LAYER = "pixels", "layer:"  # what a drawer can explain, or find the style in

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


class Grafted(EnergyModel):
    """`forward` is the classifier's, bit for bit; `class_energies` are the drawer's, of the image brought to its shape.

    The two share nothing, so that who changes the classifier's label has not yet changed the drawer's opinion. `graft`
    makes one and checks that the two fit together.

    Args:
        classifier: gives logits (B, K) of images (B, C, H, W) in [0, 1].
        drawer: has `class_energies(x)`; `reconstruct`, `logits_and_energies` and `representations` are used where it
            has them.
        labels: the drawer's label for each of the K labels of the classifier, all different.
        image_shape: (C, H, W) of the classifier's images.
        drawer_shape: (C, H, W) of what the drawer takes: its images, or what `layer` gives.
        layer: name of a sub-module of the classifier whose output (B, C, H, W), each channel standardised, the drawer
            explains instead of the image. Then the two are not independent.
        top_labels: with j above 0 only the energies of the predicted label and of j others are computed, those of the
            drawer's own highest logits; all others get the highest of these. (By the classifier's logits an attacker
            who misleads it could hide the true label.)
        logit_weight: w of the drawer's own logits in the energies, E_k − w log q(k | x), where q is their softmax; then
            both heads of the drawer have to be misled. (Experts multiplied: G. Hinton, "Training Products of Experts
            by Minimizing Contrastive Divergence", Neural Computation 2002.) 0 for the drawing alone.
        style_from: what the drawer's encoder sees where that is not what it explains: "pixels", or "layer:NAME", a
            standardised output of the classifier again. The drawer then has a `style_shape`.

    Attributes:
        labels: (K,) int64.
        config: as of every model; `classifier` in it is a description of one of this library, or the `module:factory`
            of another, or None where nobody knows how to make it.
    """

    name = "grafted"
    default_detector = DETECTOR
    labels: Tensor
    logit_weight: Tensor | None

    def __init__(
        self,
        classifier: nn.Module,
        drawer: nn.Module,
        labels: Sequence[int],
        image_shape: ImageShape,
        drawer_shape: ImageShape,
        layer: str | None = None,
        top_labels: int = 0,
        logit_weight: float = 0.0,
        style_from: str | None = None,
    ) -> None:
        settings = {
            "labels": list(labels),
            "drawer_shape": list(drawer_shape),
            "layer": layer,
            "top_labels": top_labels,
            "logit_weight": logit_weight,
            "style_from": style_from,
        }
        parts = {"classifier": _described(classifier), "drawer": _described(drawer)}
        super().__init__(len(labels), image_shape, **settings, **parts)
        if not 0 <= top_labels < len(labels):
            raise InputError(f"top_labels: got {top_labels}, must be in [0, {len(labels) - 1}], 0 for all")
        if not 0 <= logit_weight < float("inf"):
            raise InputError(f"logit_weight: got {logit_weight}, must be at least 0 and finite")
        for name, value in {"top_labels": top_labels, "logit_weight": logit_weight}.items():
            if value and not has_logits(drawer):
                raise InputError(f"{name}: got {value}, must be 0 for a drawer without logits of its own")
        self.classifier, self.drawer, self.drawer_shape = classifier, drawer, drawer_shape
        self.layer, self.top_labels, self.style_from = layer, top_labels, style_from
        # A buffer, so that a hash of the weights tells it.
        self.register_buffer("logit_weight", torch.tensor(float(logit_weight)) if logit_weight else None)
        self.register_buffer("labels", torch.tensor(labels))
        self._watched: dict[str, nn.Module] = {}  # in a dictionary: they are the classifier's
        if layer is not None:
            self._watch("", layer, drawer_shape[0])
        style_shape = getattr(drawer, "style_shape", None)
        if (style_from is None) != (style_shape is None):
            raise InputError(f"style_from: got {style_from!r}, must be given for a drawer with a style_shape alone")
        style_layer = None if style_from is None else layer_of("style_from", style_from)
        if style_layer is not None and style_shape is not None:
            self._watch("style_", style_layer, style_shape[0])

    def extra_repr(self) -> str:
        where = "" if self.layer is None else f", layer={self.layer!r}"
        where += "" if self.logit_weight is None else f", logit_weight={self.config['logit_weight']:g}"
        where += "" if self.style_from is None else f", style_from={self.style_from!r}"
        return f"labels={self.labels.tolist()}, image_shape={self.image_shape}, drawer_shape={self.drawer_shape}{where}"

    def train(self, mode: bool = True) -> Grafted:
        """Training mode is the drawer's alone: the classifier is never trained here."""
        super().train(mode)
        if mode:
            self.classifier.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """The classifier's logits (B, K) of images (B, C, H, W)."""
        logits: Tensor = self.classifier(x)
        return logits

    def class_energies(self, x: Tensor) -> Tensor:
        """(B, K): how badly the drawer explains x under each of the classifier's labels; differentiable in x."""
        if self.layer is self.style_from is None and not self.top_labels:
            return self._energies(self.for_drawer(x), self.labels.expand(x.shape[0], -1))
        return self.logits_and_energies(x)[1]

    def logits_and_energies(self, x: Tensor, labels: Labels | None = None) -> tuple[Tensor, Tensor]:
        """The classifier's logits (B, K), and the drawer's energies of `labels` (B, J), of all K by default."""
        logits, seen = self._logits_and_seen(x)
        if labels is not None:
            return logits, self._energies(seen, self.labels[labels(logits) if callable(labels) else labels])
        if not self.top_labels:
            return logits, self._energies(seen, self.labels.expand(x.shape[0], -1))
        return logits, self._energies_of_top(seen, logits.detach().argmax(1))

    def minimum_missed(self, x: Tensor) -> float:
        """Share of images (B, C, H, W) whose label of the lowest energy is not among the `top_labels`."""
        with torch.no_grad():
            logits, seen = self._logits_and_seen(x)
            lowest = self._energies(seen, self.labels.expand(x.shape[0], -1)).amin(1)
            return (self._energies_of_top(seen, logits.argmax(1)).amin(1) > lowest).double().mean().item()

    def representations(self, x: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """The classifier's logits of x, and what the drawer makes of x taken for `labels` (B,): (B, ...) each."""
        own = getattr(self.drawer, "representations", None)
        if not callable(own):
            return self.logits_and_energies(x)
        logits, seen = self._logits_and_seen(x)
        found: tuple[Tensor, ...] = own(seen, self.labels[labels])
        return logits, *found

    @property
    def reconstruct(self) -> Callable[..., Tensor]:
        """x drawn again by the drawer and brought back to the classifier's shape; absent where the drawer cannot.

        `reconstruct(x, labels)`: (B, C, H, W) from images of this shape and `labels` (B,), by default those that the
        classifier predicts. It is for detectors that classify the drawing, and for pictures: the energies are of the
        drawer's own shape.
        """
        own = getattr(self.drawer, "reconstruct", None)
        if not callable(own) or self.layer is not None:  # what a layer gives is no image
            raise AttributeError("reconstruct")

        def reconstruct(x: Tensor, labels: Tensor | None = None) -> Tensor:
            predicted = self(x).argmax(1) if labels is None else labels
            drawn = converted(own(self.for_drawer(x), self.labels[predicted]), self.image_shape).to(x.dtype)
            # Strides as of any image: a classifier may look at them, and `contiguous` ignores those of one channel.
            return drawn.clone(memory_format=torch.contiguous_format)

        return reconstruct

    def for_drawer(self, x: Tensor) -> Tensor:
        """What the drawer sees of images x (B, C, H, W): (B, *drawer_shape), with `style_from` (B, N)."""
        if self.layer is self.style_from is None:  # the classifier's pass is not needed
            return self._pixels(x)
        return self._logits_and_seen(x)[1]

    def target(self, x: Tensor) -> Tensor:
        """What the drawer explains of images x (B, C, H, W): (B, *drawer_shape)."""
        return self._pixels(x) if self.layer is None else self._standardised("", self._logits_and_outputs(x)[1])

    def standardise(self, x: Tensor) -> None:
        """Take mean and standard deviation of each channel of the layers' outputs from images (N, C, H, W)."""

        def outputs(part: Tensor) -> tuple[Tensor, ...]:
            found = self._logits_and_outputs(part.to(device_of(self)))[1]
            return tuple(self._standardised(prefix, found) for prefix in self._watched)

        with torch.no_grad(), evaluating(self):
            for prefix, seen in zip(self._watched, batched(outputs, x), strict=True):
                std, mean = torch.std_mean(seen, (0, 2, 3), keepdim=True)
                self.get_buffer(prefix + "mean").add_(self.get_buffer(prefix + "std") * mean[0])
                self.get_buffer(prefix + "std").mul_(std[0].clamp_min(1e-6))

    def _watch(self, prefix: str, layer: str, channels: int) -> None:
        """Have what a layer of the classifier gives, standardised by buffers whose names begin with `prefix`."""
        self._watched[prefix] = find_layer(self.classifier, layer)
        self.register_buffer(prefix + "mean", torch.zeros(channels, 1, 1))
        self.register_buffer(prefix + "std", torch.ones(channels, 1, 1))

    def _logits_and_outputs(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The classifier's logits and the outputs of the layers that are watched, from one pass."""

        def run(prefixes: list[str], x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            if not prefixes:
                return self(x), {}
            first, *others = prefixes
            (logits, outputs), seen = recorded((self._watched[first],), partial(run, others), x)
            return logits, {**outputs, first: seen[-1]}

        return run(list(self._watched), x)

    def _pixels(self, x: Tensor) -> Tensor:
        return converted(x, self.drawer_shape).to(dtype_of(self.drawer))

    def _standardised(self, prefix: str, outputs: dict[str, Tensor]) -> Tensor:
        mean, std = self.get_buffer(prefix + "mean"), self.get_buffer(prefix + "std")
        return ((outputs[prefix] - mean) / std).to(dtype_of(self.drawer))

    def _logits_and_seen(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The classifier's logits and what the drawer sees, from one pass of the classifier."""
        logits, outputs = self._logits_and_outputs(x)
        target = self._pixels(x) if self.layer is None else self._standardised("", outputs)
        if self.style_from is None:
            return logits, target
        style = self._standardised("style_", outputs) if "style_" in outputs else x.to(target.dtype)
        return logits, packed(target, style)

    def _energies(self, seen: Tensor, wanted: Labels) -> Tensor:
        """(B, J) energies of the drawer's labels `wanted` (B, J), which its logits may decide."""
        if not has_logits(self.drawer):
            of_all: Callable[[Tensor], Tensor] = self.drawer.class_energies  # type: ignore[assignment]
            assert isinstance(wanted, Tensor)
            return of_all(seen).gather(1, wanted)
        labels = _Kept(wanted)
        shared: Callable[..., tuple[Tensor, Tensor]] = self.drawer.logits_and_energies  # type: ignore[assignment]
        logits, energies = shared(seen, labels if callable(wanted) else wanted)
        if self.logit_weight is None:
            return energies
        return energies - self.logit_weight * logits.log_softmax(1).gather(1, labels.kept)

    def _energies_of_top(self, seen: Tensor, predicted: Tensor) -> Tensor:
        """(B, K) energies, computed for the predicted label and the `top_labels` likeliest others."""

        def likeliest(own: Tensor) -> Tensor:
            likely = own.detach()[:, self.labels].scatter(1, predicted[:, None], torch.inf)
            return likely.topk(self.top_labels + 1, dim=1).indices

        chosen = _Kept(likeliest)
        energies = self._energies(seen, lambda own: self.labels[chosen(own)])
        return energies.amax(1, keepdim=True).expand(-1, self.n_classes).scatter(1, chosen.kept, energies)


class _Kept:
    """Labels, or the function of the logits that chooses them; what it last chose is kept."""

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        if isinstance(labels, Tensor):
            self.kept = labels

    def __call__(self, logits: Tensor) -> Tensor:
        self.kept = self.labels(logits) if callable(self.labels) else self.labels
        return self.kept


def has_logits(drawer: nn.Module) -> bool:
    """Whether the drawer gives logits of its own along with its energies."""
    return callable(getattr(drawer, "logits_and_energies", None))


def layer_of(argument: str, text: str) -> str | None:
    """The NAME in "layer:NAME"; None of "pixels".

    Raises:
        InputError: it is neither; the message names the argument.
    """
    if text == PIXELS:
        return None
    name = text.removeprefix(LAYER)
    if name == text or not name:
        raise InputError(f"{argument}: got {text!r}, must be {PIXELS!r} or '{LAYER}NAME'")
    return name


def find_layer(classifier: nn.Module, name: str) -> nn.Module:
    """The sub-module that `named_modules` calls `name`.

    Raises:
        InputError: there is none; the message suggests the nearest name.
    """
    modules = dict(classifier.named_modules())
    if not name or name not in modules:
        unknown_name("layer", name, filter(None, modules))
    return modules[name]


def converted(x: Tensor, shape: ImageShape) -> Tensor:
    """Images (B, C, H, W) as images (B, *shape), differentiable.

    Grey is repeated for colour, colour becomes luma (ITU-R BT.601); sides are resized bilinearly, with anti-aliasing
    where they shrink.
    """
    channels, height, width = shape
    if x.shape[1] == len(LUMA) and channels == 1:
        x = (x * x.new_tensor(LUMA).view(-1, 1, 1)).sum(1, keepdim=True)
    elif x.shape[1] == 1 and channels > 1:
        x = x.expand(-1, channels, -1, -1)
    if tuple(x.shape[2:]) != (height, width):
        x = interpolate(x, (height, width), mode="bilinear", antialias=True)
    return x


def _described(model: nn.Module) -> dict[str, Any] | None:
    """What a card says of a model of this library; None for others."""
    return {"name": model.name, **model.config} if isinstance(model, EnergyModel) else None


def loss_in_conversion(given: ImageShape, wanted: ImageShape) -> str | None:
    """What images of the shape `given` lose when they are `converted` to the shape `wanted`; None where nothing."""
    lost = []
    if given[0] > wanted[0]:
        lost.append("colour")
    if given[1] > wanted[1] or given[2] > wanted[2]:
        lost.append(f"resolution ({given[1]}×{given[2]} pixels become {wanted[1]}×{wanted[2]})")
    return " and ".join(lost) or None
