"""
Write an attack
===============

An attack writes one method, ``perturb``. The base class checks the input, skips images that are misclassified when
clean, projects the result into the budget, counts restarts and decides success.
"""

from dataclasses import dataclass

import torch

from robustrecon import DefendedClassifier, attacks, load, load_data
from robustrecon.attacks import IterativeAttack

data = load_data("digits")
model = load("robust/digits")
x, y = data.test.x[:40], data.test.y[:40]

# %%
# Momentum
# --------
# The momentum iterative method (Dong et al. 2018) adds up normalised gradients and steps along the sum. ``victim`` is
# the model, frozen and in evaluation mode; ``goal`` says what the adversary wants, and its loss rises towards it.
# ``self.threat`` is the ball of radius ``eps``, for whichever norm was asked for.


@dataclass(kw_only=True, eq=False)
class Momentum(IterativeAttack):
    """Gradient ascent along a decaying sum of normalised gradients.

    Y. Dong et al., "Boosting Adversarial Attacks with Momentum", CVPR 2018.
    """

    name = "momentum"

    decay: float = 1.0

    def perturb(self, victim, x, y, goal):
        x_adv, momentum = x, torch.zeros_like(x)
        for _ in range(self.steps):
            x_adv = x_adv.detach().requires_grad_()
            loss = goal.assess(victim, x_adv, y)[1]
            (grad,) = torch.autograd.grad(loss.sum(), x_adv)
            momentum = self.decay * momentum + grad / grad.abs().mean((1, 2, 3), keepdim=True).clamp_min(1e-12)
            x_adv = self.threat.project(x_adv.detach() + self.step_size * self.threat.direction(x_adv, momentum), x)
        return x_adv


# %%
# Against the classifier
# ----------------------

for attack in (Momentum(eps=0.2, steps=20), attacks.load("pgd", eps=0.2, steps=20)):
    outcome = attack(model, x, y)
    print(f"{attack.name:10} misclassified: {outcome.success.double().mean():.0%}")

# %%
# Did it do its best?
# -------------------
# An attack that fails says nothing of the defence. ``attacks.check`` looks for signs that the attack failed rather
# than that the defence held: a gradient that is zero, a loss that did not rise, a few plain steps or a short random
# search that find more. The second attack here is crippled on purpose: its two steps are far too small.

crippled = Momentum(eps=0.2, steps=2, alpha=0.01)
for attack in (Momentum(eps=0.2, steps=20), crippled):
    outcome = attack(model, x, y)
    fired = attacks.check(model, x, y, outcome, attack=attack)
    print(f"{outcome.success.double().mean():.0%} misclassified;", [each.name for each in fired] or "no check fired")

# %%
# Where a check fires, more steps, more restarts or another attack would find more, and the number is not to be
# trusted.
#
# Against classifier and detector
# -------------------------------
# The goal may ask for more: a wrong label *and* a score below the threshold. The attack above works towards it
# without a change, since it ascends the goal's loss.

defended = DefendedClassifier(model, "label_margin").calibrate(data.calibration.x, alpha=0.05)
goal = attacks.Misclassified() & attacks.Undetected(defended.threshold)
print(f"momentum, both at once: {Momentum(eps=0.2, steps=20)(defended, x, y, goal).success.double().mean():.0%}")
for name in ("selective", "multi-target"):
    outcome = attacks.load(name, eps=0.2, steps=20)(defended, x, y)
    print(f"{name}: {outcome.success.double().mean():.0%}")

# %%
# To run it from the command line, put it into ``momentum.py`` in the current folder: ``robustrecon bench --attack
# momentum:Momentum --param decay=0.9``. As a file of the library with a line in the catalogue it is listed, tested
# and part of suites: see the page *Extend*.
