"""
With scikit-learn
=================

A defended classifier is an estimator, its detector an outlier detector: for rows of pixels or images, in pipelines,
cross-validation and grid searches.
"""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from robustrecon import from_sklearn
from robustrecon.interop.sklearn import DefendedClassifierEstimator, ReconstructionDetector
from robustrecon.training import Recipe

X, y = load_digits(return_X_y=True)
X, X_test, y, y_test = train_test_split(X, y, test_size=500, random_state=0)
print(X.shape, X.min(), X.max())  # 8 x 8 pixels in a row, from 0 to 16

# %%
# Train
# -----
# ``fit`` trains a network on a part of the rows and calibrates its detector on the others, so that at most a share
# ``alpha`` of clean inputs is rejected. The recipe is a short one; ``recipe="contrastive"`` is better.

recipe = Recipe("short", epochs=1, batch_size=64, learning_rate=0.005, schedule="one-cycle", least_steps=120)
estimator = DefendedClassifierEstimator(recipe=recipe, alpha=0.05, random_state=0).fit(X, y)
predicted = estimator.predict(X_test)
accepted = predicted != -1  # what is rejected has the label -1
print(f"{1 - accepted.mean():.1%} rejected, {(predicted == y_test)[accepted].mean():.1%} of the others labelled right")

# %%
# ``inspect`` has more than labels: scores, p-values, rejections. ``defended_`` is the ``DefendedClassifier``, to be
# saved, and to be attacked.

noise = np.random.default_rng(0).integers(0, 17, (200, 64))
verdict = estimator.inspect(noise)
median = verdict.p_value.median()
print(f"{verdict.rejected.double().mean():.0%} of random images are rejected, median p-value {median:.3f}")

# %%
# Wrap
# ----
# A classifier that you have, of scikit-learn or of PyTorch, is only calibrated: give ``fit`` rows that it was not
# trained on. ``from_sklearn`` makes a module of an estimator. The rows of a model that is given are in [0, 1], unless
# ``pixel_range`` says otherwise.

half = len(X) // 2
mlp = MLPClassifier((64,), max_iter=200, tol=5e-3, random_state=0).fit(X[:half] / 16, y[:half])
wrapped = DefendedClassifierEstimator(from_sklearn(mlp), "msp", image_shape=(1, 8, 8))

# %%
# Search
# ------
# ``score`` counts a rejected input as wrong, so a search over ``alpha`` alone would reject as little as it may. Search
# for the detector at an ``alpha`` that you have chosen; how well it withstands attacks is for ``robustrecon bench``.

pipeline = make_pipeline(MinMaxScaler(clip=True), wrapped)
grid = GridSearchCV(pipeline, {"defendedclassifierestimator__detector": ["msp", "max_logit", "energy"]}, cv=3)
grid.fit(X[half:], y[half:])
for setting, mean in zip(grid.cv_results_["params"], grid.cv_results_["mean_test_score"], strict=True):
    print(f"{setting['defendedclassifierestimator__detector']:>9}  right and accepted: {mean:.1%}")
print(
    "of the classifier alone:", f"{cross_val_score(wrapped.set_params(reject_label=None), X / 16, y, cv=3).mean():.1%}"
)

# %%
# Outliers
# --------
# ``ReconstructionDetector`` is the detector without the classifier's labels, 1 for inliers and -1 for outliers as
# scikit-learn has it. It needs no labels: without them, what a network learns to draw are clusters.

outliers = ReconstructionDetector(recipe=recipe, alpha=0.05, random_state=0).fit(X)
for name, rows in {"test digits": X_test, "noise": noise, "upside down": 16 - X_test}.items():
    print(f"{name:>11}: {(outliers.predict(rows) == -1).mean():.1%} are outliers")
