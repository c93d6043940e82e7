"""The next tool result, worked out and encoded while the model still decodes its call.

What is guessed is run through the same `Tools`, whose results of stateless tools are kept by their
arguments and pixels, and its images are encoded into the model's own store of features, by their
content. The real call is then made as ever, and finds what it needs, or doesn't. A trajectory
hence is what it is without guesses: nothing that was guessed is ever shown.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any, final

from speceyes.agent.guessers import TurnGuesser
from speceyes.isolation import describe
from speceyes.protocols import Dialect, VisionLanguageModel
from speceyes.tools import Tools
from speceyes.types import Conversation, ToolCall

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Guesses:
    """What came of guesses.

    Args:
        turns: Turns that called a stateless tool.
        guessed: Calls that were guessed and run ahead, for these turns or for others.
        hits: Guesses that were called.
        ready: Of these, how many had all been worked out when the turn was over.
        waited_s: Seconds that the others were waited for.
        ahead_s: Seconds that hits took, tool and encoding: what they can have spared at most.
        idle_s: Seconds that guesses took which nobody called.
    """

    turns: int = 0
    guessed: int = 0
    hits: int = 0
    ready: int = 0
    waited_s: float = 0.0
    ahead_s: float = 0.0
    idle_s: float = 0.0


@final
class Tally:
    """Counts `Guesses`, for any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.total = Guesses()

    def add(self, more: Guesses) -> None:
        """Adds to the total."""
        with self._lock:
            names = [field.name for field in fields(Guesses)]
            self.total = Guesses(*(getattr(self.total, n) + getattr(more, n) for n in names))


@dataclass(slots=True)
class _Guess:
    """What is guessed for the turn that a trajectory is at."""

    conversation: Conversation
    heard: int = 0
    call: ToolCall | None = None
    work: Future[None] | None = None
    seconds: float = 0.0
    hit: bool = False


@final
class Guessing:
    """The guesses of one run; one thread of its own works on them.

    Args:
        guesser: Who guesses.
        model: The agent's model.
        tools: Its tools.
        dialect: Its dialect.
        tally: Counts.
    """

    def __init__(
        self,
        guesser: TurnGuesser,
        model: VisionLanguageModel,
        tools: Tools,
        dialect: Dialect,
        tally: Tally,
    ) -> None:
        self._guesser, self._model, self._tools = guesser, model, tools
        self._dialect, self._tally = dialect, tally
        self._open: dict[int, _Guess] = {}
        self._pool: ThreadPoolExecutor | None = None

    def begin(self, key: int, conversation: Conversation) -> None:
        """A turn begins."""
        guess = self._open[key] = _Guess(conversation)
        if not self._guesser.reads_text:
            guess.work = self._submit(self._from_nothing, guess)

    def listen(self, said: Callable[[int], str]) -> None:
        """Has a look at what was said of each turn so far."""
        if not self._guesser.reads_text:
            return
        for key, guess in self._open.items():
            if guess.work is not None:
                continue
            text = said(key)
            if len(text) == guess.heard:
                continue
            guess.heard = len(text)
            call = self._asked(guess, text)
            if call is not None:
                guess.work = self._submit(self._run, guess, call)

    def meets(self, key: int, call: ToolCall) -> None:
        """A call is about to be run: where it is being run ahead, that is waited for."""
        guess = self._open.get(key)
        if guess is None or guess.work is None or guess.hit:
            return
        known = guess.call
        if known is None or (known.name, known.arguments) != (call.name, call.arguments):
            return
        guess.hit = True
        ready, start = guess.work.done(), time.perf_counter()
        guess.work.result()
        waited = time.perf_counter() - start
        self._tally.add(Guesses(hits=1, ready=int(ready), waited_s=waited, ahead_s=guess.seconds))

    def end(self, key: int, text: str, calls: Sequence[ToolCall]) -> None:
        """A turn is over, and its calls have been run."""
        guess = self._open.pop(key, None)
        if guess is None:
            return
        if guess.work is not None and not guess.hit and not guess.work.cancel():
            guess.work.add_done_callback(lambda _: self._tally.add(Guesses(idle_s=guess.seconds)))
        if any(self._runs_ahead(call.name) for call in calls):
            self._tally.add(Guesses(turns=1))
        if calls:
            try:
                self._guesser.learn(guess.conversation, text, calls)
            except Exception as exc:  # noqa: BLE001 - the agent works without guesses as well
                _log.warning("the guesser failed: %s", describe(exc))

    def close(self) -> None:
        """Gives up what was not begun."""
        self._open.clear()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _submit(self, work: Callable[..., None], *args: Any) -> Future[None]:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="speceyes-guess")
        return self._pool.submit(work, *args)

    def _runs_ahead(self, name: str) -> bool:
        return getattr(self._tools.get(name), "stateless", False) is True

    def _asked(self, guess: _Guess, said: str) -> ToolCall | None:
        try:
            return self._guesser.guess(guess.conversation, said)
        except Exception as exc:  # noqa: BLE001 - the agent works without guesses as well
            _log.debug("nothing was guessed: %s", describe(exc))
            return None

    def _from_nothing(self, guess: _Guess) -> None:
        start = time.perf_counter()
        call = self._asked(guess, "")
        if call is not None:
            self._run(guess, call)
        guess.seconds = time.perf_counter() - start

    def _run(self, guess: _Guess, call: ToolCall) -> None:
        """The tool, and its images through the model's eyes."""
        start = time.perf_counter()
        try:
            if not self._runs_ahead(call.name):
                return
            images = guess.conversation.images
            own = [self._guesser.seen_size(image) for image in images]
            sizes = [
                self._model.seen_size(image) if size is None else size
                for image, size in zip(images, own, strict=True)
            ]
            located = self._dialect.locate(call, images, sizes)
            guess.call = located
            self._tally.add(Guesses(guessed=1))
            seen = self._tools.run(located, images)
            encode = getattr(self._model, "encode_ahead", None)
            if seen.images and callable(encode):
                encode(seen.images)
        except Exception as exc:  # noqa: BLE001 - the real call says what is wrong
            _log.debug("a guess could not be run: %s", describe(exc))
        finally:
            guess.seconds = time.perf_counter() - start
