"""The check of requests where there are no keys: none that a web page could send.

A page's own name can be made to point at this machine, and a browser then takes the server for the
page's; and it sends plain text anywhere without asking. It can do neither under a name that isn't
its own, and with JSON.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Set
from urllib.parse import urlsplit

from fastapi import Request

from speceyes.server.refusal import Refusal

_JSON = "application/json"


def check_origin(request: Request, hosts: Set[str]) -> None:
    """Lets a request pass that no web page can have sent.

    Args:
        request: The request.
        hosts: Names, in lower case, besides this machine's own and addresses.

    Raises:
        Refusal: 403, or 415 where a body isn't said to be JSON.
    """
    name = _name(request.headers.get("host", ""))
    if name is None or not (is_own(name) or name in hosts):
        raise Refusal(
            403,
            "without keys this server answers under localhost and addresses only; others are "
            "named by whoever runs it (--allow-host)",
            code="host_not_allowed",
            headers={"x-should-retry": "false"},
        )
    origin = request.headers.get("origin")
    if origin is not None and _name(_netloc(origin)) not in {name, *hosts}:
        raise Refusal(
            403, "without keys this server answers no other web page", code="origin_not_allowed"
        )
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if request.method == "POST" and kind != _JSON:
        raise Refusal(415, f"Content-Type: {_JSON} is needed", code="unsupported_media_type")


def is_own(name: str) -> bool:
    """True for localhost and for any address, which no name of a page can be.

    Example:
        >>> is_own("127.0.0.1"), is_own("::1"), is_own("rebound.example")
        (True, True, False)
    """
    if name == "localhost":
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _netloc(url: str) -> str:
    """Host and port of an origin; "" where there is none."""
    try:
        return urlsplit(url).netloc
    except ValueError:
        return ""


def _name(host: str) -> str | None:
    """The name in a Host header, in lower case and without its port; None where it is none."""
    if any(sign in host for sign in "/@\\ \t,?#"):
        return None
    try:
        name = urlsplit(f"//{host}").hostname
        urlsplit(f"//{host}").port  # noqa: B018 - it raises
    except ValueError:
        return None
    return name.rstrip(".") if name else None
