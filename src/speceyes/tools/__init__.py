"""The tools that an agent may call: a registry, those that come with the package, `@tool`."""

from __future__ import annotations

import contextvars
import dataclasses
import inspect
import logging
import math
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, final

from speceyes.errors import ConfigError, ToolError, describe
from speceyes.models.control_tokens import said_by_others, whole
from speceyes.protocols import Bounded, Tool, offers
from speceyes.tools._cache import ObservationCache, key_of
from speceyes.tools._schema import check, check_schema
from speceyes.tools._waiting import STOP, Stop, finish
from speceyes.tools.adjust import Adjust
from speceyes.tools.colour import PixelColour
from speceyes.tools.draw import ObjectMapper, PathTracer
from speceyes.tools.flip import Flip
from speceyes.tools.function import FunctionTool, tool
from speceyes.tools.grid import CropGrid
from speceyes.tools.ocr import Ocr
from speceyes.tools.original import Original
from speceyes.tools.python import PythonTool
from speceyes.tools.rotate import Rotate
from speceyes.tools.search import ImageSearch
from speceyes.tools.zoom import Zoom
from speceyes.types import Image, ImageRef, Observation, ToolCall

__all__ = [
    "BUILT_IN",
    "MAX_OVERDUE",
    "Adjust",
    "CropGrid",
    "Flip",
    "FunctionTool",
    "ImageSearch",
    "ObjectMapper",
    "Ocr",
    "Original",
    "PathTracer",
    "PixelColour",
    "PythonTool",
    "Rotate",
    "Tools",
    "Zoom",
    "tool",
]

logger = logging.getLogger(__name__)

BUILT_IN: Mapping[str, Callable[[], Tool]] = {
    "zoom": Zoom,
    "rotate": Rotate,
    "grid": CropGrid,
    "flip": Flip,
    "adjust": Adjust,
    "colour": PixelColour,
    "ocr": Ocr,
    "object_mapper": ObjectMapper,
    "path_tracer": PathTracer,
    "original": Original,
    "python": PythonTool,
}
"""Tools that go by a name, and what makes them."""

MAX_OVERDUE = 4
"""How many calls of one tool may be running past their time before it isn't called again."""


@final
class Tools:
    """A fixed set of tools: an iterable of `Tool`s, and the one place that runs them.

    Args:
        tools: `Tool` objects, classes of them (called without arguments), functions (with or
            without `@tool`), or names of built-in tools, the keys of `BUILT_IN`. One name may
            stand alone.
        timeout_s: Seconds that a call may take; None for no limit. Tools run in a daemon thread
            of their own for it, but for those that say by `bounded = True` that they bound
            their own work. An async call is cancelled when its time is over. Python can't end a
            thread: a plain call that takes too long is left behind and its result dropped, and
            a tool that has `MAX_OVERDUE` such calls still running is refused until one ends.
        max_chars: Most characters of text that one call adds to a conversation.
        cache_bytes: How much to keep of what stateless tools gave back; 0 keeps nothing. The
            same arguments on the same pixels are then answered without a call. Errors aren't
            kept.

    Functions under `@tool` get copies of the images. Other tools get the images themselves, and
    must not draw on them.

    Raises:
        ConfigError: Something isn't a tool, two have the same name, or a limit is out of range.

    Example:
        >>> from PIL import Image
        >>> tools = Tools(["zoom"])
        >>> call = ToolCall("image_zoom_in_tool", {"bbox_2d": [0, 0, 40, 40]})
        >>> tools.run(call, [Image.new("RGB", (100, 100))]).images[0].size
        (40, 40)
    """

    __slots__ = ("_by_name", "_cache", "_max_chars", "_overdue", "_timeout_s")

    def __init__(
        self,
        tools: str | Iterable[Tool | type | Callable[..., Any] | str] = (),
        *,
        timeout_s: float | None = 30.0,
        max_chars: int = 50_000,
        cache_bytes: int = 1 << 26,
    ) -> None:
        if timeout_s is not None and not 0 < timeout_s < math.inf:
            raise ConfigError(f"timeout_s={timeout_s}; a positive number of seconds, or None")
        if max_chars < 1:
            raise ConfigError(f"max_chars={max_chars}; it must be at least 1")
        if cache_bytes < 0:
            raise ConfigError(f"cache_bytes={cache_bytes}; 0 (keep nothing) or more")
        if not isinstance(tools, Iterable):
            raise ConfigError(f"tools is a {type(tools).__name__}; pass a list of tools")
        by_name: dict[str, Tool] = {}
        for item in (tools,) if isinstance(tools, str) else tools:
            made = _made(item)
            if made.name in by_name:
                raise ConfigError(f"two tools are named {made.name!r}; rename one")
            by_name[made.name] = made
        self._by_name: Mapping[str, Tool] = by_name
        self._cache = ObservationCache(cache_bytes) if cache_bytes else None
        self._overdue = _Overdue()
        self._timeout_s = timeout_s
        self._max_chars = max_chars

    def __iter__(self) -> Iterator[Tool]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def __repr__(self) -> str:
        return f"Tools([{', '.join(self._by_name)}], timeout_s={self._timeout_s})"

    @property
    def timeout_s(self) -> float | None:
        """Seconds that a call may take; None for no limit."""
        return self._timeout_s

    def get(self, name: str) -> Tool | None:
        """The tool of that name; None where there is none."""
        return self._by_name.get(name)

    def run(self, call: ToolCall, images: Sequence[Image]) -> Observation:
        """Observation of a call; whatever goes wrong is in the observation's `error`.

        The name is looked up, the arguments are held against the tool's schema, and the tool is
        run. No exception leaves but an interrupt from the keyboard. Text over `max_chars` is shown
        by its two ends, and halves of characters are replaced.

        Args:
            call: The call, boxes in pixels of the image that they refer to.
            images: Every image so far, full resolution.
        """
        found = self._by_name.get(call.name)
        if found is None:
            there = f"there are: {', '.join(self._by_name)}" if self._by_name else "there is none"
            return Observation(
                error=f"there is no tool {_cut(said_by_others(repr(call.name)), 80)}; {there}"
            )
        try:
            arguments = check(call.arguments, found.parameters)
            images = tuple(images)
            key = None if self._cache is None else key_of(found, images, arguments)
            if self._cache is None or key is None:
                return _held(self._run(found, images, arguments), self._max_chars)
            seen = self._cache.get(key)
            if seen is None:
                seen = _held(self._run(found, images, arguments), self._max_chars)
                self._cache.put(key, seen)
            return seen
        except ToolError as exc:
            told = describe(exc).removeprefix(type(exc).__name__).removeprefix(": ")
            return Observation(error=whole(_cut(said_by_others(told))) or f"{found.name} failed")
        except BaseException as exc:  # a tool's failure is the model's to answer to
            # Only the main thread is interrupted from the keyboard.
            main = threading.current_thread() is threading.main_thread()
            if isinstance(exc, KeyboardInterrupt) and main:
                raise
            logger.warning("%s failed: %s", found.name, describe(exc), exc_info=True)
            told = said_by_others(f"{found.name} failed: {describe(exc)}")
            return Observation(error=whole(_cut(told)))

    def _run(
        self, found: Tool, images: Sequence[Image], arguments: Mapping[str, Any]
    ) -> Observation:
        if self._timeout_s is None or (offers(found, Bounded) and found.bounded is True):
            return _observation(found, images, arguments)
        return self._in_time(found, images, arguments, self._timeout_s)

    def _in_time(
        self,
        found: Tool,
        images: Sequence[Image],
        arguments: Mapping[str, Any],
        timeout_s: float,
    ) -> Observation:
        late = self._overdue.count(found.name)
        if late >= MAX_OVERDUE:
            raise ToolError(f"{found.name} is not available: {late} earlier calls don't end")
        returned: list[Observation] = []
        raised: list[BaseException] = []
        context, stop = contextvars.copy_context(), Stop()
        context.run(STOP.set, stop)

        def work() -> None:
            try:
                returned.append(context.run(_observation, found, images, arguments))
            except BaseException as exc:  # noqa: BLE001 - raised again by the caller's thread
                raised.append(exc)

        thread = threading.Thread(target=work, name=f"tool {found.name}", daemon=True)
        thread.start()
        thread.join(timeout_s)
        if raised:
            failure = raised.pop()
            if isinstance(failure, KeyboardInterrupt):  # the tool's own: this thread got none
                raise ToolError(f"{found.name} failed: {describe(failure)}")
            raise failure
        if returned:
            return returned[0]
        self._overdue.add(found.name, thread)
        stop.stop()
        logger.warning("%s is left behind after %g s", found.name, timeout_s)
        raise ToolError(f"{found.name} took longer than {timeout_s:g} s")


class _Overdue:
    """Threads whose callers have given up on them."""

    __slots__ = ("_lock", "_threads")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads: list[tuple[str, threading.Thread]] = []

    def add(self, name: str, thread: threading.Thread) -> None:
        with self._lock:
            self._threads.append((name, thread))

    def count(self, name: str) -> int:
        with self._lock:
            self._threads = [entry for entry in self._threads if entry[1].is_alive()]
            return Counter(entry[0] for entry in self._threads)[name]


def _observation(found: Tool, images: Sequence[Image], arguments: Mapping[str, Any]) -> Observation:
    seen: object = found(images, arguments)
    if inspect.isawaitable(seen):
        seen = finish(seen)
    if not isinstance(seen, Observation):
        raise ToolError(f"{found.name} returned a {type(seen).__name__}, not an Observation")
    return seen


def _made(item: object) -> Tool:
    """A tool out of whatever stands for one."""
    if isinstance(item, str):
        if item not in BUILT_IN:
            raise ConfigError(f"no tool is named {item!r}; built in are: {', '.join(BUILT_IN)}")
        return BUILT_IN[item]()
    if inspect.isclass(item):
        try:
            item = item()
        except TypeError as exc:
            raise ConfigError(f"a tool can't be made of a class: {exc}; pass an object") from exc
    elif inspect.isroutine(item):
        item = tool(item)
    if not offers(item, Tool):
        raise ConfigError(
            f"{item!r} is not a tool: it needs name, description, parameters and __call__; pass "
            f"such an object, a function under @tool, or a name: {', '.join(BUILT_IN)}"
        )
    if not isinstance(item.name, str) or not item.name:
        raise ConfigError(f"a tool has the name {item.name!r}; it must be text")
    if not isinstance(item.parameters, Mapping) or item.parameters.get("type") != "object":
        raise ConfigError(f"{item.name}: parameters must be a JSON schema of type 'object'")
    check_schema(item.parameters, f"{item.name}: parameters")
    return item


def _held(seen: Observation, most: int) -> Observation:
    """The observation with no more text than that, which any tokenizer and any file takes."""
    left, content = most, list[str | Image | ImageRef]()
    for part in seen.content:
        if isinstance(part, str):
            if not left:
                continue
            part = whole(_ends(part, left))
            left = max(0, left - len(part))
        content.append(part)
    error = None if seen.error is None else whole(_ends(said_by_others(seen.error), most))
    if tuple(content) == seen.content and error == seen.error:
        return seen
    return dataclasses.replace(seen, content=tuple(content), error=error)


def _ends(text: str, most: int) -> str:
    """The beginning and the end of a text that is too long."""
    if len(text) <= most:
        return text
    said = f"\n... {len(text) - most} characters left out ...\n"
    kept = max(0, most - len(said))
    return text[: kept // 2] + said + text[len(text) - (kept - kept // 2) :]


def _cut(text: str, most: int = 500) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."
