"""A funnel inside LangChain and LangGraph: as a chat model, and as a Runnable.

`ChatSpecEyes` takes messages. Without tools the whole funnel answers the last question; with tools
bound, an accepted draft is the answer at once, and otherwise the large model takes a turn and its
calls come back as `tool_calls`. `funnel_runnable` takes queries and gives results.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any

from speceyes.errors import ConfigError, ImageError, ModelError
from speceyes.images import load_image
from speceyes.images.blocks import block_image, block_text, encoded_image, is_image_block
from speceyes.images.sources import is_base64
from speceyes.integrations.langchain_images import lent_tools, question
from speceyes.models.control_tokens import deeply, whole
from speceyes.pipeline import SpecPipeline
from speceyes.server.backend import turn_text
from speceyes.strategies.turn_taking import OfferedTool, Round, Said, TurnTaking
from speceyes.types import Image, Observation, Query, Result

try:
    from langchain_core.language_models.chat_models import BaseChatModel
    from langchain_core.messages import (
        AIMessage,
        AIMessageChunk,
        BaseMessage,
        ChatMessage,
        FunctionMessage,
        HumanMessage,
        ToolMessage,
    )
    from langchain_core.messages.ai import UsageMetadata
    from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
    from langchain_core.runnables import Runnable, RunnableConfig
    from langchain_core.tools import BaseTool
    from langchain_core.utils.function_calling import convert_to_openai_tool
    from pydantic import ConfigDict, PrivateAttr
except ImportError as exc:
    raise ConfigError('langchain-core is not installed: pip install "speceyes[langchain]"') from exc

__all__ = ["ChatSpecEyes", "FunnelRunnable", "funnel_runnable", "lent_tools", "question"]


class ChatSpecEyes(BaseChatModel):
    """A funnel as a chat model.

    The last human message with text is the question. Its images, or the last ones before it where
    it has none, are what is asked about; what was said before is not sent. AI and tool messages
    after it are the agent's turns so far. System messages are not sent, for the models have their
    own, which the gate was made with. `ainvoke` and `batch` share batches with whatever else is
    asked. Route, score and threshold are in `response_metadata`.

    Args:
        funnel: The funnel.

    Example:
        >>> from PIL import Image as PILImage
        >>> from speceyes.models.scripted import ScriptedModel
        >>> pipe = SpecPipeline.from_pretrained(small=ScriptedModel("red"), judge=None)
        >>> asked = question("Which colour?", PILImage.new("RGB", (64, 64)))
        >>> ChatSpecEyes(funnel=pipe).invoke([asked]).content
        'red'
        >>> pipe.close()
        True
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    funnel: SpecPipeline
    _taking: TurnTaking = PrivateAttr()

    def model_post_init(self, context: Any) -> None:
        """Readies the funnel for turns."""
        super().model_post_init(context)
        self._taking = TurnTaking(self.funnel)

    @property
    def _llm_type(self) -> str:
        return "speceyes"

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[Any, AIMessage]:
        """This model with tools that it may call.

        Raises:
            ConfigError: A tool_choice but "auto": what the model calls is its own choice.
        """
        if tool_choice not in (None, "auto"):
            raise ConfigError(f'tool_choice={tool_choice!r}; only "auto" is possible')
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> ChatResult:
        query, rounds = self._read(messages)
        said = self._taking(query, rounds, _offered(kwargs.get("tools")))
        return ChatResult(generations=[ChatGeneration(message=AIMessage(**_fields(said, stop)))])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> ChatResult:
        query, rounds = await asyncio.to_thread(self._read, messages)
        said = await self._taking.ask(query, rounds, _offered(kwargs.get("tools")))
        return ChatResult(generations=[ChatGeneration(message=AIMessage(**_fields(said, stop)))])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        """One chunk: whether a draft is the answer is known only when it is whole."""
        query, rounds = self._read(messages)
        said = self._taking(query, rounds, _offered(kwargs.get("tools")))
        yield self._chunk(said, stop)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        query, rounds = await asyncio.to_thread(self._read, messages)
        said = await self._taking.ask(query, rounds, _offered(kwargs.get("tools")))
        yield self._chunk(said, stop)

    def _chunk(self, said: Said, stop: Sequence[str] | None) -> ChatGenerationChunk:
        fields = _fields(said, stop)
        chunk = AIMessageChunk(**fields, chunk_position="last")
        return ChatGenerationChunk(message=chunk)

    def _read(self, messages: Sequence[BaseMessage]) -> tuple[Query, list[Round]]:
        """The last question with its images, and the rounds since.

        Raises:
            ModelError: There is no question, or no image.
            ImageError: An image can't be read.
        """
        parts = [(message, *_content(message)) for message in messages]
        asked = [at for at, (one, text, _) in enumerate(parts) if _is_human(one) and text]
        if not asked:
            raise ModelError(_NEEDED)
        at = asked[-1]
        for block in parts[at][2]:
            if not is_image_block(block):
                raise ModelError(f"a block of type {block.get('type')!r}; text and images are read")
        # Images of earlier messages are not opened: their addresses may be dead by now.
        humans = [blocks for one, _, blocks in parts[: at + 1] if _is_human(one)]
        humans += [blocks for one, _, blocks in parts[at + 1 :] if _is_human(one)]
        shown = _images(parts[at][2]) or next(filter(None, map(_images, reversed(humans))), [])
        if not shown:
            raise ModelError(_NEEDED)
        rounds = list[Round]()
        fallback = self.funnel.fallback
        dialect = None if fallback is None else fallback.dialect
        for message, text, blocks in parts[at + 1 :]:
            if isinstance(message, AIMessage):
                rounds.append(Round(whole(turn_text(dialect, text, _calls(message, blocks)))))
            elif isinstance(message, ToolMessage | FunctionMessage) and rounds:
                failed = getattr(message, "status", "") == "error"
                content: list[str | Image] = [self._image(block) for block in _images(blocks)]
                if text and not failed:
                    content.insert(0, whole(text))
                why = (whole(text) or f"{message.name or 'the tool'} failed") if failed else None
                seen = Observation(tuple(content), why)
                rounds[-1] = Round(rounds[-1].text, (*rounds[-1].observations, seen))
        return Query(parts[at][1], tuple(self._image(block) for block in shown)), rounds

    def _image(self, block: Mapping[str, Any]) -> Image:
        limits = self.funnel.inputs.limits
        held = block_image(block, limits.max_bytes)
        if isinstance(held, str) and held[:5].lower() == "data:":
            held = encoded_image(held, limits.max_bytes)  # the bytes themselves tell the format
        # A message never opens a file.
        if held is None or (
            isinstance(held, str) and not (held[:4].lower() == "http" or is_base64(held))
        ):
            raise ImageError("an image must be a data URL, base64 or an http(s) address")
        return load_image(held, limits=limits, allow_urls=self.funnel.inputs.allow_urls)


class FunnelRunnable(Runnable[Any, Result]):
    """A funnel as a Runnable: queries in, results out. Made by `funnel_runnable`."""

    def __init__(self, pipe: SpecPipeline) -> None:
        self.funnel = pipe

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Result:
        """The result of one query, in any form that the pipeline takes."""
        return self._call_with_config(self._one, input, config, run_type="chain")

    async def ainvoke(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Result:
        """The same without holding up the event loop; what is asked at a time shares batches."""
        return await self._acall_with_config(self.funnel.ask, input, config, run_type="chain")

    def batch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Result]:
        """One result a query, in order, through one run; a query's failure is in its result."""
        return self.funnel(inputs)

    async def abatch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Result]:
        """The same without holding up the event loop."""
        return list(await asyncio.gather(*(self.funnel.ask(one) for one in inputs)))

    def _one(self, item: Any) -> Result:
        return self.funnel([item])[0]


def funnel_runnable(pipe: SpecPipeline) -> FunnelRunnable:
    """A funnel as a link of a chain.

    Example:
        >>> from PIL import Image as PILImage
        >>> from speceyes.models.scripted import ScriptedModel
        >>> pipe = SpecPipeline.from_pretrained(small=ScriptedModel("red"), judge=None)
        >>> chain = funnel_runnable(pipe) | (lambda result: result.answer)
        >>> chain.invoke((PILImage.new("RGB", (64, 64)), "Which colour?"))
        'red'
    """
    return FunnelRunnable(pipe)


_NEEDED = (
    "the funnel answers questions about images: there must be a human message with text, and an "
    "image in it or before it"
)


def _is_human(message: BaseMessage) -> bool:
    if isinstance(message, ChatMessage):
        return message.role.casefold() in ("user", "human")
    return isinstance(message, HumanMessage)


def _content(message: BaseMessage) -> tuple[str, list[Mapping[str, Any]]]:
    """The text of a message, and its other blocks, in any of LangChain's forms.

    A model's reasoning and calls are blocks too; they are no part of what it said.
    """
    if isinstance(message.content, str):
        return message.content.strip(), []
    texts, others = [], list[Mapping[str, Any]]()
    for block in message.content:
        text = block if isinstance(block, str) else block_text(block)
        if text is not None:
            texts.append(text)
        elif isinstance(block, Mapping):
            others.append(block)
    return "\n".join(text for text in texts if text).strip(), others


def _calls(message: AIMessage, blocks: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """(name, arguments as JSON) of a turn's calls, in any of LangChain's forms."""
    found: list[tuple[Any, Any]] = [(one["name"], one["args"]) for one in message.tool_calls]
    found += [(one["name"], one["args"]) for one in message.invalid_tool_calls]
    if not found:
        told = [block for block in blocks if block.get("type") in _CALLED]
        told += [block["toolUse"] for block in blocks if isinstance(block.get("toolUse"), Mapping)]
        if isinstance(older := message.additional_kwargs.get("function_call"), Mapping):
            told.append(older)
        for one in told:
            given: Any = next((one[key] for key in _GIVEN if one.get(key) is not None), {})
            found.append((one.get("name"), given))
    return [
        (
            whole(str(name)),
            whole(given) if isinstance(given, str) else json.dumps(deeply(given or {}, whole)),
        )
        for name, given in found
        if name
    ]


_CALLED = ("tool_use", "tool_call", "function_call")
_GIVEN = ("args", "input", "arguments")


def _images(blocks: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [block for block in blocks if is_image_block(block)]


def _offered(tools: Sequence[Mapping[str, Any]] | None) -> list[OfferedTool]:
    functions = [tool["function"] for tool in tools or ()]
    return [
        OfferedTool(one["name"], one.get("description", ""), one.get("parameters", {}))
        for one in functions
    ]


def _fields(said: Said, stop: Sequence[str] | None) -> dict[str, Any]:
    """The fields of an AI message for a turn, its answer cut before the first of `stop`."""
    answer = said.answer
    if answer is not None and stop:
        ends = [at for one in stop if one and (at := answer.find(one)) >= 0]
        answer = answer[: min(ends, default=None)]
    return {
        # With calls, what the model wrote, for it is shown to it again; else the answer alone.
        "content": said.text if answer is None else answer,
        "tool_calls": [
            {
                "name": call.name,
                "args": dict(call.arguments),
                "id": f"call_{uuid.uuid4().hex[:12]}",
                "type": "tool_call",
            }
            for call in said.calls
        ],
        "response_metadata": {"model_name": "speceyes", **said.facts},
        "usage_metadata": UsageMetadata(
            input_tokens=said.prompt_tokens,
            output_tokens=said.tokens,
            total_tokens=said.prompt_tokens + said.tokens,
        ),
    }
