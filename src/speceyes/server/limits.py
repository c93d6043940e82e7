"""Limits of a request, and of all that a server holds at once."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from speceyes.errors import ConfigError
from speceyes.images import ImageLimits

SERVED_IMAGES = ImageLimits(max_bytes=20 << 20, max_pixels=40_000_000, max_frames=64)
"""Tighter than a library's own: strangers send these."""


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Limits of a server; each that is passed gets the client a 4xx that names it.

    Args:
        body_bytes: Most bytes of a request's body.
        body_s: Seconds in which the body must have arrived.
        images: Most images of a request.
        image: Limits of one image.
        question_chars: Most characters of the question and its choices.
        capacity: Most requests that are accepted and not done with, over all clients.
        per_client: The same of one client.
        pixels: Most pixels of all images that are held at once; half of them for a client, and the
            last quarter for small requests.
        bytes: Most bytes of all bodies that are held at once, shared in the same way.
        head_s: Seconds in which the head of a request must have come on a connection.
        write_s: Seconds in which a client must have taken the next 64 KiB of an answer.
        seconds: Longest time from acceptance to answer; a request may ask for less.
        thresholds: The lowest and the highest threshold that a request may ask for; None for
            the pipeline's own up to 1, so that a request can be stricter and not laxer.
        agent_on_request: A request may ask for the agent at once.
        domains: Hosts, in lower case, whose http(s) images are fetched; none by default.
        private_domains: Hosts the same, which may also have private addresses.
        tolerant: Fields that the funnel can't follow are ignored, or told to the agent alone, and
            named in the response's headers; otherwise they are refused.

    Raises:
        ConfigError: A number is out of range.

    Example:
        >>> ServerLimits(images=2).images
        2
    """

    body_bytes: int = 32 << 20
    body_s: float = 30.0
    images: int = 8
    image: ImageLimits = SERVED_IMAGES
    question_chars: int = 20_000
    capacity: int = 256
    per_client: int = 64
    pixels: int = 1_000_000_000
    bytes: int = 512 << 20
    head_s: float = 30.0
    write_s: float = 30.0
    seconds: float = 120.0
    thresholds: tuple[float, float] | None = None
    agent_on_request: bool = True
    domains: frozenset[str] = field(default_factory=frozenset)
    private_domains: frozenset[str] = field(default_factory=frozenset)
    tolerant: bool = True

    def __post_init__(self) -> None:
        counts = (
            "body_bytes",
            "images",
            "question_chars",
            "capacity",
            "per_client",
            "pixels",
            "bytes",
        )
        for name in counts:
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}; it must be at least 1")
        for name in ("head_s", "body_s", "seconds", "write_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name}={value}; it must be finite and above 0 seconds")
        if self.thresholds is not None:
            low, high = self.thresholds
            if not 0 <= low <= high <= 1:
                raise ConfigError(f"thresholds={self.thresholds}; two numbers from 0 to 1, rising")
        for name in ("domains", "private_domains"):
            given: object = getattr(self, name)
            if isinstance(given, str):
                raise ConfigError(f"{name}={given!r}; pass a set of host names")
            hosts = frozenset(host.lower() for host in getattr(self, name))
            for host in hosts:
                if not host or any(sign in host for sign in "/:@\\* "):
                    raise ConfigError(f"domain {host!r}; a host name alone, such as images.example")
            object.__setattr__(self, name, hosts)
