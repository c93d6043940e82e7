"""A language model's grades beside those of the rules, over a real connection."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from speceyes.cli import main
from speceyes.evaluation.runs import TEST, read
from speceyes.evaluation.second_grade import GRADES, second_grades
from speceyes.models.scripted import ScriptedModel
from speceyes.types import Conversation, Sampling
from support.engine_server import serving
from support.eval_models import run_in


def grader(conversation: Conversation, sampling: Sampling) -> str:
    """Right where the right answer's words are in the answer; "maybe" to a few."""
    text = conversation.messages[-1].text
    gold = text.split("Right answer:\n")[1].split("\n")[0]
    answer = text.split("Answer to grade:\n")[1].split("\n\n")[0]
    if len(answer) % 7 == 6:
        return "maybe"
    return "yes" if gold.casefold() in answer.casefold() else "no"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_in(tmp_path_factory.mktemp("grades") / "run").folder


@pytest.fixture
def folder(recorded: Path, tmp_path: Path) -> Path:
    """A copy: grades are written into it."""
    return Path(shutil.copytree(recorded, tmp_path / "run"))


def test_both_grades_of_every_arm_and_each_answer_asked_about_once(folder: Path) -> None:
    asked: list[str] = []

    def counted(conversation: Conversation, sampling: Sampling) -> str:
        asked.append(conversation.messages[-1].text)
        return grader(conversation, sampling)

    run = read(folder)
    text = second_grades(run, ScriptedModel(counted, name="grader"))
    arms = {block.arm for block in run.blocks if block.phase == TEST and block.n}
    table = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert sum(line.count("(") >= 2 for line in table) >= len(arms)
    assert "by grader" in text
    kept = [json.loads(line) for line in (folder / GRADES).read_text("utf-8").splitlines()]
    assert {row["said"] for row in kept} <= {"yes", "no"} and len(kept) > 5
    assert all(row["question"] and row["gold"] and row["answer"] for row in kept)
    sure = {text for text in asked if grader_says(text) != "maybe"}
    assert len(sure) == len(kept)
    before = len(asked)
    second_grades(run, ScriptedModel(counted, name="grader"))
    again = asked[before:]
    assert all(grader_says(text) == "maybe" for text in again), "only what had no verdict"


def grader_says(text: str) -> str:
    from speceyes.types import Message

    return grader(Conversation((Message("user", (text,)),)), Sampling())


def test_the_report_asks_an_engine(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving({"judge-72b": ScriptedModel(grader, name="judge-72b")}) as (url, _):
        assert main(["report", str(folder), "--grader", url, "--grader-model", "judge-72b"]) == 0
    report = (folder / "report.md").read_text("utf-8")
    assert "Graded once more, by judge-72b" in report and "kappa" in report
    assert main(["report", str(folder), "--grader-model", "x"]) == 2
    assert "--grader-model needs --grader" in capsys.readouterr().err
