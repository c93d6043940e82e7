"""Reading from a client that may be slow, greedy, or gone."""

from __future__ import annotations

import asyncio

from fastapi import Request

from speceyes.server.limits import ServerLimits
from speceyes.server.refusal import Refusal


async def client_left(request: Request) -> None:
    """Until the client leaves. The body is read already."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def read_body(request: Request, limits: ServerLimits) -> bytes:
    """The body, never more of it than allowed.

    Raises:
        Refusal: 400, 408 or 413.
    """
    too_large = Refusal(
        413,
        f"the body has more than {limits.body_bytes} bytes; send fewer or smaller images",
        code="body_too_large",
        headers={"Connection": "close"},
    )
    told = request.headers.get("content-length", "0")
    if not told.isascii() or not told.isdigit():
        raise Refusal(400, "content-length is not a number", code="bad_request")
    if len(told) > 18 or int(told) > limits.body_bytes:
        raise too_large
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(limits.body_s):
            async for part in request.stream():
                size += len(part)
                if size > limits.body_bytes:
                    raise too_large
                parts.append(part)
    except TimeoutError:
        raise Refusal(
            408,
            f"the body did not arrive within {limits.body_s:g} s",
            code="body_too_slow",
            headers={"Connection": "close"},
        ) from None
    return b"".join(parts)
