"""Options that say which models, tools and gate a command runs, and the pipeline they describe."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from speceyes import tiny
from speceyes.checks import listed
from speceyes.cli.options import Parser, add_device, add_speech, add_threshold, at_least_one
from speceyes.cli.speculation import add_speculation, draft_of, judge_of
from speceyes.errors import ConfigError
from speceyes.models.by_name import is_address, load_model

if TYPE_CHECKING:
    from speceyes.gate import SeparabilityGate
    from speceyes.pipeline import SpecPipeline
    from speceyes.pipeline.audit import Auditor
    from speceyes.pipeline.settings import FunnelSettings
    from speceyes.protocols import VisionLanguageModel

MODEL_HELP = "a Hugging Face name, a directory, or an engine's address"
DEFAULT_GATE: dict[str, Any] = {"threshold": 0.98, "top_k": 64, "aggregate": "min"}
"""The gate of models that aren't the bundled ones, as the research code has it."""


SETTLED: Final = (
    *("threshold", "calibration", "top_k", "max_steps", "max_tokens", "batch_size", "tools"),
    *("dialect", "profile", "texts", "judge", "judge_threshold", "judge_pixels", "draft_pixels"),
    *("ladder", "speculate"),
)
"""Options that a settings file takes the place of."""


def add_loading(parser: Parser, *, served: bool = False) -> None:
    """Adds the options that `load_model` reads beside a model's name.

    Args:
        parser: The command's.
        served: "--max-pixels" is something else there, the largest image that is accepted.
    """
    add_device(parser)
    parser.add_argument(
        "--dtype", help='"float32", "bfloat16", "auto"; default: bfloat16 on a GPU, else float32'
    )
    parser.add_argument(
        "--revision", metavar="REV", help="branch, tag or commit of the models on the Hub"
    )
    parser.add_argument(
        "--trust-remote-code",
        action="store_true",
        help="run code that comes with a checkpoint: it can do anything to this machine",
    )
    for name, which in (("min", "fewest"), ("max", "most")):
        parser.add_argument(
            f"--model-{name}-pixels",
            *([] if served else [f"--{name}-pixels"]),
            type=at_least_one,
            metavar="N",
            help=f"{which} pixels of an image as models that are loaded here see it; default: the "
            "checkpoint's own",
        )
    parser.add_argument(
        "--model-arg",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an argument of HFModel.from_pretrained or of OpenAIModel, such as "
        'attn_implementation=sdpa or timeout_s=30; with "large." or "small." before KEY for that '
        "model alone; repeat for more",
    )


def add_models(
    command: argparse.ArgumentParser,
    *,
    batch_size: int = 16,
    speculate: str | None = None,
    served: bool = False,
) -> None:
    """Adds the options that `pipeline` reads.

    Args:
        command: The parser of a command that runs one pipeline.
        batch_size: The default of `--batch-size`.
        speculate: See `add_speculation`.
        served: See `add_loading`.
    """
    models = command.add_argument_group(
        "models", 'after the "#" of an engine\'s address stands a name, where it serves several'
    )
    models.add_argument("--large", metavar="MODEL", help=f"the agent: {MODEL_HELP}")
    models.add_argument(
        "--small", metavar="MODEL", help='the drafter, likewise; "none" for the agent alone'
    )
    models.add_argument(
        "--settings",
        type=Path,
        metavar="FILE",
        help="what speceyes tune wrote: models, judge, resolutions, gate and all else; --large and "
        "--small may say where the same models are now",
    )
    add_loading(models, served=served)
    add_speech(models)
    add_threshold(models)
    models.add_argument("--calibration", type=Path, metavar="FILE", help="what the gate is made of")
    models.add_argument(
        "--top-k", type=at_least_one, metavar="K", help="K of the gate; default: 64"
    )
    models.add_argument(
        "--max-steps",
        type=at_least_one,
        metavar="N",
        help="turns of the agent; default: its profile's",
    )
    models.add_argument(
        "--max-tokens",
        type=at_least_one,
        metavar="N",
        help="new tokens of a turn of the agent; default: its profile's",
    )
    models.add_argument(
        "--batch-size",
        type=at_least_one,
        default=batch_size,
        metavar="B",
        help="queries drafted together, and trajectories alive; default: %(default)s",
    )
    add_speculation(
        command.add_argument_group("speculation", "who judges, and on how many pixels"),
        speculate=speculate,
    )
    command.set_defaults(unchanged={name: command.get_default(name) for name in SETTLED})


@dataclass(frozen=True, slots=True)
class Chosen:
    """Models and gate that the options name.

    Args:
        large: The agent.
        small: The drafter; None for the agent alone.
        gate: Of the drafts.
    """

    large: VisionLanguageModel
    small: VisionLanguageModel | None
    gate: SeparabilityGate


def pipeline(
    options: argparse.Namespace, *, allow_urls: bool = False, auditor: Auditor | None = None
) -> SpecPipeline:
    """The pipeline that the options of `add_models` describe.

    Args:
        options: The command line's.
        allow_urls: Images may be http(s) addresses.
        auditor: Has accepted drafts audited.

    Raises:
        ConfigError: They don't go together, or a model can't be loaded or reached.
    """
    from speceyes.pipeline import AgentConfig, InputConfig, ScheduleConfig, SpecPipeline

    if options.settings is not None:
        from speceyes.pipeline.settings import FunnelSettings

        return settled_pipeline(
            options, FunnelSettings.load(options.settings), allow_urls=allow_urls, auditor=auditor
        )
    chosen = load_models(options)
    return SpecPipeline.from_pretrained(
        chosen.large,
        chosen.small,
        tools=tools_for(options, chosen.large),
        dialect=options.dialect,
        texts=options.texts,
        gate=chosen.gate,
        judge=judge_of(options),
        draft=draft_of(options),
        agent=AgentConfig(
            options.max_steps, options.max_tokens, options.batch_size, options.profile
        ),
        schedule=ScheduleConfig(batch_size=options.batch_size, speculate=options.speculate),
        inputs=InputConfig(allow_urls=allow_urls),
        auditor=None if chosen.small is None else auditor,
    )


def settled_pipeline(
    options: argparse.Namespace,
    found: FunnelSettings,
    *,
    allow_urls: bool = False,
    auditor: Auditor | None = None,
) -> SpecPipeline:
    """The pipeline of a settings file.

    Args:
        options: The command line's.
        found: What is in the file.
        allow_urls: Images may be http(s) addresses.
        auditor: Has accepted drafts audited.

    Raises:
        ConfigError: Options contradict the file, or a model isn't the one that was tuned.
    """
    from speceyes.pipeline import InputConfig, SpecPipeline

    check_settled(options)
    large, small = loaded_for(options, found)
    return SpecPipeline.from_settings(
        found, large=large, small=small, inputs=InputConfig(allow_urls=allow_urls), auditor=auditor
    )


def check_settled(options: argparse.Namespace) -> None:
    """Refuses options that a settings file takes the place of.

    Raises:
        ConfigError: One is given.
    """
    given = [name for name in SETTLED if getattr(options, name) != options.unchanged[name]]
    if given:
        words = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ConfigError(f"--settings brings its own {words}: leave these out, or change the file")


def loaded_for(
    options: argparse.Namespace, found: FunnelSettings
) -> tuple[VisionLanguageModel, VisionLanguageModel | None]:
    """The models that settings are for, from where they were or from where options say.

    Raises:
        ConfigError: One can't be loaded or reached.
    """
    from speceyes.pipeline.model_settings import loading_arguments

    if options.small is not None and options.small.lower() == "none":
        raise ConfigError("--settings with --small none: pass --large and --small none alone")
    models: list[VisionLanguageModel] = []
    for role, one in (("large", found.large), ("small", found.small)):
        if one is None:
            return models[0], None
        name = getattr(options, role) or one.source
        if models and name == (options.large or found.large.source) and one == found.large:
            return models[0], models[0]
        top_k = found.gate.top_k if role == "small" and found.gate is not None else None
        own = loading_arguments(name, one)
        models.append(load_named(name, options, role, top_k=top_k, **own))
    return models[0], models[1]


def load_models(options: argparse.Namespace) -> Chosen:
    """Loads the models that the options name, and makes their gate.

    Raises:
        ConfigError: They don't go together, or a model can't be loaded or reached.
    """
    alone = options.small is not None and options.small.lower() == "none"
    judge, ladder = getattr(options, "judge", "large"), getattr(options, "ladder", ())
    judging = judge in ("small", "draft") or bool(ladder)
    large, small, bundled = named_pair(options.large, options.small, judging=judging)
    own = bundled_settings(judge if judging else None) if bundled else {}
    settings = {**DEFAULT_GATE, **own}
    if bundled:
        print(
            "speceyes: the bundled tiny pair answers; it knows only its own synthetic scenes "
            "(--large and --small name other models)",
            file=sys.stderr,
        )
    gate = _gate(options, settings)
    agent = load_named(large, options, "large")
    if alone:
        return Chosen(agent, None, gate)
    same = small == large and model_arguments(options, "small") == model_arguments(options, "large")
    return Chosen(
        agent, agent if same else load_named(small, options, "small", top_k=gate.top_k), gate
    )


def named_pair(
    large: str | None, small: str | None, *, judging: bool = False
) -> tuple[str, str, bool]:
    """Names of agent and drafter, and whether they are the bundled pair.

    Args:
        large: The agent's, or None.
        small: The drafter's, or None.
        judging: Whether the drafter judges as well, or drafts at several sizes, so that of the
            bundled ones the one that has learned to is taken.

    Raises:
        ConfigError: One is given without the other.
    """
    alone = small is not None and small.lower() == "none"
    if large is None and (small is None or alone):
        mine = tiny.SMALL_JUDGE if judging and tiny.SMALL_JUDGE.is_dir() else tiny.SMALL
        return str(tiny.LARGE), str(small if alone else mine), True
    if large is None or small is None:
        given, missing = ("--large", "--small") if large else ("--small", "--large")
        hint = ", or --small none for the agent alone" if missing == "--small" else ""
        raise ConfigError(f"{given} was given without {missing}: name both{hint}, or neither")
    return large, small, False


def bundled_settings(judge: str | None = None) -> dict[str, Any]:
    """Threshold, K and aggregate that were chosen for the bundled pair.

    Args:
        judge: Where the drafter that judges is taken, the name of the judge.

    Raises:
        ConfigError: The weights are not there.
    """
    if not (tiny.LARGE.is_dir() and tiny.SMALL.is_dir()):
        raise ConfigError(
            f"the bundled pair is not in {tiny.WEIGHTS}: install a released wheel, train it with "
            "python -m speceyes.tiny.training.train, or name models with --large and --small"
        )
    found = tiny.settings()
    if judge is not None and tiny.SMALL_JUDGE.is_dir():
        own = tiny.judge_settings()
        # Both judges were taught the same, and let the same questions through.
        which = "small" if judge == "large" else judge
        found = {**found, **own, "threshold": own["thresholds"][which]}
    return {key: found[key] for key in DEFAULT_GATE}


def load_named(
    name: str | Path,
    options: argparse.Namespace,
    role: str,
    *,
    top_k: int | None = None,
    **known: Any,
) -> VisionLanguageModel:
    """A model as the options of `add_loading` have it.

    Args:
        name: See `load_model`.
        options: The command line's.
        role: "large", "small" or "one-pass": its own arguments go before those of both.
        top_k: See `load_model`.
        **known: Further arguments, which give way to those of the options.

    Raises:
        ConfigError: It can't be loaded or reached, or an argument is unknown.
    """
    more = model_arguments(options, role)
    if not is_address(name):
        for key in ("dtype", "revision", "model_min_pixels", "model_max_pixels"):
            if getattr(options, key) is not None:
                more.setdefault(key.removeprefix("model_"), getattr(options, key))
        if options.trust_remote_code:
            more.setdefault("trust_remote_code", True)
    more = {**known, **more}
    try:
        return load_model(name, options.device, top_k, **more)
    except TypeError as exc:
        if not more:
            raise
        raise ConfigError(f"--model-arg {sorted(more)} for {name}: {exc}") from exc


def model_arguments(options: argparse.Namespace, role: str) -> dict[str, Any]:
    """The values of `--model-arg` for a role, each read as JSON where it is JSON.

    Raises:
        ConfigError: One is no KEY=VALUE.
    """
    found: dict[str, Any] = {}
    own: dict[str, Any] = {}
    for given in options.model_arg:
        key, sign, text = given.partition("=")
        whose, dot, rest = key.partition(".")
        if not sign or not key or (dot and whose not in ("large", "small", "one-pass")):
            raise ConfigError(f"--model-arg {given!r}; it must be KEY=VALUE or large.KEY=VALUE")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        if not dot:
            found[key] = value
        elif whose == role:
            own[rest] = value
    return {**found, **own}


def tools_for(options: argparse.Namespace, large: VisionLanguageModel) -> tuple[str, ...]:
    """The tools that the options name, or those that the agent's dialect was trained with.

    Raises:
        ConfigError: The dialect or its profile can't be made.
    """
    if options.tools is not None:
        return tuple(listed(options.tools))
    from speceyes.dialects import dialect, profile_of

    spoken = dialect(options.dialect, large, profile=options.profile, texts=options.texts)
    return profile_of(spoken).tools or ("zoom",)


def context_fields(options: argparse.Namespace, large: VisionLanguageModel) -> dict[str, Any]:
    """Fields of an `EvalContext` that come of options which all evaluations take.

    Raises:
        ConfigError: See `tools_for`.
    """
    same = (
        *("batch_size", "dialect", "profile", "texts"),
        *("max_steps", "max_tokens", "draft_tokens"),
    )
    return {"tools": tools_for(options, large), **{name: getattr(options, name) for name in same}}


def vocabulary_size(model: VisionLanguageModel) -> int | None:
    """Tokens that a loaded model knows; None of an engine's."""
    from speceyes.protocols import HasConfig, offers

    config = model.config if offers(model, HasConfig) else None
    text = getattr(config, "get_text_config", lambda: None)()
    size: int | None = getattr(text, "vocab_size", None)
    return size


def _gate(options: argparse.Namespace, settings: dict[str, Any]) -> SeparabilityGate:
    from speceyes.gate import SeparabilityGate

    if options.calibration is not None:
        if options.threshold is not None or options.top_k is not None:
            raise ConfigError("--calibration brings its own threshold and K: leave these out")
        return SeparabilityGate.from_calibration(options.calibration)
    threshold = settings["threshold"] if options.threshold is None else options.threshold
    top_k = settings["top_k"] if options.top_k is None else options.top_k
    return SeparabilityGate(float(threshold), top_k=int(top_k), aggregate=settings["aggregate"])
