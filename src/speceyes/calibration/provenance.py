"""Provenance of a calibration's scores, and checks of its values."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import TypeGuard, final

from speceyes.errors import CalibrationError
from speceyes.scoring.scales import SHARPNESS
from speceyes.scoring.scores import AGGREGATES, FORMULAS, TOP_K, Aggregate, Formula


@final
@dataclass(frozen=True, slots=True)
class Scoring:
    """Model, prompts and formula that scores were made with; a threshold holds for no others.

    Args:
        model: Name of the small model, as `VisionLanguageModel.name` gives it.
        prompt_hash: Of the prompts that drafts are asked with: `SpeculativeAnswerer.prompt_hash`.
        top_k: K of the gate.
        aggregate: Of the gate.
        formula: Of the gate.
        sharpness: Of the gate.
        revision: The model's revision or a hash of its weights; None where it isn't known, and
            then it isn't checked.

    Raises:
        CalibrationError: An argument that no gate has, or an empty name.
    """

    model: str
    prompt_hash: str
    _: KW_ONLY
    top_k: int = TOP_K
    aggregate: Aggregate = "min"
    formula: Formula = "code"
    sharpness: float = SHARPNESS
    revision: str | None = None

    def __post_init__(self) -> None:
        for name, value in (("model", self.model), ("prompt_hash", self.prompt_hash)):
            if not isinstance(value, str) or not value:
                raise CalibrationError(f"{name}={value!r}; it must be text that isn't empty")
        if self.revision is not None and not isinstance(self.revision, str):
            raise CalibrationError(f"revision={self.revision!r}; it must be text or None")
        if not is_whole(self.top_k) or self.top_k < 1:
            raise CalibrationError(f"top_k={self.top_k!r}; it must be a whole number from 1")
        one_of("aggregate", self.aggregate, AGGREGATES)
        one_of("formula", self.formula, FORMULAS)
        if not (is_number(self.sharpness) and self.sharpness > 0):
            raise CalibrationError(f"sharpness={self.sharpness!r}; it must be a positive number")


def is_number(value: object) -> bool:
    """True for a finite number that isn't a bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_whole(value: object) -> TypeGuard[int]:
    """True for a whole number that isn't a bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Checks a choice.

    Raises:
        CalibrationError: It is none of those allowed.
    """
    if value not in allowed:
        raise CalibrationError(f"{name}={value!r}; use one of {', '.join(allowed)}")
