"""A request that gets no answer, in the words of OpenAI's protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

from speceyes.errors import SpecEyesError

_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
}


_AGAIN = frozenset((408, 409, 425, 429))
"""Statuses below 500 after which the same request may succeed."""


@final
class Refusal(SpecEyesError):
    """An error that is meant for the client.

    Args:
        status: The HTTP status.
        message: The input, the values allowed, and what to do; never a prompt, an image or a key.
        code: A word for programs, such as "queue_full".
        param: The field it is about.
        headers: Sent along.

    Example:
        >>> Refusal(400, "n=2; only 1 is served", param="n").body()["error"]["param"]
        'n'
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.headers = dict(headers or {})
        if 400 <= status < 500 and status not in _AGAIN:
            # Some clients ask again whatever it was.
            self.headers.setdefault("x-should-retry", "false")

    def body(self) -> dict[str, Any]:
        """The response's JSON."""
        return {
            "error": {
                "message": str(self),
                "type": _KINDS.get(self.status, "server_error"),
                "param": self.param,
                "code": self.code,
            }
        }
