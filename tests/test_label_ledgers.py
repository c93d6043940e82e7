"""What ledgers of labels add up, and what categories share: each figure by its definition."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speceyes.calibration import (
    Calibration,
    Ledger,
    Scoring,
    calibrate,
    calibrate_groups,
    labels_hash,
)
from speceyes.calibration.groups import Groups
from speceyes.calibration.ledger import Entry
from speceyes.calibration.sealed import DIGEST, check_digest, digest_of, sealed
from speceyes.errors import CalibrationError, ConfigError, InputError

MADE = Scoring("small", "ab12")


def made(delta: float | None = 0.1, target: float = 0.2, **options: Any) -> Calibration:
    risk: Any = "selective" if delta is not None else "overall"
    return calibrate([9.0] * 60, [0] * 60, MADE, delta=delta, target=target, risk=risk, **options)


@pytest.mark.parametrize("delta", [0, 1, 0.0, 1.0, -0.1, math.nan, math.inf, True, "0.1", [0.1]])
def test_an_entry_spends_a_share_or_nothing(delta: Any) -> None:
    for fine in (None, 1e-9, 0.5, 1 - 1e-9):
        assert Entry("a", "b", fine, "c", "d").delta == fine
    with pytest.raises(CalibrationError, match="strictly between 0 and 1"):
        Entry("a", "b", delta, "c", "d")


@pytest.mark.parametrize("name", ["labels", "setting", "statement", "created"])
def test_an_entry_s_words_are_text(name: str) -> None:
    fields: dict[str, Any] = {"labels": "", "setting": "", "delta": None, "statement": ""}
    fields["created"] = ""
    assert Entry(**fields)
    for wrong in (None, 1, ["a"], b"a"):
        with pytest.raises(CalibrationError, match=name):
            Entry(**{**fields, name: wrong})


def test_a_ledger_adds_up_to_one_at_most_and_promises_in_expectation_spend_nothing(
    tmp_path: Path,
) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    assert ledger.entries() == [] and not ledger.path.exists()
    spent = [ledger.note(one, "here") for one in (made(None), made(0.4), made(0.5), made(0.6))]
    assert spent == pytest.approx([0.0, 0.4, 0.9, 1.0])
    assert ledger.note(made(None, 0.3), "here") == 1.0
    assert ledger.note(made(0.4, created="2026-01-02T00:00:00+00:00"), "here") == 1.0
    assert [one.delta for one in ledger.entries("here")] == [None, 0.4, 0.5, 0.6, None]
    assert ledger.note(made(0.25), "there") == 0.25
    assert [one.labels for one in ledger.entries()] == ["here"] * 5 + ["there"]
    assert ledger.entries("nowhere") == []
    assert [one.statement for one in ledger.entries("there")] == [made(0.25).statement]


def test_labels_are_known_by_their_values_and_order() -> None:
    same = [labels_hash([1, 0]), labels_hash(np.array([1, 0])), labels_hash((1, 0))]
    assert len(set(same)) == 1
    others = [
        labels_hash([0, 1]),
        labels_hash([1, 0, 0]),
        labels_hash([1], [0]),
        labels_hash(["1", "0"]),
        labels_hash(),
    ]
    assert len({same[0], *others}) == 6
    words = np.array(["a", "b"], dtype=object)
    assert labels_hash(words) == labels_hash(["a", "b"]) == labels_hash(np.array([b"a", b"b"], "S"))
    assert labels_hash([None, "a"]) != labels_hash(["a", None])


def test_a_digest_is_of_all_fields_but_itself() -> None:
    data = {"a": 1, "b": [2.5, None]}
    whole = sealed(data)
    assert list(whole) == ["a", "b", DIGEST] and whole[DIGEST] == digest_of(data)
    check_digest(json.loads(json.dumps(whole, indent=2)), "look")
    assert digest_of({"b": [2.5, None], "a": 1, DIGEST: "x"}) == whole[DIGEST]
    for wrong in ({**whole, "a": 2}, {**whole, "c": 1}, {"a": 1, DIGEST: whole[DIGEST]}):
        with pytest.raises(
            CalibrationError, match="something was changed after it was written; look"
        ):
            check_digest(wrong, "look")
    with pytest.raises(CalibrationError, match=r"no digest: .*; look"):
        check_digest(data, "look")


# --- categories -----------------------------------------------------------------------------------


def test_categories_share_delta_where_they_hold_together_and_keep_their_own_rows() -> None:
    names = ["a"] * 60 + ["b"] * 40 + ["c"] * 20
    scores, bad = [9.0] * 120, [0] * 60 + [1] * 40 + [0] * 20
    through = [True] * 60 + [True] * 40 + [False] * 20
    alone = calibrate_groups(scores, bad, MADE, names, delta=0.3)
    together = calibrate_groups(
        scores, bad, MADE, names, delta=0.3, together=True, let_through=through
    )
    assert {one.delta for one in alone.values()} == {0.3}
    assert {round(one.delta or 0, 12) for one in together.values()} == {0.1}
    for found, accepted in ((alone, 20), (together, 0)):
        assert [(name, one.n, one.group) for name, one in found.items()] == [
            ("a", 60, "a"),
            ("b", 40, "b"),
            ("c", 20, "c"),
        ]
        assert found["a"].accepted == 60 and found["b"].accepted == 0
        assert found["c"].score_counts[0][1] == 20
        assert (found["c"].score_counts[0][0] == 0) is (accepted == 0)
    mean = calibrate_groups(scores, bad, MADE, names, delta=None, risk="overall")
    assert mean["a"].delta is None
    with pytest.raises(ConfigError, match="divides delta"):
        calibrate_groups(scores, bad, MADE, names, delta=None, risk="overall", together=True)


@pytest.mark.parametrize("part", ["scores", "bad", "groups", "let_through", "image_key"])
def test_each_query_has_one_of_each(part: str) -> None:
    whole: dict[str, Any] = {
        "scores": [9.0] * 3,
        "bad": [0] * 3,
        "groups": ["a"] * 3,
        "let_through": [True] * 3,
        "image_key": [1, 2, 3],
    }
    assert calibrate_groups(scoring=MADE, **whole)["a"].n == 3
    with pytest.raises(InputError, match="one each is needed"):
        calibrate_groups(scoring=MADE, **{**whole, part: whole[part][:2]})


def test_no_categories_have_none() -> None:
    none = calibrate_groups([], [], MADE, [])
    assert none == {} and none.get("a") is None and none.get("a", 7) == 7
    with pytest.raises(KeyError):
        none["a"]
    assert calibrate_groups([], [], MADE, [], together=True) == {}
    some = Groups({"a": made()})
    unseen = some["b"]
    assert (unseen.n, unseen.accepted, unseen.bad, unseen.group) == (0, 0, 0, "b")
    assert "b" not in some and some.get("b", 7) == unseen
