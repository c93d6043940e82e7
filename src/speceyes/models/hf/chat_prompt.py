"""From conversations to what a Hugging Face model is called with."""

from __future__ import annotations

import functools
import inspect
import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

from jinja2 import TemplateError

from speceyes.errors import ConfigError, ModelError, PromptError, describe
from speceyes.models._rgb import checked
from speceyes.models.control_tokens import (
    control_tokens_of,
    deeply,
    end_tokens_of,
    neutral,
    neutral_parts,
    own_words,
    whole,
)
from speceyes.models.hf.pixels import Pixels
from speceyes.say_once import warn_once
from speceyes.types import Conversation, Image, Message

logger = logging.getLogger(__name__)

_WITHOUT_CHAT = {
    # Trained on tasks in one line after the image, "answer en where is the cup?", not on chats.
    "PaliGemmaProcessor": (
        "{%- for m in messages %}{%- for p in m.content if p.type == 'image' %}{{- '<image>' }}"
        "{%- endfor %}{%- endfor %}{{- bos_token }}"
        "{%- for m in messages %}{%- if not loop.first %}{{- '\\n' }}{%- endif %}"
        "{%- for p in m.content if p.type == 'text' %}{{- p.text }}{%- endfor %}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '\\n' }}{%- endif %}"
    ),
}
"""How processors are prompted that come without a chat template, by class."""

_TAIL = 16
"""Characters at the end of what a template writes in which it may begin a reasoning block."""

_Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation made ready for the processor.

    Args:
        index: Its place in the call.
        text: As the chat template writes it.
        images: In order.
        begun: What the assistant's turn begins with, in the template or the prefill.
    """

    index: int
    text: str
    images: tuple[Image, ...]
    begun: str = ""


@final
@dataclass(frozen=True, slots=True)
class Prompter:
    """Renders chat templates and makes batches. The processor is used and never changed.

    What a template has no place for is moved, never lost: a system message that it refuses or
    leaves out goes to the beginning of the user's first turn; turns of one role in a row, where
    it wants them to alternate, become one; content in parts, where it wants a string, is joined,
    images marked by the processor's image token.

    Args:
        processor: A Hugging Face processor with image processor, tokenizer and chat template.
        pixels: How its images are made ready.
        template_kwargs: Arguments of the chat template besides messages and tools.

    Raises:
        ConfigError: The processor lacks one of its parts.
    """

    processor: Any
    pixels: Pixels
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        tokenizer = self.processor.tokenizer
        if self._template() is None:
            raise ConfigError(
                "the processor has no chat template: set processor.chat_template to the one of "
                "the checkpoint that was trained on chats"
            )
        if tokenizer.pad_token_id is None:
            raise ConfigError(
                "the tokenizer has no padding token: set its pad_token, to its eos_token for "
                "instance; HFModel.from_pretrained does that by itself"
            )

    def prompt(self, index: int, conversation: Conversation, *, ready: bool = True) -> Prompt:
        """The conversation as the chat template writes it, the assistant's turn begun.

        Args:
            index: Its place in the call.
            conversation: The conversation.
            ready: Make its images ready for the processor too.

        Raises:
            ModelError: Places for images and images differ in number, or the template can't
                write this conversation.
            Exception: Whatever the template or an image raises; ends this row only.
        """
        self._check_words(conversation)
        text = self._written(conversation)
        if conversation.thinking is False:
            text = _closed(text)
        prefill = self._begun(conversation)
        if whole(text + prefill) != text + prefill:
            raise PromptError(
                "a text holds half a surrogate pair, which no tokenizer reads: decode it with "
                "errors='replace'",
                "text",
            )
        # Templates of some reasoning models begin the block themselves.
        begun = text[-_TAIL:] + prefill
        text += prefill
        images = tuple(
            self.pixels.ready(image) if ready else checked(image) for image in conversation.images
        )
        mark = getattr(self.processor, "image_token", None)
        # Counted over a batch, one row's surplus could swallow another row's image.
        if mark and text.count(mark) != len(images):
            raise PromptError(
                f"it has {text.count(mark)} places for images ({mark}) and {len(images)} images: "
                f"{mark} must not be written in a message's text, and the chat template must "
                "show every image",
                "text",
            )
        return Prompt(index, text, images, begun)

    def _template(self) -> Any:
        """The processor's template, or its tokenizer's, or what stands in for one."""
        own = getattr(self.processor, "chat_template", None)
        if own is None:
            own = self.processor.tokenizer.chat_template
            if isinstance(own, dict):
                own = own.get("default")
        return own or _WITHOUT_CHAT.get(type(self.processor).__name__)

    def _rendered(self, rows: Sequence[_Row], **options: Any) -> str:
        if getattr(self.processor, "chat_template", None) is None:
            start = self.processor.tokenizer.bos_token or ""
            options |= {"chat_template": self._template(), "bos_token": start}
        apply = self.processor.apply_chat_template
        # What neither reads would be taken for the processor's own, with a warning at each call.
        taken = _parameters(getattr(apply, "__func__", apply))
        read = {
            name: value for name, value in options.items() if name in taken or self._reads(name)
        }
        if unread := sorted(self.template_kwargs.keys() - read.keys()):
            warn_once(
                logger,
                self.processor,
                f"the chat template reads no {', '.join(unread)} of template_kwargs",
            )
        text: str = apply(list(rows), tokenize=False, **read)
        return text

    def _reads(self, variable: str) -> bool:
        """True where the template's source names a variable."""
        return _names_variable(str(self._template()), variable)

    def _written(self, conversation: Conversation) -> str:
        """The conversation, in the first of the forms that the template takes as a whole.

        Raises:
            ModelError: It takes none of them, or has no place for the tools.
        """
        options: dict[str, Any] = {"add_generation_prompt": True, **self.template_kwargs}
        if conversation.thinking is not None:
            # Families call it one or the other.
            for name in ("enable_thinking", "thinking"):
                if self._reads(name):
                    options.setdefault(name, conversation.thinking)
        if conversation.tools:
            tokens = control_tokens_of(self.processor.tokenizer)
            told = (deeply(tool, lambda text: neutral(text, tokens)) for tool in conversation.tools)
            options["tools"] = [dict(tool) for tool in told]
        refused: list[str] = []
        for rows in self._forms(conversation):
            try:
                text = self._rendered(rows, **options)
            except (TemplateError, TypeError) as exc:
                refused.append(describe(exc))
                continue
            lost = _lost(rows, text)
            if lost:
                refused.append(lost)
                continue
            if refused:
                logger.debug("written otherwise, since the chat template said: %s", refused[0])
            # A tool's name such as "look" may stand in other words too.
            listed = bool(conversation.tools) and self._reads("tools")
            untold = [n for n in _names(conversation.tools) if not listed or n not in text]
            if untold:
                raise PromptError(
                    f"the chat template doesn't write tools ({', '.join(untold)} left out): use a "
                    'dialect that describes them in the text, such as dialect="deepeyes"',
                    "tools",
                )
            return text
        raise ModelError(
            f"the chat template can't write this conversation ({refused[0]}): set "
            "processor.chat_template to one that takes user and assistant turns with images"
        )

    def _forms(self, conversation: Conversation) -> Iterable[Sequence[_Row]]:
        """The conversation as it is, then with what templates may not take moved or joined."""
        tokens = control_tokens_of(self.processor.tokenizer)
        ends = end_tokens_of(self.processor.tokenizer)
        written = [_plain(message, tokens, ends) for message in conversation.messages]
        plain = [_for_users(row) for row in written]
        if plain != written:
            yield written
        merged = _merged(plain)
        yield plain
        if merged != plain:
            yield merged
        mark = getattr(self.processor, "image_token", None)
        if mark or not conversation.images:
            yield [_joined(row, mark or "") for row in plain]
            if merged != plain:
                yield [_joined(row, mark or "") for row in merged]

    def _check_words(self, conversation: Conversation) -> None:
        """Words that stand for images and videos must not come from a message's text.

        Raises:
            ModelError: One does.
        """
        names = ("image_token", "video_token", "audio_token")
        sources = (self.processor, self.processor.tokenizer)
        marks = {getattr(source, name, None) for source in sources for name in names}
        said = [message.text for message in conversation.messages]
        said += [part for part in conversation.begun if isinstance(part, str)]
        for mark in sorted(m for m in marks if isinstance(m, str) and m):
            if any(mark in text for text in said):
                raise PromptError(
                    f"{mark} must not be written in a message's text: it stands for an image, a "
                    "video or a sound; write it otherwise, or leave it out",
                    "text",
                )

    def _begun(self, conversation: Conversation) -> str:
        """The prefill as text, with the template's own marks where its images stand.

        Raises:
            ModelError: It holds an image, and the template doesn't show images where they stand.
        """
        parts = own_words(conversation.begun, end_tokens_of(self.processor.tokenizer))
        if all(isinstance(part, str) for part in parts):
            return "".join(part for part in parts if isinstance(part, str))
        # How the template marks an image is seen between two words of a turn made for it.
        before, after = ({"type": "text", "text": word} for word in ("FORE", "AFT"))
        turn = {"role": "user", "content": [before, {"type": "image"}, after]}
        try:
            shown = self._rendered([turn])
        except (TemplateError, TypeError):  # it takes strings alone
            shown = ""
        mark = shown.partition("FORE")[2].partition("AFT")[0]
        if not mark.strip():
            raise ModelError(
                "the chat template doesn't show images between texts, so the assistant's turn "
                "can't be continued after an image: use a dialect that shows them in user turns"
            )
        return "".join(part if isinstance(part, str) else mark for part in parts)

    def length(self, conversation: Conversation) -> float:
        """About how long the prompt will be, in tokens; good enough to sort by."""
        text = sum(len(message.text) for message in conversation.messages)
        text += sum(len(part) for part in conversation.begun if isinstance(part, str))
        pixels = 0
        for image in conversation.images:
            try:
                width, height = self.pixels.size(image)
            except Exception:  # noqa: BLE001  (said when its prompt is made)
                continue
            pixels += width * height
        return text / 4 + pixels / 784

    def batch(self, prompts: Sequence[Prompt]) -> tuple[Any, list[int]]:
        """The processor's tensors, left-padded, and each row's tokens, image tokens included."""
        images = [list(prompt.images) for prompt in prompts]
        options: dict[str, Any] = {}
        if any(images):
            options = {"images": images, **self.pixels.options}
        start = self.processor.tokenizer.bos_token
        if start and prompts[0].text.startswith(start):
            options["add_special_tokens"] = False  # the template has written it already
        inputs = self.processor(
            text=[prompt.text for prompt in prompts],
            padding=True,
            padding_side="left",
            return_tensors="pt",
            **options,
        )
        inputs.pop("labels", None)  # for training; PaliGemma's processor always makes them
        return inputs, [int(n) for n in inputs["attention_mask"].sum(dim=1)]


@functools.lru_cache(maxsize=64)
def _parameters(function: Any) -> frozenset[str]:
    """Names of a function's parameters."""
    return frozenset(inspect.signature(function).parameters)


@functools.lru_cache(maxsize=256)
def _names_variable(template: str, variable: str) -> bool:
    return re.search(rf"\b{re.escape(variable)}\b", template) is not None


_BLOCKS = {
    "<think>": "\n\n</think>\n\n",
    "<thinking>": "\n\n</thinking>\n\n",
    "<seed:think>": "\n\n</seed:think>\n\n",
    "\u25c1think\u25b7": "\u25c1/think\u25b7",
    "[THINK]": "[/THINK]",
    "<|channel>thought": "\n<channel|>",
}
"""How families open a reasoning block, and what closes an empty one."""


def _closed(text: str) -> str:
    """A prompt without the reasoning block that its template opened at the end."""
    opened = text.rstrip()
    for opening, closing in _BLOCKS.items():
        if opened.endswith(opening):
            return opened + closing
    return text


def _plain(message: Message, tokens: Sequence[str] = (), ends: Sequence[str] = ()) -> _Row:
    """A message as chat templates read it. Images are only marked; none is handed over.

    Control tokens are broken up, in the assistant's own words those that would end its turn.
    """
    own = message.role == "assistant"
    said = own_words(message.content, ends) if own else neutral_parts(message.content, tokens)
    content = [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"}
        for part in said
    ]
    row: _Row = {"role": message.role, "content": content}
    if message.call_id:
        row["tool_call_id"] = message.call_id
    if message.reasoning:
        [row["reasoning_content"]] = own_words([message.reasoning], ends)
    if message.calls:
        row["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {
                    "name": call.name,
                    "arguments": deeply(call.arguments, lambda text: own_words([text], ends)[0]),
                },
            }
            for call in message.calls
        ]
    return row


def _for_users(row: _Row) -> _Row:
    """A row in the words of templates that know neither tool turns nor fields for calls."""
    content = list(row["content"])
    if row["role"] == "tool":
        before, after = ("<tool_response>\n", "\n</tool_response>")
        content = [{"type": "text", "text": before}, *content, {"type": "text", "text": after}]
        return {"role": "user", "content": content}
    if "tool_calls" in row or "reasoning_content" in row:
        if thought := row.get("reasoning_content"):
            content = [{"type": "text", "text": f"<think>{thought}</think>"}, *content]
        for call in row.get("tool_calls", ()):
            said = json.dumps(call["function"], ensure_ascii=False)
            content.append({"type": "text", "text": f"\n<tool_call>\n{said}\n</tool_call>"})
    return {"role": row["role"], "content": content}


def _merged(rows: Sequence[_Row]) -> list[_Row]:
    """The system's words at the beginning of the user's first turn, and turns of one role in a
    row made one.
    """
    out: list[_Row] = []
    for row in rows:
        role = "user" if row["role"] == "system" else row["role"]
        if out and out[-1]["role"] == role:
            between = [{"type": "text", "text": "\n\n"}]
            out[-1] = {"role": role, "content": [*out[-1]["content"], *between, *row["content"]]}
        else:
            out.append({"role": role, "content": row["content"]})
    return out


def _joined(row: _Row, mark: str) -> _Row:
    """The turn with its content as a string."""
    parts = (part["text"] if part["type"] == "text" else mark for part in row["content"])
    return {"role": row["role"], "content": "".join(parts)}


def _lost(rows: Sequence[_Row], text: str) -> str:
    """Parts that a template has left out, or wrote as Python would; "" where all is well."""
    if "{'type':" in text and not any("{'type':" in str(row["content"]) for row in _spoken(rows)):
        return "content in parts is written as Python's repr"
    for row in rows:
        if row["role"] == "system" and isinstance(row["content"], list):
            said = [part["text"].strip() for part in row["content"] if part["type"] == "text"]
            if any(words not in text for words in said):
                return "the system message is left out"
    return ""


def _spoken(rows: Sequence[_Row]) -> list[_Row]:
    """The turns with their texts alone."""
    return [_joined(row, "") if isinstance(row["content"], list) else row for row in rows]


def _names(tools: Iterable[Any]) -> list[str]:
    """The tools' names, of those schemas that have one."""
    inner = (tool.get("function", tool) for tool in tools)
    return [str(one["name"]) for one in inner if "name" in one]
