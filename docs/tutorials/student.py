"""
A student's first ten minutes: train a network and look at it
=============================================================

Train a style-memory network on the digits that scikit-learn brings, look at what it draws, and see why it notices an
adversarial image. On the command line, ``robustrecon train`` and ``robustrecon bench --attack pgd`` do the same.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from robustrecon import DefendedClassifier, attacks, load_data, train

data = load_data("digits")
print(f"{len(data.train)} images to train on, {len(data.calibration)} to calibrate with, {len(data.test)} to test")

# %%
# Train
# -----
# The recipe ``fast`` is the default. The folder then holds the network, a card that says how it was made, and a table
# of the metrics of every epoch. ``progress=True`` shows how far it is.

folder = Path(tempfile.mkdtemp()) / "digits"
model = train(data, folder, progress=False)
x, y = data.test.x, data.test.y
print(sorted(path.name for path in folder.iterdir()))
print(f"test accuracy {(model(x).argmax(1) == y).double().mean():.1%}")

# %%
# What the network draws
# ----------------------
# It keeps the style of an image, and can draw it under any label. Each row is a digit, drawn as every class.


def show(rows, titles, labels):
    """Rows of images under a line of titles, each row with a label at its left."""
    figure, axes = plt.subplots(len(rows), len(titles), figsize=(len(titles) * 0.75, len(rows) * 0.85))
    for row, label, line in zip(rows, labels, axes, strict=True):
        for image, axis in zip(row, line, strict=True):
            axis.imshow(image.squeeze(), cmap="gray_r", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(label, rotation=0, ha="right", va="center")
    for title, axis in zip(titles, axes[0], strict=True):
        axis.set_title(title, fontsize=9)
    figure.tight_layout(pad=0.3)


def drawings(images):
    """(B, 10, 1, 28, 28): each image under each label."""
    labels = torch.arange(10).repeat(len(images))
    with torch.no_grad():
        return model.reconstruct(images.repeat_interleave(10, 0), labels).reshape(len(images), 10, 1, 28, 28)


few = x[:4]
titles = ["input", *map(str, range(10))]
show(torch.cat([few[:, None], drawings(few)], 1), titles, [f"a {label}" for label in y[:4].tolist()])

# %%
# How badly each drawing explains the image is its class energy. The lowest one should be that of the true label.

with torch.no_grad():
    energies = model.class_energies(x)
print(f"the true label explains {(energies.argmin(1) == y).double().mean():.1%} of the test images best")

# %%
# A detector
# ----------
# The label margin is the energy of the predicted label minus the lowest other one. Calibrated on images that the
# network has not seen, it rejects at most 5 % of clean images, on average over calibration sets.

defended = DefendedClassifier(model, "label_margin").calibrate(data.calibration.x, alpha=0.05)
clean = defended.inspect(x)
print(f"threshold {defended.threshold:.2f}; {clean.rejected.double().mean():.1%} of the clean test images are rejected")

# %%
# An attack
# ---------
# Forty steps of projected gradient descent, each pixel changed by at most 0.1, fool the classifier.

outcome = attacks.load("pgd", eps=0.1, steps=40)(model, x, y)
attacked = defended.inspect(outcome.x)
fooled = outcome.success
caught = attacked.rejected[fooled].double().mean()
print(f"{fooled.double().mean():.0%} of the images are misclassified now; the detector rejects {caught:.0%} of these")

# %%
# Look at one that is rejected: the drawing under the label that the classifier was talked into looks less like the
# input than the drawing under another label does.

index = int((fooled & attacked.rejected).nonzero()[0])
pair = torch.stack([x[index], outcome.x[index]])
show(torch.cat([pair[:, None], drawings(pair)], 1), titles, ["clean", f"read as {attacked.label[index]}"])

# %%
# The two distributions of the score, and the threshold between them:

figure, axis = plt.subplots(figsize=(6, 3))
for score, name in ((clean.score, "clean"), (attacked.score[fooled], "adversarial")):
    axis.hist(score.numpy(), bins=40, alpha=0.6, density=True, label=name)
axis.axvline(defended.threshold, color="black", linestyle="--", label="threshold")
axis.set(xlabel="label margin", ylabel="density", yticks=[])
axis.legend()
figure.tight_layout()

# %%
# This attack did not know that there is a detector. One that does is another matter: go on with the tutorials
# *Benchmark a model* and *A breaker's first ten minutes*.
