"""Tools of smolagents, LangChain and MCP servers, held against the real packages."""

from __future__ import annotations

import asyncio
import base64
import importlib
import io
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as PILImage

from speceyes.errors import ConfigError, ToolError
from speceyes.tools import Tools, tool
from speceyes.tools.adapters import McpTools, from_langchain, from_smolagents, mcp_tools
from speceyes.tools.adapters.foreign import ForeignTool, contents, for_model
from speceyes.tools.adapters.mcp import read_result
from speceyes.types import ToolCall
from support.processes import our_threads, started

RED = PILImage.new("RGB", (40, 30), "red")
BLUE = PILImage.new("RGB", (20, 10), "blue")


def needs(module: str, name: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        pytest.skip(f"the extra {name!r} is not installed")


def png(image: PILImage.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


# --- what all of them share ------------------------------------------------------------------


def test_results_become_content() -> None:
    assert contents("text") == ("text",)
    assert contents(None) == ("(no result)",)
    assert contents({"a": [1, True]}) == ('{"a": [1, true]}',)
    assert contents([1, 2]) == ("[1, 2]",)
    assert contents(object)[0].startswith("<class")  # type: ignore[union-attr]
    blocks = [
        {"type": "text", "text": "seen"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{png(RED)}"}},
        {"type": "image", "base64": png(BLUE), "mime_type": "image/png"},
        {"type": "image_url", "image_url": {"url": "https://example.org/never-fetched.png"}},
    ]
    text, red, blue, address = contents(blocks)
    assert text == "seen" and address == "https://example.org/never-fetched.png"
    assert isinstance(red, PILImage.Image) and red.getpixel((0, 0)) == (255, 0, 0)
    assert isinstance(blue, PILImage.Image) and blue.size == (20, 10)


def test_an_image_that_is_none_is_told_to_the_model() -> None:
    broken = ForeignTool(
        lambda _: {"type": "image", "base64": "AAAA"}, "broken", "Doc.", {"type": "object"}
    )
    seen = Tools([broken]).run(ToolCall("broken", {}), [RED])
    assert seen.error is not None and "can't be used" in seen.error


def encoded(image: PILImage.Image, kind: str) -> str:
    file = io.BytesIO()
    image.save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize(
    "block",
    [
        {"type": "image", "data": png(RED), "mimeType": "image/png"},
        {"type": "image", "data": f"data:image/png;base64,{png(RED)}", "mimeType": "image/png"},
        {"type": "image", "base64": png(RED).encode(), "mime_type": "image/png"},
        {"type": "image", "base64": base64.b64decode(png(RED)), "mime_type": "image/png"},
        {"type": "image", "source": {"type": "base64", "data": png(RED)}},
        {"type": "input_image", "image_url": f"data:image/png;base64,{png(RED)}"},
        {"type": "image_url", "image_url": {"url": f"data:application/x;base64,{png(RED)}"}},
        {"type": "image", "data": encoded(RED, "TIFF"), "mimeType": "image/x-tiff"},
        {"type": "image", "data": encoded(RED, "BMP"), "mimeType": "image/x-ms-bmp"},
        {"type": "file", "base64": encoded(RED, "WEBP"), "mime_type": "image/webp"},
    ],
)
def test_image_blocks_are_read_in_each_form(block: dict[str, Any]) -> None:
    for returned in (block, [block], ["seen", block]):
        *_, image = contents(returned)
        assert isinstance(image, PILImage.Image) and image.size == (40, 30)


def test_text_beside_a_broken_image_is_kept() -> None:
    broken = {"type": "image", "base64": "AAAA"}
    text, told, red = contents([{"type": "text", "text": "3 cups"}, broken, RED])
    assert text == "3 cups" and "can't be used" in str(told)
    assert isinstance(red, PILImage.Image)
    with pytest.raises(ToolError, match="can't be used"):
        contents([broken, broken])


def test_what_only_looks_like_a_block_is_written_as_json() -> None:
    for data in ({"type": "image", "name": "cat"}, {"text": "a", "score": 1}, {"type": 3}):
        assert contents(data) == (json.dumps(data),)


def test_image_arguments_become_numbers() -> None:
    schema = {
        "properties": {
            "left": {"type": "string", "description": "The left one."},
            "right": {"type": "string"},
            "open": True,
        },
        "required": ["left", "right"],
    }
    shown, went = for_model(schema, ["left", "right"], "compare")
    assert went == {"img_idx": "left", "right": "right"}
    assert shown["required"] == ["right"]
    assert shown["properties"]["open"] == {}
    assert shown["properties"]["img_idx"]["type"] == "integer"
    assert "The left one." in shown["properties"]["img_idx"]["description"]
    with pytest.raises(ConfigError, match="no argument 'middle'; there are: left, right, open"):
        for_model(schema, ["middle"], "compare")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [({"right": 2}, "right=2 is not an image; use 0 to 1"), ({}, "right must be given")],
)
def test_images_that_are_not_there(arguments: dict[str, Any], told: str) -> None:
    shown, went = for_model(
        {"properties": {"left": {}, "right": {}}, "required": ["left", "right"]},
        ["left", "right"],
        "compare",
    )
    compare = ForeignTool(lambda given: "never", "compare", "Doc.", shown, went)
    seen = Tools([compare]).run(ToolCall("compare", arguments), [RED, BLUE])
    assert seen.error is not None and told in seen.error


@pytest.mark.parametrize(
    ("bring", "module", "name"),
    [
        (lambda: from_smolagents(print), "smolagents", "smolagents"),
        (lambda: from_langchain(print), "langchain_core.tools", "langchain"),
        (lambda: mcp_tools(["true"]), "mcp", "mcp"),
    ],
)
def test_a_missing_package_names_its_extra(
    bring: Any, module: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"pip install \"speceyes\[{name}\]\""):
        bring()


# --- smolagents ------------------------------------------------------------------------------


def test_a_smolagents_tool_gets_images_and_gives_them() -> None:
    smolagents = needs("smolagents", "smolagents")

    class Crop(smolagents.Tool):  # type: ignore[misc, name-defined]
        name = "crop"
        description = "Crops the left part."
        inputs = {  # noqa: RUF012 - smolagents wants it so
            "photo": {"type": "image", "description": "What to crop."},
            "share": {"type": "number", "description": "How much.", "nullable": True},
        }
        output_type = "image"

        def forward(self, photo, share=None):  # type: ignore[no-untyped-def]
            return photo.crop((0, 0, round(photo.width * (share or 0.5)), photo.height))

    brought = from_smolagents(Crop())
    assert brought.parameters["properties"]["share"]["type"] == ["number", "null"]
    assert brought.parameters["required"] == []
    tools = Tools([brought])
    seen = tools.run(ToolCall("crop", {"img_idx": 1, "share": 0.25}), [RED, BLUE])
    assert seen.error is None and seen.source == 1
    assert seen.images[0].size == (5, 10) and seen.images[0].getpixel((0, 0)) == (0, 0, 255)
    assert tools.run(ToolCall("crop", {}), [RED, BLUE]).images[0].size == (20, 30)
    assert tools.run(ToolCall("crop", {"share": "much"}), [RED]).error is not None
    assert tools.run(ToolCall("crop", {"zoom": 1}), [RED]).error is not None


def test_a_smolagents_function_and_what_it_raises() -> None:
    smolagents = needs("smolagents", "smolagents")

    def divide(a: int, b: int) -> float:
        """Divides.

        Args:
            a: What is divided.
            b: By what.
        """
        return a / b

    tools = Tools([from_smolagents(smolagents.tool(divide))])
    assert tools.run(ToolCall("divide", {"a": 3, "b": 2}), [RED]).content == ("1.5",)
    seen = tools.run(ToolCall("divide", {"a": 3, "b": 0}), [RED])
    assert seen.error is not None and "ZeroDivisionError" in seen.error
    with pytest.raises(ConfigError, match="not a smolagents tool"):
        from_smolagents(tool)


# --- LangChain -------------------------------------------------------------------------------


def test_a_langchain_tool_gets_images_and_gives_them() -> None:
    langchain = needs("langchain_core.tools", "langchain")

    @langchain.tool  # type: ignore[untyped-decorator]
    def shrink(picture: str, by: int = 2) -> list[dict[str, Any]]:
        """Makes a picture smaller."""
        head, data = picture.split(",")
        assert head == "data:image/png;base64"
        image = PILImage.open(io.BytesIO(base64.b64decode(data)))
        return [
            {"type": "text", "text": f"by {by}"},
            {"type": "image", "base64": png(image.reduce(by)), "mime_type": "image/png"},
        ]

    brought = from_langchain(shrink, images=["picture"])
    assert brought.name == "shrink" and brought.description == "Makes a picture smaller."
    assert brought.parameters["properties"]["img_idx"]["type"] == "integer"
    tools = Tools([brought])
    seen = tools.run(ToolCall("shrink", {"img_idx": 1, "by": 2}), [RED, BLUE])
    assert seen.error is None and seen.content[0] == "by 2" and seen.images[0].size == (10, 5)
    assert tools.run(ToolCall("shrink", {"by": "five"}), [RED]).error is not None
    with pytest.raises(ConfigError, match="no argument 'photo'"):
        from_langchain(shrink, images=["photo"])


def test_langchain_tools_that_are_async_or_refuse() -> None:
    langchain = needs("langchain_core.tools", "langchain")

    @langchain.tool  # type: ignore[untyped-decorator]
    async def later(word: str) -> str:
        """Says it later."""
        await asyncio.sleep(0.01)
        return word * 2

    @langchain.tool  # type: ignore[untyped-decorator]
    def refusing(word: str) -> str:
        """Never does."""
        raise langchain.ToolException(f"no {word} here")

    tools = Tools([from_langchain(later), from_langchain(refusing)])
    assert tools.run(ToolCall("later", {"word": "so"}), [RED]).content == ("soso",)
    assert tools.run(ToolCall("refusing", {"word": "cat"}), [RED]).error == "no cat here"
    with pytest.raises(ConfigError, match="not a LangChain tool"):
        from_langchain(tool)


def test_a_langchain_schema_that_is_no_json_is_refused() -> None:
    langchain = needs("langchain_core.tools", "langchain")

    @langchain.tool  # type: ignore[untyped-decorator]
    def odd(image: PILImage.Image) -> str:
        """Takes what JSON has not."""
        return "seen"

    with pytest.raises(ConfigError, match="can't be written as a JSON schema"):
        from_langchain(odd)


# --- MCP -------------------------------------------------------------------------------------

SERVER = '''
import base64, io, os, sys, time
from typing import Annotated
from mcp.server.mcpserver import MCPServer, Image
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import BlobResourceContents, CallToolResult, EmbeddedResource
from PIL import Image as PILImage
from pydantic import Field

server = MCPServer("pictures")


@server.tool()
def counted() -> CallToolResult:
    """Structured content alone."""
    return CallToolResult(content=[], structured_content={"cups": 3, "of": ["red", "blue"]})


@server.tool()
def embedded(kind: str = "image/png") -> CallToolResult:
    """A picture as an embedded resource."""
    buffer = io.BytesIO()
    PILImage.new("RGB", (9, 7), "red").save(buffer, "PNG")
    blob = base64.b64encode(buffer.getvalue()).decode()
    inside = BlobResourceContents(uri="file:///a.png", mime_type=kind or None, blob=blob)
    return CallToolResult(content=[EmbeddedResource(type="resource", resource=inside)])

Picture = Annotated[str, Field(json_schema_extra={"contentMediaType": "image/png"})]

@server.tool()
def mirror(picture: Picture, word: str = "mirrored") -> list:
    """Mirrors a picture."""
    image = PILImage.open(io.BytesIO(base64.b64decode(picture)))
    file = io.BytesIO()
    image.transpose(PILImage.Transpose.FLIP_LEFT_RIGHT).save(file, "PNG")
    return [word, Image(data=file.getvalue(), format="png")]

@server.tool()
def size(photo: str) -> str:
    """Says how large a picture is."""
    return str(PILImage.open(io.BytesIO(base64.b64decode(photo))).size)

@server.tool()
def fail(word: str) -> str:
    """Fails."""
    raise ToolError("no " + word)

@server.tool()
def pid() -> int:
    """Tells the process."""
    return os.getpid()

@server.tool()
def sleep(seconds: float) -> str:
    """Sleeps."""
    time.sleep(seconds)
    return "awake"

@server.tool()
def die() -> str:
    """Ends the server."""
    os._exit(3)

server.run(sys.argv[1], **({"port": int(sys.argv[2])} if sys.argv[2:] else {}))
'''


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    needs("mcp", "mcp")
    path = tmp_path_factory.mktemp("mcp") / "server.py"
    path.write_text(SERVER, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def session(script: Path) -> Iterator[McpTools]:
    with mcp_tools([sys.executable, str(script), "stdio"], images={"size": ["photo"]}) as opened:
        yield opened


def gone(pid: int, within_s: float = 20.0) -> bool:
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_images_go_to_an_mcp_server_and_come_back(session: McpTools) -> None:
    names = {"mirror", "size", "fail", "pid", "sleep", "die", "counted", "embedded"}
    assert {one.name for one in session} == names
    image = RED.copy()
    image.putpixel((0, 0), (0, 255, 0))
    tools = Tools([*session, "zoom"])
    seen = tools.run(ToolCall("mirror", {"img_idx": 1, "word": "so"}), [BLUE, image])
    assert seen.error is None and seen.content[0] == "so" and seen.source == 1
    assert seen.images[0].getpixel((39, 0)) == (0, 255, 0)
    assert tools.run(ToolCall("size", {"img_idx": 0}), [BLUE, image]).content == ("(20, 10)",)


def test_structured_content_and_embedded_images_of_an_mcp_server_are_shown(
    session: McpTools,
) -> None:
    tools = Tools(session)
    seen = tools.run(ToolCall("counted", {}), [])
    assert seen.content == ('{"cups": 3, "of": ["red", "blue"]}',)
    for kind in ("image/png", "", "IMAGE/PNG", "application/octet-stream"):
        shown = tools.run(ToolCall("embedded", {"kind": kind}), []).images[0]
        assert shown.size == (9, 7) and shown.convert("RGB").getpixel((0, 0)) == (255, 0, 0)
    other = tools.run(ToolCall("embedded", {"kind": "application/zip"}), [])
    assert other.content == ("(resource that can't be shown)",)


@pytest.mark.parametrize(
    ("text", "shown"), [([], '{"a": 1}'), ([" "], '{"a": 1}'), (["a is 1"], "a is 1")]
)
def test_structured_content_is_told_where_no_text_is(text: list[str], shown: str) -> None:
    mcp = needs("mcp.types", "mcp")
    blocks = [mcp.TextContent(type="text", text=one) for one in text]
    blocks.append(mcp.ImageContent(type="image", data=png(RED), mime_type="image/png"))
    found = mcp.CallToolResult(content=blocks, structured_content={"a": 1})
    seen = read_result("counted", found)
    assert [part for part in seen.content if isinstance(part, str)] == [shown]
    assert len(seen.images) == 1


def test_structured_content_is_told_beside_what_can_t_be_shown() -> None:
    mcp = needs("mcp.types", "mcp")
    sound = mcp.AudioContent(type="audio", data="AAAA", mime_type="audio/wav")
    link = mcp.ResourceLink(type="resource_link", name="a", uri="file:///a.csv")
    broken = mcp.ImageContent(type="image", data="AAAA", mime_type="image/png")
    for block, told in ((sound, "audio"), (link, "a.csv"), (broken, "can't be used")):
        found = mcp.CallToolResult(content=[block], structured_content={"cups": 3})
        [text] = read_result("counted", found).content
        assert told in str(text) and '{"cups": 3}' in str(text)
    with pytest.raises(ToolError, match="can't be used"):
        read_result("broken", mcp.CallToolResult(content=[broken]))
    failed = mcp.CallToolResult(content=[broken], structured_content={"why": "x"}, is_error=True)
    with pytest.raises(ToolError, match="why"):
        read_result("broken", failed)
    text = mcp.TextContent(type="text", text="3 cups")
    [kept] = read_result("broken", mcp.CallToolResult(content=[text, broken])).content
    assert "3 cups" in str(kept) and "can't be used" in str(kept)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize(
    "mime", [None, "image/png", "IMAGE/X-MS-BMP; charset=binary", "binary/octet-stream", "img"]
)
def test_embedded_images_are_told_by_their_bytes(kind: str, mime: str | None) -> None:
    seen = _embedded(encoded(RED, kind), mime)
    assert [image.size for image in seen.images] == [(40, 30)]
    prefixed = _embedded(f"data:{mime};base64,{encoded(RED, kind)}", mime)
    assert [image.size for image in prefixed.images] == [(40, 30)]


def _embedded(blob: str, mime: str | None) -> Any:
    mcp = needs("mcp.types", "mcp")
    inside = mcp.BlobResourceContents(uri="file:///a", mime_type=mime, blob=blob)
    block = mcp.EmbeddedResource(type="resource", resource=inside)
    return read_result("embedded", mcp.CallToolResult(content=[block]))


@pytest.mark.parametrize(
    ("data", "mime", "shown"),
    [
        (b"cups,3\n", "text/csv", "cups,3\n"),
        (b'{"cups": 3}', "application/json", '{"cups": 3}'),
        ("drei Gläser".encode(), None, "drei Gläser"),
        (b"BMW: 3", "application/octet-stream", "BMW: 3"),
        (b"<svg/>", "image/svg+xml", "<svg/>"),
        (b"PK\x03\x04\x00\xff", "application/zip", "(resource that can't be shown)"),
        (b"%PDF-1.7\x00\xff", None, "(resource that can't be shown)"),
        (b"", "text/plain", "(resource that can't be shown)"),
    ],
)
def test_embedded_texts_are_told(data: bytes, mime: str | None, shown: str) -> None:
    assert _embedded(base64.b64encode(data).decode(), mime).content == (shown,)


def test_what_an_mcp_tool_fails_with_is_told(session: McpTools) -> None:
    tools = Tools(session)
    seen = tools.run(ToolCall("fail", {"word": "luck"}), [RED])
    assert seen.error is not None and "no luck" in seen.error
    seen = tools.run(ToolCall("fail", {"word": 3}), [RED])
    assert seen.error is not None and "text is needed" in seen.error
    assert tools.run(ToolCall("pid", {}), [RED]).error is None


def test_an_mcp_call_that_takes_too_long_is_given_up(session: McpTools) -> None:
    tools = Tools(session, timeout_s=0.3)
    seen = tools.run(ToolCall("sleep", {"seconds": 1.5}), [RED])
    assert seen.error == "sleep took longer than 0.3 s"
    for thread in threading.enumerate():
        if thread.name == "tool sleep":
            thread.join(10)
            assert not thread.is_alive()  # cancelled, not left behind
    assert Tools(session).run(ToolCall("pid", {}), [RED]).error is None


async def _asked(session: McpTools) -> Any:
    return Tools(session, timeout_s=None).run(ToolCall("pid", {}), [RED])


def test_an_mcp_tool_is_called_from_where_a_loop_runs(session: McpTools) -> None:
    assert asyncio.run(_asked(session)).error is None


def test_threads_share_an_mcp_session(session: McpTools) -> None:
    tools = Tools(session)
    seen: list[Any] = []

    def ask(at: int) -> None:
        seen.append((at, tools.run(ToolCall("mirror", {"word": str(at)}), [RED])))

    threads = [threading.Thread(target=ask, args=(at,)) for at in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(at for at, _ in seen) == list(range(6))
    assert all(one.error is None and one.content[0] == str(at) for at, one in seen)


def test_a_server_that_dies_is_told_and_nothing_hangs(script: Path) -> None:
    before = our_threads()
    with mcp_tools([sys.executable, str(script), "stdio"]) as session:
        tools = Tools(session)
        pid = int(str(tools.run(ToolCall("pid", {}), [RED]).content[0]))
        seen = tools.run(ToolCall("die", {}), [RED])
        assert seen.error is not None and seen.error.startswith("die could not be called")
        seen = tools.run(ToolCall("pid", {}), [RED])
        assert seen.error is not None and seen.error.startswith("pid ")
        assert gone(pid)
    assert our_threads() <= before


def test_a_server_at_an_address(script: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(script), "streamable-http", str(port)]
    nowhere = subprocess.DEVNULL
    with started(*command, stdout=nowhere, stderr=nowhere) as server:
        until = time.monotonic() + 30
        while not listening(port) and time.monotonic() < until:
            time.sleep(0.05)
        with mcp_tools(f"http://127.0.0.1:{port}/mcp", images={"size": ["photo"]}) as session:
            tools = Tools(session)
            assert tools.run(ToolCall("size", {}), [BLUE]).content == ("(20, 10)",)
            server.kill()
            server.wait(10)
            assert tools.run(ToolCall("size", {}), [BLUE]).error is not None


def test_a_closed_session_ends_its_server(script: Path) -> None:
    session = mcp_tools([sys.executable, str(script), "stdio"], only=["pid"])
    assert len(session) == 1
    tools = Tools(session)
    pid = int(str(tools.run(ToolCall("pid", {}), [RED]).content[0]))
    session.close()
    session.close()
    assert gone(pid)
    seen = tools.run(ToolCall("pid", {}), [RED])
    assert seen.error == "pid is not available: the session with its server has ended"


@pytest.mark.parametrize(
    ("server", "options", "told"),
    [
        ("server.py", {}, "is no http"),
        ([], {}, "an empty list"),
        (["no-such-command-here"], {}, "can't be used"),
        ([sys.executable, "-c", "pass"], {}, "can't be used"),
        ([sys.executable, "-c", "import time; time.sleep(60)"], {"timeout_s": 0.5}, "0.5 s"),
        (["true"], {"timeout_s": 0}, "timeout_s=0"),
    ],
)
def test_servers_that_are_none(server: Any, options: dict[str, Any], told: str) -> None:
    needs("mcp", "mcp")
    before = our_threads()
    with pytest.raises(ConfigError, match=told):
        mcp_tools(server, **options)
    assert our_threads() <= before


def test_tools_that_the_server_does_not_have(script: Path) -> None:
    with pytest.raises(ConfigError, match=r"no tool 'paint'; there are: .*mirror"):
        mcp_tools([sys.executable, str(script), "stdio"], only=["paint"])
