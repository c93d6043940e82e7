"""Who says which tool the agent will call next.

A guess changes no trajectory, whatever it is: the tool is run ahead, and what it gave is kept where
a real call of the same kind would look for it first (`speceyes.agent.guesses`).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol, final, runtime_checkable

from speceyes.errors import ConfigError
from speceyes.isolation import generate_isolated
from speceyes.protocols import Dialect, VisionLanguageModel
from speceyes.types import Conversation, Image, Sampling, ToolCall


@runtime_checkable
class TurnGuesser(Protocol):
    """Says which tool the agent will call in the turn that it is at. For any number of threads."""

    @property
    def reads_text(self) -> bool:
        """Whether a guess needs what the agent has said of its turn so far. If so, it is asked
        between two tokens until it has a guess, and must be quick; only models whose sessions
        tell that text can use it. If not, it is asked once, in a thread of its own.
        """
        ...

    def guess(self, conversation: Conversation, said: str) -> ToolCall | None:
        """The call as the agent's dialect parses it; None where it can't be told.

        Args:
            conversation: What the agent was asked to continue.
            said: What it has said so far, "" unless `reads_text`.
        """
        ...

    def seen_size(self, image: Image) -> tuple[int, int] | None:
        """(width, height) of an image in whose pixels the guess has its boxes; None for the size
        at which the agent sees it.
        """
        ...

    def learn(self, conversation: Conversation, text: str, calls: Sequence[ToolCall]) -> None:
        """Told each turn that called tools, when it is over."""
        ...


@final
class SmallModelGuesser:
    """Guesses what a small model would call, had it the agent's turn.

    A guess hits only where both models call with the very same arguments. That takes a small model
    that was trained on the same tool calls, and boxes that mean the same for both: those that are
    relative to the image's size, or pixels of models that see images at one size.

    Args:
        model: The small model.
        dialect: The agent's.
        max_tokens: Most new tokens of its turn.

    Raises:
        ConfigError: max_tokens is below 1, or the dialect is unknown.

    Example:
        >>> from speceyes.models.scripted import ScriptedModel
        >>> from speceyes.types import Message
        >>> call = '<tool_call>{"name": "zoom", "arguments": {}}</tool_call>'
        >>> guesser = SmallModelGuesser(ScriptedModel(call))
        >>> guesser.guess(Conversation((Message("user", ("?",)),)), "").name
        'zoom'
    """

    reads_text = False

    def __init__(
        self,
        model: VisionLanguageModel,
        dialect: str | Dialect = "deepeyes",
        *,
        max_tokens: int = 256,
    ) -> None:
        if max_tokens < 1:
            raise ConfigError(f"max_tokens={max_tokens}; it must be at least 1")
        from speceyes.dialects import dialect as dialect_named

        self.model = model
        self._dialect = dialect_named(dialect, model)
        self._sampling = Sampling(max_tokens=max_tokens, stop=self._dialect.stop)

    def guess(self, conversation: Conversation, said: str) -> ToolCall | None:
        """The first call of the small model's turn."""
        [turn] = generate_isolated(self.model, [conversation], self._sampling)
        calls = self._dialect.parse(turn.text).calls if turn.error is None else ()
        return calls[0] if calls else None

    def seen_size(self, image: Image) -> tuple[int, int] | None:
        """As the small model sees it."""
        return self.model.seen_size(image)

    def learn(self, conversation: Conversation, text: str, calls: Sequence[ToolCall]) -> None:
        """Nothing: the model's weights stay as they are."""


@final
class EarlierCallGuesser:
    """Guesses the call that followed when an earlier turn led to it in the same words.

    Agents that say where they look before they write the box repeat themselves: the same words
    before a call are followed by the same call. It needs no model, only turns that were seen.

    Args:
        tail: How many characters right before the call must be the same. Few are met often, and
            wrong more often.
        most: How many of the latest are kept.

    Raises:
        ConfigError: A number is below 1.

    Example:
        >>> guesser = EarlierCallGuesser(tail=12)
        >>> call, nothing = ToolCall("zoom", {"box": 1}, raw='{"box": 1}'), Conversation(())
        >>> guesser.learn(nothing, 'Look at row 2: {"box": 1}', [call])
        >>> guesser.guess(nothing, "Now look at row 2: ") == call
        True
    """

    reads_text = True

    def __init__(self, *, tail: int = 40, most: int = 4096) -> None:
        if tail < 1 or most < 1:
            raise ConfigError(f"tail={tail}, most={most}; each must be at least 1")
        self._tail, self._most = tail, most
        self._calls: OrderedDict[str, ToolCall] = OrderedDict()
        self._ends: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    def guess(self, conversation: Conversation, said: str) -> ToolCall | None:
        """The latest call behind the same words, as far as it has been begun already."""
        with self._lock:
            for end in self._ends:
                at = said.rfind(end)
                lead, begun = said[: at + len(end)], said[at + len(end) :]
                call = self._calls.get(lead[-self._tail :]) if at >= 0 else None
                if call is not None and call.raw.startswith(begun):
                    return call
        return None

    def seen_size(self, image: Image) -> tuple[int, int] | None:
        """As the agent sees it, whose words these are."""
        return None

    def learn(self, conversation: Conversation, text: str, calls: Sequence[ToolCall]) -> None:
        """Keeps the turn's first call under the words before it."""
        lead, found, _ = text.partition(calls[0].raw) if calls and calls[0].raw else ("", "", "")
        if not found or len(lead) < self._tail:
            return
        with self._lock:
            self._ends[lead[-min(8, self._tail) :]] = None
            while len(self._ends) > _ENDS:
                self._ends.popitem(last=False)
            key = lead[-self._tail :]
            self._calls.pop(key, None)
            self._calls[key] = calls[0]
            while len(self._calls) > self._most:
                self._calls.popitem(last=False)


_ENDS = 8
"""Ways in which calls begin that are looked for; a dialect has one."""
