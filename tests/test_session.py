"""Rows that join and leave in the middle of a turn, and drafts that end early."""

from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from speceyes import tiny
from speceyes.answerer import SpeculativeAnswerer
from speceyes.calibration import GateMonitor, WatchedGate
from speceyes.errors import ConfigError, InputError
from speceyes.fallback import AgenticFallback
from speceyes.gate import SeparabilityGate
from speceyes.models import HFModel
from speceyes.models.scripted import ScriptedModel, scripted_logprobs
from speceyes.pipeline import ScheduleConfig, SpecPipeline
from speceyes.protocols import Session
from speceyes.tiny.scenes import questions
from speceyes.types import (
    Completion,
    Conversation,
    Floor,
    Judgement,
    Message,
    Observation,
    Query,
    Sampling,
)
from support.processes import our_threads
from support.random_models import FAMILIES, Family, build

GREEDY = Sampling(max_tokens=12, top_k=8)
DOT = Image.new("RGB", (64, 64))
ZOOM = '{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [0, 0, 32, 32]}}'
CALL = f"<tool_call>{ZOOM}</tool_call>"


def asked(seed: int) -> Conversation:
    size = (60, 40 + 20 * (seed % 4), 3)
    pixels = np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)
    image = Image.fromarray(pixels)
    words = " ".join(["What colour is the small square?"] * (1 + seed % 3))
    return Conversation((Message("user", (image, words)),))


def collect(session: Session) -> dict[int, Completion]:
    done: dict[int, Completion] = {}
    while len(session):
        done.update(session.step())
    return done


def open_session(model: HFModel, sampling: Sampling = GREEDY) -> Session:
    session = model.session(sampling)
    assert session is not None
    return session


def same(one: Completion, other: Completion) -> None:
    assert (one.text, one.token_ids, one.finish, one.error, one.prompt_tokens) == (
        other.text,
        other.token_ids,
        other.finish,
        other.error,
        other.prompt_tokens,
    )
    np.testing.assert_allclose(one.top_logprobs, other.top_logprobs, atol=1e-4)


# --- the rows of a model --------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_that_join_at_any_time_say_what_they_say_alone(family: Family) -> None:
    net, processor = build(family)
    model = HFModel(net, processor, max_batch=3)
    alone = HFModel(net, processor, cache_bytes=0)
    wanted = [alone.generate([asked(seed)], GREEDY)[0] for seed in range(9)]
    session = open_session(model)
    done: dict[int, Completion] = {}
    for seed in range(9):  # one more every other step, the last ones long after the first
        session.add(seed, asked(seed))
        for _ in range(seed % 3):
            done.update(session.step())
    done.update(collect(session))
    assert sorted(done) == list(range(9))
    for seed, completion in done.items():
        same(completion, wanted[seed])


def test_no_more_rows_are_under_way_than_the_model_takes() -> None:
    net, processor = build("qwen3vl") if "qwen3vl" in FAMILIES else build(FAMILIES[0])
    model = HFModel(net, processor, max_batch=2)
    sizes: list[int] = []
    forward = net.forward

    def watched(*args: Any, **named: Any) -> Any:
        sizes.append(len(named["input_ids"]))
        return forward(*args, **named)

    net.forward = watched
    try:
        session = open_session(model)
        for seed in range(7):
            session.add(seed, asked(seed))
        assert sorted(collect(session)) == list(range(7))
    finally:
        net.forward = forward
    assert max(sizes) == 2


def test_a_row_that_is_dropped_leaves_the_others_alone() -> None:
    net, processor = build(FAMILIES[0])
    model = HFModel(net, processor)
    wanted = [model.generate([asked(seed)], GREEDY)[0] for seed in range(4)]
    session = open_session(model)
    for seed in range(4):
        session.add(seed, asked(seed))
    done = dict(session.step())
    session.drop(1)
    session.drop(77)  # never was
    session.add(9, asked(1))
    session.drop(9)  # before it joined
    done.update(collect(session))
    assert sorted(done) == [0, 2, 3]
    for seed, completion in done.items():
        same(completion, wanted[seed])


def test_a_batch_that_fails_is_begun_anew_without_the_guilty_row(
    caplog: pytest.LogCaptureFixture,
) -> None:
    net, processor = build(FAMILIES[0])
    model = HFModel(net, processor, cache_bytes=0)
    wanted = [model.generate([asked(seed)], GREEDY)[0] for seed in range(4)]
    forward, poison = net.forward, len(wanted[2].token_ids) and wanted[2].prompt_tokens
    calls = 0

    def failing(*args: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        mask, cache = named.get("attention_mask"), named.get("cache", named.get("past_key_values"))
        if mask is not None:
            longest = int(mask.sum(dim=-1).max())
        else:  # every row sees all that there is
            longest = named["input_ids"].shape[1] + (cache.get_seq_length() if cache else 0)
        if calls > 2 and longest >= poison:
            raise RuntimeError("a kernel failed")
        return forward(*args, **named)

    net.forward = failing
    try:
        session = open_session(model)
        for seed in range(4):
            session.add(seed, asked(seed))
        done = collect(session)
    finally:
        net.forward = forward
    assert sorted(done) == [0, 1, 2, 3]
    assert "a kernel failed" in str(done[2].error)
    for seed, completion in done.items():
        if completion.error is None:
            same(completion, wanted[seed])
    assert any(completion.error is None for completion in done.values())
    assert "begun anew" in caplog.text


def test_a_session_makes_room_when_memory_runs_out() -> None:
    net, processor = build(FAMILIES[0])
    model = HFModel(net, processor)
    wanted = [model.generate([asked(seed)], GREEDY)[0] for seed in range(5)]
    forward = net.forward

    def full(*args: Any, **named: Any) -> Any:
        if len(named["input_ids"]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(*args, **named)

    net.forward = full
    try:
        session = open_session(model)
        for seed in range(5):
            session.add(seed, asked(seed))
        done = collect(session)
    finally:
        net.forward = forward
    assert model.max_batch <= 2
    for seed, completion in done.items():
        same(completion, wanted[seed])


def test_a_prompt_that_cannot_be_made_is_its_own() -> None:
    model = HFModel(*build(FAMILIES[0]))
    session = open_session(model)
    session.add(0, asked(0))
    session.add(1, Conversation((Message("user", (Image.new("RGB", (4000, 3)), "What?")),)))
    done = collect(session)
    assert done[0].error is None
    assert "the prompt can't be made" in str(done[1].error)


def test_what_no_session_can_do_is_told() -> None:
    model = HFModel(*build(FAMILIES[0]))
    assert model.session(Sampling(temperature=1.0)) is None
    assert HFModel(*build(FAMILIES[0]), reference=True).session(GREEDY) is None
    with pytest.raises(ConfigError, match="more than the vocabulary"):
        model.session(Sampling(top_k=10**6))


def test_a_closed_session_forgets_its_rows() -> None:
    session = open_session(HFModel(*build(FAMILIES[0])))
    session.add(0, asked(0))
    session.step()
    session.close()
    assert len(session) == 0 and session.step() == []


# --- the agent on top -----------------------------------------------------------------------


class Shuffled:
    """A scripted model whose sessions finish rows in an order drawn beforehand."""

    def __init__(self, script: Any, order: Sequence[int], fails_at: int = -1) -> None:
        self._model = ScriptedModel(script)
        self.name = "shuffled"
        self._order, self._fails_at = order, fails_at
        self.most = 0

    def seen_size(self, image: Image.Image) -> tuple[int, int]:
        return self._model.seen_size(image)

    def generate(self, asked: Sequence[Conversation], sampling: Sampling) -> list[Completion]:
        return self._model.generate(asked, sampling)

    def session(self, sampling: Sampling) -> Session:
        return _ShuffledSession(self, sampling, self._order, self._fails_at)


class _ShuffledSession:
    def __init__(
        self, model: Shuffled, sampling: Sampling, order: Sequence[int], fails_at: int
    ) -> None:
        self.model, self.sampling, self.order, self.fails_at = model, sampling, order, fails_at
        self.rows: dict[int, Conversation] = {}
        self.steps = 0

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, key: int, conversation: Conversation) -> None:
        assert key not in self.rows
        self.rows[key] = conversation
        self.model.most = max(self.model.most, len(self.rows))

    def step(self) -> list[tuple[int, Completion]]:
        self.steps += 1
        if self.steps == self.fails_at:
            raise RuntimeError("the session is gone")
        draw = self.order[self.steps % len(self.order)]
        if draw == 0 or not self.rows:
            return []
        keys = sorted(self.rows)
        chosen = {keys[(draw * (i + 1)) % len(keys)] for i in range(1 + draw % 2)}
        gone = [(key, self.rows.pop(key)) for key in chosen]
        said = self.model.generate([one for _, one in gone], self.sampling)
        return [(key, one) for (key, _), one in zip(gone, said, strict=True)]

    def drop(self, key: int) -> None:
        self.rows.pop(key, None)

    def close(self) -> None:
        self.rows.clear()


@given(
    depths=st.lists(st.integers(0, 7), max_size=25),
    order=st.lists(st.integers(0, 50), min_size=1, max_size=12).filter(any),
    places=st.integers(1, 6),
    fails_at=st.sampled_from([-1, 1, 5]),
)
@settings(max_examples=60, deadline=None)
def test_trajectories_are_the_same_in_whichever_order_turns_end(
    depths: list[int], order: list[int], places: int, fails_at: int
) -> None:
    script = {f"dive {d} times": [CALL] * d + [f"<answer>{d}</answer>"] for d in range(8)}
    queries = [Query(f"dive {d} times", (DOT,), id=str(i)) for i, d in enumerate(depths)]
    rounds = AgenticFallback(ScriptedModel(script), tools=["zoom"], max_batch=places)
    model = Shuffled(script, order, fails_at)
    live = AgenticFallback(model, tools=["zoom"], max_batch=places)
    assert live(queries) == rounds(queries)
    assert model.most <= places


def test_a_finished_ones_place_is_taken_in_the_middle_of_the_others_turns() -> None:
    large = HFModel.from_pretrained(tiny.LARGE)
    queries = [item.query for item in questions("heldout", 8)]
    wanted = AgenticFallback(large, tools=["zoom"], max_batch=1)(queries)
    agent = AgenticFallback(large, tools=["zoom"], max_batch=3)
    got = agent(queries)
    assert [(way.answer, way.depth) for way in got] == [(way.answer, way.depth) for way in wanted]
    zooms = [query for query, way in zip(queries, wanted, strict=True) if way.depth == 1]
    run = agent.begin()
    run.add(0, zooms[0])
    assert run.step() == []  # its first turn is over
    run.add(1, zooms[1])
    finished: list[int] = []
    while not finished:
        finished = [at for at, _, _ in run.step()]
    assert finished == [0] and run.live == 1, "the second one is in its turns still"
    run.add(2, zooms[2])
    while run.live:
        finished += [at for at, _, _ in run.step()]
    assert finished == [0, 1, 2]


def test_one_that_waits_is_let_in_before_a_turn_is_over_where_there_is_room() -> None:
    model = Shuffled("<answer>red</answer>", [2, 0, 0, 0])
    agent = AgenticFallback(model, tools=["zoom"], max_batch=2)
    run = agent.begin()
    asked: list[int] = []

    def waits() -> bool:
        asked.append(run.live)
        return True

    run.let_in(waits)
    run.add(0, Query("first", (DOT,)))
    assert run.step() == [] and asked == [1], "a step ends after a moment"
    run.add(1, Query("second", (DOT,)))
    [(_, way, _)] = run.step()
    assert way.answer == "red" and asked == [1], "a third would have no room"


def test_a_session_that_loses_its_rows_is_replaced() -> None:
    class Loses(Shuffled):
        def session(self, sampling: Sampling) -> Session:
            session = super().session(sampling)
            session.step = lambda: session.close() or []  # type: ignore[func-returns-value,method-assign]
            return session

    agent = AgenticFallback(Loses("<answer>red</answer>", [1]), tools=["zoom"])
    assert [way.answer for way in agent([Query("Which?", (DOT,))] * 3)] == ["red"] * 3


@pytest.mark.parametrize(("failing", "opened", "joins"), [(1, 2, True), (99, 3, False)])
def test_a_run_opens_another_session_when_one_has_failed(
    failing: int, opened: int, joins: bool
) -> None:
    class Fails(Shuffled):
        sessions = 0

        def session(self, sampling: Sampling) -> Session:
            self.sessions += 1
            return _ShuffledSession(self, sampling, [1], 1 if self.sessions <= failing else -1)

    # Another place each time, or the way would end as one that repeats itself.
    looks = [CALL.replace("[0, 0,", f"[{at}, 0,") for at in range(5)]
    assert len(set(looks)) == 5
    model = Fails({"dive": [*looks, "<answer>red</answer>"], "": "<answer>blue</answer>"}, [1])
    run = AgenticFallback(model, tools=["zoom"], max_batch=4).begin()
    run.add(0, Query("dive", (DOT,)))
    found: dict[int, Any] = {}
    for key in range(1, 9):
        run.add(key, Query("What is it?", (DOT,)))
        found.update((at, way.answer) for at, way, _ in run.step())
    assert run.joins is joins
    while run.live:
        found.update((at, way.answer) for at, way, _ in run.step())
    assert found == {0: "red", **dict.fromkeys(range(1, 9), "blue")}
    assert model.sessions == opened


@pytest.mark.parametrize("fails", [False, True], ids=["from the start", "once one has failed"])
def test_a_model_that_gives_no_session_goes_on_without_a_word(
    fails: bool, caplog: pytest.LogCaptureFixture
) -> None:
    class Gives(Shuffled):
        sessions = 0

        def session(self, sampling: Sampling) -> Session | None:  # type: ignore[override]
            self.sessions += 1
            if self.sessions > 1 or not fails:
                return None
            return _ShuffledSession(self, sampling, [1], 1)

    model = Gives({"dive": [CALL, "<answer>red</answer>"], "": "<answer>blue</answer>"}, [1])
    agent = AgenticFallback(model, tools=["zoom"], max_batch=4)
    with caplog.at_level(logging.INFO, "speceyes.agent"):
        ways = agent([Query("dive", (DOT,)), *[Query("What is it?", (DOT,))] * 3])
    assert [way.answer for way in ways] == ["red", "blue", "blue", "blue"]
    told = [one.getMessage() for one in caplog.records if one.name == "speceyes.agent.turns"]
    assert len(told) == fails and not any("could be opened" in line for line in told)


def test_seconds_of_trajectories_add_up_to_no_more_than_the_time_that_passed() -> None:
    slow = ScriptedModel([CALL, "<answer>red</answer>"], delay_s=0.01)
    agent = AgenticFallback(slow, tools=["zoom"], max_batch=4)
    start = time.perf_counter()
    seconds = [s for _, _, s in agent.stream([Query("Which?", (DOT,))] * 8)]
    assert 0.035 <= sum(seconds) <= time.perf_counter() - start


# --- drafts that end early ------------------------------------------------------------------


@given(
    margins=st.lists(
        st.lists(st.floats(1.8, 20.0), min_size=1, max_size=6), min_size=1, max_size=12
    ),
    threshold=st.floats(0.5, 0.999),
    top_k=st.sampled_from([8, 20]),
)
@settings(max_examples=80, deadline=None)
def test_ending_drafts_early_changes_no_decision(
    margins: list[list[float]], threshold: float, top_k: int
) -> None:
    words = {f"query {i}.": " ".join("abcdef"[: len(m)]) for i, m in enumerate(margins)}

    def margin(conversation: Conversation) -> list[float]:
        text = conversation.messages[-1].text
        return margins[int(text.split("query ")[1].split(".")[0])]

    small = ScriptedModel(words, margin=margin)
    gate = SeparabilityGate(threshold, top_k=top_k)
    queries = [Query(f"query {i}.", (DOT,)) for i in range(len(margins))]

    def run(early: bool) -> list[Any]:
        return SpecPipeline(
            answerer=SpeculativeAnswerer(small, top_k=top_k),
            gate=gate,
            fallback=AgenticFallback(ScriptedModel("<answer>agent</answer>"), tools=["zoom"]),
            schedule=ScheduleConfig(end_drafts_early=early),
        )(queries)

    for one, other, own in zip(run(True), run(False), margins, strict=True):
        assert (one.route, one.answer) == (other.route, other.answer)
        assert len(one.draft.token_ids) <= len(other.draft.token_ids) == len(own)
        if one.route == "agent":
            low = next(
                i for i, s in enumerate(other.verdict.token_scores) if s < gate.raw_threshold
            )
            assert len(one.draft.token_ids) == low + 1
            assert one.verdict.separability >= other.verdict.separability


@pytest.mark.parametrize("reference", [False, True])
def test_a_real_models_draft_ends_at_the_token_that_rejects_it(reference: bool) -> None:
    model = HFModel(*build(FAMILIES[0]), reference=reference)
    whole = Sampling(max_tokens=10, top_k=8)
    for seed in range(6):
        [full] = model.generate([asked(seed)], whole)
        gate = SeparabilityGate(0.5, top_k=8)
        scores = (
            gate(full).token_scores
            or gate(Completion(full.text, full.token_ids, full.top_logprobs)).token_scores
        )
        middle = sorted(scores)[len(scores) // 2]
        floor = Floor(middle, 8)
        first = next((i for i, s in enumerate(scores) if s < middle * 0.998 - 0.002), None)
        [cut] = model.generate([asked(seed)], Sampling(max_tokens=10, top_k=8, floor=floor))
        if first is None:
            assert cut.finish == full.finish and cut.token_ids == full.token_ids
            continue
        assert cut.finish == "rejected"
        assert len(cut.token_ids) <= first + 1
        assert cut.token_ids == full.token_ids[: len(cut.token_ids)]
        np.testing.assert_allclose(
            cut.top_logprobs, full.top_logprobs[: len(cut.token_ids)], atol=1e-4
        )
        assert gate(cut).accepted is False


@given(
    rows=st.lists(st.floats(1.8, 40.0), min_size=1, max_size=8),
    raw=st.floats(0.0, 40.0),
    formula=st.sampled_from(["code", "paper"]),
)
@settings(max_examples=100, deadline=None)
def test_a_device_ends_no_row_that_the_gate_could_accept(
    rows: list[float], raw: float, formula: Any
) -> None:
    from speceyes.models.hf.choosing import below
    from speceyes.scoring.scores import separability

    top = scripted_logprobs(len(rows), 16, rows)
    exact = separability(top, formula)
    ended = below(torch.from_numpy(top.copy()), Floor(raw, 16, formula)).tolist()
    for score, lost in zip(exact.tolist(), ended, strict=True):
        assert not (lost and score >= raw)
        assert lost or score >= raw - 3e-3 * (1 + raw)


def test_the_end_of_an_answer_is_no_reason_to_reject_it() -> None:
    large = HFModel.from_pretrained(tiny.SMALL)
    top_k = int(tiny.settings()["top_k"])
    answerer = SpeculativeAnswerer(large, top_k=top_k)
    queries = [item.query for item in questions("heldout", 12)]
    whole = answerer(queries)
    gate = SeparabilityGate(0.9, top_k=top_k)
    early = answerer(queries, floor=gate.floor)
    assert {c.finish for c in early} == {"stop", "rejected"}
    for one, other in zip(early, whole, strict=True):
        assert gate(one).accepted == gate(other).accepted
        assert (one.finish == "stop") or not gate(other).accepted


def test_only_min_rejects_by_one_token() -> None:
    assert SeparabilityGate(0.9).floor == Floor(SeparabilityGate(0.9).raw_threshold, 64)
    for aggregate in ("mean", "bottom20", "log"):
        assert SeparabilityGate(0.9, aggregate=aggregate).floor is None  # type: ignore[arg-type]
    assert SeparabilityGate(1.0).floor is None
    assert WatchedGate(SeparabilityGate(0.9), GateMonitor(0.05)).floor is None


def test_a_floor_needs_its_log_probabilities() -> None:
    with pytest.raises(InputError, match=r"floor.top_k=64 is more than top_k=8"):
        Sampling(top_k=8, floor=Floor(6.0, 64))


def test_a_draft_ended_by_a_stricter_threshold_is_never_accepted() -> None:
    draft = Completion("red", (7,), scripted_logprobs(1, 8, 5.0), finish="rejected")
    verdict = SeparabilityGate(0.5, top_k=8)(draft)
    assert not verdict.accepted and "stricter" in verdict.reason


def test_the_front_works_while_the_agent_does() -> None:
    """Neither the agent nor the second batch's draft ends before the other has begun."""
    both = threading.Barrier(2, timeout=10)
    met = threading.Event()

    def meet() -> None:
        if not met.is_set():
            both.wait()
            met.set()

    def draft(conversation: Conversation, sampling: Sampling) -> str:
        if "number 4" in conversation.messages[-1].text:
            meet()
        return "red"

    def agent(conversation: Conversation, sampling: Sampling) -> str:
        meet()
        return "<answer>blue</answer>"

    pipe = SpecPipeline(
        answerer=SpeculativeAnswerer(ScriptedModel(draft, margin=2.0)),
        gate=SeparabilityGate(0.98),
        fallback=AgenticFallback(Shuffled(agent, [1]), tools=["zoom"], max_batch=4),
        schedule=ScheduleConfig(batch_size=4, overlap=True),
    )
    before = our_threads()
    results = pipe([Query(f"number {i}", (DOT,), id=str(i)) for i in range(12)])
    assert [r.answer for r in results] == ["blue"] * 12
    assert met.is_set()
    assert our_threads() <= before


def test_closing_an_overlapped_stream_in_the_middle_leaves_no_thread() -> None:
    before = our_threads()
    for stop_at in range(1, 12, 2):
        pipe = SpecPipeline(
            answerer=SpeculativeAnswerer(ScriptedModel("red", margin=2.0, delay_s=0.002)),
            gate=SeparabilityGate(0.98),
            fallback=AgenticFallback(
                Shuffled([CALL, "<answer>blue</answer>"], [1, 2]), tools=["zoom"], max_batch=3
            ),
            schedule=ScheduleConfig(batch_size=2, overlap=True),
        )
        stream = pipe.stream(Query(f"number {i}", (DOT,)) for i in range(10**9))
        for _ in range(stop_at):
            next(stream)
        stream.close()
    assert our_threads() <= before


@given(
    plan=st.lists(st.sampled_from(["draft", "tools", "unsure", "broken"]), max_size=30),
    order=st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(any),
    batch=st.integers(1, 5),
    places=st.integers(1, 5),
    joins=st.booleans(),
)
@settings(max_examples=50, deadline=None)
def test_no_schedule_loses_a_query_or_changes_a_route(
    plan: list[str], order: list[int], batch: int, places: int, joins: bool
) -> None:
    def judged(queries: Sequence[Query]) -> list[Judgement]:
        return [Judgement("tools" in q.question) for q in queries]

    def margin(conversation: Conversation) -> float:
        return 2.0 if "unsure" in conversation.messages[-1].text else 15.0

    script = {"broken": RuntimeError("no"), "": [CALL, "<answer>agent</answer>"]}
    small = ScriptedModel({"broken": RuntimeError("no"), "": "draft"}, margin=margin)
    queries: list[Any] = [
        {"image": DOT if i % 7 else b"no image", "question": f"{kind} {i}", "id": str(i)}
        for i, kind in enumerate(plan)
    ]
    seen = []
    for schedule in ("batched", "overlapped"):
        large: Any = Shuffled(script, order) if joins else ScriptedModel(script)
        pipe = SpecPipeline(
            judge=judged,
            answerer=SpeculativeAnswerer(small),
            gate=SeparabilityGate(0.98),
            fallback=AgenticFallback(large, tools=["zoom"], max_batch=places),
            schedule=ScheduleConfig(batch_size=batch, overlap=schedule == "overlapped"),
        )
        results = pipe(queries)
        assert [r.query_id for r in results] == [str(i) for i in range(len(plan))]
        seen.append([(r.route, r.answer) for r in results])
    assert seen[0] == seen[1]
    for at, (route, _) in enumerate(seen[0]):
        kinds = {"draft": "draft", "tools": "agent", "unsure": "agent", "broken": "error"}
        assert route == ("error" if at % 7 == 0 else kinds[plan[at]])


def streaming(*, looks: bool = False) -> SpecPipeline:
    """A funnel that drafts, gates and calls tools.

    Args:
        looks: Every query goes to the agent, which calls a tool.
    """
    large = ScriptedModel(
        {
            "one word": lambda c, s: "yes" if looks or "hidden" in c.messages[-1].text else "no",
            "": [CALL, "<answer>blue</answer>"],
        }
    )
    small = ScriptedModel("red", margin=lambda c: 2.0 if "unsure" in c.messages[-1].text else 12.0)
    return SpecPipeline.from_pretrained(large, small, schedule=ScheduleConfig(overlap=True))


def arriving(n: int) -> Iterator[dict[str, Any]]:
    """n queries, each with an image of its own."""
    for i in range(n):
        kind = "hidden" if i % 11 == 0 else "unsure" if i % 7 == 0 else "clear"
        image = Image.new("RGB", (32, 24), (i % 256, i // 256 % 256, i // 65536))
        yield {"image": image, "question": f"{kind} {i}", "id": str(i)}


def test_a_stream_keeps_nothing_of_the_queries_behind_it() -> None:
    """Objects of ours are counted, since memory says little before caches that have a bound in
    bytes are full. One of these keeps observations.
    """

    def held() -> Counter[str]:
        gc.collect()
        kinds = (type(one) for one in gc.get_objects())
        ours = (kind for kind in kinds if str(kind.__module__).startswith("speceyes"))
        return Counter(kind.__qualname__ for kind in ours if kind is not Observation)

    counts, routes = [], Counter[str]()
    for done, result in enumerate(streaming().stream(arriving(1200)), 1):
        assert result.error is None, result
        routes[result.route] += 1
        if done in (400, 1200):
            counts.append(held())
    assert min(routes["draft"], routes["agent"]) > 200
    early, late = counts
    # What the costs are told by is kept of the latest 256 queries, and so on.
    assert early
    assert {kind: n - early[kind] for kind, n in late.items() if n > early[kind] + 256} == {}


@pytest.mark.exhaustive
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_memory_stays_flat_over_thirty_six_thousand_queries() -> None:
    """Run in a process of its own, where nothing else has taken memory before; by 22,000 queries
    every cache that is bounded in bytes is full."""
    script = """
import threading
from test_session import arriving, streaming

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

done, early, ids = 0, 0, 0
for result in streaming(looks=True).stream(arriving(36_000)):
    assert result.error is None, result
    done, ids = done + 1, ids + int(result.query_id)
    if done == 22_000:
        early = resident()
assert done == 36_000 and ids == sum(range(36_000))
print(resident() - early, threading.active_count())
"""
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    grown, threads = map(int, done.stdout.split())
    assert grown < 8 << 20, f"{grown / 2**20:.1f} MiB more after 36,000 queries than after 22,000"
    assert threads == 1


@pytest.mark.parametrize("where", ["agent", "draft", "source"])
def test_ctrl_c_ends_an_overlapped_run_and_its_threads(where: str) -> None:
    """Raised in the caller's thread, wherever it is; a draft in its own thread is waited for."""

    def says(conversation: Conversation, sampling: Sampling) -> str:
        if where == "agent":
            raise KeyboardInterrupt
        return "<answer>blue</answer>"

    class Stops(Shuffled):
        """Scripted models turn what a script raises into a failed row, but not this."""

        def generate(self, asked: Sequence[Conversation], sampling: Sampling) -> list[Completion]:
            return [Completion(says(one, sampling)) for one in asked]

    def source() -> Iterator[Query]:
        for i in range(60):
            if where == "source" and i == 30:
                raise KeyboardInterrupt
            yield Query(f"number {i}", (DOT,), id=str(i))

    pipe = SpecPipeline(
        answerer=SpeculativeAnswerer(ScriptedModel("red", margin=2.0, delay_s=0.005)),
        gate=SeparabilityGate(0.98),
        fallback=AgenticFallback(Stops("", [1]), tools=["zoom"], max_batch=3),
        schedule=ScheduleConfig(batch_size=4, overlap=True),
    )
    before = our_threads()
    stream = pipe.stream(source())
    if where == "draft":  # as a signal would, between two steps of this thread
        next(stream)
        with pytest.raises(KeyboardInterrupt):
            stream.throw(KeyboardInterrupt())
    else:
        with pytest.raises(KeyboardInterrupt):
            list(stream)
    assert our_threads() <= before
