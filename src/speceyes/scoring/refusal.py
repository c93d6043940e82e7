"""Reasons why a draft can't be scored, whatever its numbers."""

from __future__ import annotations

from speceyes.types import Completion


def refusal(completion: Completion, top_k: int, *, whole: bool = True) -> str | None:
    """The reason why a draft can't be scored; None where it can.

    Args:
        completion: The draft.
        top_k: Number of log-probabilities to ask for where there are none.
        whole: Refuse also drafts that a floor ended before they were whole.
    """
    if completion.error is not None:
        return f"the draft failed: {completion.error}"
    if completion.finish == "length":
        return "the draft was cut at its token limit; allow more tokens to have it judged"
    if whole and completion.finish == "rejected":
        return "the draft was ended by another threshold before it was whole"
    if completion.finish not in ("stop", "rejected"):
        return f"the draft ended with finish={completion.finish!r}"
    if not completion.token_ids:
        return "the draft is empty: there are no tokens to judge"
    if completion.top_logprobs.shape[1] == 0:
        return f"the draft has no log-probabilities; ask for them with Sampling(top_k={top_k})"
    return None
