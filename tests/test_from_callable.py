"""Any agent that answers a query, as phase IV."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from flat_options import grouped
from speceyes import tiny
from speceyes.answerer import SpeculativeAnswerer
from speceyes.calibration import GateMonitor
from speceyes.errors import ConfigError
from speceyes.fallback import AgenticFallback
from speceyes.gate import SeparabilityGate
from speceyes.judge import ToolJudge
from speceyes.models.scripted import ScriptedModel
from speceyes.pipeline import SpecPipeline
from speceyes.pipeline.audit import Auditor
from speceyes.pipeline.config import JudgeConfig
from speceyes.types import Completion, Query, Result, Step, Trajectory
from support.processes import until

DOT = Image.new("RGB", (32, 32))


def ask(n: int = 0) -> Query:
    return Query(f"Which colour? #{n}.", (DOT,), id=str(n))


def number(query: Query) -> int:
    return int(query.question.split("#")[1].rstrip("."))


def funnel(agent: Callable[[Query], Any], *, judge: bool = True, **options: Any) -> SpecPipeline:
    """Even queries want tools, or are rejected by the gate where nobody judges."""
    own = {k: options.pop(k) for k in ("concurrency", "timeout_s") if k in options}

    def odd(conversation: Any) -> bool:
        return int(conversation.messages[-1].text.split("#")[1].split(".")[0]) % 2 == 1

    judging = ScriptedModel(lambda asked, sampling: "no" if odd(asked) else "yes")
    drafts = ScriptedModel("drafted", margin=lambda asked: 12.0 if judge or odd(asked) else 3.0)
    return SpecPipeline(
        judge=ToolJudge(judging) if judge else None,
        answerer=SpeculativeAnswerer(drafts, top_k=8),
        gate=SeparabilityGate(0.98, top_k=8),
        fallback=AgenticFallback.from_callable(agent, **own),
        **grouped(batch_size=2, **options),
    )


WAY = Trajectory((Step("<tool>"), Step("blue", tokens=3)), "blue", "answered")


@pytest.mark.parametrize(
    ("value", "answer", "tokens"),
    [
        (" blue\n", "blue", 0),
        (3, "3", 0),
        (2.5, "2.5", 0),
        ({"answer": "blue"}, "blue", 0),
        (Completion("blue ", (1, 2)), "blue", 2),
        (WAY, "blue", 3),
        (Result("x", "blue", "agent", trajectory=WAY), "blue", 3),
        (Result("x", "red", "draft"), "red", 0),
    ],
)
def test_what_an_agent_may_return(value: Any, answer: str, tokens: int) -> None:
    [way] = AgenticFallback.from_callable(lambda query: value)([ask()])
    assert (way.answer, way.stop, way.tokens, way.error) == (answer, "answered", tokens, None)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, "returned a NoneType; it must return text"),
        ("  ", "returned no answer"),
        ({"output": "blue"}, "returned a dict"),
        ([], "returned a list"),
        (Completion.failed("out of memory"), "out of memory"),
        (Trajectory((), " ", "answered"), "without an answer"),
        (Result("x", None, "error", error="no image"), "no image"),
    ],
)
def test_what_is_no_answer_is_that_querys_error(value: Any, told: str) -> None:
    fallback = AgenticFallback.from_callable(lambda q: value if number(q) == 1 else "blue")
    ways = fallback([ask(n) for n in range(3)])
    assert [way.stop for way in ways] == ["answered", "error", "answered"]
    assert told in (ways[1].error or "")


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("failure", [ValueError("no"), SystemExit(3), asyncio.CancelledError()])
def test_an_exception_is_its_own_querys(concurrency: int, failure: BaseException) -> None:
    def agent(query: Query) -> str:
        if number(query) % 2:
            raise failure
        return f"a{number(query)}"

    results = funnel(agent, judge=False, concurrency=concurrency)([ask(n) for n in range(8)])
    assert [r.answer for r in results] == ["drafted" if n % 2 else f"a{n}" for n in range(8)]
    ways = AgenticFallback.from_callable(agent, concurrency=concurrency)([ask(n) for n in range(4)])
    assert [way.answer for way in ways] == ["a0", None, "a2", None]
    assert type(failure).__name__ in (ways[1].error or "")


@given(
    n=st.integers(0, 12),
    judge=st.booleans(),
    concurrency=st.integers(1, 4),
    schedule=st.sampled_from(["auto", "overlapped", "batched"]),
    order=st.sampled_from(["judge_first", "draft_first"]),
    broken=st.sets(st.integers(0, 11)),
    later=st.booleans(),
)
@settings(max_examples=40)
def test_it_fits_every_schedule_and_order(
    n: int,
    judge: bool,
    concurrency: int,
    schedule: Any,
    order: Any,
    broken: set[int],
    later: bool,
) -> None:
    at_once, most, lock = 0, 0, threading.Lock()

    def work(query: Query) -> str:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        try:
            time.sleep(0.001)
            if number(query) in broken:
                raise ValueError("broken")
            return f"a{number(query)}"
        finally:
            with lock:
                at_once -= 1

    async def awaited(query: Query) -> str:
        return work(query)

    pipe = funnel(
        awaited if later else work,
        judge=judge,
        concurrency=concurrency,
        schedule=schedule,
        order=order,
    )
    results = pipe([ask(i) for i in range(n)])
    assert [r.query_id for r in results] == [str(i) for i in range(n)]
    for i, result in enumerate(results):
        if i % 2:
            assert (result.answer, result.route) == ("drafted", "draft")
        elif i in broken:
            assert (result.answer, result.route) == (None, "error")
            assert "ValueError: broken" in (result.error or "")
        else:
            assert (result.answer, result.route) == (f"a{i}", "agent")
            assert (result.timings.fallback or 0) >= 0.001 / concurrency
    assert most <= concurrency and at_once == 0


def test_calls_run_side_by_side() -> None:
    together = threading.Barrier(3, timeout=10)

    def agent(query: Query) -> str:
        together.wait()  # only ever passed by three at once
        return "blue"

    ways = AgenticFallback.from_callable(agent, concurrency=3)([ask(n) for n in range(6)])
    assert [way.answer for way in ways] == ["blue"] * 6


def test_one_at_a_time_stays_in_the_callers_thread() -> None:
    seen = set()
    fallback = AgenticFallback.from_callable(lambda q: seen.add(threading.get_ident()) or "blue")
    fallback([ask(n) for n in range(3)])
    assert seen == {threading.get_ident()}


def test_what_is_awaited_always_runs_in_the_same_loop_and_also_inside_another() -> None:
    loops = []

    async def agent(query: Query) -> str:
        loops.append(asyncio.get_running_loop())
        await asyncio.sleep(0)
        return "blue"

    fallback = AgenticFallback.from_callable(agent, concurrency=2)

    async def notebook(fallback: AgenticFallback) -> list[Trajectory]:
        return fallback([ask(n) for n in range(3)])

    ways = fallback([ask()]) + asyncio.run(notebook(fallback))
    assert [way.answer for way in ways] == ["blue"] * 4
    assert len(set(map(id, loops))) == 1
    [loop] = set(loops)
    del fallback
    gc.collect()
    until(loop.is_closed)


def test_a_query_past_its_time_fails_alone_and_late_answers_are_dropped() -> None:
    release = threading.Event()

    def agent(query: Query) -> str:
        if number(query) == 0:
            release.wait(60)
        return f"a{number(query)}"

    fallback = AgenticFallback.from_callable(agent, concurrency=2, timeout_s=1.0)
    ways = fallback([ask(n) for n in range(4)])
    assert [way.answer for way in ways] == [None, "a1", "a2", "a3"]
    assert "longer than timeout_s=1.0 s" in (ways[0].error or "")
    release.set()


def test_a_call_left_behind_keeps_its_place() -> None:
    release, begun = threading.Event(), []

    def agent(query: Query) -> str:
        begun.append(number(query))
        release.wait(60)
        return "blue"

    fallback = AgenticFallback.from_callable(agent, timeout_s=0.1)
    ways = fallback([ask(n) for n in range(3)])
    assert [way.stop for way in ways] == ["error"] * 3
    assert "held its place" in (ways[2].error or "")
    assert begun == [0]  # it was promised to be called once at a time
    release.set()
    assert AgenticFallback.from_callable(agent, timeout_s=60)([ask()])[0].answer == "blue"


def test_an_async_agent_past_its_time_is_cancelled() -> None:
    ended = threading.Event()

    async def agent(query: Query) -> str:
        try:
            await asyncio.sleep(30)
        finally:
            ended.set()
        return "never"

    [way] = AgenticFallback.from_callable(agent, timeout_s=0.5)([ask()])
    assert way.answer is None and ended.wait(60)
    # One that is cancelled before it has begun leaves no coroutine behind that nobody awaits.
    [way] = AgenticFallback.from_callable(agent, timeout_s=1e-6)([ask()])
    assert way.answer is None


@pytest.mark.parametrize("schedule", ["overlapped", "batched"])
def test_closing_a_stream_gives_up_what_is_under_way(schedule: Any) -> None:
    ended, begun = threading.Event(), threading.Event()

    async def agent(query: Query) -> str:
        begun.set()
        try:
            await asyncio.sleep(30)
        finally:
            ended.set()
        return "never"

    pipe = funnel(agent, concurrency=2, schedule=schedule)
    stream = pipe.stream(ask(n) for n in range(50))
    assert next(stream).route == "draft"
    if begun.wait(0.2):  # some schedules begin with the agent after the first drafts only
        stream.close()
        assert ended.wait(60)
    stream.close()


def test_the_agent_may_draw_on_its_images() -> None:
    def agent(query: Query) -> str:
        ImageDraw.Draw(query.images[0]).rectangle((0, 0, 31, 31), fill="red")
        return "blue"

    picture = Image.new("RGB", (32, 32), "white")
    AgenticFallback.from_callable(agent)([Query("Which?", (picture,))])
    assert picture.getpixel((5, 5)) == (255, 255, 255)


def test_context_reaches_the_threads() -> None:
    import contextvars

    who = contextvars.ContextVar("who", default="nobody")
    who.set("me")
    fallback = AgenticFallback.from_callable(lambda query: who.get(), concurrency=2)
    assert [way.answer for way in fallback([ask(0), ask(1)])] == ["me", "me"]


def test_an_auditor_asks_it_as_well() -> None:
    auditor = Auditor(GateMonitor(0.05, share=1.0), lambda query, draft, agent: draft == agent)
    pipe = funnel(lambda query: "drafted", auditor=auditor, concurrency=2)
    results = pipe([ask(n) for n in range(20)])
    assert [r.route for r in results] == ["draft" if n % 2 else "agent" for n in range(20)]
    assert (auditor.monitor.audits, auditor.monitor.disagreements) == (10, 0)


def test_costs_and_automatic_speculation() -> None:
    pipe = funnel(lambda query: time.sleep(0.002) or "blue", speculate="auto", concurrency=2)
    report = pipe.run([ask(n) for n in range(40)])
    assert all(result.answer for result in report.results)
    assert (report.efficiency.l_tools or 0) > 0.0009


def test_the_seconds_of_calls_side_by_side_add_up_to_no_more_than_the_time_that_passed() -> None:
    fallback = AgenticFallback.from_callable(lambda q: time.sleep(0.05) or "blue", concurrency=4)
    start = time.perf_counter()
    spent = [seconds for _, _, seconds in fallback.stream(ask(n) for n in range(8))]
    assert 0 < sum(spent) <= time.perf_counter() - start


def test_two_threads_share_it_within_its_concurrency() -> None:
    inside, most, lock = 0, 0, threading.Lock()

    def agent(query: Query) -> str:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        time.sleep(0.005)
        with lock:
            inside -= 1
        return f"a{number(query)}"

    pipe = funnel(agent, concurrency=2)
    answers: dict[int, list[Any]] = {}

    def work(k: int) -> None:
        answers[k] = [r.answer for r in pipe([ask(n) for n in range(6)])]

    threads = [threading.Thread(target=work, args=(k,)) for k in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(answers.values()) == [["a0", "drafted", "a2", "drafted", "a4", "drafted"]] * 3
    assert most <= 2


def test_the_agent_alone() -> None:
    pipe = SpecPipeline(fallback=AgenticFallback.from_callable(lambda query: "blue"))
    assert pipe(DOT, "Which colour?").answer == "blue"


def test_another_pipeline_can_be_the_agent() -> None:
    inner = SpecPipeline.from_pretrained(ScriptedModel(["<answer>blue</answer>"]), tools=["zoom"])
    results = funnel(inner)([ask(n) for n in range(4)])
    assert [r.answer for r in results] == ["blue", "drafted", "blue", "drafted"]
    assert results[0].trajectory is not None and results[0].trajectory.tokens == 1


@pytest.mark.parametrize(
    ("agent", "options", "told"),
    [
        ("smolagent", {}, "can't be called"),
        (len, {"concurrency": 0}, "concurrency=0"),
        (len, {"timeout_s": 0}, "timeout_s=0"),
        (len, {"timeout_s": float("inf")}, "timeout_s=inf"),
    ],
)
def test_what_cannot_work_is_refused(agent: Any, options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        AgenticFallback.from_callable(agent, **options)


def test_its_name() -> None:
    assert AgenticFallback.from_callable(number).name == "number"
    assert AgenticFallback.from_callable(number, name="mine").name == "mine"


@pytest.mark.skipif(not tiny.LARGE.is_dir(), reason="the tiny pair's weights are not here")
def test_the_tiny_agent_behind_a_callable_says_what_it_says_as_a_model() -> None:
    from speceyes.models import HFModel
    from speceyes.tiny.scenes import questions

    large = HFModel.from_pretrained(tiny.LARGE)
    small = HFModel.from_pretrained(tiny.SMALL)
    agent = AgenticFallback(large, tools=["zoom"], max_tokens=96)
    asked = list(questions("heldout", 12))
    queries = [next(a.query for a in asked if a.needs_tools == zoom) for zoom in (True, False)]

    def build(fallback: AgenticFallback) -> SpecPipeline:
        settings = tiny.settings()
        return SpecPipeline(
            judge=ToolJudge(large, tools=agent.tools),
            answerer=SpeculativeAnswerer(small, top_k=settings["top_k"]),
            gate=SeparabilityGate(settings["threshold"], top_k=settings["top_k"]),
            fallback=fallback,
        )

    own = build(AgenticFallback.from_callable(lambda query: agent([query])[0]))
    as_model, as_callable = build(agent)(queries), own(queries)
    assert [(r.answer, r.route) for r in as_model] == [(r.answer, r.route) for r in as_callable]
    assert {r.route for r in as_callable} == {"draft", "agent"}
    assert [r.trajectory and r.trajectory.depth for r in as_model] == [
        r.trajectory and r.trajectory.depth for r in as_callable
    ]


def test_a_function_is_the_agent_of_a_pipeline_from_names() -> None:
    def mine(query: Query) -> str:
        return f"mine: {query.question}"

    picture = Image.new("RGB", (64, 48), "red")
    for margin, answer, route in ((3.0, "mine: Which?", "agent"), (30.0, "red", "draft")):
        small = ScriptedModel("red", margin=margin)
        pipe = SpecPipeline.from_pretrained(small=small, agent=mine)
        said = pipe(picture, "Which?")
        assert (said.answer, said.route, said.judgement) == (answer, route, None)
    for judge in ("large", JudgeConfig("large")):
        with pytest.raises(ConfigError, match="the agent is a function, which judges nothing"):
            SpecPipeline.from_pretrained(small=small, agent=mine, judge=judge)
    judged = SpecPipeline.from_pretrained(small=small, agent=mine, judge="small")
    assert judged.judge is not None
    with pytest.raises(ConfigError, match="two agents"):
        SpecPipeline.from_pretrained(ScriptedModel("x"), small, agent=mine)
    with pytest.raises(ConfigError, match="neither an AgentConfig nor a function"):
        SpecPipeline.from_pretrained(small=small, agent="mine")  # type: ignore[arg-type]
