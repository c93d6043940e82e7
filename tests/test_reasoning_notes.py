"""What is measured of notes: selectors on the same reasoning, wrong notes by where they stand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from speceyes import tiny
from speceyes.models.hf import HFModel
from speceyes.strategies import ReasoningTransfer, Selector, TransferRule
from speceyes.strategies.verification import same_words
from speceyes.tiny import puzzles
from speceyes.tiny.training import reasoning_notes
from speceyes.tiny.training.reasoning_notes import Remembering

N = 4


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, object]]]:
    out: Path = tmp_path_factory.mktemp("notes") / "notes.json"
    reasoning_notes.main(["--puzzles", str(N), "--out", str(out)])
    found: dict[str, list[dict[str, object]]] = json.loads(out.read_text("utf-8"))
    return found


def test_every_selector_has_its_share_and_its_control(
    told: dict[str, list[dict[str, object]]],
) -> None:
    rows = {(str(r["by"]), r["share"]): r for r in told["shares"]}
    assert len(rows) == 1 + 4 * 3 and all(r["n"] == N for r in rows.values())
    assert len({r["settled"] for r in rows.values()}) == 1, "the first answers are the same"
    assert len({r["written"] for r in rows.values()}) == 1, "and so is the reasoning"
    for (by, share), row in rows.items():
        kept, written = row["kept"], row["written"]
        assert isinstance(kept, int) and isinstance(written, int)
        assert kept == pytest.approx(written * float(share), abs=N)  # type: ignore[arg-type]
        assert ("p" in row) == (by not in ("all", "random"))


def test_models_that_remember_answer_as_the_models_do(
    told: dict[str, list[dict[str, object]]],
) -> None:
    large, small = map(HFModel.from_pretrained, (tiny.REASONER_LARGE, tiny.REASONER_SMALL))
    chosen = tiny.reasoner_settings()
    heads = tuple(map(tuple, chosen["heads"]))
    run = ReasoningTransfer(
        large,
        small,
        rule=TransferRule.from_dict(chosen["rule"]),
        place=chosen["place"],
        keep=Selector("attended", 0.5, heads=heads),
        batch_size=reasoning_notes.BATCH,
    )
    items = list(puzzles.questions("heldout", N))
    answers = [r.answer or "" for r in run([item.query for item in items])]
    right = sum(same_words(i.query, a, i.answer) for i, a in zip(items, answers, strict=True))
    [row] = [r for r in told["shares"] if (r["by"], r["share"]) == ("attended", 0.5)]
    assert row["right"] == right and row["kept"] == run.transferred.kept
    memory = Remembering(small)
    again = ReasoningTransfer(large, memory, keep="attended")
    first = [r.answer for r in again([item.query for item in items])]
    before = small.spent.decoded
    assert [r.answer for r in again([item.query for item in items])] == first
    assert small.spent.decoded == before, "nothing is asked twice"


def test_notes_of_each_kind_stand_in_both_places(
    told: dict[str, list[dict[str, object]]],
) -> None:
    rows = [(r["notes"], r["place"]) for r in told["notes"]]
    kinds = ("right", "wrong", "other")
    assert rows == [
        ("none", ""),
        *((kind, "prompt") for kind in kinds),
        *((kind, "turn") for kind in kinds),
        *((kind, "turn, read first") for kind in kinds),
    ]
    followed = {(r["notes"], r["place"]): (r["right"], r["followed"]) for r in told["notes"]}
    for place in ("prompt", "turn", "turn, read first"):
        right, right_led = followed["right", place]
        assert right == right_led, "right notes lead to what is right"
        wrong, led = followed["wrong", place]
        assert isinstance(wrong, int) and isinstance(led, int) and wrong + led <= N
    doubted = {r["notes"]: (r["doubted"], r["n"]) for r in told["notes"] if "doubted" in r}
    assert doubted["right"][0] == 0 and doubted["wrong"][0] == doubted["wrong"][1]
    text = reasoning_notes.tables(told)  # type: ignore[arg-type]
    assert "| 50 % attended |" in text and "| wrong | turn |" in text
