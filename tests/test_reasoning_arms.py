"""The arms of `speceyes eval` that work in words alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from speceyes import tiny
from speceyes.cli import main
from speceyes.errors import ConfigError
from speceyes.evaluation import arms, benchmarks
from speceyes.evaluation.context import EvalContext
from speceyes.evaluation.runs import TEST, read
from speceyes.models.scripted import ScriptedModel
from speceyes.types import Completion

# Those that the bundled pair for scenes can't do, and would go on with up to its limit.
PAIR = ["--large", str(tiny.REASONER_LARGE), "--small", str(tiny.REASONER_SMALL)]
ASKED = "large-short,small-short,small-reasoning,transfer-attended-50,transfer-random-25"


def test_a_run_without_tools_has_every_arm_on_the_same_puzzles(tmp_path: Path) -> None:
    command = ["eval", "puzzles", "--without-tools", "--limit", "1", *PAIR]
    more = ["--arms", f"{ASKED},transfer-sure,transfer-two-stage", "--threshold", "0.9"]
    out = ["--out", str(tmp_path / "run"), "--quiet", "--calibration-share", "0"]
    assert main([*command, *more, *out]) == 0
    run = read(tmp_path / "run")
    found = {r.arm: [] for r in run.records}
    for record in run.records:
        # A model may find no end of its reasoning, but nothing else may fail.
        assert record.phase == TEST and record.result.error in (None, "no complete answer")
        found[record.arm].append(record.result.query_id)
    assert set(found) == {
        "agent",
        "draft",
        *ASKED.split(","),
        "transfer-sure",
        "transfer-two-stage",
    }
    assert len({tuple(sorted(ids)) for ids in found.values()}) == 1
    turns = {r.arm: r.result.trajectory for r in run.records if r.result.trajectory is not None}
    # The large model's own reasoning stands in for the agent: reasoning, then an answer.
    assert len(turns["agent"].steps) == 2 and len(turns["large-short"].steps) == 1
    assert len(turns["transfer-attended-50"].steps) in (1, 3)


def test_arms_that_need_tools_are_refused_without_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--arms", "min,transfer", "--threshold", "0.9", "--calibration-share", "0"]
    few = ["--limit", "2", "--out", str(tmp_path)]
    code = main(["eval", "puzzles", "--without-tools", *few, *asked])
    assert code == 2 and "--without-tools can't run min" in capsys.readouterr().err


# test_transfer_rule.py is the quick form of what is chosen.
@pytest.mark.parametrize("chosen", [False, pytest.param(True, marks=pytest.mark.exhaustive)])
def test_a_rule_is_chosen_on_the_calibration_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], chosen: bool
) -> None:
    command = ["eval", "puzzles", "--without-tools", "--arms", "transfer-calibrated", *PAIR]
    more = ["--quiet", "--threshold", "0.9", "--batch-size", "32", "--out", str(tmp_path / "run")]
    assert main([*command, *more, "--limit", "4", "--calibration-share", "0"]) == 2
    assert "transfer-calibrated have thresholds" in capsys.readouterr().err
    if not chosen:
        return
    assert main([*command, *more, "--limit", "38", "--calibration-share", "0.9"]) in (0, 1)
    found = read(tmp_path / "run").of(TEST, "transfer-calibrated")
    assert found and {r.result.route for r in found} <= {"draft", "agent"}


def test_models_that_never_answer_leave_the_run_its_other_arms(
    caplog: pytest.LogCaptureFixture,
) -> None:
    mute = ScriptedModel(lambda conversation, sampling: Completion.failed("no words"))
    items = benchmarks.load("puzzles", limit=32).samples
    context = EvalContext(mute, mute, {}, 9, 9, labelled=items)
    stream = arms.arm("transfer-calibrated-last-50").build(context)
    [result] = stream([items[0].query])
    assert result.answer is None and "brief answers stand" in caplog.text


def test_an_arm_that_doubts_needs_its_limit(tmp_path: Path) -> None:
    model = ScriptedModel("red")
    with pytest.raises(ConfigError, match="--credible"):
        arms.arm("transfer-credible").build(EvalContext(model, model, {}, 9, 9))


def test_puzzles_are_a_benchmark() -> None:
    loaded = benchmarks.load("puzzles", limit=3)
    assert [s.query.id for s in loaded.samples] == [s.query.id for s in loaded.samples]
    assert len(loaded.samples) == 3 and all(s.answer for s in loaded.samples)
    assert {arms.arm(f"transfer-{by}-50").words for by in ("last", "likeliest", "random")} == {True}


def test_heads_that_cannot_be_read_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--out", str(tmp_path), "--threshold", "0.9", "--calibration-share", "0"]
    code = main(["eval", "puzzles", "--limit", "1", "--heads", "2,1", "--quiet", *asked])
    assert code == 2 and "--heads '2,1'" in capsys.readouterr().err
