"""How families of agents write tool calls, one file each, found by name and imported late."""

from __future__ import annotations

import importlib
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from speceyes.errors import ConfigError
from speceyes.protocols import Dialect

_log = logging.getLogger(__name__)

_CLASSES: Mapping[str, str] = {
    "deepeyes": "DeepEyesDialect",
    "deepeyesv2": "DeepEyesV2Dialect",
    "hermes": "HermesDialect",
    "minio3": "MiniO3Dialect",
    "pixelreasoner": "PixelReasonerDialect",
    "qwen3vl": "Qwen3VLDialect",
    "thyme": "ThymeDialect",
    "vilasr": "ViLaSRDialect",
}
"""Name, which is also its file's, to class."""

NAMES: tuple[str, ...] = tuple(_CLASSES)

_AGENTS = tuple(
    (re.compile(pattern, re.IGNORECASE), name)
    for pattern, name in (
        (r"deepeyes[-_. ]?v?2(?![0-9])", "deepeyesv2"),
        (r"deepeyes", "deepeyes"),
        (r"(?<![a-z])thyme(?![a-z])", "thyme"),
        (r"mini[-_. ]?o3", "minio3"),
        (r"pixel[-_. ]?reasoner", "pixelreasoner"),
        (r"vilasr", "vilasr"),
        (r"speceyes[-_. ]tiny", "deepeyes"),
    )
)
"""Agents that were trained to one format: what their names hold."""

_MODEL_TYPES: Mapping[str, str] = {
    "qwen3_vl": "qwen3vl",
    "qwen3_vl_moe": "qwen3vl",
    # No template for tools, and trained to give boxes in pixels of the resized image.
    "qwen2_5_vl": "deepeyes",
}

_FAMILIES = tuple(
    (re.compile(pattern, re.IGNORECASE), name)
    for pattern, name in (
        (r"qwen[-_. ]?3[-_. ]?vl", "qwen3vl"),
        (r"qwen[-_. ]?2[-_. ]?5[-_. ]?vl", "deepeyes"),
        (r"hermes", "hermes"),
    )
)
"""Families by name, for models behind an engine, whose configuration isn't at hand."""


def dialect(name: str | Dialect, model: object = None) -> Dialect:
    """The dialect of that name; a dialect object is handed through.

    Args:
        name: One of `NAMES`, or "auto" for what `detect` finds.
        model: The model that "auto" is about.

    Raises:
        ConfigError: No such dialect, and the message lists those there are; or "auto" can't
            tell.

    Example:
        >>> dialect("qwen3vl").name
        'qwen3vl'
    """
    if not isinstance(name, str):
        return name
    if name == "auto":
        name = detect(model)
    if name not in _CLASSES:
        raise ConfigError(
            f'dialect={name!r} is not known; there are: {", ".join(NAMES)}, and "auto"'
        )
    made: Dialect = getattr(importlib.import_module(f"{__name__}.{name}"), _CLASSES[name])()
    return made


def detect(model: object) -> str:
    """The name of the dialect that a model speaks; what it is and why is logged.

    Looked at, in this order: `speceyes_dialect` in the model's configuration; the names of agents
    that were trained to one format, in the model's own name, then in the name that its
    configuration has; the configuration's `model_type`; the names of model families; whether the
    chat template takes tools.

    Args:
        model: A model object with `name`, and perhaps `config` and `chat_template`; or a name or
            a directory. Nothing is downloaded.

    Raises:
        ConfigError: It can't be told; the message says what to do.

    Example:
        >>> detect("Qwen/Qwen3-VL-8B-Instruct")
        'qwen3vl'
    """
    config, template, names = _facts(model)
    for picked, reason in _guesses(config, template, names):
        if picked in _CLASSES:
            _log.info("dialect of %s: %s, for %s", names[0] if names else "?", picked, reason)
            return picked
        raise ConfigError(f"{reason} is {picked!r}; there are: {', '.join(NAMES)}")
    raise ConfigError(
        f"the dialect of {names[0] if names else model!r} can't be told from its name, "
        f"configuration or chat template: pass dialect=, one of {', '.join(NAMES)}"
    )


def _guesses(
    config: Mapping[str, Any], template: str, names: list[str]
) -> Iterator[tuple[str, str]]:
    """(dialect, why), the surest first."""
    if config.get("speceyes_dialect"):
        yield str(config["speceyes_dialect"]), "speceyes_dialect in its configuration"
    for name in names:
        for pattern, picked in _AGENTS:
            if pattern.search(_last(name)):
                yield picked, f"its name, {name}"
    kind = str(config.get("model_type", ""))
    if kind in _MODEL_TYPES:
        yield _MODEL_TYPES[kind], f"its model_type, {kind}"
    for name in names:
        for pattern, picked in _FAMILIES:
            if pattern.search(_last(name)):
                yield picked, f"its name, {name}"
    if re.search(r"\btools\b", template):
        yield "hermes", "its chat template, which takes tools"


def _facts(model: object) -> tuple[Mapping[str, Any], str, list[str]]:
    """A model's configuration, its chat template and its names, as far as they are at hand."""
    if isinstance(model, str | os.PathLike):
        names = [os.fspath(model).rstrip("/\\")]
        place = Path(os.fspath(model))
        config = _read_json(place / "config.json")
        template = _read(place / "chat_template.jinja")
        if not template:
            for file in ("chat_template.json", "processor_config.json", "tokenizer_config.json"):
                template = template or str(_read_json(place / file).get("chat_template", ""))
    else:
        names = [str(name)] if (name := getattr(model, "name", "")) else []
        template = str(getattr(model, "chat_template", None) or "")
        given = getattr(model, "config", None)
        config = (
            given
            if isinstance(given, Mapping)
            else {
                key: getattr(given, key)
                for key in ("speceyes_dialect", "model_type", "_name_or_path")
                if getattr(given, key, None) is not None
            }
        )
    if config.get("_name_or_path"):
        names.append(str(config["_name_or_path"]).rstrip("/\\"))
    return config, template, names


def _last(name: str) -> str:
    """Of a path or a Hub id, the model's own name; the bundled pair is named by its place."""
    parts = re.split(r"[/\\]", name)
    return "speceyes-tiny" if parts[-4:-1] == ["speceyes", "tiny", "weights"] else parts[-1]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else ""
    except (OSError, UnicodeDecodeError):
        return ""


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        data = json.loads(_read(path) or "{}")
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}
