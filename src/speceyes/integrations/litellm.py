"""A funnel as a provider of LiteLLM, for its library, its router and its proxy.

`SpecEyesLLM(pipe)` answers with the whole funnel. Over a funnel without a fallback it escalates: a
draft that the gate rejects is an error, and the router's `fallbacks` send the request on to a
large model; examples/litellm/router.yaml has the configuration.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

from speceyes.errors import ConfigError, SpecEyesError
from speceyes.integrations.chat_turns import ChatTurns, reason_of, tool_calls
from speceyes.pipeline import SpecPipeline
from speceyes.strategies.turn_taking import Said

try:
    from litellm import Choices, CustomLLM, Message, ModelResponse, Usage
    from litellm.llms.custom_llm import CustomLLMError
except ImportError as exc:
    raise ConfigError('litellm is not installed: pip install "speceyes[litellm]"') from exc

__all__ = ["SpecEyesLLM"]


class SpecEyesLLM(CustomLLM):  # type: ignore[misc, unused-ignore]
    """A funnel behind `litellm.custom_provider_map`.

    Route, score and threshold are in the message's `provider_specific_fields`.

    Args:
        pipe: The funnel.
    """

    def __init__(self, pipe: SpecPipeline) -> None:
        super().__init__()
        self._turns = ChatTurns(pipe)

    def completion(self, *args: Any, **kwargs: Any) -> Any:
        """The next turn.

        Raises:
            CustomLLMError: There is no answer: 400 for a request without a question about an
                image, 502 otherwise, such as a rejected draft without a fallback.
        """
        try:
            said = self._turns(*_asked(kwargs))
        except SpecEyesError as exc:
            raise CustomLLMError(*reason_of(exc)) from exc
        return _filled(kwargs["model_response"], kwargs["model"], said)

    async def acompletion(self, *args: Any, **kwargs: Any) -> Any:
        """The same without holding up the event loop."""
        return _filled(kwargs["model_response"], kwargs["model"], await self._said(kwargs))

    def streaming(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """The turn as one chunk: a draft is the answer only once it is whole."""
        try:
            said = self._turns(*_asked(kwargs))
        except SpecEyesError as exc:
            raise CustomLLMError(*reason_of(exc)) from exc
        yield from _chunks(said)

    async def astreaming(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        """The same without holding up the event loop."""
        for chunk in _chunks(await self._said(kwargs)):
            yield chunk

    async def _said(self, kwargs: Mapping[str, Any]) -> Said:
        try:
            return await self._turns.ask(*_asked(kwargs))
        except SpecEyesError as exc:
            raise CustomLLMError(*reason_of(exc)) from exc


def _asked(kwargs: Mapping[str, Any]) -> tuple[Sequence[Any], Sequence[Any], Any]:
    """(messages, tools, stop) of a call."""
    options = kwargs.get("optional_params") or {}
    return kwargs["messages"], options.get("tools") or (), options.get("stop")


def _filled(response: ModelResponse, model: str, said: Said) -> ModelResponse:
    calls = tool_calls(said)
    message = Message(
        role="assistant",
        # With calls, the model's own text, for it is shown to it again.
        content=said.text if said.answer is None else said.answer,
        tool_calls=calls or None,
        provider_specific_fields=said.facts,
    )
    reason = "tool_calls" if calls else "stop"
    response.choices = [Choices(index=0, message=message, finish_reason=reason)]
    response.model = model
    response.usage = Usage(**_usage(said))
    return response


def _chunks(said: Said) -> Iterator[Any]:
    calls = tool_calls(said)
    text = said.text if said.answer is None else said.answer
    for at, call in enumerate(calls):
        yield _chunk("", tool={"index": at, **call})
    yield _chunk(text, reason="tool_calls" if calls else "stop", usage=_usage(said))


def _chunk(
    text: str,
    *,
    tool: dict[str, Any] | None = None,
    reason: str = "",
    usage: dict[str, int] | None = None,
) -> dict[str, Any]:
    return {
        "text": text,
        "tool_use": tool,
        "is_finished": bool(reason),
        "finish_reason": reason,
        "usage": usage,
        "index": 0,
    }


def _usage(said: Said) -> dict[str, int]:
    return {
        "prompt_tokens": said.prompt_tokens,
        "completion_tokens": said.tokens,
        "total_tokens": said.prompt_tokens + said.tokens,
    }
