"""A calibration: a threshold, what it promises, and what it was found with; one JSON file."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from os import PathLike
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, final, get_args

from speceyes.calibration.provenance import Scoring, is_number, one_of, write_whole
from speceyes.calibration.recompute import contradiction
from speceyes.errors import CalibrationError
from speceyes.notebook import calibration_html
from speceyes.scoring.scales import to_raw, to_unit

Risk: TypeAlias = Literal["overall", "selective"]
Labels: TypeAlias = Literal["wrong", "worse_than_agent", "differs_from_agent"]
Method: TypeAlias = Literal["crc", "binomial", "hoeffding-bentkus", "betting"]

RISKS: Final[tuple[Risk, ...]] = get_args(Risk)
METHODS: Final[tuple[Method, ...]] = get_args(Method)
MEANINGS: Final[Mapping[Labels, str]] = {
    "wrong": "are wrong",
    "worse_than_agent": "are wrong where the agent is right",
    "differs_from_agent": "differ from the agent's answer, right or wrong",
}
"""Meanings of a label of 1, as ends of "these drafts ..."."""

_FORMAT: Final = "speceyes-calibration"
_VERSION: Final = 1


@final
@dataclass(frozen=True, slots=True)
class CurvePoint:
    """Result of one threshold on the labelled drafts.

    Args:
        threshold: From 0 to 1.
        accepted: How many of the drafts reach it.
        bad: How many of those have a label of 1.
        evidence: What had to stay small: for "crc" (bad + 1) / (n + 1), to be at most the
            target; else the p-value of a risk above the target, to be at most delta.
    """

    threshold: float
    accepted: int
    bad: int
    evidence: float


@final
@dataclass(frozen=True, slots=True)
class Calibration:
    """A threshold with its guarantee, or the finding that no threshold can have it.

    Made by `calibrate`; `statement` puts it into words, docs/guarantee.md has the proofs.

    Args:
        threshold: From 0 to 1, on the gate's scale; None where none can be certified.
        scoring: What the scores were made with.
        risk: "overall": the share of all queries whose draft is accepted and bad. "selective":
            the share of bad ones among the accepted.
        target: The risk that is stayed under.
        delta: The guarantee fails for at most this share of calibrations; None where it holds in
            expectation over calibrations instead.
        method: "crc", "binomial" or "hoeffding-bentkus"; "betting" of `SequentialCalibration`.
        labels: What makes a draft bad: "wrong" (by a gold answer), "worse_than_agent" (wrong
            where the agent is right) or "differs_from_agent" (no human looked).
        n: Labelled queries, those included that never get to the gate.
        accepted: How many of them the threshold accepts.
        bad: How many of those are bad.
        start: How many drafts the first test was made on; None where that isn't part of it.
        labels_needed: Where none can be certified: how many more labels would do if all shares
            stayed as they are; None where no number of them (up to 200,000 in all) would.
        group: The category it holds for; empty for all.
        curve: At most 201 thresholds, the strictest first.
        score_counts: (bin, count) of the raw scores, for the alarm on their shift
            (`speceyes.calibration.shift`).
        created: When, in ISO 8601.
        rows: Labelled rows that the n were drawn from, one of each image; None where every row
            counts.
        judge: What decided which queries reach the gate (`ToolJudge.identity`); None where it isn't
            known, and then it isn't checked.

    Raises:
        CalibrationError: Fields that contradict each other or are out of range.
    """

    threshold: float | None
    scoring: Scoring
    risk: Risk
    target: float
    delta: float | None
    method: Method
    labels: Labels
    n: int
    accepted: int
    bad: int
    start: int | None = None
    labels_needed: int | None = None
    group: str = ""
    curve: tuple[CurvePoint, ...] = ()
    score_counts: tuple[tuple[int, int], ...] = ()
    created: str = ""
    rows: int | None = None
    judge: str | None = None

    _repr_html_ = calibration_html

    def __post_init__(self) -> None:
        one_of("risk", self.risk, RISKS)
        one_of("method", self.method, METHODS)
        one_of("labels", self.labels, tuple(MEANINGS))
        for name, value in (("target", self.target), ("delta", self.delta)):
            optional = value is None and name == "delta"
            if not optional and not (is_number(value) and 0 < value < 1):  # type: ignore[operator]
                raise CalibrationError(f"{name}={value!r}; it must lie strictly between 0 and 1")
        if (self.delta is None) != (self.method == "crc") or (
            self.method == "crc" and self.risk != "overall"
        ):
            raise CalibrationError(
                f"risk={self.risk!r}, method={self.method!r} and delta={self.delta} don't go "
                'together: "crc" controls the overall risk in expectation, without a delta; the '
                "others have one"
            )
        for name in ("n", "accepted", "bad", "start", "labels_needed"):
            count = getattr(self, name)
            optional = count is None and name in ("start", "labels_needed")
            if not optional and (isinstance(count, bool) or not isinstance(count, int)):
                raise CalibrationError(f"{name}={count!r}; it must be a whole number")
        least = 0 if self.threshold is None else 1
        if not 0 <= self.bad <= self.accepted <= self.n or self.n < least:
            raise CalibrationError(
                f"bad={self.bad}, accepted={self.accepted}, n={self.n}; "
                f"0 <= bad <= accepted <= n and n >= {least} are needed"
            )
        if self.rows is not None and (not isinstance(self.rows, int) or self.rows < self.n):
            raise CalibrationError(f"rows={self.rows!r}; it must be a whole number from n={self.n}")
        if self.threshold is None:
            if self.accepted:
                raise CalibrationError(
                    f"threshold=None, but accepted={self.accepted}; it must be 0"
                )
        elif not (is_number(self.threshold) and 0 <= self.threshold < 1):
            raise CalibrationError(
                f"threshold={self.threshold!r}; it must be a number from 0 to below 1, or None "
                "where none was certified"
            )
        if self.created:
            try:
                datetime.fromisoformat(self.created)
            except (TypeError, ValueError) as exc:
                raise CalibrationError(f"created={self.created!r} is no ISO 8601 date") from exc

    @property
    def certified(self) -> bool:
        """True where there is a threshold with the guarantee."""
        return self.threshold is not None

    @property
    def raw_threshold(self) -> float | None:
        """The threshold on the raw scale, as the gate compares it; -inf where all is accepted."""
        if self.threshold is None:
            return None
        scale = self.scoring
        return to_raw(self.threshold, log=scale.aggregate == "log", sharpness=scale.sharpness)

    @property
    def statement(self) -> str:
        """The promise in words.

        Example:
            >>> made = Scoring("small", "ab12")
            >>> Calibration(0.9, made, "selective", 0.05, 0.1, "binomial", "wrong", 400, 99, 2
            ...     ).statement  # doctest: +ELLIPSIS
            'With confidence 90%, at most 5% of the accepted drafts are wrong; for queries drawn...'
        """
        share = f"{100 * self.target:g}%"
        where = f" in category {self.group!r}" if self.group else ""
        if self.threshold is None:
            more = (
                f"about {self.labels_needed} more labels would do if all shares stay as they are, "
                "by a calibration on new labels alone or by SequentialCalibration: to calibrate "
                "again on more of these is a second try, with a delta of its own"
                if self.labels_needed is not None
                else "nor would it be with more labels, if all shares stay as they are"
            )
            if not self.n:
                more = "its queries go to the agent"
            return (
                f"No threshold{where} can be certified for a target of {share} from {self.n} "
                f"labelled queries; {more}."
            )
        sure = (
            "On average over calibrations"
            if self.delta is None
            else (f"With confidence {100 * (1 - self.delta):g}%")
        )
        meaning = MEANINGS[self.labels]
        if self.risk == "selective":
            promise = f"at most {share} of the accepted drafts {meaning}"
        else:
            promise = f"at most {share} of all queries get drafts that are accepted and {meaning}"
        drawn = "" if self.rows is None else ", one of each image"
        drawn = f"drawn as the {self.n} labelled ones were{drawn}"
        return f"{sure}, {promise}; for queries{where} {drawn}."

    def check(
        self,
        *,
        model: str | None = None,
        revision: str | None = None,
        prompt_hash: str | None = None,
        top_k: int | None = None,
        judge: str | None = None,
    ) -> None:
        """Holds what drafts are made with against what the calibration was made with.

        Args:
            model: The small model's name; None, here and below, leaves it unchecked.
            revision: Its revision.
            prompt_hash: Of the prompts.
            top_k: How many log-probabilities drafts carry; the gate cuts off more than K.
            judge: What decides which queries reach the gate.

        Raises:
            CalibrationError: Something is not the same. The message names all of it.
        """
        made = self.scoring
        wrong = [
            f"{name} is {got!r}, not {want!r}"
            for name, got, want in (
                ("the small model", model, made.model),
                ("its revision", revision, made.revision),
                ("the hash of its prompts", prompt_hash, made.prompt_hash),
                ("the judge", judge, self.judge),
            )
            if got is not None and want is not None and got != want
        ]
        if top_k is not None and made.aggregate != "log" and top_k < made.top_k:
            wrong.append(f"drafts carry top_k={top_k} log-probabilities, not {made.top_k}")
        if wrong:
            raise CalibrationError(
                f"this calibration is for something else: {'; '.join(wrong)}. "
                "Calibrate anew on drafts that are made as they will be"
            )

    def to_json(self) -> str:
        """The whole calibration as JSON, indented for people."""
        data = {"format": _FORMAT, "version": _VERSION, **dataclasses.asdict(self)}
        raw = self.raw_threshold
        data["raw_threshold"] = raw if raw is None or math.isfinite(raw) else str(raw)
        data["statement"] = self.statement
        data["curve"] = [list(dataclasses.astuple(point)) for point in self.curve]
        lines = (f"  {json.dumps(k)}: {json.dumps(v, allow_nan=False)}" for k, v in data.items())
        return "{\n" + ",\n".join(lines) + "\n}\n"

    @classmethod
    def from_json(cls, text: str) -> Calibration:
        """The calibration that `to_json` wrote.

        Raises:
            CalibrationError: It is no such JSON, of another version, or contradicts itself.
        """
        try:
            data = json.loads(text)
            if not isinstance(data, dict) or data.pop("format", None) != _FORMAT:
                raise CalibrationError(f'not a calibration: "format": "{_FORMAT}" is missing')
            if (version := data.pop("version", None)) != _VERSION:
                raise CalibrationError(f"version {version!r} can't be read; this is for {_VERSION}")
            raw, _ = data.pop("raw_threshold"), data.pop("statement", None)
            if unknown := sorted(set(data) - {field.name for field in dataclasses.fields(cls)}):
                raise CalibrationError(f"unknown fields: {', '.join(unknown)}")
            data["scoring"] = Scoring(**data["scoring"])
            data["curve"] = tuple(CurvePoint(*point) for point in data["curve"])
            data["score_counts"] = tuple((int(b), int(c)) for b, c in data["score_counts"])
            made = cls(**data)
            agree = made._agrees(raw)
        except CalibrationError:
            raise
        except (KeyError, TypeError, ValueError) as exc:
            raise CalibrationError(f"not a calibration: {type(exc).__name__}: {exc}") from exc
        if not agree:
            raise CalibrationError(
                f"threshold={made.threshold} is {made.raw_threshold} on the raw scale, but "
                f"raw_threshold={raw} is written: one of the two was edited; calibrate anew"
            )
        if wrong := contradiction(made):
            raise CalibrationError(f"it contradicts itself: {wrong}; calibrate anew")
        return made

    def _agrees(self, raw: Any) -> bool:
        """True where the written raw threshold is the same one, but for a libm's rounding."""
        if raw is None or self.threshold is None:
            return raw is None and self.threshold is None
        scale = self.scoring
        unit = to_unit(float(raw), log=scale.aggregate == "log", sharpness=scale.sharpness)
        return math.isclose(unit, self.threshold, rel_tol=1e-12, abs_tol=1e-15)

    def save(self, path: str | PathLike[str]) -> None:
        """Writes the JSON, whole or not at all."""
        write_whole(path, self.to_json())

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Calibration:
        """The calibration in a file.

        Raises:
            CalibrationError: The file can't be read, or `from_json` can't read what is in it.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, ValueError) as exc:
            raise CalibrationError(f"{path} can't be read: {exc}") from exc
        try:
            return cls.from_json(text)
        except CalibrationError as exc:
            raise CalibrationError(f"{path}: {exc}") from exc
