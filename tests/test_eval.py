"""A whole evaluation on scripted models: what is written, what survives, and what is reported."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from speceyes import SeparabilityGate
from speceyes.calibration import Calibration
from speceyes.cli import main
from speceyes.errors import ConfigError, InputError
from speceyes.evaluation import ablations, arms, benchmarks, manifest, paper_table
from speceyes.evaluation.analysis import figures
from speceyes.evaluation.calibrate_run import bad_drafts, measured, scoring_of
from speceyes.evaluation.context import threshold_name
from speceyes.evaluation.eval_page import page
from speceyes.evaluation.eval_progress import Progress
from speceyes.evaluation.eval_report import brief, markdown, to_csv
from speceyes.evaluation.evaluate import Plan, evaluate
from speceyes.evaluation.harness import Phase, decoder
from speceyes.evaluation.intervals import (
    aurc_interval,
    auroc_interval,
    risk_coverage,
)
from speceyes.evaluation.rivals import OnePass
from speceyes.evaluation.rivals import sentences as rival_sentences
from speceyes.evaluation.rounds import ratio
from speceyes.evaluation.runs import CALIBRATION, RECORDS, TEST, Record, Run, Writer, read
from speceyes.evaluation.statistics import wilson_interval
from speceyes.evaluation.sweep import (
    LOSS,
    Recorded,
    cascade_of,
    choose,
    chosen_thresholds,
    costs,
    recorded,
)
from speceyes.evaluation.turn import order_of
from speceyes.evaluation.verdict import verdict
from speceyes.images.pixel_cache import pixel_key
from speceyes.models import ScriptedModel
from speceyes.scoring.ranking import auroc
from speceyes.strategies.cascade import drafter_of
from speceyes.types import Query
from support.demo_models import cards
from support.eval_models import COUNT, RUNG, context_of, fixed_of, run_in
from support.processes import started, until

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_in(tmp_path_factory.mktemp("eval") / "run")


@pytest.fixture(scope="module")
def found(run: Run) -> dict[str, Any]:
    return figures(run)


def timeless(run: Run) -> list[Any]:
    """The records without seconds, in the order in which they were written."""
    kept = []
    for record in run.records:
        data = json.loads(record.to_json())
        del data["seconds"], data["result"]["timings"]
        kept.append(data)
    return kept


def without_time(run: Run) -> str:
    """All figures that don't depend on the clock."""
    found = {k: v for k, v in figures(run).items() if k != "time"}
    return json.dumps(found, sort_keys=True)


# What is written.


def test_every_arm_answers_the_same_queries_and_no_image_is_in_both_splits(run: Run) -> None:
    arms_run = ("agent", "draft", "min", "log")
    ids = [{r.result.query_id for r in run.of(TEST, arm)} for arm in arms_run]
    assert all(one == ids[0] for one in ids)
    learnt = {r.result.query_id for r in run.of(CALIBRATION, "agent")}
    assert not learnt & ids[0]
    assert len(learnt) + len(ids[0]) == COUNT
    assert len(run.records) == 2 * len(learnt) + 4 * len(ids[0]) + 2 * len(ids[0])


def test_records_come_back_as_they_were_written(run: Run) -> None:
    again = read(run.folder)
    assert [r.to_json() for r in again.records] == [r.to_json() for r in run.records]
    assert again.blocks == run.blocks
    assert read(str(run.folder)).folder == again.folder  # as `read(folder)` on the pages is typed


def test_a_run_as_a_table(run: Run, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    run.to_parquet(tmp_path / "run.parquet")
    rows = parquet.read_table(tmp_path / "run.parquet").to_pylist()
    assert rows == run.rows()
    assert len(rows) == len(run.records)
    accepted = [
        r for r in rows if r["phase"] == TEST and r["arm"] == "min" and r["route"] == "draft"
    ]
    assert accepted and all(r["draft"] and r["score"] > 0 for r in accepted)
    try:
        import pandas  # noqa: F401
    except ImportError:
        with pytest.raises(ConfigError, match="pip install pandas"):
            run.frame()
    else:
        assert len(run.frame()) == len(rows)


def test_the_command_writes_answers_as_tables(run: Run, tmp_path: Path) -> None:
    assert main(["report", str(run.folder), "--out", str(tmp_path), "--to", "csv"]) == 0
    with (tmp_path / "answers.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["arm"], r["query_id"], r["answer"]) for r in rows] == [
        (r.arm, r.result.query_id, r.result.answer or "") for r in run.records
    ]
    assert {r["run"] for r in rows} == {run.folder.name}
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    assert main(["report", str(run.folder), "--out", str(tmp_path), "--to", "parquet"]) == 0
    assert parquet.read_table(tmp_path / "answers.parquet").num_rows == len(run.records)


def test_a_failed_query_is_wrong_in_the_agents_arm_and_listed(
    run: Run, found: dict[str, Any]
) -> None:
    failed = [r for r in run.of(TEST, "agent") if r.result.answer is None]
    n = len(run.of(TEST, "agent"))
    assert found["arms"]["agent"]["n"] == n
    assert found["arms"]["agent"]["failed"] == len(failed)
    assert [f[0] for f in found["failed"] if f[1] == "agent"] == [r.result.query_id for r in failed]
    assert not any(r.correct for r in failed)
    everywhere = [*run.of(TEST, "agent"), *run.of(CALIBRATION, "agent")]
    assert sum(r.result.answer is None for r in everywhere) == 1


def test_drafts_are_recorded_with_128_columns_and_judged_off_the_clock(run: Run) -> None:
    for record in run.of(TEST, "draft"):
        assert record.result.draft is not None
        assert record.result.draft.top_logprobs.shape[1] == 128
        assert set(record.judged) == {"large"}
    assert all(
        r.result.draft is None or r.result.draft.top_logprobs.size == 0 for r in run.of(TEST, "min")
    )


def test_costs_of_an_arm_sum_to_its_wall_clock(run: Run) -> None:
    walls = sum(b.wall for b in run.blocks if (b.phase, b.arm) == (TEST, "min"))
    assert sum(costs(run.of(TEST, "min"), run.blocks).values()) == pytest.approx(walls)


def test_arms_take_turns_in_another_order_each_round(run: Run) -> None:
    orders = {}
    for block in run.blocks:
        if block.phase == TEST:
            orders.setdefault(block.round, []).append(block.arm)
    for number, taken in orders.items():
        assert taken == list(order_of(["agent", "draft", "min", "log", "again"], number))
    assert {orders[number][0] for number in range(5)} == {*taken}


def test_an_arm_over_itself_stands_in_every_report(run: Run, found: dict[str, Any]) -> None:
    walls = {
        arm: [
            b.wall for b in sorted(run.blocks, key=lambda b: b.round) if b.key[::2] == (TEST, arm)
        ]
        for arm in ("min", "again")
    }
    same = found["time"]["same_arm"]
    assert same["arm"] == "min" and same["speed"] == ratio(walls["min"], walls["again"])
    line = f"{arms.arm('min').title.capitalize()} over itself (A/A), which is 1: "
    assert line in brief(run) and line in markdown([(run, found)])
    alone = replace(run, blocks=tuple(b for b in run.blocks if b.n))
    assert figures(alone)["time"]["same_arm"] is None and "A/A" not in brief(alone)


def test_a_run_of_few_queries_is_cut_into_ten_rounds_and_notes_what_each_took(run: Run) -> None:
    blocks = [b for b in run.blocks if b.phase == TEST]
    assert len({b.round for b in blocks}) >= 10
    for block in blocks:
        assert block.cpu is not None and block.cpu >= 0
        assert block.others is None or 0 <= block.others <= 1
    assert read(run.folder).blocks == run.blocks


def test_the_verdict_comes_first_and_tells_what_was_accepted_and_wrong(
    run: Run, found: dict[str, Any]
) -> None:
    rows = run.of(TEST, "min")
    accepted = [r for r in rows if r.result.route == "draft"]
    wrong = sum(not r.correct for r in accepted)
    assert found["routes"]["min"]["wrong"] == wrong
    first = " ".join(brief(run).split())
    assert first.startswith(f"Of {len(rows)} questions the funnel (min) answered {len(accepted)}")
    assert f"; {wrong} of these" in first
    text = markdown([(run, found)])
    assert text.index("questions the funnel (min)") < text.index("Thresholds chosen")
    assert "class='verdict'" in page([(run, found)])


def told(gain: Any, *, accepted: int = 10, only_agent: int = 0, others: float = 0.0) -> str:
    cell = {"n": 40, "accuracy": 0.9, "low": 0.8, "high": 0.95}
    arm = {"gain": gain, "others": others}
    p = 0.01 if only_agent > 5 else 1.0
    return " ".join(
        verdict(
            {
                "arms": {"agent": cell, "min": cell},
                "routes": {"min": {"accepted": accepted, "wrong": 1}},
                "tests": {"min": {"only_agent": only_agent, "only_arm": 0, "p": p}},
                "time": {"arms": {"min": arm}, "rounds": 12},
            }
        )
    )


def test_the_verdict_advises_by_what_was_shown() -> None:
    assert "accepts nothing" in told((0.8, 0.7, 0.9), accepted=0)
    assert "slower than the agent: leave it off" in told((0.8, 0.7, 0.9))
    assert "No gain is shown: leave it off" in told((1.1, 0.9, 1.3))
    assert "use it" in told((1.5, 1.3, 1.7))
    assert "faster and less accurate" in told((1.5, 1.3, 1.7), only_agent=9)
    assert "Too little was measured" in told((1.5, None, None))
    assert "disturbed" in told((1.5, 1.3, 1.7), others=0.4)
    assert "disturbed" not in told((1.5, 1.3, 1.7), others=0.05)


def test_arms_one_by_one_and_without_tools(tmp_path: Path) -> None:
    names = ("min", "agent-one", "min-one", "agent-no-tools")
    run = run_in(tmp_path / "run", n=24, names=names, sweep_batch=())
    found = figures(run)
    one = found["time"]["one_by_one"]
    assert one["measured"][0] > 0 and one["predicted"] > 0
    for row in run.of(TEST, "agent-no-tools"):
        way = row.result.trajectory
        assert way is not None and way.depth == 0 and len(way.steps) <= 1
    tools = found["tools"]
    counts = [tools[k] for k in ("both", "only_with", "only_without", "neither")]
    assert sum(counts) == found["n"]
    with_tools = {r.result.query_id for r in run.of(TEST, "agent") if r.correct}
    without = {r.result.query_id for r in run.of(TEST, "agent-no-tools") if r.correct}
    assert tools["only_with"] == len(with_tools - without)
    assert tools["both"] == len(with_tools & without)
    text = markdown([(run, found)])
    assert "only with tools" in text and "One by one, the funnel over the agent" in text


def test_the_papers_schedule_is_held_against_the_papers_agent(tmp_path: Path) -> None:
    names = arms.chosen(["min", "min-paper"])
    assert set(names) == {"agent", "draft", "agent-paper", "min", "min-paper"}
    run = run_in(tmp_path / "run", n=16, names=names[2:], sweep_batch=())
    timed = figures(run)["time"]["arms"]
    seconds = {a: timed[a]["per_query_s"] for a in timed}
    for name in names[2:]:
        base = "agent-paper" if name.endswith("-paper") else "agent"
        assert timed[name]["gain"][0] == pytest.approx(seconds[base] / seconds[name], rel=1e-6)
    assert timed["agent-paper"]["gain"][0] == pytest.approx(1.0)
    answers = {a: {r.result.query_id: r.result.answer for r in run.of(TEST, a)} for a in names}
    assert answers["agent-paper"] == answers["agent"] and answers["min-paper"] == answers["min"]
    assert "funnel, the paper's schedule is held" in markdown([(run, figures(run))]).lower()


def test_ablations_take_a_small_judge_that_has_learned_to_judge(tmp_path: Path) -> None:
    words = ["--limit", "2", "--calibration-share", "0", "--threshold", "0.9", "--quiet"]
    more = [
        "--arms",
        "min",
        "--sweep-batch",
        "1",
        "--sweep-limit",
        "1",
        "--out",
        str(tmp_path / "r"),
    ]
    assert main(["eval", "scenes", *words, *more, "--ablations"]) == 0
    assert {"judge.svg", "batch.svg"} <= {p.name for p in (tmp_path / "r" / "ablations").iterdir()}
    done = read(tmp_path / "r")
    assert "small_judge" in done.fixed["models"]["small"]["name"]
    assert len(done.of(TEST, "min-small-judge")) == len(done.of(TEST, "min")) == 2


def test_ablations_are_drawn(run: Run, found: dict[str, Any], tmp_path: Path) -> None:
    drawn = {one.name for one in ablations.ablations(found)}
    files = ablations.write(found, tmp_path / "pictures")
    assert {file.stem for file in files} == drawn
    assert {"threshold-accuracy", "threshold-gain", "k-accuracy", "k-gain"} <= drawn
    assert ("batch" in drawn) == bool(found["time"]["batches"])
    judged = [a for a in ablations.JUDGES if a in found["arms"]]
    assert ("judge" in drawn) == (len(judged) > 1)
    assert all(file.read_text(encoding="utf-8").startswith("<svg") for file in files)


def test_a_one_pass_model_as_a_rival(tmp_path: Path) -> None:
    """The rival knows every card, so that the funnel isn't worth its time beside it."""
    by_pixels = {pixel_key(item.query.images[0]): item.answer for item in cards(24)}

    def knows(conversation: Any, _: Any) -> str:
        return f"<think>Let me see.</think>It is {by_pixels[pixel_key(conversation.images[0])]}."

    good, bad = "org/Sees-All-8B", "http://localhost:8000/v1#guess"
    rivals = {
        good: ScriptedModel(knows, name=good),
        bad: ScriptedModel({"": "puce"}, name=bad),
    }
    names = ("min", *(f"one-pass={name}" for name in rivals))
    run = run_in(tmp_path / "run", n=24, names=names, sweep_batch=(), rivals=rivals)
    found = figures(run)
    assert found["arms"][f"one-pass={good}"]["accuracy"] == 1
    assert found["arms"][f"one-pass={bad}"]["accuracy"] == 0
    for name, pair in found["rivals"].items():
        right = {a: {r.result.query_id for r in run.of(TEST, a) if r.correct} for a in names}
        assert pair["only_funnel"] == len(right["min"] - right[name])
        assert pair["only_rival"] == len(right[name] - right["min"])
        assert found["time"]["rivals"][name][0] > 0
    told = "\n".join(verdict(found))
    assert "Beside Sees-All-8B, which answers in one pass" in told
    assert "Beside guess, which answers in one pass" in told
    assert "more accurate" in told.split("Beside guess")[1]
    text = markdown([(run, found)])
    assert "one pass, Sees-All-8B" in text and "one pass, guess" in text
    assert "Sees-All-8B" in page([(run, found)])


@pytest.mark.parametrize(
    ("only_funnel", "only_rival", "p", "gain", "says"),
    [
        (30, 2, 0.001, (2.0, 1.5, 2.5), "more accurate and faster: it is worth it"),
        (30, 2, 0.001, (0.5, 0.4, 0.6), "more accurate and slower: it is worth it"),
        (2, 30, 0.001, (0.5, 0.4, 0.6), "take the model"),
        (2, 30, 0.001, (2.0, 1.5, 2.5), "choose by what counts more"),
        (5, 5, 1.0, (2.0, 1.5, 2.5), "funnel is faster: it is worth it"),
        (5, 5, 1.0, (0.5, 0.4, 0.6), "this model is faster: take the model"),
        (5, 5, 1.0, (1.0, None, None), "the model alone is simpler"),
        (5, 5, 1.0, None, "the model alone is simpler"),
    ],
)
def test_advice_beside_a_rival(
    only_funnel: int, only_rival: int, p: float, gain: Any, says: str
) -> None:
    arm = "one-pass=x"
    pair = {"funnel": "min", "only_funnel": only_funnel, "only_rival": only_rival, "p": p}
    cells = {"min": {"accuracy": 0.9}, arm: {"accuracy": 0.8}}
    found = {"rivals": {arm: pair}, "arms": cells, "time": {"rivals": {arm: gain}}}
    [line] = rival_sentences(found)
    assert says in line


def test_one_pass_without_a_model_is_refused() -> None:
    with pytest.raises(ConfigError, match="names no model"):
        arms.arm("one-pass=")
    with pytest.raises(ConfigError, match="no model was loaded"):
        arms.arm("one-pass=x").build(context_of(cards(4)))


def test_a_rival_that_thinks_on_fails_its_own_query_alone() -> None:
    def answer(conversation: Any, _: Any) -> Any:
        return RuntimeError("down") if "two" in conversation.messages[-1].text else "red"

    image = Image.new("RGB", (8, 8))
    queries = [Query(text, (image,), id=text) for text in ("one", "two", "three")]
    found = list(OnePass(ScriptedModel(answer), batch_size=2).stream(queries))
    assert [r.answer for r in found] == ["red", None, "red"]
    assert found[1].route == "error" and "down" in (found[1].error or "")


def test_the_manifest_names_versions_hardware_code_and_arguments(run: Run) -> None:
    about = manifest.read(run.folder / "manifest.json")
    (session,) = about["sessions"]
    assert {"torch", "numpy", "python"} <= set(session["versions"])
    assert session["hardware"]["cpus"] == os.cpu_count()
    assert len(session["code"]["source_sha256"]) == 16
    assert about["fixed"]["plan"]["seed"] == 0


def test_model_files_are_hashed(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "notes.md").write_text("left out")
    assert manifest.model_files(str(tmp_path)) == {
        "model.safetensors": hashlib.sha256(b"weights").hexdigest()
    }


def test_an_image_that_is_gone_when_its_turn_comes_is_wrong_in_every_arm(tmp_path: Path) -> None:
    items = cards(12)
    benchmarks.write("jsonl", items, tmp_path / "data")
    samples = benchmarks.load(tmp_path / "data").samples
    plan = Plan(arms.chosen(("min",)), batch_size=2, calibration_share=0.0, threshold=0.98)
    context = context_of(items)
    (path,) = samples.entries[5].sources
    assert isinstance(path, Path)
    path.unlink()
    fixed = fixed_of(context, plan, 12)
    run = evaluate(samples, context, plan, folder=tmp_path / "run", fixed=fixed)
    found = figures(run)
    for arm in ("agent", "draft", "min"):
        assert len(run.of(TEST, arm)) == 12
        (gone,) = [r for r in run.of(TEST, arm) if r.result.query_id == samples.entries[5].id]
        assert not gone.correct
        assert "can't be decoded" in (gone.result.error or "")
        assert gone.gold == samples.entries[5].answer
        assert [samples.entries[5].id, arm, gone.result.error] in found["failed"]
    assert found["calibration_n"] == 0
    assert "can't be decoded" in markdown([(run, found)])


def test_parity_sends_the_published_prompt_and_grades_by_the_options() -> None:
    query = Query("Which?", cards(1)[0].query.images, ("red", "blue"), id="q")
    item = SimpleNamespace(
        query=query, answer="red", kind="k", benchmark="vstar", parity_prompt="As published."
    )
    context = replace(context_of(cards(1)), bare=True)
    asked = decoder(Phase(TEST, [item], ("agent",), context))(0)
    assert asked.query is not None
    assert asked.query.text == "As published."
    assert asked.choices == ("red", "blue")
    assert context.answerer(8).conversation(asked.query).messages[-1].text == "As published.\n"
    assert context.answerer(8).prompt_hash != context_of(cards(1)).answerer(8).prompt_hash


# What survives.


def test_a_run_that_is_whole_runs_nothing_again(run: Run, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run.folder, copy)
    shutil.copytree(run.folder.parent / f"cards-{COUNT}", tmp_path / f"cards-{COUNT}")
    before = (copy / RECORDS).read_bytes()
    run_in(copy)
    assert (copy / RECORDS).read_bytes() == before
    assert len(manifest.read(copy / "manifest.json")["sessions"]) == 2


@pytest.mark.parametrize("cuts", [2, pytest.param(8, marks=pytest.mark.exhaustive)])
def test_a_run_cut_anywhere_goes_on_to_the_same_records(
    run: Run, tmp_path: Path, cuts: int
) -> None:
    whole, rng = (run.folder / RECORDS).read_bytes(), random.Random(3)
    expected, reported = sorted(json.dumps(r) for r in timeless(run)), without_time(run)
    shutil.copytree(run.folder.parent / f"cards-{COUNT}", tmp_path / f"cards-{COUNT}")
    for number in range(cuts):
        folder = tmp_path / f"cut-{number}"
        shutil.copytree(run.folder, folder)
        end = rng.randrange(len(whole))
        (folder / RECORDS).write_bytes(whole[:end] + b'{"torn' * (number % 2))
        again = run_in(folder)
        assert sorted(json.dumps(r) for r in timeless(again)) == expected
        assert without_time(again) == reported
        assert len(list(again.pictures())) == len(run.of(TEST, "agent"))


def test_another_plan_is_refused_and_says_what_differs(run: Run) -> None:
    with pytest.raises(ConfigError, match=r"plan\.seed was 0, is 1"):
        run_in(run.folder, seed=1)
    with pytest.raises(ConfigError, match=r"plan\.arms was .*'log'"):
        run_in(run.folder, names=("min",))


def test_two_writers_cannot_have_one_folder(run: Run, tmp_path: Path) -> None:
    with Writer(tmp_path, {"a": 1}):
        with pytest.raises(ConfigError, match="another run writes"):
            Writer(tmp_path, {"a": 1})
        code = (
            "from speceyes.evaluation.runs import Writer; from pathlib import Path; import sys\n"
            "try: Writer(Path(sys.argv[1]), {'a': 1})\n"
            "except ValueError as e: print(e)"
        )
        said = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
        )
        assert "another run writes" in said.stdout
    with Writer(tmp_path, {"a": 1}) as writer:
        assert writer.resumed


def test_records_without_a_manifest_are_not_written_over(tmp_path: Path) -> None:
    (tmp_path / RECORDS).write_text("mine\n")
    with pytest.raises(ConfigError, match="without manifest"):
        Writer(tmp_path, {})
    assert (tmp_path / RECORDS).read_text() == "mine\n"


@pytest.mark.skipif(os.name != "posix", reason="forks")
@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.exhaustive)])
def test_kills_leave_the_report_of_an_unbroken_run(run: Run, tmp_path: Path, kills: int) -> None:
    folder, rng, ends = tmp_path / "killed", random.Random(11), []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(HERE / "support" / "eval_models.py"), str(folder), "0.01"]
    records = folder / RECORDS
    pipe = subprocess.PIPE
    with started(*command, env=environment, stdin=pipe, stdout=pipe, bufsize=1) as launcher:

        def begin() -> int:
            launcher.stdin.write("go\n")
            return int(launcher.stdout.readline())

        for _ in range(kills):
            before = records.stat().st_size if records.exists() else 0
            child = begin()
            until(lambda before=before: records.exists() and records.stat().st_size > before)
            time.sleep(rng.uniform(0, 0.12))
            os.kill(child, signal.SIGKILL)
            ends.append(int(launcher.stdout.readline()))
        begin()
        ends.append(int(launcher.stdout.readline()))
    assert ends == [-signal.SIGKILL] * kills + [0]
    again = read(folder)
    assert timeless(again) == timeless(run)
    assert without_time(again) == without_time(run)
    assert len(again.manifest["sessions"]) == kills + 1


# What is reported.


def test_the_threshold_is_chosen_on_the_calibration_split_alone(run: Run) -> None:
    learnt = recorded(run, CALIBRATION)
    assert chosen_thresholds(run)["min"] == choose(learnt, "min", 64)
    accepted = learnt.accepted("min", 64, choose(learnt, "min", 64))
    assert accepted.any()
    lost = learnt.agent_right[accepted].sum() - learnt.right[accepted].sum()
    assert lost <= LOSS * len(learnt)


@pytest.mark.parametrize("n", [60, 400])
def test_other_queries_lose_no_more_than_was_to_be_lost(n: int) -> None:
    """Over many draws: a threshold picked among n queries holds for others in expectation."""
    rng, target, m = np.random.default_rng(3), 0.02, 500
    spread, lost = [], []
    for _ in range(150):
        # The likelier the first of four tokens, the likelier the draft is right.
        sure = rng.uniform(0.5, 0.999, n + m)
        right = rng.random(n + m) < 0.55 + 0.45 * (sure - 0.5) / 0.5
        known = rng.random(n + m) < 0.97
        rest = (1 - sure)[:, None] * [0.6, 0.3, 0.1]
        tops = np.log(np.column_stack([sure, rest])).astype(np.float32)

        def part(
            at: slice,
            tops: Any = tops,
            right: Any = right,
            known: Any = known,
        ) -> Recorded:
            size = len(right[at])
            return Recorded(
                ids=tuple(map(str, range(size))),
                kinds=("a",) * size,
                logprobs=tuple(one[None] for one in tops[at]),
                right=right[at],
                agent_right=known[at],
                differs=~right[at],
                through={"none": np.ones(size, bool)},
                agent_s=np.ones(size),
            )

        threshold = choose(part(slice(n)), "min", 4, target, "none")
        others = part(slice(n, None))
        taken = others.accepted("min", 4, threshold, "none")
        lost.append((others.agent_right[taken].sum() - others.right[taken].sum()) / m)
        spread.append(taken.mean())
    assert np.mean(spread) > 0.02
    assert np.mean(lost) <= max(target, 1 / (n + 1)) + 2 * np.std(lost) / np.sqrt(len(lost))


def test_each_judge_has_a_threshold_of_its_own(run: Run) -> None:
    learnt, found = recorded(run, CALIBRATION), chosen_thresholds(run)
    for judge in set(learnt.through) - {"large"}:
        own = found[f"min/{judge}"]
        assert own == choose(learnt, "min", 64, judge=judge)
        taken = learnt.accepted("min", 64, own, judge)
        lost = learnt.agent_right[taken].sum() - learnt.right[taken].sum()
        assert lost <= LOSS * len(learnt)
    assert "min/none" in found
    assert threshold_name("min", "none", found) == "min/none"
    assert threshold_name("min", "large", found) == "min"


def test_drafts_with_depth_and_cascades_have_thresholds_of_their_own(tmp_path: Path) -> None:
    names = (arms.DEEP, "deep", "cascade")
    run = run_in(tmp_path / "run", n=120, batch_size=16, sweep_batch=(), names=names)
    assert "deep" in chosen_thresholds(run)
    for name in ("deep", "cascade"):
        rows = run.of(TEST, name)
        assert len(rows) == len(run.of(TEST, "agent"))
        assert all(r.correct for r in rows if r.result.route == "draft")
    # Only a look tells these apart from guesses.
    assert any(r.kind == "small" and r.result.route == "draft" for r in run.of(TEST, "deep"))
    whole = [r.result.draft for r in run.of(TEST, arms.DEEP)]
    assert all(draft.top_logprobs.shape[1] == 128 for draft in whole if draft)
    assert set(figures(run)["arms"]) == {"agent", "draft", *names}


def test_one_pass_and_ladder_have_thresholds_of_their_own(tmp_path: Path) -> None:
    names = ("min-one-pass", "min-ladder")
    run = run_in(tmp_path / "run", n=120, batch_size=16, sweep_batch=(), names=names, rung=RUNG)
    found = chosen_thresholds(run)
    assert {"min/draft", "ladder", "min/none"} <= set(found)
    agent = {r.result.query_id: r.correct for r in run.of(TEST, "agent")}
    for name in names:
        rows = run.of(TEST, name)
        assert len(rows) == len(agent)
        lost = sum(agent[r.result.query_id] - r.correct for r in rows)
        assert lost <= 2 * LOSS * len(rows)
        assert {r.result.route for r in rows} >= {"draft", "agent"}
    # What can't be read asks for a closer look, and is the agent's without having met a gate.
    for row in run.of(TEST, "min-one-pass"):
        judged = row.result.judgement
        assert judged is not None and judged.needs_tools == (row.kind == "small")
        assert (row.result.verdict is None) == judged.needs_tools
    rungs = {drafter_of(r.result) for r in run.of(TEST, "min-ladder")}
    assert {0, None} <= rungs
    assert set(figures(run)["arms"]) == {"agent", "draft", *names}


def test_a_ladder_without_a_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="rung-pixels"):
        run_in(tmp_path / "run", names=("min-ladder",))


@pytest.mark.exhaustive  # test_cascade.py holds the choice itself, on drafts that it makes up
def test_a_cascade_leaves_out_who_costs_more_than_the_agent(tmp_path: Path) -> None:
    run = run_in(tmp_path / "run", n=640, batch_size=32, sweep_batch=(), names=(arms.DEEP,))
    through = {"large": np.ones(len(recorded(run, TEST)), bool)}
    drafters = [
        replace(one, through=through, agent_s=np.ones(len(one)))
        for one in (recorded(run, TEST), recorded(run, TEST, arms.DEEP))
    ]
    for draft_s, left in (((0.01, 0.1), 2), ((0.01, 5.0), 1), ((9.0, 9.0), 0)):
        chosen = cascade_of(drafters, draft_s, 64)
        assert sum(raw is not None for raw in chosen.setting) == left
        assert chosen.bad == 0 and chosen.cost <= 1


def test_arms_with_thresholds_of_their_own_need_a_calibration_split(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give --calibration-share"):
        run_in(tmp_path / "run", names=("deep",), calibration_share=0.0, threshold=0.9)


def test_regated_drafts_take_the_routes_that_the_arm_took(found: dict[str, Any]) -> None:
    for again in found["regated"].values():
        assert again["same"] == again["n"] > 0


def test_choose_gives_one_where_no_threshold_keeps_the_accuracy(run: Run) -> None:
    learnt = recorded(run, CALIBRATION)
    worst = type(learnt)(
        learnt.ids,
        learnt.kinds,
        learnt.logprobs,
        ~np.ones(len(learnt), bool),
        np.ones(len(learnt), bool),
        learnt.differs,
        learnt.through,
        learnt.agent_s,
    )
    assert choose(worst, "min", 64) == 1.0
    assert not worst.accepted("min", 64, 1.0).any()


def test_markdown_csv_and_lines_carry_the_same_accuracy(run: Run, found: dict[str, Any]) -> None:
    text = markdown([(run, found)])
    arm = found["arms"]["min"]
    assert f"| funnel, min | {100 * arm['accuracy']:.1f} (" in text
    assert "out of memory" in text or not found["failed"]
    rows = list(csv.DictReader(io.StringIO(to_csv([(run, found)]))))
    assert [r["arm"] for r in rows] == ["agent", "draft", "min", "log"]
    assert float(rows[2]["accuracy"]) == arm["accuracy"]
    assert "as the paper has it" not in text
    assert f"{arm['n']} test queries" in brief(run)


def test_the_papers_row_stands_beside_ours_where_models_are_the_same(
    run: Run, found: dict[str, Any]
) -> None:
    models = {"large": {"name": "ChenShawn/DeepEyes-7B"}, "small": {"name": "Qwen3-VL-2B-Instruct"}}
    fixed = {**run.fixed, "models": models}
    like = Run(run.folder, {**run.manifest, "fixed": fixed}, run.blocks, run.records)
    column = {"vstar/direct_attributes": next(iter(found["columns"].values()))}
    gains = {"vstar/direct_attributes": next(iter(found["time"]["columns"].values()))}
    shown = {**found, "columns": column, "time": {**found["time"], "columns": gains}}
    text = markdown([(like, shown)])
    assert "| funnel, min, as the paper has it | 90.43 | 1.53x | 90.43 | 1.53x |" in text
    assert "| draft alone, as the paper has it | 77.39 | 5.44x |" in text
    assert paper_table.backbone("DeepEyesV2_7B", "Qwen3-VL-2B") is None


def test_sweeps_agree_with_what_the_arm_did_at_its_own_settings(found: dict[str, Any]) -> None:
    used = found["thresholds"]["min"]
    (same,) = [
        r
        for r in found["sweeps"]["threshold"]
        if r["aggregate"] == "min" and r["threshold"] == used
    ]
    assert same["accuracy"] == found["arms"]["min"]["accuracy"]
    assert same["accepted"] == found["routes"]["min"]["accepted"] / found["n"]
    assert {r["judge"] for r in found["sweeps"]["judge"]} == {"large", "none"}
    assert max(r["top_k"] for r in found["sweeps"]["top_k"]) == 128
    assert [b["batch_size"] for b in found["time"]["batches"]] == [1]


def test_a_run_without_a_whole_round_says_how_to_go_on(tmp_path: Path, run: Run) -> None:
    folder = tmp_path / "begun"
    shutil.copytree(run.folder, folder)
    text = (folder / RECORDS).read_text().splitlines(keepends=True)
    (folder / RECORDS).write_text("".join(text[:5]))
    with pytest.raises(InputError, match="again to go on"):
        figures(read(folder))


def test_a_calibration_from_a_run_makes_a_gate_for_its_drafter(run: Run, tmp_path: Path) -> None:
    from speceyes import cli

    out = tmp_path / "gate.json"
    arguments = ["calibrate", str(run.folder), "--target", "0.3", "--delta", "0.2"]
    assert cli.main([*arguments, "--out", str(out)]) == 0
    assert cli.main([*arguments, "--out", str(out), "--by-kind"]) == 0
    assert cli.main([*arguments, "--k", "500"]) == 2
    made = Calibration.load(out)
    gate = SeparabilityGate.from_calibration(out)
    assert made.scoring == scoring_of(run, "min")
    gate.check(model="small", prompt_hash=made.scoring.prompt_hash, top_k=64)
    held, threshold = recorded(run, TEST), made.threshold
    assert threshold is not None
    accepted, bad, n = measured(made, held)
    assert (accepted, bad, n) == (
        int(held.accepted("min", 64, threshold).sum()),
        int((held.accepted("min", 64, threshold) & ~held.right).sum()),
        len(held),
    )
    assert made.certified
    assert accepted > 0
    kinds = {path.name for path in tmp_path.glob("gate-*.json")}
    assert kinds == {"gate-large.json", "gate-small.json"}


def test_labels_need_no_human(run: Run) -> None:
    held = recorded(run, TEST)
    differs, wrong = bad_drafts(held, "differs_from_agent"), bad_drafts(held, "wrong")
    worse = bad_drafts(held, "worse_than_agent")
    assert not (worse & ~wrong).any()
    # Drafts of large squares are right; they differ from the agent only where it failed or erred.
    assert (differs[~wrong] == ~held.agent_right[~wrong]).all()


def test_the_command_line_reports(run: Run, tmp_path: Path, capsys: Any) -> None:
    from speceyes import cli

    assert cli.main(["report", str(run.folder), "--out", str(tmp_path)]) == 0
    assert cli.main(["report", str(tmp_path)]) == 2
    assert cli.main(["eval", "scenes", "--out", str(tmp_path), "--arms", "mim"]) == 2
    said = capsys.readouterr()
    assert "| agent alone |" in said.out
    assert "did you mean 'min'?" in said.err
    assert {p.name for p in tmp_path.iterdir()} == {"report.md", "report.csv", "report.html"}


@pytest.mark.parametrize(
    ("image", "says"),
    [
        ("../beside.png", "no usable samples: 30 of 30 left out, because 30 rows: image"),
        ("one.png", "30 samples on 1 picture can't be split"),
    ],
)
def test_questions_without_pictures_of_their_own_are_told_so_at_once(
    tmp_path: Path, capsys: Any, image: str, says: str
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for place in ("beside.png", "mine/one.png"):
        Image.new("RGB", (32, 32)).save(tmp_path / place)
    rows = [{"id": str(i), "image": image, "question": f"{i}?", "answer": "x"} for i in range(30)]
    (folder / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert main(["eval", str(folder / "q.jsonl"), "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert says in " ".join(said.split())
    assert len(said.splitlines()) < 5


def test_rows_left_out_are_told_before_too_few_are_left(tmp_path: Path, capsys: Any) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "0.png")
    rows = [{"image": f"{i}.png", "question": f"{i}?", "answer": "x"} for i in range(3)]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert main(["eval", str(tmp_path / "q.jsonl"), "--out", str(tmp_path / "run")]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "left out: 2 rows" in said and "1 sample on 1 picture can't be split" in said


def test_arms_can_be_added_and_not_twice() -> None:
    arm = arms.Arm("mine", "mine", lambda context: context.funnel("mean").stream)
    arms.register(arm)
    try:
        assert arms.chosen(["mine"]) == ("agent", "draft", "mine")
        with pytest.raises(ConfigError, match="there already"):
            arms.register(arm)
    finally:
        del arms._ARMS["mine"]


@pytest.mark.parametrize(
    "wrong", [{"calibration_share": 0}, {"calibration_share": 1}, {"threshold": 2}]
)
def test_a_plan_that_cannot_work_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Plan(("agent", "draft"), **wrong)


def test_progress_tells_accuracy_gain_and_time_left() -> None:
    file = io.StringIO()
    with Progress(file, 4) as progress:
        progress.skip(2)
        progress.block(TEST, "agent", 1, 2, 4.0)
        progress.block(TEST, "min", 2, 2, 2.0)
        progress.step()
        assert progress.standing() == "agent 50.0% | min 100.0% 2.00x"
        progress.block(TEST, "judge-small", None, 2, 1.0)
        assert progress.standing().endswith("| judge-small 4.00x")
    drawn = file.getvalue()
    assert "left" in drawn and "2/4" in drawn and "0/4" not in drawn


def test_progress_in_a_log_is_a_few_whole_lines() -> None:
    file = io.StringIO()
    with Progress(file, 400) as progress:
        for _ in range(40):
            for _ in range(10):
                progress.step()
            progress.block(TEST, "agent", 9, 10, 4.0)
    lines = file.getvalue().splitlines(keepends=True)
    assert "\r" not in file.getvalue() and all(line.endswith("\n") for line in lines)
    assert len(lines) < 20  # where each round drew, there were 40
    assert "400/400" in lines[-1] and "agent 90.0%" in lines[-1]


def test_progress_shows_what_earlier_starts_answered_at_once() -> None:
    file = io.StringIO()
    progress = Progress(file, 10)
    progress.skip(4)
    assert "4/10" in file.getvalue() and "0/10" not in file.getvalue()
    progress.skip(3)
    assert "7/10" in file.getvalue().rpartition("4/10")[2]
    progress.skip(0)
    with Progress(None, 4) as silent:
        silent.skip(2), silent.step(), silent.block(TEST, "agent", 1, 2, 4.0)


# The statistics.


def test_the_interval_of_an_area_covers_the_true_one() -> None:
    random_numbers = np.random.default_rng(6)
    hits = 0
    truth = 0.7602499389  # P(N(1, 1) > N(0, 1)) = Phi(1 / sqrt(2))
    for _ in range(300):
        scores = np.concatenate([random_numbers.normal(1, 1, 60), random_numbers.normal(0, 1, 60)])
        value, low, high = auroc_interval(scores, [True] * 60 + [False] * 60)
        assert value == auroc(scores, [True] * 60 + [False] * 60)
        hits += low <= truth <= high
    assert wilson_interval(hits, 300, 0.999)[1] >= 0.95


def test_risk_coverage_ends_at_the_error_rate_and_ties_share_their_errors() -> None:
    _, risk = risk_coverage([1.0, 1.0, 1.0, 1.0], [True, False, True, False])
    assert risk.tolist() == [0.5, 0.5, 0.5, 0.5]
    area, low, high = aurc_interval(np.arange(50.0), np.arange(50) > 10)
    assert low <= area <= high < 11 / 50


def test_a_record_that_is_none_is_refused() -> None:
    with pytest.raises(InputError, match="not a record"):
        Record.from_dict({"phase": "test"})
