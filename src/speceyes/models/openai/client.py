"""JSON over HTTP to one engine: pooled connections, deadlines, retries, cancelling.

Requests run as tasks of one event loop in a background thread, so that a deadline covers a whole
attempt and any request can be cancelled, which closes its connection. Redirects are not followed,
and proxies, credentials and certificates of the environment are not used: what is sent holds
pictures and perhaps a key, and goes to the host that was named and nowhere else.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import ssl
import zlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, TypeVar, final

from speceyes.errors import ConfigError, ModelError
from speceyes.event_loop import EventLoop
from speceyes.models.openai.http_errors import ErrorMessages, checked_base_url, retry_after
from speceyes.models.openai.streams import reply_of_stream

# transformers brings one of the two: huggingface_hub 1 depends on httpx, and 2 on its successor,
# which has the same interface.
if TYPE_CHECKING:
    import httpx2 as httpx
else:
    try:
        import httpx2 as httpx
    except ModuleNotFoundError:
        try:
            import httpx
        except ModuleNotFoundError:
            raise ConfigError(
                "engines are asked through httpx, which isn't installed: "
                'pip install "speceyes[engine]"'
            ) from None

logger = logging.getLogger(__name__)

T = TypeVar("T")

MAX_REPLY_BYTES = 1 << 26
"""The longest reply that is read."""
MAX_REPLY_VALUES = 1 << 23
"""Most values of one, each object or list counted four times as it is in memory: 2,000 tokens with
64 log-probabilities each have 2.4 million."""
_RETRIED = frozenset({429, 500, 502, 503, 504})
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
_CONNECT_S = 10.0
"""Seconds that opening a connection may take."""
_CLOSING_S = 1.0
"""Seconds that a request which was given up may take to close its connection."""
_IDLE_S = 60.0
"""Seconds that an idle connection is kept; most engines close it earlier, which is noticed."""
_closers: set[asyncio.Task[None]] = set()
"""Tasks that close connections as their loops end; a loop alone doesn't keep its tasks alive."""


@final
class _Dropped(ModelError):
    """The connection failed; another attempt may do better."""


@final
class EngineClient:
    """An engine's address, called with JSON by any number of threads.

    Args:
        base_url: See `checked_base_url`.
        headers: Sent with every request; never shown.
        secrets: Texts that are struck out of whatever the engine says.
        timeout_s: Seconds that one attempt may take, from connecting to the reply's last byte.
        retries: Further attempts after 429, 500, 502, 503, 504 and dropped connections.
        backoff_s: Seconds before the second attempt, doubled for each further one, times a
            random number from 0.5 to 1.5.
        max_wait_s: The longest pause; an engine that asks for a longer one is given up.
        max_concurrency: Most requests at a time.
        proxy: Address of a proxy that all requests go through; None for none.
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
        max_concurrency: int,
        proxy: str | None,
    ) -> None:
        parts = checked_base_url(base_url)
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path}"
        self.host = parts.hostname or ""
        if secrets and parts.scheme == "http" and self.host not in _LOCAL:
            logger.warning("%s is not https: the API key travels as plain text", self.url)
        self._headers = {"Accept-Encoding": "identity", "User-Agent": "speceyes", **headers}
        self._messages = ErrorMessages(self.url, secrets)
        self._timeout_s, self._retries = timeout_s, retries
        self._backoff_s, self._max_wait_s = backoff_s, max_wait_s
        self._max_concurrency, self._proxy = max_concurrency, proxy
        self._loop = EventLoop("speceyes-engine")
        # Used in the loop's thread only.
        self._owner: asyncio.AbstractEventLoop | None = None
        self._http: httpx.AsyncClient
        self._slots: asyncio.Semaphore

    def submit(self, request: Coroutine[Any, Any, T]) -> Future[T]:
        """Starts a coroutine that uses `call`; cancelling the future ends its request."""
        return self._loop.submit(request)

    def cancel(self, requests: Sequence[Future[Any]]) -> None:
        """Cancels requests all at once, so that none takes the slot of one that ends."""
        self._loop.call_soon(lambda: [request.cancel() for request in requests])

    def close(self) -> None:
        """Cancels what is under way and closes all connections; further calls open new ones."""
        self._loop = EventLoop("speceyes-engine")  # the old one ends with its object

    async def call(
        self,
        path: str,
        make_body: Callable[[], Mapping[str, Any]] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """The JSON that comes back.

        Args:
            path: Below the base URL, such as "/models".
            make_body: Makes what is sent as JSON by POST, in a thread, once a slot is free, since
                encoded images take memory and time; None for GET.
            headers: Of this request alone.

        Raises:
            EngineRefusal: The engine answered with an error, in the end.
            ModelError: There was no answer, or none that can be read.
        """
        model: str | None = None
        data: bytes | None = None
        self._open()
        # A package for retries would have to be told of Retry-After, max_wait_s, jitter and the
        # notes by functions as long as this loop, and be one more to install.
        for attempt in range(self._retries + 1):
            failure: ModelError
            asked: float | None = None
            async with self._slots:
                if make_body is not None and data is None:
                    model, data = await asyncio.to_thread(_encoded, make_body)
                try:
                    status, told, reply = await self._attempt(path, data, headers or {})
                except _Dropped as exc:
                    failure = exc
                else:
                    if status != 200:
                        refusal = self._messages.refusal(status, told, reply, model)
                    else:
                        parsed = await asyncio.to_thread(self._parsed, reply)
                        error = _error_in(parsed)
                        if not error:
                            return parsed
                        refusal = self._messages.error_object(error, model)
                    if refusal.status not in _RETRIED:
                        raise refusal
                    failure, asked = refusal, retry_after(told.get("retry-after"))
            if attempt == self._retries:
                break
            if asked is not None and asked > self._max_wait_s:
                failure.add_note(
                    f"it asks to come back in {asked:.0f} s, and max_wait_s={self._max_wait_s:g}: "
                    "come back later, or raise max_wait_s"
                )
                raise failure
            pause = self._backoff_s * 2**attempt * random.uniform(0.5, 1.5)
            pause = min(pause, self._max_wait_s) if asked is None else asked
            logger.info("%s: %s; again in %.2f s", self.url, failure, pause)
            await asyncio.sleep(pause)
        if self._retries:
            failure.add_note(f"after {self._retries + 1} attempts")
        raise failure

    def _open(self) -> None:
        """Makes the HTTP client of the loop that runs; a closed or forked one has another."""
        loop = asyncio.get_running_loop()
        if self._owner is not loop:
            most = self._max_concurrency
            self._http = httpx.AsyncClient(
                headers=self._headers,
                trust_env=False,
                follow_redirects=False,
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),  # keeps none
                proxy=self._proxy,
                verify=ssl.create_default_context(),
                timeout=httpx.Timeout(None, connect=min(_CONNECT_S, self._timeout_s)),
                limits=httpx.Limits(
                    max_connections=most, max_keepalive_connections=most, keepalive_expiry=_IDLE_S
                ),
            )
            self._owner, self._slots = loop, asyncio.Semaphore(most)
            closer = loop.create_task(_close_at_end(self._http))
            _closers.add(closer)
            closer.add_done_callback(_closers.discard)

    async def _attempt(
        self, path: str, data: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, Mapping[str, str], bytes]:
        """One exchange: status, headers and body of the reply.

        Raises:
            _Dropped: The connection failed.
            ModelError: The deadline passed, the reply is too long, or the certificate is bad.
        """
        given_up = asyncio.Event()
        exchange = asyncio.ensure_future(self._exchange(path, data, headers, given_up))
        try:
            # httpx's own time limits begin anew with every byte that comes. Nor is its word taken
            # for when it has ended: what goes on in spite of being cancelled is left behind.
            await asyncio.wait({exchange}, timeout=self._timeout_s)
            if exchange.done():
                return exchange.result()
        except (httpx.RequestError, OSError) as exc:
            raise self._unreached(exc) from exc
        finally:
            if not exchange.done():
                given_up.set()
                exchange.cancel()
                exchange.add_done_callback(lambda one: one.cancelled() or one.exception())
                await asyncio.wait({exchange}, timeout=_CLOSING_S)
        raise ModelError(
            f"{self.url} had not answered after {self._timeout_s:g} s: raise timeout_s, "
            "lower max_concurrency, or ask for fewer tokens"
        )

    async def _exchange(
        self,
        path: str,
        data: bytes | None,
        own: Mapping[str, str],
        given_up: asyncio.Event,
    ) -> tuple[int, Mapping[str, str], bytes]:
        """The same without a deadline; it ends with the next bytes once it is given up."""
        method = "GET" if data is None else "POST"
        headers = {} if data is None else {"Content-Type": "application/json", **own}
        async with self._http.stream(
            method, self.url + path, content=data, headers=headers
        ) as response:
            reply = bytearray()
            async for chunk in response.aiter_raw():
                reply += chunk
                if given_up.is_set():
                    raise ModelError("nobody waits for the reply any more")
                if len(reply) > MAX_REPLY_BYTES:
                    raise self._too_long()
            encoding = response.headers.get("content-encoding", "").strip().lower()
            if encoding in ("", "identity"):
                return response.status_code, response.headers, bytes(reply)
            plain = await asyncio.to_thread(self._unpacked, bytes(reply), encoding)
            return response.status_code, response.headers, plain

    def _too_long(self) -> ModelError:
        return ModelError(f"{self.url} sent more than {MAX_REPLY_BYTES} bytes: lower max_tokens")

    def _unpacked(self, reply: bytes, encoding: str) -> bytes:
        """A reply that was compressed although "identity" was asked for, as some proxies do; httpx
        would let 64 kB become any number of bytes at once.
        """
        window = {"gzip": 31, "x-gzip": 31, "deflate": 15}.get(encoding)
        if window is None:
            raise ModelError(
                f"{self.url} encoded its reply as {encoding[:40]!r}, which was not asked for: turn "
                "compression off in the engine or the proxy before it"
            )
        unpack = zlib.decompressobj(window)
        try:
            plain = unpack.decompress(reply, MAX_REPLY_BYTES + 1)
        except zlib.error:
            plain = b""
        if len(plain) > MAX_REPLY_BYTES:
            raise self._too_long()
        if not unpack.eof:
            raise ModelError(
                f"{self.url} sent a reply that is no {encoding}, though it says so: look into the "
                "engine's log, or the proxy's before it"
            )
        return plain

    def _unreached(self, exc: Exception) -> ModelError:
        said = self._messages.redact(" ".join(str(exc).split())) or type(exc).__name__
        if "CERTIFICATE_VERIFY_FAILED" in said:
            return ModelError(f"{self.url} shows a certificate that can't be trusted ({said})")
        if isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout):
            return _Dropped(
                f"{self.url} can't be reached ({said}): start the engine, or check base_url and "
                "the network"
            )
        return _Dropped(f"{self.url} dropped the connection ({said}): look into the engine's log")

    def _parsed(self, reply: bytes) -> Any:
        # Lists of nothing take thirty times their bytes, and as they are read no thread can run.
        nested = reply.count(b"[") + reply.count(b"{")
        if nested * 4 + reply.count(b",") > MAX_REPLY_VALUES:
            raise ModelError(
                f"{self.url} sent a reply of more values than any answer has: lower max_tokens or "
                "top_k, or look into the engine's log"
            )
        try:
            stream = reply_of_stream(reply)
            return json.loads(reply) if stream is None else stream
        except (ValueError, TypeError, AttributeError, RecursionError):
            begins = self._messages.redact(reply[:80].decode("utf-8", "replace"))
            raise ModelError(
                f"{self.url} answered something else than JSON, beginning {begins!r}: check that "
                "base_url leads to an OpenAI-compatible engine, usually by ending in /v1"
            ) from None


def _error_in(parsed: Any) -> Any:
    """The error of a reply with status 200; None where it holds choices, or tells none."""
    if not isinstance(parsed, dict) or parsed.get("choices"):
        return None
    if parsed.get("object") != "error" and parsed.get("error"):
        return parsed["error"]
    # FastAPI's "detail", and a gateway's own {"success": false, "message": ...}.
    told = any(isinstance(parsed.get(key), str) for key in ("message", "detail"))
    return parsed if parsed.get("object") == "error" or told else None


def _encoded(make_body: Callable[[], Mapping[str, Any]]) -> tuple[str | None, bytes]:
    """The model that is asked, and the body as JSON, which holds the images."""
    body = make_body()
    return body.get("model"), json.dumps(body, allow_nan=False).encode()


async def _close_at_end(http: httpx.AsyncClient) -> None:
    """Closes the connections as the loop ends, which cancels all tasks."""
    try:
        await asyncio.Event().wait()
    finally:
        await http.aclose()
