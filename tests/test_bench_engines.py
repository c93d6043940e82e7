"""`speceyes bench` over models of the user's choice, engines by their addresses among them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from speceyes import tiny
from speceyes.bench.arms import AGENT, FUNNEL, REFERENCE, STRATEGIES, Speech, engine_arms
from speceyes.bench.counted import CountedModel
from speceyes.bench.measure import AGAIN, once
from speceyes.bench.sweep import Sweep
from speceyes.bench.workloads import NamedWorkload, points
from speceyes.cli import main
from speceyes.gate import SeparabilityGate
from speceyes.models.hf import HFModel
from speceyes.models.scripted import ScriptedModel
from speceyes.tiny.scenes import questions
from speceyes.types import Conversation, Message, Sampling
from support.engine_server import serving


@pytest.fixture(scope="module")
def engine() -> Iterator[str]:
    models = {
        name: HFModel.from_pretrained(path)
        for name, path in (("large", tiny.LARGE), ("small", tiny.SMALL))
    }
    with serving(models) as (url, _):
        yield url


def test_engines_by_address_run_every_arm_that_they_can(
    engine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gate = tiny.settings()
    prices = tmp_path / "prices.json"
    one = {"input": 1.0, "output": 2.0}
    prices.write_text(json.dumps({"currency": "EUR", "large": one, "small": one}), "utf-8")
    words = ["--large", f"{engine}#large", "--small", f"{engine}#small", "--dialect", "deepeyes"]
    words += ["--threshold", str(gate["threshold"]), "--top-k", str(gate["top_k"])]
    words += ["--tools", "zoom", "--queries", "1", "--repeats", "1", "--batch-size", "2"]
    out = tmp_path / "bench.json"
    more = ["--prices", str(prices), "--out", str(out)]
    assert main(["bench", *words, *more]) == 0
    told = json.loads(out.read_text("utf-8"))
    assert told["about"]["models"] == "large and small"
    assert not any(one["failed"] for one in told["failures"])
    rows = told["arms"]
    assert {AGENT, REFERENCE, FUNNEL, FUNNEL + AGAIN, "agent, one by one"} <= set(rows)
    assert not set(rows) & {"... nothing kept", *STRATEGIES}, "what an engine decides is no arm"
    same = {name: row["same"] for name, row in rows.items()}
    assert set(same.values()) <= {1.0, None}, "the same models answer the same"
    assert same[FUNNEL] == same[REFERENCE] == 1.0
    assert all(row["tokens_decoded"] > 0 and row["money"] > 0 for row in rows.values())
    assert f"| {REFERENCE} |" in capsys.readouterr().out


def test_a_models_tokens_are_counted_by_calls_and_by_sessions() -> None:
    [item] = questions("heldout", 1)
    model = HFModel.from_pretrained(tiny.SMALL)
    asked = Conversation((Message("user", (*item.query.images, "What is it?")),))
    counted = CountedModel(model)
    [said] = counted.generate([asked], Sampling(max_tokens=3))
    assert (counted.spent.read, counted.spent.decoded) == (
        said.prompt_tokens,
        len(said.token_ids),
    )
    session = counted.session(Sampling(max_tokens=3))
    assert session is not None
    session.add(0, asked)
    done = []
    while len(session):
        done += session.step()
    session.close()
    assert counted.spent.decoded == 2 * len(said.token_ids) and len(done) == 1
    assert counted.tells_attention and counted.name == model.name, "all else is the model's own"


def test_a_count_loses_nothing_between_threads() -> None:
    counted = CountedModel(ScriptedModel("red"))
    dot = Image.new("RGB", (32, 32))
    asked = Conversation((Message("user", (dot, "?")),))
    [said] = counted.generate([asked], Sampling())
    many = [
        threading.Thread(target=lambda: [counted.note([said]) for _ in range(200)])
        for _ in range(4)
    ]
    for one in many:
        one.start()
    for one in many:
        one.join()
    assert counted.spent.decoded == 801 * len(said.token_ids)


def test_named_models_can_be_swept_by_batch() -> None:
    answers = {"Reply with one word": "no", "": "<answer>red</answer>"}
    workload = NamedWorkload(
        ScriptedModel(answers),
        ScriptedModel("red", margin=12.0),
        SeparabilityGate(0.9, top_k=8),
        Speech(dialect="deepeyes"),
    )
    made = points(workload, Sweep("batch", (1, 2)), batch=1, n=2, only="drafts alone,speceyes")
    for point in made:
        for way in point.ways:
            assert len(once(way, point.queries()).answers) == 2
    arms = engine_arms(*workload.models, SeparabilityGate(0.9, top_k=8), Speech(), batch=2)
    assert len({way.name for way in arms}) == len(arms)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("--large a", "--large was given without --small"),
        ("--large a --small none", "compares the agent with drafts"),
        ("--large a --small b --shapes tiny-small,tiny-large", "--shapes brings its own"),
        ("--large a --small b --roofline h100", "--roofline brings its own"),
        ("--large a --small b --sweep depth", "plans what becomes of queries"),
        ("--tools zoom", "--tools goes with --large and --small"),
        ("--dialect thyme --top-k 3", "--top-k, --dialect goes with"),
    ],
)
def test_what_does_not_go_together_is_said(
    words: str, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *words.split()]) == 2
    assert problem in capsys.readouterr().err


def test_an_agent_without_its_dialects_tool_is_told_of(
    capsys: pytest.CaptureFixture[str],
) -> None:
    models = {"large": ScriptedModel("<answer>red</answer>"), "small": ScriptedModel("red")}
    with serving(models) as (url, _):
        words = ["--large", f"{url}#large", "--small", f"{url}#small", "--dialect", "thyme"]
        words += ["--tools", "zoom", "--queries", "1", "--repeats", "1", "--arms", "batched"]
        assert main(["bench", *words]) == 0
    said = capsys.readouterr().err
    assert "a thyme agent was trained to call" in said and "tools=['python']" in said
