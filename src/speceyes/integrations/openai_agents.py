"""A funnel as a model of the OpenAI Agents SDK: `Agent(model=SpecEyesModel(pipe), tools=[...])`.

An accepted draft ends the run at its first turn; otherwise the large model takes the turns, and
the SDK runs the tools and the hand-offs that it calls.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

from speceyes.errors import ConfigError
from speceyes.integrations.chat_turns import ChatTurns, tool_calls
from speceyes.pipeline import SpecPipeline
from speceyes.strategies.turn_taking import Said

try:
    from agents import Model, ModelResponse, Usage
    from agents.models.chatcmpl_converter import Converter
    from openai.types.responses import (
        Response,
        ResponseCompletedEvent,
        ResponseFunctionToolCall,
        ResponseOutputMessage,
        ResponseOutputText,
    )
    from openai.types.responses.response_usage import (
        InputTokensDetails,
        OutputTokensDetails,
        ResponseUsage,
    )
except ImportError as exc:
    raise ConfigError(
        'openai-agents is not installed: pip install "speceyes[openai-agents]"'
    ) from exc

__all__ = ["SpecEyesModel"]


class SpecEyesModel(Model):  # type: ignore[misc, unused-ignore]
    """A funnel that takes the turns of an agent.

    Instructions and history are told to the large model alone. Model settings have no effect:
    decoding is greedy. An output type needs the large model to write its JSON, so that nothing is
    drafted then.

    Args:
        pipe: The funnel.
    """

    def __init__(self, pipe: SpecPipeline) -> None:
        self._turns = ChatTurns(pipe)

    async def get_response(
        self,
        system_instructions: str | None,
        input: Any,
        model_settings: Any,
        tools: Sequence[Any],
        output_schema: Any,
        handoffs: Sequence[Any],
        tracing: Any,
        **kwargs: Any,
    ) -> ModelResponse:
        """The next turn.

        Raises:
            InputError: There is no question about an image.
            ModelError: There is no answer.
        """
        said = await self._said(system_instructions, input, tools, output_schema, handoffs)
        read, written = said.prompt_tokens, said.tokens
        usage = Usage(
            requests=1, input_tokens=read, output_tokens=written, total_tokens=read + written
        )
        return ModelResponse(output=_output(said), usage=usage, response_id=None)

    async def stream_response(
        self,
        system_instructions: str | None,
        input: Any,
        model_settings: Any,
        tools: Sequence[Any],
        output_schema: Any,
        handoffs: Sequence[Any],
        tracing: Any,
        **kwargs: Any,
    ) -> AsyncIterator[Any]:
        """The turn as one event: a draft is the answer only once it is whole."""
        said = await self._said(system_instructions, input, tools, output_schema, handoffs)
        read, written = said.prompt_tokens, said.tokens
        response = Response(
            id=f"resp_{uuid.uuid4().hex}",
            created_at=time.time(),
            model="speceyes",
            object="response",
            output=_output(said),
            tool_choice="auto",
            tools=[],
            parallel_tool_calls=True,
            usage=ResponseUsage(
                input_tokens=read,
                output_tokens=written,
                total_tokens=read + written,
                input_tokens_details=InputTokensDetails(cached_tokens=0, cache_write_tokens=0),
                output_tokens_details=OutputTokensDetails(reasoning_tokens=0),
            ),
        )
        yield ResponseCompletedEvent(
            response=response, sequence_number=0, type="response.completed"
        )

    async def _said(
        self,
        instructions: str | None,
        items: Any,
        tools: Sequence[Any],
        output_schema: Any,
        handoffs: Sequence[Any],
    ) -> Said:
        messages: list[Any] = list(Converter.items_to_messages(items))
        told = [instructions] if instructions else []
        typed = output_schema is not None and not output_schema.is_plain_text()
        if typed:
            told.append(
                f"The final answer must be JSON of this schema: {output_schema.json_schema()}"
            )
        if told:
            messages.insert(0, {"role": "system", "content": "\n\n".join(told)})
        offered = [Converter.tool_to_openai(tool) for tool in tools]
        offered += [Converter.convert_handoff_tool(one) for one in handoffs]
        return await self._turns.ask(messages, offered, must_call=typed)


def _output(said: Said) -> list[Any]:
    """A turn as output items; with calls, the model's own text, which it is shown again."""
    text = said.text if said.answer is None else said.answer
    message = ResponseOutputMessage(
        id=f"msg_{uuid.uuid4().hex}",
        content=[ResponseOutputText(annotations=[], text=text, type="output_text", logprobs=[])],
        role="assistant",
        status="completed",
        type="message",
    )
    calls = [
        ResponseFunctionToolCall(
            arguments=call["function"]["arguments"],
            call_id=call["id"],
            name=call["function"]["name"],
            type="function_call",
        )
        for call in tool_calls(said)
    ]
    return [message, *calls]
