"""Phase IV: the full agent loop, batched.  (Sec. 3.1 and 3.2 of SpecEyes, arXiv 2603.23483.)

The agent is a model that is driven here (`speceyes.agent.turns`), or one that a user has already
(`speceyes.agent.callable_agent`). Either works on several queries at once, and a new one joins
as soon as another has finished.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, final

from speceyes.agent.callable_agent import CallableAgent, CallableRun
from speceyes.agent.turns import Agent, TurnRun
from speceyes.errors import ConfigError
from speceyes.protocols import Dialect, GuessesSizes, Tool, VisionLanguageModel, offers
from speceyes.say_once import warn_once
from speceyes.types import Query, Step, Trajectory

if TYPE_CHECKING:
    from speceyes.dialects import Profile
    from speceyes.texts import Texts
    from speceyes.tools import Tools

_log = logging.getLogger(__name__)


@final
class AgenticFallback:
    """Runs the agent on queries: turns, tool calls and observations, to an answer.

    The object holds what it was built with and nothing about a run, so that threads can
    share it.

    Args:
        model: The large model.
        tools: What it may call: a `Tools` registry, or whatever one is made of.
        dialect: How it writes calls and answers; "auto" picks by the model's name, config and
            chat template.
        profile: How it is driven, or a file for `Profile.load`; None for the dialect's own.
        texts: What it is told, or a file for `Texts.load`; None for the dialect's own.
        max_steps: Most turns of a trajectory, the answer's included; None for the profile's.
            Before the last one the model is told to answer with what it has.
        max_tokens: Most new tokens a turn; None for the profile's.
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
        dialect: str | Dialect = "auto",
        profile: Profile | str | PathLike[str] | None = None,
        texts: Texts | str | PathLike[str] | None = None,
        max_steps: int | None = None,
        max_tokens: int | None = None,
        max_batch: int = 16,
    ) -> None:
        for name, value in (
            ("max_steps", max_steps),
            ("max_tokens", max_tokens),
            ("max_batch", max_batch),
        ):
            if value is not None and value < 1:
                raise ConfigError(f"{name}={value}; it must be at least 1")
        from speceyes.dialects import dialect as dialect_named
        from speceyes.dialects import profile_of
        from speceyes.tools import Tools

        self.model: VisionLanguageModel | None = model
        """The large model; None where the agent is a callable."""
        self.tools: Tools = tools if isinstance(tools, Tools) else Tools(tools)
        spoken = dialect_named(
            dialect,
            model,
            tools=(tool.name for tool in self.tools),
            profile=profile,
            texts=texts,
        )
        self.dialect: Dialect | None = spoken
        """How the model writes; None where the agent is a callable."""
        driven = profile_of(spoken)
        for doubt in _doubts(model, spoken.name, driven, [tool.name for tool in self.tools]):
            warn_once(_log, model, doubt)
        self.max_steps = driven.max_steps if max_steps is None else max_steps
        self.max_tokens = driven.max_tokens if max_tokens is None else max_tokens
        self.max_batch = max_batch
        self.own: CallableAgent | None = None
        """The callable that answers instead of a model; see `from_callable`."""

    @classmethod
    def from_callable(
        cls,
        agent: Callable[[Query], Any],
        *,
        name: str | None = None,
        concurrency: int = 1,
        timeout_s: float | None = None,
    ) -> AgenticFallback:
        """An agent that exists already as phase IV: any function that answers a query.

        Args:
            agent: Called with a `Query`, whose images are its own to draw on. It returns the
                answer as text or a number, or a mapping with "answer", a `Completion`, a
                `Trajectory` where depth and tokens shall be seen, or a `Result`. It may be async.
                An exception ends that one query.
            name: Names it in the log and in errors; default: the callable's own name.
            concurrency: Most calls at once, over all runs and threads. 1, without `timeout_s`,
                calls it in the thread that asks; otherwise each call has a thread of its own.
            timeout_s: Seconds that a query may take, from when the agent is free for it on;
                None for no limit. An async agent is cancelled then; a plain call is left behind
                and keeps its place among `concurrency` until it ends.

        Raises:
            ConfigError: agent can't be called, or a number is out of range.

        Example:
            >>> from PIL import Image
            >>> agent = AgenticFallback.from_callable(lambda query: f"{len(query.images)} image")
            >>> agent([Query("How many?", (Image.new("RGB", (64, 64)),))])[0].answer
            '1 image'
        """
        from speceyes.tools import Tools

        made = cls.__new__(cls)
        made.own = CallableAgent(agent, name=name, concurrency=concurrency, timeout_s=timeout_s)
        made.model, made.tools, made.dialect = None, Tools(), None
        made.max_steps = made.max_tokens = 1
        made.max_batch = concurrency
        return made

    @property
    def name(self) -> str:
        """The large model's name, or the callable's."""
        if self.own is not None:
            return self.own.name
        return "" if self.model is None else self.model.name

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

    def begin(self, clock: Callable[[], float] = time.perf_counter) -> AgentRun:
        """An empty run, to be fed and stepped by hand.

        Args:
            clock: Tells the time, seconds; a callable's own calls go by the real one.
        """
        return AgentRun(self, clock)


@final
class AgentRun:
    """One run of an `AgenticFallback`: the queries that it works on now.

    Made by `AgenticFallback.begin`; used by one thread.
    """

    def __init__(
        self, agent: AgenticFallback, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._most = agent.max_batch
        self._run: TurnRun | CallableRun
        if agent.own is not None:
            self._run = CallableRun(agent.own, agent.max_batch)
        else:
            assert agent.model is not None and agent.dialect is not None
            self._run = TurnRun(
                Agent(
                    agent.model,
                    agent.tools,
                    agent.dialect,
                    agent.max_steps,
                    agent.max_tokens,
                ),
                clock,
            )

    def tell_turns(self, told: Callable[[int, Step, float], None]) -> None:
        """Has each turn told as it ends: the query's key, the step, and the seconds of its tools.
        A callable's turns are its own affair and are not told.
        """
        if isinstance(self._run, TurnRun):
            self._run.on_turn = told

    def let_in(self, waits: Callable[[], bool]) -> None:
        """Has `step` end in the middle of turns where another query waits and there is room for it.
        A callable's steps last a moment anyway where there is room.

        Args:
            waits: Says whether one waits; asked by the thread that steps.
        """
        if isinstance(self._run, TurnRun):
            self._run.let_in = lambda: self.room > 0 and waits()

    @property
    def live(self) -> int:
        """Number of trajectories that are held, finished ones that `step` has yet to return
        included.
        """
        return self._run.live

    @property
    def joins(self) -> bool:
        """True where one that is added joins in the middle of the others' turns."""
        return self._run.joins

    @property
    def room(self) -> int:
        """Number of queries that may be added before the next step."""
        return self._most - self._run.live

    def add(self, key: int, query: Query) -> None:
        """Lets a query join at the next step.

        Args:
            key: Comes back with its trajectory.
            query: The query.
        """
        self._run.add(key, query)

    def step(self) -> list[tuple[int, Trajectory, float]]:
        """Works on all live trajectories until a turn of one of them is over, or one that waits
        can be let in; where the model can't let rows join, until a turn of each is over. A callable
        is waited for.

        Returns:
            (key, trajectory, seconds) of those that finished, seconds as in
            `AgenticFallback.stream`; perhaps none.
        """
        return self._run.step()

    def close(self) -> None:
        """Gives up what is under way."""
        self._run.close()


def _doubts(
    model: VisionLanguageModel, dialect: str, driven: Profile, tools: Sequence[str]
) -> Iterator[str]:
    """Words on what keeps a model from doing what it was trained to."""
    from speceyes.dialects import limits_differ
    from speceyes.tools import BUILT_IN

    try:
        differ = limits_differ(driven, model.seen_size)
    except Exception as exc:  # noqa: BLE001 - a model that can't say is asked no further
        _log.debug("sizes of images can't be told beforehand: %s", exc)
        differ = None
    if differ is not None:
        yield (
            f"{model.name} sees images otherwise than a {dialect} agent was trained to: {differ}. "
            "Load it with a max_pixels that leaves room for its profile's image_pixels"
        )
    if driven.scale is None and offers(model, GuessesSizes) and model.guesses_sizes:
        yield (
            f"how the engine resizes images for {model.name} isn't known from its name, and a "
            f"{dialect} agent points at pixels of the image as it sees it: they are taken for "
            "those of the image itself, so that crops may miss. Pass OpenAIModel(seen=), or "
            """--model-arg 'large.seen={"factor": 28, "min_pixels": ..., "max_pixels": ...}' """
            "with the numbers of its preprocessor_config.json, or 'own' if none is resized"
        )
    trained = [name for name in driven.tools if name in BUILT_IN]
    known = {BUILT_IN[name]().name for name in trained}
    if tools and known and not known & set(tools):
        yield (
            f"a {dialect} agent was trained to call {' and '.join(sorted(known))}, and has "
            f"{', '.join(tools)} alone: what it calls will be errors. Pass tools={trained!r}"
        )
