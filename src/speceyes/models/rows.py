"""Asking about a batch without letting one row take the others with it.

Every phase asks its model through `generate_rows`. The Protocol already promises that a
failed conversation is a `Completion` with `error`; this holds the promise for engines that
break it, and the pipeline does the same for phases.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from speceyes.errors import ModelError, describe
from speceyes.protocols import VisionLanguageModel
from speceyes.types import Completion, Conversation, Sampling

_log = logging.getLogger(__name__)

DEFECTS = (AttributeError, TypeError, NameError, ImportError, NotImplementedError, LookupError)
"""Errors of the code that raises them, rather than of what it was asked."""

Row = TypeVar("Row")
Out = TypeVar("Out")


def retry_per_row(
    ask: Callable[[Sequence[Row]], Sequence[Out]],
    rows: Sequence[Row],
    failed: Callable[[str], Out],
) -> list[Out]:
    """One outcome a row, in order, whatever `ask` does.

    Where it raises, or returns another number of outcomes than it was given rows, each row is
    tried once more alone, so that only the guilty fail.

    Args:
        ask: Called with all rows at once.
        rows: May be empty; then nothing is asked.
        failed: Makes the outcome of a row that failed, from the reason.

    Returns:
        Outcomes. Only what isn't an `Exception` (KeyboardInterrupt, SystemExit) is raised.

    Example:
        >>> retry_per_row(lambda rows: [1 / row for row in rows], [2, 0, 4], lambda why: why)
        [0.5, 'ZeroDivisionError: division by zero', 0.25]
    """
    if not rows:
        return []
    try:
        return one_each(ask(rows), rows)
    except Exception as exc:  # noqa: BLE001 - whatever it is, the rows are told apart
        return one_by_one(ask, rows, failed, exc)


def one_each(outcomes: Sequence[Out], rows: Sequence[Row]) -> list[Out]:
    """The outcomes as a list.

    Raises:
        ModelError: There are more or fewer than rows.
    """
    found = list(outcomes)
    if len(found) != len(rows):
        raise ModelError(
            f"{len(found)} outcomes came back for {len(rows)} rows; "
            "there must be one each, in order"
        )
    return found


def one_by_one(
    ask: Callable[[Sequence[Row]], Sequence[Out]],
    rows: Sequence[Row],
    failed: Callable[[str], Out],
    exc: Exception,
) -> list[Out]:
    """Outcomes of rows that failed together: each is tried once more alone.

    Where all of them fail in the same way, and that of a kind that is the code's own, it is
    said once, as the defect that it is, and not as so many failures of queries.
    """
    reason = describe(exc)
    if len(rows) == 1:
        _log.warning("failed: %s", reason)
        return [failed(reason)]
    _log.warning("a batch of %d failed (%s); trying one by one", len(rows), reason)
    found: list[Out | None] = []
    reasons: list[str] = []
    for row in rows:
        try:
            found += one_each(ask([row]), [row])
        except Exception as again:  # noqa: BLE001 - it ends this row, whatever it is
            found.append(None)
            reasons.append(describe(again))
    if isinstance(exc, DEFECTS) and reasons == [reason] * len(rows):
        _log.error("all %d rows failed alike: a defect of the code", len(rows), exc_info=exc)
        why = f"{reason} (the same for all {len(rows)} rows: a defect of the code, not of a query)"
        return [failed(why) for _ in rows]
    for why in reasons:
        _log.warning("failed: %s", why)
    left = iter(reasons)
    return [failed(next(left)) if one is None else one for one in found]


def generate_rows(
    model: VisionLanguageModel, conversations: Sequence[Conversation], sampling: Sampling
) -> list[Completion]:
    """One completion a conversation, in order, whatever the model does.

    Returns:
        Completions; those of failed conversations have `error`.

    Example:
        >>> from speceyes.models.scripted import ScriptedModel
        >>> from speceyes.types import Message
        >>> asked = Conversation((Message("user", ("Which colour?",)),))
        >>> generate_rows(ScriptedModel("red"), [asked], Sampling())[0].text
        'red'
    """
    if not conversations:
        return []
    try:
        return one_each(model.generate(conversations, sampling), conversations)
    except Exception as exc:  # noqa: BLE001 - whatever it is, the rows are told apart
        return one_by_one(
            lambda batch: model.generate(batch, sampling), conversations, Completion.failed, exc
        )
