"""The rule of reasoning transfer: what agreement settles, which notes are heeded."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from speceyes.errors import ConfigError, InputError
from speceyes.models.scripted import ScriptedModel
from speceyes.strategies import ReasoningTransfer, TransferRule
from speceyes.strategies.transfer_rule import Tried, choose_rule, score_of
from speceyes.types import Completion, Conversation, Query, Sampling

DOT = Image.new("RGB", (48, 48))


def said(margin: float) -> Completion:
    """An answer of one token that stands so far above what competes with it."""
    spread = np.array([0.3, 0.2, 0.1, 0.0, -0.1, -0.2, -0.3, -0.4])
    rows = np.concatenate([[margin], spread])[None]
    rows -= np.log(np.exp(rows).sum())
    return Completion("red", (1,), rows.astype(np.float32))


def tried(brief: float, noted: float, agree: bool, right: tuple[bool, bool]) -> Tried:
    return Tried(said(brief), said(brief), said(noted), agree, *right)


USELESS = [tried(5.0 + i % 7, 5.0, i % 2 == 0, (i % 10 < 7, i % 10 < 6)) for i in range(100)]


def test_notes_of_no_use_are_never_heeded_and_nobody_reasons() -> None:
    rule = choose_rule(USELESS)
    assert not rule.reasons and rule.right == rule.brief == 70 and rule.settled == 100
    small = ScriptedModel({"step by step": "It is blue.", "": "blue"})
    large = ScriptedModel({"Somebody looked": "blue", "": "green"})
    run = ReasoningTransfer(large, small, rule=rule)
    [result] = run([(DOT, "Which colour?")])
    assert (result.answer, result.route) == ("green", "draft")
    assert run.transferred.written == 0 and run.transferred.agreed == 1


def test_a_gain_that_may_be_chance_is_none() -> None:
    few = [tried(5.0, 9.0, False, (False, True))] * 2 + USELESS[:80:2]
    assert not choose_rule([*few, *[tried(5.0, 9.0, False, (True, False))] * 1]).reasons


def test_useless_notes_are_rarely_heeded_though_many_rises_are_tried() -> None:
    """The best of many rises gains by luck: held against none by itself, it did in a third."""
    draw = np.random.default_rng(5)
    heeded = 0
    for _ in range(50):
        rows = []
        for brief, noted in draw.uniform(2, 12, (80, 2)).tolist():
            right = bool(draw.random() < 0.5)
            rows.append(tried(brief, noted, False, (right, right ^ bool(draw.random() < 0.5))))
        heeded += choose_rule(rows).reasons
    assert heeded <= 6  # where 2.5 are expected at most, more than 6 come in 1 of 80 such series


def test_notes_that_help_a_part_of_the_queries_are_heeded_there() -> None:
    draw = np.random.default_rng(6)
    rows = [
        tried(4.0, 4.0 + rise, False, (False, True) if rise > 3 else (True, bool(rise > 2)))
        for rise in draw.uniform(-4, 6, 120).tolist()
    ]
    rule = choose_rule(rows)
    assert (
        rule.reasons and rule.heeds(said(4.0), said(8.0)) and not rule.heeds(said(4.0), said(5.0))
    )
    assert rule.right == 120


def test_notes_are_heeded_where_the_large_model_is_surer_with_them() -> None:
    helps = [tried(4.0, 9.0, False, (False, True))] * 30
    harms = [tried(7.0, 5.0, False, (True, False))] * 30
    rule = choose_rule(helps + harms)
    assert rule.right == 60 and rule.settled == 0 and math.isfinite(rule.rises)
    assert rule.heeds(said(4.0), said(9.0)) and not rule.heeds(said(7.0), said(5.0))


def test_agreement_settles_only_what_both_are_sure_of() -> None:
    sure = [tried(9.0, 9.0, True, (True, True))] * 40
    guessed = [tried(2.0, 9.0, True, (False, True))] * 40
    rule = choose_rule(sure + guessed)
    assert rule.right == 80 and rule.settled == 40
    assert rule.settled_by(said(9.0), said(9.0)) and not rule.settled_by(said(9.0), said(2.0))


def test_a_model_that_tells_nothing_is_never_sure() -> None:
    silent = Completion("red", (1,))
    assert score_of(silent, "separability") == score_of(silent, "likelihood") == -math.inf
    rule = TransferRule(settles=0.0, rises=0.5)
    assert not rule.settled_by(silent, silent) and not rule.heeds(said(3.0), silent)
    assert TransferRule().heeds(silent, silent)  # where notes are always heeded


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.floats(0, 12),
            st.floats(0, 12),
            st.booleans(),
            st.tuples(st.booleans(), st.booleans()),
        ),
        min_size=30,
        max_size=80,
    ),
    st.sampled_from([0.0, 0.005, 0.1]),
)
def test_on_its_own_queries_a_rule_is_what_it_says_and_no_worse_than_brief(
    rows: list[tuple[float, float, bool, tuple[bool, bool]]], loss: float
) -> None:
    seen = [tried(*row) for row in rows]
    rule = choose_rule(seen, loss=loss)
    right = settled = 0
    for one in seen:
        first = not rule.reasons or (one.agree and rule.settled_by(one.large, one.small))
        heeded = not first and rule.heeds(one.large, one.noted)
        settled += first
        right += one.noted_right if heeded else one.brief_right
    assert (right, settled) == (rule.right, rule.settled)
    assert right >= sum(t.brief_right for t in seen) - loss * len(seen)


def test_rules_are_written_and_read() -> None:
    for rule in (
        TransferRule(),
        TransferRule("likelihood", -math.inf, math.inf),
        choose_rule(USELESS),
    ):
        assert TransferRule.from_dict(json.loads(json.dumps(rule.to_dict()))) == rule
    with pytest.raises(ConfigError, match="transfer rule"):
        TransferRule.from_dict({"settles": "much"})
    with pytest.raises(ConfigError, match="transfer rule"):
        TransferRule.from_dict({"setles": 1})


@pytest.mark.parametrize(
    "options", [{"by": "words"}, {"top_k": 2}, {"settles": math.nan}, {"rises": math.nan}]
)
def test_rules_that_are_none(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        TransferRule(**options)
    with pytest.raises(ConfigError, match="takes the place"):
        ReasoningTransfer(
            ScriptedModel("a"), ScriptedModel("a"), rule=TransferRule(), verify="likelihood"
        )


def test_too_few_labelled_queries_choose_nothing() -> None:
    with pytest.raises(InputError, match="29 labelled"):
        choose_rule(USELESS[:29])
    with pytest.raises(ConfigError, match="loss=1"):
        choose_rule(USELESS, loss=1)


def test_answers_that_are_none_count_as_what_is_given_instead() -> None:
    """Where notes keep the large model from answering, its brief answer is what is given."""

    def cut(conversation: Conversation, sampling: Sampling) -> Completion:
        return dataclasses.replace(said(9.0), text="well, I", finish="length")

    queries = [Query(f"Which? #{i}", (DOT,), id=str(i)) for i in range(40)]
    small = ScriptedModel({"step by step": "It is so.", "": "none"})
    mute = ScriptedModel({"Somebody looked": cut, "": "brief"})
    rule = ReasoningTransfer(mute, small).calibrate(
        queries, lambda query, answer: answer == "brief"
    )
    assert (rule.brief, rule.noted, rule.right, rule.reasons) == (40, 40, 40, False)
    late = ScriptedModel({"Somebody looked": "noted", "": cut})
    rule = ReasoningTransfer(late, small).calibrate(
        queries, lambda query, answer: answer == "noted"
    )
    assert (rule.brief, rule.noted, rule.right, rule.settled) == (0, 40, 40, 0)
    [result] = ReasoningTransfer(late, small, rule=rule)(queries[:1])
    assert result.answer == "noted"
    never = ScriptedModel(cut)
    with pytest.raises(InputError, match="0 labelled"):
        ReasoningTransfer(never, small).calibrate(queries, lambda query, answer: True)


def test_a_rule_is_chosen_on_what_the_models_say() -> None:
    """Notes help with odd questions and mislead in even ones, where the large model is sure."""

    def number(conversation: Conversation) -> int:
        return int(conversation.messages[0].text.split("#")[1].split("\n")[0])

    def brief(conversation: Conversation, sampling: Sampling) -> Completion:
        odd = number(conversation) % 2
        return Completion("1" if odd else "0", (1,), said(2.0 if odd else 9.0).top_logprobs)

    def noted(conversation: Conversation, sampling: Sampling) -> Completion:
        odd = number(conversation) % 2
        return Completion("right" if odd else "wrong", (1,), said(8.0 if odd else 4.0).top_logprobs)

    large = ScriptedModel({"Somebody looked": noted, "": brief})
    small = ScriptedModel({"step by step": "It is so.", "": "none"})
    queries = [Query(f"Which? #{i}", (DOT,), id=str(i)) for i in range(40)]
    run = ReasoningTransfer(large, small)
    rule = run.calibrate(
        queries, lambda query, said: said == ("right" if int(query.id) % 2 else "0")
    )
    assert (rule.brief, rule.noted, rule.right, rule.settled) == (20, 20, 40, 0)
    ruled = ReasoningTransfer(large, small, rule=rule)
    assert [r.answer for r in ruled(queries[:4])] == ["0", "right", "0", "right"]
    assert ruled.transferred.unheeded == 2
