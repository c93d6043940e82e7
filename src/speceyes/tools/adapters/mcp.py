"""The tools of an MCP server (Model Context Protocol)."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import logging
import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, final

from speceyes.errors import ConfigError, ImageError, ToolError, describe
from speceyes.images import DEFAULT_LIMITS
from speceyes.images.blocks import encoded_image, shown_or_told
from speceyes.tools.adapters.foreign import ForeignTool, extra, for_model, image_from_base64
from speceyes.types import Image, Observation

logger = logging.getLogger(__name__)

_CLOSING_S = 15.0
"""Seconds that closing may take: the client gives a server some to end before it kills it."""


def mcp_tools(
    server: str | Sequence[str],
    *,
    images: Mapping[str, Sequence[str]] | None = None,
    only: Sequence[str] | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
    timeout_s: float = 30.0,
) -> McpTools:
    """Connects to an MCP server and brings its tools; close it, or use it in a `with`.

    Image arguments: MCP has no type for them. Those whose schema says `contentMediaType:
    image/...` are found, others are named by `images`. They become numbers of images for the
    model (the first one `img_idx`), and the server gets base64 of a PNG file. Images in results
    are shown to the model. Needs the extra `mcp`.

    Args:
        server: A command, as a list of words, that is started as a subprocess and spoken to by
            its standard streams; or the http(s) address of a server that runs.
        images: For each tool, names of its arguments that take an image.
        only: Names of the tools to bring; None brings all.
        env: Further environment variables of the subprocess. Without them it gets only a few,
            such as PATH and HOME.
        cwd: Working directory of the subprocess.
        timeout_s: Seconds to connect, and for each call.

    Returns:
        The tools, to be iterated over: `Tools([*server_tools, "zoom"])`.

    Raises:
        ConfigError: mcp isn't installed, the server can't be reached in time, or it has no tool
            of a name that was given.
    """
    library = extra("mcp", "mcp")
    if isinstance(server, str):
        if not server.startswith(("http://", "https://")):
            raise ConfigError(
                f"server={server!r} is no http(s) address; pass a command as a list: "
                "[sys.executable, 'server.py']"
            )
        target: Any = server
    else:
        if not server:
            raise ConfigError("server is an empty list; pass a command and its arguments")
        command, *words = map(str, server)
        target = library.StdioServerParameters(
            command=command, args=words, env=dict(env) if env else None, cwd=cwd
        )
    if not timeout_s > 0:
        raise ConfigError(f"timeout_s={timeout_s}; a positive number of seconds is needed")
    return McpTools(library, target, images or {}, only, timeout_s)


@final
class McpTools:
    """A session with an MCP server, in a thread of its own, and the server's tools.

    Made by `mcp_tools`. Once the server has ended, or the session is closed, each call is told so
    to the model. Not closing it leaves the server running until this process ends.
    """

    def __init__(
        self,
        library: Any,
        target: Any,
        images: Mapping[str, Sequence[str]],
        only: Sequence[str] | None,
        timeout_s: float,
    ) -> None:
        self._library = library
        self._target = target
        self._timeout_s = timeout_s
        self._client: Any = None
        self._closing: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready: concurrent.futures.Future[list[Any]] = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._serve, name="mcp session", daemon=True)
        self._thread.start()
        try:
            offered = self._ready.result(timeout_s)
            self._tools = tuple(self._brought(offered, images, only))
        except BaseException as exc:
            self.close()
            if isinstance(exc, TimeoutError):
                raise ConfigError(f"the MCP server did not answer within {timeout_s:g} s") from exc
            if isinstance(exc, Exception) and not isinstance(exc, ConfigError):
                raise ConfigError(f"the MCP server can't be used: {_reason(exc)}") from exc
            raise

    def __iter__(self) -> Iterator[ForeignTool]:
        return iter(self._tools)

    def __len__(self) -> int:
        return len(self._tools)

    def __enter__(self) -> McpTools:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the session, and the server where it was started here. May be called again."""
        loop, closing = self._loop, self._closing
        if loop is not None and closing is not None and self._thread.is_alive():
            try:
                loop.call_soon_threadsafe(closing.set)
            except RuntimeError:
                logger.debug("the MCP session has ended by itself")
        self._thread.join(_CLOSING_S)
        if self._thread.is_alive():
            logger.warning("the MCP session does not end; it is left behind")

    def _serve(self) -> None:
        try:
            asyncio.run(self._session())
        except BaseException as exc:  # noqa: BLE001 - told to whoever waits for the session
            if self._ready.done():
                logger.warning("the MCP session ended: %s", _reason(exc))
            else:
                self._ready.set_exception(exc if isinstance(exc, Exception) else ToolError("ended"))

    async def _session(self) -> None:
        """Connects, lists the tools, and stays until it is closed, all in one task."""
        self._loop, self._closing = asyncio.get_running_loop(), asyncio.Event()
        run = asyncio.create_task(self._connected(self._closing))
        closed = asyncio.create_task(self._closing.wait())
        await asyncio.wait({run, closed}, return_when=asyncio.FIRST_COMPLETED)
        if not self._ready.done() and not run.done():
            run.cancel()  # closed while it was still connecting
        try:
            await run
        finally:
            closed.cancel()

    async def _connected(self, closing: asyncio.Event) -> None:
        target = self._target
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
            if not isinstance(target, str):
                stdio = extra("mcp.client.stdio", "mcp")
                # In a notebook, a GUI or a test there may be no real standard error.
                target = stdio.stdio_client(target, errlog=sys.__stderr__ or nowhere)
            async with self._library.Client(target, read_timeout_seconds=self._timeout_s) as client:
                offered: list[Any] = []
                cursor: str | None = None
                while True:
                    page = await client.list_tools(cursor=cursor)
                    offered += page.tools
                    cursor = page.next_cursor
                    if not cursor or len(offered) > 1000:
                        break
                self._client = client
                self._ready.set_result(offered)
                try:
                    await closing.wait()
                finally:
                    self._client = None

    def _brought(
        self,
        offered: Sequence[Any],
        images: Mapping[str, Sequence[str]],
        only: Sequence[str] | None,
    ) -> Iterator[ForeignTool]:
        names = [one.name for one in offered]
        for name in (*images, *(only or ())):
            if name not in names:
                raise ConfigError(
                    f"the server has no tool {name!r}; there are: {', '.join(names) or 'none'}"
                )
        for one in offered:
            if only is not None and one.name not in only:
                continue
            schema = one.input_schema
            taking = [*images.get(one.name, ())]
            taking += [key for key in _images_in(schema) if key not in taking]
            parameters, went = for_model(schema, taking, one.name)
            yield ForeignTool(
                self._caller(one.name),
                one.name,
                one.description or one.title or one.name,
                parameters,
                went,
                "base64",
            )

    def _caller(self, name: str) -> Any:
        async def call(arguments: dict[str, Any]) -> Observation:
            client, loop = self._client, self._loop
            if client is None or loop is None or not self._thread.is_alive():
                raise ToolError(f"{name} is not available: the session with its server has ended")
            request = client.call_tool(name, arguments)
            try:
                asked = asyncio.run_coroutine_threadsafe(request, loop)
            except RuntimeError as exc:  # the loop ended just now
                request.close()
                raise ToolError(f"{name} is not available: its session has ended") from exc
            try:
                # The session's loop may end without an answer, so the wait has an end of its own.
                result = await asyncio.wait_for(asyncio.wrap_future(asked), self._timeout_s + 5)
            except asyncio.CancelledError:
                raise
            except Exception as exc:
                raise ToolError(f"{name} could not be called: {_reason(exc)}") from exc
            return read_result(name, result)

        return call


def _images_in(schema: Mapping[str, Any]) -> Iterator[str]:
    for key, inner in schema.get("properties", {}).items():
        kind = inner.get("contentMediaType", "") if isinstance(inner, Mapping) else ""
        if str(kind).startswith("image/"):
            yield key


def read_result(name: str, result: Any) -> Observation:
    """Observation of what the server answered.

    Raises:
        ToolError: It says that the call failed, or has nothing but images that can't be read.
    """
    parts: list[str | Image] = []
    broken: list[str] = []
    for block in result.content:
        try:
            parts.append(_shown(block))
        except ToolError as exc:
            parts.append(f"({exc})")
            broken.append(str(exc))
    # Servers say structured content again as text; where they don't, it is all there is.
    texts = [block.text for block in result.content if block.type == "text"]
    data = getattr(result, "structured_content", None)
    if data is not None and not any(text.strip() for text in texts):
        parts = [part for part in parts if not isinstance(part, str) or part.strip()]
        parts.append(json.dumps(data, ensure_ascii=False))
    if result.is_error:
        why = " ".join(part for part in parts if isinstance(part, str) and part.strip())
        raise ToolError(why or f"{name} failed without a reason")
    if broken and len(broken) == len(parts):
        raise ToolError(broken[0])
    content: list[str | Image] = []
    for part in parts:
        if isinstance(part, str) and content and isinstance(content[-1], str):
            content[-1] = f"{content[-1]}\n{part}"
        else:
            content.append(part)
    return Observation(tuple(content) or ("(no result)",))


def _shown(block: Any) -> str | Image:
    """A block of a result.

    Raises:
        ToolError: An image that can't be read.
    """
    if block.type == "text":
        return str(block.text)
    if block.type == "image":
        return image_from_base64(block.data)
    if block.type == "resource_link":
        return str(block.uri)
    if block.type == "resource":
        resource = block.resource
        if hasattr(resource, "text"):
            return str(resource.text)
        kind = getattr(resource, "mime_type", None) or getattr(resource, "mimeType", None) or ""
        blob = str(getattr(resource, "blob", None) or "")
        try:
            held = shown_or_told(encoded_image(blob, DEFAULT_LIMITS.max_bytes), str(kind))
        except ImageError:
            held = None
        if isinstance(held, bytes):
            return image_from_base64(blob)
        if held is not None:
            return held
    return f"({block.type} that can't be shown)"


def _reason(exc: BaseException) -> str:
    """The first error within a group: the task groups of the client wrap what went wrong."""
    while isinstance(exc, BaseExceptionGroup) and exc.exceptions:
        exc = exc.exceptions[0]
    return describe(exc)
