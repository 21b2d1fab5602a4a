"""Watching a classifier in use: whether what it sees is still like the images that it was calibrated on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.stats import betabinom, ks_2samp

from ..detectors import Calibration
from ..types import InputError, Verdict, check_fraction

if TYPE_CHECKING:
    from ..data.batches import Data
    from .classifier import DefendedClassifier


@dataclass(frozen=True)
class Window:
    """What a window of inputs shows.

    Attributes:
        index: 1 for the first window after a calibration, and so on.
        n: inputs.
        rejected: how many of them were rejected.
        most_rejected: how many may be, at the level of this window.
        rejection_rate_left: whether more were.
        uniformity: p-value of the test that the scores of the accepted inputs are distributed as those of the
            calibration images; None where it was not made.
        p_values_left: whether that is below the level of this window.
    """

    index: int
    n: int
    rejected: int
    most_rejected: int
    rejection_rate_left: bool
    uniformity: float | None
    p_values_left: bool

    @property
    def alarm(self) -> bool:
        """Whether one of the two tests says that inputs have changed."""
        return self.rejection_rate_left or self.p_values_left

    def __str__(self) -> str:
        found = f"window {self.index}: {self.rejected} of {self.n} rejected, at most {self.most_rejected} are expected"
        if self.rejection_rate_left:
            found += " (ALARM)"
        if self.uniformity is not None:
            found += f"; uniformity p = {self.uniformity:.2g}" + (" (ALARM)" if self.p_values_left else "")
        return found


class Monitor:
    """Counts the verdicts of a calibrated classifier, window by window, and says when its inputs have changed.

    If all inputs are exchangeable with the calibration images, the probability that there is ever an alarm, however
    long the monitor runs, is at most `false_alarm_rate`, on average over calibration sets. Window i has the share
    1 / (i (i + 1)) of it, so that all windows together have no more (union bound); half of the share goes to each test:

    - **The rejection rate.** A threshold that is the k-th smallest of n scores rejects a share of clean inputs that is
      itself random, Beta(n + 1 − k, k); among m inputs, the number of rejected ones is beta-binomial. More than its
      quantile is an alarm, at once and not only at the end of the window. Of several detectors, the quantiles of each
      at its share are added up. With ties among scores, and with several detectors, the test errs to the safe side.
    - **The p-values of accepted inputs**, which should be uniform: the scores of the accepted inputs are compared with
      the calibration scores below the threshold by the two-sample Kolmogorov-Smirnov test, which knows that the
      calibration is finite; exact up to 10,000 scores, asymptotic beyond. It is made at the end of a window, and of a
      single detector only, as the p-values of several are not uniform.

    After V. Vovk, A. Gammerman, G. Shafer, "Algorithmic Learning in a Random World", 2005, for the distribution of the
    rejection rate given the calibration. A calibration with `correct_only` bounds the rate among the images that are
    labelled right alone: then the monitor must be given such images only.

    Args:
        defended: a calibrated classifier.
        window: inputs in a window, at least 10. The larger, the smaller the changes that it notices, and the later.
        false_alarm_rate: probability of ever raising a false alarm after a calibration, in (0, 1).

    Attributes:
        windows: the last windows that are complete, at most 100.
        alarms: the windows with an alarm since the last calibration, the current one included; at most 100.
        n: inputs since the last calibration.
        rejected: how many of them were rejected.

    Raises:
        InputError: an argument out of its range, or a classifier that is not calibrated.
    """

    KEPT = 100

    def __init__(self, defended: DefendedClassifier, window: int = 1000, false_alarm_rate: float = 0.01) -> None:
        if not isinstance(window, int) or window < 10:
            raise InputError(f"window: got {window!r}, must be a whole number of at least 10")
        self.defended, self.window = defended, window
        self.false_alarm_rate = check_fraction(false_alarm_rate, "false_alarm_rate")
        self.restart()

    def __repr__(self) -> str:
        return (
            f"Monitor(window={self.window}, false_alarm_rate={self.false_alarm_rate}): {self.n} inputs, "
            f"{self.rejected} rejected, {len(self.alarms)} windows with an alarm"
        )

    @property
    def alarm(self) -> bool:
        """Whether there was an alarm since the last calibration."""
        return bool(self.alarms)

    def restart(self) -> None:
        """Forget all inputs, and take the classifier's calibration of now."""
        self._calibration = self.defended.checked_calibration()
        self._scores, self._rejected = np.empty(0, np.float32), np.empty(0, np.bool_)
        self._index, self.n, self.rejected = 1, 0, 0
        self.windows: list[Window] = []
        self.alarms: list[Window] = []

    def inspect(self, x: Data) -> Verdict:
        """The classifier's verdict on images, given as to its `inspect`, which is counted.

        Raises:
            InputError: as of `inspect`, or a classifier that was calibrated anew.
        """
        verdict = self.defended.inspect(x)
        self.update(verdict)
        return verdict

    def update(self, verdict: Verdict) -> list[Window]:
        """Count a verdict that the classifier gave; returns the windows that it completed, or found an alarm in.

        Raises:
            InputError: the classifier was calibrated anew.
        """
        if self.defended.checked_calibration() is not self._calibration:
            raise InputError("calibration: is another than when the monitor began; call restart")
        scores, rejected = verdict.score.cpu().numpy(), verdict.rejected.cpu().numpy()
        self.n, self.rejected = self.n + len(rejected), self.rejected + int(rejected.sum())
        self._scores = np.concatenate([self._scores, scores])
        self._rejected = np.concatenate([self._rejected, rejected])
        found = []
        while len(self._scores) >= self.window:
            whole = self._judged(self._scores[: self.window], self._rejected[: self.window])
            self._scores, self._rejected = self._scores[self.window :], self._rejected[self.window :]
            self._index += 1
            self.windows = [*self.windows, whole][-self.KEPT :]
            found.append(whole)
        begun = self._judged(self._scores, self._rejected)
        found += [begun] if begun.alarm else []
        indices = {window.index for window in found}
        kept = [window for window in self.alarms if window.index not in indices]
        self.alarms = [*kept, *(window for window in found if window.alarm)][-self.KEPT :]
        return found

    def recalibrate(self, x: Data, alpha: float | None = None) -> None:
        """Calibrate the classifier on new clean images, and begin anew.

        Args:
            x: as for `DefendedClassifier.calibrate`.
            alpha: bound on the false-alarm rate of the classifier; that of before by default.

        Raises:
            InputError: as of `calibrate`.
        """
        self.defended.calibrate(x, self._calibration.alpha if alpha is None else alpha)
        self.restart()

    def _judged(self, scores: NDArray[np.float32], rejected: NDArray[np.bool_]) -> Window:
        level = self.false_alarm_rate / (self._index * (self._index + 1)) / 2
        most = rejections_expected(self._calibration, self.window, level)
        uniformity = self._uniformity(scores[~rejected]) if len(scores) == self.window else None
        count = int(rejected.sum())
        return Window(
            self._index,
            len(scores),
            count,
            most,
            count > most,
            uniformity,
            uniformity is not None and uniformity <= level,
        )

    def _uniformity(self, accepted: NDArray[np.float32]) -> float | None:
        calibration = self._calibration
        if calibration.scores.shape[1] > 1:
            return None
        # Given the threshold, the k − 1 scores below it and those of accepted inputs are drawn from one distribution.
        below = calibration.scores[: calibration.ranks[0] - 1, 0].numpy()
        if not (len(below) and len(accepted)):
            return None
        return float(ks_2samp(below, accepted).pvalue)


@lru_cache(maxsize=1024)
def _quantile(n: int, rank: int, m: int, level: float) -> int:
    if rank > n:
        return 0
    # From the far end, as a distribution function near 1 has no digits left for small levels.
    at_least = betabinom.pmf(np.arange(m + 1), m, n + 1 - rank, rank)[::-1].cumsum()[::-1]
    return int(np.searchsorted(-at_least, -level)) - 1 if at_least[-1] <= level else m


def rejections_expected(calibration: Calibration, m: int, level: float) -> int:
    """The number of rejected inputs that m clean ones exceed with a probability of at most `level`.

    On average over calibration sets; of one detector, whose scores do not repeat, no smaller number has this property.

    Args:
        calibration: of n images.
        m: inputs, at least 1.
        level: in (0, 1).

    Raises:
        InputError: an argument out of its range.
    """
    check_fraction(level, "level")
    if m < 1:
        raise InputError(f"m: got {m}, must be at least 1")
    n, ranks = len(calibration.scores), calibration.ranks
    return min(m, sum(_quantile(n, rank, m, level / len(ranks)) for rank in ranks))
