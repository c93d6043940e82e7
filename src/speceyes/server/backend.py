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

from speceyes.errors import ConfigError, InputError, ParseError, fault_of
from speceyes.pipeline import SpecPipeline
from speceyes.pipeline.request import CANCELLED, RequestState
from speceyes.pipeline.route import Facts
from speceyes.protocols import Dialect, Gate
from speceyes.retry_per_row import describe
from speceyes.server.image_sources import Picture
from speceyes.server.messages import ToolTurn
from speceyes.strategies.turn_taking import OfferedTool, Round, Said, TurnTaking
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
        text = turn.text
        if turn.calls and not _holds_calls(dialect, text):  # the client kept the calls alone
            said = [text, *(_rendered(dialect, name, given) for name, given in turn.calls)]
            text = "\n".join(part for part in said if part)
        content = [part if isinstance(part, str) else shown[part] for part in turn.results]
        found.append(Round(text, (Observation(tuple(content)),) if content else ()))
    return found


def _holds_calls(dialect: Dialect | None, text: str) -> bool:
    try:
        return dialect is not None and bool(dialect.parse(text).calls)
    except ParseError:
        return False


def _rendered(dialect: Dialect | None, name: str, arguments: str) -> str:
    """A call in the agent's own words; name and arguments where it can't be written so."""
    try:
        given = json.loads(arguments)
        assert dialect is not None
        return dialect.render_call(ToolCall(name, given if isinstance(given, dict) else {}))
    except (ValueError, InputError):
        return f"{name}({arguments})"
