"""Addresses of engines, and readable messages for what engines refuse."""

from __future__ import annotations

import email.utils
import json
import math
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, final
from urllib.parse import SplitResult, urlsplit

from speceyes.errors import ConfigError, Fault, ModelError

_QUOTED = 400
"""Characters of an engine's own words that are passed on."""
_READ = 1 << 16
"""Bytes of an error that are looked at."""
_SECRET = 6
"""Characters from which on a header's value is looked for, and struck out."""


class EngineRefusal(ModelError):
    """The engine answered, but with an error.

    Args:
        message: For people.
        status: The HTTP status, or the code of an error object that came with status 200.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class LogprobsError(ModelError):
    """The engine returns no log-probabilities, or too few: no request like this can succeed."""


def checked_base_url(base_url: str) -> SplitResult:
    """Parts of an engine's address, without a slash at the path's end; "/v1" where it has no path.

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
            f"base_url={without_secrets(base_url)!r} is not the address of an engine: pass one "
            "such as 'http://localhost:8000/v1'"
        ) from None
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ConfigError(
            f"base_url={without_secrets(base_url)!r} holds a user name, a query or a fragment: "
            "pass the plain address, and what is secret by api_key= or headers="
        )
    path = parts.path.rstrip("/")
    for tail in ("/chat/completions", "/completions", "/models"):
        path = path.removesuffix(tail)
    return parts._replace(path=path or "/v1")


def without_secrets(url: object) -> str:
    """An address without user name, query and fragment."""
    return re.sub(r"//[^/]*@", "//***@", str(url)).partition("?")[0].partition("#")[0][:120]


@final
@dataclass(frozen=True, slots=True)
class ErrorMessages:
    """Messages about one engine, free of secrets.

    Args:
        url: The engine's address.
        secrets: Texts that are struck out.
    """

    url: str
    secrets: tuple[str, ...] = field(repr=False)

    def redact(self, text: str) -> str:
        """Text of the engine's with secrets struck out, cut to 400 characters, of which none moves
        a terminal's cursor.
        """
        text = text[:_READ]
        # An engine that quotes the request would bring a whole picture into the log.
        text = re.sub(r"data:image/[^\s\"']{40,}", "data:image/...", text)
        for secret in self.secrets:
            if len(secret) >= _SECRET:
                text = text.replace(secret, "***")
        cut = "" if len(text) <= _QUOTED else "..."
        return "".join(one if one.isprintable() else "\ufffd" for one in text[:_QUOTED]) + cut

    def refusal(
        self, status: int, headers: Mapping[str, str], reply: bytes, model: str | None
    ) -> EngineRefusal:
        """The error for a reply with a status other than 200: what was refused, why, what helps.

        Args:
            status: HTTP status.
            headers: The reply's, with lower-case names.
            reply: Its body.
            model: The model that was asked, if one was.
        """
        if 300 <= status < 400:
            target = self.redact(without_secrets(headers.get("location", "somewhere else")))
            return EngineRefusal(
                f"{self.url} sends on to {target}, which isn't followed: pass that base_url", status
            )
        return self._refusal(f"answered {status}", status, _reason(reply), model)

    def error_object(self, error: Any, model: str | None) -> EngineRefusal:
        """The error for an error object in a reply with status 200, as some gateways send it."""
        code = str(error.get("code")) if isinstance(error, dict) else ""
        status = int(code) if re.fullmatch("[45][0-9][0-9]", code) else 200
        said = "answered 200 with an error" + (f" {status}" if status != 200 else "")
        return self._refusal(said, status, _innermost(error), model)

    def _refusal(self, said: str, status: int, reason: str, model: str | None) -> EngineRefusal:
        advice = {
            401: "pass api_key=, or set SPECEYES_API_KEY",
            403: f"look whether this key may use model={model!r}, and whether a gateway or "
            "firewall before the engine turns the request away",
            404: f"check base_url, which usually ends in /v1, and model={model!r}",
            413: "send smaller images, or raise the engine's limit of a request's size",
            429: "lower max_concurrency",
        }.get(status)
        message = f"{self.url} {said}: {self.redact(reason) or 'without a reason'}"
        return EngineRefusal(f"{message} ({advice})" if advice else message, status)


def refused_fault(status: int, said: str) -> Fault | None:
    """The part of the request that an engine refused for good; None where it isn't at fault.

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


_PICTURES = r"(?:images?|image_url|vision|multi-?modal)\b"
_TAKES = r"(?:support|accept|take|process|handle|read|allow)\w*"
_NO_IMAGES = re.compile(
    rf"at most 0 image|mmproj|(?:not|n't|no) (?:a )?(?:multi-?modal|vision)"
    rf"|(?:unknown|unsupported|unexpected)\b.{{0,40}}\b(?:part|content)\b.{{0,30}}\b{_PICTURES}"
    rf"|only '?text'?\b.{{0,30}}\b(?:supported|allowed)|{_PICTURES}.{{0,20}}\bnot enabled"
    rf"|{_PICTURES}.{{0,40}}\baccepts? (?:0|no)\b"
    rf"|{_PICTURES}.{{0,60}}\b(?:not {_TAKES}|unsupported|only supported by|n't {_TAKES})"
    rf"|(?:not|n't|no|cannot)\b.{{0,40}}\b{_TAKES}\b.{{0,40}}\b{_PICTURES}",
    re.IGNORECASE,
)


def refuses_images(status: int, said: str) -> bool:
    """True where an engine says that its model reads no pictures at all, asked about a small and
    sound one.

    Example:
        >>> refuses_images(400, "At most 0 image(s) may be provided in one prompt.")
        True
        >>> refuses_images(400, "cannot identify image file")
        False
    """
    return 400 <= status < 600 and status not in (401, 403, 429) and bool(_NO_IMAGES.search(said))


def _reason(reply: bytes) -> str:
    """The reason in an error reply, whichever way it is wrapped."""
    text = reply[:_READ].decode("utf-8", "replace")
    with suppress(ValueError, RecursionError):
        return _innermost(json.loads(text))
    return " ".join(text.split())


def _innermost(found: Any) -> str:
    for key in ("error", "message", "detail"):
        if isinstance(found, dict) and found.get(key) is not None:
            found = found[key]
    return " ".join((found if isinstance(found, str) else json.dumps(found)).split())


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


def with_notes(exc: BaseException) -> str:
    """An error's message with its notes."""
    return "; ".join([str(exc), *getattr(exc, "__notes__", ())])
