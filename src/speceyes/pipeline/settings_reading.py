"""Reads the sections of a settings file, each field of its own kind."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

from speceyes.calibration import Calibration
from speceyes.calibration.provenance import is_whole
from speceyes.dialects.profile import Profile
from speceyes.errors import CalibrationError, ConfigError
from speceyes.pipeline.config import Rung
from speceyes.pipeline.model_settings import PROBES, GateSettings, ModelSettings
from speceyes.scoring.scores import AGGREGATES

Kind = TypeVar("Kind")


def only_fields(where: str, data: Mapping[str, Any], names: Sequence[str]) -> None:
    """Refuses fields that there aren't."""
    if unknown := sorted(set(data) - set(names)):
        raise ConfigError(f"{where}: unknown {', '.join(unknown)}; there are {', '.join(names)}")


def value_of(where: str, value: Any, kind: type[Kind]) -> Kind:
    """The value, if it is of the kind."""
    if not isinstance(value, kind):
        raise ConfigError(f"{where}={value!r}; it must be {_KINDS[kind]}")
    return value


_KINDS: Final[Mapping[type[Any], str]] = {str: "text", dict: "an object", list: "a list"}


def made(where: str, kind: type[Kind], data: Any) -> Kind:
    """A dataclass from an object of its fields."""
    data = value_of(where, data, dict)
    only_fields(where, data, [one.name for one in dataclasses.fields(kind)])  # type: ignore[arg-type]
    try:
        return kind(**data)
    except ConfigError as exc:
        raise ConfigError(f"{where}: {exc}") from exc
    except (TypeError, ValueError) as exc:
        raise ConfigError(f"{where} can't be read: {exc}") from exc


def read_model(where: str, data: Any) -> ModelSettings:
    """A model as the file has it."""
    data = dict(value_of(where, data, dict))
    seen = data.get("sees", [])
    good = isinstance(seen, list) and all(
        isinstance(size, list) and len(size) == 2 and all(is_whole(one) and one > 0 for one in size)
        for size in seen
    )
    if not good or len(seen) != len(PROBES):
        raise ConfigError(
            f"{where}.sees={seen!r}; a list of [width, height], one for each of {PROBES}"
        )
    data["sees"] = tuple((size[0], size[1]) for size in seen)
    for name in ("source", "name"):
        if not value_of(f"{where}.{name}", data.get(name), str):
            raise ConfigError(f"{where}.{name} is empty")
    if data.get("revision") is not None:
        value_of(f"{where}.revision", data["revision"], str)
    value_of(f"{where}.load", data.get("load", {}), dict)
    return made(where, ModelSettings, data)


def read_gate(data: Any) -> GateSettings:
    """The gate as the file has it, its calibration checked."""
    data = dict(value_of("gate", data, dict))
    if "threshold" not in data or "top_k" not in data:
        raise ConfigError("gate lacks threshold or top_k")
    if data.get("aggregate", "min") not in AGGREGATES:
        raise ConfigError(f"gate.aggregate={data['aggregate']!r}; {', '.join(AGGREGATES)}")
    if data.get("calibration") is not None:
        try:
            data["calibration"] = Calibration.from_json(json.dumps(data["calibration"]))
        except CalibrationError as exc:
            raise ConfigError(f"gate.calibration: {exc}") from exc
    try:
        return made("gate", GateSettings, data)
    except CalibrationError as exc:
        raise ConfigError(f"gate: {exc}") from exc


def read_section(name: str, data: Any, kind: type[Any]) -> Any:
    """A section of numbers, texts and nulls, each of its field's kind."""
    data = dict(value_of(name, data, dict))
    if name == "agent" and data.get("profile") is not None:
        given = dict(value_of("agent.profile", data["profile"], dict))
        for key, value in given.items():
            given[key] = tuple(value) if isinstance(value, list) else value
        data["profile"] = made("agent.profile", Profile, given)
    if name == "draft" and "ladder" in data:
        rungs = value_of("draft.ladder", data["ladder"], list)
        data["ladder"] = tuple(_rung(f"draft.ladder[{at}]", one) for at, one in enumerate(rungs))
    for key, value in data.items():
        optional = value is None and key in _OPTIONAL[name]
        if key in _COUNTS and not optional and not (is_whole(value) and 1 <= value <= _MOST):
            raise ConfigError(
                f"{name}.{key}={value!r}; it must be a whole number from 1 to {_MOST}"
            )
        if key in _SHARES and not _number(value):
            raise ConfigError(f"{name}.{key}={value!r}; it must be a number from 0 to 1")
        switch = key in ("overlap", "end_drafts_early")
        if switch and not optional and not isinstance(value, bool):
            raise ConfigError(f"{name}.{key}={value!r}; it must be true or false")
    return made(name, kind, data)


def _rung(where: str, data: Any) -> Rung:
    """A rung, whose numbers are of their kinds."""
    given = value_of(where, data, dict)
    pixels: Any = given.get("max_pixels")
    threshold = given.get("threshold")
    if not (is_whole(pixels) and 1 <= pixels <= _MOST):
        raise ConfigError(
            f"{where}.max_pixels={pixels!r}; it must be a whole number from 1 to {_MOST}"
        )
    if threshold is not None and not _number(threshold):
        raise ConfigError(f"{where}.threshold={threshold!r}; it must be a number from 0 to 1")
    return made(where, Rung, given)


_COUNTS: Final = ("max_tokens", "max_pixels", "max_steps", "max_batch", "batch_size")
_MOST: Final = 2**31 - 1
_SHARES: Final = ("threshold", "probe")
_OPTIONAL: Final[Mapping[str, tuple[str, ...]]] = {
    "judge": ("max_pixels",),
    "draft": ("max_pixels",),
    "agent": ("max_steps", "max_tokens"),
    "schedule": ("overlap",),
}
"""Fields that may be null."""


def _number(value: object) -> bool:
    """True for a number from 0 to 1."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
