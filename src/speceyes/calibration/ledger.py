"""Ledger of what was promised on a set of labels: a file that only grows."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import final

import numpy as np
import numpy.typing as npt

from speceyes.calibration.provenance import is_number
from speceyes.calibration.record import Calibration
from speceyes.calibration.sealed import DIGEST, check_digest, sealed
from speceyes.errors import CalibrationError


@final
@dataclass(frozen=True, slots=True)
class Entry:
    """A calibration that was made.

    Args:
        labels: Hash of the labels.
        setting: Hash of everything that was set.
        delta: What it spent; None for a promise in expectation.
        statement: What it promises.
        created: When, in ISO 8601.

    Raises:
        CalibrationError: A field is of another kind, or delta out of range.
    """

    labels: str
    setting: str
    delta: float | None
    statement: str
    created: str

    def __post_init__(self) -> None:
        for name in ("labels", "setting", "statement", "created"):
            if not isinstance(getattr(self, name), str):
                raise CalibrationError(f"{name}={getattr(self, name)!r}; it must be text")
        spent = self.delta
        if spent is not None and not (is_number(spent) and 0 < spent < 1):
            raise CalibrationError(f"delta={spent!r}; it must lie strictly between 0 and 1")


@final
class Ledger:
    """Notes each calibration on a set of labels, and adds up what they spent.

    Any one of the calibrations on the same labels holds with its own confidence; whoever keeps the
    best of them has one minus the sum of their deltas. The same calibration again spends nothing.

    Args:
        path: A file of JSON lines, made where it isn't there; lines are only appended.

    Example:
        >>> import tempfile
        >>> from speceyes.calibration import Scoring, calibrate
        >>> ledger = Ledger(Path(tempfile.mkdtemp()) / "ledger.jsonl")
        >>> scores, bad = [9.0] * 60, [0] * 60
        >>> for target in (0.05, 0.1, 0.1):
        ...     found = calibrate(scores, bad, Scoring("small", "ab12"), target=target)
        ...     spent = ledger.note(found, labels_hash(bad))
        >>> spent, len(ledger.entries(labels_hash(bad)))
        (0.2, 2)
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)

    def note(self, made: Calibration, labels: str) -> float:
        """Notes a calibration; delta of all on these labels together, at most 1.

        Args:
            made: The calibration.
            labels: See `labels_hash`.
        """
        known = self.entries(labels)
        entry = Entry(labels, _setting(made), made.delta, made.statement, made.created)
        if entry.setting not in {one.setting for one in known}:
            line = json.dumps(sealed(dataclasses.asdict(entry)))
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
            known.append(entry)
        return min(1.0, sum(one.delta or 0.0 for one in known))

    def entries(self, labels: str | None = None) -> list[Entry]:
        """Calibrations that were noted, in order, perhaps those on some labels only.

        Raises:
            CalibrationError: A line isn't one of a ledger.
        """
        if not self.path.exists():
            return []
        found = []
        for number, line in enumerate(self.path.read_text(encoding="utf-8").splitlines(), 1):
            try:
                data = json.loads(line)
                entry = Entry(**{name: data[name] for name in data if name != DIGEST})
                check_digest(data, "what these labels were used for is no longer known")
            except (TypeError, ValueError, AttributeError, RecursionError) as exc:
                raise CalibrationError(f"{self.path}, line {number}: {exc}") from exc
            if labels in (None, entry.labels):
                found.append(entry)
        return found


def labels_hash(*labels: npt.ArrayLike) -> str:
    """Hash (hex) of labels, in their order; further arrays or names of queries may be given."""
    digest = hashlib.sha256()
    for one in labels:
        array = np.asarray(one)
        text = array.astype(str).tolist() if array.dtype.kind in "OUS" else array.tolist()
        digest.update(json.dumps(text).encode() + b"\n")
    return digest.hexdigest()


def _setting(made: Calibration) -> str:
    data = json.loads(made.to_json())
    for name in ("created", "statement", DIGEST):
        data.pop(name)
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
