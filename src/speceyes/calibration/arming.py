"""One arming of a monitor, and the audits that were drawn under it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

from speceyes.calibration.record import Calibration, Risk


@final
@dataclass(frozen=True, slots=True)
class Arming:
    """A promise under watch, from one calibration to the next.

    Args:
        number: From 1, counted over the monitor's whole life.
        target: The promised risk, what is put up with beyond it included.
        risk: "selective" or "overall".
        delta: This arming's part of the monitor's delta; see `share_of_delta`.
        calibration: What made the promise; None where the target was given as a number.
    """

    number: int
    target: float
    risk: Risk
    delta: float
    calibration: Calibration | None = None


@final
@dataclass(frozen=True, slots=True)
class Audit:
    """An audit that was drawn.

    Args:
        number: From 1, in the order of drawing, over all armings.
        arming: Number of the arming that it was drawn under.
    """

    number: int
    arming: int


def share_of_delta(delta: float, number: int) -> float:
    """Part of delta that the arming of that number may spend: 6 / (pi number)^2 of it.

    All parts together are delta, so that false alarms stay under it however often a monitor is
    armed anew.

    Example:
        >>> round(share_of_delta(0.05, 1), 4), round(share_of_delta(0.05, 2), 4)
        (0.0304, 0.0076)
        >>> round(sum(share_of_delta(0.05, k) for k in range(1, 100_000)), 4)
        0.05
    """
    return delta * 6 / (math.pi * number) ** 2
