"""Phase IV: the full agent loop, batched.  (Sec. 3.1 and 3.2 of SpecEyes, arXiv 2603.23483.)

The agent is the stateful system s_{d+1} = f(s_d, t_d(s_d)): it thinks, calls a tool, looks at
what came back, and so on to its answer. Here live trajectories share every forward pass, each
at its own depth and its own place in a turn, and a new one joins as soon as another has finished.
A model that can't let rows join in the middle of a turn takes a turn of all in one batch.
"""

from __future__ import annotations

import dataclasses
import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, final

from speceyes import prompts
from speceyes.errors import ConfigError, ModelError, ParseError
from speceyes.fingerprint import frozen
from speceyes.isolation import describe, generate_isolated
from speceyes.values import (
    Completion,
    Conversation,
    Dialect,
    Observation,
    Query,
    Sampling,
    Session,
    Step,
    Tool,
    ToolCall,
    Trajectory,
    Turn,
    VisionLanguageModel,
)

if TYPE_CHECKING:
    from speceyes.tools import Tools

_log = logging.getLogger(__name__)

_TAG = re.compile(r"</?[A-Za-z_][\w-]{0,40}>")


@final
class AgenticFallback:
    """Runs the agent on queries: turns, tool calls and observations, to an answer.

    The object holds what it was built with and nothing about a run, so that threads can
    share it.

    Args:
        model: The large model.
        tools: What it may call: a `Tools` registry, or whatever one is made of.
        dialect: How it writes calls and answers; "auto" picks by the model's name and config.
        max_steps: Most turns of a trajectory, the answer's included; 6 as in the research code
            (5 tool steps). Before the last one the model is told to answer with what it has.
        max_tokens: Most new tokens a turn.
        max_batch: Most trajectories alive at once.

    Raises:
        ConfigError: A number is below 1, or the dialect or a tool is unknown.

    Example:
        >>> from PIL import Image
        >>> from speceyes.models.scripted import ScriptedModel
        >>> call = '{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [0, 0, 32, 32]}}'
        >>> turns = [f"<tool_call>{call}</tool_call>", "<answer>red</answer>"]
        >>> agent = AgenticFallback(ScriptedModel(turns), tools=["zoom"])
        >>> way = agent([Query("Which colour?", (Image.new("RGB", (64, 64)),))])[0]
        >>> way.answer, way.depth
        ('red', 1)
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        *,
        tools: Tools | str | Iterable[Tool | type | Callable[..., Any] | str],
        dialect: str | Dialect = "deepeyes",
        max_steps: int = 6,
        max_tokens: int = 512,
        max_batch: int = 16,
    ) -> None:
        for name, value in (
            ("max_steps", max_steps),
            ("max_tokens", max_tokens),
            ("max_batch", max_batch),
        ):
            if value < 1:
                raise ConfigError(f"{name}={value}; it must be at least 1")
        from speceyes.dialects import dialect as dialect_named
        from speceyes.tools import Tools

        self.model = model
        self.tools: Tools = tools if isinstance(tools, Tools) else Tools(tools)
        self.dialect = dialect_named(dialect, model)
        self.max_steps = max_steps
        self.max_tokens = max_tokens
        self.max_batch = max_batch

    def __call__(self, queries: Sequence[Query]) -> list[Trajectory]:
        """One trajectory a query, in order. No trajectory can end another."""
        finished = {at: trajectory for at, trajectory, _ in self.stream(queries)}
        return [finished[at] for at in range(len(queries))]

    def stream(self, queries: Iterable[Query]) -> Iterator[tuple[int, Trajectory, float]]:
        """Trajectories as they finish.

        Queries are taken from the iterable only as places come free, so at most `max_batch` are
        held, however many there are.

        An exception that the iterable raises is raised here once what is under way has finished.

        Yields:
            (position of the query in the iterable, its trajectory, its seconds). The seconds
            are its equal share of every round it was part of, and its own tools' time.
        """
        source = enumerate(queries)
        run = self.begin()
        exhausted, failure = False, None
        try:
            while True:
                while run.room and not exhausted:
                    try:
                        run.add(*next(source))
                    except StopIteration:
                        exhausted = True
                    except Exception as exc:  # noqa: BLE001 - raised once the rest is done
                        exhausted, failure = True, exc
                if not run.live:
                    break
                yield from run.step()
        finally:
            run.close()
        if failure is not None:
            raise failure

    def begin(self) -> AgentRun:
        """An empty run, to be fed and stepped by hand."""
        return AgentRun(self)


@dataclass(slots=True)
class _Live:
    """A trajectory under way."""

    key: int
    query: Query
    conversation: Conversation
    steps: list[Step] = field(default_factory=list)
    seconds: float = 0.0


@final
class AgentRun:
    """One run of an `AgenticFallback`: the trajectories that are alive now.

    Made by `AgenticFallback.begin`; used by one thread.
    """

    def __init__(self, agent: AgenticFallback) -> None:
        self._agent = agent
        self._live: dict[int, _Live] = {}
        self._done: list[tuple[int, Trajectory, float]] = []
        self._sampling = Sampling(max_tokens=agent.max_tokens, stop=agent.dialect.stop)
        begin = getattr(agent.model, "session", None)
        self._session: Session | None = begin(self._sampling) if callable(begin) else None

    @property
    def live(self) -> int:
        """How many trajectories are held, finished ones that `step` has yet to return
        included.
        """
        return len(self._live) + len(self._done)

    @property
    def joins(self) -> bool:
        """Whether one that is added joins in the middle of the others' turns."""
        return self._session is not None

    @property
    def room(self) -> int:
        """How many more may be added before the next step."""
        return self._agent.max_batch - self.live

    def add(self, key: int, query: Query) -> None:
        """Lets a query join at the next step; `key` comes back with its trajectory."""
        agent = self._agent
        try:
            tools = tuple(agent.tools)
            # With a single turn the first is the last, and must be asked for an answer.
            opening = agent.dialect.open if agent.max_steps > 1 else agent.dialect.ask_direct
            query = dataclasses.replace(query, images=tuple(map(frozen, query.images)))
            one = _Live(key, query, opening(query, tools))
        except Exception as exc:  # noqa: BLE001 - a query's failure is its own
            reason = f"the agent could not be asked: {describe(exc)}"
            self._done.append((key, Trajectory((), None, "error", reason), 0.0))
        else:
            self._live[key] = one
            if self._session is not None:
                self._session.add(key, one.conversation)

    def step(self) -> list[tuple[int, Trajectory, float]]:
        """Works on all live trajectories until a turn of one of them is over, or, where the
        model can't let rows join, until a turn of each is.

        Returns:
            (key, trajectory, seconds) of those that finished, seconds as in
            `AgenticFallback.stream`; perhaps none.
        """
        finished, self._done = self._done, []
        if not self._live:
            return finished
        start = time.perf_counter()
        said = self._turns() if self._session is None else self._first_turns(self._session)
        share = (time.perf_counter() - start) / len(self._live)
        for one in self._live.values():
            one.seconds += share
        for key, completion in said:
            one = self._live[key]
            start = time.perf_counter()
            try:
                trajectory = self._advance(one, completion)
            except Exception as exc:  # noqa: BLE001 - a dialect's defect ends this one only
                _log.warning("trajectory %s ended by %s", one.key, describe(exc))
                trajectory = Trajectory(tuple(one.steps), None, "error", describe(exc))
            one.seconds += time.perf_counter() - start
            if trajectory is not None:
                del self._live[key]
                finished.append((key, trajectory, one.seconds))
            elif self._session is not None:
                self._session.add(key, one.conversation)
        return finished

    def close(self) -> None:
        """Gives up what is under way."""
        self._live.clear()
        if self._session is not None:
            self._session.close()

    def _turns(self) -> list[tuple[int, Completion]]:
        """A turn of each, in one batch."""
        asked = [one.conversation for one in self._live.values()]
        said = generate_isolated(self._agent.model, asked, self._sampling)
        return list(zip(self._live, said, strict=True))

    def _first_turns(self, session: Session) -> list[tuple[int, Completion]]:
        """The turns that are over first."""
        try:
            while not (said := session.step()):
                if not len(session):
                    raise ModelError(f"the session of {self._agent.model.name} lost its rows")
            return said
        except Exception as exc:  # noqa: BLE001 - it promised not to; the rows are told apart
            _log.warning("the session failed (%s); going on without", describe(exc))
            session.close()
            self._session = None
            return self._turns()

    def _advance(self, one: _Live, completion: Completion) -> Trajectory | None:
        """What becomes of a trajectory after a turn; None where it goes on."""
        agent = self._agent
        if completion.error is not None or completion.finish == "error":
            reason = completion.error or "the model failed without a reason"
            one.steps.append(_step(completion, error=reason))
            return Trajectory(tuple(one.steps), None, "error", reason)
        last = len(one.steps) + 1 >= agent.max_steps
        turn, problem = Turn(), None
        try:
            turn = agent.dialect.parse(completion.text)
        except ParseError as exc:
            problem = prompts.PARSE_ERROR.format(error=_cut_off(completion, str(exc)))
        if turn.plain and completion.finish == "length":
            turn = Turn()
            problem = prompts.PARSE_ERROR.format(error=_cut_off(completion, "no answer was found"))
        if turn.answer is not None:
            one.steps.append(_step(completion))
            return Trajectory(tuple(one.steps), turn.answer, "answered")
        if last:
            # Told to answer, a model may do so without the dialect's tags. What was cut off in
            # mid-sentence is no answer.
            plain = _plain_answer(completion.text, agent.dialect.stop)
            if plain and not turn.calls and completion.finish == "stop":
                one.steps.append(_step(completion))
                return Trajectory(tuple(one.steps), plain, "answered")
            one.steps.append(_step(completion, error=problem))
            return Trajectory(tuple(one.steps), None, "max_steps")
        if problem is None and not turn.calls:
            problem = prompts.PARSE_ERROR.format(error="neither a call nor an answer was found")
        if problem is not None:
            seen: tuple[Observation, ...] = (Observation(error=problem),)
        else:
            seen = self._run_tools(one, turn.calls)
        one.steps.append(_step(completion, turn.calls, seen, problem))
        one.conversation = agent.dialect.observe(
            one.conversation, completion.text, seen, last=len(one.steps) + 1 >= agent.max_steps
        )
        return None

    def _run_tools(self, one: _Live, calls: Sequence[ToolCall]) -> tuple[Observation, ...]:
        """One observation a call; all calls of a turn see the same images."""
        agent = self._agent
        images = one.conversation.images
        earlier = [
            pair for step in one.steps for pair in zip(step.calls, step.observations, strict=False)
        ]
        sizes = [agent.model.seen_size(image) for image in images]
        seen = []
        for call in calls:
            try:
                located = agent.dialect.locate(call, images, sizes)
            except ParseError as exc:
                seen.append(Observation(error=str(exc)))
            else:
                # A tool that keeps state is told what it was called with before.
                carry = getattr(agent.tools.get(located.name), "carry", None)
                if callable(carry):
                    arguments = carry(located.arguments, earlier)
                    located = dataclasses.replace(located, arguments=arguments)
                seen.append(agent.tools.run(located, images))
            earlier.append((call, seen[-1]))
        return tuple(seen)


def _step(
    completion: Completion,
    calls: tuple[ToolCall, ...] = (),
    seen: tuple[Observation, ...] = (),
    error: str | None = None,
) -> Step:
    tokens = len(completion.token_ids)
    return Step(completion.text, calls, seen, tokens, completion.prompt_tokens, error)


def _cut_off(completion: Completion, error: str) -> str:
    """The parse error, with the reason where the turn ran out of tokens."""
    return f"{error}; it was cut off: be shorter" if completion.finish == "length" else error


def _plain_answer(text: str, stop: Sequence[str]) -> str:
    """What a turn says besides its reasoning and tags; empty where it opened a code fence or a
    tag of the dialect, whose content was meant for something else and couldn't be read.
    """
    _, closed, after = text.rpartition("</think>")
    if not closed and "<think>" in text:
        return ""
    if "```" in after or any(end.startswith("</") and f"<{end[2:]}" in after for end in stop):
        return ""
    return _TAG.sub("", after).strip()
