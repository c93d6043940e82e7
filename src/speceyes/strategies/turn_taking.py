"""A funnel as the model of another program's agent loop, one turn at a time.

The loop runs the tools. At its first turn the funnel drafts, and an accepted draft ends the loop
before it has begun. Otherwise the large model takes a turn in its own dialect, and its calls go to
the loop's tools, boxes already in pixels of the image that they refer to. The large model sees the
conversation as `AgenticFallback` would have shown it, so that what it was trained on still holds.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final, final

from speceyes import prompts
from speceyes.dialects.context import in_context, too_long
from speceyes.errors import ConfigError, ModelError, ParseError, PromptError
from speceyes.fallback import AgenticFallback
from speceyes.models.rows import generate_rows
from speceyes.pipeline import SpecPipeline
from speceyes.protocols import Tool
from speceyes.texts import filled
from speceyes.types import (
    Completion,
    Conversation,
    Image,
    Observation,
    Query,
    Result,
    Sampling,
    Step,
    ToolCall,
    Trajectory,
    Turn,
)

TRIES: Final = 3
"""Attempts at a turn that can't be read; each time the model is told why."""


class UnreadableTurn(ModelError):
    """The agent's turn followed no form of its dialect, however often it was told why.

    Args:
        message: What was wrong with the last attempt.
        steps: The attempts.
    """

    def __init__(self, message: str, steps: Sequence[Step]) -> None:
        super().__init__(message)
        self.steps = tuple(steps)


@dataclass(frozen=True, slots=True)
class OfferedTool:
    """A tool that the loop runs: its description for the model."""

    name: str
    description: str
    parameters: Mapping[str, Any]

    def __call__(self, images: Sequence[Image], arguments: Mapping[str, Any]) -> Observation:
        """Raises: the loop runs its tools itself."""
        raise ModelError(f"{self.name} is run by the loop that offered it")


@dataclass(frozen=True, slots=True)
class Round:
    """An earlier turn: the model's text, and what the loop's tools gave back."""

    text: str
    observations: tuple[Observation, ...] = ()


@dataclass(frozen=True, slots=True)
class Said:
    """The funnel's turn: an answer, or calls.

    Args:
        text: As it was written, to be handed in again as `Round.text`.
        answer: The final answer; None where there are calls.
        calls: Tool calls, boxes in pixels of the original images.
        result: The funnel's own result, where it ran.
        prompt_tokens: Tokens read for this turn.
        tokens: Tokens written for it.
    """

    text: str
    answer: str | None = None
    calls: tuple[ToolCall, ...] = ()
    result: Result | None = None
    prompt_tokens: int = 0
    tokens: int = 0

    @property
    def facts(self) -> dict[str, Any]:
        """Route, score and threshold, for a framework's metadata."""
        verdict = None if self.result is None else self.result.verdict
        return {
            "route": "agent" if self.result is None else self.result.route,
            "score": None if verdict is None else verdict.score,
            "threshold": None if verdict is None else verdict.threshold,
        }


@dataclass(slots=True)
class _Asked:
    """A model's turn and what it cost, tries included."""

    conversation: Conversation
    prompt_tokens: int = 0
    tokens: int = 0
    problem: str = ""
    calls: list[ToolCall] = field(default_factory=list)


@final
class TurnTaking:
    """Takes a funnel's turns in other loops. Threads may share it where they may share the models.

    Args:
        pipe: The funnel. Its own tools run only where a loop offers none.

    Example:
        >>> from PIL import Image as PILImage
        >>> from speceyes.models.scripted import ScriptedModel
        >>> pipe = SpecPipeline.from_pretrained(small=ScriptedModel("red"), judge=None)
        >>> taking = TurnTaking(pipe)
        >>> taking(Query("Which colour?", (PILImage.new("RGB", (64, 64)),))).answer
        'red'
        >>> pipe.close()
        True
    """

    def __init__(self, pipe: SpecPipeline) -> None:
        self.pipe = pipe
        self._drafting: SpecPipeline | None = None
        if pipe.answerer is not None and pipe.gate is not None:
            self._drafting = SpecPipeline(
                judge=pipe.judge,
                answerer=pipe.answerer,
                gate=pipe.gate,
                schedule=dataclasses.replace(pipe.schedule, end_drafts_early=pipe.parts.ends_early),
                inputs=pipe.inputs,
            )

    def __call__(
        self, query: Query, rounds: Sequence[Round] = (), tools: Sequence[OfferedTool] = ()
    ) -> Said:
        """The next turn.

        Args:
            query: The task.
            rounds: What was said and shown since, oldest first.
            tools: What the loop can run; none lets the whole funnel answer.

        Raises:
            ModelError: There is no answer: the models failed, or wrote what can't be read.
            ConfigError: Tools are offered to a funnel without a model as its agent.
        """
        if not tools:
            return _whole(blocking(functools.partial(self.pipe.ask, query)))
        if not rounds and (drafted := self._drafted(query)) is not None:
            return drafted
        return self.turn(query, rounds, tools)

    async def ask(
        self, query: Query, rounds: Sequence[Round] = (), tools: Sequence[OfferedTool] = ()
    ) -> Said:
        """As calling it, without holding up the event loop."""
        if not tools:
            return _whole(await self.pipe.ask(query))
        return await asyncio.to_thread(self, query, rounds, tools)

    def _drafted(self, query: Query) -> Said | None:
        """The draft, where judge and gate let it stand."""
        if self._drafting is None:
            return None
        result = self._drafting(query)
        return _whole(result) if result.route == "draft" else None

    def turn(self, query: Query, rounds: Sequence[Round], tools: Sequence[OfferedTool]) -> Said:
        """The large model's next turn, without a draft; see `__call__`."""
        agent = self._agent()
        assert agent.model is not None and agent.dialect is not None
        model, dialect = agent.model, agent.dialect
        asked = _Asked(self.conversation(query, rounds, tools))
        sampling = Sampling(max_tokens=agent.max_tokens, stop=dialect.stop)
        steps: list[Step] = []
        for _ in range(TRIES):
            if (why := too_long(model, asked.conversation)) is not None:
                raise PromptError(why, "length")
            [said] = generate_rows(model, [asked.conversation], sampling)
            if said.error is not None:
                why = f"the agent's model failed: {said.error}"
                raise PromptError(why, said.fault) if said.fault else ModelError(why)
            asked.prompt_tokens += said.prompt_tokens
            asked.tokens += len(said.token_ids)
            try:
                turn = _read(dialect.parse, said)
                images = asked.conversation.images
                sizes = [model.seen_size(image) for image in images]
                calls = tuple(dialect.locate(call, images, sizes) for call in turn.calls)
            except ParseError as exc:
                asked.problem = str(exc)
                steps.append(
                    Step(
                        said.text,
                        tokens=len(said.token_ids),
                        prompt_tokens=said.prompt_tokens,
                        error=asked.problem,
                    )
                )
                problem = (Observation(error=filled(prompts.PARSE_ERROR, error=str(exc))),)
                asked.conversation = dialect.observe(
                    asked.conversation, said.text, problem, last=False
                )
            else:
                return Said(
                    said.text,
                    turn.answer,
                    () if turn.answer is not None else calls,
                    prompt_tokens=asked.prompt_tokens,
                    tokens=asked.tokens,
                )
        raise UnreadableTurn(
            f"the agent's turn can't be read, {TRIES} times over: {asked.problem}", steps
        )

    def conversation(
        self, query: Query, rounds: Sequence[Round], tools: Sequence[OfferedTool]
    ) -> Conversation:
        """Conversation that asks the large model for its next turn; see `__call__`."""
        agent = self._agent()
        assert agent.dialect is not None
        shown = [_as_trained(tool, agent.tools.get(tool.name)) for tool in tools]
        conversation = in_context(agent.dialect.open(query, shown), query)
        for number, one in enumerate(rounds, start=1):
            seen = one.observations or (Observation(("(nothing)",)),)
            last = number + 1 >= agent.max_steps
            conversation = agent.dialect.observe(conversation, one.text, seen, last=last)
        return conversation

    def _agent(self) -> AgenticFallback:
        agent = self.pipe.fallback
        if agent is None or agent.model is None or agent.dialect is None:
            raise ConfigError(
                "the funnel has no model that can take the turns of an agent: give it a fallback "
                "with a model, or offer no tools"
            )
        return agent


def blocking(ask: Callable[[], Any]) -> Any:
    """Runs a coroutine to its end, also in a thread whose own event loop is running."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(ask())
    came: Future[Any] = Future()

    def work() -> None:
        try:
            came.set_result(asyncio.run(ask()))
        except BaseException as exc:  # noqa: BLE001 - raised again by who waits
            came.set_exception(exc)

    threading.Thread(target=work, name="speceyes-ask", daemon=True).start()
    return came.result()


def _read(parse: Callable[[str], Turn], said: Completion) -> Turn:
    turn = parse(said.text)
    if turn.plain and said.finish == "length":
        raise ParseError("no answer was found; it was cut off: be shorter")
    if turn.answer is None and not turn.calls:
        raise ParseError("neither a call nor an answer was found")
    return turn


def _as_trained(tool: OfferedTool, own: Tool | None) -> Tool:
    """The funnel's own words for a tool of the same name, for the model was trained with them."""
    return tool if own is None else own


def _whole(result: Result) -> Said:
    """The turn of a funnel that answered by itself.

    Raises:
        ModelError: It did not.
    """
    if result.answer is None:
        raise ModelError(result.error or "the funnel gave no answer")
    read, written = tokens_of(result)
    return Said(result.answer, result.answer, (), result, read, written)


def tokens_of(result: Result) -> tuple[int, int]:
    """(read, written) by all phases."""
    said = [result.draft, None if result.judgement is None else result.judgement.completion]
    read = sum(one.prompt_tokens for one in said if one is not None)
    written = sum(len(one.token_ids) for one in said if one is not None)
    way: Trajectory | None = result.trajectory
    steps = () if way is None else way.steps
    return read + sum(s.prompt_tokens for s in steps), written + sum(s.tokens for s in steps)
