"""What a part offers beyond its call is seen through wrappers, on every Python."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from speceyes import protocols
from speceyes.models.scripted import ScriptedModel
from speceyes.protocols import SupportsPrepare, VisionLanguageModel, offers
from speceyes.tools import Zoom
from speceyes.tools._cache import key_of


class Wrapped:
    """Passes everything on by `__getattr__`, as loggers and counters of others do."""

    def __init__(self, inner: object) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class Counting:
    """A tool that says what it reads, and gives another result for each call."""

    name = "count"
    stateless = True
    reads = "none"

    def __call__(self) -> str:
        return "1"


EVERY = [
    one
    for _, one in inspect.getmembers(protocols, inspect.isclass)
    if getattr(one, "_is_runtime_protocol", False)
]


@pytest.mark.parametrize("protocol", EVERY, ids=lambda one: one.__name__)
@pytest.mark.parametrize("part", [ScriptedModel("red"), Zoom(), Counting(), print, None, 3])
def test_a_wrapper_offers_what_it_wraps_does(part: object, protocol: type[Any]) -> None:
    told = offers(part, protocol)
    assert told == isinstance(part, protocol)
    assert offers(Wrapped(part), protocol) == told


def test_what_a_protocol_asks_for_must_all_be_there() -> None:
    class Half:
        name = "half"

    assert len(EVERY) > 30
    assert not offers(Half(), VisionLanguageModel) and offers(
        ScriptedModel("x"), VisionLanguageModel
    )

    class Refuses:
        prepare = None  # as a subclass says that it has no such method

    assert not offers(Refuses(), SupportsPrepare)


def test_a_wrapped_tool_is_kept_by_what_it_reads() -> None:
    key = key_of(Counting(), (), {"n": 1})  # type: ignore[arg-type]
    assert key is not None
    assert key_of(Wrapped(Counting()), (), {"n": 1}) == key  # type: ignore[arg-type]
