"""`speceyes serve`: the options, the models, and uvicorn."""

from __future__ import annotations

import argparse
import ipaddress
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speceyes import tiny
from speceyes.errors import ConfigError
from speceyes.gate import SeparabilityGate
from speceyes.images import ImageLimits
from speceyes.pipeline import SpecPipeline
from speceyes.server.keys import Keys, new_key
from speceyes.server.limits import ServerLimits
from speceyes.server.request_log import log_requests

if TYPE_CHECKING:
    from fastapi import FastAPI

    from speceyes.protocols import VisionLanguageModel

ABOUT = """\
Serves a funnel under OpenAI's /v1/chat/completions, so that the official clients work against it.
Requests that arrive together share batches. Without models the bundled tiny pair answers, which
knows only its own synthetic scenes.

  speceyes serve
  speceyes serve --new-key alice >> keys.txt     the key itself goes to standard error
  speceyes serve --keys keys.txt --host 0.0.0.0 --port 8000
  speceyes serve --large http://gpu1:8000/v1 --small http://gpu2:8000/v1

A model is a Hugging Face name, a directory, or an engine's address; after a "#" the name under
which the engine serves it, where there are several. SIGTERM ends it: what was accepted is
answered first. docs/server.md has every field, limit and metric."""


def add(commands: Any, shared: argparse.ArgumentParser) -> None:
    """Adds the command to an argparse sub-parser set.

    Args:
        commands: The set.
        shared: Options that all commands have.
    """
    one = commands.add_parser(
        "serve",
        parents=[shared],
        help="serve a funnel under OpenAI's protocol",
        description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_models(one)
    net = one.add_argument_group("network")
    net.add_argument("--host", default="127.0.0.1", help="default: %(default)s")
    net.add_argument("--port", type=int, default=8000, help="0 takes a free one; default: 8000")
    net.add_argument("--name", default="speceyes", help="of the model; default: %(default)s")
    net.add_argument("--keys", type=Path, metavar="FILE", help="names and hashes of API keys")
    net.add_argument("--new-key", metavar="NAME", help="make a key and its line, and end")
    net.add_argument("--no-keys", action="store_true", help="let everybody in on any address")
    net.add_argument("--open-metrics", action="store_true", help="/metrics needs no key")
    net.add_argument(
        "--allow-domain",
        action="append",
        default=[],
        metavar="HOST",
        help="fetch images from this host; repeat for more; by default none are fetched",
    )
    net.add_argument(
        "--allow-private-domain",
        action="append",
        default=[],
        metavar="HOST",
        help="the same for a host of your own network, whose address is private",
    )
    net.add_argument(
        "--strict",
        action="store_true",
        help="refuse what has no effect, such as temperature or history, instead of naming it",
    )
    net.add_argument(
        "--request-log",
        type=Path,
        metavar="FILE",
        help="a line of JSON for each request, without prompts and images; - for standard error",
    )
    most = one.add_argument_group("limits")
    limits = ServerLimits()
    for name, value, what in (
        ("queue", limits.capacity, "requests accepted and not done with"),
        ("per-key", limits.per_client, "the same of one key, or of one address without keys"),
        ("max-images", limits.images, "of a request"),
        ("max-pixels", limits.image.max_pixels, "of an image"),
        ("max-body", limits.body_bytes, "bytes of a request"),
        ("timeout", int(limits.seconds), "seconds from acceptance to answer"),
    ):
        most.add_argument(
            f"--{name}", type=int, default=value, metavar="N", help=f"{what}; default: %(default)s"
        )
    most.add_argument(
        "--thresholds",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="what a request may ask for; default: the server's own up to 1",
    )
    most.add_argument("--no-agent-route", action="store_true", help="requests can't ask for it")
    one.set_defaults(run=run)


def add_models(command: argparse.ArgumentParser) -> None:
    """Adds the options that `pipeline` reads, for every command that serves a funnel."""
    models = command.add_argument_group("models")
    models.add_argument("--large", metavar="MODEL", help="the agent")
    models.add_argument("--small", metavar="MODEL", help='the drafter; "none": the agent alone')
    models.add_argument("--dialect", default="deepeyes", help="how the agent writes tool calls")
    models.add_argument(
        "--tools", default="zoom", metavar="LIST", help="with commas; default: %(default)s"
    )
    models.add_argument("--calibration", type=Path, metavar="FILE", help="what the gate is made of")
    models.add_argument("--top-k", type=int, metavar="K", help="K of the gate; default: 64")
    models.add_argument("--max-steps", type=int, default=6, metavar="N", help="turns")
    models.add_argument("--max-tokens", type=int, default=512, metavar="N", help="new ones a turn")
    models.add_argument(
        "--batch-size",
        type=int,
        default=16,
        metavar="B",
        help="queries drafted together, and trajectories alive; default: %(default)s",
    )


def run(options: argparse.Namespace) -> int:
    """Runs it; the exit code."""
    if options.new_key is not None:
        key, line = new_key(options.new_key)
        sys.stdout.write(f"{line}\n")
        sys.stderr.write(f"speceyes: the key, which is stored nowhere: {key}\n")
        return 0
    limits = ServerLimits(
        body_bytes=options.max_body,
        images=options.max_images,
        image=ImageLimits(
            max_bytes=ServerLimits().image.max_bytes,
            max_pixels=options.max_pixels,
            max_frames=ServerLimits().image.max_frames,
        ),
        capacity=options.queue,
        per_client=options.per_key,
        seconds=options.timeout,
        thresholds=None if options.thresholds is None else tuple(options.thresholds),
        agent_on_request=not options.no_agent_route,
        domains=frozenset(options.allow_domain),
        private_domains=frozenset(options.allow_private_domain),
        tolerant=not options.strict,
    )
    keys = None if options.keys is None else Keys.load(options.keys)
    if keys is None and not options.no_keys and not _loopback(options.host):
        raise ConfigError(
            f"--host {options.host} lets others in, and there are no keys: pass --keys FILE (make "
            "one with --new-key), or --no-keys where something else keeps them out"
        )
    try:
        from speceyes.server.app import application
    except ImportError as exc:
        raise ConfigError(f"{exc.name} is not installed: pip install 'speceyes[serve]'") from exc
    app = application(
        pipeline(options),
        name=options.name,
        limits=limits,
        keys=keys,
        open_metrics=options.open_metrics,
    )
    if not options.debug:
        _say_what_matters()
    if options.request_log is not None:
        log_requests(options.request_log)
    return run_app(app, options.name, options.host, options.port)


def run_app(app: FastAPI, name: str, host: str, port: int) -> int:
    """Serves an application until SIGTERM or Ctrl-C; the exit code.

    Says where on standard error, once others can connect.

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
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_keep_alive=30
    )
    server = uvicorn.Server(config)

    def told(number: int, frame: object) -> None:
        # Before uvicorn listens to signals itself; and after it, since it raises the signal again
        # when all is done: to be told to end is no failure here.
        server.should_exit = True

    before = signal.signal(signal.SIGTERM, told)
    try:
        sys.stderr.write(f"speceyes: serving {name!r} on http://{shown}:{where[1]}/v1\n")
        sys.stderr.flush()
        server.run(sockets=[listening])
    finally:
        signal.signal(signal.SIGTERM, before)
        listening.close()
    return 0


def pipeline(options: argparse.Namespace) -> SpecPipeline:
    """The funnel that the options describe.

    Raises:
        ConfigError: They don't go together, or a model can't be loaded or reached.
    """
    alone = options.small is not None and options.small.lower() == "none"
    bundled = options.large is None and (options.small is None or alone)
    if not bundled and (options.large is None or options.small is None):
        given, missing = ("--large", "--small") if options.large else ("--small", "--large")
        raise ConfigError(f"{given} was given without {missing}: name both, or neither")
    large, small = options.large, options.small
    chosen: dict[str, Any] = {"threshold": 0.98, "top_k": 64, "aggregate": "min"}
    if bundled:
        if not (tiny.LARGE.is_dir() and tiny.SMALL.is_dir()):
            raise ConfigError(
                f"the bundled pair is not in {tiny.WEIGHTS}: name --large and --small"
            )
        chosen = {key: tiny.settings()[key] for key in chosen}
        large, small = str(tiny.LARGE), "none" if alone else str(tiny.SMALL)
        sys.stderr.write("speceyes: the bundled tiny pair answers; it knows only its scenes\n")
    for key in ("threshold", "top_k"):
        if getattr(options, key) is not None:
            chosen[key] = getattr(options, key)
    gate = None
    if options.calibration is not None:
        if options.threshold is not None or options.top_k is not None:
            raise ConfigError("--calibration brings its own threshold and K: leave these out")
        gate = SeparabilityGate.from_calibration(options.calibration)
        chosen["top_k"] = gate.top_k
    agent = _model(large, options.device, None)
    draft: VisionLanguageModel | None = None
    if not alone:
        draft = agent if small == large else _model(small, options.device, chosen["top_k"])
    return SpecPipeline.from_pretrained(
        agent,
        draft,
        tools=[name.strip() for name in options.tools.split(",") if name.strip()],
        dialect=options.dialect,
        gate=gate,
        max_steps=options.max_steps,
        max_tokens=options.max_tokens,
        max_batch=options.batch_size,
        batch_size=options.batch_size,
        **chosen,
    )


def _model(name: str, device: str | None, top_k: int | None) -> VisionLanguageModel:
    """An engine behind an address; else a model that is loaded here."""
    if name.lower().startswith(("http://", "https://")):
        from speceyes.models.openai import OpenAIModel

        url, _, served = name.partition("#")
        return OpenAIModel(url, served or None, top_k=top_k)
    if Path(name).is_dir():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from speceyes.models.hf import HFModel

    return HFModel.from_pretrained(name, device=device)


def _say_what_matters() -> None:
    """The server's own warnings go to standard error; other libraries stay silent."""
    logging.disable(logging.NOTSET)
    logging.getLogger().setLevel(logging.ERROR)
    own = logging.StreamHandler()
    own.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("speceyes.server")
    logger.addHandler(own)
    logger.setLevel(logging.WARNING)
    logger.propagate = False


def _loopback(host: str) -> bool:
    """Whether only this machine gets there."""
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
