"""A funnel as a model of lmms-eval: `lmms_eval --model speceyes --model_args ...`.

The harness draws the questions, grades the answers and writes its own report; the funnel sees
one long list of queries and batches them itself. docs/lmms_eval.md says what carries over.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, final

from PIL import Image as PILImage

from speceyes import tiny
from speceyes.errors import ConfigError
from speceyes.gate import SeparabilityGate
from speceyes.pipeline import AgentConfig, LoadConfig, ScheduleConfig, SpecPipeline
from speceyes.protocols import VisionLanguageModel
from speceyes.types import Result

_missing = ""
try:
    _Harness: Any = importlib.import_module("lmms_eval.api.model").lmms
except ImportError as exc:  # this file can be read, and its documentation made, without it
    _Harness, _missing = object, str(exc)

_log = logging.getLogger(__name__)

_BARE_PLACE = re.compile(r"<image>\s*")
"""The mark for an image in a harness's texts; "<image 2>" stays, for the question names it."""
_GREEDY: Mapping[str, tuple[Any, ...]] = {
    "temperature": (None, 0, 0.0),
    "do_sample": (None, False),
    "num_beams": (None, 1),
}


@final
class SpecEyesModel(_Harness):  # type: ignore[misc, unused-ignore]
    """The model "speceyes" of lmms-eval.

    Args are those of `--model_args`, all optional.

    Args:
        large: The agent: a Hugging Face name, a directory, or an engine's address with perhaps
            "#" and the name under which it is served there. Without large and small the bundled
            tiny pair answers.
        small: The drafter, likewise; "none" for the agent alone.
        threshold: The gate's, 0 to 1.
        top_k: K of the gate and of the drafts.
        calibration: A file that `speceyes calibrate` wrote, instead of the two above.
        tools: Tools of the agent, joined by "+".
        dialect: The agent's way to write calls.
        batch_size: Queries drafted together, and trajectories alive.
        max_batch_size: Trajectories alive, where that is another number.
        max_tokens: Most new tokens of one of the agent's turns; None for its profile's.
        max_steps: Most turns of the agent; None for its profile's.
        device: The device of models that are loaded here.
        results: A JSONL file that every `Result` is appended to: routes, scores, trajectories.
        pipeline: A pipeline made beforehand, instead of all but `results`; for Python only.

    Raises:
        ConfigError: lmms-eval isn't installed, or the arguments don't go together.
    """

    is_simple = True

    def __init__(
        self,
        large: str | None = None,
        small: str | None = None,
        threshold: float | None = None,
        top_k: int | None = None,
        calibration: str | None = None,
        tools: str = "zoom",
        dialect: str = "auto",
        batch_size: int | str = 16,
        max_batch_size: int | None = None,
        max_tokens: int | None = None,
        max_steps: int | None = None,
        device: str | None = None,
        results: str | None = None,
        pipeline: SpecPipeline | None = None,
        **unknown: Any,
    ) -> None:
        if _missing:
            raise ConfigError(f"lmms-eval can't be used: {_missing}; pip install lmms-eval")
        if unknown:
            raise ConfigError(
                f"the model speceyes has no {', '.join(sorted(unknown))}; docs/lmms_eval.md lists "
                "what --model_args may hold"
            )
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ConfigError(
                "the model speceyes runs in one process, for it batches the whole list itself: "
                "start lmms_eval without accelerate launch or torchrun"
            )
        super().__init__()
        self.batch_size = 16 if str(batch_size).startswith("auto") else int(batch_size)
        self._results = None if results is None else Path(results)
        self.pipeline = pipeline or _pipeline(
            large,
            small,
            threshold,
            top_k,
            calibration,
            device=device,
            tools=[name for name in re.split(r"[+,\s]+", tools.strip("\"'")) if name],
            dialect=dialect,
            agent=AgentConfig(max_steps, max_tokens, max_batch_size or self.batch_size),
            schedule=ScheduleConfig(batch_size=self.batch_size, speculate="always"),
        )

    @classmethod
    def create_from_arg_string(
        cls, arg_string: str, additional_config: Mapping[str, Any] | None = None
    ) -> SpecEyesModel:
        """The model of `--model_args`, which win over the harness's own options.

        The harness always passes a batch size, 1 unless it is told another, and its own version
        of this fails where both have one.
        """
        from lmms_eval.utils import (  # type: ignore[import-not-found, import-untyped, unused-ignore]
            simple_parse_args_string,
        )

        given = {k: v for k, v in (additional_config or {}).items() if v is not None}
        return cls(**{**given, **simple_parse_args_string(arg_string)})

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """The answers, in the order of the requests; empty where a query failed.

        Args:
            requests: The harness's instances, with (context, generation arguments, doc_to_visual,
                doc_id, task, split) as `args`.
        """
        self._say_what_is_left_out(requests)
        answers = [""] * len(requests)
        routes: Counter[str] = Counter()
        with contextlib.ExitStack() as stack:
            kept = None
            if self._results is not None:
                self._results.parent.mkdir(parents=True, exist_ok=True)
                kept = stack.enter_context(self._results.open("a", encoding="utf-8"))
            for result in self.pipeline.stream(self._queries(requests)):
                at = int(result.query_id.partition(":")[0])
                routes[result.route] += 1
                answers[at] = _answer(result, requests[at].args[1] or {})
                if kept is not None:
                    kept.write(result.to_json() + "\n")
                    kept.flush()
        unread = len(requests) - routes.total()
        _log.info(
            "%d queries: %d answered by draft, %d by the agent, %d failed",
            len(requests),
            routes["draft"],
            routes["agent"],
            routes["error"] + unread,
        )
        return answers

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Refused: a funnel gives answers, and the likelihood of a text that it didn't write isn't
        one number.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(
            "the model speceyes answers questions and has no log-likelihood of given texts: use "
            "tasks with output_type: generate_until (multiple choice can be asked as text)"
        )

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Refused: each query is answered on its own, and the rounds are the agent's.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(
            "the model speceyes answers each question on its own: use tasks with output_type: "
            "generate_until"
        )

    def _queries(self, requests: Sequence[Any]) -> Iterator[dict[str, Any]]:
        """One mapping a request, its images fetched when its turn has come."""
        for at, request in enumerate(requests):
            context, _, doc_to_visual, doc_id, task, split = request.args
            name = f"{at}:{task}/{split}/{doc_id}"
            try:
                images = list(_flat(doc_to_visual(self.task_dict[task][split][doc_id])))
            except Exception as exc:  # noqa: BLE001  a task's own code, which may raise anything
                _log.warning("query %s has no images: %s: %s", name, type(exc).__name__, exc)
                continue
            question = _BARE_PLACE.sub("", str(context)).strip()
            yield {"images": images, "question": question, "id": name}

    def _say_what_is_left_out(self, requests: Sequence[Any]) -> None:
        asked = {
            f"{key}={options[key]}"
            for request in requests
            for options in (request.args[1] or {},)
            for key, greedy in _GREEDY.items()
            if key in options and options[key] not in greedy
        }
        if asked:
            _log.warning("%s: left out, for answers are greedy", ", ".join(sorted(asked)))


def _flat(visuals: Any) -> Iterator[PILImage.Image]:
    """The images of a document, however they are nested.

    Raises:
        TypeError: One of them is something else, such as a video.
    """
    if isinstance(visuals, list | tuple):
        for one in visuals:
            yield from _flat(one)
    elif isinstance(visuals, PILImage.Image):
        yield visuals
    elif visuals is not None:
        raise TypeError(f"a {type(visuals).__name__} where only PIL images can be looked at")


def _answer(result: Result, options: Mapping[str, Any]) -> str:
    """The answer up to the first of the texts that the task wants it to end at."""
    if result.answer is None:
        _log.warning("query %s has no answer: %s", result.query_id, result.error)
        return ""
    until = options.get("until") or ()
    answer = result.answer
    for end in (until,) if isinstance(until, str) else until:
        answer = answer.partition(end)[0] if end else answer
    return answer


def _pipeline(
    large: str | None,
    small: str | None,
    threshold: float | None,
    top_k: int | None,
    calibration: str | None,
    *,
    device: str | None,
    **options: Any,
) -> SpecPipeline:
    alone = small is not None and small.lower() == "none"
    chosen: dict[str, Any] = {}
    if large is None:
        if small is not None and not alone:
            raise ConfigError("small was given without large: name both, or neither")
        chosen = {key: tiny.settings()[key] for key in ("threshold", "top_k", "aggregate")}
        large, small = str(tiny.LARGE), None if alone else str(tiny.SMALL)
    elif small is None:
        raise ConfigError("large was given without small: name both, or small=none for the agent")
    elif alone:
        small = None
    given = {"threshold": threshold, "top_k": top_k}
    chosen |= {key: value for key, value in given.items() if value is not None}
    if calibration is not None:
        if threshold is not None or top_k is not None:
            raise ConfigError("calibration brings its own threshold and K: leave these out")
        gate = SeparabilityGate.from_calibration(calibration)
    else:
        gate = SeparabilityGate(**chosen)
    agent = _model(large, None)
    draft = agent if small == large else _model(small, gate.top_k)
    return SpecPipeline.from_pretrained(
        agent, draft, load=LoadConfig(device=device), gate=gate, **options
    )


def _model(name: str | None, top_k: int | None) -> VisionLanguageModel | str | None:
    """An engine behind an address; else a name that the pipeline loads."""
    if name is None or not name.lower().startswith(("http://", "https://")):
        return name
    from speceyes.models.openai import OpenAIModel

    url, _, served = name.partition("#")
    return OpenAIModel(url, served or None, top_k=top_k)
