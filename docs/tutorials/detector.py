"""
Write a detector
================

A detector is a score of an input; higher is more suspicious. The threshold, the p-values, saving, the attacks and the
benchmark come by themselves.
"""

import torch
from sklearn.metrics import roc_auc_score

from robustrecon import DefendedClassifier, attacks, load, load_data
from robustrecon.detectors import Detector, FittedDetector, any_of, gathered

data = load_data("digits")
model = load("robust/digits")
x, y = data.test.x[:50], data.test.y[:50]

# %%
# A function
# ----------
# The shortest way is a function of an ``Evidence``, which has the images ``x``, the ``logits``, the ``predicted``
# labels, the class ``energies``, the ``reconstruction`` under the predicted label, and more; each is computed when it
# is asked for.


def relative_error(evidence):
    """The energy of the predicted label, as a share of the image's own size."""
    energy = evidence.energies.gather(1, evidence.predicted[:, None]).squeeze(1)
    return energy / (evidence.x.flatten(1).square().sum(1) + 1)


defended = DefendedClassifier(model, relative_error).calibrate(data.calibration.x, alpha=0.05)
print(f"threshold {defended.threshold:.4f}, rejected when clean {defended.inspect(x).rejected.double().mean():.0%}")

# %%
# A class
# -------
# A class can be saved, and says which methods it needs of a model. This is the negative log-probability of the
# predicted label where the energies are read as a Boltzmann distribution.


class SoftMargin(Detector):
    """E[p] + logsumexp(−E), at a temperature."""

    name = "soft_margin"
    requires = ("class_energies",)

    def score(self, evidence):
        energies = evidence.energies / 10
        return energies.gather(1, evidence.predicted[:, None]).squeeze(1) + (-energies).logsumexp(1)


# %%
# One that learns from training images
# ------------------------------------
# ``statistics`` gives tensors by name; ``score`` reads them as attributes, and they are saved with the classifier.
# This one is the distance of the features to the mean of the predicted class.


class ClassMean(FittedDetector):
    """Squared distance from the mean features of the predicted class."""

    name = "class_mean"

    def statistics(self, model, x, y):
        features = gathered(model, x, lambda evidence: evidence.features())
        return {"means": torch.stack([features[y == k].mean(0) for k in range(10)])}

    def score(self, evidence):
        return (evidence.features() - self.means[evidence.predicted]).square().sum(1)


# %%
# Is it any good?
# ---------------
# Compare it with those that are there, against an attack that knows each of them. *AUROC* is that of the score, clean
# images against successful adversarial ones: 0.5 is a coin, and below that the attack made its images less suspicious
# than clean ones are.


def measured(detector):
    """A line about a detector: what an attack that knows it leaves of it."""
    defended = DefendedClassifier(model, detector).fit(data.train.x, data.train.y).calibrate(data.calibration.x)
    outcome = attacks.load("selective", eps=0.2, steps=15)(defended, x, y)
    fooled = outcome.x[outcome.label != y]
    with torch.no_grad():
        score = torch.cat([defended.score(x), defended.score(fooled)])
    auroc = roc_auc_score([0] * len(x) + [1] * len(fooled), score)
    return f"{defended.detector.name:32} AUROC {auroc:.2f}   undetected {outcome.success.double().mean():.0%}"


for detector in ("label_margin", "msp", SoftMargin(), ClassMean(), any_of("label_margin", ClassMean())):
    print(measured(detector))

# %%
# Keep the score differentiable
# -----------------------------
# An attack that knows the detector follows the gradient of its score. Where there is none, the attack fails in
# silence and the detector looks better than it is. So look at it:

defended = DefendedClassifier(model, SoftMargin()).calibrate(data.calibration.x)
images = x.clone().requires_grad_()
(grad,) = torch.autograd.grad(defended.score(images).sum(), images)
print(f"images with a gradient: {(grad.flatten(1).abs().amax(1) > 0).double().mean():.0%}")

# %%
# A detector that is one file and one line in the catalogue is known to the command line too, and is tested as soon as
# it is listed: see the page *Extend*.
