"""The server that a load test starts for itself: `python -m speceyes.bench.load.target`.

Its engine fails, or is slow, on questions that ask for it. That switch is in this module alone; no
option of `speceyes serve` leads here.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, final

from speceyes import tiny
from speceyes.bench.load.requests import ENGINE_ERROR, ENGINE_SLOW, MARKS
from speceyes.errors import ConfigError, ModelError
from speceyes.models.scripted import ScriptedModel
from speceyes.pipeline import AgentConfig, ScheduleConfig, SpecPipeline
from speceyes.protocols import SupportsSession, offers
from speceyes.server.limits import ServerLimits
from speceyes.types import Completion, Conversation, Message, Sampling

if TYPE_CHECKING:
    from speceyes.protocols import Session, VisionLanguageModel
    from speceyes.types import Image

PAIRS: Final = ("tiny", "scripted")
ENGINE_S: Final = 0.004
"""Seconds of a batch of the scripted models, whatever its size."""
HARD: Final = 4
"""One of so many of the scripted questions needs the agent."""

_NUMBER = re.compile(r"#(\d+)")


@final
class MisbehavingModel:
    """A model that fails or stalls where a question says so, and is itself otherwise.

    Args:
        model: The model.
        stall_s: Seconds that a slow one takes longer, and all that share its batch.
    """

    def __init__(self, model: VisionLanguageModel, stall_s: float) -> None:
        self._model, self._stall_s = model, stall_s

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)  # whatever else an engine offers

    @property
    def name(self) -> str:
        """The model's own."""
        return self._model.name

    def seen_size(self, image: Image) -> tuple[int, int]:
        """(width, height) in pixels, as the model sees it."""
        return self._model.seen_size(image)

    def generate(
        self, conversations: Sequence[Conversation], sampling: Sampling
    ) -> list[Completion]:
        """The model's completions.

        Raises:
            ModelError: A question asks for it, and the whole batch has it.
        """
        if any(_marked(one, ENGINE_ERROR) for one in conversations):
            raise ModelError("the engine failed, as it was asked to")
        if any(_marked(one, ENGINE_SLOW) for one in conversations):
            time.sleep(self._stall_s)
        return self._model.generate([_unmarked(one) for one in conversations], sampling)

    def session(self, sampling: Sampling) -> Session | None:
        """The model's session, which misbehaves as well; None where it has none."""
        model: object = self._model
        inner = model.session(sampling) if offers(model, SupportsSession) else None
        return None if inner is None else _MisbehavingSession(inner, self._stall_s)


@final
class _MisbehavingSession:
    """One row fails; a slow one stalls all, once."""

    def __init__(self, inner: Session, stall_s: float) -> None:
        self._inner, self._stall_s = inner, stall_s
        self._failed: list[int] = []
        self._stalls = 0

    def __len__(self) -> int:
        return len(self._inner) + len(self._failed)

    def add(self, key: int, conversation: Conversation) -> None:
        if _marked(conversation, ENGINE_ERROR):
            self._failed.append(key)
            return
        self._stalls += _marked(conversation, ENGINE_SLOW)
        self._inner.add(key, _unmarked(conversation))

    def step(self) -> list[tuple[int, Completion]]:
        why = "ModelError: the engine failed, as it was asked to"
        failed = [(key, Completion.failed(why)) for key in self._failed]
        self._failed.clear()
        time.sleep(self._stalls * self._stall_s)
        self._stalls = 0
        return failed + (self._inner.step() if len(self._inner) else [])

    def drop(self, key: int) -> None:
        if key in self._failed:
            self._failed.remove(key)
        self._inner.drop(key)

    def close(self) -> None:
        self._failed.clear()
        self._inner.close()


def _marked(conversation: Conversation, fault: str) -> bool:
    return any(MARKS[fault] in message.text for message in conversation.messages)


def _unmarked(conversation: Conversation) -> Conversation:
    """The same without marks, which a model never sees."""
    if not any(_marked(conversation, fault) for fault in MARKS):
        return conversation

    def clean(part: Any) -> Any:
        if isinstance(part, str):
            for mark in MARKS.values():
                part = part.replace(f" {mark}", "").replace(mark, "")
        return part

    messages = tuple(
        Message(one.role, tuple(clean(part) for part in one.content))
        for one in conversation.messages
    )
    return replace(conversation, messages=messages)


def pipeline(pair: str, *, stall_s: float, batch: int) -> SpecPipeline:
    """The funnel that is loaded, with an engine that misbehaves when asked to.

    Args:
        pair: "tiny", the bundled models; "scripted", models that cost nothing but a short sleep,
            so that what is measured is the server.
        stall_s: Seconds of a slow engine.
        batch: Queries drafted together, and trajectories alive.

    Raises:
        ConfigError: There is no such pair, or the bundled weights are missing.
    """
    agent, schedule = AgentConfig(max_batch=batch), ScheduleConfig(batch_size=batch)
    if pair == "scripted":
        large = ScriptedModel(_agent, delay_s=ENGINE_S)
        draft = ScriptedModel(_number, delay_s=ENGINE_S)
        return SpecPipeline.from_pretrained(
            MisbehavingModel(large, stall_s), draft, agent=agent, schedule=schedule
        )
    if pair != "tiny":
        raise ConfigError(f"pair {pair!r}; there are {' and '.join(PAIRS)}")
    if not (tiny.LARGE.is_dir() and tiny.SMALL.is_dir()):
        raise ConfigError(f"the bundled pair is not in {tiny.WEIGHTS}: take --pair scripted")
    from speceyes.models.hf import HFModel

    strong = MisbehavingModel(HFModel.from_pretrained(tiny.LARGE), stall_s)
    quick = HFModel.from_pretrained(tiny.SMALL)
    return SpecPipeline.from_pretrained(
        strong, quick, gate=tiny.gate(), agent=agent, schedule=schedule
    )


def _number(conversation: Conversation, sampling: Sampling) -> str:
    """The number that the question ends in, so that an answer shows whose it is."""
    found = _NUMBER.search(" ".join(message.text for message in conversation.messages))
    return found[1] if found else "none"


def _agent(conversation: Conversation, sampling: Sampling) -> str:
    """The judge's yes or no; a look closer, and then the number."""
    number = _number(conversation, sampling)
    if sampling.first_token:
        return "yes" if number.isdigit() and int(number) % HARD == 0 else "no"
    if any(message.role == "assistant" for message in conversation.messages):
        return f"<answer>{number}</answer>"
    call = {"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [0, 0, 32, 32]}}
    return f"<tool_call>{json.dumps(call)}</tool_call>"


def _end_with_parent() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves it on a free port of this machine; the exit code."""
    from speceyes.server.app import application
    from speceyes.server.run import run_app

    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--pair", choices=PAIRS, required=True)
    options.add_argument("--stall", type=float, required=True, metavar="SECONDS")
    options.add_argument("--batch-size", type=int, required=True)
    options.add_argument("--queue", type=int, required=True)
    options.add_argument("--timeout", type=float, required=True, metavar="SECONDS")
    given = options.parse_args(arguments)
    logging.disable(logging.WARNING)  # that it fails is known
    threading.Thread(target=_end_with_parent, daemon=True).start()
    limits = ServerLimits(capacity=given.queue, per_client=given.queue, seconds=given.timeout)
    pipe = pipeline(given.pair, stall_s=given.stall, batch=given.batch_size)
    return run_app(application(pipe, limits=limits), "speceyes", "127.0.0.1", 0)


if __name__ == "__main__":
    sys.exit(main())
