"""Observers see each query begin, its phases and turns, and its end; they change nothing."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import logging
import re
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from flat_options import grouped
from speceyes import AgenticFallback, Query, SpecPipeline
from speceyes.errors import ConfigError
from speceyes.models.scripted import ScriptedModel
from speceyes.pipeline.events import (
    Event,
    LogObserver,
    PhaseEnded,
    QueryBegan,
    QueryEnded,
    TurnEnded,
)
from speceyes.types import Result, Timings
from support.served import pipeline

DOT = Image.new("RGB", (32, 32))
CALL = (
    '<tool_call>{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [0, 0, 16, 16]}}'
    "</tool_call>"
)
KINDS = ("draft", "judge", "gate", "lost", "unread")
ROUTES = {"draft": "draft", "judge": "agent", "gate": "agent", "lost": "error", "unread": "error"}


def _pipe(**more: Any) -> SpecPipeline:
    large = ScriptedModel(
        lambda conversation, sampling: {
            "Reply with one word": {"judge": "yes", "": "no"},
            "lost": ValueError("agent down"),
            "": [CALL, "<answer>blue</answer>"],
        },
        name="big",
    )
    small = ScriptedModel({"gate": "", "lost": "", "": "red"}, name="little")
    return SpecPipeline.from_pretrained(large, small, **grouped(batch_size=3, **more))


def _items(kinds: list[str]) -> list[Any]:
    return [
        {"image": b"" if kind == "unread" else DOT, "question": f"{kind} #{at}.", "id": str(at)}
        for at, kind in enumerate(kinds)
    ]


def _by_query(events: list[Event]) -> dict[str, list[Event]]:
    found = defaultdict(list)
    for event in events:
        found[event.query_id].append(event)
    return found


def _check(kind: str, events: list[Event], result: Result) -> None:
    began, *between, ended = events
    assert isinstance(began, QueryBegan) and isinstance(ended, QueryEnded)
    assert len({event.key for event in events}) == 1
    assert (began.query is None) == (kind == "unread")
    assert ended.result is not None
    assert dataclasses.replace(ended.result, timings=result.timings) == result
    phases = [event.phase for event in between if isinstance(event, PhaseEnded)]
    turns = [event for event in between if isinstance(event, TurnEnded)]
    expected = {
        "draft": ["judge", "draft", "gate"],
        "judge": ["judge", "agent"],
        "gate": ["judge", "draft", "gate", "agent"],
        "lost": ["judge", "draft", "gate", "agent"],
        "unread": [],
    }[kind]
    assert phases == expected
    steps = () if result.trajectory is None else result.trajectory.steps
    assert [turn.step for turn in turns] == list(steps)
    assert [turn.number for turn in turns] == list(range(1, len(steps) + 1))
    for turn in turns:
        assert began.began <= turn.began <= turn.said <= turn.ended <= ended.ended
        assert turn.model == "big"
    for event in between:
        if isinstance(event, PhaseEnded):
            assert event.began <= event.ended <= ended.ended and 1 <= event.rows <= 3
            names = {"judge": "big", "draft": "little", "gate": None, "agent": "big"}
            assert event.model == names[event.phase]


@settings(max_examples=25)
@given(
    st.lists(st.sampled_from(KINDS), max_size=10),
    st.sampled_from(["batched", "overlapped"]),
    st.sampled_from(["call", "ask"]),
)
def test_each_query_is_seen_from_end_to_end(kinds: list[str], schedule: str, how: str) -> None:
    events: list[Event] = []
    with _pipe(schedule=schedule, observers=[events.append]) as pipe:
        items = _items(kinds)
        if how == "call":
            results = pipe(items)
        else:

            async def ask() -> list[Result]:
                return await asyncio.gather(*map(pipe.ask, items))

            results = asyncio.run(ask())
    seen = _by_query(events)
    assert set(seen) == {str(at) for at in range(len(kinds))}
    for at, kind in enumerate(kinds):
        assert results[at].route == ROUTES[kind]
        _check(kind, seen[str(at)], results[at])


def test_results_are_the_same_with_observers_and_with_those_that_fail(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(event: Event) -> None:
        raise RuntimeError("a dashboard is down")

    seen: list[Event] = []
    items = _items([*KINDS] * 3)
    plain, watched = _pipe()(items), _pipe(observers=[broken, seen.append])(items)
    none = Timings()
    assert [dataclasses.replace(r, timings=none) for r in plain] == [
        dataclasses.replace(r, timings=none) for r in watched
    ]
    assert sum(isinstance(event, QueryEnded) for event in seen) == 15
    assert "an observer failed on QueryBegan" in caplog.text


def test_a_run_that_is_given_up_says_so_of_each_query() -> None:
    events: list[Event] = []
    running = _pipe(observers=[events.append]).stream(_items(["draft", "judge", "judge"]))
    assert next(running).route == "draft"
    running.close()
    ends = [event for event in events if isinstance(event, QueryEnded)]
    assert sorted(event.query_id for event in ends) == ["0", "1", "2"]
    assert [event.result is None for event in ends] == [False, True, True]


def test_observers_run_in_the_context_that_asked() -> None:
    who: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")
    seen: dict[str, set[str]] = defaultdict(set)

    def observer(event: Event) -> None:
        seen[event.query_id].add(who.get())
        who.set("an observer")  # stays in the copy

    async def ask(name: str) -> Result:
        who.set(name)
        return await pipe.ask(Query("judge", (DOT,), id=name))

    async def both() -> None:
        await asyncio.gather(ask("ann"), ask("bob"))

    with _pipe(observers=[observer], schedule="overlapped") as pipe:
        asyncio.run(both())
        who.set("list")
        pipe([Query("judge", (DOT,), id="list")])
    assert seen == {"ann": {"ann"}, "bob": {"bob"}, "list": {"list"}}


def test_an_agent_of_ones_own_is_a_phase_without_turns() -> None:
    events: list[Event] = []
    agent = AgenticFallback.from_callable(lambda query: "mine", name="own")
    pipe = SpecPipeline(fallback=agent, observers=[events.append])
    assert pipe(DOT, "What?").answer == "mine"
    [phase] = [event for event in events if isinstance(event, PhaseEnded)]
    assert (phase.phase, phase.model) == ("agent", "own")
    assert not any(isinstance(event, TurnEnded) for event in events)


def test_logging_names_phases_and_never_what_was_asked(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "speceyes.pipeline.events")
    _pipe(observers=[LogObserver()])(_items(list(KINDS)))
    lines = [record.getMessage() for record in caplog.records]
    own = [line for line in lines if line.startswith("query ")]
    for part in (
        "query 0: began, 1 images",
        "query 4: can't be read",
        "needs_tools=False p=",
        "accepted=True score=",
        "turn 1 of big: ",
        "tools 'image_zoom_in_tool'",
        "answered by route draft",
        "without an answer by route error",
    ):
        assert any(part in line for line in own), part
    assert not any(re.search(r"\b(red|blue)\b|#\d", line) for line in own)
    worst = {r.levelname for r in caplog.records if "without an answer" in r.getMessage()}
    assert worst == {"WARNING"}


def test_what_cannot_be_called_is_no_observer() -> None:
    with pytest.raises(ConfigError, match="observers holds 'log'"):
        pipeline(observers=["log"])
