"""
With the Adversarial Robustness Toolbox
=======================================

ART's attacks on a classifier that rejects, this library's detector among ART's, and a classifier of ART in a benchmark
here.
"""

import numpy as np
import torch
from art.attacks.evasion import ProjectedGradientDescentPyTorch
from art.estimators.classification import PyTorchClassifier
from torch import nn

from robustrecon import DefendedClassifier, benchmark, from_art, graft, load_data
from robustrecon.interop.art import ReconstructionDetector

data = load_data("digits")
torch.manual_seed(0)
model = nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))
optimizer = torch.optim.Adam(model.parameters(), 0.005)
classifier = PyTorchClassifier(model, nn.CrossEntropyLoss(), (1, 28, 28), 10, optimizer, clip_values=(0, 1))
classifier.fit(data.train.x.numpy(), data.train.y.numpy(), nb_epochs=8)
x, y = data.test.x[:100], data.test.y[:100]
print(f"accuracy {(classifier.predict(x.numpy()).argmax(1) == y.numpy()).mean():.0%}")

# %%
# A detector in ART's language
# ----------------------------
# It wraps ART's classifier, or any module. ``fit`` calibrates it on clean images, and at most a share ``alpha`` of
# clean images is rejected then.

detector = ReconstructionDetector(classifier, "msp", alpha=0.05)
detector.fit(data.calibration.x.numpy())
report, is_adversarial = detector.detect(x.numpy())
print(f"{is_adversarial.mean():.0%} of the clean images are rejected, threshold {report['threshold']:.3f}")
detector.set_params(alpha=0.1)  # moves the threshold
print(f"{detector.detect(x.numpy())[1].mean():.0%} with a larger alpha")

# %%
# Attack the decision with rejection
# ----------------------------------
# ``to_art()`` is the classifier alone, which is what an attacker sees who does not know the detector. With
# ``reject_class=True`` the detector is in it: an eleventh logit is the largest where the input is rejected, so that a
# gradient attack of ART follows the score too. Let it be targeted: an untargeted one would be content with a rejection.
# The detector here asks a network that draws, ``robust/digits``.

x, y = x[:40], y[:40]
defended = DefendedClassifier(graft(model, "robust/digits"), "label_margin").calibrate(data.calibration.x, alpha=0.1)
second = defended(x).topk(2).indices[:, 1].numpy()
for reject_class in (False, True):
    estimator = defended.to_art(reject_class)
    targets = np.eye(estimator.nb_classes, dtype=np.float32)[second]
    attack = ProjectedGradientDescentPyTorch(
        estimator, eps=0.2, eps_step=0.02, max_iter=25, targeted=True, batch_size=100, verbose=False
    )
    verdict = defended.inspect(torch.from_numpy(attack.generate(x.numpy(), targets)))
    wrong = verdict.label != y
    print(
        f"{estimator.nb_classes} outputs: {wrong.double().mean():.0%} labelled wrong, "
        f"{(wrong & ~verdict.rejected).double().mean():.0%} wrong and accepted"
    )

# %%
# An attack that does not know the detector is caught; one that does gets more past it. ``robustrecon bench`` has
# attacks that were made for this, ``selective`` and others, and takes the worst of all of them.
#
# ART's models here
# -----------------
# ``from_art`` makes a module of ART's classifier, and a detector of its evasion detectors. Then they can be defended,
# attacked and benchmarked.

result = benchmark(from_art(classifier), "digits", ["pgd", "selective"], 0.08, "msp", n=50, steps=10, progress=False)
for cell in result.cells:
    print(f"{cell.key.attack:>9}: robust risk {cell.metrics.robust_risk:.0%}")
