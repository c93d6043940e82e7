"""The break-even rule of reasoning transfer, and the measured costs that go into it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from speceyes.errors import ConfigError, InputError
from speceyes.models.hf import HFModel
from speceyes.models.scripted import ScriptedModel
from speceyes.strategies import BreakEven, Pace, break_even, pace
from speceyes.types import Conversation, Message
from support.random_models import FAMILIES, build

SECONDS = st.floats(1e-6, 1.0)
TOKENS = st.floats(0, 1e5)


def asked() -> Conversation:
    return Conversation((Message("user", (Image.new("RGB", (56, 56), "red"), "What is it?")),))


@given(SECONDS, SECONDS, SECONDS, TOKENS, TOKENS, st.floats(0, 1), st.floats(0, 50))
def test_it_pays_exactly_above_the_least(
    small: float,
    large: float,
    read: float,
    reasoning: float,
    alone: float,
    part: float,
    answer: float,
) -> None:
    rule = break_even(
        Pace(read, small), Pace(read, large),
        reasoning=reasoning, kept=reasoning * part, answer=answer, alone=alone,
    )  # fmt: skip
    assert rule.transferred == pytest.approx(
        reasoning * small + reasoning * part * read + answer * large
    )
    assert rule.alone == alone * large
    if abs(alone - rule.least) > 1e-6 * (alone + rule.least):
        assert rule.pays == (alone > rule.least)


def test_handing_over_less_never_costs_more() -> None:
    paces = Pace(0.001, 0.01), Pace(0.002, 0.05)
    costs = [
        break_even(*paces, reasoning=100, kept=kept, alone=60).transferred for kept in (10, 50, 100)
    ]
    assert costs == sorted(costs)
    assert break_even(*paces, reasoning=100, alone=60).transferred == costs[-1]


@pytest.mark.parametrize(
    ("counts", "says"),
    [
        ({"reasoning": 10, "kept": 11, "alone": 5}, "only what is there"),
        ({"reasoning": -1, "alone": 5}, "reasoning=-1"),
        ({"reasoning": 1, "alone": float("nan")}, "alone=nan"),
    ],
)
def test_counts_that_can_not_be_are_refused(counts: dict[str, float], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        break_even(Pace(0, 1), Pace(0, 1), **counts)
    with pytest.raises(ConfigError, match="decoded above 0"):
        Pace(0.1, 0)


def test_a_model_that_says_nothing_tells_nothing() -> None:
    with pytest.raises(InputError, match="answers at length"):
        pace(ScriptedModel("red"), asked(), repeats=1)


def test_a_real_models_pace_is_measured() -> None:
    net, processor = build(FAMILIES[0])
    found = pace(HFModel(net, processor), asked(), tokens=24, words=150, repeats=3)
    # A token that is read shares its pass with hundreds; one that is decoded has its own.
    assert found.decoded > 0 and found.read < found.decoded
    rule = break_even(found, found, reasoning=20, kept=5, answer=2, alone=40)
    assert isinstance(rule, BreakEven) and rule.pays
