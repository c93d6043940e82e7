"""A calibration: a threshold, what it promises, and what it was found with; one JSON file."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from os import PathLike
from typing import Any, Final, Literal, TypeAlias, final, get_args

from speceyes.calibration.matched import Gold
from speceyes.calibration.provenance import Scoring, is_number, is_whole, one_of
from speceyes.calibration.recompute import contradiction
from speceyes.calibration.sealed import DIGEST, check_digest, sealed
from speceyes.errors import CalibrationError
from speceyes.files import load_whole, write_whole
from speceyes.notebook import calibration_html
from speceyes.scoring.scales import to_raw, to_unit

Risk: TypeAlias = Literal["overall", "selective"]
Labels: TypeAlias = Literal["wrong", "worse_than_agent", "differs_from_agent", "net_of_agent"]
Method: TypeAlias = Literal["crc", "binomial", "hoeffding-bentkus", "betting", "matched"]

RISKS: Final[tuple[Risk, ...]] = get_args(Risk)
METHODS: Final[tuple[Method, ...]] = get_args(Method)
MEANINGS: Final[Mapping[Labels, str]] = {
    "wrong": "are wrong",
    "worse_than_agent": "are wrong where the agent is right",
    "differs_from_agent": "differ from the agent's answer, right or wrong",
    "net_of_agent": "are wrong where the agent is right, less those that are right where it isn't",
}
"""Meanings of a label of 1, as ends of "these drafts ..."."""

_FORMAT: Final = "speceyes-calibration"
_VERSION: Final = 1
_BESIDE: Final = ("format", "version", "raw_threshold", "statement", DIGEST)
"""What a file holds beside the fields."""


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
        method: "crc", "binomial" or "hoeffding-bentkus"; "betting" of `SequentialCalibration`,
            "matched" of `calibrate_relative`.
        labels: What makes a draft bad: "wrong" (by a gold answer), "worse_than_agent" (wrong
            where the agent is right), "differs_from_agent" (no human looked), or "net_of_agent"
            (as "worse_than_agent", with drafts that are right where the agent is wrong taken off).
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
        gold: For "matched" only: counts of accepted drafts that differ from the agent's answer, of
            which `bad` are worse by gold; see `speceyes.calibration.matched`.
        drawn_like: New queries whose scores the labelled ones were matched to
            (`calibrate_shifted`); None where they were drawn as those to come.

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
    gold: Gold | None = None
    drawn_like: int | None = None

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
            if not optional and not is_whole(count):
                raise CalibrationError(f"{name}={count!r}; it must be a whole number")
        least = 0 if self.threshold is None else 1
        if not 0 <= self.bad <= self.accepted <= self.n or self.n < least:
            raise CalibrationError(
                f"bad={self.bad}, accepted={self.accepted}, n={self.n}; "
                f"0 <= bad <= accepted <= n and n >= {least} are needed"
            )
        if self.rows is not None and (not is_whole(self.rows) or self.rows < self.n):
            raise CalibrationError(f"rows={self.rows!r}; it must be a whole number from n={self.n}")
        for name in ("group", "judge"):
            text = getattr(self, name)
            if not isinstance(text, str) and not (text is None and name == "judge"):
                raise CalibrationError(f"{name}={text!r}; it must be text")
        if not isinstance(self.scoring, Scoring):
            raise CalibrationError(f"scoring={self.scoring!r}; it must be a Scoring")
        if self.start is not None and (self.start < 1 or self.risk != "selective"):
            raise CalibrationError(
                f"start={self.start} for the {self.risk} risk; it must be at least 1, and goes "
                "with a selective risk"
            )
        if self.labels_needed is not None and (
            self.labels_needed < 1 or self.threshold is not None
        ):
            raise CalibrationError(
                f"labels_needed={self.labels_needed}; it must be at least 1, and goes without a "
                "threshold"
            )
        self._check_gold()
        like = self.drawn_like
        if like is not None and (not is_whole(like) or like < self.n):
            raise CalibrationError(f"drawn_like={like!r}; it must be a whole number from {self.n}")
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
        if self.created != "":
            try:
                datetime.fromisoformat(self.created)
            except (TypeError, ValueError) as exc:
                raise CalibrationError(f"created={self.created!r} is no ISO 8601 date") from exc

    def _check_gold(self) -> None:
        """Refuses gold counts that don't go with the rest."""
        if (self.gold is not None) != (self.method == "matched"):
            raise CalibrationError(f"method={self.method!r} and gold={self.gold} don't go together")
        if (self.labels == "net_of_agent") and (self.gold is None or self.gold.better is None):
            raise CalibrationError('labels="net_of_agent" goes with gold that counts better ones')
        if self.gold is None:
            return
        if self.risk != "overall" or self.gold.worse != self.bad:
            raise CalibrationError(
                f"risk={self.risk!r}, bad={self.bad}; of gold counts the risk is overall and bad "
                f"is {self.gold.worse}"
            )
        if fault := self.gold.fault(self.accepted):
            raise CalibrationError(fault)

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
        elif self.labels == "net_of_agent":
            promise = f"answers are right less often than the agent's in at most {share} of queries"
        else:
            promise = f"at most {share} of all queries get drafts that are accepted and {meaning}"
        drawn = "" if self.rows is None else ", one of each image"
        drawn = f"drawn as the {self.n} labelled ones were{drawn}"
        if self.drawn_like is not None:
            drawn = (
                f"whose scores are drawn as those of {self.drawn_like} new ones were, bad drafts "
                "being as likely at each score as they are among the labelled"
            )
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
        data["score_counts"] = [list(pair) for pair in self.score_counts]
        lines = (
            f"  {json.dumps(k)}: {json.dumps(v, allow_nan=False)}" for k, v in sealed(data).items()
        )
        return "{\n" + ",\n".join(lines) + "\n}\n"

    @classmethod
    def from_json(cls, text: str) -> Calibration:
        """The calibration that `to_json` wrote.

        Raises:
            CalibrationError: It is no such JSON, of another version, or contradicts itself.
        """
        try:
            data = json.loads(text)
            if not isinstance(data, dict) or data.get("format") != _FORMAT:
                raise CalibrationError(f'not a calibration: "format": "{_FORMAT}" is missing')
            version = data.get("version")
            if not is_whole(version) or version != _VERSION:
                raise CalibrationError(
                    f"version {version!r} can't be read; this is for {_VERSION}: calibrate anew"
                )
            fields = {name: value for name, value in data.items() if name not in _BESIDE}
            raw = data["raw_threshold"]
            if unknown := sorted(set(fields) - {field.name for field in dataclasses.fields(cls)}):
                raise CalibrationError(f"unknown fields: {', '.join(unknown)}")
            fields["scoring"] = Scoring(**data["scoring"])
            fields["curve"] = tuple(CurvePoint(*point) for point in data["curve"])
            if data["gold"] is not None:
                fields["gold"] = Gold(**data["gold"])
            fields["score_counts"] = tuple((place, count) for place, count in data["score_counts"])
            made = cls(**fields)
            agree = made._agrees(raw)
            wrong = contradiction(made)
        except CalibrationError:
            raise
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as exc:
            raise CalibrationError(f"not a calibration: {type(exc).__name__}: {exc}") from exc
        if not agree:
            raise CalibrationError(
                f"threshold={made.threshold} is {made.raw_threshold} on the raw scale, but "
                f"raw_threshold={raw} is written: one of the two was edited; calibrate anew"
            )
        if wrong:
            raise CalibrationError(f"it contradicts itself: {wrong}; calibrate anew")
        check_digest(data, "calibrate anew")
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
        return load_whole(path, cls.from_json, error=CalibrationError)
