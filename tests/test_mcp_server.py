"""The MCP server, asked by the real client: in memory, over stdio, over streamable HTTP."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import socket
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from speceyes import SpecPipeline, tiny
from speceyes.cli import parser
from speceyes.errors import ConfigError, ImageError
from speceyes.images import ImageLimits
from speceyes.integrations.mcp_server import TOOL, McpLimits, confined, mcp_server
from speceyes.tiny.scenes import questions
from support.engine_server import bundled_engines
from support.processes import until
from support.served import data_url, pipeline

mcp = pytest.importorskip("mcp", reason="the extra 'mcp' is not installed")

RED = Image.new("RGB", (64, 48), "red")
needs_weights = pytest.mark.skipif(
    not tiny.LARGE.is_dir(), reason="the tiny pair's weights are not in this checkout"
)


def png(image: Image.Image = RED) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def talk(server: Any, words: Callable[[Any], Awaitable[Any]]) -> Any:
    """What a client makes of a server, an address or a command."""

    async def session() -> Any:
        async with mcp.Client(server) as client:
            return await words(client)

    return asyncio.run(session())


def asked(pipe: SpecPipeline, arguments: dict[str, Any], **options: Any) -> Any:
    with pipe:
        return talk(mcp_server(pipe, **options), lambda client: client.call_tool(TOOL, arguments))


def refused(arguments: dict[str, Any], **options: Any) -> str:
    result = asked(pipeline(), arguments, **options)
    assert result.is_error
    return " ".join(block.text for block in result.content)


def test_answer_route_and_score_come_structured() -> None:
    for question, route, answer in (("easy", "draft", "red"), ("hard", "agent", "blue")):
        pipe = pipeline(judge={"hard": "yes", "": "no"})
        result = asked(pipe, {"question": question, "images": [data_url()]})
        said = result.structured_content
        assert not result.is_error and (said["route"], said["answer"]) == (route, answer)
        drafted = route == "draft"
        assert (said["score"] is not None) == (said["accepted"] is not None) == drafted
        assert said["threshold"] == (0.98 if drafted else None)
        assert 0 <= said["p_tools"] <= 1 and said["depth"] == 0 and said["seconds"] > 0
        assert json.loads(result.content[0].text) == said


def test_the_tool_says_what_it_takes() -> None:
    with pipeline() as pipe:
        [tool] = talk(mcp_server(pipe), lambda client: client.list_tools()).tools
        [more] = talk(mcp_server(pipe, folder="."), lambda client: client.list_tools()).tools
    assert tool.name == TOOL and set(tool.input_schema["required"]) == {"question", "images"}
    assert set(tool.input_schema["properties"]) == {"question", "images", "choices"}
    assert {"answer", "route", "score"} <= set(tool.output_schema["properties"])
    assert "files" in more.input_schema["properties"] and "folder" in more.description


def test_questions_of_a_session_share_batches() -> None:
    async def words(client: Any) -> list[Any]:
        calls = (
            client.call_tool(TOOL, {"question": f"q{at}", "images": [png()], "choices": ["a", "b"]})
            for at in range(6)
        )
        return await asyncio.gather(*calls)

    with pipeline() as pipe:
        results = talk(mcp_server(pipe), words)
    assert [result.structured_content["answer"] for result in results] == ["red"] * 6


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"question": " ", "images": [png()]}, "blank"),
        ({"question": "q", "images": []}, "there is no image"),
        ({"question": "q", "images": [png()] * 3}, "at most 2"),
        ({"question": "q" * 99, "images": [png()]}, "99 characters"),
        ({"question": "q", "images": ["https://example.org/x.png"]}, "not fetched"),
        ({"question": "q", "images": ["file:///etc/passwd"]}, "not fetched"),
        ({"question": "q", "images": ["/etc/passwd"]}, "data URL"),
        ({"question": "q", "images": [png(Image.new("RGB", (99, 99)))]}, "max_pixels=5000"),
        ({"question": "q", "images": ["A" * 9000]}, "max_bytes=2000"),
        ({"question": "q", "images": [base64.b64encode(b"GIF89a").decode()]}, "data URL"),
        ({"question": "q", "images": [png()], "files": ["a.png"]}, ""),
        ({"images": [png()]}, "question"),
        ({"question": "q", "images": [7]}, "images"),
    ],
)
def test_what_is_too_much_or_not_allowed_is_refused(arguments: dict[str, Any], told: str) -> None:
    limits = McpLimits(images=2, image=ImageLimits(max_pixels=5000, max_bytes=2000), characters=50)
    if "files" in arguments:  # not an argument at all: it is dropped or refused, never read
        result = asked(pipeline(), arguments, limits=limits)
        assert result.is_error or result.structured_content["answer"] == "red"
        return
    said = refused(arguments, limits=limits)
    assert told in said and "0x" not in said


def test_a_failure_is_told_as_one() -> None:
    pipe = pipeline(judge="yes", agent=ValueError("the engine is down"))
    result = asked(pipe, {"question": "q", "images": [png()]})
    assert result.is_error and "the server's log says why" in result.content[0].text
    assert "engine is down" not in result.content[0].text


def test_more_than_may_wait_are_told_to_come_again() -> None:
    free = threading.Event()

    def slow(conversation: Any, sampling: Any) -> str:
        assert free.wait(60)
        return "red"

    async def words(client: Any) -> list[Any]:
        call = {"question": "q", "images": [png()]}
        waiting = [asyncio.create_task(client.call_tool(TOOL, call)) for _ in range(5)]
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        free.set()
        assert all(task.result().is_error for task in done)
        return await asyncio.gather(*waiting)

    with pipeline(draft=slow) as pipe:
        results = talk(mcp_server(pipe, limits=McpLimits(waiting=2)), words)
    assert sum(result.is_error for result in results) == 3
    assert "ask again later" in next(r for r in results if r.is_error).content[0].text


def test_a_folder_is_read_and_nothing_beside_it(tmp_path: Path) -> None:
    inside, outside = tmp_path / "photos", tmp_path / "private"
    (inside / "deep").mkdir(parents=True)
    outside.mkdir()
    for place in (inside / "a.png", inside / "deep" / "b.png", outside / "c.png"):
        RED.save(place)
    (inside / "link.png").symlink_to(outside / "c.png")
    (inside / "out").symlink_to(outside)
    for name in ("a.png", "deep/b.png", "deep/../a.png"):
        result = asked(pipeline(), {"question": "q", "files": [name]}, folder=inside)
        assert result.structured_content["answer"] == "red"
    for name in (
        "../private/c.png",
        str(outside / "c.png"),
        "link.png",
        "out/c.png",
        "missing.png",
        ".",
        "a.png\0",
        "x" * 5000,
    ):
        said = refused({"question": "q", "files": [name]}, folder=inside)
        assert "there is no image" in said and "private" not in said.replace(name[:120], "")
    with pytest.raises(ConfigError, match="is not a folder"):
        mcp_server(pipeline(), folder=inside / "a.png")


@settings(max_examples=60)
@given(st.lists(st.sampled_from(["..", ".", "in", "out", "a.png", "/", "~", "etc"]), max_size=6))
def test_no_name_leads_out(tmp_path_factory: pytest.TempPathFactory, parts: list[str]) -> None:
    root = tmp_path_factory.getbasetemp() / "confined"
    folder = root / "in"
    if not folder.exists():
        folder.mkdir(parents=True)
        RED.save(folder / "a.png")
        RED.save(root / "a.png")
        (folder / "out").symlink_to(root)
    try:
        found = confined(folder.resolve(), "/".join(parts))
    except ImageError:
        return
    assert found == (folder / "a.png").resolve()


@needs_weights
def test_the_tiny_pair_answers_over_stdio(tmp_path: Path) -> None:
    """The pair is loaded here, and asked by its address; test_examples.py has the command load it,
    which takes 8 CPU seconds.
    """
    items = list(questions("heldout", 20))
    hard = next(item for item in items if item.kind == "card/same")
    easy = next(item for item in items if item.kind == "large/colour")

    async def words(client: Any) -> list[Any]:
        calls = (
            client.call_tool(
                TOOL, {"question": item.query.question, "images": [png(item.query.images[0])]}
            )
            for item in (easy, hard)
        )
        return [result.structured_content for result in await asyncio.gather(*calls)]

    with bundled_engines() as told, (tmp_path / "log").open("w", encoding="utf-8") as log:
        command = mcp.StdioServerParameters(
            command=sys.executable, args=["-m", "speceyes", "mcp", *told], env=dict(os.environ)
        )
        draft, agent = talk(mcp.stdio_client(command, errlog=log), words)
    assert (draft["answer"], draft["route"], draft["depth"]) == (easy.answer, "draft", 0)
    assert draft["score"] >= draft["threshold"] and draft["accepted"] is True
    assert (agent["answer"], agent["route"], agent["depth"]) == (hard.answer, "agent", 2)
    assert agent["p_tools"] > 0.5
    assert "Traceback" not in (tmp_path / "log").read_text("utf-8")


def test_it_answers_over_streamable_http() -> None:
    pipe = pipeline(judge={"hard": "yes", "": "no"})
    limits = McpLimits()
    app = mcp_server(pipe).streamable_http_app(max_request_body_size=limits.body_bytes)
    config = uvicorn.Config(app, log_level="warning", timeout_keep_alive=60)
    server = uvicorn.Server(config)
    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    address = f"127.0.0.1:{listening.getsockname()[1]}"

    async def words(client: Any) -> list[Any]:
        noise = png(Image.effect_noise((1500, 1500), 90).convert("RGB"))
        assert len(noise) > 5_000_000  # more than MCP's own limit
        calls = (
            client.call_tool(TOOL, {"question": asked, "images": [image]})
            for asked, image in (("easy", noise), ("hard", png()))
        )
        return [result.structured_content for result in await asyncio.gather(*calls)]

    try:
        with pipe:
            until(lambda: server.started)
            draft, agent = talk(f"http://{address}/mcp", words)
            # A page elsewhere must not get here by a name that leads to this machine.
            body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
            kinds = {"Accept": "application/json, text/event-stream"}
            with httpx.Client(trust_env=False, timeout=60) as http:
                for hostile in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}):
                    reply = http.post(f"http://{address}/mcp", json=body, headers=kinds | hostile)
                    assert reply.status_code in (403, 421)
    finally:
        server.should_exit = True
        thread.join(60)
        listening.close()
    assert (draft["answer"], draft["route"]) == ("red", "draft")
    assert (agent["answer"], agent["route"]) == ("blue", "agent")


def test_others_are_let_in_only_on_purpose() -> None:
    options = parser().parse_args(["mcp", "--http", "--host", "0.0.0.0"])
    with pytest.raises(ConfigError, match="--anyone"):
        options.run(options)
    with pytest.raises(ConfigError, match="images=0"):
        McpLimits(images=0)


def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mcp.server", None)
    with pytest.raises(ConfigError, match=r"speceyes\[mcp\]"):
        mcp_server(pipeline())
