"""A funnel as a model of Pydantic AI: `Agent(SpecEyesModel(pipe), tools=[...])`.

An accepted draft is the run's answer at once; otherwise the large model takes the turns, and
Pydantic AI runs the tools that it calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from speceyes.errors import ConfigError, InputError
from speceyes.integrations.chat_turns import ChatTurns
from speceyes.pipeline import SpecPipeline
from speceyes.strategies.turn_taking import Said

try:
    from pydantic_ai.messages import (
        BinaryContent,
        ImageUrl,
        ModelMessage,
        ModelRequest,
        ModelResponse,
        RetryPromptPart,
        SystemPromptPart,
        TextPart,
        ToolCallPart,
        ToolReturnPart,
        UserPromptPart,
    )
    from pydantic_ai.models import Model, ModelRequestParameters
    from pydantic_ai.settings import ModelSettings
    from pydantic_ai.usage import RequestUsage
except ImportError as exc:
    raise ConfigError('pydantic-ai is not installed: pip install "speceyes[pydantic-ai]"') from exc

__all__ = ["SpecEyesModel"]


class SpecEyesModel(Model[Any]):  # type: ignore[misc, unused-ignore]
    """A funnel that takes the turns of an agent.

    Instructions, system prompts and history are told to the large model alone. Settings have no
    effect but `stop_sequences`: decoding is greedy. Where text is no answer, as with an output
    type, nothing is drafted. Route, score and threshold are in the response's `provider_details`.

    Args:
        pipe: The funnel.
    """

    def __init__(self, pipe: SpecPipeline) -> None:
        super().__init__()
        self._turns = ChatTurns(pipe)

    @property
    def model_name(self) -> str:
        """The name in responses."""
        return "speceyes"

    @property
    def system(self) -> str:
        """The provider's name in traces."""
        return "speceyes"

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """The next turn.

        Raises:
            InputError: There is no question about an image, or a part isn't text or an image.
            ModelError: There is no answer.
        """
        settings, asked = self.prepare_request(model_settings, model_request_parameters)
        tools = [
            {
                "type": "function",
                "function": {
                    "name": tool.name,
                    "description": tool.description or "",
                    "parameters": tool.parameters_json_schema,
                },
            }
            for tool in (*asked.function_tools, *asked.output_tools)
        ]
        said = await self._turns.ask(
            _chat(messages),
            tools,
            (settings or {}).get("stop_sequences"),
            must_call=not asked.allow_text_output,
        )
        return ModelResponse(
            parts=_parts(said),
            usage=RequestUsage(input_tokens=said.prompt_tokens, output_tokens=said.tokens),
            model_name=self.model_name,
            provider_name=self.system,
            provider_details=said.facts,
        )


def _parts(said: Said) -> list[Any]:
    """A turn as parts; with calls, the model's own text, which it is shown again."""
    text = TextPart(said.text if said.answer is None else said.answer)
    return [text, *(ToolCallPart(call.name, dict(call.arguments)) for call in said.calls)]


def _chat(messages: Sequence[ModelMessage]) -> list[dict[str, Any]]:
    """The messages in OpenAI's form."""
    chat: list[dict[str, Any]] = []
    for message in messages:
        if isinstance(message, ModelRequest):
            if message is messages[-1] and message.instructions:
                chat.append({"role": "system", "content": message.instructions})
            for part in message.parts:
                chat += _asked(part)
            continue
        calls = [
            {
                "id": call.tool_call_id,
                "type": "function",
                "function": {"name": call.tool_name, "arguments": call.args_as_json_str()},
            }
            for call in message.parts
            if isinstance(call, ToolCallPart)
        ]
        texts = [part.content for part in message.parts if isinstance(part, TextPart)]
        said: dict[str, Any] = {"role": "assistant", "content": "\n".join(texts)}
        chat.append({**said, "tool_calls": calls} if calls else said)
    return chat


def _asked(part: Any) -> list[dict[str, Any]]:
    """A part of a request as chat messages."""
    if isinstance(part, SystemPromptPart):
        return [{"role": "system", "content": part.content}]
    if isinstance(part, UserPromptPart):
        return [{"role": "user", "content": _content(part.content)}]
    if isinstance(part, ToolReturnPart):
        text, shown = part.model_response_str_and_user_content()
        parts = [*_content(text), *_content(shown)]
        return [{"role": "tool", "tool_call_id": part.tool_call_id, "content": parts}]
    if isinstance(part, RetryPromptPart):
        if part.tool_name is None:
            return [{"role": "tool", "content": part.model_response()}]
        content = part.model_response()
        return [{"role": "tool", "tool_call_id": part.tool_call_id, "content": content}]
    return []


def _content(content: Any) -> list[dict[str, Any]]:
    """Content as parts of a chat message.

    Raises:
        InputError: It is neither text nor an image.
    """
    found: list[dict[str, Any]] = []
    for one in [content] if isinstance(content, str) else content:
        if isinstance(one, str):
            if one.strip():
                found.append({"type": "text", "text": one})
        elif isinstance(one, ImageUrl):
            found.append({"type": "image_url", "image_url": {"url": one.url}})
        elif isinstance(one, BinaryContent) and one.is_image:
            found.append({"type": "image_url", "image_url": {"url": one.data_uri}})
        else:
            raise InputError(f"a {type(one).__name__} is neither text nor an image")
    return found
