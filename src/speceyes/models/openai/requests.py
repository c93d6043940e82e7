"""Bodies of chat completion requests, and the capabilities of engines that they depend on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from speceyes.errors import ModelError
from speceyes.models.control_tokens import deeply, neutral, neutral_parts, own_words
from speceyes.types import Conversation, Image, Message, Sampling, ToolCall


@dataclass(frozen=True, slots=True)
class EngineCapabilities:
    """Features of an engine beyond the common protocol.

    Args:
        token_ids: `return_tokens_as_token_ids`, so that tokens that read the same are told apart.
        continues_turns: `continue_final_message`, for an assistant's turn that has begun.
        own_sampling: Its own sampling fields (`top_k`, `min_p`, `repetition_penalty`) are always
            sent. Checkpoints bring a generation_config.json, which vLLM and SGLang follow unless
            told otherwise; Qwen2.5-VL's has a repetition penalty, which changes greedy answers.
        template_kwargs: `chat_template_kwargs`, arguments of the chat template.
        tool_choice: What makes it show the tools to the model and leave its answer as text.
        lists_end: Whether the end-of-sequence token is among the log-probabilities; None where
            that has to be seen from the text.
        counts_by_logprobs: Log-probabilities are asked for where only tokens are to be counted.
        prompt_logprobs: `prompt_logprobs`, those of the tokens of a prompt.
        names_images: `uuid` beside an image, which then goes once.
    """

    token_ids: bool = False
    continues_turns: bool = False
    own_sampling: bool = False
    template_kwargs: bool = False
    tool_choice: str = "auto"
    lists_end: bool | None = None
    counts_by_logprobs: bool = False
    prompt_logprobs: bool = False
    names_images: bool = False


CAPABILITIES: Mapping[str, EngineCapabilities] = {
    "vllm": EngineCapabilities(
        token_ids=True,
        continues_turns=True,
        own_sampling=True,
        template_kwargs=True,
        tool_choice="none",  # "auto" needs a server flag, and takes calls out of the text
        lists_end=True,
        counts_by_logprobs=True,
        prompt_logprobs=True,
        names_images=True,
    ),
    "sglang": EngineCapabilities(
        continues_turns=True, own_sampling=True, template_kwargs=True, counts_by_logprobs=True
    ),
    "openai": EngineCapabilities(),
}


def request_body(
    conversation: Conversation,
    sampling: Sampling,
    *,
    model: str,
    capabilities: EngineCapabilities,
    image_part: Callable[[Image], dict[str, Any]],
    seed: int | None,
    tokens_field: str,
    top_logprobs: int | None,
    template_kwargs: Mapping[str, Any],
    extra: Mapping[str, Any],
) -> dict[str, Any]:
    """The body of a request for a chat completion.

    Args:
        conversation: What is asked.
        sampling: How it is answered.
        model: The name it is served under.
        capabilities: What the engine understands.
        image_part: Makes the part of a message that shows an image.
        seed: Of this row's draws.
        tokens_field: The engine's name for the limit of new tokens.
        top_logprobs: How many to ask for a token; None for no log-probabilities.
        template_kwargs: Arguments of the chat template.
        extra: Fields that are added, or, where None, taken out.

    Raises:
        ModelError: The assistant's turn has begun, and the engine can't continue one.
        InputError: Something else than a PIL image stands where an image should.
    """
    messages = [_message(message, image_part) for message in conversation.messages]
    body: dict[str, Any] = {"model": model, "messages": messages}
    if conversation.begun:
        if not capabilities.continues_turns:
            raise ModelError(
                "the assistant's turn has begun, and this engine isn't known to continue one: "
                "use vLLM or SGLang (engine='vllm' or 'sglang' if it is one of them), or a "
                "dialect that doesn't write into the assistant's turn"
            )
        begun = Message("assistant", conversation.begun)
        messages.append(_message(begun, image_part))
        body |= {"add_generation_prompt": False, "continue_final_message": True}
    if conversation.tools:
        told = [deeply(tool, neutral) for tool in conversation.tools]
        body["tools"] = [
            tool if "function" in tool else {"type": "function", "function": tool} for tool in told
        ]
        body["tool_choice"] = capabilities.tool_choice
    body |= {"temperature": sampling.temperature, tokens_field: sampling.max_tokens}
    body |= _sampling_fields(sampling, capabilities)
    if sampling.temperature > 0 and seed is not None:
        body["seed"] = seed
    # An engine would stop at these inside a reasoning block too; they are cut off here then.
    if sampling.stop and not sampling.stop_after:
        body["stop"] = list(sampling.stop)
    if top_logprobs is not None:
        body["logprobs"] = True
        if top_logprobs:
            body["top_logprobs"] = top_logprobs
        # Ids have no text, which the judge reads, and whoever asks for the texts of tokens.
        if capabilities.token_ids and not (sampling.first_token or sampling.token_texts):
            body["return_tokens_as_token_ids"] = True
    arguments = dict(template_kwargs)
    if conversation.thinking is not None and (capabilities.template_kwargs or template_kwargs):
        # Families call it one or the other; templates ignore what they don't read.
        arguments |= dict.fromkeys(("enable_thinking", "thinking"), conversation.thinking)
    if arguments:
        body["chat_template_kwargs"] = arguments
    body |= extra
    return {key: value for key, value in body.items() if value is not None}


def _sampling_fields(sampling: Sampling, capabilities: EngineCapabilities) -> dict[str, Any]:
    drawn = sampling.temperature > 0
    top_p = sampling.top_p if drawn else 1.0
    top_k = (sampling.sample_top_k if drawn else 0) or -1
    fields: dict[str, Any] = {}
    if capabilities.own_sampling:
        fields = {
            "top_p": top_p,
            "top_k": top_k,
            "min_p": 0.0,
            "repetition_penalty": sampling.repetition_penalty,  # None leaves the checkpoint's own
        }
    else:  # what was asked for is sent all the same: an engine that doesn't know it refuses
        if drawn:
            fields["top_p"] = top_p
        if top_k > 0:
            fields["top_k"] = top_k
        if sampling.repetition_penalty not in (None, 1.0):
            fields["repetition_penalty"] = sampling.repetition_penalty
    if sampling.presence_penalty or capabilities.own_sampling:
        fields["presence_penalty"] = sampling.presence_penalty
    return fields


def plain_content(message: Message) -> tuple[str | Image, ...]:
    """Content of a message, control tokens broken up: in the assistant's own words those that would
    end its turn.
    """
    if message.role == "assistant":
        return own_words(message.content)
    return neutral_parts(message.content)


def _message(message: Message, image_part: Callable[[Image], dict[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {
        "role": message.role,
        "content": _content(plain_content(message), image_part),
    }
    if message.reasoning:
        [made["reasoning_content"]] = own_words([message.reasoning])
    if message.calls:
        made["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": _arguments(call)},
            }
            for call in message.calls
        ]
    if message.call_id:
        made["tool_call_id"] = message.call_id
    return made


def _arguments(call: ToolCall) -> str:
    return json.dumps(deeply(call.arguments, lambda text: own_words([text])[0]))


def _content(
    parts: Sequence[str | Image], image_part: Callable[[Image], dict[str, Any]]
) -> str | list[dict[str, Any]]:
    """Text alone as text, else parts in order, joined where text meets text, since some engines
    put a line between two parts of text.
    """
    content: list[dict[str, Any]] = []
    for part in parts:
        if not isinstance(part, str):
            content.append(image_part(part))
        elif content and content[-1]["type"] == "text":
            content[-1]["text"] += part
        else:
            content.append({"type": "text", "text": part})
    if all(part["type"] == "text" for part in content):
        return "".join(part["text"] for part in content)
    return content
