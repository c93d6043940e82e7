"""A funnel as an MCP server (Model Context Protocol): one tool, that asks about images.

What is asked at the same time shares batches, as with `SpecPipeline.ask`. Images come as data.
Files are read only out of a folder that the operator names, and addresses are never fetched.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from typing_extensions import TypedDict

from speceyes.errors import ConfigError, ImageError, InputError
from speceyes.images import ImageLimits, load_image
from speceyes.integrations import installed
from speceyes.pipeline import SpecPipeline
from speceyes.types import Image, Query, Result

if TYPE_CHECKING:
    from mcp.server import MCPServer

_log = logging.getLogger(__name__)

TOOL: Final = "ask_about_image"

_ABOUT = """\
Answers a question about one or several images. A small model drafts the answer; where it is not \
sure enough, an agent looks closer by itself. Each image is a data URL \
(data:image/png;base64,...) or the base64 of a PNG, JPEG, WEBP, GIF, BMP or TIFF file."""

_FAILED: Final = "the question could not be answered; the server's log says why"

_FILES = " Files are named relative to the server's image folder."


class Reply(TypedDict):
    """The tool's result, as structured content."""

    answer: str
    route: str
    score: float | None
    threshold: float | None
    accepted: bool | None
    p_tools: float | None
    depth: int
    seconds: float | None


@dataclass(frozen=True, slots=True)
class McpLimits:
    """Limits of a call.

    Args:
        images: Most images of a call.
        image: Limits of each image.
        characters: Most characters of question and choices together.
        waiting: Most calls that are not answered yet; more are told to come again.

    Raises:
        ConfigError: A limit is below 1.
    """

    images: int = 8
    image: ImageLimits = field(
        default_factory=lambda: ImageLimits(max_bytes=16 * 2**20, max_frames=100)
    )
    characters: int = 20_000
    waiting: int = 256

    def __post_init__(self) -> None:
        for name in ("images", "characters", "waiting"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}; it must be at least 1")

    @property
    def body_bytes(self) -> int:
        """Most bytes of a call: its images in base64, and its texts."""
        return self.images * (self.image.max_bytes * 4 // 3 + 1024) + 8 * self.characters + 65_536


def mcp_server(
    pipe: SpecPipeline,
    *,
    name: str = "speceyes",
    folder: str | Path | None = None,
    limits: McpLimits | None = None,
) -> MCPServer[Any]:
    """A server with the tool `ask_about_image`; run it with its own `run`, or serve its app.

    The pipeline is asked through `SpecPipeline.ask`; whoever made it closes it. Needs the extra
    `mcp`.

    Args:
        pipe: The funnel that answers.
        name: Of the server.
        folder: Images in it, and below it, may be asked about by their names; None reads no file.
        limits: Limits of a call.

    Raises:
        ConfigError: mcp is not installed, or folder is not a folder.

    Example:
        >>> from speceyes.models.scripted import ScriptedModel
        >>> pipe = SpecPipeline.from_pretrained(small=ScriptedModel("red"), judge=None)
        >>> mcp_server(pipe).name
        'speceyes'
    """
    try:
        from mcp.server import MCPServer
        from mcp.server.mcpserver.exceptions import ToolError
    except ImportError as exc:
        raise ConfigError('mcp is not installed: pip install "speceyes[mcp]"') from exc
    most = limits or McpLimits()
    place = None if folder is None else _folder(folder)
    waiting = 0

    async def asked(
        question: str, images: Sequence[str], files: Sequence[str], choices: Sequence[str]
    ) -> Reply:
        nonlocal waiting
        if waiting >= most.waiting:
            raise ToolError(f"{waiting} questions are waiting already: ask again later")
        waiting += 1
        try:
            _check(question, [*images, *files], choices, most)
            loaded = await asyncio.to_thread(_images, images, files, place, most.image)
            result = await pipe.ask(Query(question, loaded, tuple(choices)))
        except InputError as exc:
            raise ToolError(str(exc)) from exc
        except Exception as exc:
            _log.exception("a question could not be answered")
            raise ToolError(_FAILED) from exc
        finally:
            waiting -= 1
        if result.answer is None:
            # The reason is the operator's: it may name models, engines and files of this machine.
            _log.error("a question has no answer: %s", result.error)
            raise ToolError(_FAILED)
        return reply_of(result)

    async def ask(question: str, images: list[str], choices: list[str] | None = None) -> Reply:
        return await asked(question, images, (), choices or ())

    async def ask_with_files(
        question: str,
        images: list[str] | None = None,
        files: list[str] | None = None,
        choices: list[str] | None = None,
    ) -> Reply:
        return await asked(question, images or (), files or (), choices or ())

    server = MCPServer(name, version=installed(), log_level="WARNING")
    server.add_tool(
        ask if place is None else ask_with_files,
        name=TOOL,
        description=_ABOUT if place is None else _ABOUT + _FILES,
        structured_output=True,
    )
    return server


def reply_of(result: Result) -> Reply:
    """A result that has an answer, as the client gets it."""
    judgement, verdict = result.judgement, result.verdict
    score = None if verdict is None else verdict.score
    return Reply(
        answer=result.answer or "",
        route=result.route,
        score=score,
        threshold=None if verdict is None else verdict.threshold,
        accepted=None if verdict is None else verdict.accepted,
        p_tools=None if judgement is None else judgement.p_tools,
        depth=0 if result.trajectory is None else result.trajectory.depth,
        seconds=result.timings.latency,
    )


def _check(question: str, images: Sequence[str], choices: Sequence[str], most: McpLimits) -> None:
    if not images:
        raise InputError("there is no image: pass at least one")
    if len(images) > most.images:
        raise InputError(f"{len(images)} images; at most {most.images} are taken at once")
    length = len(question) + sum(map(len, choices))
    if length > most.characters:
        raise InputError(f"question and choices have {length} characters, of {most.characters}")


def _images(
    images: Sequence[str], files: Sequence[str], folder: Path | None, limits: ImageLimits
) -> tuple[Image, ...]:
    """The images of a call: those sent, then those named.

    Raises:
        ImageError: One of them can't be had.
    """
    loaded = []
    for text in images:
        if "://" in text[:100]:
            raise ImageError("addresses are not fetched here: send the image itself as a data URL")
        # A data URL needs a type, which is not looked at: the bytes themselves tell the format.
        url = text if text[:5].lower() == "data:" else f"data:image/png;base64,{text}"
        loaded.append(load_image(url, limits=limits))
    for name in files:
        if folder is None:  # the tool has no such argument then
            raise ImageError("files are not read here: send the image itself as a data URL")
        loaded.append(load_image(confined(folder, name), limits=limits))
    return tuple(loaded)


def confined(folder: Path, name: str) -> Path:
    """The file of that name in the folder, or below it, with all links followed.

    Args:
        folder: Resolved already.
        name: Relative to it.

    Raises:
        ImageError: It isn't there, or not in the folder; the two are not told apart.
    """
    refused = ImageError(
        f"there is no image {name[:120]!r:.120} in the folder; names are relative to it"
    )
    try:
        # An absolute name would replace the folder, and is caught by what follows.
        found = (folder / name).resolve(strict=True)
    except (OSError, ValueError, RuntimeError):
        raise refused from None
    if not found.is_relative_to(folder) or not found.is_file():
        raise refused
    return found


def _folder(folder: str | Path) -> Path:
    place = Path(folder).resolve()
    if not place.is_dir():
        raise ConfigError(f"{str(folder)!r} is not a folder: name one that holds images")
    return place
