"""Dialects of agents' tool calls, one file each, found by name and imported late."""

from __future__ import annotations

import dataclasses
import importlib
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from speceyes.dialects._family import Family
from speceyes.dialects._turn import is_call, without_end
from speceyes.dialects.profile import Profile, limits_differ, profile_of
from speceyes.errors import ConfigError
from speceyes.protocols import Dialect, HasChatTemplate, HasConfig, HasName, HasSeenSize, offers
from speceyes.say_once import warn_once
from speceyes.texts import Texts

__all__ = [
    "NAMES",
    "Profile",
    "detect",
    "dialect",
    "is_call",
    "limits_differ",
    "profile_of",
    "without_end",
]

_log = logging.getLogger(__name__)

_CLASSES: Mapping[str, str] = {
    "adaptvision": "AdaptVisionDialect",
    "chainoffocus": "ChainOfFocusDialect",
    "deepeyes": "DeepEyesDialect",
    "deepeyesv2": "DeepEyesV2Dialect",
    "gemma": "GemmaDialect",
    "glm": "GlmDialect",
    "hermes": "HermesDialect",
    "kimi": "KimiDialect",
    "minio3": "MiniO3Dialect",
    "openthinkimg": "OpenThinkImgDialect",
    "pixelreasoner": "PixelReasonerDialect",
    "pyvision": "PyVisionDialect",
    "qwen3vl": "Qwen3VLDialect",
    "sensenova": "SenseNovaDialect",
    "speceyes": "deepeyes.SpecEyesDialect",
    "thyme": "ThymeDialect",
    "vilasr": "ViLaSRDialect",
    "visionthink": "VisionThinkDialect",
    "vthinker": "VThinkerDialect",
    "xml": "XmlDialect",
}
"""Name, which is also its file's unless another stands there, to class."""

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
        (r"sensenova[-_. ]?mars", "sensenova"),
        (r"chain[-_. ]?of[-_. ]?focus|(?<![a-z])cof[-_.](?:rl|sft)", "chainoffocus"),
        (r"adaptvision", "adaptvision"),
        (r"visionthink", "visionthink"),
        (r"pyvision", "pyvision"),
        (r"v-thinker|vthinker", "vthinker"),
        (r"openthinkimg|v-toolrl", "openthinkimg"),
        (r"speceyes[-_. ]tiny", "speceyes"),
    )
)
"""Agents that were trained to one format: what their names hold."""

_MODEL_TYPES: Mapping[str, str] = {
    "qwen3_vl": "qwen3vl",
    "qwen3_vl_moe": "qwen3vl",
    "qwen3_5": "xml",
    "qwen3_5_moe": "xml",
    "glm4v_moe": "glm",
    "kimi_k25": "kimi",
    "gemma4": "gemma",
    # No template for tools, and trained to give boxes in pixels of the resized image.
    "qwen2_5_vl": "deepeyes",
}

_FAMILIES = tuple(
    (re.compile(pattern, re.IGNORECASE), name)
    for pattern, name in (
        (r"qwen[-_. ]?3[-_. ]?vl", "qwen3vl"),
        (r"qwen[-_. ]?2[-_. ]?5[-_. ]?vl", "deepeyes"),
        (r"qwen[-_. ]?3[-_. ]?[56](?![0-9])", "xml"),
        (r"(?<![a-z])step[-_. ]?3[-_. ][57](?![0-9])", "xml"),
        (r"glm[-_. ]?4[-_. ]?[56]v", "glm"),
        (r"kimi[-_. ]?k2", "kimi"),
        (r"gemma[-_. ]?4", "gemma"),
        (r"hermes", "hermes"),
    )
)
"""Families by name, for models behind an engine, whose configuration isn't at hand."""


_TEMPLATES = (
    (re.compile(r"<\|tool_calls?_(?:section_)?begin\|>"), "kimi"),
    (re.compile(r"<\|tool_call>call:"), "gemma"),
    (re.compile(r"<arg_key>"), "glm"),
    (re.compile(r"<function="), "xml"),
)
"""How chat templates write calls that aren't JSON."""

_TAKES_TOOLS = re.compile(r"\btools\b")
_FOREIGN = re.compile(
    r"<function=|<arg_key>|tool_calls?_(?:section_)?begin|<invoke name=|<\|tool_call>"
)
"""Calls that are no JSON in `<tool_call>`."""


_UNTOLD = (
    "the dialect of {model} can't be told from its name, configuration or chat template: pass "
    "dialect=, one of {names}"
)


def dialect(
    name: str | Dialect,
    model: object = None,
    *,
    tools: Iterable[str] = (),
    profile: Profile | str | os.PathLike[str] | None = None,
    texts: Texts | str | os.PathLike[str] | None = None,
) -> Dialect:
    """The dialect of that name; a dialect object is handed through.

    Args:
        name: One of `NAMES`, or "auto" for what `detect` finds. Where that can't tell,
            "speceyes" is taken and a warning says so.
        model: The model that "auto" is about, whose sight of images the texts tell of.
        tools: Names of the tools there are.
        profile: How the model is driven, or a file for `Profile.load`; the dialect's own
            otherwise.
        texts: What it is told, or a file for `Texts.load`; the dialect's own otherwise.

    Raises:
        ConfigError: No such dialect, and the message lists those there are; or profile or texts
            are given to an object that takes none.

    Example:
        >>> dialect("qwen3vl").name
        'qwen3vl'
    """
    made: Any = _made(name, model) if isinstance(name, str) else name
    if not isinstance(made, Family):
        if profile is not None or texts is not None:
            raise ConfigError(f"{made!r} takes no profile and no texts: give it its own")
        return made  # type: ignore[no-any-return]
    more: dict[str, Any] = {}
    if texts is not None:
        texts = texts if isinstance(texts, Texts) else Texts.load(texts)
        more["texts"] = texts.over(made.texts)
    if profile is not None:
        if not isinstance(profile, Profile):
            profile = Profile.load(profile, made.profile)
        more["profile"] = profile
    if made.seen_size is None and offers(model, HasSeenSize):
        more["seen_size"] = model.seen_size
    if names := tuple(tools):
        more["known"] = names
    return dataclasses.replace(made, **more) if more else made  # type: ignore[return-value]


def _made(name: str, model: object) -> Any:
    if name == "auto":
        found = _picked(model)
        if found is None and model is not None:
            untold = _UNTOLD.format(names=", ".join(NAMES), model=_called(model))
            warn_once(
                _log,
                model,
                f'{untold}; until then it is driven by "speceyes": told of tools in the system '
                "message, its calls read as JSON in <tool_call>, boxes in pixels of the image as "
                "it sees it",
            )
        name = found or "speceyes"
    if name not in _CLASSES:
        raise ConfigError(
            f'dialect={name!r} is not known; there are: {", ".join(NAMES)}, and "auto"'
        )
    module, _, kind = f"{name}.{_CLASSES[name]}".rpartition(".")
    return getattr(importlib.import_module(f"{__name__}.{module.rpartition('.')[2]}"), kind)()


def detect(model: object) -> str:
    """The name of the dialect that a model speaks; what it is and why is logged.

    Looked at, in this order: `speceyes_dialect` in the model's configuration; the names of agents
    that were trained to one format, in the model's own name, then in the name that its
    configuration has; how the chat template writes calls; the configuration's `model_type`;
    the names of model families; whether the chat template takes tools.

    Args:
        model: A model object with `name`, and perhaps `config` and `chat_template`; or a name or
            a directory. Nothing is downloaded.

    Raises:
        ConfigError: It can't be told; the message says what to do.

    Example:
        >>> detect("Qwen/Qwen3-VL-8B-Instruct")
        'qwen3vl'
    """
    found = _picked(model)
    if found is None:
        raise ConfigError(_UNTOLD.format(names=", ".join(NAMES), model=_called(model)))
    return found


def _picked(model: object) -> str | None:
    config, template, names = _facts(model)
    for picked, reason in _guesses(config, template, names):
        if picked in _CLASSES:
            _log.info("dialect of %s: %s, for %s", names[0] if names else "?", picked, reason)
            return picked
        raise ConfigError(f"{reason} is {picked!r}; there are: {', '.join(NAMES)}")
    return None


def _called(model: object) -> str:
    if isinstance(model, str | os.PathLike):
        return os.fspath(model) or repr(model)
    return (model.name if offers(model, HasName) else "") or repr(model)


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
    for pattern, picked in _TEMPLATES:
        if pattern.search(template):
            yield picked, "its chat template, which writes calls so"
    kind = str(config.get("model_type", ""))
    if kind in _MODEL_TYPES:
        yield _MODEL_TYPES[kind], f"its model_type, {kind}"
    for name in names:
        for pattern, picked in _FAMILIES:
            if pattern.search(_last(name)):
                yield picked, f"its name, {name}"
    if _TAKES_TOOLS.search(template) and not _FOREIGN.search(template):
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
        names = [str(model.name)] if offers(model, HasName) and model.name else []
        template = (model.chat_template or "") if offers(model, HasChatTemplate) else ""
        given = model.config if offers(model, HasConfig) else None
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
