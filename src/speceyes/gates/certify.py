"""A threshold with a guarantee for any gate of this room.

`speceyes.calibration.calibrate` knows the scales of `SeparabilityGate` and writes a file that it
refuses to be misused with. The test behind it needs only that more is better, so it is run here
on a gate's own raw scores. docs/guarantee.md has the theorem (selective risk, Learn then Test with
a fixed sequence) and its assumptions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt

from speceyes.calibration.images import Keys, clusters_of, one_each
from speceyes.calibration.risk import default_start, ladder, selective
from speceyes.checks import checked_share
from speceyes.errors import ConfigError, InputError
from speceyes.protocols import HasLeast, offers
from speceyes.types import Completion, Verdict


@final
@dataclass(frozen=True, slots=True)
class Certificate:
    """A threshold on a gate's own scale, or the finding that none can be certified.

    Args:
        threshold: For `dataclasses.replace(gate, threshold=...)`; None where there is none.
        target: With confidence 1 - delta less than this share of accepted drafts is bad.
        delta: How often such a promise may fail, over calibrations.
        n: Labelled drafts.
        accepted: How many of them reach the threshold.
        bad: How many of those are bad.
    """

    threshold: float | None
    target: float
    delta: float
    n: int
    accepted: int = 0
    bad: int = 0

    @property
    def statement(self) -> str:
        """The promise in words."""
        if self.threshold is None:
            return (
                f"no threshold could be certified for a risk of {self.target:g} at confidence "
                f"{1 - self.delta:g} on {self.n} labelled drafts: label more, or allow more"
            )
        return (
            f"with confidence {1 - self.delta:g}, less than {self.target:g} of the drafts that "
            f"reach {self.threshold:g} are bad ({self.bad} of {self.accepted} were, of {self.n})"
        )


def certify(
    gate: Callable[[Completion], Verdict],
    drafts: Sequence[Completion],
    bad: Sequence[bool] | npt.NDArray[np.bool_],
    *,
    target: float = 0.05,
    delta: float = 0.1,
    let_through: Sequence[bool] | npt.NDArray[np.bool_] | None = None,
    image_key: Keys | None = None,
    seed: int = 0,
) -> Certificate:
    """The loosest threshold whose share of bad drafts among the accepted is under the target.

    The drafts must be drawn as those to come will be, and neither the gate's parameters nor a
    `LogisticGate`'s weights may have been chosen on them.

    Args:
        gate: One of `speceyes.gates`; its present threshold doesn't matter.
        drafts: Labelled drafts.
        bad: Whether each is bad.
        target: The risk to stay under, strictly between 0 and 1.
        delta: One minus the confidence, strictly between 0 and 1.
        let_through: False where the judge sends the query to the agent; None lets all through.
        image_key: Each draft's image or a key of it; one draft of each image is drawn by lot, and
            the others are left out. None takes each for one of an image of its own.
        seed: Draws lots among tied drafts at the start, and among the drafts of an image.

    Raises:
        ConfigError: A target or delta out of range, or a gate that doesn't tell its least
            threshold, as `SeparabilityGate`, for which there is `calibrate`.
        InputError: The lengths differ, or there are no drafts.

    Example:
        >>> import dataclasses
        >>> from speceyes.gates.margin import MarginGate
        >>> drafts = [Completion("x", (1,), np.log([[0.9, 0.1 - i / 10_000]])) for i in range(99)]
        >>> found = certify(MarginGate(), drafts, [False] * 99)
        >>> found.accepted, dataclasses.replace(MarginGate(), threshold=found.threshold).threshold
        (99, 0.0)
    """
    target, delta = checked_share("target", target), checked_share("delta", delta)
    scale: object = gate
    least = scale.least if offers(scale, HasLeast) else None
    if least is None:
        raise ConfigError(
            f"{type(gate).__name__} doesn't tell the least threshold of its scale; use "
            "speceyes.calibration.calibrate for SeparabilityGate"
        )
    loss = np.asarray(bad, dtype=bool)
    through = np.ones(len(drafts), bool) if let_through is None else np.asarray(let_through, bool)
    if not len(drafts) or loss.shape != (len(drafts),) or through.shape != loss.shape:
        raise InputError(
            f"{len(drafts)} drafts, labels {loss.shape}, let_through {through.shape}; there must "
            "be one each, and at least one"
        )
    verdicts = [gate(draft).separability for draft in drafts]
    raw = np.array([math.nan if score is None else score for score in verdicts])
    raw[~through] = np.nan
    if image_key is not None:
        drawn = one_each(clusters_of(image_key, raw.size), seed)
        raw, loss = raw[drawn], loss[drawn]
    rungs = ladder(raw, loss)
    start = default_start(raw.size, target, delta)
    random = np.random.default_rng(seed)
    passed = selective(rungs, target, delta, start=start, random=random)
    if passed == 0 or rungs.accepted[passed - 1] == 0:
        return Certificate(None, target, delta, raw.size)
    # Everything above the next rung down accepts the same drafts, and that is what was tested.
    below = passed < len(rungs.thresholds)
    threshold = math.nextafter(float(rungs.thresholds[passed]), math.inf) if below else least
    counts = int(rungs.accepted[passed - 1]), int(rungs.bad[passed - 1])
    return Certificate(threshold, target, delta, raw.size, *counts)
