"""
A breaker's first ten minutes: break a detector
===============================================

Somebody has a detector and figures that look good. Are they? Take feature squeezing (Xu, Evans and Qi 2018), a
published detector that was later broken: it compares the classifier's output for an image with that for the image in
few grey levels.
"""

import matplotlib.pyplot as plt
import torch

from robustrecon import DefendedClassifier, attacks, load, load_data

data = load_data("digits")
model = load("robust/digits")
x, y = data.test.x[:40], data.test.y[:40]
EPS = 0.2


def squeezed(x):
    """The image in four grey levels."""
    return (x * 3).round() / 3


def squeezing(evidence):
    """L1 distance between the outputs for the image and for its squeezed copy."""
    other = evidence.model(squeezed(evidence.x))
    return (evidence.logits.softmax(1) - other.softmax(1)).abs().sum(1)


defended = DefendedClassifier(model, squeezing).calibrate(data.calibration.x, alpha=0.05)

# %%
# The claim
# ---------
# Against an attack that does not know it, the detector looks useful.


def report(name, outcome):
    """How many images end with a wrong label, and how many of these are accepted."""
    wrong = outcome.label != y
    accepted = wrong & ~defended.inspect(outcome.x).rejected
    print(f"{name}: {wrong.double().mean():.0%} misclassified, {accepted.double().mean():.0%} undetected")


pgd = attacks.load("pgd", eps=EPS, steps=20)
report("pgd", pgd(model, x, y))

# %%
# An attack that knows it
# -----------------------
# ``selective`` raises the classification loss until the image is misclassified, then lowers the score.

selective = attacks.load("selective", eps=EPS, steps=20)
outcome = selective(defended, x, y)
report("selective", outcome)

# %%
# Is that the best it can do? Rounding has no useful gradient, so the attack sees only half of the score. The checks
# look for such failures; with ``attack=`` they also attack some of the remaining images again.

goal = attacks.Misclassified() & attacks.Undetected(defended.threshold)
for fired in attacks.check(defended, x, y, outcome, goal, attack=selective):
    print(f"{fired.name}: {fired.message}")

# %%
# Look at the part with the rounding alone, and the reason is plain:

images = x.clone().requires_grad_()
(grad,) = torch.autograd.grad(model(squeezed(images)).logsumexp(1).sum(), images)
print(f"largest gradient through the rounding: {grad.abs().max():.1f}")

# %%
# Mend the gradient
# -----------------
# Backwards, let the rounding pass for the identity (BPDA: Athalye, Carlini and Wagner 2018). The score is the same
# number; only its gradient differs, so the result can be judged by the detector as it was.


def straight_through(evidence):
    """The same score, with the identity as the gradient of rounding."""
    smooth = evidence.x + (squeezed(evidence.x) - evidence.x).detach()
    return (evidence.logits.softmax(1) - evidence.model(smooth).softmax(1)).abs().sum(1)


mended = DefendedClassifier(model, straight_through).calibrate(data.calibration.x, alpha=0.05)
outcomes = [outcome]
for name, parameters in (("selective", {}), ("orthogonal", {}), ("multi-target", {"targets": 3})):
    outcomes.append(attacks.load(name, eps=EPS, steps=20, **parameters)(mended, x, y))
    report(f"{name}, gradient mended", outcomes[-1])

# %%
# The strongest attack for each image
# -----------------------------------
# An adversary takes whatever works. Take the worst case over all attacks image by image, and count as lost what is
# wrong or rejected when clean: that is the robust risk, a lower bound.

clean = defended.inspect(x)
lost = (clean.label != y) | clean.rejected
print(f"lost when clean: {lost.double().mean():.0%}")
found = x.clone()
for outcome in outcomes:
    verdict = defended.inspect(outcome.x)
    broken = (verdict.label != y) & ~verdict.rejected
    found[broken] = outcome.x[broken]
    lost |= broken
print(f"robust risk at {EPS}: at least {lost.double().mean():.0%}")

# %%
# Some of the images that pass:

verdict = defended.inspect(found)
rows = ((verdict.label != y) & ~verdict.rejected).nonzero().squeeze(1)[:8]
figure, axes = plt.subplots(2, len(rows), figsize=(len(rows), 2.4), squeeze=False)
for column, row in enumerate(rows.tolist()):
    for axis, image, label in zip(axes[:, column], (x[row], found[row]), (y[row], verdict.label[row]), strict=True):
        axis.imshow(image.squeeze(), cmap="gray_r", vmin=0, vmax=1)
        axis.set_title(int(label))
        axis.set_axis_off()
figure.tight_layout()

# %%
# Everything at once: ``robustrecon bench --model robust/mnist --eps 0.3 --worst-case-only`` runs all attacks, each on
# the images that the cheaper ones left. An attack that breaks more than the tables say is welcome: there is an issue
# template for it.
