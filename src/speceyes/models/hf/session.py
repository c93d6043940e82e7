"""Continuous batching as a caller drives it: conversations join while others are under way."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

from speceyes.errors import SpecEyesError, fault_of
from speceyes.models.hf.continuous_batch import ContinuousBatch
from speceyes.models.hf.device import Device
from speceyes.models.hf.generate import Decoded
from speceyes.models.hf.load import out_of_memory, reason
from speceyes.models.hf.prompt_encoder import EncodedPrompt
from speceyes.types import Completion, Conversation

logger = logging.getLogger(__name__)

JOINING = 2
"""A waiting row joins at once where at most so many times as many are under way as wait, so
that prompts are read a few together and no row waits long."""
LONGEST = 16
"""Steps that a row waits for others at most."""


@dataclass(frozen=True, slots=True)
class Host:
    """Interface that a session needs of its model.

    Args:
        batch: A new, empty batch.
        encode: Makes a conversation ready to be added; raises where it can't.
        alone: Completes a few conversations from the beginning, whatever happened.
        completion: What was decoded behind so many tokens, as a completion.
        device: The model's use of its device.
        max_tokens: Most new tokens of a row.
        shrink: Makes room after memory ran out with so many rows, for the reason given.
    """

    batch: Callable[[], ContinuousBatch[int]]
    encode: Callable[[Conversation], EncodedPrompt]
    alone: Callable[[Sequence[Conversation]], list[Completion]]
    completion: Callable[[Decoded, int], Completion]
    device: Device
    max_tokens: int
    shrink: Callable[[int, str], object]


@final
class ContinuousSession:
    """Continuous batching: conversations join and leave between decoding steps.

    See `speceyes.protocols.Session`. Where a batch fails, all of its rows are begun anew, without
    a session, so that only those fail that fail alone.

    Args:
        host: The model.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._batch = host.batch()
        self._lengths: dict[int, int] = {}
        self._asked: dict[int, Conversation] = {}
        self._waiting: deque[int] = deque()
        self._done: list[tuple[int, Completion]] = []
        self._waited = 0

    def __len__(self) -> int:
        """Number of conversations that were added and have not come back yet."""
        return len(self._asked) + len(self._done)

    def add(self, key: int, conversation: Conversation) -> None:
        """Lets a conversation join at the next step that has room for it."""
        self._asked[key] = conversation
        self._waiting.append(key)

    def step(self) -> list[tuple[int, Completion]]:
        """Reads what has joined, and decodes a token of every row."""
        joining: list[tuple[int, EncodedPrompt, None]] = []
        for key in self._joining():
            try:
                prompt = self._host.encode(self._asked[key])
            except Exception as exc:  # noqa: BLE001 - it ends this row, whatever it is
                self._fail_prompt(key, exc)
            else:
                joining.append((key, prompt, None))
                self._lengths[key] = len(prompt.ids)
        failure = None
        try:
            with self._host.device.turn():
                decoded = self._join(joining) if joining else []
                decoded += self._batch.step()
        except Exception as exc:  # noqa: BLE001 - the rows are told apart below
            # Only words are kept: the traceback would hold on to the memory that ran out.
            failure = reason(exc), out_of_memory(exc)
        if failure is None:
            for key, row in decoded:
                self._end(key, self._host.completion(row, self._lengths[key]))
        else:
            self._anew(*failure)
        done, self._done = self._done, []
        return done

    def drop(self, key: int) -> None:
        """Gives one up: it will not come back. An unknown key is ignored."""
        if self._asked.pop(key, None) is None:
            self._done = [one for one in self._done if one[0] != key]
        elif key in self._waiting:
            self._waiting.remove(key)
        else:
            with self._host.device.turn():
                self._batch.drop(key)
            self._lengths.pop(key, None)

    def close(self) -> None:
        """Gives all of them up."""
        self._asked.clear()
        self._waiting.clear()
        self._done.clear()
        self._lengths.clear()
        self._batch = self._host.batch()

    def _joining(self) -> list[int]:
        """Keys of those that join now."""
        live = len(self._batch)
        if not self._waiting:
            return []
        take = min(len(self._waiting), self._host.device.rows() - live)
        if take <= 0:
            return []
        self._waited += 1
        if live > JOINING * take and self._waited <= LONGEST:
            return []
        self._waited = 0
        return [self._waiting.popleft() for _ in range(take)]

    def _join(
        self, joining: Sequence[tuple[int, EncodedPrompt, None]]
    ) -> list[tuple[int, Decoded]]:
        longest = self._host.max_tokens + max(self._lengths.values())
        with self._host.device.measured(len(self._lengths), longest):
            return self._batch.add(joining)

    def _anew(self, why: str, full: bool) -> None:
        keys = [key for key in self._asked if key not in self._waiting]
        self._batch = self._host.batch()
        if full:
            self._host.shrink(len(keys), why)
        logger.warning("%d rows are begun anew: %s", len(keys), why)
        completions = self._host.alone([self._asked[key] for key in keys])
        for key, completion in zip(keys, completions, strict=True):
            self._end(key, completion)

    def _fail_prompt(self, key: int, exc: Exception) -> None:
        if isinstance(exc, SpecEyesError):
            why = f"the prompt can't be made: {reason(exc)}"
            self._end(key, Completion.failed(why, fault_of(exc)))
        else:  # the adapter's inside; alone, a model may go another way
            [completion] = self._host.alone([self._asked[key]])
            self._end(key, completion)

    def _end(self, key: int, completion: Completion) -> None:
        del self._asked[key]
        self._lengths.pop(key, None)
        self._done.append((key, completion))
