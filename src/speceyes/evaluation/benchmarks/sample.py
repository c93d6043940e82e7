"""A benchmark's sample, a list of them that decodes images as they are asked for, and splits."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias, final, overload

from speceyes.errors import ImageError, InputError
from speceyes.images import DEFAULT_LIMITS, ImageLimits, load_image
from speceyes.images.similarity import alike, clusters
from speceyes.images.sources import check_bytes, is_base64, read_file, short
from speceyes.types import Image, Query


@dataclass(frozen=True, slots=True)
class Sample:
    """A query with its right answer.

    Args:
        query: What is asked; its id is unique within the benchmark, its choices are in the order
            in which they are shown.
        answer: The right answer's text; where there are choices, the right choice's text.
        kind: The benchmark's category, for breaking figures down.
        image_key: Fingerprint (hex) of the first image's pixels; see `split`.
        benchmark: The benchmark's name.
        parity_prompt: The text that published evaluations send in place of the query's own;
            None unless parity was asked for and there is one.
    """

    query: Query
    answer: str
    kind: str
    image_key: str
    benchmark: str
    parity_prompt: str | None = None


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that can't be used: where it stands, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Cell:
    """An image as base64 text inside a larger file.

    Args:
        path: The file.
        offset: Where the text begins, in bytes.
        length: How long it is, in bytes.
    """

    path: Path
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class ParquetCell:
    """An image in a parquet file: bytes, a struct with `bytes`, or base64 text.

    Args:
        path: The file.
        group: The row group.
        place: The row within the group.
        column: The column.
    """

    path: Path
    group: int
    place: int
    column: str


class Drawn(Protocol):
    """An image that is drawn anew each time."""

    @property
    def key(self) -> str:
        """Fingerprint (hex) of what it shows."""
        ...

    def image(self) -> Image:
        """The image."""
        ...


Stored: TypeAlias = "Path | bytes | Cell | ParquetCell"
"""Where an encoded image is: a file, memory, or a part of a file."""
Source: TypeAlias = "Stored | Drawn"


def open_image(source: Source, limits: ImageLimits) -> Image:
    """The image, decoded or drawn.

    Raises:
        ImageError: It can't be read, or is outside the limits.
    """
    if isinstance(source, Path | bytes | Cell | ParquetCell):
        return load_image(read_bytes(source, limits), limits=limits)
    return load_image(source.image(), limits=limits)


def read_bytes(source: Stored, limits: ImageLimits) -> bytes:
    """The encoded image.

    Raises:
        ImageError: It can't be read, isn't base64 where it should be, or is too long.
    """
    if isinstance(source, bytes):
        check_bytes(len(source), "the image", limits.max_bytes)
        return source
    if isinstance(source, Path):
        return read_file(source, limits.max_bytes)
    if isinstance(source, ParquetCell):
        return _of_parquet(source, limits)
    check_bytes(source.length * 3 // 4, "the base64 image", limits.max_bytes)
    try:
        with source.path.open("rb") as file:
            file.seek(source.offset)
            text = file.read(source.length)
    except OSError as exc:
        raise ImageError(f"{source.path} can't be read ({exc.strerror})") from None
    return _from_base64(text)


def _from_base64(text: bytes | str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise ImageError("the image is not valid base64; download the file again") from None


def _of_parquet(source: ParquetCell, limits: ImageLimits) -> bytes:
    from speceyes.evaluation.benchmarks import _parquet  # it needs this module

    try:
        value = _parquet.cell(source.path, source.group, source.place, source.column)
    except (OSError, ValueError) as exc:
        raise ImageError(f"{source.path} can't be read ({exc})") from None
    if isinstance(value, dict):
        value = value.get("bytes")
    if not isinstance(value, bytes | str) or not value:
        raise ImageError(f"the row has no bytes of an image in the column {source.column}")
    data = _from_base64(value) if isinstance(value, str) else value
    check_bytes(len(data), "the image", limits.max_bytes)
    return data


@dataclass(frozen=True, slots=True)
class Entry:
    """A sample before its images are decoded; fields as those of `Sample` and its query."""

    id: str
    question: str
    choices: tuple[str, ...]
    answer: str
    kind: str
    image_key: str
    benchmark: str
    sources: tuple[Source, ...]
    parity_prompt: str | None = None
    image_keys: tuple[str, ...] = ()
    """Fingerprints of all images; the first one's alone where it is empty."""
    looks: tuple[bytes | None, ...] = ()
    """What each image looks like (`speceyes.images.similarity.look`); None where it is drawn."""


@final
class Samples(Sequence[Sample]):
    """Samples that decode their images each time they are asked for: what is held are paths and
    encoded bytes, never pixels. A slice is another such list.

    Args:
        entries: What is known of each sample.
        limits: What its images may be.
    """

    def __init__(self, entries: Sequence[Entry], limits: ImageLimits = DEFAULT_LIMITS) -> None:
        self._entries = tuple(entries)
        self._limits = limits

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The samples without their images."""
        return self._entries

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> Samples: ...

    def __getitem__(self, index: int | slice) -> Sample | Samples:
        if isinstance(index, slice):
            return Samples(self._entries[index], self._limits)
        entry = self._entries[index]
        images = tuple(open_image(source, self._limits) for source in entry.sources)
        return Sample(
            Query(entry.question, images, entry.choices, id=entry.id),
            entry.answer,
            entry.kind,
            entry.image_key,
            entry.benchmark,
            entry.parity_prompt,
        )

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        return f"Samples({len(self)} samples)"

    def chosen(self, indices: Sequence[int]) -> Samples:
        """The samples of these numbers, in this order."""
        return Samples([self._entries[index] for index in indices], self._limits)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A benchmark's samples, and its rows that can't be used.

    Args:
        samples: The samples that can be asked.
        bad: The rows that can't, by name, with reasons. With a limit, images are looked at only
            until so many samples are good.
    """

    samples: Samples
    bad: tuple[BadRow, ...]

    def left_out(self, most: int = 5) -> list[str]:
        """A line for each kind of reason for which rows were left out, the commonest first.

        Args:
            most: Lines at most; the last one then sums up the rest.

        Example:
            >>> bad = tuple(BadRow(f"line {i}", f"image 'x{i}.jpg' lies outside") for i in (1, 2))
            >>> Loaded(Samples([]), bad).left_out()
            ["2 rows: image 'x1.jpg' lies outside (first: line 1)"]
        """
        kinds: dict[str, list[BadRow]] = defaultdict(list)
        for row in self.bad:
            kinds[_VARIES.sub("", row.reason)].append(row)
        groups = sorted(kinds.values(), key=len, reverse=True)
        shown = groups if len(groups) <= most else groups[: most - 1]
        lines = [
            f"{rows[0].name}: {rows[0].reason}"
            if len(rows) == 1
            else f"{len(rows)} rows: {rows[0].reason} (first: {rows[0].name})"
            for rows in shown
        ]
        rest = sum(map(len, groups[len(shown) :]))
        return [*lines, f"{rest} rows for {len(groups) - len(shown)} other reasons"][
            : len(lines) + (rest > 0)
        ]

    def check(self) -> None:
        """Passes where there are samples.

        Raises:
            InputError: There is none; the message says how many rows were left out, and why.
        """
        if not len(self.samples):
            n = len(self.bad)
            why = "; ".join(self.left_out(3)) or "the benchmark is empty"
            raise InputError(f"no usable samples: {n} of {n} left out, because {why}")


_VARIES = re.compile(r"'[^']*'|\"[^\"]*\"|\d+|/\S+")
"""Names, numbers and paths, which differ between rows with the same fault."""


def rank(*parts: object) -> str:
    """A random-looking, repeatable place in an order, the same on every machine and version."""
    return hashlib.sha256("\0".join(map(str, parts)).encode("utf-8", "replace")).hexdigest()


def samples_hash(samples: Samples) -> str:
    """Hash (16 hex digits) of ids, images, questions, options and answers, in order."""
    return rank(
        *(f"{e.id}\n{e.image_key}\n{e.question}\n{e.choices}\n{e.answer}" for e in samples.entries)
    )[:16]


def split(samples: Samples, calibration_share: float, seed: int = 0) -> tuple[Samples, Samples]:
    """The samples in two parts, (calibration, test), with no image on both sides, nor one that
    looks the same: saved again, smaller, or cut by few pixels. All images of a query count.

    Images are taken in an order drawn from the seed until the calibration part has its share of
    samples; the first image that would pass it by more than it lacks stays out. Both parts keep
    the samples' order.

    Args:
        samples: What is split.
        calibration_share: Share of the samples for calibration, between 0 and 1.
        seed: Which split; the same seed gives the same one.

    Raises:
        InputError: The share isn't between 0 and 1.
    """
    if not 0 <= calibration_share <= 1:
        raise InputError(f"calibration_share={calibration_share}; it must be between 0 and 1")
    entries = samples.entries
    by_cluster: dict[int, list[int]] = defaultdict(list)
    for index, number in enumerate(_clusters(entries)):
        by_cluster[number].append(index)
    by_image = {min(entries[at].image_key for at in group): group for group in by_cluster.values()}
    wanted = calibration_share * len(samples)
    taken: set[int] = set()
    for key in sorted(by_image, key=lambda key: rank("split", seed, key)):
        group = by_image[key]
        if abs(len(taken) + len(group) - wanted) < abs(len(taken) - wanted):
            taken.update(group)
        elif len(taken) >= wanted:
            break
    rest = [index for index in range(len(samples)) if index not in taken]
    return samples.chosen(sorted(taken)), samples.chosen(rest)


def _clusters(entries: Sequence[Entry]) -> list[int]:
    """Number of the cluster of each sample: those that share an image, or have alike ones."""
    keys = [entry.image_keys or (entry.image_key,) for entry in entries]
    first: dict[bytes, int] = {}
    pairs: list[tuple[int, int]] = []
    for at, entry in enumerate(entries):
        for seen in entry.looks:
            if seen is not None and first.setdefault(seen, at) != at:
                pairs.append((first[seen], at))
    places = list(first.values())
    pairs += [(places[a], places[b]) for a, b in alike(list(first))]
    return clusters(keys, pairs)


def text_of(data: bytes) -> str:
    """The bytes as UTF-8, a byte-order mark left out.

    Raises:
        InputError: They aren't.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise InputError(f"not UTF-8 (byte {exc.start}); save it with that encoding") from None


def inside(folder: Path, name: str) -> Path:
    """The path of a file that a row names, which may not lie outside the folder.

    Raises:
        InputError: It does, or the row names no file but an address, or holds the picture itself.
    """
    if "\0" in name:
        raise InputError("the image's path holds a zero byte")
    start = name.strip()[:64]
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", start):
        raise InputError(
            f"image {short(name)!r} is an address, and none is fetched here: download the "
            f"pictures into {folder}, and name the files"
        )
    if re.match(r"(?i)data:|(?:[a-z]+/[a-z+.-]+;)?base64,", start) or is_base64(start):
        raise InputError(
            f"image {short(name)!r} is a picture written out as text: write it to a file in "
            f"{folder}, and name that"
        )
    root = os.path.normpath(folder.absolute())
    path = Path(os.path.normpath(folder.absolute() / name))
    if not path.is_relative_to(root):
        raise InputError(f"image {name!r} lies outside {folder}: put it inside, and name it so")
    return path
