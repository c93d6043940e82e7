"""Judge and draft by the small model: images are read once, and one pass can do both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from speceyes import tiny
from speceyes.answerer import SpeculativeAnswerer, asks_to_look
from speceyes.calibration import Scoring, calibrate
from speceyes.errors import CalibrationError, ConfigError
from speceyes.gate import SeparabilityGate
from speceyes.judge import ToolJudge
from speceyes.models import HFModel, OpenAIModel
from speceyes.models.openai import QwenResize
from speceyes.models.scripted import ScriptedModel
from speceyes.pipeline import DraftConfig, JudgeConfig, SpecPipeline
from speceyes.texts import Texts
from speceyes.tiny.scenes import questions
from speceyes.types import Completion, Query
from support.engine_server import serving
from support.models import FakeModel

weights = pytest.mark.skipif(
    not tiny.SMALL.is_dir(), reason="the tiny pair's weights are not in this checkout"
)


def scenes(n: int = 6) -> list[Query]:
    return [item.query for item in questions("heldout", n)]


def funnel(small: Any, **more: Any) -> SpecPipeline:
    """Without an agent, a gate that accepts whatever can be scored, and a judge that always lets
    through: the bundled drafter was never asked for a yes or a no.
    """
    pipe = SpecPipeline.from_pretrained(small=small, **{"gate": 0.0, **more})
    if isinstance(pipe.judge, ToolJudge):
        pipe.judge.min_mass = 0.0
    return pipe


@weights
@pytest.mark.parametrize("pixels", [None, 2500])
def test_the_small_model_reads_images_and_question_once_for_judgement_and_draft(
    pixels: int | None,
) -> None:
    model = HFModel.from_pretrained(tiny.SMALL)
    pipe = funnel(
        model, judge=JudgeConfig("small", threshold=1.0), draft=DraftConfig(max_pixels=pixels)
    )
    queries = scenes()
    results = pipe(queries)
    spent = model.spent
    assert spent.images == len(queries)
    judged = sum(r.judgement.completion.prompt_tokens for r in results)  # type: ignore[union-attr]
    drafted = sum(r.draft.prompt_tokens for r in results if r.draft is not None)
    assert spent.read + spent.reused == judged + drafted
    # Of a draft's prompt only the instruction and the turn's end are new, which differ from the
    # judge's: <one phrase> <|im_end|> \n <|im_start|> assistant\n, in these models' tokens.
    new = spent.read - judged
    assert 0 < new <= 6 * len(queries) < drafted
    bare = HFModel.from_pretrained(tiny.SMALL, cache_bytes=0)
    again = funnel(
        bare, judge=JudgeConfig("small", threshold=1.0), draft=DraftConfig(max_pixels=pixels)
    )(queries)
    assert [r.answer for r in again] == [r.answer for r in results]
    assert bare.spent.reused == 0 and bare.spent.images == 2 * len(queries)
    for one, other in zip(results, again, strict=True):
        assert one.judgement is not None and other.judgement is not None
        assert one.judgement.p_tools == pytest.approx(other.judgement.p_tools, abs=1e-4)


@weights
def test_a_drafters_system_text_begins_the_small_judges_prompt_too() -> None:
    model = HFModel.from_pretrained(tiny.SMALL)
    answerer = SpeculativeAnswerer(model, system="You see synthetic scenes.", max_pixels=2500)
    [query] = scenes(1)
    judge, draft = answerer.judge().conversation(query), answerer.conversation(query)
    assert judge.messages[0] == draft.messages[0]
    assert [i.size for i in judge.images] == [i.size for i in draft.images] == [(50, 50)]
    told = Texts(judge_system="You judge.", draft_system="You draft.")
    own = SpeculativeAnswerer(model, texts=told).judge().conversation(query)
    assert own.messages[0].text == "You judge."
    assert answerer.judge(max_pixels=900).conversation(query).images[0].size == (30, 30)


@weights
def test_an_engine_is_sent_the_same_beginning_by_judge_and_drafter() -> None:
    model = HFModel.from_pretrained(tiny.SMALL)
    queries = scenes(3)
    with serving({"small": model}, kind="vllm") as (url, behaviour):
        small = OpenAIModel(url, "small", seen=QwenResize(20, 5_184, 8_028), top_k=9)
        results = funnel(
            small,
            gate=SeparabilityGate(0.0, top_k=9),
            judge=JudgeConfig("small", threshold=1.0),
            draft=DraftConfig(max_pixels=2500),
        )(queries)
        small.close()
    assert [r.error for r in results] == [None] * 3
    said = [body["messages"][-1]["content"] for body in behaviour.bodies]
    asked = {query.question for query in queries}
    parts = [one for one in said if not isinstance(one, str)]
    sent = [one for one in parts if one[-1]["text"].splitlines()[0] in asked]
    trials = len(parts) - len(sent)  # about a small picture, when the funnel is built
    assert trials == 1 and model.spent.images == 3 + trials  # its engine reads an image once
    # Each image goes there once, and is named by its uuid the second time.
    assert len(sent) == 6 and len({parts[0]["uuid"] for parts in sent}) == 3
    assert sum(parts[0]["image_url"] is not None for parts in sent) == 3
    for parts in sent:
        kinds = [part["type"] for part in parts]
        assert kinds[0] == "image_url" and kinds[-1] == "text"


# --- one pass ----------------------------------------------------------------------------------


def test_only_these_two_words_ask_for_a_closer_look() -> None:
    for text in ("look closer", "Look Closer.", ' "look\ncloser" ', "**LOOK CLOSER!**"):
        assert asks_to_look(text)
    for text in ("", "look", "closer", "look closer at the sign", "no need to look closer", "a"):
        assert not asks_to_look(text)


def one_pass(small: Any, large: Any = None, **more: Any) -> SpecPipeline:
    return SpecPipeline.from_pretrained(large, small, gate=0.5, judge="draft", **more)


def dot() -> Image.Image:
    return Image.new("RGB", (64, 64), "red")


def test_a_draft_that_asks_to_look_closer_goes_to_the_agent_as_one_that_needs_tools() -> None:
    small = FakeModel({"plate": "Look closer.", "": "red"})
    large = FakeModel("<answer>blue</answer>")
    pipe = one_pass(small, large)
    report = pipe.run([(dot(), "Which colour?"), (dot(), "What is on the plate?")])
    near, far = report.results
    assert (near.route, near.answer) == ("draft", "red")
    assert near.judgement is not None and not near.judgement.needs_tools
    assert (far.route, far.answer) == ("agent", "blue")
    assert far.judgement is not None and far.judgement.needs_tools
    assert far.judgement.reason and far.verdict is None and far.draft is not None
    # Each query is asked about once before the agent, and the agent once.
    assert len(small.asked) == 2 and len(large.asked) == 1
    assert report.efficiency.beta == 0.5 and report.efficiency.alpha == 1.0
    assert report.efficiency.c_judge is None


def test_the_instruction_stands_below_the_drafters_own_and_can_be_changed() -> None:
    small = FakeModel("red")
    one_pass(small)(dot(), "Which colour?", ["red", "blue"])
    lines = small.asked[0].messages[-1].text.splitlines()
    assert lines[-1].endswith("look closer") and "options" in lines[-2]
    small = FakeModel("red")
    told = Texts(draft="Answer.", draft_look="Or say: look closer.")
    one_pass(small, texts=told)(dot(), "Which colour?")
    assert small.asked[0].messages[-1].text == "Which colour?\nAnswer.\nOr say: look closer."


def test_without_an_agent_a_closer_look_is_an_error_that_says_so() -> None:
    result = one_pass(FakeModel("look closer"))(dot(), "Which colour?")
    assert result.route == "error" and "closer look" in (result.error or "")


def test_neighbours_of_a_failing_row_are_answered_in_one_pass_too() -> None:
    def fails(batch: Any) -> Exception | None:
        bad = any("bad" in c.messages[-1].text for c in batch)
        return RuntimeError("broken") if bad else None

    large = FakeModel("<answer>blue</answer>")
    pipe = one_pass(FakeModel({"far": "look closer", "": "red"}, fails=fails), large)
    asked = ["near", "bad", "far"]
    assert [r.answer for r in pipe([(dot(), q) for q in asked])] == ["red", "blue", "blue"]


def test_a_model_that_says_look_closer_without_being_asked_is_answered_by_it() -> None:
    pipe = funnel(FakeModel("look closer"), judge=None)
    result = pipe(dot(), "What does the sign say?")
    assert (result.route, result.answer, result.judgement) == ("draft", "look closer", None)


def test_a_calibration_holds_for_its_own_way_of_judging() -> None:
    model = ScriptedModel("red", name="small")
    plain = SpeculativeAnswerer(model, top_k=20)
    passing = SpeculativeAnswerer(model, top_k=20, may_look=True)
    assert plain.prompt_hash != passing.prompt_hash
    assert plain.judgement(Completion("look closer")) is None
    scores = np.linspace(5, 9, 200)
    made = calibrate(
        scores,
        np.zeros(200, bool),
        Scoring("small", passing.prompt_hash, top_k=20),
        target=0.1,
        judge="draft",
    )
    gate = SeparabilityGate.from_calibration(made)
    SpecPipeline(answerer=passing, gate=gate)
    with pytest.raises(CalibrationError):
        SpecPipeline(answerer=plain, gate=gate)


def test_a_size_for_a_judge_that_is_the_draft_is_refused() -> None:
    with pytest.raises(ConfigError, match="DraftConfig"):
        JudgeConfig("draft", max_pixels=100)
    with pytest.raises(ConfigError, match='"draft"'):
        JudgeConfig("drafter")
