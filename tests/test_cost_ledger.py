"""Costs of queries that ran beside others, at what they would be alone, and what is reckoned."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from speceyes.pipeline.efficiency import ENOUGH, Ledger, Spent, Straight, logged

BESIDE = Spent(9.0, 9.0, 9.0, False, True, False, False, read=100, written=20, judged=100)
"""A query whose seconds hold other queries' work, and say nothing."""


def ledger(*spent: Spent, **changes: Any) -> Ledger:
    by_itself = [Spent(0.2, 0.1, None, True, True, judged=100)]
    straight = [Straight(0.5, 150, 40), Straight(1.5, 250, 60)]
    return dataclasses.replace(Ledger(spent, straight, by_itself), **changes)


# --- beside others ----------------------------------------------------------------------------


def test_what_ran_by_itself_keeps_its_own_seconds() -> None:
    alone = [Spent(0.3, 0.2, 4.0, False, True), Spent(0.3, 0.2, None, True, True)]
    assert ledger(*alone).priced() == alone
    assert ledger(*alone, straight=[]).priced() == alone
    for part, other in (("stage_alone", "agent_alone"), ("agent_alone", "stage_alone")):
        one = dataclasses.replace(alone[0], **{part: False}, read=10, written=5)
        assert ledger(one, straight=[]).priced() is None, "nothing tells what the agent costs"
        priced = ledger(one).priced()
        assert priced is not None and getattr(priced[0], other)
        kept = {"agent_alone": ("judge", "draft"), "stage_alone": ("fallback",)}[part]
        assert all(getattr(priced[0], name) == getattr(one, name) for name in kept)


def test_a_stage_beside_others_costs_what_it_does_by_itself() -> None:
    """The mean of those by themselves, or a lower quartile where company was less, if less."""
    [one] = ledger(BESIDE).priced() or []
    assert (one.judge, one.draft) == (pytest.approx(0.2), pytest.approx(0.1))
    quick = [dataclasses.replace(BESIDE, judge=0.01 * n, draft=0.02 * n) for n in range(1, 6)]
    for one in ledger(*quick).priced() or [BESIDE]:
        assert (one.judge, one.draft) == (pytest.approx(0.02), pytest.approx(0.04))
    for one in ledger(*quick, by_itself=[]).priced() or [BESIDE]:
        assert (one.judge, one.draft) == (pytest.approx(0.02), pytest.approx(0.04))
    no_judge = dataclasses.replace(BESIDE, judge=None, draft=None)
    assert [(one.judge, one.draft) for one in ledger(no_judge).priced() or []] == [(None, None)]


def test_a_fallback_beside_others_goes_by_its_tokens() -> None:
    """As the queries that went straight to the agent cost on average, 1 s for 200 read and 50
    written; where the agent's model judges, a judgement of 0.2 s tells what reading 100 costs.
    """
    [one] = ledger(BESIDE, same_model=True).priced() or []
    assert one.fallback == pytest.approx(100 * 0.002 + 20 * (1 - 0.4) / 50)
    for places in (1, 4):
        seconds = []
        for read, written in ((1, 0), (0, 1), (200, 50)):
            asked = dataclasses.replace(BESIDE, read=read, written=written)
            [one] = ledger(asked, places=places).priced() or []
            seconds.append(one.fallback)
        reading, writing, mean = (float(each or 0) for each in seconds)
        assert reading / writing == pytest.approx(0.008 * places)
        assert mean == pytest.approx(1.0)
    never = dataclasses.replace(BESIDE, fallback=None)
    assert [one.fallback for one in ledger(never).priced() or []] == [None]


def test_judgements_tell_what_reading_costs_where_they_read_and_no_more_than_all() -> None:
    unjudged = dataclasses.replace(BESIDE, judge=None, judged=10**6)
    _, one = ledger(unjudged, BESIDE, same_model=True).priced() or []
    assert one.fallback == pytest.approx(0.2 + 20 * 0.012), "what no judge saw tells nothing"
    slow = [Spent(50.0, 0.1, None, True, True, judged=100)]
    dear = ledger(BESIDE, same_model=True, by_itself=slow).priced() or []
    assert dear[0].fallback == pytest.approx(100 * 1.0 / 200), "all of it is reading, at most"
    unread = dataclasses.replace(BESIDE, judged=0)
    for same_model in (True, False):
        [one] = ledger(unread, same_model=same_model).priced() or []
        assert one.fallback == pytest.approx((0.008 * 100 + 20) / (0.008 * 200 + 50)), (
            "as without a judge"
        )


@pytest.mark.parametrize(
    ("read", "written", "expected"),
    [(0, 0, 1.0), (200, 0, 1.0), (0, 50, 20 / 50)],
    ids=["no tokens", "nothing written", "nothing read"],
)
def test_without_tokens_a_fallback_costs_what_the_agent_does(
    read: int, written: int, expected: float
) -> None:
    straight = [Straight(1.0, read, written)]
    [one] = ledger(BESIDE, straight=straight).priced() or []
    assert one.fallback == pytest.approx(expected)
    if not read:  # a judgement tells what reading costs, though the agent found all of it kept
        [one] = ledger(BESIDE, straight=straight, same_model=True).priced() or []
        left = (1.0 - 0.0) * 20 / written if written else 0.0
        assert one.fallback == pytest.approx(100 * 0.002 + left)


def test_costs_told_beside_others_bound_no_gain() -> None:
    """Without a query that went straight to the agent they can't be told apart."""
    mixed = [dataclasses.replace(BESIDE, accepted=n % 2 == 0) for n in range(80)]
    found, reach = ledger(*mixed, straight=[]).reckon()
    assert found.assumed and found.at_most is None and reach is None and found.gain is None
    known, _ = ledger(*mixed, straight=[Straight(1.0, 200, 50)] * ENOUGH).reckon()
    assert not known.assumed and known.gain is not None
    # 0.2 + 0.1 s for judge and draft by themselves, and the fallback by its tokens.
    assert known.speculated == pytest.approx(0.3 + (0.8 + 20) / (1.6 + 50))


def test_what_is_not_told_of_a_query_is_nothing() -> None:
    plain = Spent(None, None, None, False, True, True, True, 0, 0, 0)
    assert Spent(None, None, None, False, True) == plain and plain.all == 0 and plain.alone is None
    assert Straight(1.0) == Straight(1.0, 0, 0)
    assert Ledger([], [], []) == Ledger([], [], [], False, 1)
    assert (
        Spent(1.0, 2.0, 4.0, False, True).all == 7 and Spent(1.0, 2.0, 4.0, False, True).alone == 5
    )


# --- what is reckoned ---------------------------------------------------------------------------


def test_shares_and_means_are_of_their_own_queries() -> None:
    """Each figure by its definition, over queries of all kinds in uneven numbers."""
    spent = [
        *[Spent(0.3, 0.2, None, True, True)] * 5,
        *[Spent(0.3, 0.2, 2.0, False, True)] * 3,
        *[Spent(0.3, None, 4.0, False, False)] * 2,
    ]
    straight = [Straight(float(1 + n % 3)) for n in range(ENOUGH)]
    found, reach = Ledger(spent, straight, []).reckon()
    agent = float(np.mean([one.seconds for one in straight]))
    assert (found.queries, found.beta, found.alpha) == (10 + ENOUGH, 0.8, 5 / 8)
    assert (found.c_judge, found.c_draft) == (pytest.approx(0.3), pytest.approx(0.2))
    assert (found.l_tools, found.l_rejected) == (4.0, 2.0)
    assert found.l_agent == pytest.approx(agent)
    assert found.l_accepted == pytest.approx(max(0.0, (agent - 0.5 * 14 / 5) / 0.5))
    speculated = 0.3 + 0.8 * 0.2 + (3 * 2 + 2 * 4) / 10
    assert found.speculated == pytest.approx(speculated)
    assert found.gain == pytest.approx(agent / speculated) and reach is None
    assert found.paper == pytest.approx(1 / (1 - 0.8 * 5 / 8))
    assert found.measured is None and found.outside is None and found.at_most is None


def test_without_a_judge_there_is_no_share_that_it_lets_through() -> None:
    """But for a drafter that may ask for a closer look, which judges as it drafts."""
    drafted = [Spent(None, 0.2, None, True, True)] * 3 + [Spent(None, 0.2, 1.0, False, True)]
    found, _ = Ledger(drafted, [], []).reckon()
    assert found.beta is None and found.alpha == 0.75 and found.paper == pytest.approx(4)
    looked, _ = Ledger([*drafted, Spent(None, 0.2, 1.0, False, False)], [], []).reckon()
    assert looked.beta == 0.8 and looked.l_tools == 1.0 and looked.assumed and looked.alpha == 0.75
    judged, _ = Ledger([Spent(0.1, 0.2, 1.0, False, True)] * 4, [], []).reckon()
    assert judged.beta == 1.0 and judged.alpha == 0.0 and judged.paper == 1.0
    none, _ = Ledger([Spent(0.1, None, 1.0, False, False)] * 4, [], []).reckon()
    assert none.alpha is None and none.paper is None and none.beta == 0.0
    every, _ = Ledger([Spent(None, 0.2, None, True, True)] * 4, [], []).reckon()
    assert every.alpha == 1.0 and every.paper is None, "the bound has no end"


def test_where_nothing_was_accepted_and_nothing_judged_the_agent_is_known() -> None:
    """Each query was answered by it, and it had nothing to find read."""
    drafted, _ = Ledger([Spent(None, 0.2, 2.0, False, True)] * 4, [], []).reckon()
    assert not drafted.assumed and drafted.l_agent == 2.0
    assert drafted.gain == pytest.approx(2.0 / 2.2) and drafted.at_most is None
    judged, _ = Ledger([Spent(0.1, 0.2, 2.0, False, True)] * 4, [], []).reckon()
    assert judged.assumed and judged.l_agent is None and judged.gain is None
    assert judged.at_most == pytest.approx(2.1 / 2.3), "it may find the judge's reading done"
    few, _ = Ledger([Spent(None, 0.2, 2.0, False, True)] * 4, [Straight(9.0)], []).reckon()
    assert few.l_agent == 2.0, "a few probes don't count yet"


def test_time_outside_the_phases_is_shared_by_all_queries() -> None:
    spent = [Spent(None, 0.5, 1.5, False, True)] * ENOUGH
    straight = [Straight(1.0)] * ENOUGH
    seconds = 3.0 * ENOUGH + 0.2 * 2 * ENOUGH
    found, _ = Ledger(spent, straight, []).reckon(seconds)
    assert found.outside == pytest.approx(0.2)
    assert found.speculated == pytest.approx(2.2) and found.l_agent == pytest.approx(1.2)
    assert found.gain == pytest.approx(1.2 / 2.2)
    assert found.measured == pytest.approx(1.2 / (seconds / (2 * ENOUGH)))
    more, _ = Ledger(spent, straight, []).reckon(seconds, 4 * ENOUGH)
    assert more.outside == pytest.approx(0.1)
    assert more.measured == pytest.approx(1.1 / (seconds / (4 * ENOUGH)))
    exact, _ = Ledger(spent, straight, []).reckon(3.0 * ENOUGH)
    assert exact.outside == 0.0
    beside, _ = Ledger(spent, straight, []).reckon(2.9 * ENOUGH)
    assert beside.outside is None and beside.speculated == pytest.approx(2.0)
    # Without queries that went straight to it the agent's seconds come with their query's own.
    alone, _ = Ledger(spent, [], []).reckon(2.2 * ENOUGH)
    assert alone.outside == pytest.approx(0.2) and alone.l_agent == pytest.approx(1.5)
    none, _ = Ledger([], [], []).reckon(5.0, 0)
    assert none.outside is None and none.measured is None


def test_an_interval_is_the_delta_method_s() -> None:
    above, below = [1.0, 2.0, 4.0] * 20, [1.0, 1.5] * 25
    spent = [Spent(None, 0.5, seconds - 0.5, False, True) for seconds in below]
    found, _ = Ledger(spent, [Straight(seconds) for seconds in above], []).reckon()
    assert found.gain == pytest.approx(np.mean(above) / np.mean(below))
    spread = math.sqrt(
        sum(float(np.var(x, ddof=1)) / len(x) / float(np.mean(x)) ** 2 for x in (above, below))
    )
    assert logged(above, below) == pytest.approx((math.log(found.gain or 0), spread))
    reach = math.exp(1.959963984540054 * spread)
    assert found.interval == pytest.approx(((found.gain or 0) / reach, (found.gain or 0) * reach))


@pytest.mark.parametrize("n", [31, 32])
def test_a_bound_has_an_interval_from_enough_queries_on(n: int) -> None:
    spent = [Spent(0.1, 0.2, 1.0 + i % 2, False, True) for i in range(n)]
    found, reach = Ledger(spent, [], []).reckon()
    assert found.at_most is not None and (reach is not None) == (n == 32)
    free = [Spent(None, 0.0, 0.0, False, True)] * n
    nothing, reach = Ledger(free, [Straight(1.0)] * ENOUGH, []).reckon()
    assert nothing.gain is None and reach is None, "no ratio to a cost of nothing"
    idle, _ = Ledger(spent, [Straight(0.0)] * ENOUGH, []).reckon()
    assert idle.gain is None
