"""A model as the agent: turns, tool calls and observations, to an answer.

The agent is the stateful system s_{d+1} = f(s_d, t_d(s_d)) of Sec. 3.1 of SpecEyes (arXiv
2603.23483). Live trajectories share every forward pass, each at its own depth and its own place in
a turn, and a new one joins as soon as another has finished. A model that can't let rows join in
the middle of a turn takes a turn of all in one batch.
"""

from __future__ import annotations

import dataclasses
import logging
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, final

from speceyes import prompts
from speceyes.agent.repetition import why_stuck
from speceyes.dialects import Profile, is_call, profile_of, without_end
from speceyes.dialects.context import opening, too_long
from speceyes.errors import Fault, ModelError, ParseError, PromptError, describe, fault_of
from speceyes.images.pixel_cache import frozen
from speceyes.models.rows import generate_rows
from speceyes.protocols import (
    CarriesState,
    Dialect,
    Session,
    SupportsSession,
    VisionLanguageModel,
    offers,
)
from speceyes.texts import filled
from speceyes.tools import Tools
from speceyes.types import (
    Completion,
    Conversation,
    Image,
    Observation,
    Query,
    Sampling,
    Step,
    ToolCall,
    Trajectory,
    Turn,
)

_log = logging.getLogger(__name__)

_TAG = re.compile(r"</?[A-Za-z_][\w-]{0,40}>")


@dataclass(frozen=True, slots=True)
class Agent:
    """A model that acts, and what it works with; see `speceyes.fallback.AgenticFallback`."""

    model: VisionLanguageModel
    tools: Tools
    dialect: Dialect
    max_steps: int
    max_tokens: int

    @property
    def profile(self) -> Profile:
        """Profile that the model is driven by."""
        return profile_of(self.dialect)


_MOST_FAILURES: Final = 3
"""Sessions in a row that may fail before a run does without."""


@dataclass(slots=True)
class _Live:
    """A trajectory under way."""

    key: int
    query: Query
    conversation: Conversation
    steps: list[Step] = field(default_factory=list)
    seconds: float = 0.0
    stuck: str | None = None
    """Why it goes nowhere; its turn under way is then the last."""


@final
class TurnRun:
    """One run of a model as the agent: the trajectories that are alive now. Used by one thread.

    Args:
        agent: The model, and what it works with.
        clock: Tells the time, seconds.
    """

    def __init__(self, agent: Agent, clock: Callable[[], float] = time.perf_counter) -> None:
        self._agent, self._clock = agent, clock
        self.on_turn: Callable[[int, Step, float], None] | None = None
        """Told each turn that is over: the query's key, the step, its tools' seconds."""
        self.let_in: Callable[[], bool] | None = None
        """Asked in the middle of turns whether another query waits to be added."""
        self._live: dict[int, _Live] = {}
        self._done: list[tuple[int, Trajectory, float]] = []
        self._sampling: Sampling = dataclasses.replace(
            agent.profile.sampling(), max_tokens=agent.max_tokens
        )
        self._session = self._opened()
        self._had_session = self._session is not None
        self._failures = 0

    @property
    def live(self) -> int:
        """Number of trajectories that are held, finished ones that `step` has yet to return
        included.
        """
        return len(self._live) + len(self._done)

    @property
    def joins(self) -> bool:
        """True where one that is added joins in the middle of the others' turns."""
        return self._session is not None

    def add(self, key: int, query: Query) -> None:
        """Lets a query join at the next step; see `speceyes.fallback.AgentRun`.

        Args:
            key: Comes back with its trajectory.
            query: The query.
        """
        agent = self._agent
        try:
            query = dataclasses.replace(query, images=tuple(map(frozen, query.images)))
            asked = opening(agent.dialect, query, tuple(agent.tools), max_steps=agent.max_steps)
            if (why := too_long(agent.model, asked)) is not None:
                raise PromptError(why, "length")
            one = _Live(key, query, asked)
        except Exception as exc:  # noqa: BLE001 - a query's failure is its own
            reason = f"the agent could not be asked: {describe(exc)}"
            self._done.append((key, Trajectory((), None, "error", reason, fault_of(exc)), 0.0))
        else:
            self._live[key] = one
            self._begin_turn(one)

    def step(self) -> list[tuple[int, Trajectory, float]]:
        """Works on all live trajectories until a turn of one of them is over, or `let_in` says
        that another waits; where the model can't let rows join, until a turn of each is over.

        Returns:
            (key, trajectory, seconds) of those that finished; perhaps none. The seconds are
            its equal share of every round it was part of, and its own tools' time.
        """
        finished, self._done = self._done, []
        if not self._live:
            return finished
        start = self._clock()
        if self._session is None:
            self._try_again()
        said = self._turns() if self._session is None else self._first_turns(self._session)
        share = (self._clock() - start) / len(self._live)
        for one in self._live.values():
            one.seconds += share
        for key, completion in said:
            one = self._live[key]
            turns = len(one.steps)
            start = self._clock()
            try:
                trajectory = self._advance(one, completion)
            except Exception as exc:  # noqa: BLE001 - a dialect's defect ends this one only
                _log.warning("trajectory %s ended by %s", one.key, describe(exc))
                trajectory = Trajectory(
                    tuple(one.steps),
                    None,
                    "error",
                    describe(exc),
                    None if one.steps else fault_of(exc),
                )
            spent = self._clock() - start
            one.seconds += spent
            if self.on_turn is not None and len(one.steps) > turns:
                self.on_turn(key, one.steps[-1], spent)
            if trajectory is not None:
                del self._live[key]
                finished.append((key, trajectory, one.seconds))
            else:
                self._begin_turn(one)
        return finished

    def _begin_turn(self, one: _Live) -> None:
        if self._session is not None:
            self._session.add(one.key, one.conversation)

    def close(self) -> None:
        """Gives up what is under way."""
        self._live.clear()
        if self._session is not None:
            self._session.close()

    def _turns(self) -> list[tuple[int, Completion]]:
        """A turn of each, in one batch."""
        asked = [one.conversation for one in self._live.values()]
        said = generate_rows(self._agent.model, asked, self._sampling)
        return list(zip(self._live, said, strict=True))

    def _first_turns(self, session: Session) -> list[tuple[int, Completion]]:
        """The turns that are over first; none where another query waits to be added."""
        try:
            while not (said := session.step()):
                if not len(session):
                    raise ModelError(f"the session of {self._agent.model.name} lost its rows")
                if self.let_in is not None and self.let_in():
                    break
            self._failures = 0
            return said
        except Exception as exc:  # noqa: BLE001 - it promised not to; the rows are told apart
            self._failures += 1
            _log.warning("the session failed (%s); this turn goes on without", describe(exc))
            session.close()
            self._session = None
            return self._turns()

    def _try_again(self) -> None:
        """Opens another session after one has failed, now that all rows are between two turns.

        A run may last as long as a server; one failure must not make it slow for good.
        """
        if not self._had_session or self._failures >= _MOST_FAILURES:
            return
        try:
            self._session = self._opened()
            if self._session is None:  # the model gave up the way that it was driven by
                self._had_session = False
                return
            for one in self._live.values():
                self._session.add(one.key, one.conversation)
        except Exception as exc:  # noqa: BLE001 - it works without as well
            self._failures += 1
            _log.warning("no other session could be opened (%s)", describe(exc))
            self._session = None

    def _opened(self) -> Session | None:
        """A session of the model; None where it has none to give."""
        model = self._agent.model
        return model.session(self._sampling) if offers(model, SupportsSession) else None

    def _advance(self, one: _Live, completion: Completion) -> Trajectory | None:
        """Trajectory that ends with this turn; None where it goes on."""
        agent = self._agent
        if completion.error is not None or completion.finish == "error":
            reason = completion.error or "the model failed without a reason"
            one.steps.append(_step(completion, error=reason))
            return _failed(one, reason, completion.fault)
        last = len(one.steps) + 1 >= agent.max_steps or one.stuck is not None
        turn, problem = Turn(), None
        try:
            turn = agent.dialect.parse(completion.text)
        except ParseError as exc:
            problem = filled(prompts.PARSE_ERROR, error=_cut_off(completion, str(exc)))
        if turn.plain and completion.finish == "length":
            turn = Turn()
            problem = filled(prompts.PARSE_ERROR, error=_cut_off(completion, "no answer was found"))
        if turn.answer is not None:
            one.steps.append(_step(completion))
            return Trajectory(tuple(one.steps), turn.answer, "answered")
        if last:
            # Told to answer, a model may do so without the dialect's tags. What was cut off in
            # mid-sentence is no answer.
            known = [tool.name for tool in agent.tools]
            plain = _plain_answer(completion.text, agent.dialect.stop, known)
            if plain and not turn.calls and completion.finish == "stop":
                one.steps.append(_step(completion))
                return Trajectory(tuple(one.steps), plain, "answered")
            one.steps.append(_step(completion, error=problem))
            if one.stuck is not None:
                reason = f"the agent repeats itself: {one.stuck}"
                return Trajectory(tuple(one.steps), None, "repeated", reason)
            return Trajectory(tuple(one.steps), None, "max_steps")
        if problem is None and not turn.calls:
            problem = filled(prompts.PARSE_ERROR, error="neither a call nor an answer was found")
        if problem is not None:
            seen: tuple[Observation, ...] = (Observation(error=problem),)
        else:
            seen = self._run_tools(one, turn.calls)
        one.steps.append(_step(completion, turn.calls[: agent.profile.max_calls], seen, problem))
        last = len(one.steps) + 1 >= agent.max_steps
        if not last:
            # What stands still is asked for its answer now, not at the end of all turns.
            one.stuck = why_stuck(one.steps, completion.finish == "length")
        one.conversation = agent.dialect.observe(
            one.conversation, completion.text, seen, last=last or one.stuck is not None
        )
        if (why := too_long(agent.model, one.conversation)) is not None:
            return _failed(one, why, "length")
        return None

    def _run_tools(self, one: _Live, calls: Sequence[ToolCall]) -> tuple[Observation, ...]:
        """One observation a call; all calls of a turn see the same images. Calls beyond the
        profile's limit are not run, and the last observation says so.
        """
        agent = self._agent
        most = agent.profile.max_calls
        shown = one.conversation.images
        sizes = [agent.model.seen_size(image) for image in shown]
        images = _handed(one, sizes, agent.profile)
        earlier = [
            pair for step in one.steps for pair in zip(step.calls, step.observations, strict=False)
        ]
        seen = []
        for call in calls[:most]:
            try:
                located = agent.dialect.locate(call, images, sizes)
            except ParseError as exc:
                seen.append(Observation(error=str(exc)))
            else:
                # A tool that keeps state is told what it was called with before.
                tool: object = agent.tools.get(located.name)
                if offers(tool, CarriesState):
                    arguments = tool.carry(located.arguments, earlier)
                    located = dataclasses.replace(located, arguments=arguments)
                seen.append(agent.tools.run(located, _for(located, images, one, agent.profile)))
            earlier.append((call, seen[-1]))
        if len(calls) > most:
            left = f"{len(calls) - most} more calls of this turn were not run; at most {most} are"
            seen.append(Observation(error=left))
        return tuple(seen)


def _handed(one: _Live, sizes: Sequence[tuple[int, int]], profile: Profile) -> tuple[Image, ...]:
    """The images that tools get, in the order in which the model sees them: the question's and
    what tools returned, in full, or as the model sees them.
    """
    shown = one.conversation.images
    if profile.handed == "seen":
        return tuple(
            image if image.size == size else image.resize(size)
            for image, size in zip(shown, sizes, strict=True)
        )
    returned = (image for step in one.steps for seen in step.observations for image in seen.images)
    whole = (*one.query.images, *returned)
    return whole if len(whole) == len(shown) else shown


def _for(
    call: ToolCall, images: tuple[Image, ...], one: _Live, profile: Profile
) -> tuple[Image, ...]:
    """The images for a call: those of the question alone for code, where the profile says so."""
    code = profile.code_images == "question" and "code" in call.arguments
    return images[: len(one.query.images)] if code else images


def _step(
    completion: Completion,
    calls: tuple[ToolCall, ...] = (),
    seen: tuple[Observation, ...] = (),
    error: str | None = None,
) -> Step:
    tokens = len(completion.token_ids)
    return Step(
        completion.text,
        calls,
        seen,
        tokens,
        completion.prompt_tokens,
        error,
        completion.cached_tokens,
    )


def _failed(one: _Live, reason: str, fault: Fault | None) -> Trajectory:
    """A trajectory that a turn has ended. Decoding is greedy: what outgrows the context once does
    so each time; whatever else is wrong with a later turn, the query didn't bring.
    """
    turns = len(one.steps)
    if fault == "length" and turns > 1:
        reason = f"after {turns} turns {reason}"
    return Trajectory(
        tuple(one.steps), None, "error", reason, fault if turns <= 1 or fault == "length" else None
    )


def _cut_off(completion: Completion, error: str) -> str:
    """The parse error, with the reason where the turn ran out of tokens."""
    return f"{error}; it was cut off: be shorter" if completion.finish == "length" else error


def _plain_answer(text: str, stop: Sequence[str], known: Sequence[str]) -> str:
    """Text of a turn besides its reasoning and tags; empty where it is a call, or opened a code
    fence or a tag of the dialect, whose content was meant for something else and couldn't be read.
    """
    _, closed, after = text.rpartition("</think>")
    if not closed and "<think>" in text:
        return ""
    if is_call(after, known):
        return ""
    if "```" in after or any(end.startswith("</") and f"<{end[2:]}" in after for end in stop):
        return ""
    return _TAG.sub("", without_end(after)).strip()
