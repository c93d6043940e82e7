"""`speceyes serve`: the options, the models, and uvicorn."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from speceyes.cli import models
from speceyes.cli.failures import say_failures
from speceyes.cli.options import command
from speceyes.errors import ConfigError

if TYPE_CHECKING:
    from speceyes.calibration import Calibration
    from speceyes.evaluation.failures import Failures
    from speceyes.pipeline import SpecPipeline
    from speceyes.pipeline.audit import Auditor
    from speceyes.server.limits import ServerLimits
    from speceyes.server.run import Renewal

ABOUT = """\
Serves a funnel under OpenAI's /v1/chat/completions, so that the official clients work against it.
Requests that arrive together share batches. Without models the bundled tiny pair answers, which
knows only its own synthetic scenes.

  speceyes serve
  speceyes serve --new-key alice >> keys.txt     the key itself goes to standard error
  speceyes serve --keys keys.txt --host 0.0.0.0 --port 8000
  speceyes serve --large http://gpu1:8000/v1 --small http://gpu2:8000/v1
  speceyes serve --settings tuned/settings.json  what speceyes tune found

A model is a Hugging Face name, a directory, or an engine's address; after a "#" the name under
which the engine serves it, where there are several. SIGTERM ends it: what was accepted is
answered first. docs/server.md has every field, limit and metric."""


LIMITS: Final = (
    ("queue", 256, "requests accepted and not done with"),
    ("per-key", 64, "the same of one key, or of one address without keys"),
    ("max-images", 8, "of a request"),
    ("max-pixels", 40_000_000, "of an image"),
    ("max-body", 32 << 20, "bytes of a request"),
    ("timeout", 120, "seconds from acceptance to answer"),
)
"""Defaults of `ServerLimits`, said here once more so that --help need not import it."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command to an argparse sub-parser set."""
    one = command(
        commands, "serve", help="serve a funnel under OpenAI's protocol", description=ABOUT
    )
    models.add_models(one, speculate="auto", served=True)
    net = one.add_argument_group("network")
    net.add_argument("--host", default="127.0.0.1", help="default: %(default)s")
    net.add_argument("--port", type=int, default=8000, help="0 takes a free one; default: 8000")
    net.add_argument("--name", default="speceyes", help="of the model; default: %(default)s")
    net.add_argument("--keys", type=Path, metavar="FILE", help="names and hashes of API keys")
    net.add_argument("--new-key", metavar="NAME", help="make a key and its line, and end")
    net.add_argument("--no-keys", action="store_true", help="let everybody in on any address")
    net.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="HOST",
        help="without keys: a name under which clients ask, besides localhost and addresses; "
        "repeat for more",
    )
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
    watch = one.add_argument_group("the watch over a calibrated gate")
    watch.add_argument(
        "--no-monitor",
        action="store_true",
        help="don't audit; by default the agent is asked in the background for a share of the "
        "accepted drafts of a gate from --calibration, which is shut once the promise is refuted",
    )
    watch.add_argument(
        "--audit-share", type=float, default=0.05, metavar="S", help="default: %(default)s"
    )
    watch.add_argument(
        "--tolerance",
        type=float,
        metavar="R",
        help="how much more risk than promised is put up with; default: 0, and half the target "
        "of a promise in expectation",
    )
    most = one.add_argument_group("limits")
    for name, value, what in LIMITS:
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
    one.add_argument(
        "--no-check",
        action="store_true",
        help="serve without asking each model a question first; by default a model that fails on "
        "it ends the command",
    )
    one.set_defaults(run=run)


def limits_of(options: argparse.Namespace) -> ServerLimits:
    """The server's limits, by its options."""
    from speceyes.images import ImageLimits
    from speceyes.server.limits import ServerLimits

    return ServerLimits(
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


def run(options: argparse.Namespace) -> int:
    """Runs it; the exit code."""
    from speceyes.server.keys import Keys, new_key
    from speceyes.server.request_log import log_requests
    from speceyes.server.run import Renewal, is_loopback, log_warnings, run_app

    if options.new_key is not None:
        key, line = new_key(options.new_key)
        sys.stdout.write(f"{line}\n")
        sys.stderr.write(f"speceyes: the key, which is stored nowhere: {key}\n")
        return 0
    limits = limits_of(options)
    keys = None if options.keys is None else Keys.load(options.keys)
    if keys is None and not options.no_keys and not is_loopback(options.host):
        raise ConfigError(
            f"--host {options.host} lets others in, and there are no keys: pass --keys FILE (make "
            "one with --new-key), or --no-keys where something else keeps them out"
        )
    try:
        from speceyes.server.app import application
    except ImportError as exc:
        raise ConfigError(f"{exc.name} is not installed: pip install 'speceyes[serve]'") from exc
    auditor = auditor_of(options, promise_of(options))
    pipe = models.pipeline(options, auditor=auditor)
    if not options.no_check and say_failures(asked_once(pipe)):
        return 1
    app = application(
        pipe,
        name=options.name,
        limits=limits,
        keys=keys,
        open_metrics=options.open_metrics,
        hosts=[*options.allow_host, options.host],
    )
    if not options.debug:
        log_warnings()
    if options.request_log is not None:
        log_requests(options.request_log)

    armings = 0

    def read_again() -> Renewal:
        from speceyes.gate import SeparabilityGate

        nonlocal armings
        if (now := app.state.service.pipe.auditor) is not None:
            armings = max(armings, now.monitor.arming.number)
        if options.settings is not None:
            return renewed(options, app.state.service.pipe, armings)
        made, file = options.calibration, options.keys
        watched = app.state.service.pipe.auditor is not None
        return Renewal(
            None if made is None else SeparabilityGate.from_calibration(made),
            None if file is None else Keys.load(file),
            None if made is None or watched else auditor_of(options, promise_of(options), armings),
        )

    return run_app(app, options.name, options.host, options.port, read_again=read_again)


def promise_of(options: argparse.Namespace) -> Calibration | None:
    """Calibration that the gate of the options has; None where it has none."""
    from speceyes.calibration import Calibration
    from speceyes.pipeline.settings import FunnelSettings

    if options.settings is not None:
        gate = FunnelSettings.load(options.settings).gate
        return None if gate is None else gate.calibration
    return None if options.calibration is None else Calibration.load(options.calibration)


def renewed(options: argparse.Namespace, pipe: SpecPipeline, armings: int = 0) -> Renewal:
    """Settings and keys read anew, over the models that are loaded already.

    A promise that hasn't changed goes on being watched with all that audits have shown of it; a new
    one spends the part of delta that comes after those of the promises before it.

    Args:
        options: The command line's.
        pipe: The pipeline that serves.
        armings: How often its gate was armed, where it has no monitor now.

    Raises:
        ConfigError: The files can't be read, or the settings are for other models.
    """
    from speceyes.pipeline import SpecPipeline
    from speceyes.pipeline.settings import FunnelSettings
    from speceyes.protocols import HasModel, offers
    from speceyes.server.keys import Keys
    from speceyes.server.run import Renewal

    models.check_settled(options)
    found = FunnelSettings.load(options.settings)
    agent: object = pipe.fallback
    drafter: object = pipe.answerer
    promise = None if found.gate is None else found.gate.calibration
    old = pipe.auditor
    same = old is not None and old.monitor.arming.calibration == promise
    if old is not None:
        armings = max(armings, old.monitor.arming.number)
    made = SpecPipeline.from_settings(
        found,
        large=agent.model if offers(agent, HasModel) else None,
        small=drafter.model if offers(drafter, HasModel) else options.small,
        inputs=pipe.inputs,
        auditor=old if same else auditor_of(options, promise, armings),
        observers=pipe.observers,
    )
    keys = None if options.keys is None else Keys.load(options.keys)
    return Renewal(keys=keys, pipe=made)


def auditor_of(
    options: argparse.Namespace, made: Calibration | None, armings: int = 0
) -> Auditor | None:
    """Auditor of what a calibration promised; None where it isn't wanted or nothing was promised.

    Args:
        options: The command line's.
        made: The calibration.
        armings: How often the gate was armed before.
    """
    from speceyes.calibration import GateMonitor
    from speceyes.evaluation.grading import same_answer
    from speceyes.pipeline.audit import Auditor

    if made is None or options.no_monitor or not made.certified:
        return None
    monitor = GateMonitor.from_calibration(
        made, tolerance=options.tolerance, share=options.audit_share, armings=armings
    )
    sys.stderr.write(
        f"speceyes: the agent audits {100 * monitor.share:g}% of accepted drafts; the gate is shut "
        f"once more than {100 * monitor.target:g}% ({monitor.risk}) is shown to differ from it\n"
    )
    if made.labels != "differs_from_agent":
        sys.stderr.write(
            f"speceyes: warning: the calibration's labels are {made.labels!r}, and audits tell "
            "where drafts differ from the agent, which may be more. Calibrate with --labels "
            "differs_from_agent, pass --tolerance, or --no-monitor\n"
        )
    return Auditor(monitor, lambda query, draft, agent: same_answer(draft, agent, query.choices))


def asked_once(pipe: SpecPipeline) -> list[Failures]:
    """Failures of judge, drafter and agent on one question about a small picture.

    The agent is asked for the beginning of a turn only, since a whole trajectory can take minutes.

    Args:
        pipe: The pipeline that is going to be served.
    """
    from PIL import Image

    from speceyes.evaluation.failures import Failures
    from speceyes.models.rows import generate_rows
    from speceyes.types import Conversation, Message, Query, Sampling

    picture = Image.new("RGB", (112, 112), (120, 140, 160))
    query = Query("What colour is it?", (picture,), id="check")
    found: dict[str, str | None] = {}
    if pipe.judge is not None:
        [judged] = pipe.judge([query])
        said = judged.completion
        found["judge"] = judged.reason if said is None or said.error is not None else None
    if pipe.answerer is not None:
        [draft] = pipe.answerer([query])
        found["drafter"] = draft.error
    model = None if pipe.fallback is None else pipe.fallback.model
    if model is not None:
        asked = [Conversation((Message("user", (picture, query.question)),))]
        [turn] = generate_rows(model, asked, Sampling(max_tokens=2))
        found["agent"] = turn.error
    return [
        Failures(f"the {name}", int(error is not None), 1, " ".join((error or "").split()))
        for name, error in found.items()
    ]
