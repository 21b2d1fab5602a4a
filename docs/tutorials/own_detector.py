"""
Put your own detector to the test
=================================

You have a detector in a file of your own. One command attacks the classifier and the detector together, and says how
often an adversary gets a wrong label accepted.
"""

import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from robustrecon import benchmark

# %%
# A plausible detector, in twenty lines
# -------------------------------------
# An adversarial pattern is fine-grained, a digit is not: so blur the image, and compare the two outputs. The file holds
# this detector, a function of an ``Evidence`` that gives a score for each image, and the classifier that it is to
# protect.

folder = Path(tempfile.mkdtemp())
(folder / "blurs.py").write_text('''
from sklearn.neural_network import MLPClassifier
from torch.nn.functional import avg_pool2d, kl_div

from robustrecon import from_sklearn, load_data


def classifier():
    """A plain network, trained on the digits."""
    train = load_data("digits").train
    return from_sklearn(MLPClassifier((64,), random_state=0).fit(train.x.flatten(1).numpy(), train.y.numpy()))


def blurred(evidence):
    """Divergence between the output for an image and that for its blurred copy."""
    blurred = avg_pool2d(evidence.x, 3, stride=1, padding=1, count_include_pad=False)
    other = evidence.model(blurred).log_softmax(1)
    return kl_div(other, evidence.logits.log_softmax(1), log_target=True, reduction="none").sum(1)
''')

# %%
# One command
# -----------
# ``robustrecon bench --model blurs:classifier --detector blurs:blurred --attack pgd --attack selective --eps 0.05``
# in that folder. ``module:name`` may be a function of an ``Evidence``, a ``Detector``, a subclass, or a function
# without arguments that makes one. ``pgd`` attacks the classifier alone; ``selective`` knows the detector.

command = "--model blurs:classifier --detector blurs:blurred --attack pgd --attack selective --eps 0.05 --n 100"
done = subprocess.run(
    [sys.executable, "-m", "robustrecon", "bench", *shlex.split(command), "--steps", "20"],
    cwd=folder,
    capture_output=True,
    text=True,
    check=False,
)
print(done.stdout or done.stderr)

# %%
# Against ``pgd``, which does not know it, the detector has an AUROC that one could publish, and most successful images
# are caught. ``selective`` follows the gradient of the score as well, and gets more of them past it; the worst case is
# what an adversary gets who may choose. The same from Python, with a larger budget, where little is left:

sys.path.insert(0, str(folder))
result = benchmark(
    "blurs:classifier",
    "digits",
    attacks=["pgd", "selective", "orthogonal"],
    eps=[0.05, 0.1],
    detectors="blurs:blurred",
    n=100,
    steps=20,
    progress=False,
)
for entry in result.worst_case:
    low, high = entry.robust_risk_interval
    print(f"{entry.detector}, eps {entry.eps}: robust risk {entry.robust_risk:.0%} [{low:.0%}, {high:.0%}]")

# %%
# Cells of a detector of your own are measured anew each time, since the file may have changed. A score without gradient
# is said, with the attacks that need none; one that is not finite is said too. Does your detector hold? Let all attacks
# at it with ``--worst-case-only``, and enter it into the leaderboard: see the page *Extend*.
