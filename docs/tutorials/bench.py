"""
Benchmark a model and read the result
=====================================

One call attacks a defended model and measures what a reader needs in order to believe it. The command line's
``robustrecon bench`` does the same.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

import robustrecon

result = robustrecon.benchmark(
    "robust/digits",
    "digits",
    attacks=["pgd", "selective"],
    eps=[0.1, 0.2],
    detectors=["label_margin", "global_error"],
    steps=20,
    n=40,
    progress=False,
)
print(result)

# %%
# The first argument is the name of a model that comes with the package, a trained model's folder, or any
# ``torch.nn.Module``; the second a data set's name or three things of your own, ``(x_test, y_test, x_calibration)``.
#
# What the columns mean
# ---------------------
# *aware* says whether the attack knows the detector. Figures against an attack that does not (``pgd``) say little: a
# detector is to be judged by the attacks that do (``selective``). *AUROC* says how well the score tells clean images
# from successful adversarial ones, and *undetected* is the share of images that end with a wrong label and are
# accepted.
#
# *Robust risk* is the one number to compare by: the share of images that are wrong or rejected when clean, or that
# the attack turns into a wrong label that is accepted. A defence cannot lower it by rejecting everything, since clean
# images that are rejected count too. The brackets are a 95 % interval: on 40 images it is wide.
#
# A † marks a number beside which a check fired: there are signs that the attack failed, so the number may be too low.
#
# The worst case
# --------------
# An adversary may choose the attack for every image. So the second table takes the worst case over all attacks image
# by image, which is at least as high as the risk under any single attack. In Python:

for worst in result.worst_case:
    low, high = worst.robust_risk_interval
    print(f"{worst.detector} at {worst.eps}: {worst.robust_risk:.0%} [{low:.0%}, {high:.0%}]")

# %%
# The same as a DataFrame
# -----------------------
# One row for each attack, radius and detector, with every number that was measured.

frame = result.frame
print(frame[["attack", "eps", "detector", "accuracy", "undetected_success", "robust_risk"]].round(3).to_string())

# %%
# Which is easily drawn:

figure, axis = plt.subplots(figsize=(6, 3.2))
for (attack, detector), rows in frame.groupby(["attack", "detector"]):
    axis.plot(rows["eps"], rows["robust_risk"], marker="o", label=f"{attack}, {detector}")
axis.set(xlabel="eps (L∞)", ylabel="robust risk", ylim=(0, 1.02))
axis.legend(fontsize=8)
figure.tight_layout()

# %%
# Keep it
# -------
# One JSON a cell, with the label and the score of every image. ``robustrecon.load_results`` reads any folder of them,
# and ``robustrecon table FOLDER`` prints them.

folder = Path(tempfile.mkdtemp())
result.save(folder)
print(len(robustrecon.load_results(folder)), "cells")
