from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from flat_options import grouped
from speceyes import AgenticFallback, Query, Result, SpecPipeline
from speceyes.calibration.monitor import GateMonitor
from speceyes.errors import ConfigError
from speceyes.models.scripted import ScriptedModel
from speceyes.pipeline import AgentConfig, ScheduleConfig
from speceyes.pipeline.audit import Auditor
from speceyes.pipeline.engine_loop import EngineLoop
from speceyes.pipeline.phases import FairQueue
from speceyes.pipeline.request import RequestState
from speceyes.server.limits import ServerLimits
from speceyes.server.refusal import Refusal
from speceyes.server.slots import Slots
from speceyes.server.thresholds import with_threshold
from speceyes.types import Completion, Conversation, Sampling
from support.processes import until
from support.served import JUDGE, pipeline

PICTURE = Image.new("RGB", (32, 32))
CALL = (
    '<tool_call>{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [0, 0, 16, 16]}}'
    "</tool_call>"
)


class Watched:
    """A scripted model that tells how many rows came together, and can be held up."""

    def __init__(self, answer: Any, hold: threading.Event | None = None, **more: Any) -> None:
        self._inner = ScriptedModel(answer, **more)
        self._hold = hold
        self.asked: list[list[str]] = []

    @property
    def name(self) -> str:
        return self._inner.name

    def seen_size(self, image: Image.Image) -> tuple[int, int]:
        return image.size

    def generate(
        self, conversations: Sequence[Conversation], sampling: Sampling
    ) -> list[Completion]:
        self.asked.append([c.messages[-1].text.splitlines()[0] for c in conversations])
        if self._hold is not None:
            assert self._hold.wait(60)
        return self._inner.generate(conversations, sampling)


def _job(
    question: str = "q", client: str = "a", seconds: float = 90.0, **more: Any
) -> RequestState:
    return RequestState(Query(question, (PICTURE,)), client, time.monotonic() + seconds, **more)


@contextmanager
def _working(pipe: SpecPipeline, **more: Any) -> Iterator[EngineLoop]:
    worker = pipe.engine_loop(**more)
    worker.start()
    try:
        yield worker
    finally:
        assert worker.close(60)


def _said(job: RequestState) -> Result:
    return job.future.result(timeout=60)


def _drafting(model: Any, **more: Any) -> SpecPipeline:
    agent = ScriptedModel("<answer>blue</answer>")
    return SpecPipeline.from_pretrained(agent, model, judge=None, **grouped(**more))


@given(st.lists(st.sampled_from("abcd"), max_size=40), st.integers(1, 7))
def test_each_client_has_its_turn_and_its_order(clients: list[str], most: int) -> None:
    queue: FairQueue[tuple[str, int]] = FairQueue()
    for at, client in enumerate(clients):
        queue.put(client, (client, at))
    taken: list[tuple[str, int]] = []
    while batch := queue.take(most):
        assert len(batch) <= most
        taken += batch
    assert sorted(taken, key=lambda item: item[1]) == list(
        zip(clients, range(len(clients)), strict=True)
    )
    for client in set(clients):
        mine = [at for name, at in taken if name == client]
        assert mine == sorted(mine)
        # The k-th of a client waits for at most k of each other one.
        for k, at in enumerate(mine, 1):
            before = taken[: taken.index((client, at))]
            for other in set(clients) - {client}:
                assert sum(name == other for name, _ in before) <= k
    assert len(queue) == 0


def test_the_background_comes_last_unless_it_piles_up() -> None:
    queue: FairQueue[str] = FairQueue(piled=2)
    queue.put_in_background("x")
    queue.put("a", "1")
    queue.put("a", "2")
    assert queue.take(2) == ["1", "2"]
    for item in "yz":
        queue.put_in_background(item)
    queue.put("a", "3")
    assert queue.take(9) == ["x", "3", "y", "z"]
    assert queue.background == 0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60))
def test_places_are_never_more_than_allowed(steps: list[tuple[str, bool]]) -> None:
    slots = Slots(ServerLimits(capacity=4, per_client=2))
    held: list[Any] = []
    for client, takes in steps:
        mine = [slot for slot in held if slot.client == client]
        if takes:
            full = len(held) == 4 or len(mine) == 2
            try:
                held.append(slots.acquire(client))
                assert not full
            except Refusal as exc:
                assert full and exc.status == 429
                assert 1 <= int(exc.headers["Retry-After"]) <= 60
        elif mine:
            mine[0].release()
            mine[0].release()  # a second time gives nothing
            held.remove(mine[0])
        assert slots.held == len(held)


def test_pixels_are_counted_until_they_are_given_back() -> None:
    slots = Slots(ServerLimits(pixels=100))
    first, second = slots.acquire("a"), slots.acquire("b")
    first.reserve(60)
    with pytest.raises(Refusal, match="memory"):
        second.reserve(60)
    second.reserve(15)
    first.release()
    second.reserve(35)


def test_those_that_wait_together_share_a_batch_and_one_alone_is_not_held() -> None:
    hold = threading.Event()
    model = Watched("red", hold)
    sizes: list[int] = []
    with _working(_drafting(model, batch_size=8), on_batch=sizes.append) as worker:
        first = _job("alone")
        worker.submit(first)
        until(lambda: model.asked)  # one, though a batch holds eight
        rest = [_job(f"q{at}", client="ab"[at % 2]) for at in range(11)]
        for job in rest:
            worker.submit(job)
        hold.set()
        assert {_said(job).answer for job in (first, *rest)} == {"red"}
    assert sizes == [1, 8, 3]
    assert model.asked[1] == ["q0", "q1", "q2", "q3", "q4", "q5", "q6", "q7"]


@pytest.mark.parametrize("schedule", ["batched", "overlapped"])
def test_drafts_are_answered_while_the_agent_works(schedule: str) -> None:
    hold = threading.Event()
    turns = threading.Event()

    def agent(conversation: Conversation, sampling: Sampling) -> str:
        spoken = sum(message.role == "assistant" for message in conversation.messages)
        if spoken == 0:
            turns.set()
            assert hold.wait(60)
            return CALL
        return "<answer>blue</answer>"

    large = ScriptedModel({JUDGE: {"hard": "yes", "": "no"}, "": agent})
    pipe = SpecPipeline.from_pretrained(
        large, ScriptedModel("red"), schedule=ScheduleConfig(overlap=schedule == "overlapped")
    )  # type: ignore[arg-type]
    order: list[str] = []
    with _working(pipe) as worker:
        hard, easy = _job("hard"), _job("easy")
        for job in (hard, easy):
            name = job.query.question
            job.future.add_done_callback(lambda future, name=name: order.append(name))
        worker.submit(hard)
        assert turns.wait(60)
        worker.submit(easy)
        if schedule == "overlapped":
            assert _said(easy).answer == "red"
        hold.set()
        assert (_said(hard).answer, _said(easy).answer) == ("blue", "red")
        assert _said(hard).trajectory is not None and _said(hard).trajectory.depth == 1
    assert order == ["easy", "hard"]  # it joined between two turns of the other


def test_what_nobody_waits_for_is_never_begun() -> None:
    hold = threading.Event()
    model = Watched("red", hold)
    done: list[str] = []
    with _working(_drafting(model, batch_size=1)) as worker:
        first = _job("first")
        worker.submit(first)
        until(lambda: model.asked)
        left = _job("left", on_end=lambda: done.append("left"))
        late = _job("late", seconds=0.01, on_end=lambda: done.append("late"))
        last = _job("last")
        for job in (left, late, last):
            worker.submit(job)
        worker.cancel(left)
        assert done == ["left"]  # its place is free at once
        time.sleep(0.02)
        hold.set()
        assert _said(last).answer == "red"
    assert model.asked == [["first"], ["last"]]
    assert done == ["left", "late"] and _said(late).answer is None


def test_one_that_leaves_before_its_turn_with_the_agent_never_has_it() -> None:
    hold = threading.Event()
    agent = Watched("<answer>blue</answer>", hold)
    pipe = SpecPipeline.from_pretrained(
        agent,
        ScriptedModel("red", margin=3.0),
        judge=None,
        agent=AgentConfig(max_batch=1),
        schedule=ScheduleConfig(overlap=True),
    )
    with _working(pipe) as worker:
        first, second = _job("first"), _job("second")
        worker.submit(first)
        until(lambda: agent.asked)
        worker.submit(second)
        until(lambda: worker.waiting == 1 and second.facts.draft is not None)
        worker.cancel(second)
        hold.set()
        assert _said(first).answer == "blue"
    assert len(agent.asked) == 1


def test_nothing_that_was_accepted_is_lost_when_it_closes() -> None:
    pipe = pipeline(judge={"3": "yes", "": "no"}, batch_size=4)
    worker = pipe.engine_loop()
    worker.start()
    accepted: list[RequestState] = []
    refused: list[str] = []
    ends: list[str] = []

    def client(name: str) -> None:
        for at in range(40):
            job = _job(f"{name}{at}", client=name, on_end=lambda: ends.append(name))
            try:
                worker.submit(job)
                accepted.append(job)
            except ConfigError:
                refused.append(name)

    threads = [threading.Thread(target=client, args=(name,)) for name in "abcdef"]
    for thread in threads:
        thread.start()
    until(lambda: len(accepted) > 20)
    assert worker.close(60)
    for thread in threads:
        thread.join(60)
    assert len(accepted) + len(refused) == 240
    for job in accepted:
        said = job.future.result(timeout=0)
        assert said.answer == ("blue" if "3" in job.query.question else "red")
    assert len(ends) == len(accepted)


def test_a_session_that_breaks_its_word_ends_one_job() -> None:
    class Session:
        def __len__(self) -> int:
            return 0

        def add(self, key: int, conversation: Conversation) -> None:
            raise RuntimeError("full")

        def close(self) -> None:
            raise RuntimeError("closed")

    class Model(Watched):
        def session(self, sampling: Sampling) -> Session:
            return Session()

    fallback = AgenticFallback(Model("<answer>x</answer>"), tools=["zoom"])
    with _working(SpecPipeline(fallback=fallback)) as worker:
        jobs = [_job(), _job()]
        for job in jobs:
            worker.submit(job)
        assert ["RuntimeError" in (_said(job).error or "") for job in jobs] == [True, True]
        assert worker.alive and worker.live == 0


def test_a_run_that_fails_as_a_whole_fails_its_jobs_and_no_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from speceyes.fallback import AgentRun

    step: Callable[[AgentRun], Any] = AgentRun.step
    broken = [True]

    def breaks(run: AgentRun) -> Any:
        if broken:
            broken.clear()
            raise MemoryError
        return step(run)

    monkeypatch.setattr(AgentRun, "step", breaks)
    with _working(pipeline(judge="yes")) as worker:
        first = _job()
        worker.submit(first)
        assert _said(first).error == "the pipeline failed: MemoryError"
        second = _job()
        worker.submit(second)
        assert _said(second).answer == "blue"


def test_whatever_breaks_in_front_fails_its_batch_and_no_other() -> None:
    told: list[int] = []

    def batched(size: int) -> None:
        told.append(size)
        if len(told) == 1:
            raise OSError("the disk is full")

    with _working(pipeline(), on_batch=batched) as worker:
        first = _job()
        worker.submit(first)
        assert _said(first).error == "the pipeline failed: OSError"
        second = _job()
        worker.submit(second)
        assert _said(second).answer == "red"


def test_audits_run_in_the_background_and_shut_the_gate() -> None:
    auditor = Auditor(GateMonitor(0.05, share=1.0), lambda query, draft, agent: draft == agent)
    pipe = pipeline(auditor=auditor)
    with _working(pipe) as worker:
        routes = []
        for _ in range(40):
            job = _job()
            worker.submit(job)
            routes.append(_said(job).route)
            until(lambda: not worker.live and not worker.waiting_audits)
        assert auditor.monitor.tripped and auditor.monitor.audits >= 1
        # A request's own threshold opens no gate that is shut.
        own = _job(gate=with_threshold(pipe.gate, 0.6))
        worker.submit(own)
        assert _said(own).route == "agent"
    assert routes[0] == "draft" and routes[-1] == "agent"


def test_without_a_fallback_or_without_a_draft() -> None:
    from speceyes import SeparabilityGate, SpeculativeAnswerer

    drafts = SpeculativeAnswerer(ScriptedModel("red", margin=3.0))
    with _working(SpecPipeline(answerer=drafts, gate=SeparabilityGate(0.98))) as worker:
        job = _job()
        worker.submit(job)
        assert "no fallback" in (_said(job).error or "")
    alone = AgenticFallback(ScriptedModel("<answer>blue</answer>"), tools=[])
    with _working(SpecPipeline(fallback=alone)) as worker:
        job = _job()
        worker.submit(job)
        assert (_said(job).route, _said(job).judgement) == ("agent", None)


def test_it_is_no_server_before_it_starts_and_after_it_ended() -> None:
    worker = pipeline().engine_loop()
    with pytest.raises(ConfigError, match="closed"):
        worker.submit(_job())
    worker.start()
    assert worker.alive and worker.close()
    with pytest.raises(ConfigError, match="closed"):
        worker.submit(_job())
