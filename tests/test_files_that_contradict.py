"""Files of calibrations, monitors and ledgers in which something was changed: all are refused."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speceyes.calibration import (
    Calibration,
    GateMonitor,
    Ledger,
    Scoring,
    SequentialCalibration,
    calibrate,
    calibrate_relative,
)
from speceyes.calibration.ledger import labels_hash
from speceyes.calibration.sealed import digest_of
from speceyes.errors import CalibrationError

MADE = Scoring("small", "ab12", top_k=8)
ODD: tuple[Any, ...] = (
    None, "", "x", "1", [], [1], [[1, 2]], {}, {"a": 1}, True, False, -1, 0, 1, 0.5, -0.0,
    1e308, 10**30, math.nan, math.inf, -math.inf,
)  # fmt: skip


def labelled(n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    scores = np.round(rng.gamma(4, 2, n))
    return scores, rng.random(n) < 0.9 * np.exp(-0.3 * scores)


def bets() -> Calibration:
    labelling = SequentialCalibration(MADE, target=0.1)
    for score, bad in zip(*labelled(), strict=True):
        labelling.add(score, bad)
    return labelling.calibration()


def matched() -> Calibration:
    rng = np.random.default_rng(4)
    scores, worse = labelled()
    differs = worse | (rng.random(worse.size) < 0.05)
    gold = np.where(rng.random(worse.size) < 0.6, worse, np.nan)
    gold[~differs] = np.nan
    return calibrate_relative(scores, differs, gold, MADE, target=0.1)


def plain(**options: Any) -> Calibration:
    return calibrate(*labelled(), MADE, **{"target": 0.1, **options})


KINDS: dict[str, Callable[[], Calibration]] = {
    "selective": lambda: plain(image_key=list(range(300))),
    "overall": lambda: plain(risk="overall"),
    "in expectation": lambda: plain(risk="overall", delta=None),
    "none": lambda: plain(target=0.001),
    "given": lambda: plain(thresholds=[0.9, 0.97, 0.99]),
    "bets": bets,
    "matched": matched,
}


def paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Each place of a JSON value; of a long list its first and last."""
    if at:
        yield at
    inner: list[Any] = list(value) if isinstance(value, dict) else []
    if isinstance(value, list):
        inner = sorted({0, len(value) - 1} & set(range(len(value))))
    for one in inner:
        yield from paths(value[one], (*at, one))


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for one in path:
        value = value[one]
    return value


def changed(data: Any, path: tuple[Any, ...], to: Any) -> Any:
    data = copy.deepcopy(data)
    at(data, path[:-1])[path[-1]] = to
    return data


def same(one: Any, other: Any) -> bool:
    return json.dumps(one) == json.dumps(other)


def near(old: Any) -> list[Any]:
    """Values a little beside one."""
    if isinstance(old, bool):
        return [not old]
    if isinstance(old, int | float):
        return [old + 1, old - 1, 1.01 * old, -old]
    if isinstance(old, list):
        return [old[1:], old[:-1], old[::-1], old + old[-1:]]
    return [old + "x"] if isinstance(old, str) else []


def without_each(data: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for gone in data:
        yield {name: value for name, value in data.items() if name != gone}


@pytest.mark.parametrize("kind", KINDS)
def test_no_calibration_loads_in_which_anything_was_changed(kind: str) -> None:
    made = KINDS[kind]()
    assert made.certified == (kind != "none")
    data = json.loads(made.to_json())
    assert Calibration.from_json(json.dumps(data, indent=3, sort_keys=True)) == made
    tried = 0
    for path in paths(data):
        old = at(data, path)
        for to in [*ODD, *near(old)]:
            if same(to, old):
                continue
            tried += 1
            with pytest.raises(CalibrationError):
                Calibration.from_json(json.dumps(changed(data, path, to)))
    for less in without_each(data):
        with pytest.raises(CalibrationError):
            Calibration.from_json(json.dumps(less))
    assert tried > 700


@pytest.mark.parametrize(
    "changes",
    [
        {"score_counts": ()},
        {"score_counts": ((700, 150), (700, 150))},
        {"score_counts": ((701, 150), (700, 150))},
        {"score_counts": ((700, 300),)},
        {"score_counts": ((700, 299.0), (800, 1))},
        {"score_counts": ((0, 300),)},
        {"curve": ()},
        {"bad": 0},
        {"target": 0.001},
        {"delta": 1e-6},
        {"start": 299},
        {"start": 1},
        {"method": "hoeffding-bentkus"},
        {"risk": "overall", "start": None},
        {"threshold": 0.5},
    ],
)
def test_what_contradicts_itself_is_refused_also_with_a_digest(changes: dict[str, Any]) -> None:
    made = plain()
    assert made.certified and made.accepted < made.n
    written = dataclasses.replace(made, **changes).to_json()
    with pytest.raises(CalibrationError, match="contradicts itself"):
        Calibration.from_json(written)


def test_a_looser_threshold_than_the_first_that_fails_is_refused() -> None:
    """A curve on which a stricter threshold fails, with counts that would pass by themselves."""
    scores = np.concatenate([np.linspace(9, 8, 80), np.linspace(7, 6, 8), np.linspace(5, 2, 400)])
    bad = np.concatenate([np.zeros(80), np.ones(8), np.zeros(400)])
    made = calibrate(scores, bad, MADE, target=0.05, start=60)
    assert made.certified and made.accepted < 100
    last = made.curve[-1]
    assert last.evidence < 0.1  # by itself it would pass
    looser = dataclasses.replace(
        made, threshold=last.threshold, accepted=last.accepted, bad=last.bad
    )
    with pytest.raises(CalibrationError, match=r"fails, and .* is looser"):
        Calibration.from_json(looser.to_json())


def test_a_category_without_rows_has_no_scores_to_count() -> None:
    from speceyes.calibration import calibrate_groups

    scores, bad = labelled()
    groups = calibrate_groups(scores, bad, MADE, ["a"] * 300, target=0.1)
    assert Calibration.from_json(groups["b"].to_json()) == groups["b"]


# --- monitors -------------------------------------------------------------------------------------


def monitor(**options: Any) -> GateMonitor:
    watch = GateMonitor.from_calibration(plain(), share=0.5, **options)
    rng = np.random.default_rng(0)
    for score in rng.gamma(4, 2, 60):
        if audit := watch.observe(score):
            watch.audit(bool(rng.random() < 0.02), audit)
    return watch


@pytest.mark.parametrize("seed", [None, 7])
def test_no_monitor_loads_in_which_anything_was_changed(seed: int | None) -> None:
    watch = monitor(seed=seed)
    data = json.loads(watch.to_json())
    again = GateMonitor.from_json(json.dumps(data))
    assert (again.audits, again.evidence, again.bounds) == (
        watch.audits,
        watch.evidence,
        watch.bounds,
    )
    for path in paths({name: value for name, value in data.items() if name != "calibration"}):
        for to in [*ODD, *near(at(data, path))]:
            if not same(to, at(data, path)):
                with pytest.raises(CalibrationError):
                    GateMonitor.from_json(json.dumps(changed(data, path, to)))
    for less in without_each(data):
        with pytest.raises(CalibrationError):
            GateMonitor.from_json(json.dumps(less))


@pytest.mark.parametrize(
    ("path", "to"),
    [
        (("target",), 0.05),
        (("risk",), "overall"),
        (("disagreements",), 10**6),
        (("audits",), 0),
        (("evidence", "wealth", 3), math.nan),
        (("evidence", "wealth", 3), -1.0),
        (("evidence", "wealth", 3), 1e6),
        (("evidence", "peak"), 0.5),
        (("evidence", "evidence", "target"), 0.9),
        (("shift", "wealth"), math.inf),
        (("shift_peak",), 0.0),
        (("arming",), 0),
        (("drawn",), -1),
    ],
)
def test_a_monitor_that_contradicts_itself_is_refused_also_with_a_digest(
    path: tuple[Any, ...], to: Any
) -> None:
    data = json.loads(monitor().to_json())
    if path == ("evidence", "wealth", 3):
        path = ("evidence", "evidence", "wealth", 3)
    forged = changed(data, path, to)
    forged["digest"] = digest_of(forged)
    with pytest.raises(CalibrationError):
        GateMonitor.from_json(json.dumps(forged))


# --- ledgers --------------------------------------------------------------------------------------


def test_no_line_of_a_ledger_is_read_in_which_anything_was_changed(tmp_path: Path) -> None:
    ledger, made = Ledger(tmp_path / "ledger.jsonl"), plain()
    of = labels_hash(labelled()[1])
    assert ledger.note(made, of) == 0.1
    data = json.loads(ledger.path.read_text("utf-8"))
    for name in data:
        for to in [*ODD, *near(data[name])]:
            if same(to, data[name]):
                continue
            ledger.path.write_text(json.dumps({**data, name: to}) + "\n", "utf-8")
            with pytest.raises(CalibrationError, match="line 1"):
                ledger.note(made, of)
    for line in ("[]", "null", "3", "{", '"x"', "", json.dumps(data | {"more": 1})):
        ledger.path.write_text(line + "\n", "utf-8")
        with pytest.raises(CalibrationError, match="line 1"):
            ledger.entries()
