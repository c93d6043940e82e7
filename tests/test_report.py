"""The demo end to end on scripted models, its summary, its page, and what survives trouble."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from speceyes.errors import InputError
from speceyes.evaluation import plots
from speceyes.evaluation.demo import REPORT, RESULTS, SUMMARY, agent_arm, draft_arm
from speceyes.evaluation.flow import funnel
from speceyes.evaluation.progress import Bars
from speceyes.evaluation.report import MOST_CARDS, Page, route_of
from speceyes.evaluation.row import Row
from speceyes.evaluation.summary import ARMS, summarise, table
from speceyes.fallback import AgenticFallback
from speceyes.looked import zoomed
from speceyes.models.scripted import ScriptedModel
from speceyes.types import (
    Completion,
    Judgement,
    Observation,
    Query,
    Result,
    Step,
    Timings,
    Trajectory,
    Verdict,
)
from support.demo_models import Card, cards, demo_of


class Reader(HTMLParser):
    """Collects tags, texts and cards, and checks that tags are closed in order."""

    VOID = frozenset({"meta", "img", "input", "link", "br"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], list[Card]]:
    out = tmp_path_factory.mktemp("demo")
    items = cards(45)
    summary = demo_of(items, out=out, notes={"note": "kept"})(items, warm_up=items[:2])
    return out, summary, items


def rows_of(out: Path) -> list[Row]:
    return [Row.from_json(line) for line in (out / RESULTS).read_text("utf-8").splitlines()]


# --- the run ---------------------------------------------------------------------------------


def test_every_query_of_every_arm_is_written(run: tuple[Path, Any, list[Card]]) -> None:
    out, _, items = run
    rows = rows_of(out)
    ids = sorted(item.query.id for item in items)
    for arm in ARMS:
        assert sorted(row.result.query_id for row in rows if row.arm == arm) == ids
    for row, line in zip(rows, (out / RESULTS).read_text("utf-8").splitlines(), strict=True):
        assert row.to_json() == line
        assert row.seconds > 0 and row.result.timings.latency == row.seconds
        assert Result.from_json(json.dumps(json.loads(line)["result"])) == row.result


def test_grades_and_routes_are_those_the_models_earn(run: tuple[Path, Any, list[Card]]) -> None:
    out, summary, items = run
    small = [at for at, item in enumerate(items) if item.kind == "small"]
    # Of the small squares the judge lets 5, 20 and 35 through; on 35 the drafter is wrong with a
    # separability of 6.5, just over the gate's 6.486.
    assert summary["counts"] == {
        "queries": 45,
        "tools_needed": len(small) - 3,
        "drafted": 45 - len(small) + 3,
        "accepted": 45 - len(small) + 1,
        "rejected": 2,
    }
    assert summary["routes"] == {
        "draft": summary["counts"]["accepted"],
        "agent": 45 - summary["counts"]["accepted"],
        "error": 0,
    }
    assert summary["beta"] == 33 / 45 and summary["alpha"] == 31 / 33
    # The agent errs on item 4 alone, which is large, so that the funnel takes the draft there.
    correct = {arm: figures["correct"] for arm, figures in summary["arms"].items()}
    assert correct == {"agent": 44, "agent_batched": 44, "draft": 45 - len(small), "funnel": 44}
    wrong = [row.result.query_id for row in rows_of(out) if row.arm == "funnel" and not row.correct]
    assert wrong == ["card-35"]
    assert summary["agent_against_funnel"]["only_agent_right"] == 1
    assert summary["agent_against_funnel"]["only_funnel_right"] == 1


def test_the_draft_arm_is_scored_off_the_clock(run: tuple[Path, Any, list[Card]]) -> None:
    out, summary, _ = run
    drafts = [row for row in rows_of(out) if row.arm == "draft"]
    assert all(row.result.verdict is not None for row in drafts)
    assert all(row.result.timings.gate is None for row in drafts)
    assert 0.9 < summary["draft_auroc"] <= 1.0


def test_summary_file_has_the_promised_keys(run: tuple[Path, Any, list[Card]]) -> None:
    out, summary, _ = run
    written = json.loads((out / SUMMARY).read_text("utf-8"))
    assert written == json.loads(json.dumps(summary))
    assert set(written["arms"]) == {"agent", "agent_batched", "draft", "funnel"}
    promised = {"accuracy", "accuracy_low", "accuracy_high", "mean_s", "p95_s", "queries_per_s"}
    for arm in written["arms"].values():
        assert promised | {"n"} <= set(arm)
        assert arm["n"] == 45
        assert arm["accuracy_low"] <= arm["accuracy"] <= arm["accuracy_high"]
        assert arm["queries_per_s"] == pytest.approx(45 / arm["wall_s"])
    assert {"routes", "beta", "alpha", "predicted_gain", "measured_gain"} <= set(written)
    assert written["interrupted"] is False and written["note"] == "kept"
    assert written["gate"] == {"threshold": 0.98, "top_k": 8, "aggregate": "min"}


def test_the_table_tells_the_same(run: tuple[Path, Any, list[Card]]) -> None:
    _, summary, _ = run
    text = table(summary)
    assert max(len(line) for line in text.splitlines()) <= 100
    for name in ARMS:
        assert f"{summary['arms'][name]['accuracy']:.1%}" in text
    assert f"beta = {summary['beta']:.3f}" in text and f"alpha = {summary['alpha']:.3f}" in text
    assert text.count("x") >= 8 and "c_J" in text


# --- the arithmetic --------------------------------------------------------------------------


def row(arm: str, at: int, seconds: float, *, right: bool = True, **result: Any) -> Row:
    answer = "red" if right else "blue"
    fields = {"route": "agent", "answer": answer, **result}
    return Row(arm, "kind", "Which?", "red", right, seconds, Result(str(at), **fields))


def by_hand() -> list[Row]:
    """Four queries: draft accepted, draft rejected, tools, tools."""
    yes, no = Judgement(True, 0.9), Judgement(False, 0.1)
    rows = [row("agent", at, s) for at, s in enumerate((0.10, 0.20, 0.30, 0.40))]
    rows += [row("agent_batched", at, 0.5) for at in range(4)]
    for at, raw in enumerate((9.0, 3.0, 2.0, 1.0)):
        verdict = Verdict(raw > 6, 0.9, raw, 0.98)
        rows.append(row("draft", at, 0.01, right=at == 0, route="draft", verdict=verdict))
    spent = Timings(judge=0.01, draft=0.02, gate=0.001)
    rows.append(
        row(
            "funnel", 0, 0.05, judgement=no, draft=Completion("red"), route="draft", timings=spent,
            verdict=Verdict(True, 0.99, 9.0, 0.98),
        )
    )  # fmt: skip
    rows.append(
        row(
            "funnel", 1, 0.3, judgement=no, draft=Completion("blue"), right=False,
            timings=replace(spent, draft=0.04, gate=0.003, fallback=0.1),
            verdict=Verdict(False, 0.8, 3.0, 0.98),
        )
    )  # fmt: skip
    for at in (2, 3):
        rows.append(
            row("funnel", at, 0.4, judgement=yes, timings=Timings(judge=0.01, fallback=0.1))
        )
    return rows


def test_cost_model_by_hand() -> None:
    walls = {"agent": 1.0, "agent_batched": 0.4, "draft": 0.04, "funnel": 0.5}
    summary = summarise(by_hand(), walls)
    assert (summary["beta"], summary["alpha"]) == (0.5, 0.5)
    assert summary["counts"] == {
        "queries": 4, "tools_needed": 2, "drafted": 2, "accepted": 1, "rejected": 1,
    }  # fmt: skip
    costs = summary["cost_model"]
    assert costs["c_judge_s"] == pytest.approx(0.01)
    assert costs["c_draft_s"] == pytest.approx(0.03 + 0.002)
    assert costs["l_agent_s"] == pytest.approx(0.25)
    assert costs["l_agent_batched_s"] == pytest.approx(0.1)
    assert costs["l_agent_on_fallback_s"] == pytest.approx(0.3)
    front = 0.01 + 0.5 * 0.032
    assert summary["predicted_gain"] == pytest.approx(0.25 / (front + 0.75 * 0.25))
    assert summary["measured_gain"] == pytest.approx(1.0 / 0.5)
    assert [gain["predicted"] for gain in summary["gains"]] == pytest.approx(
        [
            0.25 / (front + 0.75 * 0.25),
            0.25 / (front + 0.75 * 0.3),
            0.25 / (front + 0.75 * 0.1),
            0.1 / (front + 0.75 * 0.1),
        ]
    )
    assert [gain["measured"] for gain in summary["gains"][2:]] == pytest.approx([2, 0.8])
    # What was predicted one by one has nothing beside it that was measured one by one.
    assert [gain["measured"] for gain in summary["gains"][:2]] == [None, None]
    assert summary["measured_gain_low"] is None
    rounds = [{arm: wall / 6 for arm, wall in walls.items()}] * 6
    steady = summarise(by_hand(), walls, rounds)
    assert (steady["measured_gain_low"], steady["measured_gain_high"]) == pytest.approx((2, 2))
    assert steady["gain_over_batched"] == pytest.approx((0.8, 0.8, 0.8))
    assert "leave it off" in table(steady).split("\n\n")[0]
    alone = [
        replace(row, arm="funnel_one", seconds=0.5) for row in by_hand() if row.arm == "funnel"
    ]
    both = summarise([*by_hand(), *alone], {**walls, "funnel_one": 0.8})
    assert [gain["measured"] for gain in both["gains"]] == pytest.approx([1.25, 1.25, 2, 0.8])
    assert both["gains"][0]["predicted"] == pytest.approx(0.25 / (front + 0.75 * 0.25))
    assert both["wrong_accepted"] == 0
    assert summary["agent_against_funnel"] == {
        "only_agent_right": 1, "only_funnel_right": 0, "mcnemar_p": 1.0,
    }  # fmt: skip
    assert summary["draft_auroc"] == 1.0
    assert summary["arms"]["agent"]["p95_s"] == pytest.approx(0.385)
    assert summary["kinds"]["kind"] == {
        "agent": 1.0, "agent_batched": 1.0, "draft": 0.25, "funnel": 0.75, "n": 4,
    }  # fmt: skip


def test_the_cost_model_of_drafts_that_judge() -> None:
    """Every query is drafted, and none judged before: E[L] = c_S + (1 - beta alpha) L_agent."""
    rows = []
    for one in by_hand():
        if one.arm == "funnel":
            kept = replace(one.result.timings, judge=None, draft=0.04, gate=0.0)
            draft = one.result.draft or Completion("look closer")
            one = replace(one, result=replace(one.result, timings=kept, draft=draft))
        rows.append(one)
    walls = {"agent": 1.0, "agent_batched": 0.4, "draft": 0.04, "funnel": 0.2}
    summary = summarise(rows, walls)
    assert (summary["beta"], summary["alpha"]) == (0.5, 0.5)
    assert summary["counts"]["tools_needed"] == 2 and summary["counts"]["rejected"] == 1
    costs = summary["cost_model"]
    assert costs["one_pass"] and costs["c_judge_s"] == 0 and costs["c_draft_s"] == 0.04
    assert summary["gains"][-1]["predicted"] == pytest.approx(0.1 / (0.04 + 0.75 * 0.1))
    text = table(summary)
    assert "E[L] = c_S + (1 - beta alpha) L_agent" in text and "c_J" not in text
    assert [route_of(one) for one in rows if one.arm == "funnel"] == [
        "accepted", "rejected", "tools", "tools",
    ]  # fmt: skip


def test_summary_refuses_arms_on_different_queries() -> None:
    rows = by_hand()
    walls = dict.fromkeys(ARMS, 1.0)
    with pytest.raises(InputError, match="same queries"):
        summarise(rows[1:], walls)
    with pytest.raises(InputError, match="'funnel' has 0 rows"):
        summarise([r for r in rows if r.arm != "funnel"], walls)


def test_nothing_drafted_and_everything_accepted_have_finite_summaries() -> None:
    walls = dict.fromkeys(ARMS, 1.0)
    tools = Judgement(True, 1.0)
    none = [row(arm, 0, 0.1) for arm in ARMS[:3]] + [
        row("funnel", 0, 0.1, judgement=tools, timings=Timings(judge=0.01, fallback=0.1))
    ]
    summary = summarise(none, walls)
    assert (summary["beta"], summary["alpha"], summary["draft_auroc"]) == (0, 0, None)
    drafted = row(
        "funnel", 0, 0.1, route="draft", judgement=Judgement(False, 0.0), draft=Completion("red"),
        verdict=Verdict(True, 0.99, 9.0, 0.98), timings=Timings(judge=0.01, draft=0.01, gate=0.0),
    )  # fmt: skip
    every = summarise([*none[:3], drafted], walls)
    assert every["cost_model"]["bound_1_over_1_minus_beta_alpha"] is None
    for one in (summary, every):
        json.dumps(one, allow_nan=False)
        assert funnel(one["counts"]).startswith("<svg")


def test_a_pipeline_without_a_judge_counts_as_all_drafted() -> None:
    rows = [row(arm, 0, 0.1) for arm in ARMS[:3]]
    rows.append(
        row(
            "funnel", 0, 0.1, route="draft", draft=Completion("red"),
            verdict=Verdict(True, 0.99, 9.0, 0.98), timings=Timings(draft=0.01, gate=0.0),
        )
    )  # fmt: skip
    assert summarise(rows, dict.fromkeys(ARMS, 1.0))["counts"]["drafted"] == 1


# --- the page --------------------------------------------------------------------------------


def test_page_is_whole_and_needs_nothing_else(run: tuple[Path, Any, list[Card]]) -> None:
    out, summary, items = run
    text = (out / REPORT).read_text("utf-8")
    page = Reader(text)
    assert len(page.all("article")) == len(items)
    sources = [attrs.get("src") for tag, attrs in page.tags if "src" in attrs]
    assert sources and all(str(src).startswith("data:image/jpeg;base64,") for src in sources)
    assert not page.all("link") and "http://" not in text and "https://" not in text
    assert "{{" not in text
    assert f"{summary['measured_gain']:.2f} times" in text
    routes = [attrs["data-route"] for attrs in page.all("article")]
    counts = summary["counts"]
    assert routes.count("accepted") == counts["accepted"]
    assert routes.count("rejected") == counts["rejected"]
    assert routes.count("tools") == counts["tools_needed"]
    assert len(page.all("svg")) == 3 + len(items)


def test_page_is_small_enough_to_mail(run: tuple[Path, Any, list[Card]]) -> None:
    out, _, items = run
    assert (out / REPORT).stat().st_size < 40_000 + 25_000 * len(items)


def test_page_escapes_whatever_it_is_given(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\"'></script>{{headline}}"
    item = Card(0, "red", "large", question=evil)
    item.kind = '<b onclick="x">'
    item.answer = "<img src=x onerror=alert(1)>"
    summary = demo_of([item], out=tmp_path)([item])
    assert summary["arms"]["funnel"]["n"] == 1
    page = Reader((tmp_path / REPORT).read_text("utf-8"))
    assert len(page.all("script")) == 1
    assert all(str(attrs["src"]).startswith("data:") for attrs in page.all("img"))
    assert not [attrs for _, attrs in page.tags if "onclick" in attrs or "onerror" in attrs]
    assert any(evil in words for words in page.words)
    assert page.all("article")[0]["data-kind"] == item.kind


def test_boxes_and_crops_stand_where_the_agent_looked(run: tuple[Path, Any, list[Card]]) -> None:
    out, _, items = run
    page = Reader((out / REPORT).read_text("utf-8"))
    lines = [attrs for attrs in page.all("rect") if attrs.get("class") == "line"]
    assert len(lines) == len(items)
    for item, line in zip(items, lines, strict=True):
        x0, y0, x1, y1 = item.box
        drawn = [float(str(line[key])) for key in ("x", "y", "width", "height")]
        width, height = (size / 100 for size in item.query.images[0].size)
        expected = [x0 / width, y0 / height, (x1 - x0) / width, (y1 - y0) / height]
        assert drawn == pytest.approx(expected, abs=0.2)


def test_a_crop_of_a_crop_is_found_in_the_scene() -> None:
    scene, other = Image.new("RGB", (400, 200)), Image.new("RGB", (100, 100))
    first, second, foreign = (Image.new("RGB", size) for size in ((100, 50), (20, 10), (5, 5)))
    way = Trajectory(
        (
            Step("", (), (Observation((first,), box=(100, 50, 200, 100), source=0),)),
            Step("", (), (Observation(error="outside"), Observation(("text", foreign)))),
            Step("", (), (Observation((second,), box=(50, 20, 70, 30), source=2),)),
            Step("", (), (Observation((foreign,), box=(0, 0, 1, 1), source=99),)),
            Step("", (), (Observation((foreign,), box=(0, 0, 50, 100), source=1),)),
        ),
        "red",
        "answered",
    )
    found = zoomed([scene, other], way)
    assert [(crop, at) for crop, at, _ in found] == [
        (first, 0), (foreign, 0), (second, 0), (foreign, 0), (foreign, 1),
    ]  # fmt: skip
    places = [place for _, _, place in found]
    assert places[0] == pytest.approx((0.25, 0.25, 0.5, 0.5))
    assert places[1] is None and places[3] is None
    assert places[2] == pytest.approx((150 / 400, 70 / 200, 170 / 400, 80 / 200))
    assert places[4] == pytest.approx((0, 0, 0.5, 1))
    assert zoomed([scene], None) == []


def test_a_page_of_very_many_queries_says_what_it_leaves_out(
    run: tuple[Path, Any, list[Card]], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, summary, items = run
    assert MOST_CARDS >= 500
    monkeypatch.setattr("speceyes.evaluation.report.MOST_CARDS", 3)
    page = Page()
    rows = rows_of(out)
    page.add(
        items[:5], [row for row in rows if row.result.query_id in {f"card-{i}" for i in range(5)}]
    )
    text = page.html(summary, 6.486)
    assert len(Reader(text).all("article")) == 3 and "The last 2 are left out" in text


@pytest.mark.parametrize("raw_threshold", [-math.inf, math.inf, -0.02, 6.486])
def test_page_stands_every_threshold(
    run: tuple[Path, Any, list[Card]], raw_threshold: float
) -> None:
    out, summary, items = run
    page = Page()
    page.add(items[:4], [row for row in rows_of(out) if row.result.query_id[5:] in "0123"])
    text = page.html(summary, raw_threshold)
    assert "nan" not in text.split("<main>")[1].split("data:image")[0].lower()
    assert "inf%" not in text and "nan%" not in text
    Reader(text)


def test_figures_are_sound_xml() -> None:
    from xml.etree import ElementTree

    full = {"queries": 7, "tools_needed": 2, "drafted": 5, "accepted": 4, "rejected": 1}
    interval = (0.9, 0.8, 0.95)
    arms = {f"{name} & <co>": ((12.0 * 3**i,) * 3, interval) for i, name in enumerate(ARMS)}
    curve = {"a & b": [(1.0, 0.02), (10.0, 3.0), (100.0, 0.5)]}
    for svg in (
        funnel(full),
        plots.scatter(arms, "queries a second", "accuracy", log_x=True),
        plots.scatter({"agent": ((12.0,) * 3, interval)}, "x", "y"),
        plots.density([9.0, math.inf], [3.0], 6.5, "S"),
        plots.density([2.0], [], -math.inf, "S"),
        plots.lines(curve, "rate", "s", dots=True, log_x=True, log_y=True, mark=(20.0, "<most>")),
        plots.lines({"x": [(0.0, 0.0)]}, "depth", "ms"),
        plots.stacked({"a": {"judge": 0.1, "agent": 0.4}, "b & c": {"agent": 1.0}}),
        plots.columns({"0": 3, "1": 1}, "calls", "queries"),
    ):
        root = ElementTree.fromstring(svg)
        numbers = [v for node in root.iter() for k, v in node.attrib.items() if k in ("x", "y")]
        assert all(math.isfinite(float(number)) for number in numbers)
        alone = ElementTree.fromstring(plots.standalone(svg))
        assert alone.tag == "{http://www.w3.org/2000/svg}svg" and "var(--c)" in (
            alone[0].text or ""
        )
    assert plots.density([], [], 6.5, "S") == ""


def test_widths_of_the_funnel_are_in_proportion() -> None:
    from xml.etree import ElementTree

    counts = {"queries": 100, "tools_needed": 40, "drafted": 60, "accepted": 45, "rejected": 15}
    root = ElementTree.fromstring(funnel(counts))
    widths = {
        str(rect[0].text): float(rect.attrib["width"]) for rect in root.iter("rect") if len(rect)
    }
    unit = widths["60 drafted"] / 60
    assert widths["45 accepted"] / unit == pytest.approx(45, abs=0.1)
    assert widths["15 rejected"] / unit == pytest.approx(15, abs=0.1)
    assert widths["55 by the agent"] / unit == pytest.approx(55, abs=0.1)


def test_the_funnel_over_itself_stands_beside_the_gains(tmp_path: Path) -> None:
    items = cards(48)
    summary = demo_of(items, out=tmp_path, again=True)(items, total=48)
    assert set(summary["arms"]) == {"agent", "agent_batched", "draft", "funnel"}
    value, low, high = summary["same_arm"]
    assert value > 0 and low is not None and high is not None
    assert "the funnel over itself, which is 1" in table(summary)
    rows = (tmp_path / "results.jsonl").read_text("utf-8").splitlines()
    assert len(rows) == 4 * 48  # only the time of the second turn is kept


def test_a_gain_lies_in_its_own_interval_whatever_the_clock_beside_it_says() -> None:
    walls = {"agent": 12.0, "agent_batched": 6.0, "draft": 1.0, "funnel": 6.0}
    random = np.random.default_rng(0)
    rounds = [
        {arm: wall / 8 * float(random.lognormal(0, 0.1)) for arm, wall in walls.items()}
        for _ in range(8)
    ]
    rounds[0]["agent"] *= 2  # the rounds took longer than the clock of the arms says
    found = summarise(by_hand(), walls, rounds)
    spent = sum(one["agent"] for one in rounds) / sum(one["funnel"] for one in rounds)
    assert found["measured_gain"] == pytest.approx(spent)
    assert found["measured_gain_low"] < spent < found["measured_gain_high"]


# --- trouble ---------------------------------------------------------------------------------


def test_an_interrupted_run_leaves_what_was_finished(tmp_path: Path) -> None:
    items = cards(48)  # a round of 32 and one of 16
    demo = demo_of(items, out=tmp_path)
    funnel, seen = demo.arms["funnel"], 0

    def stops(queries: Any) -> Any:
        nonlocal seen
        for result in funnel(queries):
            seen += 1
            if seen == 40:
                raise KeyboardInterrupt
            yield result

    demo.arms["funnel"] = stops
    with pytest.raises(KeyboardInterrupt):
        demo(items)
    summary = json.loads((tmp_path / SUMMARY).read_text("utf-8"))
    assert summary["interrupted"] is True
    assert summary["arms"]["funnel"]["n"] == 32
    assert sum(row.arm == "funnel" for row in rows_of(tmp_path)) == 39
    assert "interrupted" in (tmp_path / REPORT).read_text("utf-8")


def test_an_early_interruption_leaves_no_old_figures(tmp_path: Path) -> None:
    items = cards(8)
    demo_of(items, out=tmp_path)(items)
    demo = demo_of(items, out=tmp_path)
    agent = demo.arms["agent"]

    def stops(queries: Any) -> Any:
        for at, result in enumerate(agent(queries)):
            if at == 3:
                raise KeyboardInterrupt
            yield result

    demo.arms["agent"] = stops
    with pytest.raises(KeyboardInterrupt):
        demo(items)
    assert len(rows_of(tmp_path)) == 3
    assert not (tmp_path / SUMMARY).exists() and not (tmp_path / REPORT).exists()


def test_failures_are_wrong_answers_and_never_left_out(tmp_path: Path) -> None:
    items = cards(6)
    demo = demo_of(items, out=tmp_path)
    broken = AgenticFallback(ScriptedModel(RuntimeError("no memory")), tools=["zoom"], max_batch=1)
    demo.arms["agent"] = agent_arm(broken)
    summary = demo(items)
    assert (
        summary["arms"]["agent"] | {"accuracy": 0.0, "failed": 6, "n": 6}
        == (summary["arms"]["agent"])
    )
    failed = [row for row in rows_of(tmp_path) if row.arm == "agent"]
    assert all(row.result.error and row.result.route == "error" for row in failed)
    assert "no memory" in str(failed[0].result.error)


def test_draft_arm_passes_on_the_models_failure() -> None:
    def failing(queries: Any) -> list[Completion]:
        return [Completion.failed("out of paper") for _ in queries]

    query = Query("Which?", (Image.new("RGB", (32, 32)),), id="q")
    [result] = draft_arm(failing, 4)([query])  # type: ignore[arg-type]
    assert (result.route, result.answer, result.error) == ("error", None, "out of paper")


def test_items_must_be_there_and_have_ids_of_their_own(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no items"):
        demo_of([], out=tmp_path)([])
    one, two = cards(2)
    two.query = replace(two.query, id=one.query.id)
    with pytest.raises(InputError, match="used twice"):
        demo_of([one, two], out=tmp_path)([one, two])


def test_rows_that_are_none_are_refused() -> None:
    for line in ("", "{}", '{"arm": 1}', "[]", '{"arm":"agent","result":3}'):
        with pytest.raises(InputError):
            Row.from_json(line)


def test_bars_count_every_answer() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for file in (io.StringIO(), Terminal()):
        with Bars(ARMS, file, 2) as bars:
            for _ in range(2):
                for arm in ARMS:
                    bars.step(arm)
        shown = file.getvalue()
        assert ("8/8" in shown) != ("funnel" in shown)
        assert file.isatty() == (shown.count("2/2") >= len(ARMS))
