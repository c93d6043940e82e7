"""Runs the server's application on an address until it is told to end."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import math
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Final

from speceyes.errors import ConfigError
from speceyes.pipeline import SpecPipeline
from speceyes.pipeline.audit import Auditor
from speceyes.protocols import Gate
from speceyes.server.keys import Keys
from speceyes.server.unheard import Unheard

if TYPE_CHECKING:
    from fastapi import FastAPI

ENDED_AT_ONCE: Final = 130
"""Exit code after a second Ctrl-C, 128 + SIGINT, as shells have it."""

_TICKS: Final = 10  # of a tenth of a second each, between two looks at connections


@dataclass(frozen=True, slots=True)
class Renewal:
    """Parts that a server goes on with; None for those that stay.

    Args:
        gate: The gate.
        keys: The clients that are let in.
        auditor: Audits drafts, where none did before.
        pipe: Another pipeline altogether, in place of gate and auditor.
    """

    gate: Gate | None = None
    keys: Keys | None = None
    auditor: Auditor | None = None
    pipe: SpecPipeline | None = None


def run_app(
    app: FastAPI,
    name: str,
    host: str,
    port: int,
    *,
    read_again: Callable[[], Renewal] | None = None,
) -> int:
    """Serves an application until SIGTERM or Ctrl-C; the exit code.

    Says where on standard error, once others can connect.

    Args:
        app: The application.
        name: The model's name.
        host: The address to listen on.
        port: The port; 0 for a free one.
        read_again: Called on SIGHUP, in a thread; gives the gate and the keys to go on with.

    Raises:
        ConfigError: It can't listen there, or uvicorn is not installed.
    """
    try:
        import uvicorn
    except ImportError as exc:
        raise ConfigError(f"{exc.name} is not installed: pip install 'speceyes[serve]'") from exc
    listening = _listen(host, port)
    where = listening.getsockname()
    shown = f"[{where[0]}]" if listening.family == socket.AF_INET6 else where[0]
    limits = app.state.service.limits
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        ws="none",
        timeout_keep_alive=30,
        # By then whatever was accepted is answered or late, and whoever doesn't read is cut off.
        timeout_graceful_shutdown=math.ceil(limits.body_s + limits.seconds + limits.write_s),
    )
    server = uvicorn.Server(config)
    wind_down = server.handle_exit

    def interrupted(number: int, frame: FrameType | None) -> None:
        # Whoever presses Ctrl-C again doesn't want to wait for models. What they compute can't be
        # stopped in this process, and processes of its own end with it.
        if server.should_exit and number == signal.SIGINT:
            sys.stderr.write("speceyes: ended; what was not answered is lost\n")
            sys.stderr.flush()
            os._exit(ENDED_AT_ONCE)
        wind_down(number, frame)

    server.handle_exit = interrupted  # type: ignore[method-assign, assignment]

    unheard = Unheard(server.server_state.connections, limits.head_s)
    tick = server.on_tick

    async def on_tick(counter: int) -> bool:
        if counter % _TICKS == 0:
            unheard.close_late()
        return await tick(counter)

    server.on_tick = on_tick  # type: ignore[method-assign]

    def told(number: int, frame: object) -> None:
        # Before uvicorn listens to signals itself; and after it, since it raises the signal again
        # when all is done: to be told to end is no failure here.
        server.should_exit = True

    async def renew() -> None:
        assert read_again is not None
        try:
            found = await asyncio.to_thread(read_again)
            if found.pipe is not None:
                await app.state.service.exchange(found.pipe)
            await app.state.service.renew(gate=found.gate, keys=found.keys, auditor=found.auditor)
        except ConfigError as exc:
            sys.stderr.write(f"speceyes: not reloaded, the server goes on as it was: {exc}\n")
        else:
            sys.stderr.write("speceyes: reloaded\n")
        sys.stderr.flush()

    def reload(number: int, frame: object) -> None:
        loop = app.state.service.loop
        if loop is not None:
            asyncio.run_coroutine_threadsafe(renew(), loop)

    before = signal.signal(signal.SIGTERM, told)
    if read_again is not None and hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, reload)
    try:
        sys.stderr.write(f"speceyes: serving {name!r} on http://{shown}:{where[1]}/v1\n")
        sys.stderr.flush()
        server.run(sockets=[listening])
    except KeyboardInterrupt:
        pass  # uvicorn raises it again when all is done: to be told to end is no failure
    finally:
        signal.signal(signal.SIGTERM, before)
        listening.close()
    return 0


def log_warnings() -> None:
    """Warnings of the server and of the watch over its gate go to standard error; other libraries
    stay silent.
    """
    logging.disable(logging.NOTSET)
    logging.getLogger().setLevel(logging.ERROR)
    own = logging.StreamHandler()
    own.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for name in ("speceyes.server", "speceyes.pipeline.audit", "speceyes.calibration"):
        logger = logging.getLogger(name)
        logger.addHandler(own)
        logger.setLevel(logging.WARNING)
        logger.propagate = False


def is_loopback(host: str) -> bool:
    """True where only this machine can connect.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("0.0.0.0")
        (True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listen(host: str, port: int) -> socket.socket:
    """A socket that others can connect to from now on; the models are loaded already.

    Raises:
        ConfigError: The address is taken, or isn't one of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=512)
    except (OSError, OverflowError) as exc:
        raise ConfigError(f"can't listen on {host}, port {port}: {exc}") from exc
