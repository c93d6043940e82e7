"""The funnel: every route, every failure, and that no query is lost or hurt by another."""

from __future__ import annotations

import dataclasses
import gc
import io
import itertools
import json
import re
import threading
import time
import tracemalloc
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from flat_options import grouped
from speceyes import prompts, tiny
from speceyes.answerer import SpeculativeAnswerer
from speceyes.errors import ConfigError, ImageError, InputError
from speceyes.fallback import AgenticFallback
from speceyes.gate import SeparabilityGate
from speceyes.images import ImageLimits
from speceyes.judge import ToolJudge
from speceyes.models.scripted import Script, ScriptedModel
from speceyes.pipeline import AgentConfig, LoadConfig, ScheduleConfig, SpecPipeline
from speceyes.types import (
    Completion,
    Conversation,
    Judgement,
    Query,
    Result,
    Sampling,
    Timings,
    Verdict,
)
from support.processes import our_threads

PICTURE = Image.effect_noise((120, 80), 50).convert("RGB")
ZOOM = '{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [0, 0, 60, 60]}}'
CALL = f"<tool_call>{ZOOM}</tool_call>"


def ask(number: int, **fields: Any) -> Query:
    return Query(f"Which colour? #{number}.", (PICTURE,), **fields)


def number_of(conversation: Conversation) -> int:
    found = re.search(r"#(\d+)\.", "".join(m.text for m in conversation.messages))
    assert found is not None
    return int(found[1])


# What the three phases may do with a query.
JUDGES: dict[str, Script] = {
    "no": "no",
    "yes": "yes",
    "garbage": "perhaps",
    "nothing": "",
    "error": ValueError("judge down"),
}
DRAFTS: dict[str, Script] = {
    "confident": "draft red",
    "unsure": "draft blue",
    "empty": "",
    "blank": " ",
    "truncated": "draft " * 30,
    "error": ValueError("draft down"),
}
AGENTS: dict[str, Script] = {
    "answer": "<answer>agent red</answer>",
    "tool": [CALL, "<answer>agent blue</answer>"],
    "garbage": "<think>hm",
    "error": ValueError("agent down"),
    "late error": [CALL, ValueError("agent down")],
}


# By the query's number.
Behaviour: TypeAlias = Sequence[str] | Mapping[int, str]


def large_model(judges: Behaviour, agents: Behaviour, **options: Any) -> ScriptedModel:
    return ScriptedModel(
        lambda c, s: {
            prompts.JUDGE: JUDGES[judges[number_of(c)]],
            "": AGENTS[agents[number_of(c)]],
        },
        **options,
    )


def small_model(drafts: Behaviour, **options: Any) -> ScriptedModel:
    return ScriptedModel(
        lambda c, s: DRAFTS[drafts[number_of(c)]],
        margin=lambda c: 3.0 if drafts[number_of(c)] == "unsure" else 12.0,
        **options,
    )


def funnel(judges: Behaviour, drafts: Behaviour, agents: Behaviour, **options: Any) -> SpecPipeline:
    max_batch = options.pop("max_batch", 4)
    return SpecPipeline.from_pretrained(
        large=large_model(judges, agents),
        small=small_model(drafts),
        **grouped(top_k=8, max_steps=3, max_batch=max_batch, **options),
    )


def always(judged: str, drafted: str, done: str, **options: Any) -> SpecPipeline:
    """A funnel in which every query meets the same."""
    judges, drafts, agents = (
        defaultdict[int, str](lambda one=one: one) for one in (judged, drafted, done)
    )
    return funnel(judges, drafts, agents, **options)


def timeless(result: Result) -> Result:
    return dataclasses.replace(result, timings=Timings())


# --- routes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("judge", "draft", "agent", "route", "answer", "error"),
    [
        ("no", "confident", "error", "draft", "draft red", None),
        ("no", "unsure", "answer", "agent", "agent red", None),
        ("no", "empty", "tool", "agent", "agent blue", None),
        ("no", "blank", "tool", "agent", "agent blue", None),
        ("no", "truncated", "answer", "agent", "agent red", None),
        ("no", "error", "answer", "agent", "agent red", None),
        ("yes", "confident", "answer", "agent", "agent red", None),
        ("garbage", "confident", "answer", "agent", "agent red", None),
        ("nothing", "confident", "answer", "agent", "agent red", None),
        ("error", "confident", "tool", "agent", "agent blue", None),
        ("yes", "confident", "garbage", "agent", None, "no answer within 3 turns"),
        ("no", "unsure", "error", "error", None, "the agent failed: ValueError: agent down"),
        ("yes", "confident", "late error", "error", None, "agent down"),
    ],
)
def test_every_route(
    judge: str, draft: str, agent: str, route: str, answer: str | None, error: str | None
) -> None:
    result = always(judge, draft, agent)(ask(0))
    assert (result.route, result.answer) == (route, answer)
    assert (error is None and result.error is None) or (error or "?") in (result.error or "")
    assert result.judgement is not None
    # What did not run is None, and what ran is there.
    drafted = judge == "no"
    assert (result.draft is not None) == (result.verdict is not None) == drafted
    assert (result.trajectory is not None) == (route != "draft")
    times = result.timings
    assert times.judge is not None
    assert (times.draft is not None) == (times.gate is not None) == drafted
    assert (times.fallback is not None) == (route != "draft")
    assert times.latency is not None
    spent = sum(t or 0 for t in (times.judge, times.draft, times.gate, times.fallback))
    assert 0 < spent <= times.latency
    assert Result.from_json(result.to_json()).answer == answer


def test_without_a_judge_everything_is_drafted() -> None:
    result = always("yes", "confident", "answer", judge=None)(ask(0))
    assert (result.route, result.judgement, result.timings.judge) == ("draft", None, None)


def test_the_small_model_can_judge_without_the_agents_dialect() -> None:
    small = ScriptedModel({prompts.JUDGE: "no", "": "draft red"})
    large = ScriptedModel(ValueError("not asked"))
    pipe = SpecPipeline.from_pretrained(large=large, small=small, judge="small")
    assert pipe(ask(0)).route == "draft"
    assert isinstance(pipe.judge, ToolJudge)
    assert pipe.judge.model is small
    assert pipe.judge.dialect is None


def test_the_agent_alone() -> None:
    pipe = SpecPipeline.from_pretrained(large=large_model(["no"], ["tool"]))
    result = pipe(ask(0))
    assert (result.route, result.answer) == ("agent", "agent blue")
    assert result.judgement is result.draft is result.verdict is None
    assert result.timings.draft is None


@pytest.mark.parametrize(
    ("judge", "draft", "error"),
    [
        ("no", "unsure", "is below 0.98, and this pipeline has no fallback"),
        ("no", "error", "the draft was rejected: the draft failed: ValueError: draft down, and"),
        ("yes", "confident", "the judge sends it to the agent, and this"),
        ("error", "confident", "(the judge failed: ValueError: judge down), and this"),
    ],
)
def test_without_a_fallback_what_is_not_answered_says_why(
    judge: str, draft: str, error: str
) -> None:
    pipe = SpecPipeline(
        judge=ToolJudge(large_model([judge], ["answer"])),
        answerer=SpeculativeAnswerer(small_model([draft]), top_k=8),
        gate=SeparabilityGate(0.98, top_k=8),
    )
    result = pipe(ask(0))
    assert (result.route, result.answer) == ("error", None)
    assert error in (result.error or "")
    assert result.trajectory is None


# --- what may be passed -----------------------------------------------------------------------


def png(image: Image.Image) -> bytes:
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


def test_one_image_in_any_form_and_its_question(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(png(PICTURE))
    pipe = always("no", "confident", "answer")
    question = "Which colour? #0."
    for image in (
        path,
        str(path),
        path.read_bytes(),
        PICTURE,
        np.asarray(PICTURE),
        [path, PICTURE],
    ):
        result = pipe(image, question)
        assert isinstance(result, Result)
        assert (result.answer, result.query_id) == ("draft red", "0")


def test_one_query_in_any_form() -> None:
    pipe = always("no", "confident", "answer")
    forms: list[Any] = [
        ask(0, id="mine"),
        {"image": PICTURE, "question": "Which colour? #0.", "id": "mine"},
        {"images": [PICTURE, PICTURE], "question": "Which? #0.", "choices": ["a"], "id": "mine"},
    ]
    for form in forms:
        assert pipe(form).query_id == "mine"
    assert pipe((PICTURE, "Which colour? #0.")).query_id == "0"
    together = pipe([*forms, (PICTURE, "Which colour? #0."), (PICTURE, "Which? #0.", ("a", "b"))])
    assert [r.query_id for r in together] == ["mine", "mine", "mine", "3", "4"]
    assert {r.answer for r in together} == {"draft red"}


def test_choices_reach_the_models() -> None:
    asked: list[str] = []

    def small(conversation: Conversation, sampling: Sampling) -> str:
        asked.append(conversation.messages[-1].text)
        return "B"

    pipe = SpecPipeline.from_pretrained(small=ScriptedModel(small), judge=None)
    assert pipe(PICTURE, "Which?", choices=["red", "blue"]).answer == "B"
    assert asked == [f"Which?\n(A) red\n(B) blue\n{prompts.CHOICE}"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("photo.jpg",), "pass pipe(image, question)"),
        ((b"\x89PNG",), "pass pipe(image, question)"),
        ((PICTURE,), "pass pipe(image, question)"),
        ((np.asarray(PICTURE),), "pass pipe(image, question)"),
        ((PICTURE, " "), "is blank"),
        ((PICTURE, None, ("a",)), "choices without a question"),
        (("/nowhere/photo.jpg", "Which?"), "photo.jpg"),
        (("https://example.org/a.png", "Which?"), "allow_urls=True"),
        (({"question": "Which?"},), '"image" or "images"'),
        (({"image": PICTURE, "images": [PICTURE], "question": "Which?"},), "and not both"),
        (({"image": PICTURE, "question": "Which?", "choises": []},), "choices"),
        (({"image": PICTURE},), "question=None is blank"),
        (({"image": [], "question": "Which?"},), "no image"),
        ((PICTURE, "Which?", "red"), "pass a list of texts"),
        ((PICTURE, "Which?", [1]), "every choice must be text"),
    ],
)
def test_a_single_query_that_cannot_be_read_raises(
    arguments: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        always("no", "confident", "answer")(*arguments)


def test_among_others_it_is_a_result_with_an_error(tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(png(PICTURE)[:200])
    bad: list[Any] = [
        (tmp_path / "missing.png", "Which? #0."),
        (broken, "Which? #0."),
        (Image.open(io.BytesIO(png(PICTURE)[:200])), "Which? #0."),
        (b"", "Which? #0."),
        (PICTURE, ""),
        {"image": PICTURE, "id": "named"},
        "photo.jpg",
        None,
        3,
        (PICTURE,),
    ]
    good = (PICTURE, "Which colour? #0.")
    queries = [part for one in bad for part in (one, good)]
    results = always("no", "confident", "answer", batch_size=3)(queries)
    assert len(results) == len(queries)
    assert [r.route for r in results] == ["error", "draft"] * len(bad)
    assert all(r.error and r.answer is None for r in results[::2])
    assert all(r.timings.latency is not None for r in results)
    assert results[10].query_id == "named"
    assert [r.query_id for r in results if r.query_id != "named"] == [
        str(n) for n in range(len(queries)) if n != 10
    ]


def test_limits_hold_for_images_of_queries_too() -> None:
    pipe = always("no", "confident", "answer", limits=ImageLimits(max_pixels=100))
    with pytest.raises(ImageError, match="max_pixels=100"):
        pipe(ask(0))
    assert pipe([ask(0)])[0].route == "error"


def test_no_queries_give_no_results() -> None:
    pipe = always("no", "confident", "answer")
    assert pipe([]) == []
    assert list(pipe.stream([])) == []
    assert pipe(iter(())) == []


# --- construction -----------------------------------------------------------------------------


def test_parts_that_cannot_work_together_are_refused() -> None:
    model = ScriptedModel("a")
    answerer, gate = SpeculativeAnswerer(model), SeparabilityGate()
    fallback = AgenticFallback(model, tools=["zoom"])
    for parts, message in (
        ({}, "nothing can answer"),
        ({"judge": ToolJudge(model)}, "nothing can answer"),
        ({"answerer": answerer, "fallback": fallback}, "gate is missing"),
        ({"gate": gate, "fallback": fallback}, "answerer is missing"),
        ({"judge": ToolJudge(model), "fallback": fallback}, "decides nothing"),
        ({"fallback": fallback, "batch_size": 0}, "batch_size=0"),
        (
            {"answerer": SpeculativeAnswerer(model, top_k=20), "gate": gate},
            "keeps top_k=20 log-probabilities and the gate needs top_k=64",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            SpecPipeline(**grouped(**parts))
    SpecPipeline(
        answerer=SpeculativeAnswerer(model, top_k=20), gate=SeparabilityGate(aggregate="log")
    )


def test_from_pretrained_says_what_it_cannot_build() -> None:
    model = ScriptedModel("a")
    with pytest.raises(ConfigError, match="nothing can answer"):
        SpecPipeline.from_pretrained()
    with pytest.raises(ConfigError, match="no large model to judge"):
        SpecPipeline.from_pretrained(small=model)
    with pytest.raises(ConfigError, match="judge='medium'"):
        SpecPipeline.from_pretrained(large=model, small=model, judge="medium")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"threshold=1\.5"):
        SpecPipeline.from_pretrained(large=model, small=model, gate=SeparabilityGate(1.5))
    gate = SeparabilityGate(0.9, top_k=5)
    pipe = SpecPipeline.from_pretrained(large=model, small=model, gate=gate)
    assert pipe.gate is gate
    assert isinstance(pipe.answerer, SpeculativeAnswerer)
    assert pipe.answerer.top_k == 5


# --- batches ----------------------------------------------------------------------------------


class Counting:
    """A model that remembers what its batches held."""

    name = "counting"

    def __init__(self, inner: ScriptedModel) -> None:
        self.inner = inner
        self.batches: list[tuple[str, int]] = []

    def seen_size(self, image: Image.Image) -> tuple[int, int]:
        return image.size

    def generate(
        self, conversations: Sequence[Conversation], sampling: Sampling
    ) -> list[Completion]:
        kind = "judge" if sampling.first_token else "draft" if sampling.top_k else "agent"
        self.batches.append((kind, len(conversations)))
        return self.inner.generate(conversations, sampling)


def test_phases_run_in_batches_and_the_rejected_of_several_share_the_agents() -> None:
    judges = ["no"] * 12
    drafts = ["confident", "unsure", "confident"] * 4
    large = Counting(large_model(judges, ["tool"] * 12))
    small = Counting(small_model(drafts))
    pipe = SpecPipeline.from_pretrained(
        large=large,
        small=small,
        gate=SeparabilityGate(top_k=8),
        schedule=ScheduleConfig(batch_size=3),
        agent=AgentConfig(max_batch=4),
    )
    results = pipe([ask(n) for n in range(12)])
    assert [r.route for r in results] == ["draft", "agent", "draft"] * 4
    assert small.batches == [("draft", 3)] * 4
    assert large.batches == [("judge", 3)] * 4 + [("agent", 4)] * 2


def test_a_failing_phase_of_ones_own_is_no_ones_loss() -> None:
    def judge(queries: Sequence[Query]) -> list[Judgement]:
        raise OSError("judge offline")

    def answerer(queries: Sequence[Query]) -> list[Completion]:
        return []

    def gate(draft: Completion) -> Verdict:
        raise OSError("gate offline")

    agent = AgenticFallback(large_model(["no"] * 2, ["answer"] * 2), tools=["zoom"])
    drafter, real = SpeculativeAnswerer(small_model(["confident"] * 2)), SeparabilityGate()
    for pipe, found in (
        (
            SpecPipeline(judge=judge, answerer=drafter, gate=real, fallback=agent),
            lambda r: "judge offline" in r.judgement.reason and r.draft is None,
        ),
        (
            SpecPipeline(answerer=answerer, gate=real, fallback=agent),
            lambda r: r.draft.error is not None and not r.verdict.accepted,
        ),
        (
            SpecPipeline(answerer=drafter, gate=gate, fallback=agent),
            lambda r: "gate offline" in r.verdict.reason,
        ),
    ):
        results = pipe([ask(0), ask(1)])
        assert [r.answer for r in results] == ["agent red", "agent red"]
        assert all(found(r) for r in results)


def test_a_gate_that_accepts_anything_still_makes_no_answer_of_nothing() -> None:
    def anything(draft: Completion) -> Verdict:
        return Verdict(True, 1.0, 99.0, 0.0)

    agent = AgenticFallback(large_model(["no"] * 3, ["answer"] * 3), tools=["zoom"])
    drafter = SpeculativeAnswerer(small_model(["empty", "blank", "error"]))
    results = SpecPipeline(answerer=drafter, gate=anything, fallback=agent)(
        [ask(n) for n in range(3)]
    )
    assert [r.route for r in results] == ["agent"] * 3
    assert all(r.verdict is not None and not r.verdict.accepted for r in results)


def test_an_interrupt_is_not_swallowed() -> None:
    def interrupt(conversation: Conversation, sampling: Sampling) -> str:
        raise KeyboardInterrupt

    pipe = SpecPipeline.from_pretrained(small=ScriptedModel(interrupt), judge=None)
    with pytest.raises(KeyboardInterrupt):
        pipe([ask(0)])


# --- streaming --------------------------------------------------------------------------------


def test_drafts_come_before_the_agents_answers() -> None:
    pipe = funnel(["no"] * 4, ["unsure", "confident"] * 2, ["tool", "answer"] * 2, batch_size=4)
    found = [(r.query_id, r.route) for r in pipe.stream(ask(n) for n in range(4))]
    assert found[:2] == [("1", "draft"), ("3", "draft")]
    assert sorted(found[2:]) == [("0", "agent"), ("2", "agent")]


@pytest.mark.parametrize(
    ("judge", "draft"), [("no", "confident"), ("no", "unsure"), ("yes", "confident")]
)
def test_an_endless_iterable_is_pulled_a_few_batches_ahead(judge: str, draft: str) -> None:
    pulled = 0

    def source() -> Iterator[tuple[Image.Image, str]]:
        nonlocal pulled
        for n in itertools.count():
            pulled += 1
            yield Image.new("RGB", (32, 32)), f"Which colour? #{n}."

    threads = our_threads()
    stream = always(judge, draft, "tool", batch_size=5, max_batch=4).stream(source())
    seen: set[str] = set()
    for _ in range(120):
        seen.add(next(stream).query_id)
        assert pulled - len(seen) <= 4 * 5 + 4
    assert len(seen) == 120
    before = pulled
    stream.close()
    assert pulled == before
    assert our_threads() <= threads


def test_live_trajectories_go_on_while_everything_else_is_drafted() -> None:
    def drafts() -> Iterator[Query]:
        yield ask(0)
        for _ in itertools.count():
            yield ask(1)

    pipe = funnel(["no"] * 2, ["unsure", "confident"], ["tool"] * 2, batch_size=2)
    first_agent = next(n for n, r in enumerate(pipe.stream(drafts())) if r.route == "agent")
    assert first_agent < 40


def test_memory_stays_bounded_over_many_queries() -> None:
    def images() -> int:
        gc.collect()
        return sum(issubclass(type(thing), Image.Image) for thing in gc.get_objects())

    pipe = always("no", "unsure", "tool", batch_size=4, max_batch=4)
    others = images()

    def source() -> Iterator[Query]:
        for _ in itertools.count():
            yield Query("Which colour? #0.", (Image.new("RGB", (64, 64)),))

    stream = pipe.stream(source())
    for _ in itertools.islice(stream, 20):
        pass
    gc.collect()
    tracemalloc.start()
    try:
        for _ in itertools.islice(stream, 20):
            pass
        gc.collect()
        early = tracemalloc.get_traced_memory()[0]
        for _ in itertools.islice(stream, 60):
            pass
        gc.collect()
        late = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert late - early < 200_000
    assert images() - others < 60  # queries and crops under way, out of 100 seen
    stream.close()


def test_what_was_pulled_before_the_iterable_failed_is_answered_first() -> None:
    def source() -> Iterator[Query]:
        yield from (ask(n) for n in range(3))
        raise OSError("disk gone")

    pipe = funnel(["no"] * 3, ["unsure", "confident", "unsure"], ["tool"] * 3, batch_size=2)
    found: list[str] = []
    with pytest.raises(OSError, match="disk gone"):
        for result in pipe.stream(source()):
            found.append(result.query_id)
    assert sorted(found) == ["0", "1", "2"]


def test_nothing_is_pulled_before_the_first_result_is_asked_for() -> None:
    pulled: list[int] = []
    pipe = always("no", "confident", "answer")
    stream = pipe.stream(ask(pulled.append(n) or n) for n in range(3))  # type: ignore[func-returns-value]
    assert pulled == []
    next(stream)
    assert pulled == [0, 1, 2]


def test_a_batchs_time_is_shared_and_latency_counts_the_wait() -> None:
    large = large_model(["no"] * 4, ["answer"] * 4, delay_s=0.04)
    small = small_model(["confident"] * 4, delay_s=0.04)
    pipe = SpecPipeline.from_pretrained(
        large=large,
        small=small,
        gate=SeparabilityGate(top_k=8),
        schedule=ScheduleConfig(batch_size=4),
    )
    start = time.perf_counter()
    results = pipe([ask(n) for n in range(4)])
    wall = time.perf_counter() - start
    times = [r.timings for r in results]
    assert all(t.judge is not None and t.judge >= 0.01 for t in times)
    assert len({t.judge for t in times}) == 1
    assert all(t.latency is not None and 0.08 <= t.latency <= wall for t in times)
    assert sum((t.judge or 0) + (t.draft or 0) + (t.gate or 0) for t in times) <= wall


# --- properties -------------------------------------------------------------------------------

behaviours = st.tuples(
    st.sampled_from(sorted(JUDGES)),
    st.sampled_from(sorted(DRAFTS)),
    st.sampled_from(sorted(AGENTS)),
)


@settings(max_examples=40)
@given(
    behaviours=st.lists(behaviours, max_size=6),
    batch_size=st.integers(1, 5),
    max_batch=st.integers(1, 5),
)
def test_each_query_gets_its_own_result_whatever_the_others_do(
    behaviours: list[tuple[str, str, str]], batch_size: int, max_batch: int
) -> None:
    judges, drafts, agents = ([b[i] for b in behaviours] for i in range(3))
    pipe = funnel(judges, drafts, agents, batch_size=batch_size, max_batch=max_batch)
    queries = [ask(n, id=f"q{n}") for n in range(len(behaviours))]
    results = pipe(queries)
    assert [r.query_id for r in results] == [q.id for q in queries]
    streamed = sorted(pipe.stream(iter(queries)), key=lambda r: int(r.query_id[1:]))
    assert [timeless(r) for r in streamed] == [timeless(r) for r in results]
    for query, result, (judge, draft, agent) in zip(queries, results, behaviours, strict=True):
        assert timeless(result) == timeless(pipe(query))
        assert (result.route == "draft") == (judge == "no" and draft == "confident")
        assert (result.answer is None) == (result.error is not None)
        if result.route == "error":
            assert agent in ("error", "late error")
        if result.answer is not None:
            said = [result.draft.text] if result.route == "draft" and result.draft else []
            said += [step.text for step in (result.trajectory.steps if result.trajectory else ())]
            assert any(result.answer in text for text in said)
        assert json.loads(result.to_json())["route"] == result.route


def test_two_threads_share_a_pipeline() -> None:
    kinds = list(itertools.product(("no", "yes"), ("confident", "unsure"), ("answer", "tool")))
    judges, drafts, agents = ([kind[i] for kind in kinds] * 4 for i in range(3))
    pipe = funnel(judges, drafts, agents, batch_size=3)
    queries = [ask(n) for n in range(len(judges))]
    expected = [timeless(r) for r in pipe(queries)]
    found: dict[int, list[Result]] = {}

    def work(thread: int) -> None:
        found[thread] = [timeless(r) for r in pipe(queries)]

    threads = [threading.Thread(target=work, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert found == {0: expected, 1: expected}


def test_the_documents_code_runs() -> None:
    page = (Path(__file__).parents[1] / "docs" / "pipeline.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) >= 3
    space: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "docs/pipeline.md", "exec"), space)


def test_a_calibrated_gate_refuses_another_model() -> None:
    """A threshold belongs to the model, the prompt and the K that it was calibrated for."""
    from speceyes.calibration import Scoring, calibrate
    from speceyes.errors import CalibrationError

    drafts = SpeculativeAnswerer(ScriptedModel("red", name="mine"), top_k=8)
    scoring = Scoring("mine", drafts.prompt_hash, top_k=8)
    rng = np.random.default_rng(0)
    calibration = calibrate(rng.uniform(0, 9, 400), rng.random(400) < 0.01, scoring, target=0.1)
    gate = SeparabilityGate.from_calibration(calibration)
    SpecPipeline(answerer=drafts, gate=gate)
    other = SpeculativeAnswerer(ScriptedModel("red", name="another"), top_k=8)
    with pytest.raises(CalibrationError, match="another"):
        SpecPipeline(answerer=other, gate=gate)
    asked_otherwise = SpeculativeAnswerer(
        ScriptedModel("red", name="mine"), top_k=8, prompt="Answer in French."
    )
    with pytest.raises(CalibrationError, match="prompt"):
        SpecPipeline(answerer=asked_otherwise, gate=gate)


def test_rows_with_further_columns_are_queries_and_slips_of_the_pen_are_not() -> None:
    pipe = SpecPipeline.from_pretrained(small=ScriptedModel("red"), judge=None)
    row = {
        "image": PICTURE,
        "question": "Which?",
        "choices": None,
        "id": 7,
        "answer": "red",
        "w": 1,
    }
    further = {"idx": 3, "image_id": 4, "question_id": 5, "options": {"a": 1}, "ids": [1]}
    assert pipe([{"image": PICTURE, "question": "Which?"} | further])[0].answer == "red"
    for odd in (False, 0, {}, "", "red|blue"):
        [refused] = pipe([{"image": PICTURE, "question": "Which?", "choices": odd}])
        assert refused.route == "error" and "pass a list of texts" in str(refused.error)
    assert pipe([row])[0].answer == "red" and pipe([row])[0].query_id == "7"
    [wrong] = pipe([{"image": PICTURE, "question": "Which?", "choises": ["red"]}])
    assert "is 'choices' meant?" in str(wrong.error)


def test_rows_of_datasets_and_of_torch_are_queries() -> None:
    torch = pytest.importorskip("torch")
    pipe = SpecPipeline.from_pretrained(small=ScriptedModel("red"), judge=None)
    png = io.BytesIO()
    PICTURE.save(png, "PNG")
    pixels = torch.from_numpy(np.array(PICTURE))
    images = (pixels, pixels.permute(2, 0, 1), pixels.permute(2, 0, 1) / 255, png.getvalue())
    rows = [
        *({"image": one, "question": "Which?", "label": torch.tensor(3)} for one in images),
        {"image": {"bytes": png.getvalue(), "path": None}, "question": "Which?", "split": "val"},
        {"images": [pixels, pixels], "question": "Which?", "meta": {"source": [1, None]}},
        {"image": pixels[None, None], "question": "Which?"},
    ]
    *fine, odd = pipe(rows)
    assert [one.answer for one in fine] == ["red"] * 6
    assert odd.route == "error" and "is not an image" in str(odd.error)


@pytest.mark.skipif(not tiny.LARGE.is_dir(), reason="the tiny pair's weights are not here")
def test_models_named_by_path_are_loaded_as_asked() -> None:
    load = LoadConfig(max_pixels=28 * 28 * 9, model_kwargs={"attn_implementation": "eager"})
    pipe = SpecPipeline.from_pretrained(None, tiny.SMALL, judge=None, gate=tiny.gate(), load=load)
    assert isinstance(pipe.answerer, SpeculativeAnswerer)
    width, height = pipe.answerer.model.seen_size(Image.new("RGB", (448, 448)))
    assert width * height <= 28 * 28 * 9
    with pytest.raises(ConfigError, match="no/such/folder"):
        SpecPipeline.from_pretrained(None, "no/such/folder", judge=None)


@pytest.mark.parametrize("schedule", ["sequential", None, {"overlap": False}])
def test_a_schedule_of_another_kind_is_refused_when_it_is_built(schedule: Any) -> None:
    with pytest.raises(ConfigError, match="must be a ScheduleConfig"):
        SpecPipeline.from_pretrained(ScriptedModel("x"), tools=["zoom"], schedule=schedule)
