"""Addresses of engines, and what an engine's refusals say to people."""

from __future__ import annotations

import email.utils
import http.client
import json
import math
import re
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, final
from urllib.parse import SplitResult, urlsplit

from speceyes.errors import ConfigError, Fault

_MUCH = 400
"""Characters of an engine's own words that are passed on."""
_SECRET = 6
"""Characters from which on a header's value is looked for, and struck out."""


def checked_url(base_url: str) -> SplitResult:
    """The parts of an engine's address, its path without a slash at the end, "/v1" if it had none.

    Raises:
        ConfigError: Not http(s) with a host, or it holds a password, a query or odd characters.
    """
    try:
        if not isinstance(base_url, str) or re.search(
            r"[\s\\\x00-\x1f\x7f]|[^\x00-\x7f]", base_url
        ):
            raise ValueError
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
            raise ValueError
    except (ValueError, TypeError):
        raise ConfigError(
            f"base_url={unsecret(base_url)!r} is not the address of an engine: pass one such as "
            "'http://localhost:8000/v1'"
        ) from None
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ConfigError(
            f"base_url={unsecret(base_url)!r} holds a user name, a query or a fragment: pass the "
            "plain address, and what is secret by api_key= or headers="
        )
    path = parts.path.rstrip("/")
    for tail in ("/chat/completions", "/completions", "/models"):
        path = path.removesuffix(tail)
    return parts._replace(path=path or "/v1")


def unsecret(url: object) -> str:
    """An address without what may be secret in it."""
    return re.sub(r"//[^/]*@", "//***@", str(url)).partition("?")[0].partition("#")[0][:120]


@final
@dataclass(frozen=True, slots=True)
class Wording:
    """Tells what an engine said, without what is secret.

    Args:
        url: The engine's address.
        secrets: Texts that are struck out.
    """

    url: str
    secrets: tuple[str, ...] = field(repr=False)

    def clean(self, text: str) -> str:
        """Of an engine's own words, what may be shown."""
        for secret in self.secrets:
            if len(secret) >= _SECRET:
                text = text.replace(secret, "***")
        return text if len(text) <= _MUCH else text[:_MUCH] + "..."

    def told(self, status: int, headers: http.client.HTTPMessage, reply: bytes, body: Any) -> str:
        """What the engine refused, why, and what may help."""
        why = _message(reply)
        # An engine that quotes the request would bring a whole picture into the log.
        why = re.sub(r"data:image/[^\s\"']{40,}", "data:image/...", why)
        said = f"{self.url} answered {status}: {self.clean(why) or 'without a reason'}"
        model = body.get("model") if isinstance(body, dict) else None
        if 300 <= status < 400:
            where = self.clean(unsecret(headers.get("Location", "somewhere else")))
            return f"{self.url} sends on to {where}, which isn't followed: pass that base_url"
        advice = {
            401: "pass api_key=, or set SPECEYES_API_KEY",
            403: "this key may not use it: check api_key",
            404: f"check base_url, which usually ends in /v1, and model={model!r}",
            413: "send smaller images, or raise the engine's limit of a request's size",
            429: "lower max_concurrency",
        }.get(status)
        return f"{said} ({advice})" if advice else said


def refused_fault(status: int, said: str) -> Fault | None:
    """What of the request an engine refused for good; None where that is not the request's fault.

    Engines have no codes for it, only words: vLLM and SGLang answer 400 to a prompt above the
    context, to an image that they can't decode, and to anything else that they won't do.

    Example:
        >>> refused_fault(400, "This model's maximum context length is 4096 tokens.")
        'length'
        >>> refused_fault(503, "busy")
    """
    said = said.lower()
    if status not in (400, 413, 422) or "logprob" in said:
        return None
    if re.search(r"context length|context window|model.?len|(prompt|input).{0,40}too long", said):
        return "length"
    return "image" if re.search(r"\bimages?\b|\bpixels?\b", said) else "request"


def _message(reply: bytes) -> str:
    """The reason in an error reply, whichever way it is wrapped."""
    text = reply.decode("utf-8", "replace")
    with suppress(ValueError, RecursionError):
        found = json.loads(text)
        for key in ("error", "message", "detail"):
            if isinstance(found, dict) and key in found:
                found = found[key]
        text = found if isinstance(found, str) else json.dumps(found)
    return " ".join(text.split())


def retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header, which holds seconds or a date; None if it can't be read."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
