"""The benchmark runs every arm on the same queries and counts what each of them did."""

from __future__ import annotations

import json
import mmap
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speceyes import tiny
from speceyes.bench.arms import (
    AGENT,
    COMPILED,
    DRAFTS,
    FUNNEL,
    REFERENCE,
    STRATEGIES,
    Arm,
    arms,
)
from speceyes.bench.measure import (
    AGAIN,
    Measured,
    interval_note,
    markdown,
    measure,
    median_interval,
    once,
    over_itself,
    summarise,
)
from speceyes.bench.memory import Peak, scoring, scoring_table
from speceyes.bench.planned import PlannedModel, RoutePlan
from speceyes.bench.queries import check_room, estimate, fresh, photos
from speceyes.bench.sweep import Sweep, parse, run, table
from speceyes.bench.workloads import BundledWorkload, ShapedWorkload, chosen, points, shaped
from speceyes.cli import main
from speceyes.errors import ConfigError
from speceyes.evaluation.page import plain_page
from speceyes.gate import SeparabilityGate
from speceyes.models import HFModel
from speceyes.models.shapes import build, parameters, tokens_of
from speceyes.models.sizes import SHAPES
from speceyes.pipeline import ScheduleConfig
from speceyes.tiny.scenes import questions
from speceyes.types import Query, Result

SMALL_IMAGE = (160, 120)


@pytest.fixture(scope="module")
def ways() -> list[Arm]:
    large, small = (HFModel.from_pretrained(path) for path in (tiny.LARGE, tiny.SMALL))
    settings = tiny.settings()
    gate = SeparabilityGate(settings["threshold"], top_k=settings["top_k"])
    return arms(large, small, gate, tools=["zoom"], batch=8)


@pytest.fixture(scope="module")
def workload() -> ShapedWorkload:
    routes = RoutePlan(8, beta=0.75, alpha=0.5, depth=2, turn_tokens=20, draft_tokens=3)
    said: list[str] = []
    made = shaped(
        "tiny-small, tiny-large",
        routes,
        SMALL_IMAGE,
        device="cpu",
        dtype=None,
        batch=4,
        tell=said.append,
    )
    assert said[0].startswith("tiny-small: weights") and "free:" in said[-1]
    return made


@pytest.mark.parametrize(
    ("n", "warm_up"), [(None, 0), pytest.param(6, 2, marks=pytest.mark.exhaustive)]
)
def test_every_arm_answers_the_same_and_is_counted(
    ways: list[Arm], n: int | None, warm_up: int
) -> None:
    items = list(questions("heldout", n or 20))
    if n is None:  # one for the draft and one for the agent
        kinds = [item.kind for item in items]
        items = [items[kinds.index(kind)] for kind in ("large/colour", "card/same")]
    queries = [item.query for item in items]
    # Compiling takes half a minute; test_compiled.py holds compiled steps against plain ones.
    plain = [way for way in ways if way.name != COMPILED]
    assert len(plain) == len(ways) - 1
    found = measure(plain, queries, repeats=1, warm_up=warm_up)
    table = summarise(found, len(queries))
    again = FUNNEL + AGAIN
    assert list(table) == [*(way.name for way in plain), again]
    speed = found[again][0].seconds / found[FUNNEL][0].seconds
    assert over_itself(found) == (
        f"speceyes over itself (A/A), which is 1: {speed:.2f}x ({speed:.2f} to {speed:.2f})"
    )
    assert found[again][0].answers == found[FUNNEL][0].answers
    assert over_itself({name: found[name] for name in table if name != again}) is None
    assert [row["same"] for row in table.values()] == [1.0] * len(table)
    assert table[REFERENCE]["gain"] == [1.0, 1.0, 1.0]
    assert table[REFERENCE]["tokens_read"] == 0, "it isn't driven by tokens"
    ours, bare = table[FUNNEL], table["... nothing kept"]
    assert ours["tokens_reused"] > 0 == bare["tokens_reused"]
    assert ours["tokens_read"] + ours["tokens_reused"] == bare["tokens_read"]
    assert ours["tokens_decoded"] == bare["tokens_decoded"] > 0
    assert table["... drafts to their end"]["tokens_decoded"] >= ours["tokens_decoded"]
    assert 0 < ours["outside_forwards"] < 1
    assert ours["cpu_ms_per_query"] > 0
    assert ours["peak_bytes"] is None or ours["peak_bytes"] > 50 * 2**20
    text = markdown(table)
    assert all(f"| {name} |" in text for name in table)


def test_other_strategies_run_where_they_are_named(ways: list[Arm]) -> None:
    large, small = (HFModel.from_pretrained(path) for path in (tiny.LARGE, tiny.SMALL))
    bundled = BundledWorkload(large, small, SeparabilityGate(0.9, top_k=9)).ways(batch=8, n=4)
    assert not {way.name for way in chosen(bundled, None)}.intersection(STRATEGIES)
    named = chosen(bundled, ",".join(STRATEGIES))
    assert tuple(way.name for way in named) == STRATEGIES
    [agent] = [way for way in ways if way.name == AGENT]
    queries = [item.query for item in questions("heldout", 2)]
    table = summarise(measure([agent, *named], queries, repeats=1, warm_up=1), len(queries))
    assert all(table[name]["tokens_decoded"] > 0 for name in STRATEGIES)


def test_an_arm_starts_with_nothing_kept_and_leaves_nothing(ways: list[Arm]) -> None:
    [agent] = [way for way in ways if way.name == AGENT]
    queries = [item.query for item in questions("heldout", 3)]
    runs = measure([agent], queries, repeats=2, warm_up=1)[AGENT]
    assert runs[0].read == runs[1].read
    assert runs[0].reused == runs[1].reused
    [model] = agent.models
    assert isinstance(model, HFModel)
    assert model.kept_bytes == 0


def test_answers_are_compared_by_id_and_not_by_the_order_in_which_they_finish() -> None:
    def way(order: int) -> Arm:
        def answered(queries: Sequence[Query]) -> list[Result]:
            return [Result(q.id, q.question, "draft") for q in list(queries)[::order]]

        model = build("tiny-small", device="cpu")
        return Arm("any", answered, (model,))  # type: ignore[arg-type]

    queries = [item.query for item in questions("heldout", 3)]
    assert once(way(1), queries).answers == once(way(-1), queries).answers


def test_gains_are_ratios_within_a_repeat() -> None:
    def run(seconds: float, *answers: str) -> Measured:
        return Measured(seconds, seconds / 4, 30, 10, 5, 10, tuple((a, "draft") for a in answers))

    found = {
        REFERENCE: [run(8, "a", "b"), run(10, "a", "b"), run(30, "a", "b")],
        FUNNEL: [run(4, "a", "c"), run(2, "a", "c"), run(10, "a", "c")],
    }
    table = summarise(found, 2)
    assert table[FUNNEL]["gain"] == [3.0, 2.0, 5.0]
    assert table[FUNNEL]["against_agent"] is None
    assert table[FUNNEL]["ms_per_query"] == 2000
    assert table[FUNNEL]["same"] == 0.5
    assert table[FUNNEL]["outside_forwards"] == 0.75
    assert table[FUNNEL]["padding"] == 0.25
    assert table[FUNNEL]["peak_bytes"] is None
    del found[REFERENCE]
    assert summarise(found, 2)[FUNNEL]["same"] is None


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=40))
def test_the_interval_of_the_median_holds_it_and_says_its_coverage(values: list[float]) -> None:
    low, high, coverage = median_interval(values)
    assert low <= float(np.median(values)) <= high
    n = len(values)
    assert coverage >= 0.95 if n >= 6 else (low, high) == (min(values), max(values))
    if len(set(values)) == n >= 6:
        k = sorted(values).index(low)
        fewer = sum(_ways(n, i) for i in range(k + 1)) / 2**n
        assert coverage == pytest.approx(1 - 2 * fewer)
        assert 1 - 2 * (fewer + _ways(n, k + 1) / 2**n) < 0.95, "a narrower one would do"


def _ways(n: int, k: int) -> int:
    import math

    return math.comb(n, k)


def test_the_note_promises_an_interval_only_where_there_is_one() -> None:
    assert interval_note(1) == "one run each"
    assert "too few for an interval" in interval_note(5)
    assert "an interval of 97% for each" in interval_note(6)


def test_a_comma_too_many_asks_for_no_further_arm(ways: list[Arm]) -> None:
    name = ways[0].name
    assert chosen(ways, f"{name},") == chosen(ways, f" {name} , ,") == chosen(ways, name)
    with pytest.raises(ConfigError, match="names no arm"):
        chosen(ways, " , ")


def test_what_cannot_be_measured_is_refused(ways: list[Arm]) -> None:
    with pytest.raises(ConfigError, match="repeats=0, 1 queries"):
        measure(ways, [item.query for item in questions("heldout", 1)], repeats=0)
    with pytest.raises(ConfigError, match="0 queries"):
        measure(ways, [])


def test_the_peak_is_seen_though_it_is_over() -> None:
    with Peak("cpu") as peak:
        if peak.before is None:
            pytest.skip("this system doesn't tell a process's memory")
        block = mmap.mmap(-1, 64 << 20)  # new pages: malloc may hand out what is resident already
        block.write(b"1" * len(block))
        for _ in range(1000):  # 10 s, on a machine that has no time for the watcher
            if peak.most is not None and peak.most - peak.before > 48 << 20:
                break
            time.sleep(0.01)
        block.close()
    assert peak.most is not None
    assert peak.most - peak.before > 48 << 20
    assert not any(t.name == "speceyes-peak" for t in threading.enumerate())


@pytest.mark.exhaustive  # test_memory_grows_by_k_a_step_and_not_by_the_vocabulary, in test_hf.py
def test_scores_take_no_more_memory_with_a_larger_vocabulary() -> None:
    few, many = scoring([2048, 65536], rows=4, tokens=32)
    assert few.kept == many.kept == 4 * 32 * 64 * 4
    assert many.all_logits == 32 * few.all_logits
    if many.peak is not None and many.peak_keeping_all is not None:
        assert many.peak_keeping_all > many.all_logits / 2
        assert many.peak < many.all_logits / 2
    assert scoring_table([few, many]).count("\n") == 3
    with pytest.raises(ConfigError, match="vocabulary=10; the tokenizer has"):
        scoring([10])


@pytest.mark.parametrize(
    ("name", "weights"), [("qwen3-vl-2b", 2_127_532_032), ("qwen2.5-vl-7b", 8_292_166_656)]
)
def test_real_shapes_have_as_many_weights_as_the_real_models(name: str, weights: int) -> None:
    assert parameters(SHAPES[name]) == weights


def test_memory_is_told_before_it_is_taken() -> None:
    shape, routes = SHAPES["qwen2.5-vl-7b"], RoutePlan(16, depth=2)
    need = estimate("qwen2.5-vl-7b", shape, 8_292_166_656, routes, (2246, 1582), 2)
    assert need.weights == 2 * 8_292_166_656
    assert shape.image_tokens(2246, 1582) == round(2246 * 1582 / 28**2)
    # Keys and values alone: 28 layers, 4 heads of 128, two bytes each.
    assert need.row > need.tokens * 2 * 28 * 4 * 128 * 2
    lines = check_room([need], 40 << 30, 16)
    assert lines[0].startswith("qwen2.5-vl-7b: weights 15.4 GiB")
    with pytest.raises(
        ConfigError, match=r"weights 15.4 .* GiB are needed .* and 8.0 GiB are free"
    ):
        check_room([need], 8 << 30, 16)
    assert "not known" in check_room([need], None, 16)[-1]


@given(st.integers(1, 300), st.floats(0, 1, allow_nan=False), st.floats(0, 1, allow_nan=False))
@settings(max_examples=50)
def test_routes_have_the_shares_that_were_asked_for(n: int, beta: float, alpha: float) -> None:
    routes = RoutePlan(n, beta=beta, alpha=alpha)
    ways = [routes.way(i) for i in range(n)]
    drafted = n - ways.count("tools")
    assert drafted == round(n * beta)
    assert ways.count("accepted") == round(drafted * alpha)
    assert [routes.way(i) for i in range(n, 2 * n)] == ways


@pytest.mark.parametrize("wrong", [{"beta": 1.5}, {"alpha": -0.1}, {"depth": -1}, {"n": 0}])
def test_routes_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        RoutePlan(**{"n": 4, **wrong})  # type: ignore[arg-type]


def test_queries_go_the_ways_that_were_planned(workload: ShapedWorkload) -> None:
    """Judge, gate, dialect and tools are the real ones; each arm comes to the same ways."""
    from speceyes.answerer import SpeculativeAnswerer
    from speceyes.fallback import AgenticFallback
    from speceyes.judge import ToolJudge
    from speceyes.pipeline import SpecPipeline

    routes = RoutePlan(6, beta=0.67, alpha=0.5, depth=2, turn_tokens=20, draft_tokens=3)
    large, small = (PlannedModel(model, routes) for model in workload.models)
    pipe = SpecPipeline(
        judge=ToolJudge(large, tools=["zoom"]),
        answerer=SpeculativeAnswerer(small),
        gate=SeparabilityGate(0.98),
        fallback=AgenticFallback(large, tools=["zoom"], max_batch=2),
        schedule=ScheduleConfig(batch_size=4),
    )
    results = pipe(photos(6, SMALL_IMAGE))
    assert [r.error for r in results] == [None] * 6
    for number, result in enumerate(results):
        way = routes.way(number)
        assert result.judgement is not None
        assert result.judgement.needs_tools == (way == "tools")
        assert result.route == ("draft" if way == "accepted" else "agent")
        if way == "accepted":
            assert result.draft is not None and len(result.draft.token_ids) == 3
        else:
            assert result.trajectory is not None
            assert result.trajectory.depth == 2
            assert [step.tokens for step in result.trajectory.steps] == [20] * 3
            seen = [o for step in result.trajectory.steps for o in step.observations]
            assert all(o.error is None and o.images for o in seen)


def test_a_planned_turn_is_as_long_as_what_was_decoded(workload: ShapedWorkload) -> None:
    from speceyes.bench.planned import spoken_turn

    for turn in range(3):
        assert tokens_of(spoken_turn(turn, 2, 80, 112, 112, tokens_of)) == pytest.approx(80, abs=2)


def test_a_query_without_a_number_fails_alone(workload: ShapedWorkload) -> None:
    from speceyes.judge import ToolJudge

    judge = ToolJudge(PlannedModel(workload.models[0], RoutePlan(2, beta=1)), tools=["zoom"])
    [numbered] = photos(1, SMALL_IMAGE)
    bare = Query("What is that?", numbered.images)
    first, second = judge([bare, numbered])
    assert first.needs_tools and "no number" in first.reason
    assert not second.needs_tools and second.reason == ""


def test_no_two_queries_share_an_image_and_none_is_held() -> None:
    pool = [item.query for item in questions("heldout", 2)]
    made = list(fresh(pool, 5))
    assert len({q.images[0].tobytes() for q in made}) == len({q.id for q in made}) == 5
    assert [q.question for q in made] == [pool[i % 2].question for i in range(5)]
    endless = photos(10**9, SMALL_IMAGE)
    first, second = next(endless), next(endless)
    assert first.images[0].tobytes() != second.images[0].tobytes()
    assert first.images[0].size == SMALL_IMAGE


def test_a_random_model_never_ends_its_turn_by_itself(workload: ShapedWorkload) -> None:
    from speceyes.types import Conversation, Message, Sampling

    asked = [Conversation((Message("user", (q.images[0], "look")),)) for q in photos(4, (64, 64))]
    for model in (*workload.models, workload.models[0].reference()):
        said = model.generate(asked, Sampling(max_tokens=40, top_k=64))
        assert [(c.finish, len(c.token_ids)) for c in said] == [("length", 40)] * 4


def test_sweeps_are_read() -> None:
    assert parse("batch=1:2, accept-rate=0:0.5") == [
        Sweep("batch", (1, 2)),
        Sweep("accept-rate", (0.0, 0.5)),
    ]
    assert parse("queries")[0].values == (100, 500, 5000)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("speed", "'speed': there are batch"),
        ("batch,batch=2", "names batch twice"),
        ("batch=0", "a whole number, at least 1"),
        ("depth=-1", "a whole number, at least 0"),
        ("accept-rate=1.5", "a share, 0 to 1"),
        ("accept-rate=nan", "a share, 0 to 1"),
        ("queries=ten", "'ten' is not allowed"),
        ("batch=2:2", "comes twice"),
    ],
)
def test_sweeps_that_cannot_be_are_refused(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        parse(text)


def test_a_sweep_changes_what_it_says(workload: ShapedWorkload) -> None:
    made = points(workload, Sweep("depth", (0, 2)), batch=2, n=2, only=None)
    assert [[way.name for way in point.ways] for point in made] == [[AGENT, FUNNEL]] * 2
    told: list[str] = []
    found, failed = run(made, repeats=1, warm_up=0, step=told.append)
    assert not any(one.failed for one in failed)
    assert sorted(told) == sorted(f"{arm} at {v}" for arm in (AGENT, FUNNEL) for v in (0, 2))
    # Each query of the agent decodes 20 tokens a turn.
    assert found[0][AGENT]["tokens_decoded"] == 2 * 20
    assert found[2][AGENT]["tokens_decoded"] == 2 * 3 * 20
    text = table("depth", found)
    assert text.startswith("| depth | agent, batched, ms a query |") and "cheapest" in text


def test_drafts_can_be_swept_alone(workload: ShapedWorkload) -> None:
    made = points(workload, Sweep("batch", (1, 4)), batch=2, n=4, only="drafts alone")
    found, _ = run(made, warm_up=0)
    assert [row[DRAFTS]["tokens_decoded"] for row in found.values()] == [12, 12]
    [accepting] = points(workload, Sweep("accept-rate", (1.0,)), batch=4, n=4, only="speceyes")
    assert {route for _, route in once(accepting.ways[0], accepting.queries()).answers} == {
        "draft",
        "agent",
    }


def test_a_page_shows_pictures_with_their_tables() -> None:
    page = plain_page("t", "a & b", [("h", "<svg></svg>", "| <x> |")])
    assert "a &amp; b" in page and "| &lt;x&gt; |" in page and "{{" not in page


def test_the_command_prints_a_table_and_writes_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "bench.json"
    words = "bench --queries 3 --repeats 1 --arms speceyes,reference --out".split()
    code = main([*words, str(out)])
    printed = capsys.readouterr().out
    assert code == 0
    assert "| reference schedule |" in printed and "| speceyes |" in printed
    written = json.loads(out.read_text("utf-8"))
    assert set(written["arms"]) == {REFERENCE, FUNNEL, FUNNEL + AGAIN}
    assert written["about"]["queries"] == 3
    assert main(["bench", "--arms", "nothing of the kind"]) == 2
    assert "names no arm" in capsys.readouterr().err
    assert main(["bench", "--queries", "0"]) == 2
    assert "--queries must be at least 1" in capsys.readouterr().err


def test_the_command_fills_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "bench"
    words = (
        "bench --shapes tiny-small,tiny-large --sweep accept-rate=0:1,queries=1:2 --queries 1 "
        "--repeats 1 --arms speceyes --depth 1 --turn-tokens 4 --image 160x120 --device cpu --out"
    ).split()
    assert main([*words, str(out)]) == 0
    printed = capsys.readouterr()
    assert "tiny-large: weights" in printed.err
    assert {path.name for path in out.iterdir()} == {
        "bench.json",
        "bench.md",
        "bench.html",
        "sweep-accept-rate.svg",
        "sweep-queries.svg",
    }
    written = json.loads((out / "bench.json").read_text("utf-8"))
    assert set(written["sweeps"]["accept-rate"]) == {"0", "1"}
    assert "random weights (tiny-small,tiny-large" in written["about"]["models"]
    assert "| accept-rate |" in (out / "bench.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("--shapes tiny-small", "name two: small,large"),
        ("--shapes tiny-small,giant", "shape 'giant' is not known; there are qwen3-vl-2b"),
        ("--shapes tiny-small,tiny-large --image 12", "must be like 2246x1582"),
        ("--shapes tiny-small,tiny-large --dtype auto", "random weights need one"),
        ("--shapes tiny-small,tiny-large --beta 2", "beta=2.0; it must be a share"),
        ("--sweep pace", "'pace': there are batch"),
    ],
)
def test_the_command_says_what_is_wrong(
    words: str, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *words.split()]) == 2
    assert problem in capsys.readouterr().err
