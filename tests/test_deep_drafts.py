"""Drafts with depth: looks before the gate, on scripted models and on the bundled one."""

from __future__ import annotations

import itertools
import json
import math
import re
import threading
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from speceyes import tiny
from speceyes.answerer import SpeculativeAnswerer
from speceyes.drafting import DepthRule, Looks, depth_of
from speceyes.errors import ConfigError, ModelError, ToolError
from speceyes.evaluation.grading import is_correct
from speceyes.fallback import AgenticFallback
from speceyes.gate import SeparabilityGate
from speceyes.models.scripted import ScriptedModel
from speceyes.pipeline import DraftConfig, ScheduleConfig, SpecPipeline
from speceyes.tiny.scenes import questions
from speceyes.tools import Tools, Zoom
from speceyes.types import Completion, Conversation, Floor, Observation, Query, Sampling

PICTURE = Image.new("RGB", (64, 48), "red")
GATE = SeparabilityGate(0.98, top_k=8)
SURE, UNSURE = 12.0, 3.0


class CountedZoom:
    """The zoom tool, with the boxes that it was called with, by image."""

    name = "image_zoom_in_tool"
    description = Zoom().description
    parameters = Zoom().parameters

    def __init__(self) -> None:
        self.boxes: list[list[int]] = []
        self._lock = threading.Lock()

    def __call__(self, images: Sequence[Image.Image], arguments: dict[str, object]) -> Observation:
        with self._lock:
            self.boxes.append(list(arguments["bbox_2d"]))  # type: ignore[call-overload]
        if arguments["bbox_2d"][0] == 13:  # type: ignore[index]
            raise ToolError("nothing there")
        return Zoom(min_side=1)(images, arguments)


def call(*box: int) -> str:
    body = {"name": "image_zoom_in_tool", "arguments": {"bbox_2d": list(box)}}
    return f"<tool_call>{json.dumps(body)}</tool_call>"


def looking(conversation: Conversation) -> bool:
    return conversation.messages[0].role == "system"


def number(conversation: Conversation) -> int:
    found = re.search(r"#(\d+)", "".join(m.text for m in conversation.messages))
    assert found is not None
    return int(found[1])


def ask(number: int = 0) -> Query:
    return Query(f"Which colour? #{number}", (PICTURE,))


def deep_only(looks: Sequence[str], *, margin: float = SURE) -> ScriptedModel:
    """Unsure at depth 0, sure of "blue" with something seen; looks as told, turn by turn."""

    def say(conversation: Conversation, sampling: Sampling) -> object:
        if looking(conversation):
            return list(looks)
        return "blue" if len(conversation.images) > 1 else "red"

    def sure(conversation: Conversation) -> float:
        return margin if len(conversation.images) > 1 else UNSURE

    return ScriptedModel(say, margin=sure)  # type: ignore[arg-type]


# --- what depth does --------------------------------------------------------------------------


def test_a_rejected_draft_is_made_again_with_what_was_seen() -> None:
    answerer = SpeculativeAnswerer(
        deep_only([call(0, 0, 32, 32)]), top_k=8, tools=["zoom"], max_depth=1
    )
    [draft] = answerer([ask()])
    assert (draft.text, depth_of(draft), GATE(draft).accepted) == ("blue", 1, True)


def test_the_best_separated_draft_is_kept() -> None:
    model = deep_only([call(0, 0, 32, 32)], margin=2.0)
    [draft] = SpeculativeAnswerer(model, top_k=8, tools=["zoom"], max_depth=1)([ask()])
    assert (draft.text, depth_of(draft)) == ("red", 0)


def test_what_is_asked_is_the_draft_prompt_with_crops_behind_the_images() -> None:
    asked: list[Conversation] = []

    def say(conversation: Conversation, sampling: Sampling) -> str:
        asked.append(conversation)
        return call(0, 0, 32, 24) if looking(conversation) else "red"

    answerer = SpeculativeAnswerer(ScriptedModel(say), top_k=8, tools=["zoom"], max_depth=1)
    answerer([ask()])
    first, _, last = asked
    assert first == answerer.conversation(ask())
    assert [image.size for image in last.images] == [(64, 48), (32, 28)]
    assert last.messages[-1].content[-1] == first.messages[-1].content[-1]


def test_two_looks_are_seen_together() -> None:
    shown: list[int] = []

    def say(conversation: Conversation, sampling: Sampling) -> object:
        if looking(conversation):
            return [call(0, 0, 32, 32), call(32, 0, 64, 32)]
        shown.append(len(conversation.images))
        return "red"

    model = ScriptedModel(
        say,  # type: ignore[arg-type]
        margin=lambda c: 3.0 * len(c.images),
    )
    [draft] = SpeculativeAnswerer(model, top_k=8, tools=["zoom"], max_depth=2)([ask()])
    assert shown == [1, 2, 3]
    assert depth_of(draft) == 2


def test_a_model_that_answers_or_rambles_instead_of_looking_keeps_its_draft() -> None:
    for said in ("<answer>green</answer>", "let me see", "", "<tool_call>{</tool_call>"):
        model = deep_only([said])
        [draft] = SpeculativeAnswerer(model, top_k=8, tools=["zoom"], max_depth=1)([ask()])
        assert (draft.text, depth_of(draft)) == ("red", 0)


def test_a_draft_that_failed_is_not_looked_at() -> None:
    def say(conversation: Conversation, sampling: Sampling) -> str:
        assert not looking(conversation)
        raise ModelError("no memory")

    answerer = SpeculativeAnswerer(ScriptedModel(say), top_k=8, tools=["zoom"], max_depth=1)
    assert answerer([ask()])[0].error == "ModelError: no memory"


# --- several boxes at once --------------------------------------------------------------------


def proposing(chances: dict[str, float], best: str) -> ScriptedModel:
    """Its box may begin with several numbers; it is sure of its draft in the box at `best`."""
    whole = call(0, 0, 20, 20)

    def say(conversation: Conversation, sampling: Sampling) -> str | Completion:
        begun = "".join(part for part in conversation.begun if isinstance(part, str))
        if sampling.first_token:
            assert whole.startswith(begun)
            assert begun.endswith("[")
            return Completion("0", (0,), first_token=chances)
        if begun:
            return ", 0, 40, 20]}}</tool_call>"
        if looking(conversation):
            return whole
        return "blue" if sure(conversation) == SURE else "red"

    def sure(conversation: Conversation) -> float:
        crops = [image.size for image in conversation.images[1:]]
        return SURE if crops and crops[-1][0] == 40 - int(best) else UNSURE

    return ScriptedModel(say, margin=sure)


def test_boxes_are_proposed_together_and_the_best_draft_kept() -> None:
    zoom = CountedZoom()
    model = proposing({"0": 0.5, "10": 0.3, "a": 0.1, "24": 0.06, "30": 0.005}, "24")
    answerer = SpeculativeAnswerer(model, top_k=8, tools=[zoom], max_depth=1, together=4)
    [draft] = answerer([ask()])
    # The likeliest first; no word, nothing below one in a hundred, and not the same one twice.
    assert [box[0] for box in zoom.boxes] == [0, 10, 24]
    assert (draft.text, depth_of(draft)) == ("blue", 1)


def test_no_more_boxes_than_asked_for() -> None:
    zoom = CountedZoom()
    model = proposing({"0": 0.4, "10": 0.3, "24": 0.2, "30": 0.1}, "24")
    SpeculativeAnswerer(model, top_k=8, tools=[zoom], max_depth=1, together=2)([ask()])
    assert [box[0] for box in zoom.boxes] == [0, 10]


def test_a_model_that_cannot_continue_a_turn_proposes_one() -> None:
    def say(conversation: Conversation, sampling: Sampling) -> str:
        if conversation.begun:
            raise ModelError("the assistant's turn has begun")
        return call(0, 0, 20, 20) if looking(conversation) else "red"

    [seen] = Looks(ScriptedModel(say), tools=["zoom"], together=3)([ask()])
    assert len(seen) == 1


# --- what holds for any model -----------------------------------------------------------------

TURNS = st.sampled_from(
    [
        call(0, 0, 32, 32),
        call(8, 8, 60, 40) * 3,
        call(13, 0, 20, 20),
        call(900, 0, 990, 9),
        "<tool_call>{broken</tool_call>",
        "<answer>seen</answer>",
        "I would rather not",
        "",
    ]
)
ROWS = st.tuples(
    st.lists(TURNS, min_size=1, max_size=4),
    st.floats(2.0, 14.0),
    st.floats(2.0, 14.0),
    st.sampled_from(["ok", "ok", "ok", "draft fails", "look fails", "deep fails"]),
)


def scripted(rows: Sequence[tuple[list[str], float, float, str]]) -> ScriptedModel:
    def say(conversation: Conversation, sampling: Sampling) -> object:
        turns, _, _, fate = rows[number(conversation)]
        if looking(conversation):
            if fate == "look fails":
                raise ModelError("look")
            return turns
        deep = len(conversation.images) > 1
        if fate == ("deep fails" if deep else "draft fails"):
            raise ModelError("draft")
        return "two words" if deep else "red"

    def margin(conversation: Conversation) -> float:
        _, shallow, deep, _ = rows[number(conversation)]
        return deep + len(conversation.images) / 8 if len(conversation.images) > 1 else shallow

    return ScriptedModel(say, margin=margin)  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=6), st.integers(1, 3), st.booleans(), st.data())
def test_nothing_is_lost_and_depth_is_bounded(
    rows: list[tuple[list[str], float, float, str]], depth: int, ruled: bool, data: st.DataObject
) -> None:
    zoom = CountedZoom()
    answerer = SpeculativeAnswerer(
        scripted(rows),
        top_k=8,
        tools=Tools([zoom], cache_bytes=0),
        max_depth=depth,
        rule=DepthRule(GATE) if ruled else None,
    )
    queries = [ask(i) for i in range(len(rows))]
    drafts = answerer(queries)
    assert len(drafts) == len(rows)
    assert len(zoom.boxes) <= depth * len(rows)
    for draft, (_, _, _, fate) in zip(drafts, rows, strict=True):
        assert (draft.error is not None) == (fate == "draft fails")
        assert depth_of(draft) <= depth
        if fate in ("look fails", "deep fails"):
            assert (draft.text, depth_of(draft)) == ("red", 0)
    # However the batch is cut, and alone.
    cut = data.draw(st.integers(0, len(rows)))
    assert [*answerer(queries[:cut]), *answerer(queries[cut:])] == drafts
    assert [answerer([query])[0] for query in queries] == drafts
    # Ending drafts early changes no decision.
    early = answerer(queries, floor=GATE.floor)
    if ruled:
        verdicts = [(GATE(a), GATE(b)) for a, b in zip(early, drafts, strict=True)]
        assert [a.accepted for a, _ in verdicts] == [b.accepted for _, b in verdicts]
        assert all(
            a == b
            for a, b, (verdict, _) in zip(early, drafts, verdicts, strict=True)
            if verdict.accepted
        )


@settings(max_examples=40, deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=6), st.booleans())
def test_without_depth_nothing_changes(
    rows: list[tuple[list[str], float, float, str]], early: bool
) -> None:
    """At max_depth 0 a batch is one call of the model, with tools or without."""
    model = scripted(rows)
    queries = [ask(i) for i in range(len(rows))]
    floor = GATE.floor if early else None
    plain = SpeculativeAnswerer(model, top_k=8)
    armed = SpeculativeAnswerer(
        model, top_k=8, tools=["zoom"], max_depth=0, together=3, rule=DepthRule(GATE)
    )
    asked = [plain.conversation(query) for query in queries]
    expected = model.generate(asked, Sampling(max_tokens=20, top_k=8, floor=floor))
    assert plain(queries, floor=floor) == armed(queries, floor=floor) == expected
    assert plain.prompt_hash == armed.prompt_hash


def test_the_prompt_hash_names_depth() -> None:
    model = ScriptedModel("a")
    made = [
        SpeculativeAnswerer(model, tools=["zoom"], max_depth=depth, together=together)
        for depth, together in ((0, 1), (1, 1), (2, 1), (1, 2))
    ]
    made.append(SpeculativeAnswerer(model, tools=["zoom", "rotate"], max_depth=1))
    made.append(SpeculativeAnswerer(model, tools=["zoom"], max_depth=1, dialect="hermes"))
    assert len({one.prompt_hash for one in made}) == len(made)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_depth": 1}, "without tools"),
        ({"max_depth": -1, "tools": ["zoom"]}, "max_depth=-1"),
        ({"max_depth": 1, "tools": ["zoom"], "top_k": 2}, "at least 3"),
        ({"max_depth": 1, "tools": ["zom"]}, "no tool is named 'zom'"),
        ({"max_depth": 1, "tools": ["zoom"], "dialect": "klingon"}, "klingon"),
        ({"together": 0}, "together=0"),
        ({"look_tokens": 0}, "look_tokens=0"),
    ],
)
def test_what_cannot_work_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SpeculativeAnswerer(ScriptedModel("a"), **arguments)  # type: ignore[arg-type]


def test_looks_refuse_what_cannot_work() -> None:
    with pytest.raises(ConfigError, match="max_depth=0"):
        Looks(ScriptedModel("a"), tools=["zoom"], max_depth=0)


# --- the rule ---------------------------------------------------------------------------------


def draft(margin: float | Sequence[float], text: str = "red") -> Completion:
    model = ScriptedModel(text, margin=margin if isinstance(margin, float) else lambda _: margin)
    answerer = SpeculativeAnswerer(model, top_k=8)
    return answerer([ask()])[0]


def test_only_rejected_drafts_go_deeper() -> None:
    rule = DepthRule(GATE)
    assert [rule(draft(m)) for m in (2.0, 6.0, 7.0, 30.0)] == [True, True, False, False]
    assert not rule(Completion.failed("gone"))


def test_depth_is_chosen_where_it_saves_time() -> None:
    costs = {"extra_s": 0.2, "agent_s": 1.0}
    rule = DepthRule(GATE, (3.0, 5.0), (0.05, 0.19, 0.9), **costs)
    assert [rule(draft(m)) for m in (2.0, 4.0, 6.0, 9.0)] == [False, False, True, False]
    assert rule.gain(4.0) == pytest.approx(-0.01)
    assert rule.gain(5.0) == pytest.approx(0.7)


def test_the_rule_is_the_same_for_a_draft_that_ended_early() -> None:
    """A later token may score lower; what counts is the one at which a draft may end."""
    rule = DepthRule(GATE, (3.0,), (0.0, 1.0), extra_s=0.1)
    whole = draft([9.0, 4.0, 2.0], "a red one")
    floor = GATE.floor
    assert isinstance(floor, Floor)
    model = ScriptedModel("a red one", margin=lambda _: [9.0, 4.0, 2.0])
    [ended] = SpeculativeAnswerer(model, top_k=8)([ask()], floor=floor)
    assert (ended.finish, len(ended.token_ids)) == ("rejected", 2)
    assert rule(whole) and rule(ended)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(2.0, 12.0), st.floats(2.0, 12.0)), max_size=40),
    st.integers(1, 8),
    st.floats(0.0, 2.0),
)
def test_a_fitted_rule_counts_what_was_accepted(
    margins: list[tuple[float, float]], bins: int, extra_s: float
) -> None:
    before = [draft(a) for a, _ in margins]
    after = [draft(b) for _, b in margins]
    rule = DepthRule.fit(GATE, before, after, extra_s=extra_s, agent_s=1.0, bins=bins)
    assert len(rule.chances) == len(rule.edges) + 1 <= bins
    assert all(0 < chance < 1 for chance in rule.chances)
    rejected = [(a, b) for a, b in zip(before, after, strict=True) if not GATE(a).accepted]
    # Bins part the rejected drafts, so their chances add up to what was accepted.
    places = [np.searchsorted(rule.edges, rule.score(a), side="right") for a, _ in rejected]
    counts = np.bincount(places, minlength=len(rule.chances)) if rejected else np.zeros(1)
    total = sum(c * (n + 1) - 0.5 for c, n in zip(rule.chances, counts, strict=True))
    assert total == pytest.approx(sum(GATE(b).accepted for _, b in rejected), abs=1e-6)
    for a in before:
        assert rule(a) == (not GATE(a).accepted and rule.gain(rule.score(a)) > 0)


@pytest.mark.parametrize(
    "arguments",
    [
        {"gate": None},
        {"edges": (1.0,), "chances": (0.5,)},
        {"edges": (2.0, 1.0), "chances": (0.5, 0.5, 0.5)},
        {"chances": (1.5,)},
        {"extra_s": math.inf},
        {"agent_s": -1.0},
    ],
)
def test_impossible_rules_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        DepthRule(**{"gate": GATE, **arguments})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="bins"):
        DepthRule.fit(GATE, [], [], extra_s=1, agent_s=1, bins=0)


def test_a_rule_that_fails_leaves_the_draft_as_it_is() -> None:
    def broken(completion: Completion) -> None:
        raise RuntimeError("broken")

    answerer = SpeculativeAnswerer(
        deep_only([call(0, 0, 9, 9)]),
        top_k=8,
        tools=["zoom"],
        max_depth=1,
        rule=DepthRule(broken),  # type: ignore[arg-type]
    )
    assert depth_of(answerer([ask()])[0]) == 0


# --- in the funnel ----------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["batched", "overlapped"])
@pytest.mark.parametrize("order", ["judge_first", "draft_first"])
def test_the_funnel_takes_deep_drafts(schedule: str, order: str) -> None:
    rows = [
        ([call(0, 0, 32, 32)], SURE, SURE, "ok"),
        ([call(0, 0, 32, 32)], UNSURE, SURE, "ok"),
        ([call(0, 0, 32, 32)], UNSURE, UNSURE, "ok"),
        (["no"], UNSURE, SURE, "ok"),
        ([call(0, 0, 32, 32)], UNSURE, SURE, "look fails"),
    ]
    pipe = SpecPipeline(
        answerer=SpeculativeAnswerer(
            scripted(rows), top_k=8, tools=["zoom"], max_depth=1, rule=DepthRule(GATE)
        ),
        gate=GATE,
        fallback=AgenticFallback(ScriptedModel("<answer>agent</answer>"), tools=["zoom"]),
        schedule=ScheduleConfig(overlap=schedule == "overlapped", order=order, batch_size=2),
    )
    results = pipe([ask(i) for i in range(len(rows))])
    assert [r.answer for r in results] == ["red", "two words", "agent", "agent", "agent"]
    assert [depth_of(r.draft) for r in results if r.draft is not None][:2] == [0, 1]


# --- on the bundled drafter that zooms --------------------------------------------------------


@pytest.fixture(scope="module")
def zoomer() -> object:
    hf = pytest.importorskip("speceyes.models.hf")
    from speceyes import tiny

    if not tiny.SMALL_ZOOM.is_dir():
        pytest.skip("the zooming drafter's weights are not in this checkout")
    return hf.HFModel.from_pretrained(tiny.SMALL_ZOOM, device="cpu")


@pytest.fixture(scope="module")
def hard() -> list[object]:
    from speceyes.tiny.scenes import draw, questions

    kinds = ("card/colour", "card/shape")
    places = (i for i in itertools.count(20_000) if draw("heldout", i)[1].kind in kinds)
    return [next(questions("heldout", 1, start=i)) for i in itertools.islice(places, 20)]


def test_a_zoom_tells_what_the_scene_hides(zoomer: object, hard: list[object]) -> None:
    """Marks on cards can't be read at depth 0: it is the crop that tells."""
    answerer = SpeculativeAnswerer(zoomer, top_k=9, tools=["zoom"], max_depth=1)  # type: ignore[arg-type]
    once = SpeculativeAnswerer(zoomer, top_k=9)  # type: ignore[arg-type]
    queries = [item.query for item in hard]  # type: ignore[attr-defined]
    answers = [item.answer for item in hard]  # type: ignore[attr-defined]
    drafts = answerer(queries)
    at_once = sum(d.text == a for d, a in zip(once(queries), answers, strict=True))
    deep = sum(d.text == a for d, a in zip(drafts, answers, strict=True))
    assert at_once <= 10 < deep
    assert sum(depth_of(d) for d in drafts) > 10
    # A batch gives each query what it gets alone.
    alone = [answerer([query])[0] for query in queries[:4]]
    assert [(d.text, depth_of(d)) for d in alone] == [(d.text, depth_of(d)) for d in drafts[:4]]


def test_boxes_together_are_no_worse_separated(zoomer: object, hard: list[object]) -> None:
    """The first box is among them, so the best of them is at least as good."""
    queries = [item.query for item in hard[:8]]  # type: ignore[attr-defined]
    gate = SeparabilityGate(0.5, top_k=9)

    def scores(together: int) -> list[float]:
        answerer = SpeculativeAnswerer(
            zoomer,  # type: ignore[arg-type]
            top_k=9,
            tools=["zoom"],
            max_depth=1,
            together=together,
        )
        return [gate(draft).separability or 0.0 for draft in answerer(queries)]

    pairs = list(zip(scores(1), scores(3), strict=True))
    assert all(three >= one - 0.05 * (1 + one) for one, three in pairs)


# --- how it is measured -----------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 150), st.booleans(), st.booleans()), min_size=1))
def test_the_chosen_threshold_loses_what_is_allowed(
    rows: list[tuple[int, bool, bool]],
) -> None:
    depth = pytest.importorskip("speceyes.tiny.training.depth")
    tenths, right, let = (np.array(column) for column in zip(*rows, strict=True))
    raw = tenths / 10
    found = depth.Drafts((), right, raw)
    gate = SeparabilityGate(depth.choose(found, let), top_k=8)
    accepted = let & (raw >= gate.raw_threshold)
    distinct = len(set(raw.tolist())) == len(raw)
    if distinct:
        assert (accepted & ~right).sum() <= depth.LOSS * len(raw)
    if right[let].all() and let.any():
        assert accepted.sum() == let.sum()


def test_figures_are_counted_from_what_was_drafted() -> None:
    """A drafter that always says "red", surely: right where red is, accepted where let through."""
    depth = pytest.importorskip("speceyes.tiny.training.depth")
    asked = {"red": SpeculativeAnswerer(ScriptedModel("Red."), top_k=9)}
    items, found = depth.record(asked, "calibration", 6, 9, batch=4)
    assert len(items) == 6
    right = [item.answer == "red" for item in items]
    assert found["red"].right.tolist() == right
    let = np.array([not item.needs_tools for item in items])
    gate = SeparabilityGate(0.98, top_k=9)
    told = depth.figures(found["red"], items, gate, let)
    assert told["accepted"] == pytest.approx(let.mean(), abs=1e-4)
    assert told["with agent"] == pytest.approx(1 - (let & ~np.array(right)).mean(), abs=1e-4)
    assert sum(kind["n"] for kind in told["by_kind"].values()) == 6
    assert told["deep"] == 0


def test_what_is_shipped_makes_a_rule() -> None:
    from speceyes import tiny

    if not (tiny.WEIGHTS / "depth.json").is_file():
        pytest.skip("the measured settings are not in this checkout")
    known = tiny.depth_settings()
    for judged in ("judged", "unjudged"):
        way = known[judged]["small_zoom, depth 1"]
        gate = SeparabilityGate(way["threshold"], top_k=known["top_k"])
        rule = DepthRule(
            gate,
            tuple(way["rule"]["edges"]),
            tuple(way["rule"]["chances"]),
            way["rule"]["extra_s"],
            known["cpu_seconds"]["agent"],
        )
        assert rule.gain(0.0) > 0
        assert way["right"] > known[judged]["small"]["right"] + 0.1


@pytest.mark.skipif(not tiny.SMALL_ZOOM.is_dir(), reason="the tiny models' weights are not here")
def test_a_funnel_of_names_looks_before_it_gives_a_draft_up() -> None:
    items = list(questions("heldout", 24))
    pipe = SpecPipeline.from_pretrained(
        tiny.LARGE,
        tiny.SMALL_ZOOM,
        gate=SeparabilityGate(0.9, top_k=9),
        draft=DraftConfig(max_depth=1),
    )
    results = pipe([item.query for item in items])
    assert [r.query_id for r in results] == [item.query.id for item in items]
    looked = [r for r in results if r.route == "draft" and r.draft and depth_of(r.draft) == 1]
    assert looked
    assert sum(is_correct(r.answer, i.answer) for r, i in zip(results, items, strict=True)) > 19
