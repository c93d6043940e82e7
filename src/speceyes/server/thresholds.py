"""Thresholds that a request may ask for, and the gates that these make."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from speceyes.calibration.watched import WatchedGate
from speceyes.errors import ConfigError
from speceyes.gate import SeparabilityGate
from speceyes.pipeline import SpecPipeline
from speceyes.server.limits import ServerLimits
from speceyes.types import Completion, Verdict


def with_threshold(
    gate: Callable[[Completion], Verdict] | None, threshold: float
) -> SeparabilityGate | WatchedGate:
    """The same gate under another threshold. Whatever it was calibrated for, this one isn't.

    Raises:
        ConfigError: It has no threshold that could be changed.

    Example:
        >>> with_threshold(SeparabilityGate(0.9), 0.99).threshold
        0.99
    """
    if isinstance(gate, WatchedGate):
        return gate.changed(lambda made: with_threshold(made, threshold))
    if not isinstance(gate, SeparabilityGate):
        raise ConfigError("this server's gate has no threshold that a request may set")
    return dataclasses.replace(gate, threshold=threshold, calibration=None)


def settled(
    pipe: SpecPipeline, limits: ServerLimits
) -> tuple[ServerLimits, SeparabilityGate | WatchedGate | None]:
    """The limits with what requests may ask for, and a gate that accepts all that any of these
    accepts; None where the pipeline's own does.

    Raises:
        ConfigError: The gate has no threshold that a request could set, and limits name some.
    """
    gate = pipe.gate
    inner = gate.gate if isinstance(gate, WatchedGate) else gate
    if not isinstance(inner, SeparabilityGate):
        if limits.thresholds is not None and gate is not None:
            raise ConfigError(
                f"thresholds={limits.thresholds}, and the gate is a {type(inner).__name__}, which "
                "has no threshold that a request may set: leave them out"
            )
        return dataclasses.replace(limits, thresholds=None), None
    low, high = limits.thresholds or (inner.threshold, 1.0)
    limits = dataclasses.replace(limits, thresholds=(low, high))
    if low >= inner.threshold:
        return limits, None
    return limits, with_threshold(gate, low)
