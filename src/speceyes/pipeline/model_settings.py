"""Models and gate as a settings file has them, and whether what is loaded is the same."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, final

from PIL import Image as PILImage

from speceyes.calibration import Calibration
from speceyes.errors import ConfigError
from speceyes.gate import SeparabilityGate
from speceyes.gates.span import AnswerSpanGate, decode_of
from speceyes.models.by_name import is_address
from speceyes.pipeline.config import LoadConfig
from speceyes.protocols import HasRevision, VisionLanguageModel, offers
from speceyes.scoring.scores import Aggregate

if TYPE_CHECKING:
    from speceyes.protocols import Gate

PROBES: Final = ((64, 48), (640, 480), (2048, 1536), (4096, 3072))
"""Sizes of images, (width, height), by which it is told how a model sees them."""
_SECRET: Final = re.compile("key|token|secret|password|auth|header|proxy|cookie", re.I)
_LOADING: Final = ("dtype", "min_pixels", "max_pixels")


@final
@dataclass(frozen=True, slots=True)
class ModelSettings:
    """A model that settings were found for.

    Args:
        source: A checkpoint's name or folder, or an engine's address.
        name: As the model names itself.
        revision: Of its weights; None where it isn't known, and then it isn't checked.
        sees: (width, height) at which it sees an image of each size of `PROBES`.
        load: Arguments that it was loaded with, such as `dtype` and `max_pixels`.
    """

    source: str
    name: str
    revision: str | None = None
    sees: tuple[tuple[int, int], ...] = ()
    load: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls, model: VisionLanguageModel, source: str, load: Mapping[str, Any] | None = None
    ) -> ModelSettings:
        """Settings of a loaded model. Arguments that may hold a secret are left out.

        Args:
            model: The model.
            source: Where it was loaded from.
            load: Arguments that it was loaded with.
        """
        revision = model.revision if offers(model, HasRevision) else None
        kept = {
            name: value
            for name, value in (load or {}).items()
            if not _SECRET.search(name) and is_json(value)
        }
        return cls(source, model.name, revision, sees(model), kept)

    def wrong_with(self, model: VisionLanguageModel) -> list[str]:
        """Differences between a loaded model and this one, in words."""
        found = []
        if model.name != self.name:
            found.append(f"it is {model.name!r}, not {self.name!r}")
        revision = model.revision if offers(model, HasRevision) else None
        if None not in (revision, self.revision) and revision != self.revision:
            found.append(f"its weights are {revision!r}, not {self.revision!r}")
        for size, before, now in zip(PROBES, self.sees, sees(model), strict=False):
            if before != now:
                found.append(
                    f"it sees an image of {_by(size)} at {_by(now)}, not {_by(before)}: load it "
                    "with the same limits of pixels"
                )
                break
        return found


@final
@dataclass(frozen=True, slots=True)
class GateSettings:
    """A gate: its threshold, and the tokens that it scores.

    Args:
        threshold: From 0 to 1.
        top_k: K.
        aggregate: See `SeparabilityGate`.
        span: Tokens that are scored: of the "whole" draft, or of its "answer" alone.
        calibration: Where the threshold is from; None where nothing is promised.

    Raises:
        ConfigError: A value is out of range.
        CalibrationError: The calibration is of another threshold, K or aggregate.
    """

    threshold: float
    top_k: int
    aggregate: Aggregate = "min"
    span: str = "whole"
    calibration: Calibration | None = None

    def __post_init__(self) -> None:
        if self.span not in ("whole", "answer"):
            raise ConfigError(f'span={self.span!r}; it must be "whole" or "answer"')
        self.scored(calibrated=True)

    def scored(self, *, calibrated: bool) -> SeparabilityGate:
        """The gate for whole drafts, with its calibration or without."""
        kept = self.calibration if calibrated else None
        # An uncertified calibration's gate accepts nothing, which the threshold says by itself.
        return SeparabilityGate(
            self.threshold, top_k=self.top_k, aggregate=self.aggregate, calibration=kept
        )

    def gate(self, model: VisionLanguageModel) -> Gate:
        """The gate over a drafter.

        Raises:
            ConfigError: The answer's tokens are scored, and the drafter's tokenizer isn't here.
        """
        if self.span == "whole":
            return self.scored(calibrated=True)
        decode = decode_of(model)
        if decode is None:
            raise ConfigError(
                f"these settings score the answer's tokens alone, and {model.name!r} has no "
                "tokenizer in this process: tune it again with --spans whole"
            )
        return AnswerSpanGate(self.scored(calibrated=False), decode)


def sees(model: VisionLanguageModel) -> tuple[tuple[int, int], ...]:
    """(width, height) at which a model sees an image of each size of `PROBES`."""
    return tuple(model.seen_size(PILImage.new("L", size)) for size in PROBES)


def loading_arguments(source: str, told: ModelSettings) -> dict[str, Any]:
    """Arguments that a model was loaded with, as far as they go for where it is loaded from now.

    Args:
        source: A checkpoint's name or folder, or an engine's address.
        told: What was written down.
    """
    found = dict(told.load)
    if is_address(source) != is_address(told.source):
        return {}
    if not is_address(source) and re.fullmatch("[0-9a-f]{40}", told.revision or ""):
        found.setdefault("revision", told.revision)
    return found


def arguments_of(source: str, told: ModelSettings, load: LoadConfig) -> dict[str, Any]:
    """Arguments that a model is loaded with: those given before those that were written down."""
    given = {name: getattr(load, name) for name in _LOADING if getattr(load, name) is not None}
    if is_address(source):
        given = {}
    return {**loading_arguments(source, told), **given, **load.model_kwargs}


def _by(size: Sequence[int]) -> str:
    return f"{size[0]}x{size[1]}"


def is_json(value: object) -> bool:
    """True for what JSON can hold."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True
