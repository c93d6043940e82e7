"""`await pipe.ask(...)`: coroutines of any loop share one run, and none is lost."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from flat_options import grouped
from speceyes import Query, SpecPipeline, tiny
from speceyes.errors import ConfigError
from speceyes.gate import SeparabilityGate
from speceyes.models.hf import HFModel
from speceyes.models.scripted import ScriptedModel
from speceyes.pipeline import ScheduleConfig
from speceyes.tiny.scenes import questions
from speceyes.types import Completion, Conversation, Sampling
from support.processes import our_threads, until
from support.served import pipeline

DOT = Image.new("RGB", (32, 32))
needs_weights = pytest.mark.skipif(
    not tiny.LARGE.is_dir(), reason="the tiny pair's weights are not in this checkout"
)


class Held:
    """A scripted model that tells what came together, and waits until it is let go."""

    def __init__(self, answer: Any, **more: Any) -> None:
        self._inner = ScriptedModel(answer, **more)
        self.go = threading.Event()
        self.asked: list[list[str]] = []
        self.name = "held"

    def seen_size(self, image: Image.Image) -> tuple[int, int]:
        return image.size

    def generate(
        self, conversations: Sequence[Conversation], sampling: Sampling
    ) -> list[Completion]:
        self.asked.append([c.messages[-1].text.splitlines()[0] for c in conversations])
        assert self.go.wait(60)
        return self._inner.generate(conversations, sampling)


def _drafting(model: Any, **more: Any) -> SpecPipeline:
    agent = ScriptedModel("<answer>blue</answer>")
    return SpecPipeline.from_pretrained(agent, model, judge=None, **grouped(**more))


def test_those_that_wait_together_share_batches() -> None:
    model = Held("red")

    async def ask() -> list[str | None]:
        first = asyncio.create_task(pipe.ask(DOT, "alone"))
        await asyncio.to_thread(until, lambda: model.asked)
        rest = [asyncio.create_task(pipe.ask((DOT, f"q{at}"))) for at in range(9)]
        await asyncio.to_thread(until, lambda: pipe.waiting == 9)
        model.go.set()
        return [result.answer for result in await asyncio.gather(first, *rest)]

    with _drafting(model, batch_size=4) as pipe:
        assert asyncio.run(ask()) == ["red"] * 10
    assert [len(batch) for batch in model.asked] == [1, 4, 4, 1]
    assert sorted(q for batch in model.asked for q in batch) == [
        "alone",
        *(f"q{at}" for at in range(9)),
    ]


def test_a_cancelled_await_takes_its_query_back() -> None:
    model = Held("red")

    async def ask() -> str | None:
        first = asyncio.create_task(pipe.ask(DOT, "first"))
        await asyncio.to_thread(until, lambda: model.asked)
        waiting = asyncio.create_task(pipe.ask(DOT, "left"))
        last = asyncio.create_task(pipe.ask(DOT, "last"))
        await asyncio.to_thread(until, lambda: pipe.waiting == 2)
        waiting.cancel()
        first.cancel()  # this one is under way: what comes of it is dropped
        for task in (waiting, first):
            with pytest.raises(asyncio.CancelledError):
                await task
        model.go.set()
        return (await last).answer

    with _drafting(model, batch_size=1) as pipe:
        assert asyncio.run(ask()) == "red"
    assert model.asked == [["first"], ["last"]]


def test_what_goes_wrong_comes_as_a_result() -> None:
    async def ask() -> list[Any]:
        asked = (
            pipe.ask(b"no image", "What?"),
            pipe.ask({"image": DOT, "question": "  ", "id": "blank"}),
            pipe.ask([DOT]),
            pipe.ask(Query("fail", (DOT,), id="mine")),
            pipe.ask(DOT, "fine"),
        )
        return await asyncio.gather(*asked)

    agent = ScriptedModel({"fail": ValueError("agent down"), "": "<answer>blue</answer>"})
    small = ScriptedModel({"fail": ValueError("draft down"), "": "red"})
    with SpecPipeline.from_pretrained(agent, small, judge=None) as pipe:
        broken, blank, nothing, failed, fine = asyncio.run(ask())
    assert "format" in broken.error and broken.route == "error"
    assert (blank.query_id, blank.answer) == ("blank", None) and "blank" in blank.error
    assert "not a query" in nothing.error
    assert failed.query_id == "mine" and "agent down" in failed.error
    assert (fine.answer, fine.route, fine.error) == ("red", "draft", None)


def test_threads_with_loops_of_their_own_share_it() -> None:
    pipe = pipeline(judge={"3": "yes", "": "no"}, batch_size=4)

    def client(name: int) -> list[tuple[str, str | None]]:
        async def ask() -> list[tuple[str, str | None]]:
            results = await asyncio.gather(*(pipe.ask(DOT, f"{name}{at}") for at in range(8)))
            return [(result.route, result.answer) for result in results]

        return asyncio.run(ask())

    with pipe, ThreadPoolExecutor(4) as pool:
        said = list(pool.map(client, range(5, 9)))
    agent, draft = ("agent", "blue"), ("draft", "red")
    assert said == [[agent if at == 3 else draft for at in range(8)]] * 4


@settings(max_examples=20)
@given(st.lists(st.sampled_from(["draft", "judge", "gate", "lost", "leave"]), max_size=12))
def test_each_that_asks_and_stays_gets_its_own_result(kinds: list[str]) -> None:
    async def one(pipe: SpecPipeline, at: int, kind: str) -> Any:
        task = asyncio.create_task(pipe.ask(Query(f"{kind} #{at}.", (DOT,), id=str(at))))
        if kind == "leave":
            await asyncio.sleep(0)
            task.cancel()
        return await task

    async def ask(pipe: SpecPipeline) -> list[Any]:
        asked = (one(pipe, at, kind) for at, kind in enumerate(kinds))
        return await asyncio.gather(*asked, return_exceptions=True)

    large = ScriptedModel(
        {
            "Reply with one word": {"judge": "yes", "": "no"},
            "lost": ValueError("lost"),
            "": "<answer>blue</answer>",
        }
    )
    small = ScriptedModel({"gate": "", "lost": "", "": "red"})
    with SpecPipeline.from_pretrained(large, small, schedule=ScheduleConfig(batch_size=3)) as pipe:
        results = asyncio.run(ask(pipe))
    routes = {"draft": "draft", "judge": "agent", "gate": "agent", "lost": "error"}
    for at, (kind, result) in enumerate(zip(kinds, results, strict=True)):
        if kind == "leave":
            assert isinstance(result, asyncio.CancelledError)
        else:
            assert (result.query_id, result.route) == (str(at), routes[kind])


def test_closing_answers_what_was_asked_and_refuses_more() -> None:
    model = Held("red")
    pipe = _drafting(model, batch_size=1)

    async def ask() -> list[str | None]:
        tasks = [asyncio.create_task(pipe.ask(DOT, f"q{at}")) for at in range(3)]
        await asyncio.to_thread(until, lambda: model.asked and pipe.waiting == 2)
        closing = asyncio.create_task(asyncio.to_thread(pipe.close))
        model.go.set()
        assert await closing
        with pytest.raises(ConfigError, match="closed"):
            await pipe.ask(DOT, "late")
        return [(await task).answer for task in tasks]

    assert asyncio.run(ask()) == ["red"] * 3
    assert pipe(DOT, "still here").answer == "red"  # the rest of it works on


def test_threads_end_with_the_pipeline() -> None:
    before = our_threads()
    pipe = pipeline(schedule="overlapped")
    assert asyncio.run(pipe.ask(DOT, "q")).answer == "red"
    threads = our_threads() - before
    names = sorted(thread.name for thread in threads if thread.is_alive())
    assert names == ["speceyes-agent", "speceyes-speculative"]
    gone = weakref.ref(pipe)
    del pipe
    until(lambda: gc.collect() >= 0 and gone() is None)
    until(lambda: not any(thread.is_alive() for thread in threads))


@needs_weights
def test_the_tiny_pair_answers_as_it_does_in_one_list() -> None:
    pair = tiny.settings()
    large, small = HFModel.from_pretrained(tiny.LARGE), HFModel.from_pretrained(tiny.SMALL)
    pipe = SpecPipeline.from_pretrained(
        large, small, gate=SeparabilityGate(pair["threshold"], top_k=pair["top_k"])
    )
    queries = [item.query for item in questions("heldout", 10)]

    async def ask() -> list[Any]:
        return await asyncio.gather(*map(pipe.ask, queries))

    with pipe:
        together = asyncio.run(ask())
    listed = pipe(queries)
    assert [(r.answer, r.route) for r in together] == [(r.answer, r.route) for r in listed]
    assert {r.route for r in together} == {"draft", "agent"}
