"""Runs what a server accepted: a pipeline's endless run, and turns of loops outside it."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, final

from speceyes.answerer import SpeculativeAnswerer
from speceyes.dialects.context import opening, too_long
from speceyes.errors import ConfigError, InputError, ParseError, describe, fault_of
from speceyes.models.control_tokens import deeply, said_by_others, turn_by_others
from speceyes.pipeline import SpecPipeline
from speceyes.pipeline.request import CANCELLED, RequestState
from speceyes.pipeline.route import Facts
from speceyes.protocols import Dialect, Gate
from speceyes.server.image_sources import Picture
from speceyes.server.messages import ToolTurn
from speceyes.strategies.turn_taking import OfferedTool, Round, Said, TurnTaking, UnreadableTurn
from speceyes.types import (
    Image,
    Observation,
    Query,
    Result,
    Step,
    Timings,
    ToolCall,
    Trajectory,
)

_log = logging.getLogger(__name__)

TURNS_AT_ONCE: Final = 4
"""Turns of outside loops that models work on side by side; further ones wait."""


@final
@dataclass(frozen=True, slots=True)
class Pending:
    """A request that was accepted.

    Args:
        id: The query's.
        future: Its result; it always comes.
        deadline: In `time.monotonic` seconds.
        abandon: Called where nobody waits for it any more.
        since_accepted_s: Seconds from there until the models took it up.
        loaded_s: Seconds before that, in which its images were loaded.
    """

    id: str
    future: Future[Result]
    deadline: float
    abandon: Callable[[], None]
    since_accepted_s: Callable[[], float]
    loaded_s: float = 0.0

    def queued_s(self) -> float:
        """Seconds until the models took it up."""
        return self.loaded_s + self.since_accepted_s()

    @property
    def expired(self) -> bool:
        """Its time is over."""
        return time.monotonic() >= self.deadline


@final
class Backend:
    """A pipeline at work for a server, until it is closed.

    Args:
        pipe: The pipeline, which then belongs to this backend alone.
        loosest: A gate that accepts all that any request's gate may accept; None for the
            pipeline's own.
        batched: Called with the size of each batch of drafts.
    """

    def __init__(
        self,
        pipe: SpecPipeline,
        *,
        loosest: Gate | None = None,
        batched: Callable[[int], None] = lambda size: None,
    ) -> None:
        self.pipe = pipe
        self._loop = pipe.engine_loop(loosest_gate=loosest, on_batch=batched)
        self._taking: TurnTaking | None = None
        if pipe.fallback is not None and pipe.fallback.model is not None:
            self._taking = TurnTaking(pipe)
        self._threads = ThreadPoolExecutor(TURNS_AT_ONCE, thread_name_prefix="speceyes-turns")

    @property
    def takes_turns(self) -> bool:
        """The agent is a model, which can call the tools of an outside loop."""
        return self._taking is not None

    @property
    def dialect(self) -> Dialect | None:
        """The agent's way to write calls."""
        return None if self.pipe.fallback is None else self.pipe.fallback.dialect

    def views(self, *, straight: bool) -> tuple[int, ...]:
        """Most pixels of each view that a request's images are first seen in; empty where they are
        seen whole at once.

        Args:
            straight: Nothing is drafted.
        """
        return () if straight else self.pipe.parts.views

    @property
    def alive(self) -> bool:
        """It takes requests."""
        return self._loop.alive

    @property
    def waiting(self) -> int:
        """Requests that wait for the models or for the agent."""
        return self._loop.waiting

    @property
    def live(self) -> int:
        """Trajectories under way."""
        return self._loop.live

    def start(self) -> None:
        """Starts its threads."""
        self._loop.start()

    def close(self) -> None:
        """Answers all that was accepted, and ends."""
        self._loop.close()
        self._threads.shutdown(wait=True)

    def too_long(
        self,
        query: Query,
        rounds: Sequence[Round],
        tools: Sequence[OfferedTool],
        *,
        straight: bool,
    ) -> str | None:
        """The reason for which no model here can ever answer a query, text and images together
        being above its context; None where one may.

        Args:
            query: Its images loaded.
            rounds: Turns since, where its tools run elsewhere.
            tools: These tools.
            straight: Nothing is drafted.
        """
        try:
            return self._too_long(query, rounds, tools, straight=straight)
        except Exception as exc:  # noqa: BLE001 - the call itself says what is wrong with it
            _log.debug("the prompt could not be counted: %s", type(exc).__name__)
            return None

    def _too_long(
        self,
        query: Query,
        rounds: Sequence[Round],
        tools: Sequence[OfferedTool],
        *,
        straight: bool,
    ) -> str | None:
        agent, answerer = self.pipe.fallback, self.pipe.answerer
        if agent is None or agent.model is None or agent.dialect is None:
            return None
        if tools and self._taking is not None:
            return too_long(agent.model, self._taking.conversation(query, rounds, tools))
        asked = opening(agent.dialect, query, tuple(agent.tools), max_steps=agent.max_steps)
        why = too_long(agent.model, asked)
        if why is None or straight or answerer is None:
            return why
        # The draft is not told what may be too long for the agent.
        if not isinstance(answerer, SpeculativeAnswerer):
            return None
        return why if too_long(answerer.model, answerer.conversation(query)) else None

    def submit(
        self,
        query: Query,
        client: str,
        deadline: float,
        *,
        straight: bool,
        gate: Gate | None,
        done: Callable[[], None],
    ) -> Pending:
        """Takes a query on.

        Args:
            query: Its images loaded.
            client: Clients take turns.
            deadline: In `time.monotonic` seconds; nothing is begun after it.
            straight: To the agent at once.
            gate: Decides on its draft; None for the pipeline's own gate.
            done: Called once, when nothing will be done for it any more.

        Raises:
            ConfigError: It is closed.
        """
        facts = Facts(direct=straight and self.pipe.fallback is not None)
        request = RequestState(query, client, deadline, facts, gate=gate, on_end=done)
        self._loop.submit(request)
        return Pending(
            query.id,
            request.future,
            deadline,
            lambda: self._loop.cancel(request),
            lambda: request.queued_s,
        )

    def take_turn(
        self,
        query: Query,
        rounds: Sequence[Round],
        tools: Sequence[OfferedTool],
        deadline: float,
        done: Callable[[], None],
    ) -> Pending:
        """Has the agent take its next turn in a loop whose tools run elsewhere; see `submit`.

        Raises:
            ConfigError: It is closed.
        """
        since = time.perf_counter()
        future: Future[Result] = Future()
        future.set_running_or_notify_cancel()
        gone = threading.Event()
        begun = [since]

        def work() -> None:
            begun[0] = time.perf_counter()
            if gone.is_set() or time.monotonic() >= deadline:
                result = Result(query.id, None, "error", error=CANCELLED)
            else:
                result = self._turn(query, rounds, tools, since)
            future.set_result(result)
            done()

        try:
            self._threads.submit(work)
        except RuntimeError as exc:
            raise ConfigError("the server is closing") from exc
        return Pending(query.id, future, deadline, gone.set, lambda: begun[0] - since)

    def _turn(
        self, query: Query, rounds: Sequence[Round], tools: Sequence[OfferedTool], since: float
    ) -> Result:
        assert self._taking is not None
        start = time.perf_counter()
        try:
            said = self._taking.turn(query, rounds, tools)
        except Exception as exc:  # noqa: BLE001 - this one fails, and the next are served
            _log.info("%s: a turn failed: %s", query.id, type(exc).__name__)
            why = describe(exc)
            way = Trajectory((), None, "error", why, fault_of(exc))
            if isinstance(exc, UnreadableTurn):  # asking again gives the same
                way = Trajectory(exc.steps, None, "max_steps")
            return Result(query.id, None, "error", trajectory=way, error=f"the agent failed: {why}")
        now = time.perf_counter()
        spent = Timings(fallback=now - start, latency=now - since)
        return Result(query.id, said.answer, "agent", trajectory=_way(said), timings=spent)


def _way(said: Said) -> Trajectory:
    step = Step(said.text, said.calls, tokens=said.tokens, prompt_tokens=said.prompt_tokens)
    return Trajectory((step,), said.answer, "calls" if said.answer is None else "answered")


def rounds_of(
    dialect: Dialect | None, turns: Sequence[ToolTurn], shown: Mapping[Picture, Image]
) -> list[Round]:
    """Turns of a request as the agent's dialect writes them.

    Args:
        dialect: The agent's.
        turns: As the client sent them.
        shown: Their images, loaded.
    """
    found = []
    for turn in turns:
        text = turn_text(dialect, turn.text, turn.calls)
        content = [part if isinstance(part, str) else shown[part] for part in turn.results]
        found.append(Round(text, (Observation(tuple(content)),) if content else ()))
    return found


def turn_text(dialect: Dialect | None, text: str, calls: Sequence[tuple[str, str]]) -> str:
    """An assistant's turn as the agent's dialect writes it, with its calls.

    Args:
        dialect: The agent's.
        text: What the turn is said to be: whoever asks may have written what no model would.
        calls: (name, arguments as JSON) of its calls, where they were kept apart.
    """
    text = turn_by_others(text, _sample(dialect))
    if calls and not _holds_calls(dialect, text):  # the client kept the calls alone
        said = [text, *(_rendered(dialect, name, given) for name, given in calls)]
        text = "\n".join(part for part in said if part)
    return text


def _sample(dialect: Dialect | None) -> str:
    """A call as a dialect writes them."""
    try:
        return "" if dialect is None else dialect.render_call(ToolCall("look", {"at": "it"}))
    except InputError:
        return ""


def _holds_calls(dialect: Dialect | None, text: str) -> bool:
    try:
        return dialect is not None and bool(dialect.parse(text).calls)
    except ParseError:
        return False


def _rendered(dialect: Dialect | None, name: str, arguments: str) -> str:
    """A call in the agent's own words; name and arguments where it can't be written so. Both are a
    stranger's: control tokens in them are broken up.
    """
    name = said_by_others(name)
    try:
        given = deeply(json.loads(arguments), said_by_others)
        assert dialect is not None
        return dialect.render_call(ToolCall(name, given if isinstance(given, dict) else {}))
    except (ValueError, InputError, RecursionError):
        return f"{name}({said_by_others(arguments)})"
