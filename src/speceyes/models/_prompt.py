"""From conversations to what a Hugging Face model is called with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

from speceyes.errors import ConfigError, ModelError
from speceyes.models._pixels import Pixels
from speceyes.models._rgb import checked
from speceyes.values import Conversation, Image, Message


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation made ready for the processor; `index` is its place in the call."""

    index: int
    text: str
    images: tuple[Image, ...]


@final
@dataclass(frozen=True, slots=True)
class Prompter:
    """Renders chat templates and makes batches. The processor is used and never changed.

    Args:
        processor: A Hugging Face processor with image processor, tokenizer and chat template.
        pixels: How its images are made ready.

    Raises:
        ConfigError: The processor lacks one of its parts.
    """

    processor: Any
    pixels: Pixels

    def __post_init__(self) -> None:
        tokenizer = self.processor.tokenizer
        if not (getattr(self.processor, "chat_template", None) or tokenizer.chat_template):
            raise ConfigError("the processor has no chat template: set processor.chat_template")
        if tokenizer.pad_token_id is None:
            raise ConfigError("the tokenizer has no padding token: set its pad_token")

    def prompt(self, index: int, conversation: Conversation, *, ready: bool = True) -> Prompt:
        """The conversation as the chat template writes it, the assistant's turn begun.

        Args:
            index: Its place in the call.
            conversation: The conversation.
            ready: Make its images ready for the processor too.

        Raises:
            ModelError: Places for images and images differ in number.
            Exception: Whatever the template or an image raises; ends this row only.
        """
        text: str = self.processor.apply_chat_template(
            [_plain(message) for message in conversation.messages],
            tools=[dict(tool) for tool in conversation.tools] or None,
            add_generation_prompt=True,
            tokenize=False,
        )
        text += self._begun(conversation)
        images = tuple(
            self.pixels.ready(image) if ready else checked(image) for image in conversation.images
        )
        mark = getattr(self.processor, "image_token", None)
        # Counted over a batch, one row's surplus could swallow another row's image.
        if mark and text.count(mark) != len(images):
            raise ModelError(
                f"it has {text.count(mark)} places for images ({mark}) and {len(images)} images: "
                f"{mark} must not be written in a message's text, and the chat template must "
                "show every image"
            )
        return Prompt(index, text, images)

    def _begun(self, conversation: Conversation) -> str:
        """The prefill as text, with the template's own marks where its images stand.

        Raises:
            ModelError: It holds an image, and the template doesn't show images where they stand.
        """
        parts = conversation.begun
        if all(isinstance(part, str) for part in parts):
            return "".join(part for part in parts if isinstance(part, str))
        # How the template marks an image is seen between two words of a turn made for it.
        before, after = ({"type": "text", "text": word} for word in ("FORE", "AFT"))
        shown: str = self.processor.apply_chat_template(
            [{"role": "user", "content": [before, {"type": "image"}, after]}], tokenize=False
        )
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
        return inputs, [int(n) for n in inputs["attention_mask"].sum(dim=1)]


def _plain(message: Message) -> dict[str, Any]:
    """A message as chat templates read it. Images are only marked; none is handed over."""
    content = [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"}
        for part in message.content
    ]
    return {"role": message.role, "content": content}
