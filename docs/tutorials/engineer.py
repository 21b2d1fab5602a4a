"""
An engineer's first ten minutes: defend your own classifier
===========================================================

Any classifier that gives logits can be given a detector whose false-alarm rate is bounded. Take one of your own,
calibrate it, save it, judge images, and find out what the detector is worth.
"""

import tempfile
from pathlib import Path

import torch
from torch import nn

from robustrecon import DefendedClassifier, attacks, load, load_data

data = load_data("digits")


def classifier():
    """Stands for your own: images (B, 1, 28, 28) in [0, 1] to logits (B, 10)."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))


torch.manual_seed(0)
model = classifier()
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
for _ in range(100):
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(data.train.x), data.train.y).backward()
    optimizer.step()
x, y = data.test.x, data.test.y
print(f"test accuracy {(model(x).argmax(1) == y).double().mean():.1%}")

# %%
# Images are in [0, 1]. Where your classifier wants them normalised, or returns a dictionary or a tuple, wrap it:
# ``robustrecon.Normalized(model, mean, std)``, ``robustrecon.LogitsOf(model, "logits")``.
#
# Calibrate
# ---------
# The detectors ``msp``, ``max_logit``, ``logit_margin`` and ``energy`` need nothing but logits. Calibrate on clean
# images that the classifier was not trained on: a tensor, an array or a ``DataLoader``.

defended = DefendedClassifier(model, "msp").calibrate(data.calibration.x, alpha=0.05)
defended.classes = data.classes
print(defended.predict(x)[:20])  # -1 where the input is rejected
verdict = defended.inspect(x)
print(f"{verdict.rejected.double().mean():.1%} of the clean test images are rejected")

# %%
# ``alpha`` bounds this rate on average over calibration sets, whatever the classifier; a single test set may lie a
# little above it. Each input has a p-value too, which is small for suspicious ones.

for label, p_value, rejected in zip(verdict.label[:5], verdict.p_value[:5], verdict.rejected[:5], strict=True):
    print(f"label {int(label)}, p-value {p_value:.3f}, {'rejected' if rejected else 'accepted'}")

# %%
# Save and load
# -------------
# One safetensors file with a readable card beside it: no pickles. For a class of your own, pass an instance.

file = defended.save(Path(tempfile.mkdtemp()) / "defended.safetensors")
again = DefendedClassifier.load(file, model=classifier())
print(torch.equal(again.predict(x), defended.predict(x)), sorted(path.name for path in file.parent.iterdir()))

# %%
# As an ``nn.Module`` it is the classifier itself, so it fits wherever the classifier did: ``defended(x)`` gives
# logits.
#
# What is it worth?
# -----------------
# That is to be measured with an attack that knows the detector.


def undetected(classifier, name, **parameters):
    """The share of the first 50 test images that an attack turns into a wrong label that is accepted."""
    outcome = attacks.load(name, eps=0.1, steps=20, **parameters)(classifier, x[:50], y[:50])
    return f"{outcome.success.double().mean():.0%}"


print("confidence alone:", undetected(defended, "selective"))

# %%
# Nothing: the classifier's own confidence does not protect it. This is the rule, not an accident of this one.
#
# Ask a network that draws
# ------------------------
# Detectors such as ``label_margin`` ask whether the *predicted label* explains the image. They need one more method,
# ``class_energies(x)``: how badly each label explains x, (B, K), lower is better, differentiable. The distance to the
# mean image of each class is one way. A better one is a robust network that comes with the package: your classifier
# decides, and the network, which is not trained again, draws.


class Explained(nn.Module):
    """A classifier of one's own beside a network that draws."""

    def __init__(self, classifier, drawer):
        super().__init__()
        self.classifier, self.drawer = classifier, drawer

    def forward(self, x):
        return self.classifier(x)

    def class_energies(self, x):
        return self.drawer.class_energies(x)


explained = DefendedClassifier(Explained(model, load("robust/digits")), "label_margin")
explained.calibrate(data.calibration.x, alpha=0.05)
print(f"rejected when clean: {explained.inspect(x).rejected.double().mean():.1%}")
print("selective:", undetected(explained, "selective"))
print("multi-target:", undetected(explained, "multi-target", targets=3))

# %%
# A shipped model needs none of this: it comes calibrated. ``robustrecon detect --model robust/mnist digit.png``
# judges image files at once, and ``robustrecon calibrate --model runs/digits --alpha 0.01 --out digits.safetensors``
# writes a calibrated classifier of a network that you trained.
