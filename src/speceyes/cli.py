"""The command line: `speceyes demo`, `ask`, `bench`, `eval`, `report`, `calibrate` and others."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speceyes import __version__, tiny
from speceyes.errors import ConfigError, InputError, SpecEyesError
from speceyes.evaluation import bench_command, calibrate_command, eval_command, report_command
from speceyes.integrations import mcp_command
from speceyes.server import command as serve_command
from speceyes.server import load_command, plan_command

if TYPE_CHECKING:
    from speceyes.answerer import SpeculativeAnswerer
    from speceyes.fallback import AgenticFallback
    from speceyes.gate import SeparabilityGate
    from speceyes.judge import ToolJudge
    from speceyes.protocols import VisionLanguageModel

INTERRUPTED = 130
"""Exit code after Ctrl-C, 128 + SIGINT, as shells have it."""

ABOUT = """\
Answers questions about images: a small model drafts, a gate accepts only clear drafts, and a
tool-using agent does the rest (SpecEyes, arXiv 2603.23483). A pair of tiny trained models is
bundled, so everything below runs at once, without a download or a GPU."""

EXAMPLES = """\
examples:
  speceyes demo                                 the funnel against the agent alone
  speceyes demo --queries 50 --out /tmp/demo    a shorter run
  speceyes bench                                what each way of running costs here
  speceyes eval scenes --limit 120 --out run    all arms on a benchmark; then report, calibrate
  speceyes ask scene.png "What shape is the small red object?"
  speceyes ask photo.jpg "Which colour is the collar?" \\
      --large ChenShawn/DeepEyes-7B --small Qwen/Qwen3-VL-2B-Instruct

exit codes: 0 done, 1 failed, 2 wrong arguments or input, 130 interrupted"""

DEMO = """\
Runs four arms on held-out synthetic scenes and prints them side by side: the agent one query at
a time, the agent in batches, the small model alone, and the funnel. Writes into the folder
  results.jsonl   every answer of every arm, graded, a line each
  summary.json    all figures
  report.html     the same to look at, with every query; needs no network
Ctrl-C stops the run and keeps what was finished."""

ASK = """\
Answers one question about one image. The answer goes to standard output, how it came about to
standard error; --json prints the whole result on one line instead. Without --large and --small
the bundled tiny pair answers, which knows only its own synthetic scenes."""


@dataclass(frozen=True, slots=True)
class _Parts:
    """The parts of a funnel, and the agent once more for one query at a time."""

    judge: ToolJudge
    answerer: SpeculativeAnswerer
    gate: SeparabilityGate
    fallback: AgenticFallback
    alone: AgenticFallback


def _whole(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is too small; it must be at least 1")
    return value


def _from_zero(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value} is negative; it must be at least 0")
    return value


def parser() -> argparse.ArgumentParser:
    """The command line's arguments."""
    plain = argparse.RawDescriptionHelpFormatter
    top = argparse.ArgumentParser(
        prog="speceyes", description=ABOUT, epilog=EXAMPLES, formatter_class=plain
    )
    top.add_argument("--version", action="version", version=f"speceyes {__version__}")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--device", help='"cpu", "cuda", "cuda:1"; default: a GPU if there is one')
    shared.add_argument(
        "--threshold",
        type=float,
        metavar="T",
        help="the gate's threshold, 0 (accept every draft) to 1 (none); default: the bundled "
        "pair's calibrated one, 0.98 for other models",
    )
    shared.add_argument("--debug", action="store_true", help="show tracebacks, warnings and logs")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)

    demo = commands.add_parser(
        "demo",
        parents=[shared],
        help="the funnel against the agent alone, on the bundled tiny pair",
        description=DEMO,
        formatter_class=plain,
    )
    demo.add_argument(
        "--queries", type=_whole, default=120, metavar="N", help="how many; default: %(default)s"
    )
    demo.add_argument(
        "--out",
        type=Path,
        default=Path("speceyes-demo"),
        metavar="DIR",
        help="folder for the files, made if need be; default: ./%(default)s",
    )
    demo.add_argument(
        "--batch-size", type=_whole, default=16, metavar="B", help="default: %(default)s"
    )
    demo.add_argument(
        "--start",
        type=_from_zero,
        default=0,
        metavar="I",
        help="number of the first held-out query; another one gives other scenes",
    )
    demo.add_argument("--quiet", action="store_true", help="no progress bars")
    demo.set_defaults(run=_demo)

    ask = commands.add_parser(
        "ask",
        parents=[shared],
        help="answer one question about one image",
        description=ASK,
        formatter_class=plain,
    )
    ask.add_argument("image", metavar="IMAGE", help="path of an image, or a data: URL")
    ask.add_argument("question", metavar="QUESTION", help="the question, in quotes")
    ask.add_argument(
        "--choice", action="append", default=[], metavar="TEXT", help="an option; repeat for more"
    )
    ask.add_argument(
        "--large", metavar="MODEL", help="the agent: a Hugging Face name or a directory"
    )
    ask.add_argument(
        "--small",
        metavar="MODEL",
        help='the drafter: a name or a directory; "none" for the agent alone',
    )
    ask.add_argument("--dialect", default="deepeyes", help="how the agent writes tool calls")
    ask.add_argument("--top-k", type=_whole, metavar="K", help="K of the gate; default: 64")
    ask.add_argument(
        "--max-steps", type=_whole, default=6, metavar="N", help="turns; default: %(default)s"
    )
    ask.add_argument(
        "--max-tokens",
        type=_whole,
        default=512,
        metavar="N",
        help="new tokens of a turn of the agent; default: %(default)s",
    )
    ask.add_argument("--allow-urls", action="store_true", help="let IMAGE be an http(s) address")
    ask.add_argument("--json", action="store_true", help="print the whole result as one line")
    ask.set_defaults(run=_ask)
    load_command.extend(bench_command.add(commands, shared), bench_command.run)
    for command in (eval_command, report_command, calibrate_command):
        command.add(commands, shared)
    serve_command.add(commands, shared)
    plan_command.add(commands, shared)
    mcp_command.add(commands, shared)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: Without the program's name; None for the process's own.

    Returns:
        The exit code.
    """
    options = parser().parse_args(arguments)
    if options.debug:
        logging.basicConfig(level=logging.INFO)
    else:
        _hush()
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except KeyboardInterrupt:
        print("speceyes: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has left; there is nobody to tell, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as exc:
        if options.debug:
            raise
        known = isinstance(exc, SpecEyesError | OSError)
        reason = " ".join(str(exc).split()) or type(exc).__name__
        if not known:
            reason = f"{type(exc).__name__}: {reason} (--debug shows where)"
        print(f"speceyes: error: {reason}", file=sys.stderr)
        return 2 if isinstance(exc, ConfigError | InputError) else 1


def _hush() -> None:
    """Keeps what libraries say about themselves out of the way; must run before they load."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def _load(name: str | Path, device: str | None) -> VisionLanguageModel:
    if Path(name).is_dir():  # a download shows its progress; read when the library loads
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from speceyes.models.hf import HFModel

    return HFModel.from_pretrained(name, device=device)


def _bundled() -> dict[str, Any]:
    """The bundled pair's settings.

    Raises:
        ConfigError: The weights are not there.
    """
    if not (tiny.LARGE.is_dir() and tiny.SMALL.is_dir()):
        raise ConfigError(
            f"the bundled pair is not in {tiny.WEIGHTS}: install a released wheel, train it with "
            "python -m speceyes.tiny.training.train, or name models with --large and --small"
        )
    return tiny.settings()


def _parts(
    large: VisionLanguageModel,
    small: VisionLanguageModel,
    *,
    settings: dict[str, Any],
    batch: int,
    dialect: str = "deepeyes",
    **agent: Any,
) -> _Parts:
    from speceyes.answerer import SpeculativeAnswerer
    from speceyes.fallback import AgenticFallback
    from speceyes.gate import SeparabilityGate
    from speceyes.judge import ToolJudge
    from speceyes.tools import Tools

    tools, top_k = Tools(["zoom"]), int(settings["top_k"])
    return _Parts(
        judge=ToolJudge(large, dialect=dialect, tools=tools),
        answerer=SpeculativeAnswerer(small, top_k=top_k),
        gate=SeparabilityGate(
            float(settings["threshold"]), top_k=top_k, aggregate=settings["aggregate"]
        ),
        fallback=AgenticFallback(large, tools=tools, dialect=dialect, max_batch=batch, **agent),
        alone=AgenticFallback(large, tools=tools, dialect=dialect, max_batch=1, **agent),
    )


def _demo(options: argparse.Namespace) -> int:
    from speceyes.evaluation.demo import Demo
    from speceyes.evaluation.summary import table
    from speceyes.pipeline import SpecPipeline
    from speceyes.tiny.scenes import questions

    settings = _bundled()
    if options.threshold is not None:
        settings = {**settings, "threshold": options.threshold}
    print("loading the bundled tiny pair ...", file=sys.stderr)
    large, small = (_load(path, options.device) for path in (tiny.LARGE, tiny.SMALL))
    parts = _parts(large, small, settings=settings, batch=options.batch_size)
    demo = Demo(
        pipeline=SpecPipeline(
            judge=parts.judge,
            answerer=parts.answerer,
            gate=parts.gate,
            fallback=parts.fallback,
            batch_size=options.batch_size,
        ),
        agent=parts.alone,
        agent_batched=parts.fallback,
        answerer=parts.answerer,
        gate=parts.gate,
        batch_size=options.batch_size,
        out=options.out,
        notes={"models": {"large": large.name, "small": small.name}, "start": options.start},
        progress=None if options.quiet else sys.stderr,
    )
    print(
        f"{options.queries} held-out queries, four arms; the agent thinks, zooms and answers, "
        "the funnel spares it where it can",
        file=sys.stderr,
    )
    try:
        summary = demo(
            questions("heldout", options.queries, start=options.start),
            total=options.queries,
            warm_up=questions("calibration", 8),
        )
    except KeyboardInterrupt:
        print(f"\nspeceyes: what was finished is in {options.out}", file=sys.stderr)
        raise
    print(table(summary))
    print(f"\nresults, summary and page: {options.out / 'report.html'}")
    return 0


def _ask(options: argparse.Namespace) -> int:
    from speceyes.images import load_image
    from speceyes.pipeline import SpecPipeline
    from speceyes.types import Query

    image = load_image(options.image, allow_urls=options.allow_urls)
    query = Query(options.question, (image,), tuple(options.choice), id="0")
    alone = options.small is not None and options.small.lower() == "none"
    bundled = options.large is None and (options.small is None or alone)
    if not bundled and (options.large is None or options.small is None):
        given, missing = ("--large", "--small") if options.large else ("--small", "--large")
        hint = ", or --small none for the agent alone" if missing == "--small" else ""
        raise ConfigError(f"{given} was given without {missing}: name both{hint}")
    settings = {"threshold": 0.98, "top_k": 64, "aggregate": "min"}
    names: tuple[str | Path, str | Path] = (options.large, options.small)
    if bundled:
        settings, names = _bundled(), (tiny.LARGE, tiny.SMALL)
        print(
            "speceyes: the bundled tiny pair answers; it knows only its own synthetic scenes "
            "(--large and --small name other models)",
            file=sys.stderr,
        )
    for key in ("threshold", "top_k"):
        if getattr(options, key) is not None:
            settings = {**settings, key: getattr(options, key)}
    limits = {"max_steps": options.max_steps, "max_tokens": options.max_tokens}
    large = _load(names[0], options.device)
    small = large if alone or names[0] == names[1] else _load(names[1], options.device)
    parts = _parts(large, small, settings=settings, batch=1, dialect=options.dialect, **limits)
    if alone:
        pipe = SpecPipeline(fallback=parts.alone)
    else:
        pipe = SpecPipeline(
            judge=parts.judge, answerer=parts.answerer, gate=parts.gate, fallback=parts.alone
        )
    result = pipe(query)
    if options.json:
        print(result.to_json())
        return 0 if result.error is None else 1
    if result.answer is None:
        raise SpecEyesError(result.error or "there is no answer")
    print(result.answer)
    print(_how(result), file=sys.stderr)
    return 0


def _how(result: Any) -> str:
    """One line on how the answer came about."""
    words = []
    if result.judgement is not None:
        words.append("judge: tools" if result.judgement.needs_tools else "judge: no tools")
    if result.verdict is not None:
        score = "none" if result.verdict.score is None else f"{result.verdict.score:.4f}"
        sign = "accepted" if result.verdict.accepted else "rejected"
        words.append(f"draft {sign}, score {score}, threshold {result.verdict.threshold:g}")
    if result.trajectory is not None:
        words.append(
            f"agent: {len(result.trajectory.steps)} turns, {result.trajectory.depth} tools"
        )
    words.append(f"{1e3 * (result.timings.latency or 0.0):.0f} ms")
    return "; ".join(words)


__all__ = ["main", "parser"]
