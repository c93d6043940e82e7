"""A run's folder: records that survive a kill, one writer at a time, and reading them back.

Records are written a block at a time: what one arm did with one round of queries, a line each,
and then a line that says the block is whole. What follows the last such line, a torn line
included, is cut off when the run goes on, and that block runs anew, in the same company, so
that batches, and with them answers, are those of an unbroken run.
"""

from __future__ import annotations

import csv
import hashlib
import importlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, final

from speceyes.errors import ConfigError, InputError
from speceyes.evaluation import manifest
from speceyes.types import Result

RECORDS: Final = "records.jsonl"
PICTURES: Final = "pictures.jsonl"
MANIFEST: Final = "manifest.json"
LOCK: Final = "lock"
_LATE: Final = ("result", "image_key")

CALIBRATION: Final = "calibration"
"""The phase that thresholds are chosen on: the agent and the drafts, no gate."""
TEST: Final = "test"
"""The phase of all arms."""
AGAIN: Final = "again"
"""Block of an arm's second turn in a round, which has no records: only its time counts."""


@final
@dataclass(frozen=True, slots=True)
class Record:
    """One arm's graded result on one query.

    Args:
        phase: "calibration", "test", or "batch-N" of a sweep over batch sizes.
        round: Number of the round in its phase.
        arm: The arm's name.
        benchmark: Where the sample is from.
        kind: The sample's kind.
        question: The question as it was asked, options included.
        choices: The options.
        gold: The right answer.
        correct: The grade; no answer is wrong.
        seconds: From when the arm took the query to when it handed out the answer.
        result: What the arm said and how it got there.
        judged: What each judge said off the clock, True for tools needed; the draft arm's only.
        image_key: Key of the query's first image by its pixels; empty where it isn't known.
    """

    phase: str
    round: int
    arm: str
    benchmark: str
    kind: str
    question: str
    choices: tuple[str, ...]
    gold: str
    correct: bool
    seconds: float
    result: Result
    judged: Mapping[str, bool] = field(default_factory=dict)
    image_key: str = ""

    def to_json(self) -> str:
        """One line of JSON, with the result under "result" as `Result.to_json` writes it."""
        head = {n: getattr(self, n) for n in self.__dataclass_fields__ if n != "result"}
        head = {"query_id": self.result.query_id, **head, "judged": dict(self.judged)}
        start = json.dumps(head, separators=(",", ":"))
        return f'{start[:-1]},"result":{self.result.to_json()}}}'

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Record:
        """The record that `to_json` wrote, out of parsed JSON.

        Raises:
            InputError: It is no such record.
        """
        try:
            names = [name for name in cls.__dataclass_fields__ if name not in _LATE]
            fields = {name: data[name] for name in names}
            fields["image_key"] = data.get("image_key", "")  # runs of before have none
            fields["choices"] = tuple(fields["choices"])
            return cls(**fields, result=Result.from_json(json.dumps(data["result"])))
        except (KeyError, TypeError, ValueError) as exc:
            raise InputError(f"not a record of a run: {exc!r} in {str(data)[:120]}") from exc


@final
@dataclass(frozen=True, slots=True)
class Block:
    """That an arm is through with a round.

    Args:
        phase: See `Record`.
        round: See `Record`.
        arm: See `Record`.
        wall: Seconds that the arm ran.
        n: Queries in it whose records stand before it; none for `AGAIN`.
        spent: Tokens by role ("large", "small", ...): "read" of prompts, "reused" of them, and
            "decoded"; empty for models that don't count.
        cpu: CPU seconds of this process; None in runs of before it was noted.
        others: Share of the machine that other processes took meanwhile, 0 to 1; None where the
            system doesn't tell.
        engine: By role what a served model's engine says: "requests", and seconds of them "queued",
            in "prefill" and in "decode"; empty where it says nothing.
    """

    phase: str
    round: int
    arm: str
    wall: float
    n: int
    spent: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    cpu: float | None = None
    others: float | None = None
    engine: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, int, str]:
        """Phase, round and arm, which name the block."""
        return self.phase, self.round, self.arm


@final
@dataclass(frozen=True, slots=True)
class Run:
    """A run as it was read back: its whole blocks and their records.

    Args:
        folder: Where it is.
        manifest: See `manifest.begin`.
        blocks: In the order in which they were written.
        records: Likewise.
    """

    folder: Path
    manifest: Mapping[str, Any]
    blocks: tuple[Block, ...]
    records: tuple[Record, ...]

    @property
    def fixed(self) -> Mapping[str, Any]:
        """The manifest's part that may not change within a run."""
        found: Mapping[str, Any] = self.manifest["fixed"]
        return found

    def of(self, phase: str, arm: str) -> tuple[Record, ...]:
        """An arm's records of a phase, by round and then in the order of the queries."""
        found = [r for r in self.records if r.phase == phase and r.arm == arm]
        return tuple(sorted(found, key=lambda r: r.round))

    def rows(self) -> list[dict[str, Any]]:
        """The records as flat rows, for tables: one a query, arm and round."""
        return [
            {
                "phase": r.phase,
                "round": r.round,
                "arm": r.arm,
                "benchmark": r.benchmark,
                "kind": r.kind,
                "query_id": r.result.query_id,
                "question": r.question,
                "gold": r.gold,
                "answer": r.result.answer,
                "correct": r.correct,
                "route": r.result.route,
                "draft": None if r.result.draft is None else r.result.draft.text,
                "score": None if r.result.verdict is None else r.result.verdict.score,
                "tool_calls": None if r.result.trajectory is None else r.result.trajectory.depth,
                "seconds": r.seconds,
                "error": r.result.error,
            }
            for r in self.records
        ]

    def frame(self) -> Any:
        """The rows as a pandas DataFrame.

        Raises:
            ConfigError: pandas is not installed.
        """
        try:
            pandas: Any = importlib.import_module("pandas")
        except ImportError:
            raise ConfigError("a frame needs pandas: pip install pandas") from None
        return pandas.DataFrame(self.rows())

    def to_parquet(self, path: str | os.PathLike[str]) -> None:
        """Writes the rows as a Parquet file.

        Raises:
            ConfigError: pyarrow is not installed.
        """
        write_table(self.rows(), Path(path))

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Writes the rows as CSV, with a line of names."""
        write_table(self.rows(), Path(path))

    def pictures(self) -> Iterator[dict[str, Any]]:
        """The pictures given to `Writer.block`, read as they are asked for."""
        path = self.folder / PICTURES
        if path.exists():
            with path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    if not line.endswith(b"\n"):
                        break  # torn, or being written
                    data = _parsed(line)
                    if data is None:
                        raise InputError(
                            f"{path} was damaged: line {number} can't be read ({line[:60]!r:.60})"
                        )
                    yield data


def write_table(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Writes rows as CSV where the path ends in .csv, and as Parquet else.

    Raises:
        ConfigError: It is Parquet, and pyarrow is not installed.
    """
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]) if rows else [], lineterminator="\n")
            table.writeheader()
            table.writerows(rows)
        return
    try:
        arrow: Any = importlib.import_module("pyarrow")
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise ConfigError("Parquet needs pyarrow: pip install 'speceyes[eval]'") from None
    parquet.write_table(arrow.Table.from_pylist(list(rows)), path)


@dataclass(slots=True)
class _Scanned:
    """Contents of a records file: whole blocks, the parsed records in them, how many bytes of both
    files they take, and the checksum of all of it.
    """

    blocks: list[Block] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)
    end: int = 0
    pictures: int = 0
    checksum: str = ""


def _scan(path: Path) -> _Scanned:
    """The whole blocks of a run.

    Raises:
        InputError: What is before the last whole block was damaged or changed.
    """
    found = _Scanned()
    if not path.exists():
        return found
    pending: list[bytes] = []
    at = 0
    damage: str | None = None
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            at += len(line)
            data = _parsed(line)
            if data is None:
                # Torn, if nothing whole follows: a kill leaves such a line at the end.
                damage = damage or f"line {number} can't be read: {line[:60]!r:.60}"
            elif "done" not in data:
                pending.append(line)
            elif damage is not None or (damage := _add(found, pending, data, number)):
                raise InputError(
                    f"{path} was damaged or changed after it was written: {damage}. Take it from a "
                    "copy, or cut the file off there and run speceyes eval again to go on"
                )
            else:
                pending, found.end = [], at
    return found


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        data = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def _add(found: _Scanned, lines: list[bytes], end: Mapping[str, Any], number: int) -> str | None:
    """Adds a block to what was found. Returns what is wrong with it, if anything is."""
    try:
        block, pictures = Block(**end["done"]), end["pictures"]
        numbers = (block.round, block.n, pictures, block.wall)
        if not all(isinstance(one, int | float) for one in numbers):
            raise TypeError(numbers)
    except (KeyError, TypeError) as exc:
        return f"line {number} is no end of a block ({exc})"
    name = f"the block that ends in line {number} ({block.phase}, {block.round}, {block.arm})"
    if len(lines) != block.n:
        return f"{name} has {len(lines)} of {block.n} records"
    said = end.get("sha256")  # not in runs of before it was noted
    checksum = _checksum(found.checksum, lines, end)
    if said != checksum and (said is not None or found.checksum):
        return f"{name} doesn't have its checksum"
    found.checksum = checksum if said is not None else ""
    found.blocks.append(block)
    found.records += [json.loads(line) for line in lines]
    found.pictures = int(pictures)
    return None


def _checksum(before: str, lines: Sequence[bytes], end: Mapping[str, Any]) -> str:
    """Checksum of a block and of all before it, in hexadecimal."""
    said = {key: value for key, value in end.items() if key != "sha256"}
    parts = [before.encode(), *lines, json.dumps(said, sort_keys=True).encode()]
    return hashlib.sha256(b"\n".join(parts)).hexdigest()


def check_folder(folder: Path) -> None:
    """Makes sure, before anything is loaded, that a run can be written there.

    Raises:
        ConfigError: Another process writes it, or it can't be written.
    """
    os.close(_claimed(Path(folder).resolve()))


def _claimed(folder: Path) -> int:
    """The lock of a folder that can be written to; made where it isn't there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        for name in (RECORDS, PICTURES):
            if (folder / name).exists():
                (folder / name).open("ab").close()
        lock = _locked(folder / LOCK)
    except OSError as exc:
        raise ConfigError(
            f"{folder} can't be written ({exc.strerror or exc}): choose another folder"
        ) from exc
    if (folder / RECORDS).exists() and not (folder / MANIFEST).exists():
        os.close(lock)
        raise ConfigError(f"{folder} has {RECORDS} without {MANIFEST}: choose another folder")
    return lock


def read(folder: str | os.PathLike[str]) -> Run:
    """The whole blocks of a run, whether it has ended, was killed, or is under way.

    Raises:
        InputError: There is no run in the folder, or it was damaged or changed since.
    """
    folder = Path(folder)
    about = manifest.read(folder / MANIFEST)
    found = _scan(folder / RECORDS)
    records = tuple(Record.from_dict(line) for line in found.records)
    return Run(folder.resolve(), about, tuple(found.blocks), records)


@final
class Writer:
    """Writes a run's folder; a context manager, and only one at a time has a folder.

    Args:
        folder: Made where it isn't there.
        fixed: See `manifest.begin`.

    Raises:
        ConfigError: Another process writes the folder, it holds a run made otherwise, or files
            that no run wrote.
    """

    def __init__(self, folder: Path, fixed: Mapping[str, Any]) -> None:
        self.folder = Path(folder).resolve()
        self._lock = _claimed(self.folder)
        try:
            found = _scan(self.folder / RECORDS)
            self.manifest, self.resumed = manifest.begin(self.folder / MANIFEST, fixed)
            self.blocks = {block.key: block for block in found.blocks}
            self.records = [Record.from_dict(line) for line in found.records]
            self._checksum = found.checksum
            # A run that was begun before checksums were noted goes on without.
            self._checked = bool(found.checksum) or not found.blocks
            self._records = _cut(self.folder / RECORDS, found.end)
            self._pictures = _cut(self.folder / PICTURES, found.pictures)
        except BaseException:
            os.close(self._lock)
            raise

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._records.close()
        self._pictures.close()
        os.close(self._lock)

    def block(
        self, block: Block, records: Sequence[Record], pictures: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """Appends a block; it counts once this returns, and survives the machine's fall."""
        for picture in pictures:
            self._pictures.write(json.dumps(picture, separators=(",", ":")).encode() + b"\n")
        if pictures:
            _settle(self._pictures)
        lines = [record.to_json().encode() + b"\n" for record in records]
        for written in lines:
            self._records.write(written)
            self._records.flush()
        done = {name: getattr(block, name) for name in block.__dataclass_fields__}
        line = json.loads(json.dumps({"done": done, "pictures": self._pictures.tell()}))
        if self._checked:
            self._checksum = _checksum(self._checksum, lines, line)
            line["sha256"] = self._checksum
        self._records.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
        _settle(self._records)
        self.blocks[block.key] = block
        self.records += records

    def run(self) -> Run:
        """The run as written so far."""
        return Run(self.folder, self.manifest, tuple(self.blocks.values()), tuple(self.records))


def _settle(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


def _cut(path: Path, length: int) -> Any:
    """The file opened for appending, shortened to that length."""
    file = path.open("ab")
    file.truncate(length)
    file.seek(0, os.SEEK_END)
    return file


def _locked(path: Path) -> int:
    """A descriptor that holds the lock until it is closed; the system frees it at a kill."""
    try:
        import fcntl
    except ImportError:  # pragma: no cover - not on this system
        raise ConfigError("runs need flock to keep writers apart, which Windows lacks") from None

    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise ConfigError(
            f"another run writes {path.parent} now: wait for it, or choose another folder"
        ) from None
    os.truncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor
