"""`speceyes mcp`: a funnel as an MCP server."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import Final

from speceyes.cli import models
from speceyes.cli.options import command
from speceyes.errors import ConfigError

ABOUT = """\
Serves a funnel as an MCP server with one tool, ask_about_image, whose structured result
carries answer, route and score. Without models the bundled tiny pair answers, which knows only
its own synthetic scenes.

  speceyes mcp                          over standard input and output, for a client's settings
  speceyes mcp --http --port 8765       over streamable HTTP, at http://127.0.0.1:8765/mcp
  speceyes mcp --folder ~/photos        images of this folder may be named too
  speceyes mcp --large http://gpu1:8000/v1 --small http://gpu2:8000/v1

Clients send images as data URLs or base64. No file is read and no address is fetched, but for
images of the folder that --folder names. docs/embedding.md has more."""

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


LIMITS: Final = (
    ("max-images", 8, "of a question"),
    ("max-pixels", 89_478_485, "of an image"),
    ("max-bytes", 16 << 20, "of an encoded image"),
    ("queue", 256, "questions that are not answered yet"),
)
"""Defaults of `McpLimits`, said here once more so that --help need not import it."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command to an argparse sub-parser set."""
    one = command(commands, "mcp", help="serve a funnel to agents over MCP", description=ABOUT)
    models.add_models(one, speculate="auto", served=True)
    net = one.add_argument_group("transport")
    net.add_argument("--http", action="store_true", help="streamable HTTP instead of stdio")
    net.add_argument("--host", default="127.0.0.1", help="default: %(default)s")
    net.add_argument("--port", type=int, default=8765, help="default: %(default)s")
    net.add_argument(
        "--anyone",
        action="store_true",
        help="let everybody in who reaches --host; there are no keys",
    )
    most = one.add_argument_group("limits")
    most.add_argument("--folder", type=Path, help="images in it may be named by clients")
    for name, value, what in LIMITS:
        most.add_argument(
            f"--{name}", type=int, default=value, metavar="N", help=f"{what}; default: %(default)s"
        )
    one.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Runs it until its input ends, or until it is interrupted; the exit code."""
    from speceyes.images import ImageLimits
    from speceyes.integrations.mcp_server import McpLimits, mcp_server

    if options.http and options.host not in _LOOPBACK and not options.anyone:
        raise ConfigError(
            f"--host {options.host} lets others in, and MCP's clients carry no keys here: pass "
            "--anyone where something else keeps them out"
        )
    limits = McpLimits(
        images=options.max_images,
        image=ImageLimits(
            max_bytes=options.max_bytes,
            max_pixels=options.max_pixels,
            max_frames=McpLimits().image.max_frames,
        ),
        waiting=options.queue,
    )
    # On stdio the client waits for the first answer while the models load; say what goes on.
    with models.pipeline(options) as pipe:
        server = mcp_server(pipe, folder=options.folder, limits=limits)
        if not options.debug:
            logging.getLogger("mcp").setLevel(logging.ERROR)
        if options.http:
            sys.stderr.write(f"speceyes: MCP on http://{options.host}:{options.port}/mcp\n")
            sys.stderr.flush()
            server.run(
                "streamable-http",
                host=options.host,
                port=options.port,
                max_request_body_size=limits.body_bytes,
            )
        else:
            server.run("stdio")
    return 0
