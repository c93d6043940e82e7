"""Limits of single keys: requests under way, time, and budgets of turns and seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speceyes import SpecPipeline
from speceyes.errors import ConfigError
from speceyes.models.scripted import ScriptedModel
from speceyes.server.allowance import Allowance, Budgets
from speceyes.server.keys import Keys, new_key
from speceyes.server.refusal import Refusal
from speceyes.types import Result, Step, Timings, Trajectory
from support.processes import until
from support.served import asking, pipeline, serving


def _keys(folder: Path, **limits: str) -> tuple[Keys, dict[str, str]]:
    """Keys of a file, with these limits, and how each is sent."""
    made = {name: new_key(name) for name in limits}
    lines = (f"{line} {limits[name]}" for name, (_, line) in made.items())
    file = folder / "keys.txt"
    file.write_text("\n".join(lines))
    return Keys.load(file), {name: f"Bearer {key}" for name, (key, _) in made.items()}


def _spent(turns: int = 0, seconds: float = 0.0) -> Result:
    way = Trajectory((Step("look"),) * turns, "red", "answered")
    return Result("1", "red", "agent", trajectory=way, timings=Timings(fallback=seconds))


def test_a_file_s_limits_are_read(tmp_path: Path) -> None:
    keys, _ = _keys(tmp_path, alice="requests=4 timeout=2.5 turns_per_hour=600", bob=" # none")
    assert keys.allowances["alice"] == Allowance(4, 2.5, 600)
    assert keys.allowances["bob"] == Allowance()


@pytest.mark.parametrize(
    "words", ["requests=0", "timeout=nan", "turns=5", "requests=4 requests=5", "requests=1.5", "x"]
)
def test_limits_that_are_wrong_are_refused_by_their_line(tmp_path: Path, words: str) -> None:
    with pytest.raises(ConfigError, match="line 1: "):
        _keys(tmp_path, alice=words)
    with pytest.raises(ConfigError) as raised:
        _keys(tmp_path, alice="sk-speceyes-secret")
    assert "secret" not in str(raised.value)


def test_a_key_s_agent_turns_are_bounded_and_others_go_on(tmp_path: Path) -> None:
    keys, bearer = _keys(tmp_path, alice="turns_per_hour=2", bob="")
    with serving(pipeline(), keys=keys) as served:

        def ask(name: str, **more: Any) -> Any:
            return served.post(asking(**more), headers={"Authorization": bearer[name]})

        agent = {"speceyes": {"route": "agent"}}
        assert ask("alice").status_code == 200  # a draft takes no turn
        assert [ask("alice", **agent).status_code for _ in range(2)] == [200, 200]
        reply = ask("alice")
        assert reply.status_code == 429 and reply.json()["error"]["code"] == "budget_spent"
        assert 60 <= int(reply.headers["retry-after"]) <= 3600
        assert ask("bob", **agent).status_code == 200


def test_a_key_s_time_is_bounded_whatever_its_request_asks_for(tmp_path: Path) -> None:
    keys, bearer = _keys(tmp_path, alice="timeout=0.2", bob="seconds_per_hour=0.1")
    slow = SpecPipeline.from_pretrained(large=ScriptedModel("<answer>x</answer>", delay_s=0.6))
    with serving(slow, keys=keys, limits={"seconds": 60}) as served:

        def ask(name: str, **more: Any) -> Any:
            return served.post(asking(**more), headers={"Authorization": bearer[name]})

        assert ask("alice", speceyes={"deadline_s": 30}).status_code == 504
        assert ask("bob").status_code == 200
        until(lambda: served.service.slots.held == 0)
        assert ask("bob").json()["error"]["code"] == "budget_spent"
        assert ask("alice").status_code == 504  # it has a limit of time, and no budget


def test_what_a_client_that_left_costs_is_charged_too(tmp_path: Path) -> None:
    keys, bearer = _keys(tmp_path, alice="seconds_per_hour=0.1 timeout=1", bob="")
    slow = SpecPipeline.from_pretrained(large=ScriptedModel("<answer>x</answer>", delay_s=2.0))
    with serving(slow, keys=keys) as served:
        # A process that decodes is there afterwards, and the model is what takes the time.
        assert served.post(asking(), headers={"Authorization": bearer["bob"]}).status_code == 200
        head = {"Authorization": bearer["alice"]}
        assert served.post(asking(), headers=head).status_code == 504
        until(lambda: served.service.slots.held == 0)
        assert served.post(asking(), headers=head).json()["error"]["code"] == "budget_spent"


def test_a_key_s_own_number_of_requests_replaces_the_common_one(tmp_path: Path) -> None:
    keys, bearer = _keys(tmp_path, alice="requests=1", bob="requests=3")
    with serving(pipeline(), keys=keys, limits={"per_client": 2}) as served:
        slots, allowed = served.service.slots, keys.allowances
        for name, most in (("alice", 1), ("bob", 3)):
            places = [slots.acquire(name, allowed[name].requests) for _ in range(most)]
            reply = served.post(asking(), headers={"Authorization": bearer[name]})
            assert reply.json()["error"]["code"] == "too_many_of_yours"
            for place in places:
                place.release()


@given(
    st.lists(st.tuples(st.floats(0, 2000), st.integers(0, 5)), max_size=30),
    st.integers(1, 12),
)
def test_a_budget_holds_for_any_hour_and_comes_back(
    steps: list[tuple[float, int]], most: int
) -> None:
    now = [0.0]
    budgets = Budgets({"a": Allowance(turns_per_hour=most)}, clock=lambda: now[0])
    let_in: list[tuple[float, int]] = []
    for passed, turns in steps:
        now[0] += passed
        lately = sum(t for at, t in let_in if now[0] - at < 3600 - 60)
        sure = sum(t for at, t in let_in if now[0] - at < 3600)
        try:
            budgets.check("a")
        except Refusal as exc:
            assert sure >= most  # never without cause
            wait = int(exc.headers["Retry-After"])
            assert 60 <= wait <= 3600
            now[0] += wait
            budgets.check("a")  # then it is let in
        else:
            assert lately < most
        budgets.charge("a", _spent(turns))
        let_in.append((now[0], turns))
    budgets.charge("stranger", _spent(99))
    budgets.check("stranger")
