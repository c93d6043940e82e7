"""A funnel in Inspect (inspect_ai): a solver for its tasks, and a model that takes their turns.

`speceyes_solver(pipe)` answers each sample by the whole funnel, as a solver. With
`get_model("speceyes/funnel", pipe=pipe, memoize=False)` a task's own solvers, such as
`use_tools(...)` with `generate()`, ask the funnel: an accepted draft is the answer at once, and
otherwise the large model takes the turns and Inspect runs the tools that it calls.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Sequence
from typing import Any

from speceyes.errors import ConfigError, InputError
from speceyes.evaluation.grading import options
from speceyes.images import load_image
from speceyes.integrations.chat_turns import ChatTurns, image_part
from speceyes.pipeline import SpecPipeline
from speceyes.strategies.turn_taking import Said
from speceyes.types import Query, Result

try:
    from inspect_ai.model import (
        ChatCompletionChoice,
        ChatMessage,
        ChatMessageAssistant,
        ChatMessageTool,
        ChatMessageUser,
        ContentImage,
        ContentText,
        GenerateConfig,
        ModelAPI,
        ModelOutput,
        ModelUsage,
        modelapi,
    )
    from inspect_ai.solver import Generate, Solver, TaskState, solver
    from inspect_ai.tool import ToolCall, ToolChoice, ToolInfo
except ImportError as exc:
    raise ConfigError('inspect_ai is not installed: pip install "speceyes[inspect]"') from exc

__all__ = ["SpecEyesAPI", "speceyes_solver"]


@solver  # type: ignore[misc, untyped-decorator, unused-ignore]
def speceyes_solver(pipe: SpecPipeline) -> Solver:
    """A solver that answers a sample by the funnel.

    The last user message is the question, the images of all user messages are shown, and a
    sample's choices are the query's: the one that the answer names is marked, for the scorer
    `choice()`. Route, score and threshold are in the sample's metadata under "speceyes". A query
    that fails leaves an empty completion and its reason there.

    Args:
        pipe: The funnel. Samples that wait at the same time share its batches.
    """

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        query = await asyncio.to_thread(_query, state)
        result = await pipe.ask(query)
        answer = result.answer or ""
        if query.choices and result.answer is not None:
            place = options.resolve(answer, query.choices)
            for at in range(len(query.choices)):
                state.choices.mark_choice(at, at == place)
            answer = answer if place is None else chr(65 + place)
        state.output = ModelOutput.from_content("speceyes", answer, error=result.error)
        state.messages.append(state.output.message)
        state.metadata["speceyes"] = _facts(result)
        return state

    return solve


def _facts(result: Result) -> dict[str, Any]:
    verdict = result.verdict
    return {
        "route": result.route,
        "answer": result.answer,
        "score": None if verdict is None else verdict.score,
        "threshold": None if verdict is None else verdict.threshold,
        "error": result.error,
    }


def _query(state: TaskState) -> Query:
    users = [message for message in state.messages if isinstance(message, ChatMessageUser)]
    images = [
        load_image(part.image)
        for message in users
        if not isinstance(message.content, str)
        for part in message.content
        if isinstance(part, ContentImage)
    ]
    if not images:
        raise InputError(f"sample {state.sample_id!r} has no image: a funnel answers about images")
    choices = tuple(choice.value for choice in state.choices)
    return Query(users[-1].text, tuple(images), choices, id=f"{state.sample_id}/{state.epoch}")


@modelapi(name="speceyes")
class SpecEyesAPI(ModelAPI):  # type: ignore[misc, unused-ignore]
    """A funnel as a model of Inspect.

    Args:
        model_name: What stands behind "speceyes/": a name of yours.
        base_url: Not used.
        api_key: Not used.
        config: Only `stop_seqs` have an effect: decoding is greedy.
        pipe: The funnel.

    Raises:
        ConfigError: No pipe was given.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008 - Inspect's own signature
        pipe: SpecPipeline | None = None,
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config)
        if pipe is None:
            raise ConfigError(
                f'speceyes/{model_name} needs its funnel: get_model("speceyes/{model_name}", '
                "pipe=pipe, memoize=False)"
            )
        self._turns = ChatTurns(pipe)

    async def generate(
        self,
        input: list[ChatMessage],
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput:
        """The next turn.

        Raises:
            InputError: There is no question about an image, or a part isn't text or an image.
            ModelError: There is no answer.
        """
        offered = [] if tool_choice == "none" else [_tool(tool) for tool in tools]
        messages = await asyncio.to_thread(_chat, input)
        said = await self._turns.ask(
            messages, offered, config.stop_seqs, must_call=bool(offered) and _forced(tool_choice)
        )
        return _output(self.model_name, said)


def _forced(choice: ToolChoice) -> bool:
    return choice == "any" or not isinstance(choice, str)


def _tool(tool: ToolInfo) -> dict[str, Any]:
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters.model_dump(exclude_none=True),
    }
    return {"type": "function", "function": function}


def _output(name: str, said: Said) -> ModelOutput:
    calls = [
        ToolCall(
            id=f"call_{uuid.uuid4().hex[:24]}", function=call.name, arguments=dict(call.arguments)
        )
        for call in said.calls
    ]
    message = ChatMessageAssistant(
        content=said.text if said.answer is None else said.answer,
        tool_calls=calls or None,
        model=name,
        source="generate",
        metadata={"speceyes": said.facts},
    )
    total = said.prompt_tokens + said.tokens
    return ModelOutput(
        model=name,
        choices=[
            ChatCompletionChoice(message=message, stop_reason="tool_calls" if calls else "stop")
        ],
        usage=ModelUsage(
            input_tokens=said.prompt_tokens, output_tokens=said.tokens, total_tokens=total
        ),
        metadata={"speceyes": said.facts},
    )


def _chat(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """The messages in OpenAI's form."""
    chat: list[dict[str, Any]] = []
    for message in messages:
        one: dict[str, Any] = {"role": message.role, "content": _content(message.content)}
        if isinstance(message, ChatMessageTool):
            one["tool_call_id"] = message.tool_call_id
            if message.error is not None:
                one["content"] = message.error.message
        elif isinstance(message, ChatMessageAssistant):
            one["content"] = message.text
            if message.tool_calls:
                one["tool_calls"] = [
                    {
                        "id": call.id,
                        "type": "function",
                        "function": {
                            "name": call.function,
                            "arguments": json.dumps(call.arguments),
                        },
                    }
                    for call in message.tool_calls
                ]
        chat.append(one)
    return chat


def _content(content: str | Sequence[Any]) -> str | list[dict[str, Any]]:
    """Content as parts of a chat message; an image's file is read, as Inspect does.

    Raises:
        InputError: A part is neither text nor an image.
    """
    if isinstance(content, str):
        return content
    found: list[dict[str, Any]] = []
    for part in content:
        if isinstance(part, ContentText):
            found.append({"type": "text", "text": part.text})
        elif isinstance(part, ContentImage):
            url = part.image
            if url[:5].lower().startswith(("data:", "http")):
                found.append({"type": "image_url", "image_url": {"url": url}})
            else:
                found.append(image_part(load_image(url)))
        else:
            raise InputError(f"a {type(part).__name__} is neither text nor an image")
    return found
