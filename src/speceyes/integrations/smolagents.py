"""A funnel inside smolagents: as the model of an agent, and as a tool of one.

`PipelineTool` is what any agent can call to have a question about an image answered.
`PipelineModel` drives a `ToolCallingAgent`: an accepted draft is its final answer at once, and
otherwise the large model takes the turns while smolagents runs the tools. `Album` lends an agent
our own tools, and shows it the images that they give back.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from PIL import Image as PILImage

from speceyes.errors import ConfigError, ModelError
from speceyes.fallback import AgenticFallback
from speceyes.integrations.smolagents_album import Album
from speceyes.pipeline import SpecPipeline
from speceyes.strategies.turn_taking import OfferedTool, Round, Said, TurnTaking, blocking
from speceyes.types import Image, Observation, Query, ToolCall

try:
    import smolagents  # type: ignore[import-untyped, unused-ignore]
    from smolagents.models import (  # type: ignore[import-untyped, unused-ignore]
        ChatMessage,
        ChatMessageStreamDelta,
        ChatMessageToolCall,
        ChatMessageToolCallFunction,
        ChatMessageToolCallStreamDelta,
        MessageRole,
        TokenUsage,
    )
except ImportError as exc:
    raise ConfigError('smolagents is not installed: pip install "speceyes[smolagents]"') from exc

__all__ = ["Album", "PipelineModel", "PipelineTool", "agent_turns"]

_FINAL = "final_answer"
_STORED = re.compile(r"^Stored '[^']*' in memory\.$", re.M)


class PipelineTool(smolagents.Tool):  # type: ignore[misc, unused-ignore]
    """Answers a question about an image, by draft where that is safe.

    Args:
        pipe: The funnel.
        images: Images that the agent may ask about by their number, besides those that it holds
            itself. Agents that write JSON can't pass an image unless it is in their state.
    """

    name = "ask_about_image"
    description = (
        "Answers a question about an image. It looks closer by itself where it has to. "
        "Ask one thing at a time."
    )
    inputs = {  # noqa: RUF012 - smolagents reads it from the class
        "question": {"type": "string", "description": "The question, one sentence."},
        "image": {
            "type": "image",
            "description": "The image; leave it out for the first image of the task.",
            "nullable": True,
        },
        "image_number": {
            "type": "integer",
            "description": "Which image of the task, 0 being the first.",
            "nullable": True,
        },
    }
    output_type = "string"
    skip_forward_signature_validation = True

    def __init__(self, pipe: SpecPipeline, images: Sequence[Image] = ()) -> None:
        super().__init__()
        self.pipe, self.images = pipe, tuple(images)

    def forward(self, question: str, image: Any = None, image_number: int | None = None) -> str:
        """The answer; what goes wrong is raised, and told to the agent by smolagents."""
        shown = _plain(image)
        if shown is None:
            at = image_number or 0
            if not 0 <= at < len(self.images):
                raise ModelError(f"there is no image {at}; the task has {len(self.images)}")
            shown = self.images[at]
        result = blocking(lambda: self.pipe.ask(shown, question))
        if result.answer is None:
            raise ModelError(result.error or "there is no answer")
        return str(result.answer)


class PipelineModel(smolagents.Model):  # type: ignore[misc, unused-ignore]
    """A funnel as the model of a `ToolCallingAgent`.

    The task and its images are the query; what smolagents says around them (its system prompt,
    its list of rules) is not sent, for the models have their own, which the gate was made with.
    A `CodeAgent` writes programs, which a vision agent doesn't: give it a `PipelineTool`.

    Args:
        pipe: The funnel. One with a fallback alone is the large model as it is.
    """

    def __init__(self, pipe: SpecPipeline) -> None:
        super().__init__(model_id="speceyes")
        self._taking = TurnTaking(pipe)

    def generate(
        self,
        messages: list[Any],
        stop_sequences: list[str] | None = None,
        response_format: dict[str, str] | None = None,
        tools_to_call_from: list[Any] | None = None,
        **kwargs: Any,
    ) -> ChatMessage:
        """The next turn: calls of the agent's tools, or of its `final_answer`.

        Raises:
            ModelError: There is no answer, or no image to ask about.
        """
        return _message(self._said(messages, tools_to_call_from), bool(tools_to_call_from))

    def generate_stream(
        self,
        messages: list[Any],
        stop_sequences: list[str] | None = None,
        response_format: dict[str, str] | None = None,
        tools_to_call_from: list[Any] | None = None,
        **kwargs: Any,
    ) -> Iterable[ChatMessageStreamDelta]:
        """The same in one piece: a funnel knows its answer all at once."""
        message = self.generate(messages, stop_sequences, response_format, tools_to_call_from)
        yield ChatMessageStreamDelta(
            content=message.content if isinstance(message.content, str) else None,
            tool_calls=[
                ChatMessageToolCallStreamDelta(
                    index=at,
                    id=call.id,
                    type=call.type,
                    # Pieces of a stream are put together as text.
                    function=ChatMessageToolCallFunction(
                        arguments=json.dumps(call.function.arguments), name=call.function.name
                    ),
                )
                for at, call in enumerate(message.tool_calls or ())
            ]
            or None,
            token_usage=message.token_usage,
        )

    def _said(self, messages: list[Any], tools: list[Any] | None) -> Said:
        query, rounds = _read(messages)
        offered = [_offered(tool) for tool in tools or () if tool.name != _FINAL]
        return self._taking(query, rounds, offered)


def agent_turns(fallback: AgenticFallback) -> PipelineModel:
    """The agent of a funnel alone, as a model for smolagents."""
    return PipelineModel(SpecPipeline(fallback=fallback))


def _message(said: Said, with_tools: bool) -> ChatMessage:
    calls = None
    if with_tools:
        wanted = said.calls or (ToolCall(_FINAL, {"answer": said.answer}),)
        calls = [
            ChatMessageToolCall(
                ChatMessageToolCallFunction(arguments=dict(call.arguments), name=call.name),
                f"call_{uuid.uuid4().hex[:12]}",
                "function",
            )
            for call in wanted
        ]
    return ChatMessage(
        role=MessageRole.ASSISTANT,
        content=said.text,
        tool_calls=calls,
        raw=said.facts,
        token_usage=TokenUsage(input_tokens=said.prompt_tokens, output_tokens=said.tokens),
    )


def _offered(tool: Any) -> OfferedTool:
    required = [name for name, about in tool.inputs.items() if not about.get("nullable")]
    properties = {
        name: {key: value for key, value in about.items() if key != "nullable"}
        for name, about in tool.inputs.items()
    }
    schema = {"type": "object", "properties": properties, "required": required}
    return OfferedTool(tool.name, tool.description, schema)


def _read(messages: Sequence[Any]) -> tuple[Query, list[Round]]:
    """The last task with its images, and the rounds since.

    Raises:
        ModelError: There is no task, or no image with it.
    """
    task, images, rounds = "", list[Image](), list[Round]()
    for message in messages:
        role, text, shown = _parts(message)
        if role == "user" and text.strip():
            # An image that was shown for an earlier task is still there for the next one.
            task, rounds = text.strip().removeprefix("New task:\n"), []
            images = shown or images
        elif role == "assistant":
            rounds.append(Round(text))
        elif role in ("user", "tool-response") and rounds:
            # smolagents shows the task's images again with each step.
            shown = [image for image in shown if not any(image is known for known in images)]
            rounds[-1] = Round(rounds[-1].text, _seen(rounds[-1].observations, text, shown))
    if not task or not images:
        raise ModelError("the funnel answers questions about images: pass agent.run(task, images=)")
    return Query(task, tuple(images)), rounds


def _seen(before: tuple[Observation, ...], text: str, shown: Sequence[Image]) -> tuple[Any, ...]:
    """A step's observations: the images first, as smolagents sends them, then the text."""
    whole = before[0] if before else Observation()
    content: list[Any] = [*whole.content, *shown]
    text = text.strip()
    error = whole.error
    if "Error:\n" in text:
        error = text.partition("Error:\n")[2].strip()
    elif text:
        text = _STORED.sub("", text.removeprefix("Observation:")).strip()
        # Where there is an image, its number in the album says nothing more.
        if text and not any(isinstance(part, PILImage.Image) for part in content):
            content.append(text)
    return (Observation(tuple(content), error),)


def _parts(message: Any) -> tuple[str, str, list[Image]]:
    role = message["role"] if isinstance(message, Mapping) else message.role
    content = message["content"] if isinstance(message, Mapping) else message.content
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content or ()
    texts = [block["text"] for block in blocks if block.get("type") == "text"]
    images = [_plain(block["image"]) for block in blocks if block.get("type") == "image"]
    return str(getattr(role, "value", role)), "\n".join(texts), [i for i in images if i is not None]


def _plain(image: Any) -> Image | None:
    """Smolagents wraps images in a class of its own."""
    if image is None or (
        isinstance(image, PILImage.Image) and type(image).__module__ != ("smolagents.agent_types")
    ):
        return image
    raw = image.to_raw() if hasattr(image, "to_raw") else image
    if not isinstance(raw, PILImage.Image):
        raise ModelError(f"a {type(image).__name__} is not an image; pass a PIL image")
    return raw
