"""Turns of arms: an order that favours none, and a clock over one turn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from speceyes.evaluation.turn import Turn, order_of
from speceyes.types import Query, Result


@given(st.integers(1, 9))
def test_each_arm_comes_equally_often_at_each_place_and_after_each_other(n: int) -> None:
    rounds = 2 * n if n % 2 else n
    orders = [order_of(range(n), number) for number in range(rounds)]
    assert all(sorted(order) == list(range(n)) for order in orders)
    for place in range(n):
        assert set(Counter(order[place] for order in orders).values()) == {rounds // n}
    pairs = Counter(pair for order in orders for pair in pairwise(order))
    assert len(pairs) == n * (n - 1)
    assert len(set(pairs.values())) <= 1


def queries() -> list[Query]:
    image = Image.new("RGB", (4, 4))
    return [Query("?", (image,), id=str(n)) for n in range(3)]


class Counted:
    """A model that forgets, and counts nothing."""

    forgotten = 0

    def forget(self) -> None:
        self.forgotten += 1


def test_a_turn_begins_with_nothing_kept_and_stamps_what_the_arm_pulls() -> None:
    model = Counted()
    turn = Turn([model])

    def backwards(given: Iterable[Query]) -> Iterator[Result]:
        for query in reversed(list(given)):
            yield Result(query.id, "red", "draft")

    found = list(turn.run(backwards, queries()))
    assert model.forgotten == 1
    assert [result.query_id for result, _ in found] == ["2", "1", "0"]
    waits = [seconds for _, seconds in found]
    assert 0 <= waits[0] <= turn.took[0]
    assert turn.took == turn.took, "the clock has stopped"
    assert turn.spent == [{}]


def test_a_turn_that_is_broken_off_tells_its_time_up_to_now() -> None:
    turn = Turn([])

    def breaks(given: Iterable[Query]) -> Iterator[Result]:
        yield Result(next(iter(given)).id, "red", "draft")
        raise RuntimeError("broken off")

    with pytest.raises(RuntimeError, match="broken off"):
        list(turn.run(breaks, queries()))
    first, *_ = turn.took
    assert turn.took[0] >= first >= 0
