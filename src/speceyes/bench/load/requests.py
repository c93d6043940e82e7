"""Requests of a load test: questions, and among them a share of each kind of fault."""

from __future__ import annotations

import base64
import io
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, final

from PIL import Image

from speceyes.errors import ConfigError

PLAIN: Final = "plain"
GONE: Final = "client gone"
MALFORMED: Final = "malformed body"
HOSTILE: Final = "hostile image"
ENGINE_ERROR: Final = "engine error"
ENGINE_SLOW: Final = "slow engine"
FAULTS: Final = (GONE, MALFORMED, HOSTILE, ENGINE_ERROR, ENGINE_SLOW)
ENGINE_FAULTS: Final = (ENGINE_ERROR, ENGINE_SLOW)
"""Only a server that the load test starts itself knows these."""

MARKS: Final = {ENGINE_ERROR: "[[engine error]]", ENGINE_SLOW: "[[slow engine]]"}
"""In the question of a request whose engine is to misbehave."""

STREAMED: Final = 10
"""Every tenth request asks for a stream."""

BUSY: Final = frozenset({429, 504})
"""What any request may be told where more comes than can be done."""
EXPECTED: Final = {
    PLAIN: frozenset({200}),
    GONE: frozenset({0}),
    MALFORMED: frozenset({400}),
    HOSTILE: frozenset({400}),
    ENGINE_ERROR: frozenset({502}),
    ENGINE_SLOW: frozenset({200}),
}
"""The status of each kind on a server that isn't full; 0: nobody is there to be told."""


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """One request to be sent.

    Args:
        number: Its number, from 0.
        kind: `PLAIN`, or what goes wrong.
    """

    number: int
    kind: str = PLAIN

    @property
    def stream(self) -> bool:
        """True where it asks for server-sent events."""
        return self.number % STREAMED == 0 and self.kind not in (MALFORMED, HOSTILE)


def draw_requests(
    n: int, *, share: float, kinds: Sequence[str] = FAULTS, seed: int = 0
) -> list[LoadRequest]:
    """`n` requests in an order of chance, `share` of them for each kind of fault.

    Raises:
        ConfigError: n is below 1, or the faults would be more than half of all.

    Example:
        >>> sum(request.kind == "client gone" for request in draw_requests(200, share=0.01))
        2
    """
    if n < 1 or not 0 <= share * len(kinds) <= 0.5:
        raise ConfigError(
            f"{n} requests, a share of {share} for each of {len(kinds)} kinds of fault; at least "
            "one request is needed, and faults may be half of them at most"
        )
    names = [kind for kind in kinds for _ in range(max(1, round(n * share)) if share else 0)]
    names = (names + [PLAIN] * n)[:n]
    random.Random(seed).shuffle(names)
    return [LoadRequest(number, name) for number, name in enumerate(names)]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question and its image.

    Args:
        question: The question.
        url: The image, as a data URL.
    """

    question: str
    url: str


@final
@dataclass(slots=True)
class PromptSet:
    """The questions that are asked, over and over, and what their answers must be.

    Args:
        prompts: Questions with images.
        numbered: Whether a request's number is added to its question, and is what must come back;
            else the first answer to a prompt is what the others are held against.
        model: The name of the model that is asked.
    """

    prompts: Sequence[Prompt]
    numbered: bool
    model: str = "speceyes"
    first: dict[int, str] = field(default_factory=dict)

    def body(self, request: LoadRequest) -> bytes:
        """The request's body. It is made when it is sent, for ten thousand would fill memory."""
        prompt = self.prompts[request.number % len(self.prompts)]
        if request.kind == MALFORMED:
            return _malformed(self._body(request, prompt, prompt.url), request.number)
        url = _hostile(request.number) if request.kind == HOSTILE else prompt.url
        return self._body(request, prompt, url)

    def right(self, request: LoadRequest, answer: str) -> bool:
        """True where the answer is to this very question."""
        if self.numbered:
            return answer == str(request.number)
        return self.first.setdefault(request.number % len(self.prompts), answer) == answer

    def _body(self, request: LoadRequest, prompt: Prompt, url: str) -> bytes:
        question = f"{prompt.question} #{request.number}" if self.numbered else prompt.question
        if request.kind in MARKS:
            question = f"{question} {MARKS[request.kind]}"
        parts: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "text", "text": question},
        ]
        whole: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": parts}],
        }
        if request.stream:
            whole["stream"] = True
        return json.dumps(whole).encode()


def _url(data: bytes, kind: str = "PNG") -> str:
    return f"data:image/{kind.lower()};base64,{base64.b64encode(data).decode()}"


def _malformed(body: bytes, number: int) -> bytes:
    """Cut off, not JSON, not UTF-8, nested without end, or without its messages."""
    kinds = (
        body[: len(body) // 2],
        b"question=which+colour",
        b"\xff\xfe" + body,
        b"[" * 50_000,
        b'{"model": "speceyes"}',
    )
    return kinds[number % len(kinds)]


def _hostile(number: int) -> str:
    """No image, one cut off, one that claims to be huge, one of a single pixel, a path."""
    good = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(good, "PNG")
    png = good.getvalue()
    huge = bytearray(png)
    huge[16:24] = (60_000).to_bytes(4, "big") * 2  # width and height in the header
    one = io.BytesIO()
    Image.new("RGB", (1, 1)).save(one, "PNG")
    kinds = (
        "data:image/png;base64,AAAA",
        _url(png[: len(png) // 2]),
        _url(bytes(huge)),
        _url(one.getvalue()),
        "file:///etc/passwd",
    )
    return kinds[number % len(kinds)]
