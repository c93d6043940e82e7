"""A ladder: drafts of one model on fewer pixels first, then on more, then the agent."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from speceyes import cli, tiny
from speceyes.errors import ConfigError
from speceyes.gate import SeparabilityGate
from speceyes.models import HFModel
from speceyes.pipeline import DraftConfig, JudgeConfig, Rung, ScheduleConfig, SpecPipeline
from speceyes.pipeline.reference import as_published
from speceyes.pipeline.route import Facts, Order, Policy, next_phase
from speceyes.strategies.cascade import drafter_of
from speceyes.tiny.scenes import questions
from speceyes.types import Completion, Conversation, Judgement, Verdict
from support.models import FakeModel

SIZES = (100, 900, 6400)


def photo() -> Image.Image:
    return Image.new("RGB", (80, 80), "red")


class Seer:
    """A model that sees what a question needs only on as many pixels as it names; below it is
    unsure, or asks for a closer look.
    """

    name = "seer"

    def __init__(self, *, looks: bool = False) -> None:
        self._sure, self._unsure = FakeModel("seen", margin=12.0), FakeModel("blur", margin=0.5)
        self._closer, self._looks = FakeModel("look closer", margin=12.0), looks
        self.asked: list[int] = []

    def seen_size(self, image: Any) -> tuple[int, int]:
        return image.size

    def generate(self, conversations: Any, sampling: Any) -> list[Completion]:
        found = []
        for one in conversations:
            pixels = one.images[0].width * one.images[0].height
            self.asked.append(pixels)
            need = int(one.messages[-1].text.split()[0])
            unsure = self._closer if self._looks else self._unsure
            model = self._sure if pixels >= need else unsure
            if need == 13:
                raise RuntimeError("broken")
            found += model.generate([one], sampling)
        return found


def climbing(
    small: Any, *, judge: Any = None, schedule: ScheduleConfig = ScheduleConfig(), **more: Any
) -> SpecPipeline:
    return SpecPipeline.from_pretrained(
        FakeModel({"one word": "no", "": "<answer>agent</answer>"}),
        small,
        gate=SeparabilityGate(0.9, top_k=20),
        judge=judge,
        draft=DraftConfig(ladder=SIZES[:2], **more),
        schedule=schedule,
        dialect="deepeyes",
    )


def asking(*needs: int) -> list[tuple[Image.Image, str]]:
    return [(photo(), f"{need} pixels are needed") for need in needs]


@pytest.mark.parametrize("looks", [False, True])
def test_each_query_climbs_as_far_as_it_must(looks: bool) -> None:
    small = Seer(looks=looks)
    pipe = climbing(small, judge="draft" if looks else None)
    results = pipe(asking(50, 500, 5000, 9999))
    assert [r.answer for r in results] == ["seen", "seen", "seen", "agent"]
    assert [drafter_of(r) for r in results] == [0, 1, 2, None]
    assert small.asked == [100] * 4 + [900] * 3 + [6400] * 2
    # Only the last rung's wish to look closer is a judgement: below it there is a closer look.
    assert [r.judgement and r.judgement.needs_tools for r in results] == (
        [False, False, False, True] if looks else [None] * 4
    )
    assert all(r.timings.draft is not None for r in results)


def test_a_draft_that_fails_on_a_rung_fails_alone_and_climbs() -> None:
    small = Seer()
    results = climbing(small)(asking(50, 13, 500))
    assert [r.answer for r in results] == ["seen", "agent", "seen"]
    assert [r.route for r in results] == ["draft", "agent", "draft"]


def test_a_judge_is_asked_once_however_far_a_query_climbs() -> None:
    for order in get_args(Order):
        large = FakeModel({"one word": "no", "": "<answer>agent</answer>"})
        pipe = SpecPipeline.from_pretrained(
            large,
            Seer(),
            gate=SeparabilityGate(0.9, top_k=20),
            draft=DraftConfig(ladder=SIZES[:2]),
            schedule=ScheduleConfig(order=order),
            dialect="deepeyes",
        )
        assert [r.answer for r in pipe(asking(50, 5000))] == ["seen", "seen"]
        assert len(large.asked) == 2


@given(
    needs=st.lists(st.sampled_from([50, 500, 5000, 9999]), min_size=1, max_size=12),
    batch=st.integers(1, 5),
    overlap=st.booleans(),
    early=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_no_schedule_changes_who_answers(
    needs: list[int], batch: int, overlap: bool, early: bool
) -> None:
    schedule = ScheduleConfig(batch, overlap=overlap, end_drafts_early=early)
    pipe = climbing(Seer(), schedule=schedule)
    wanted = [SIZES.index(fit[0]) if (fit := [s for s in SIZES if s >= n]) else None for n in needs]
    for made in (pipe, as_published(pipe)):
        assert [drafter_of(r) for r in made(asking(*needs))] == wanted


def test_a_requests_own_gate_is_about_the_top_rung_alone() -> None:
    from speceyes.pipeline.request import RequestState
    from speceyes.types import Query

    small = Seer()
    pipe = climbing(small)
    loop = pipe.engine_loop()
    loop.start()
    request = RequestState(
        Query("50 pixels are needed", (photo(),), id="0"), gate=SeparabilityGate(0.95, top_k=20)
    )
    loop.submit(request)
    result = request.future.result(30)
    loop.close()
    assert result.answer == "seen" and small.asked == [6400]


def test_rungs_have_thresholds_of_their_own() -> None:
    pipe = SpecPipeline.from_pretrained(
        small=Seer(),
        gate=0.9,
        judge=None,
        draft=DraftConfig(ladder=(Rung(100, 1.0), 900)),
    )
    [result] = pipe(asking(50))  # sure on 100 pixels, where nothing is let through
    assert drafter_of(result) == 1


@pytest.mark.parametrize(
    ("ladder", "top"), [((900, 100), None), ((100, 100), None), ((100, 900), 900), ((0,), None)]
)
def test_a_ladder_that_does_not_rise_is_refused(ladder: Any, top: int | None) -> None:
    with pytest.raises(ConfigError):
        DraftConfig(ladder=ladder, max_pixels=top)


def test_a_calibrated_gate_wants_thresholds_for_rungs() -> None:
    from speceyes.calibration import Scoring, calibrate

    made = calibrate([9.0] * 60, [0] * 60, Scoring("seer", "ab12", top_k=20), target=0.1)
    gate = SeparabilityGate.from_calibration(made)
    with pytest.raises(ConfigError, match="threshold of its own"):
        SpecPipeline.from_pretrained(
            small=Seer(), gate=gate, judge=None, draft=DraftConfig(ladder=(100,))
        )


def test_the_command_line_reads_a_ladder() -> None:
    parser = cli.parser()
    options = parser.parse_args(["ask", "a.png", "Which?", "--ladder", "100:0.5, 900"])
    assert options.ladder == (Rung(100, 0.5), Rung(900))
    for bad in ("x", "100:2", "0", "100:"):
        with pytest.raises(SystemExit):
            parser.parse_args(["ask", "a.png", "Which?", "--ladder", bad])


# --- by the route alone -------------------------------------------------------------------------


@given(
    accepts=st.lists(st.booleans(), min_size=1, max_size=4),
    judges=st.booleans(),
    order=st.sampled_from(get_args(Order)),
    tools=st.booleans(),
)
def test_the_route_drafts_rung_by_rung_and_no_rung_twice(
    accepts: list[bool], judges: bool, order: Order, tools: bool
) -> None:
    policy = Policy(judges, True, True, order, rungs=len(accepts))
    facts, drafts, judged = Facts(), 0, 0
    while (phase := next_phase(facts, policy)) not in ("answer", "agent"):
        if phase == "judge":
            facts.judgement, judged = Judgement(tools), judged + 1
        elif phase == "draft":
            facts.draft, facts.verdict, facts.rung = Completion("red"), None, drafts
            drafts += 1
        else:
            facts.verdict = Verdict(accepts[facts.rung], 0.5, 1.0, 0.9)
    assert judged <= 1 and drafts <= len(accepts)
    first = accepts.index(True) if True in accepts else None
    if judges and tools and (order == "judge_first" or first is not None):
        assert phase == "agent"
        assert drafts == (0 if order == "judge_first" else (first or 0) + 1)
    else:
        assert phase == ("answer" if first is not None else "agent")
        assert drafts == (len(accepts) if first is None else first + 1)


@pytest.mark.skipif(not tiny.SMALL.is_dir(), reason="the tiny pair's weights are not here")
def test_a_rung_reads_fewer_tokens_of_the_same_weights() -> None:
    model = HFModel.from_pretrained(tiny.LARGE, min_pixels=784, max_pixels=15_735)
    queries = [item.query for item in questions("heldout", 3)]
    pipe = SpecPipeline.from_pretrained(
        small=model,
        gate=SeparabilityGate(1.0, top_k=9),
        judge=JudgeConfig(None),
        draft=DraftConfig(ladder=(3136,)),
    )
    pipe(queries)
    assert model.spent.images == 6
    assert pipe.answerer is not None
    low, high = (
        model.prompt(answerer.conversation(queries[0])).images[0].size  # type: ignore[attr-defined]
        for answerer in (pipe.parts.ladder[0][0], pipe.answerer)
    )
    assert (low, high) == ((56, 56), (112, 112))
    asked = [Conversation(pipe.answerer.conversation(q).messages) for q in queries]  # type: ignore[attr-defined]
    assert len(asked) == 3
