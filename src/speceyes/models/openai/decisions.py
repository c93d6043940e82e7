"""Decision endpoints as a judge: a yes or no with its probability, without a word being written.

Two forms are public: `/v1/decisions` (OpenAI's, which SGLang and gateways take too) and
`/v1/systemone` (TypeSafe's, which vLLM and SGLang serve). Which one is there, and whether it takes
images, is found out by asking it about a dot.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TypeAlias

from PIL import Image as PILImage

from speceyes.errors import ModelError
from speceyes.models.openai.client import EngineClient
from speceyes.models.openai.requests import plain_content
from speceyes.types import Completion, Conversation, Image, Message

Endpoint: TypeAlias = Literal["/decisions", "/systemone"]
ENDPOINTS: Final[tuple[Endpoint, ...]] = ("/decisions", "/systemone")
_NAME: Final = "yes"
_ASKED: Final = "Is the answer to what the conversation asks last yes?"


def decision_body(
    endpoint: Endpoint, model: str, conversation: Conversation, url: Callable[[Image], str]
) -> dict[str, Any]:
    """Body of a request: the conversation as evidence, and whether its answer is yes.

    Args:
        endpoint: Which form.
        model: The name it is served under.
        conversation: Ends with a question that yes or no answers.
        url: Makes data URLs of images.
    """
    if endpoint == "/systemone":
        said = "\n\n".join(
            f"{message.role}: {text}"
            for message in conversation.messages
            if (text := "".join(p for p in plain_content(message) if isinstance(p, str)))
        )
        return {
            "model": model,
            "state": said,
            "images": [url(image) for image in conversation.images],
            "questions": {_NAME: {"type": "noul", "instructions": _ASKED}},
        }
    return {
        "model": model,
        "input": [_item(message, url) for message in conversation.messages],
        "questions": [{"type": "predicate", "name": _NAME, "instructions": _ASKED}],
    }


def read_decision(reply: Any) -> Completion:
    """The completion that a reply stands for: one token, yes or no.

    Raises:
        ModelError: It holds no probability.
    """
    try:
        answers = reply["answers"]
        one = answers[_NAME] if isinstance(answers, Mapping) else answers[0]
        chance = float(one["noul"] if "noul" in one else one["probability"])
        usage = reply.get("usage") or {}
        read = usage.get("input_tokens", 0)
    except (LookupError, TypeError, ValueError, AttributeError) as exc:
        raise ModelError(
            f"the engine's decision can't be read ({type(exc).__name__}: {exc}); pass "
            "decisions='off' to go by the first token's probabilities"
        ) from None
    if not (math.isfinite(chance) and 0 <= chance <= 1):
        raise ModelError(f"the engine's decision has a probability of {chance}; from 0 to 1")
    return Completion(
        "yes" if chance >= 0.5 else "no",
        first_token={"yes": chance, "no": 1 - chance},
        prompt_tokens=read if isinstance(read, int) and read >= 0 else 0,
    )


def find(client: EngineClient, model: str, url: Callable[[Image], str]) -> Endpoint | None:
    """The endpoint that answers about an image; None where there is none."""
    dot = PILImage.new("RGB", (56, 56), (200, 30, 30))
    asked = Conversation((Message("user", (dot, "Is this red? Answer yes or no.")),))
    for endpoint in ENDPOINTS:

        def body(endpoint: Endpoint = endpoint) -> Mapping[str, Any]:
            return decision_body(endpoint, model, asked, url)

        try:
            read_decision(client.submit(client.call(endpoint, body)).result())
        except ModelError:
            continue
        return endpoint
    return None


def _item(message: Message, url: Callable[[Image], str]) -> dict[str, Any]:
    said = "output_text" if message.role == "assistant" else "input_text"
    parts: list[dict[str, Any]] = [
        {"type": said, "text": part}
        if isinstance(part, str)
        else {"type": "input_image", "image_url": url(part)}
        for part in plain_content(message)
    ]
    return {"type": "message", "role": message.role, "content": parts}
