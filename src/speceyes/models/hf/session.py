"""A model's rows as a caller sees them who adds some while others are under way."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, final

from speceyes.errors import fault_of
from speceyes.models.hf.load import out_of_memory, reason
from speceyes.types import Completion, Conversation

logger = logging.getLogger(__name__)

Read = TypeVar("Read")
Taken = TypeVar("Taken", contravariant=True)

JOINING = 2
"""A waiting row joins at once where at most so many times as many are under way as wait, so
that prompts are read a few together and no row waits long."""
LONGEST = 16
"""Steps that a row waits for others at most."""


class Rows(Protocol[Taken]):
    """Rows that are decoded together: `ContinuousBatch`, with completions for what it decodes."""

    def __len__(self) -> int: ...

    def add(self, rows: Sequence[tuple[int, Taken]]) -> list[tuple[int, Completion]]:
        """Lets rows join; those that are finished at once."""
        ...

    def step(self) -> list[tuple[int, Completion]]:
        """Decodes a token of every row; those that are finished now."""
        ...

    def said(self, key: int) -> str:
        """The text of a row so far."""
        ...

    def drop(self, key: int) -> None:
        """Lets a row leave unfinished."""
        ...


@dataclass(frozen=True, slots=True)
class Host(Generic[Read]):
    """What a session needs of its model.

    Args:
        rows: A new, empty batch.
        read: Makes a conversation ready to be added; raises where it can't.
        alone: Completes a few conversations from the beginning, whatever happened.
        working: Entered around all that touches the model.
        room: How many rows there may be now.
        shrink: Makes room after memory ran out with so many rows, for the reason given.
    """

    rows: Callable[[], Rows[Read]]
    read: Callable[[Conversation], Read]
    alone: Callable[[Sequence[Conversation]], list[Completion]]
    working: Callable[[], AbstractContextManager[object]]
    room: Callable[[], int]
    shrink: Callable[[int, str], object]


@final
class ContinuousSession(Generic[Read]):
    """See `speceyes.protocols.Session`.

    Where a batch fails, all of its rows are begun anew, without a session, so that only those
    fail that fail alone.

    Args:
        host: The model.
    """

    def __init__(self, host: Host[Read]) -> None:
        self._host = host
        self._rows = host.rows()
        self._asked: dict[int, Conversation] = {}
        self._waiting: deque[int] = deque()
        self._done: list[tuple[int, Completion]] = []
        self._waited = 0

    def __len__(self) -> int:
        """How many have been added and have not come back yet."""
        return len(self._asked) + len(self._done)

    def add(self, key: int, conversation: Conversation) -> None:
        """Lets a conversation join at the next step that has room for it."""
        self._asked[key] = conversation
        self._waiting.append(key)

    def step(self) -> list[tuple[int, Completion]]:
        """Reads what has joined, and decodes a token of every row."""
        joining: list[tuple[int, Read]] = []
        for key in self._joining():
            try:
                joining.append((key, self._host.read(self._asked[key])))
            except Exception as exc:  # noqa: BLE001 - it ends this row, whatever it is
                why = f"the prompt can't be made: {reason(exc)}"
                self._end(key, Completion.failed(why, fault_of(exc)))
        failure = None
        try:
            with self._host.working():
                ended = self._rows.add(joining) if joining else []
                ended += self._rows.step()
        except Exception as exc:  # noqa: BLE001 - the rows are told apart below
            # Only words are kept: the traceback would hold on to the memory that ran out.
            failure = reason(exc), out_of_memory(exc)
        if failure is not None:
            ended = self._anew(*failure)
        for key, completion in ended:
            self._end(key, completion)
        done, self._done = self._done, []
        return done

    def said(self, key: int) -> str:
        """What one that is under way has said so far; "" where nothing, or it isn't known."""
        return self._rows.said(key)

    def drop(self, key: int) -> None:
        """Gives one up: it will not come back. An unknown key is ignored."""
        if self._asked.pop(key, None) is None:
            self._done = [one for one in self._done if one[0] != key]
        elif key in self._waiting:
            self._waiting.remove(key)
        else:
            with self._host.working():
                self._rows.drop(key)

    def close(self) -> None:
        """Gives all of them up."""
        self._asked.clear()
        self._waiting.clear()
        self._done.clear()
        self._rows = self._host.rows()

    def _joining(self) -> list[int]:
        """Who joins now."""
        live = len(self._rows)
        take = min(len(self._waiting), self._host.room() - live)
        if take <= 0:
            return []
        self._waited += 1
        if live > JOINING * take and self._waited <= LONGEST:
            return []
        self._waited = 0
        return [self._waiting.popleft() for _ in range(take)]

    def _anew(self, why: str, full: bool) -> list[tuple[int, Completion]]:
        keys = [key for key in self._asked if key not in self._waiting]
        self._rows = self._host.rows()
        if full:
            self._host.shrink(len(keys), why)
        logger.warning("%d rows are begun anew: %s", len(keys), why)
        return list(zip(keys, self._host.alone([self._asked[k] for k in keys]), strict=True))

    def _end(self, key: int, completion: Completion) -> None:
        del self._asked[key]
        self._done.append((key, completion))
