"""The judge over real sockets, its file after kills, and the agreement of two graders."""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speceyes.errors import ConfigError
from speceyes.evaluation.llm_judge import Case, LLMJudge, Opinion, agreement, read_verdict
from speceyes.models import OpenAIModel, ScriptedModel
from speceyes.types import Conversation, Sampling
from support.engine_server import refused, serving
from support.processes import started

PUPPY = Case("What is it?", "a dog", "a puppy")
CAT = Case("What is it?", "a dog", "a cat")


def _reply(conversation: Conversation, sampling: Sampling) -> str:
    """Knows that a puppy is a dog."""
    answer = conversation.messages[0].text.split("Answer to grade:\n")[1].split("\n\n")[0]
    return "Yes." if answer in ("a puppy", "a dog") else "No."


def test_over_http_each_answer_is_asked_once_and_kept(tmp_path: Path) -> None:
    cache = tmp_path / "run" / "judge.jsonl"
    with serving({"grader": ScriptedModel(_reply)}, kind="openai") as (url, seen):
        judge = LLMJudge(OpenAIModel(url, "grader", engine="openai"), cache)
        cases = [PUPPY, CAT, PUPPY, Case("What is it?", "a dog", None)]
        opinions = judge(cases)
        assert [(one.rules, one.judge) for one in opinions] == [
            (False, True),
            (False, False),
            (False, True),
            (False, False),
        ]
        assert len(seen.bodies) == 2
        body = seen.bodies[0]
        assert "image" not in json.dumps(body["messages"])
        assert body["temperature"] == 0
        assert judge(cases) == opinions
        again = LLMJudge(OpenAIModel(url, "grader", engine="openai"), cache)
        assert again(cases) == opinions
        assert len(seen.bodies) == 2
        assert again([Case("What is it?", "a dog", "a dog")])[0] == Opinion(True, True, "Yes.")
        assert len(seen.bodies) == 3
    assert len(cache.read_text().splitlines()) == 3
    assert json.loads(cache.read_text().splitlines()[0])["answer"] == "a puppy"


def test_a_failure_costs_one_verdict_and_is_asked_again(tmp_path: Path) -> None:
    first = {"still": True}

    def fail_once(number, body):
        if "a cat" in json.dumps(body) and first.pop("still", False):
            return refused(400, "no cats today")
        return None

    with serving({"grader": ScriptedModel(_reply)}, kind="openai", early=fail_once) as (url, _):
        judge = LLMJudge(OpenAIModel(url, "grader", engine="openai"), tmp_path / "judge.jsonl")
        puppy, cat = judge([PUPPY, CAT])
        assert puppy.judge is True
        assert cat.judge is None
        assert "no cats today" in str(cat.error)
        assert judge([CAT])[0].judge is False


def test_words_that_are_no_verdict_are_not_kept(tmp_path: Path) -> None:
    cache = tmp_path / "judge.jsonl"
    opinion = LLMJudge(ScriptedModel("It depends."), cache)([PUPPY])[0]
    assert opinion.judge is None
    assert "neither yes nor no" in str(opinion.error)
    assert not cache.exists()


def test_what_an_answer_asks_for_is_quoted_not_filled_in() -> None:
    asked: list[str] = []

    def listen(conversation: Conversation, sampling: Sampling) -> str:
        asked.append(conversation.messages[0].text)
        return "no"

    LLMJudge(ScriptedModel(listen))([Case("Q {gold}", "secret", "{question} {gold} {0} {x!r}")])
    assert "Q {gold}" in asked[0]
    assert "{question} {gold} {0} {x!r}" in asked[0]
    LLMJudge(ScriptedModel(listen))([Case("Q", "g", "x" * 100_000 + "END")])
    assert "xEND" in asked[1]
    assert len(asked[1]) < 6000


def test_a_verdict_is_for_one_model_question_gold_and_answer() -> None:
    judge, other = LLMJudge(ScriptedModel("yes")), LLMJudge(ScriptedModel("yes", name="other"))
    keys = {
        judge.key(PUPPY),
        other.key(PUPPY),
        judge.key(CAT),
        judge.key(Case("What is it", "a dog", "a puppy")),
        judge.key(Case("What is it?", "dog", "a puppy")),
    }
    assert len(keys) == 5


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_line_cut_off_is_asked_again_and_hurts_no_other(tmp_path: Path, cut: int) -> None:
    cache = tmp_path / "judge.jsonl"
    LLMJudge(ScriptedModel("yes"), cache)([PUPPY, CAT])
    cache.write_bytes(cache.read_bytes()[:-cut])
    asked: list[str] = []

    def listen(conversation: Conversation, sampling: Sampling) -> str:
        asked.append(conversation.messages[0].text)
        return "yes"

    fresh = [Case("Q", "g", str(i)) for i in range(3)]
    judge = LLMJudge(ScriptedModel(listen), cache)
    assert all(one.judge for one in judge([PUPPY, CAT, *fresh]))
    assert not any("a puppy" in text for text in asked)
    silent = LLMJudge(ScriptedModel(RuntimeError("asked again")), cache)
    assert all(one.judge for one in silent([PUPPY, CAT, *fresh]))


def test_verdicts_survive_a_kill(tmp_path: Path) -> None:
    cache = tmp_path / "judge.jsonl"
    code = (
        "import time\n"
        "from speceyes.evaluation.llm_judge import Case, LLMJudge\n"
        "from speceyes.models import ScriptedModel\n"
        f"judge = LLMJudge(ScriptedModel('yes'), {str(cache)!r})\n"
        "for i in range(100000):\n"
        "    judge([Case('Q', 'g', str(i))])\n"
        "    time.sleep(0.002)\n"
    )
    with started(sys.executable, "-c", code) as process:
        until = time.monotonic() + 60
        while not (cache.exists() and cache.read_bytes().count(b"\n") >= 20):
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.02)
        process.kill()
    whole = cache.read_bytes().count(b"\n")
    silent = LLMJudge(ScriptedModel(RuntimeError("asked again")), cache)
    assert all(one.judge for one in silent([Case("Q", "g", str(i)) for i in range(whole)]))


def test_a_file_that_cannot_be_used_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't be used"):
        LLMJudge(ScriptedModel("yes"), tmp_path)


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        ("yes", True),
        ("Yes.", True),
        ("**YES**", True),
        ("<think>Is it no?</think> yes", True),
        ("Answer: no", False),
        ("No, it isn't.", False),
        ("yes or no", None),
        ("", None),
        ("nothing", None),
        ("1", None),
    ],
)
def test_verdicts_are_read(said: str, verdict: bool | None) -> None:
    assert read_verdict(said) is verdict


def test_kappa_is_that_of_the_textbook() -> None:
    """Cohen's example by hand: 20 + 15 of 50 alike, po = 0.7, pe = 0.5 * 0.6 + 0.5 * 0.4."""
    cells = [(True, True)] * 20 + [(True, False)] * 5 + [(False, True)] * 10
    cells += [(False, False)] * 15
    found = agreement([Opinion(*cell) for cell in cells])
    assert found.share == 0.7
    assert found.kappa is not None
    assert math.isclose(found.kappa, 0.4)
    assert (found.both_right, found.rules_only, found.judge_only, found.both_wrong) == (
        20,
        5,
        10,
        15,
    )


def test_agreement_at_its_edges() -> None:
    assert agreement([]).share is None
    assert agreement([Opinion(True, None)]).unjudged == 1
    alike = agreement([Opinion(True, True)] * 3)
    assert (alike.share, alike.kappa) == (1.0, None)
    assert agreement([Opinion(True, True), Opinion(False, False)]).kappa == 1.0


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([True, False, None])), max_size=40))
def test_figures_of_agreement_add_up(grades: list[tuple[bool, bool | None]]) -> None:
    found = agreement([Opinion(*grade) for grade in grades])
    cells = (found.both_right, found.both_wrong, found.rules_only, found.judge_only)
    assert sum(cells) == found.n
    assert found.n + found.unjudged == len(grades)
    if found.kappa is not None:
        assert -1 <= found.kappa <= 1
        mirrored = agreement([Opinion(j, r) for r, j in grades if j is not None])
        assert mirrored.kappa == found.kappa
