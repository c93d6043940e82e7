"""The benchmark runs every arm on the same queries and counts what each of them did."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from speceyes import tiny
from speceyes.cli import main
from speceyes.errors import ConfigError
from speceyes.evaluation.bench import (
    AGENT,
    FUNNEL,
    REFERENCE,
    Arm,
    Measured,
    arms,
    markdown,
    measure,
    summarise,
)
from speceyes.gate import SeparabilityGate
from speceyes.models import HFModel
from speceyes.tiny.scenes import questions


@pytest.fixture(scope="module")
def ways() -> list[Arm]:
    large, small = (HFModel.from_pretrained(path) for path in (tiny.LARGE, tiny.SMALL))
    settings = tiny.settings()
    gate = SeparabilityGate(settings["threshold"], top_k=settings["top_k"])
    return arms(large, small, gate, tools=["zoom"], batch=8)


def test_every_arm_answers_the_same_and_is_counted(ways: list[Arm]) -> None:
    queries = [item.query for item in questions("heldout", 12)]
    found = measure(ways, queries, repeats=1, warm_up=2)
    table = summarise(found, len(queries))
    assert list(table) == [way.name for way in ways]
    assert [row["same"] for row in table.values()] == [1.0] * len(table)
    assert table[REFERENCE]["gain"] == [1.0, 1.0, 1.0]
    assert table[REFERENCE]["tokens_read"] == 0, "it isn't driven by tokens"
    ours, bare = table[FUNNEL], table["... nothing kept"]
    assert ours["tokens_reused"] > 0 == bare["tokens_reused"]
    assert ours["tokens_read"] + ours["tokens_reused"] == bare["tokens_read"]
    assert ours["tokens_decoded"] == bare["tokens_decoded"] > 0
    assert 0 < ours["outside_forwards"] < 1
    text = markdown(table)
    assert all(f"| {name} |" in text for name in table)


def test_an_arm_starts_with_nothing_kept(ways: list[Arm]) -> None:
    [agent] = [way for way in ways if way.name == AGENT]
    queries = [item.query for item in questions("heldout", 3)]
    runs = measure([agent], queries, repeats=2, warm_up=1)[AGENT]
    assert runs[0].read == runs[1].read
    assert runs[0].reused == runs[1].reused


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


def test_what_cannot_be_measured_is_refused(ways: list[Arm]) -> None:
    with pytest.raises(ConfigError, match="repeats=0, 1 queries"):
        measure(ways, [item.query for item in questions("heldout", 1)], repeats=0)
    with pytest.raises(ConfigError, match="0 queries"):
        measure(ways, [])


def test_the_command_prints_a_table_and_writes_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("speceyes.cli._hush", lambda: None)  # it would hush other tests' logs
    out = tmp_path / "bench.json"
    words = "bench --queries 3 --repeats 1 --arms speceyes,reference --out".split()
    code = main([*words, str(out)])
    printed = capsys.readouterr().out
    assert code == 0
    assert "| reference schedule |" in printed and "| speceyes |" in printed
    written = json.loads(out.read_text("utf-8"))
    assert set(written["arms"]) == {REFERENCE, FUNNEL}
    assert written["about"]["queries"] == 3
    assert main(["bench", "--arms", "nothing of the kind"]) == 2
    assert "names no arm" in capsys.readouterr().err
    assert main(["bench", "--queries", "0"]) == 2
    assert "--queries must be at least 1" in capsys.readouterr().err
