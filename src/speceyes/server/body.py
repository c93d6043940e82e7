"""Reading from a client that may be slow, greedy, or gone."""

from __future__ import annotations

import asyncio

from fastapi import Request

from speceyes.server.limits import ServerLimits
from speceyes.server.refusal import Refusal
from speceyes.server.slots import Slot

_MORE = 1 << 20  # bytes that are reserved together for a body that doesn't say how long it is


async def client_left(request: Request) -> None:
    """Until the client leaves. The body is read already."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def read_body(request: Request, limits: ServerLimits, slot: Slot) -> bytes:
    """The body, never more of it than allowed.

    Raises:
        Refusal: 400, 408, 413, or 429 where all bodies together are too large.
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
    slot.reserve_bytes(int(told))
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(limits.body_s):
            async for part in request.stream():
                size += len(part)
                if size > limits.body_bytes:
                    raise too_large
                if size > slot.bytes:
                    slot.reserve_bytes(max(size - slot.bytes, _MORE))
                parts.append(part)
    except TimeoutError:
        raise Refusal(
            408,
            f"the body did not arrive within {limits.body_s:g} s",
            code="body_too_slow",
            headers={"Connection": "close"},
        ) from None
    return b"".join(parts)
