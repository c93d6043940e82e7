"""The texts that a model is sent, as one value: ours by default, or the authors' from a file."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import os
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, final

from speceyes.errors import ConfigError

_PLACE = re.compile(r"\{([a-z_]+)\}")

_SEEN = ("images", "width", "height")
_ASKED = ("question", "instruction", "tools", "boxes", "paths", "sources", "indices", *_SEEN)
_SHOWN = (
    "result",
    "text",
    "shown",
    "error",
    "number",
    "index",
    "action",
    "again",
    "width",
    "height",
)
_PLACES: Mapping[str, Sequence[str]] = {
    "observation": _SHOWN,
    "again": ("instruction",),
    "last_turn": ("instruction",),
    "error": ("error",),
    "draft_system": ("question", *_SEEN),
    "draft": ("question", *_SEEN),
    "draft_choice": ("question", *_SEEN),
    "draft_look": ("question", *_SEEN),
}
"""Placeholders of a text; `_ASKED` where it isn't named."""

Part = TypeVar("Part")


@final
@dataclass(frozen=True, slots=True)
class Texts:
    r"""Texts that a model is told in each phase; None leaves a text to the dialect's own.

    A word in braces is a placeholder and is replaced by name where it is known; everything else,
    braces of JSON included, is sent as it stands. An empty text sends nothing.

    Args:
        system: The agent's system message. {tools}: schemas, a line each; {boxes}: the space of
            boxes in words; {images}: sizes of the images as the model sees them, and also {width}
            and {height} of the first one.
        user: Behind the question's images. {question}: the question with its options;
            {instruction}; {images}, {width}, {height} as above.
        instruction: What is asked of every turn of the agent.
        observation: One result of a tool. {result}: its texts and images; {text} and {shown}:
            only the ones or the others; {error}; {width} and {height} of its first image as
            the model sees it; {number}: that image's; {action}: the turn's, from 0;
            {again}, in the last result of a turn only.
        again: Behind the results, where `observation` has no {again} for it; {instruction}.
        error: How an error is told among a result's texts; {error}.
        last_turn: Instead of `again` before the agent's last turn.
        direct: As `judge`, where the answer is wanted at once.
        judge_system: The judge's system message; None for the agent's.
        judge: As `user`, for the judge. Without {question} it stands where the instruction
            does.
        draft_system: The drafter's system message.
        draft: Behind the drafter's images, for an open question.
        draft_choice: The same for a question with options.
        draft_look: Below either of these where the drafter may say that it must look closer: it
            has to ask for the words "look closer".

    Example:
        >>> Texts(judge="{question} Tools? yes or no").judge
        '{question} Tools? yes or no'
    """

    system: str | None = None
    user: str | None = None
    instruction: str | None = None
    observation: str | None = None
    again: str | None = None
    error: str | None = None
    last_turn: str | None = None
    direct: str | None = None
    judge_system: str | None = None
    judge: str | None = None
    draft_system: str | None = None
    draft: str | None = None
    draft_choice: str | None = None
    draft_look: str | None = None

    def __post_init__(self) -> None:
        for name, text in self.items():
            if text is not None and not isinstance(text, str):
                raise ConfigError(f"{name} is a {type(text).__name__}; it must be text")
        for name, needed in (("user", "question"), ("error", "error")):
            text = getattr(self, name)
            if text is not None and f"{{{needed}}}" not in text:
                raise ConfigError(f"{name} has no {{{needed}}}: the model would never be told it")

    def items(self) -> Iterable[tuple[str, str | None]]:
        """(name, text) of each."""
        return ((one.name, getattr(self, one.name)) for one in dataclasses.fields(self))

    def over(self, base: Texts) -> Texts:
        """These texts, and the base's where there is none."""
        return dataclasses.replace(base, **{k: v for k, v in self.items() if v is not None})

    @property
    def fingerprint(self) -> str:
        """Hash of all texts (16 hex digits)."""
        # Only drafters that may ask for a closer look are told the last of them.
        told = ((name, text) for name, text in self.items() if text or name != "draft_look")
        return fingerprint(*(f"{name}={text!r}" for name, text in told))

    @classmethod
    def load(cls, file: str | os.PathLike[str]) -> Texts:
        """Texts from a TOML or JSON file with the names above, any of them.

        Raises:
            ConfigError: The file can't be read, is empty, or has another name in it; or a text has
                a placeholder that is misspelt, or that isn't filled in there.
        """
        found = cls(**read_settings(file, [one.name for one in dataclasses.fields(cls)], "texts"))
        for name, text in found.items():
            for place in _PLACE.findall(text or ""):
                if doubt := _misplaced(name, place):
                    raise ConfigError(
                        f"texts file {os.fspath(file)}: {{{place}}} in {name} {doubt}. Where it is "
                        "meant as it stands, pass Texts(...) in Python"
                    )
        return found


def _misplaced(name: str, place: str) -> str:
    """Why a word in braces can't be meant as it stands; "" where it can."""
    known = _PLACES.get(name, _ASKED)
    if place in known:
        return ""
    if place in (*_ASKED, *_SHOWN):
        return f"is not filled in there; these are: {', '.join(known)}"
    near = difflib.get_close_matches(place, known, 1, 0.8)
    return f"is not a placeholder: write {{{near[0]}}}" if near else ""


def fill(template: str, values: Mapping[str, str | Sequence[Part]]) -> list[str | Part]:
    """A template's parts, with every known placeholder replaced once.

    Args:
        template: Text with names in braces; those that `values` doesn't have stay as they are.
        values: Text, or parts such as texts and images in order. What stands in a value is never
            taken for a placeholder.

    Example:
        >>> fill("{a} of {b}", {"a": "{b}"})
        ['{b} of {b}']
    """
    parts: list[str | Part] = []

    def add(part: str | Part) -> None:
        if isinstance(part, str) and parts and isinstance(parts[-1], str):
            parts[-1] += part
        elif part != "":
            parts.append(part)

    at = 0
    for place in _PLACE.finditer(template):
        value = values.get(place[1])
        if value is None:
            continue
        add(template[at : place.start()])
        for part in (value,) if isinstance(value, str) else value:
            add(part)
        at = place.end()
    add(template[at:])
    return parts


def filled(template: str, **values: str) -> str:
    """A template with texts for its placeholders; see `fill`."""
    parts: list[str] = fill(template, values)
    return "".join(parts)


def read_settings(file: str | os.PathLike[str], known: Sequence[str], what: str) -> dict[str, Any]:
    """The table in a TOML or JSON file.

    Args:
        file: Its path; ".json" is read as JSON, all else as TOML.
        known: Names that it may have.
        what: Names the kind of file in errors.

    Raises:
        ConfigError: It can't be read, is no table, or has another name in it.
    """
    path = Path(file)
    try:
        text = path.read_text(encoding="utf-8")
        data = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    except (OSError, ValueError) as exc:
        raise ConfigError(f"{what} file {path}: {exc}") from exc
    if not isinstance(data, dict):
        raise ConfigError(f"{what} file {path} holds a {type(data).__name__}; a table is needed")
    if not data:
        raise ConfigError(f"{what} file {path} is empty; it may have: {', '.join(known)}")
    if other := [name for name in data if name not in known]:
        raise ConfigError(
            f"{what} file {path} has {', '.join(other)}; it may have: {', '.join(known)}"
        )
    return data


def fingerprint(*texts: str) -> str:
    """Hash of prompt texts (16 hex digits), kept in a calibration to refuse other prompts."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode("utf-8"))
        digest.update(b"\0")
    return digest.hexdigest()[:16]
