"""Fetching an image over http(s) without being led into a private network.

A host is resolved once, every address it has must be public, and the connection goes to one of
those very addresses, so that a second look-up can't answer otherwise. Redirects are followed a
few times and checked like the first URL. Proxies of the environment are not used.
"""

from __future__ import annotations

import http.client
import ipaddress
import logging
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Set
from contextlib import contextmanager, suppress
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from speceyes.errors import ConfigError, ImageError

logger = logging.getLogger(__name__)

MAX_REDIRECTS = 3
_CHUNK = 64 * 1024
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_BINARY = frozenset({"", "application/octet-stream", "binary/octet-stream"})
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NAT64_LOCAL = ipaddress.IPv6Network("64:ff9b:1::/48")
_COMPATIBLE = ipaddress.IPv6Network("::/96")


def fetch(
    url: str,
    *,
    max_bytes: int,
    timeout_s: float = 10.0,
    allow_hosts: Set[str] = frozenset(),
    only_hosts: Set[str] | None = None,
) -> bytes:
    """The body behind an http(s) URL.

    Args:
        url: The address, without user name and password.
        max_bytes: Most bytes that are read.
        timeout_s: Seconds for everything, redirects included; a slow system resolver can take
            longer.
        allow_hosts: Host names, lower case, that may have private addresses.
        only_hosts: Host names, lower case, that may be asked at all, redirects included; None
            for any.

    Raises:
        ImageError: The URL, its host, its answer or its size is refused, or it fails.
        ConfigError: allow_hosts is a text, or timeout_s is not positive.
    """
    hosts: object = allow_hosts
    if isinstance(hosts, str):  # "b" in "a.b" is true, and would open the gate
        raise ConfigError(f"allow_hosts={hosts!r}; pass a set of names: {{{hosts!r}}}")
    if not timeout_s > 0:
        raise ConfigError(f"timeout_s={timeout_s}; it must be more than 0 seconds")
    deadline = time.monotonic() + timeout_s
    previous = ""
    for _ in range(MAX_REDIRECTS + 1):
        parts = _checked(url)
        if only_hosts is not None and parts.hostname not in only_hosts:
            raise ImageError(f"{shown(url)} is on a host that isn't named; only these are asked")
        if previous == "https" and parts.scheme == "http":
            raise ImageError(f"{shown(url)} is a redirect from https to http, which is refused")
        target = _get(parts, max_bytes, deadline, timeout_s, allow_hosts)
        if isinstance(target, bytes):
            return target
        previous, url = parts.scheme, urljoin(url, target)
    raise ImageError(f"{shown(url)}: more than {MAX_REDIRECTS} redirects; pass the last URL")


def shown(url: str) -> str:
    """The URL as errors show it: without query and password, which may be secret."""
    try:
        parts = urlsplit(url)
        text = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    except ValueError:
        text = url.partition("?")[0]
    return text if len(text) <= 120 else text[:117] + "..."


def _checked(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        port_ok = parts.port != 0
    except ValueError:
        raise ImageError(f"{shown(url)} is not a URL that can be read") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_ok:
        raise ImageError(f"{shown(url)} is not an http(s) URL with a host; pass one, or a file")
    if parts.username is not None or parts.password is not None:
        raise ImageError(f"{shown(url)} comes with a user name; fetch it yourself and pass bytes")
    return parts


def is_public(address: str) -> bool:
    """True for an address of the public internet, also where it wraps another."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo and ip.teredo[1])
        if ip in _NAT64_LOCAL or ip.is_site_local:
            return False
        if inner is None and (ip in _NAT64 or ip in _COMPATIBLE):
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


def _connect(parts: SplitResult, deadline: float, allow_hosts: Set[str]) -> socket.socket:
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    if host.lower() not in allow_hosts:
        for address in addresses:
            if not is_public(address):
                logger.debug("%s resolves to %s", host, address)
                raise ImageError(
                    f"{shown(parts.geturl())}: the host has an address that is not public, which "
                    f"is refused; name it in allow_hosts={{{host!r}}} if you trust it"
                )
    failure = OSError("no address")
    for address in addresses:
        try:
            return socket.create_connection((address, port), _left(deadline))
        except OSError as exc:
            failure = exc
    raise failure


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


@contextmanager
def _cut_off(sock: socket.socket, deadline: float) -> Iterator[None]:
    """Shuts the connection down at the deadline.

    A socket's own timeout starts anew with every byte, so that a server that sends one now and
    then could hold the caller for hours.
    """
    over = threading.Event()

    def end() -> None:
        over.set()
        with suppress(OSError):  # closed already
            socket.socket.shutdown(sock, socket.SHUT_RDWR)

    timer = threading.Timer(_left(deadline), end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (OSError, http.client.HTTPException, ValueError, AttributeError) as exc:
        if over.is_set():
            raise TimeoutError from exc
        raise
    finally:
        timer.cancel()
    if over.is_set():
        raise TimeoutError


def _get(
    parts: SplitResult,
    max_bytes: int,
    deadline: float,
    timeout_s: float,
    allow_hosts: Set[str],
) -> bytes | str:
    """The body, or where the server points to instead."""
    what = shown(parts.geturl())
    path = quote(parts.path or "/", safe="/%:=&~+!$,;'@()*") + (
        "?" + quote(parts.query, safe="/%:=&~+!$,;'@()*?[]") if parts.query else ""
    )
    try:
        sock = _connect(parts, deadline, allow_hosts)
        with sock:
            if parts.scheme == "https":
                sock = ssl.create_default_context().wrap_socket(
                    sock, server_hostname=parts.hostname, do_handshake_on_connect=False
                )
            with sock, _cut_off(sock, deadline):
                if isinstance(sock, ssl.SSLSocket):
                    sock.do_handshake()
                return _exchange(parts, path, sock, what, max_bytes)
    except TimeoutError:
        raise ImageError(f"{what} took longer than {timeout_s:g} s; try again later") from None
    except ImageError:
        raise
    except (OSError, http.client.HTTPException, ValueError):
        logger.debug("%s can't be fetched", what, exc_info=True)
        raise ImageError(f"{what} can't be fetched; is the URL right, and the host up?") from None


def _exchange(
    parts: SplitResult, path: str, sock: socket.socket, what: str, max_bytes: int
) -> bytes | str:
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port)
    connection.sock = sock  # connected already, to the address that was checked
    connection.auto_open = 0
    connection.request(
        "GET",
        path,
        headers={"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "speceyes"},
    )
    with connection.getresponse() as response:
        if response.status in _REDIRECTS and (location := response.getheader("Location")):
            return location
        if response.status != 200:
            raise ImageError(f"{what} answered with status {response.status}; 200 is needed")
        content = (response.getheader("Content-Type") or "").partition(";")[0].strip().lower()
        if not content.startswith("image/") and content not in _BINARY:
            raise ImageError(f"{what} is of type {content[:60]!r:.60}; image/... is needed")
        if (response.getheader("Content-Encoding") or "identity").lower() != "identity":
            raise ImageError(f"{what} is sent compressed although that was not asked for")
        body = bytearray()
        if (response.length or 0) <= max_bytes:
            while len(body) <= max_bytes and (chunk := response.read(_CHUNK)):
                body += chunk
        if (response.length or 0) > max_bytes or len(body) > max_bytes:
            raise ImageError(
                f"{what} has more than max_bytes={max_bytes} bytes; raise the limit with "
                "ImageLimits(max_bytes=...)"
            )
        if response.length:  # what is still owed
            raise ImageError(f"{what} ended too early; try again")
        return bytes(body)
