"""JSON over HTTP to one engine: connections that are kept, time limits, retries, cancelling.

It stands on the standard library, so that no version of an HTTP client has to be agreed on with
other packages. Proxies of the environment are not used, and redirects are not followed: what is
sent holds pictures and perhaps a key, and goes to the host that was named and nowhere else.
"""

from __future__ import annotations

import http.client
import json
import logging
import random
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, final

from speceyes.errors import ModelError
from speceyes.models._engine_words import Wording, checked_url, retry_after

logger = logging.getLogger(__name__)

MAX_REPLY = 1 << 26
"""Bytes of the longest reply that is read."""
_RETRIED = frozenset({429, 500, 502, 503, 504})
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
_STALE = (ConnectionError, http.client.RemoteDisconnected)
_CONNECTING = 10.0
"""Seconds that opening a connection may take."""


class Refused(ModelError):
    """The engine answered with another status than 200."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class _Dropped(ModelError):
    """The connection failed; another attempt may do better."""


@final
class Cancel:
    """Ends whatever is under way for one call: the engine sees its connections close."""

    def __init__(self) -> None:
        self._set = threading.Event()
        self._lock = threading.Lock()
        self._ends: set[Callable[[], None]] = set()

    def now(self) -> None:
        """Ends all of it."""
        with self._lock:
            self._set.set()
            ends = list(self._ends)
        for end in ends:
            end()

    def wait(self, seconds: float) -> None:
        """Sleeps.

        Raises:
            ModelError: It was cancelled.
        """
        if self._set.wait(seconds):
            raise ModelError("the call was cancelled")

    def add(self, end: Callable[[], None]) -> None:
        """Registers something that ends a request; at once, if it is too late."""
        with self._lock:
            self._ends.add(end)
            late = self._set.is_set()
        if late:
            end()

    def drop(self, end: Callable[[], None]) -> None:
        """Forgets it."""
        with self._lock:
            self._ends.discard(end)


@final
class Endpoint:
    """An engine's address, called with JSON by any number of threads.

    Args:
        base_url: See `checked_url`.
        headers: Sent with every request; never shown.
        secrets: Texts that are struck out of whatever the engine says.
        timeout_s: Seconds that one attempt may take, from connecting to the reply's last byte.
        retries: Further attempts after 429, 500, 502, 503, 504 and dropped connections.
        backoff_s: Seconds before the second attempt, doubled for each further one, times a
            random number from 0.5 to 1.5.
        max_wait_s: The longest pause; an engine that asks for a longer one is given up.
        connections: Most requests at a time.
    """

    def __init__(
        self,
        base_url: str,
        *,
        headers: Mapping[str, str],
        secrets: tuple[str, ...],
        timeout_s: float,
        retries: int,
        backoff_s: float,
        max_wait_s: float,
        connections: int,
    ) -> None:
        parts = checked_url(base_url)
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path}"
        self.host = parts.hostname or ""
        self._port = parts.port
        self._path = parts.path
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        if secrets and self._tls is None and self.host not in _LOCAL:
            logger.warning("%s is not https: the API key travels as plain text", self.url)
        self._headers = {"Accept": "application/json", "User-Agent": "speceyes", **headers}
        self._wording = Wording(self.url, secrets)
        self.timeout_s, self._retries = timeout_s, retries
        self._backoff_s, self._max_wait_s = backoff_s, max_wait_s
        self._room = threading.BoundedSemaphore(connections)
        self._idle: list[http.client.HTTPConnection] = []
        weakref.finalize(self, _close, self._idle)
        self._lock = threading.Lock()

    def call(self, path: str, body: Any = None, cancel: Cancel | None = None) -> Any:
        """The JSON that comes back.

        Args:
            path: Below the base URL, such as "/models".
            body: Sent as JSON by POST; None for GET.
            cancel: Ends it early.

        Raises:
            Refused: The engine answered with another status than 200, in the end.
            ModelError: There was no answer, or none that can be read.
        """
        data = None if body is None else json.dumps(body, allow_nan=False).encode()
        cancel = cancel or Cancel()
        for attempt in range(self._retries + 1):
            cancel.wait(0)
            asked: float | None = None
            failure: ModelError
            try:
                with self._room:
                    status, headers, reply = self._attempt(path, data, cancel)
            except _Dropped as exc:
                cancel.wait(0)
                failure = exc
            else:
                if status == 200:
                    return self._parsed(reply)
                failure = Refused(self._wording.told(status, headers, reply, body), status)
                if status not in _RETRIED:
                    raise failure
                asked = retry_after(headers.get("Retry-After"))
            if attempt == self._retries:
                break
            pause = self._backoff_s * 2**attempt * random.uniform(0.5, 1.5)
            if asked is not None and asked > self._max_wait_s:
                raise type(failure)(*self._longer(failure, asked))
            pause = min(pause, self._max_wait_s) if asked is None else asked
            logger.info("%s: %s; again in %.2f s", self.url, failure, pause)
            cancel.wait(pause)
        if self._retries:
            failure.add_note(f"after {self._retries + 1} attempts")
        raise failure

    def close(self) -> None:
        """Closes the connections that are kept; further calls open new ones."""
        with self._lock:
            _close(self._idle)

    def _longer(self, failure: ModelError, asked: float) -> tuple[Any, ...]:
        said = (
            f"{failure}; it asks to come back in {asked:.0f} s, and max_wait_s="
            f"{self._max_wait_s:g}: come back later, or raise max_wait_s"
        )
        return (said, failure.status) if isinstance(failure, Refused) else (said,)

    def _attempt(
        self, path: str, data: bytes | None, cancel: Cancel
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """One exchange, on a connection that is kept if there is one.

        The engine may have closed that one meanwhile, which shows only now; a new connection
        then takes its place, and this is no failed attempt.
        """
        with self._lock:
            kept = self._idle.pop() if self._idle else None
        if kept is not None:
            try:
                return self._exchange(kept, path, data, cancel)
            except _Dropped as exc:
                if not isinstance(exc.__cause__, _STALE):
                    raise
        connection = (
            http.client.HTTPConnection(self.host, self._port, timeout=self.timeout_s)
            if self._tls is None
            else http.client.HTTPSConnection(
                self.host, self._port, timeout=self.timeout_s, context=self._tls
            )
        )
        return self._exchange(connection, path, data, cancel)

    def _exchange(
        self,
        connection: http.client.HTTPConnection,
        path: str,
        data: bytes | None,
        cancel: Cancel,
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        over = threading.Event()
        started = time.monotonic()
        keep = False
        timer: threading.Timer | None = None

        def end() -> None:
            # A socket's own timeout starts anew with every byte that comes.
            if connection.sock is not None:
                with suppress(OSError):
                    socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)

        def out_of_time() -> None:
            over.set()
            end()

        cancel.add(end)
        try:
            if connection.sock is None:
                self._connect(connection)
                cancel.wait(0)
            left = max(0.0, self.timeout_s - (time.monotonic() - started))
            timer = threading.Timer(left, out_of_time)
            timer.daemon = True
            timer.start()
            headers = dict(self._headers)
            if data is not None:
                headers["Content-Type"] = "application/json"
            method = "GET" if data is None else "POST"
            connection.request(method, self._path + path, body=data, headers=headers)
            response = connection.getresponse()
            reply = response.read(MAX_REPLY + 1)
            if len(reply) > MAX_REPLY:
                raise ModelError(f"{self.url} sent more than {MAX_REPLY} bytes: lower max_tokens")
            missing = response.length
            if missing:
                raise http.client.IncompleteRead(reply, missing)
            keep = not response.will_close and not over.is_set()
            return response.status, response.headers, reply
        except (OSError, http.client.HTTPException) as exc:
            if over.is_set() or isinstance(exc, TimeoutError):
                raise ModelError(
                    f"{self.url} had not answered after {self.timeout_s:g} s: raise timeout_s, "
                    "lower max_concurrency, or ask for fewer tokens"
                ) from exc
            raise _Dropped(self._dropped(exc)) from exc
        finally:
            if timer is not None:
                timer.cancel()
            cancel.drop(end)
            if keep:
                with self._lock:
                    self._idle.append(connection)
            else:
                connection.close()

    def _connect(self, connection: http.client.HTTPConnection) -> None:
        connection.timeout = min(self.timeout_s, _CONNECTING)
        try:
            connection.connect()
        except TimeoutError as exc:
            raise _Dropped(f"{self.url} can't be reached: check base_url and the network") from exc
        connection.sock.settimeout(self.timeout_s)

    def _dropped(self, exc: Exception) -> str:
        if isinstance(exc, ssl.SSLCertVerificationError):
            return f"{self.url} shows a certificate that can't be trusted ({exc.verify_message})"
        if isinstance(exc, ConnectionRefusedError | socket.gaierror):
            return f"{self.url} can't be reached ({exc}): start the engine, or check base_url"
        said = self._wording.clean(" ".join(str(exc).split())) or type(exc).__name__
        return f"{self.url} dropped the connection ({said}): look into the engine's log"

    def _parsed(self, reply: bytes) -> Any:
        try:
            return json.loads(reply)
        except (ValueError, RecursionError):
            begins = self._wording.clean(reply[:80].decode("utf-8", "replace"))
            raise ModelError(
                f"{self.url} answered something else than JSON, beginning {begins!r}: check that "
                "base_url leads to an OpenAI-compatible engine, usually by ending in /v1"
            ) from None


def _close(connections: list[http.client.HTTPConnection]) -> None:
    while connections:
        connections.pop().close()
