"""From conversations to the requests that an engine understands."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal, final

from speceyes.errors import ModelError
from speceyes.fingerprint import fingerprint
from speceyes.models._bounded import BoundedCache
from speceyes.models._rgb import checked, to_rgb
from speceyes.types import Conversation, Image, Sampling


@dataclass(frozen=True, slots=True)
class Habits:
    """What an engine understands beyond the common protocol.

    Args:
        token_ids: `return_tokens_as_token_ids`, so that tokens that read the same are told apart.
        continues: `continue_final_message`, for an assistant's turn that has begun.
        neutral: Its own sampling options, set so that a checkpoint's defaults change nothing.
        tool_choice: What makes it show the tools to the model and leave its answer as text.
        ends_listed: Whether the end-of-sequence token is among the log-probabilities; None where
            that has to be seen from the text.
        tells_count: Log-probabilities are asked for where only tokens are to be counted.
    """

    token_ids: bool = False
    continues: bool = False
    neutral: Mapping[str, Any] | None = None
    tool_choice: str = "auto"
    ends_listed: bool | None = None
    tells_count: bool = False


# Checkpoints bring a generation_config.json, which both engines follow unless told otherwise;
# Qwen2.5-VL's has a repetition penalty, which changes even greedy answers.
_NEUTRAL = {"top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}

HABITS: Mapping[str, Habits] = {
    "vllm": Habits(
        token_ids=True,
        continues=True,
        neutral=_NEUTRAL,
        tool_choice="none",  # "auto" needs a server flag, and takes calls out of the text
        ends_listed=True,
        tells_count=True,
    ),
    "sglang": Habits(continues=True, neutral=_NEUTRAL, tells_count=True),
    "openai": Habits(),
}


@final
class ImageLinks:
    """Images as data URLs, each encoded once.

    Args:
        limit: Bytes of URLs that are kept, the least recently used given up first.
        form: "png", which loses nothing, or "jpeg", which is smaller for photos.
        quality: Of JPEG, 1 to 95; colours are not subsampled.
    """

    def __init__(self, limit: int, form: Literal["png", "jpeg"], quality: int) -> None:
        self._form, self._quality = form, quality
        self._kept = BoundedCache[bytes, str](limit, len)
        self._making: dict[bytes, Future[str]] = {}
        self._lock = threading.Lock()
        self.encoded = 0

    def __call__(self, image: Image) -> str:
        """The image in RGB as a data URL, what is transparent on white.

        Raises:
            InputError: Not a PIL image. Paths and URLs are never opened here.
        """
        key = fingerprint(checked(image))
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                return found
            made = self._making.get(key)
            mine = made is None
            if made is None:
                made = self._making[key] = Future()
        if mine:
            try:
                link = self._encode(image)
                self._kept.put(key, link)
                made.set_result(link)
            except BaseException as exc:
                made.set_exception(exc)
                raise
            finally:
                with self._lock:
                    del self._making[key]
        return made.result()

    def clear(self) -> None:
        """Gives up what is kept."""
        self._kept.clear()

    def _encode(self, image: Image) -> str:
        with self._lock:
            self.encoded += 1
        buffer = io.BytesIO()
        rgb = to_rgb(image)
        if self._form == "png":
            rgb.save(buffer, "PNG", compress_level=1, icc_profile=None)
        else:
            rgb.save(buffer, "JPEG", quality=self._quality, subsampling=0, icc_profile=None)
        return f"data:image/{self._form};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def content(parts: Sequence[str | Image], links: ImageLinks) -> str | list[dict[str, Any]]:
    """A message's content: text alone as text, else parts in order, joined where text meets
    text, since some engines put a line between two parts of text.
    """
    said: list[dict[str, Any]] = []
    for part in parts:
        if not isinstance(part, str):
            said.append({"type": "image_url", "image_url": {"url": links(part)}})
        elif said and said[-1]["type"] == "text":
            said[-1]["text"] += part
        else:
            said.append({"type": "text", "text": part})
    if all(part["type"] == "text" for part in said):
        return "".join(part["text"] for part in said)
    return said


def body_of(
    conversation: Conversation,
    sampling: Sampling,
    *,
    model: str,
    habits: Habits,
    links: ImageLinks,
    seed: int | None,
    tokens_field: str,
    top_logprobs: int | None,
    extra: Mapping[str, Any],
) -> dict[str, Any]:
    """A request for a chat completion.

    Args:
        conversation: What is asked.
        sampling: How it is answered.
        model: The name it is served under.
        habits: What the engine understands.
        links: Makes data URLs of images.
        seed: Of this row's draws.
        tokens_field: What the engine calls the limit of new tokens.
        top_logprobs: How many to ask for a token; None for no log-probabilities.
        extra: Fields that are added, or, where None, taken out.

    Raises:
        ModelError: The assistant's turn has begun, and the engine can't continue one.
        InputError: Something else than a PIL image stands where an image should.
    """
    messages = [
        {"role": message.role, "content": content(message.content, links)}
        for message in conversation.messages
    ]
    body: dict[str, Any] = {"model": model, "messages": messages}
    if conversation.begun:
        if not habits.continues:
            raise ModelError(
                "the assistant's turn has begun, and this engine isn't known to continue one: "
                "use vLLM or SGLang (engine='vllm' or 'sglang' if it is one of them), or a "
                "dialect that doesn't write into the assistant's turn"
            )
        messages.append({"role": "assistant", "content": content(conversation.begun, links)})
        body |= {"add_generation_prompt": False, "continue_final_message": True}
    if conversation.tools:
        body["tools"] = [
            dict(tool) if "function" in tool else {"type": "function", "function": dict(tool)}
            for tool in conversation.tools
        ]
        body["tool_choice"] = habits.tool_choice
    body |= {"temperature": sampling.temperature, tokens_field: sampling.max_tokens}
    body |= habits.neutral or {}
    if sampling.temperature > 0:
        body["top_p"] = 1.0
        if seed is not None:
            body["seed"] = seed
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if top_logprobs is not None:
        body["logprobs"] = True
        if top_logprobs:
            body["top_logprobs"] = top_logprobs
        # The judge reads words, and ids have none.
        if habits.token_ids and not sampling.first_token:
            body["return_tokens_as_token_ids"] = True
    body |= extra
    return {key: value for key, value in body.items() if value is not None}
