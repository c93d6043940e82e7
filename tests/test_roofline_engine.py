"""The scripted engine: what it takes follows the roofline, and what a funnel gains over it."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from speceyes.bench.planned import RoutePlan
from speceyes.bench.roofline.clock import VirtualClock
from speceyes.bench.roofline.engine import Device, Engine, EngineRequest, Piece
from speceyes.bench.roofline.foresight import foresee
from speceyes.bench.roofline.latency import latencies
from speceyes.bench.roofline.latency import table as latency_table
from speceyes.bench.roofline.model import RooflineModel
from speceyes.bench.roofline.server import RooflineServer, TimedDevice
from speceyes.bench.roofline.workload import (
    Played,
    RooflineWorkload,
    eight,
    play,
    times_of_chance,
)
from speceyes.cli import bench, parser
from speceyes.errors import ConfigError, ModelError
from speceyes.models.openai import OpenAIModel
from speceyes.models.openai.session import STEP_S
from speceyes.models.scripted import ScriptedModel
from speceyes.models.sizes import named
from speceyes.tuning.roofline import ACCELERATORS, Workload, phase_costs
from speceyes.types import Conversation, Message, Sampling


def engine(
    shape: str = "qwen2.5-vl-7b", most: int = 64, chunk: int = 2048, kept: int = 400_000
) -> tuple[VirtualClock, Device, Engine]:
    clock = VirtualClock()
    device = Device(ACCELERATORS["H100"], clock)
    clock.add(device)
    return clock, device, device.serve(named(shape), most=most, chunk=chunk, kept_tokens=kept)


def ended(clock: VirtualClock, asked: list[EngineRequest]) -> None:
    clock.wait(lambda: all(one.done for one in asked))


def test_one_query_takes_what_the_arithmetic_says() -> None:
    clock, device, large = engine(chunk=8192)
    image = named("qwen2.5-vl-7b").image_tokens(2246, 1582)
    one = large.submit([Piece(1, 60), Piece(2, image, image=True)], 1)
    ended(clock, [one])
    told = phase_costs(Workload(2246, 1582, batch=1))
    assert one.encode_s + one.prefill_s == pytest.approx(told.shared, rel=0.03)
    assert one.ended == pytest.approx(one.work_s) and device.busy_s == pytest.approx(one.work_s)


def test_steps_that_write_are_shared_and_reading_is_not() -> None:
    clock, _, large = engine()
    one = large.submit([Piece(1, 16)], 100)
    ended(clock, [one])
    alone = clock()
    many = [large.submit([Piece(10 + i, 16)], 100) for i in range(64)]
    ended(clock, many)
    assert clock() - alone < 1.2 * alone, "64 write in little more than the time of one"
    before = clock()
    long = [large.submit([Piece(100 + i, 2000)], 1) for i in range(8)]
    ended(clock, long)
    assert clock() - before > 6 * long[0].prefill_s, "reading is done one after the other"


def test_a_beginning_that_is_kept_is_not_read_again() -> None:
    clock, _, large = engine()
    prompt = [Piece(1, 60), Piece(2, 4500, image=True), Piece(3, 20)]
    first = large.submit(prompt, 1)
    ended(clock, [first])
    second = large.submit([*prompt, Piece(4, 40)], 1)
    ended(clock, [second])
    assert (first.cached, second.cached, second.encode_s) == (0, 4580, 0.0)
    assert second.work_s < 0.05 * first.work_s
    clock, _, forgetful = engine(kept=0)
    for _ in range(2):
        again = forgetful.submit(prompt, 1)
        ended(clock, [again])
        assert again.cached == 0


def test_what_does_not_fit_waits_and_what_was_used_last_stays() -> None:
    clock, _, large = engine(kept=1000)
    both = [large.submit([Piece(1, 700)], 10), large.submit([Piece(2, 700)], 10)]
    ended(clock, both)
    assert both[1].begun >= both[0].ended
    again = large.submit([Piece(2, 700)], 1)
    ended(clock, [again])
    assert again.cached == 699


def test_one_that_is_given_up_leaves_its_place() -> None:
    clock, _, large = engine(most=1)
    first = large.submit([Piece(1, 100)], 1000)
    second = large.submit([Piece(2, 100)], 5)
    large.drop(first)
    ended(clock, [second])
    assert not first.done and large.live == 0


def test_a_model_says_what_is_scripted_and_counts_what_was_kept() -> None:
    clock, _, large = engine()
    model = RooflineModel(large, ScriptedModel("a red kite"), clock, magnify=16)
    dot = Image.new("RGB", (100, 80), "red")
    asked = Conversation((Message("user", (dot, "What is that?")),))
    [said] = model.generate([asked], Sampling())
    assert said.text == "a red kite" and said.cached_tokens == 0
    assert said.prompt_tokens > named("qwen2.5-vl-7b").image_tokens(1600, 1280)
    longer = Conversation(
        (*asked.messages, Message("assistant", ("a red kite",)), Message("user", ("Sure?",)))
    )
    session = model.session(Sampling())
    assert session is not None
    session.add(7, longer)
    [(key, again)] = session.step()
    assert key == 7 and again.cached_tokens == said.prompt_tokens and len(session) == 0


def test_a_clock_whose_lanes_all_wait_says_so() -> None:
    clock = VirtualClock()
    with pytest.raises(ModelError, match="no event"):
        clock.run([lambda: clock.wait(lambda: False)])
    told: list[float] = []

    def later() -> None:
        clock.wait(until=2.0)
        told.append(clock())

    clock.run([later, later])
    assert told == [2.0, 2.0]


def test_it_is_served_in_scaled_time() -> None:
    """A funnel over HTTP: what is asked together shares steps, and prefixes are kept."""
    device = TimedDevice("H100", faster=200.0)
    agent = ScriptedModel({"yes or no": "no", "": "<answer>blue</answer>"})
    served = {"large": ("qwen2.5-vl-7b", agent), "small": ("qwen3-vl-2b", ScriptedModel("red"))}
    server = RooflineServer(served, device)
    large = OpenAIModel(server.url, "large", engine="openai", retries=0)
    small = OpenAIModel(server.url, "small", engine="openai", retries=0)
    try:
        photo = Image.new("RGB", (640, 480), "red")
        asked = [
            Conversation((Message("user", (photo, f"What is that? [{at}]")),)) for at in range(8)
        ]
        first = large.generate(asked[:1], Sampling())[0]
        drafts = small.generate(asked, Sampling(max_tokens=8, top_k=8))
        again = large.generate(asked, Sampling())
    finally:
        for model in (large, small):
            model.close()
        server.close()
    assert first.cached_tokens == 0 and first.error is None
    assert all(one.error is None and one.top_logprobs.shape[1] == 8 for one in drafts)
    image = named("qwen2.5-vl-7b").image_tokens(640, 480)
    assert all(one.cached_tokens is not None and one.cached_tokens >= image for one in again)
    assert device.device.busy_s > 0
    with pytest.raises(ConfigError, match="faster=0"):
        TimedDevice(faster=0)


# --- a funnel over it -----------------------------------------------------------------------


def speculated(played: Played) -> int:
    return sum(one.judgement is not None or one.verdict is not None for one in played.results)


def test_a_run_is_the_same_every_time_and_loses_nothing() -> None:
    workload = eight(96)[1]
    first, second = play(workload, "auto"), play(workload, "auto")
    assert (first.seconds, first.latency) == (second.seconds, second.latency)
    ids = [one.query_id for one in first.results]
    assert ids == [one.query_id for one in second.results]
    assert sorted(ids) == [f"query-{number:06d}" for number in range(96)]
    assert all(one.error is None for one in first.results)


def test_queries_of_another_seed_have_turns_of_other_lengths() -> None:
    """So that what a pilot foresees isn't held against its own lots."""

    def written(seed: int) -> list[int]:
        routes = RoutePlan(8, beta=0.0, depth=0, turn_tokens=100, seed=seed)
        played = play(RooflineWorkload("POPE", routes, (640, 480), "none", 8), "never")
        assert played.large is not None
        return sorted(one.tokens for one in played.large.asked)

    assert written(0) == written(0) != written(1)


def test_the_large_judge_gains_one_by_one_and_loses_in_front_of_a_batch() -> None:
    """The paper's gain is there for one at a time, and gone for 16."""
    gains = []
    for batch in (1, 16):
        routes = RoutePlan(10 if batch == 1 else 160, depth=0, turn_tokens=100, alpha=0.7)
        workload = RooflineWorkload("V*", routes, batch=batch, keeps=False)
        gains.append(play(workload, "never").seconds / play(workload).seconds)
    assert gains[0] > 1.15 and gains[1] < 0.9


SIZES = {"POPE": (640, 480), "V*": (2246, 1582), "4K": (4032, 3024), "8K": (7680, 5120)}


QUICK = (("POPE", 1), ("V*", 1))
"""Those batched have the next test for a quick form."""


@pytest.mark.parametrize(
    ("size", "judge", "batch"),
    [
        pytest.param(
            *(size, judge, batch),
            id=f"{size}-{judge}-{batch}",
            marks=() if (size, batch) in QUICK else pytest.mark.exhaustive,
        )
        for size, judge in zip(SIZES, ("large", "small", "small", "large"), strict=True)
        for batch in (1, 64)
    ],
)
def test_what_is_foreseen_is_what_is_then_measured(size: str, judge: Any, batch: int) -> None:
    routes = RoutePlan(60 if batch == 1 else 480, depth=1, turn_tokens=100, draft_tokens=6)
    workload = RooflineWorkload(size, routes, SIZES[size], judge, batch)
    quick = (size, batch) in QUICK
    found = foresee(workload, pilot=120 if quick else 300 if batch == 1 else 480, auto=False)
    assert found.worst < 0.1
    assert found.interval[0] < found.gain[0] < found.interval[1]
    assert 0.9 * found.interval[0] < found.gain[1] < 1.1 * found.interval[1]


@pytest.mark.exhaustive  # test_what_is_foreseen_is_what_is_then_measured has quick forms
@pytest.mark.parametrize("n", [240, 480])
def test_what_an_engine_keeps_in_other_company_is_foreseen_too(n: int) -> None:
    """Of 32 images of 8K the agent alone keeps none for its second turn; the funnel's are kept."""
    routes = RoutePlan(n, depth=1, turn_tokens=100, draft_tokens=6)
    found = foresee(RooflineWorkload("8K", routes, SIZES["8K"], "small", 32), auto=False)
    assert found.worst < 0.1


@pytest.mark.parametrize("judge", ["small", pytest.param("none", marks=pytest.mark.exhaustive)])
def test_a_plan_is_near_the_latency_that_is_measured(judge: Any) -> None:
    routes = RoutePlan(240, depth=1, turn_tokens=100, draft_tokens=6)
    workload = RooflineWorkload("8K", routes, SIZES["8K"], judge)
    [found] = latencies(dataclasses.replace(workload, batch=16), [0.3], runs=2)
    assert abs(found.off) < 0.1
    assert found.drafted < found.mean < found.by_agent
    assert f"| 30 % | {found.told.mean:.2f}, {found.mean:.2f} |" in latency_table([found])


@pytest.mark.parametrize(
    ("size", "judge"),
    [
        ("POPE", "small"),
        *(
            pytest.param(size, judge, marks=pytest.mark.exhaustive)
            for size, judge in (("POPE", "none"), ("V*", "small"), ("V*", "large"), ("4K", "small"))
        ),
    ],
)
def test_a_plan_is_near_where_two_engines_take_turns(size: str, judge: Any) -> None:
    """A draft's steps wait for the agent's, and the agent's writing for what is to be read."""
    routes = RoutePlan(400, 0.8, 0.7, depth=1, turn_tokens=100, draft_tokens=6)
    [found] = latencies(RooflineWorkload(size, routes, SIZES[size], judge, 16), [0.3], runs=2)
    assert abs(found.off) < 0.1
    assert abs(found.told.drafted / found.drafted - 1) < 0.35


@pytest.mark.parametrize("queries", [48, pytest.param(192, marks=pytest.mark.exhaustive)])
def test_the_command_foresees_every_judge(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    queries: int,
) -> None:
    monkeypatch.setattr(bench, "FORESEEN", queries)
    to = tmp_path / "told.json"
    said = "bench --roofline h100 --queries 8 --batch-size 4 --image 640x480 --turn-tokens 24"
    options = parser().parse_args([*said.split(), "--out", str(to)])
    assert options.run(options) == 0
    found = json.loads(to.read_text())
    assert [one["judge"] for one in found] == ["large", "small", "none"]
    # Few queries say nothing about how near both are.
    for one in found if queries == 192 else ():
        assert abs(one["agent"][0] / one["agent"][1] - 1) < 0.1
        assert 0.9 * one["interval"][0] < one["gain"][1] < 1.1 * one["interval"][1]
    assert "| 640x480 | small |" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="A100-40, H100, H200"):
        options.roofline = "abacus"
        options.run(options)


LONG = pytest.mark.exhaustive
LOSSES = ("hard,", "shallow", "4K", "nothing kept")


@pytest.mark.parametrize(
    "at",
    # One where speculation pays, one where it loses and one that changes are the quick form.
    [
        at if name.startswith(("hard,", "deep", "drift")) else pytest.param(at, marks=LONG)
        for at, name in enumerate(one.name for one in eight(1))
    ],
    ids=lambda at: eight(1)[at].name.replace(" ", "-"),
)
def test_auto_is_never_slower_than_the_agent_alone(at: int) -> None:
    name = eight(1)[at].name
    loses = any(part in name for part in LOSSES)
    workload = eight(640 if loses or "drift" in name else 128)[at]
    agent, auto = play(workload, "never"), play(workload, "auto")
    assert agent.seconds / auto.seconds >= 0.98
    assert all(one.error is None for one in auto.results)
    told = {one.straight for one in auto.results if one.judgement is None and one.verdict is None}
    assert told == {"costs"}, "a result says why nothing was speculated on"
    if loses:
        assert speculated(auto) <= 64 and not auto.costs.speculating
    elif "drift" not in name:
        assert auto.costs.speculating
    else:  # what it had learned in the first half doesn't keep it from leaving in the second
        late = [one for one in auto.results if int(one.query_id[-6:]) >= 300]
        assert sum(one.verdict is not None for one in late) <= 64 + 32


def test_who_reaches_the_agent_is_asked_at_once_where_there_is_room() -> None:
    """Not only when a turn of another, some 0.6 s long, is over."""
    routes = RoutePlan(40, depth=0, turn_tokens=100)
    workload = RooflineWorkload("POPE", routes, (640, 480), "none", batch=32)
    rate = 3.0
    played = play(workload, "never", rate=rate)
    came = itertools.islice(times_of_chance(rate, 0), routes.n)
    assert played.large is not None
    late = [one.asked - at for one, at in zip(played.large.asked, came, strict=True)]
    assert min(late) >= 0 and max(late) <= STEP_S + 1e-9


def test_auto_takes_speculation_up_again_when_it_has_come_to_pay() -> None:
    routes = RoutePlan(1000, 0.9, 0.3, depth=0, turn_tokens=100, draft_tokens=6, later=(0.95, 0.95))
    workload = dataclasses.replace(eight(1)[7], routes=routes)
    played = play(workload, "auto")
    early = [one for one in played.results if 64 <= int(one.query_id[-6:]) < 500]
    assert speculated(dataclasses.replace(played, results=early)) <= 16
    assert played.costs.speculating and speculated(played) > 200
