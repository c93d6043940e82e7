"""Length of a prompt, found before it is read: long ones are told without the model or its pixels.

Reading them to find out would hold the model up, and in an agent's run minutes are spent by then.
"""

from __future__ import annotations

import copy
import json
import re
import threading
from collections.abc import Iterable, Iterator
from typing import Any, Final, final

from speceyes.models.control_tokens import whole
from speceyes.models.hf.chat_prompt import Prompter
from speceyes.models.hf.pixels import QwenPixels
from speceyes.types import Conversation, Image

_SLICE: Final = 1 << 14  # characters that are tokenised together
_CUT: Final = 8  # tokens that a cut between two slices may add
_TEMPLATE: Final = 2048  # bytes of a template's own words, and of each message's marks
_MESSAGE: Final = 64
_HUGE: Final = 16  # characters for each token of the context, above which a prompt isn't written
_THOUGHT: Final = re.compile(r"<think>.*?</think>", re.DOTALL)


@final
class PromptLength:
    """Tells which conversations are above a model's context. Threads may share it.

    Args:
        prompter: Writes the model's prompts.
        longest: Tokens of the context; None where there is no bound.
    """

    def __init__(self, prompter: Prompter, longest: int | None) -> None:
        self._prompter, self._longest = prompter, longest
        self._lock = threading.Lock()
        self._tokenizer: Any = None

    def above(self, conversation: Conversation) -> int | None:
        """Tokens that a prompt has at least, where that is too many; None where it may fit.

        Args:
            conversation: What would be asked.
        """
        if self._longest is None:
            return None
        seen = sum(self._image_tokens(image) for image in conversation.images)
        if seen >= self._longest:
            return seen
        texts = [message.text for message in conversation.messages]
        texts += [part for part in conversation.begun if isinstance(part, str)]
        size = sum(len(text.encode("utf-8", "replace")) for text in texts) + _TEMPLATE
        size += _MESSAGE * len(texts) + sum(map(_written_size, conversation.tools))
        size += sum(
            _written_size(call.arguments) + len(call.name)
            for message in conversation.messages
            for call in message.calls
        )
        size += sum(len(message.reasoning or "") * 4 for message in conversation.messages)
        if seen + size < self._longest:  # no token is shorter than a byte
            return None
        if size > _HUGE * self._longest:
            found = seen + self._tokens(_slices(self._kept(conversation)))
            if found >= self._longest:
                return found
        try:
            prompt = self._prompter.prompt(0, conversation, ready=False)
        except Exception:  # noqa: BLE001 - the call itself says what is wrong with it
            return None
        marks = len(conversation.images) if seen else 0
        found = seen - marks + self._tokens(_slices([prompt.text]))
        return found if found >= self._longest else None

    def _image_tokens(self, image: Image) -> int:
        """Tokens of an image; 0 where that isn't known before the processor has seen it."""
        pixels = self._prompter.pixels
        if not isinstance(pixels, QwenPixels):
            return 0
        try:
            width, height = pixels.size(image)
        except Exception:  # noqa: BLE001 - the call itself says what is wrong with it
            return 0
        return (width // pixels.factor) * (height // pixels.factor)

    def _kept(self, conversation: Conversation) -> Iterator[str]:
        """Texts that every template writes; some leave out what an earlier turn thought."""
        for message in conversation.messages:
            if message.role == "assistant":
                yield _THOUGHT.sub("", message.text)
            else:
                yield message.text

    def _tokens(self, slices: Iterable[str]) -> int:
        """Tokens at least, counted until there are too many."""
        assert self._longest is not None
        found = 0
        with self._lock:
            if self._tokenizer is None:  # the model's own is in use, and padded now and then
                self._tokenizer = copy.deepcopy(self._prompter.processor.tokenizer)
                self._tokenizer.model_max_length = 1 << 40  # above it would be a warning
            for number, text in enumerate(slices):
                ids = self._tokenizer(whole(text), add_special_tokens=False)["input_ids"]
                found += max(0, len(ids) - (_CUT if number else 0))
                if found >= self._longest:
                    break
        return found


def _slices(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        for at in range(0, len(text), _SLICE):
            yield text[at : at + _SLICE]


def _written_size(value: Any) -> int:
    try:
        return len(json.dumps(value, ensure_ascii=False, default=str)) * 4
    except (TypeError, ValueError):
        return len(str(value)) * 4
