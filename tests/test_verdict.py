"""Advice on a funnel: what it rests on."""

from __future__ import annotations

import pytest

from speceyes.evaluation.verdict import Outcome

FASTER = (1.86, 1.42, 2.44)


def advice(itself: tuple[float, float | None, float | None] | None) -> str:
    return Outcome("the funnel", 60, 30, 0, FASTER, 12, 1, 1, 1.0, itself).sentences()[-1]


@pytest.mark.parametrize("itself", [None, (1.0, None, None), (1.02, 0.9, 1.1), (1.3, 0.99, 1.6)])
def test_a_gain_is_advised_where_the_clock_is_not_shown_to_be_off(itself) -> None:
    assert "use it" in advice(itself)


@pytest.mark.parametrize("itself", [(1.81, 1.32, 2.49), (0.6, 0.4, 0.9)])
def test_no_speed_is_advised_on_by_a_clock_that_is_off(itself) -> None:
    """Seen on a busy machine: 1.86 times as fast, and the funnel 1.81 times as fast as itself."""
    assert "use it" not in advice(itself) and "Run it again" in advice(itself)
