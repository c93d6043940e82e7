"""Heads are chosen by what the large model gets right with what they attend to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from speceyes.errors import InputError
from speceyes.models.scripted import ScriptedModel
from speceyes.strategies.attention_heads import Reasoned, choose_heads, reason_for
from speceyes.types import Completion, Conversation, Query, Sampling

DOT = Image.new("RGB", (8, 8))
TOKENS = ("One", " two", " key", " four")


def rows(looks: dict[tuple[int, int], int], n: int = 4) -> list[Reasoned]:
    """Reasonings of four tokens; each head looks at one of them, the others at none."""
    weights = np.zeros((2, 2, len(TOKENS)), np.float32)
    for (layer, head), at in looks.items():
        weights[layer, head, at] = 0.5
    said = Completion("".join(TOKENS), (1, 2, 3, 4), tokens=TOKENS)
    return [Reasoned(Query(f"#{i}", (DOT,)), said, weights) for i in range(n)]


def reads_keys(conversation: Conversation, sampling: Sampling) -> str:
    return "right" if "key" in conversation.messages[-1].text.split("see.\n")[1] else "wrong"


def test_the_head_that_looks_at_what_matters_is_chosen() -> None:
    large = ScriptedModel({"": reads_keys})
    looks = {(0, 0): 3, (0, 1): 1, (1, 0): 2, (1, 1): 0}
    found = choose_heads(large, rows(looks), lambda query, said: said == "right", share=0.25)
    assert found == ((1, 0),)


def test_heads_are_taken_together_where_that_wins() -> None:
    def reads_both(conversation: Conversation, sampling: Sampling) -> str:
        words = conversation.messages[-1].text.split("see.\n")[1].split()
        need = "key" if "#0" in conversation.messages[-1].text else "four"
        return "right" if need in words else "wrong"

    looks = {(0, 0): 3, (0, 1): 1, (1, 0): 2, (1, 1): 0}
    large = ScriptedModel({"": reads_both})
    found = choose_heads(large, rows(looks, 2), lambda query, said: said == "right", share=0.5)
    assert set(found) >= {(0, 0)} and len(found) <= 4


@pytest.mark.parametrize("told", [[], None])
def test_what_cannot_be_chosen_by_is_said(told: Any) -> None:
    with pytest.raises(InputError, match="no reasoning"):
        choose_heads(ScriptedModel("a"), [], lambda query, said: True)
    with pytest.raises(InputError, match="can't tell"):
        reason_for(ScriptedModel("a"), [Query("?", (DOT,))])
