"""Benchmarks in their published layouts: V*, HR-Bench, POPE, a user's JSONL; scenes and puzzles.

`load` reads one from a folder, `write` writes questions in its layout, `split` parts samples by
image into those a threshold is chosen on and those it is tested on.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from speceyes.errors import InputError
from speceyes.evaluation.benchmarks import hrbench, jsonl, pope, puzzles, scenes, vstar
from speceyes.evaluation.benchmarks._gather import Draft, gather
from speceyes.evaluation.benchmarks.sample import BadRow, Loaded, Sample, Samples, split
from speceyes.evaluation.row import Item
from speceyes.images import DEFAULT_LIMITS, ImageLimits

__all__ = ["NAMES", "BadRow", "Loaded", "Sample", "Samples", "load", "split", "write"]

NAMES = ("vstar", "hr-bench-4k", "hr-bench-8k", "pope", "jsonl", "scenes", "puzzles")
"""Names that `load` and `write` know; the last two are drawn, and can be loaded only."""


def load(
    name_or_path: str | os.PathLike[str],
    *,
    folder: str | os.PathLike[str] | None = None,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    parity: bool = False,
    limits: ImageLimits = DEFAULT_LIMITS,
) -> Loaded:
    """A benchmark's samples, and the rows that can't be used.

    Args:
        name_or_path: One of `NAMES`; or the path of a JSONL file, or of a folder in which the
            layout is recognised.
        folder: Where the benchmark's files are; for "jsonl" the file or its folder. Not for
            "scenes" and "puzzles", which are drawn.
        split: Only this category: a folder of V*, "single" or "cross" of HR-Bench,
            "adversarial", "popular" or "random" of POPE, a category of a JSONL file. For scenes
            and puzzles "train", "calibration" or "heldout" (default).
        limit: At most so many samples, drawn by the seed; all where it is None. For the scenes
            the first so many, 200 by default.
        seed: Draws the order of each question's options, by its id, so that it doesn't depend
            on other questions; and which questions a limit takes.
        parity: Keep options in published order (in V* the first is right), and give each sample
            the prompt of published evaluations.
        limits: What images may be. Of HR-Bench 8K some may be larger than the default allows.

    Raises:
        InputError: The files aren't there, can't be read at all, or an argument can't work.
        ConfigError: POPE, without pyarrow.

    Example:
        >>> from speceyes.evaluation import benchmarks
        >>> written = benchmarks.write("vstar", benchmarks.scenes.items("heldout", 3), "vstar")
        >>> loaded = benchmarks.load("vstar", folder="vstar", seed=1)
        >>> len(loaded.samples), loaded.bad
        (3, ())
        >>> sample = loaded.samples[0]
        >>> sample.answer in sample.query.choices
        True
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit={limit}; it must be at least 1, or None for all")
    name, path = _named(name_or_path, folder)
    rows: Iterable[Draft | BadRow]
    if name == "scenes":
        rows = scenes.read(split or "heldout", limit or scenes.DEFAULT_LIMIT)
        return gather(rows, name, limit=None, seed=seed, parity=parity, limits=limits)
    if name == "puzzles":
        rows = puzzles.read(split or "heldout", limit or scenes.DEFAULT_LIMIT)
        return gather(rows, name, limit=None, seed=seed, parity=parity, limits=limits)
    assert path is not None
    if name == "vstar":
        rows = vstar.read(path, split)
    elif name == "pope":
        rows = pope.read(path, split)
    elif name == "jsonl":
        rows, name = jsonl.read(path, split), path.stem or name
    else:
        file = path if path.is_file() else path / hrbench.FILES[name]
        rows = hrbench.read(file, split)
    loaded = gather(
        _some(rows, path, split), name, limit=limit, seed=seed, parity=parity, limits=limits
    )
    return loaded


def _some(
    rows: Iterator[Draft | BadRow], path: Path, split: str | None
) -> Iterator[Draft | BadRow]:
    """The rows.

    Raises:
        InputError: There are none.
    """
    empty = True
    for row in rows:
        empty = False
        yield row
    if empty:
        of = "" if split is None else f" of split={split!r}"
        raise InputError(f"{path} holds no rows{of}: check the folder and the category")


def _named(
    name_or_path: str | os.PathLike[str], folder: str | os.PathLike[str] | None
) -> tuple[str, Path | None]:
    """The benchmark's name, and where its files are.

    Raises:
        InputError: There is no such benchmark, or its files aren't named.
    """
    known = ", ".join(NAMES)
    if name_or_path in NAMES:
        name = str(name_or_path)
        if name in ("scenes", "puzzles"):
            if folder is not None:
                raise InputError(f"the {name} are drawn, not read: leave folder out")
            return name, None
        if folder is None:
            raise InputError(f"{name} is read from files: pass folder= with the folder they are in")
        path = Path(folder)
        if not path.exists():
            raise InputError(f"folder={str(path)!r} isn't there: pass where {name}'s files are")
        return name, path
    if folder is not None:
        raise InputError(f"{name_or_path!r} is no benchmark; with folder= there are: {known}")
    path = Path(name_or_path)
    if path.is_file() and path.suffix == ".jsonl":
        return "jsonl", path
    for name, file in hrbench.FILES.items():
        if path.is_file() and path.name == file:
            return name, path
    if path.is_dir():
        if any((path / kind).is_dir() for kind in vstar.KINDS):
            return "vstar", path
        there = [name for name, file in hrbench.FILES.items() if (path / file).is_file()]
        if len(there) == 1:
            return there[0], path
        if len(there) == 2:
            raise InputError(
                f"{path} holds both files of HR-Bench: say which by {there} and folder="
            )
        if any(path.glob("*.jsonl")):
            return "jsonl", path
        if any(path.rglob("*.parquet")):
            return "pope", path
    raise InputError(
        f"{str(name_or_path)!r} is neither a benchmark ({known}), nor a JSONL file, nor a folder "
        "in a known layout"
    )


def write(name: str, items: Iterable[Item], folder: str | os.PathLike[str]) -> int:
    """Writes items in a benchmark's layout; how many rows were written.

    HR-Bench gets each question as often as it has options, turned each time. V*, HR-Bench and
    POPE hold JPEG pictures (quality 95), JSONL holds PNG.

    Args:
        name: One of `NAMES`, but "scenes" and "puzzles".
        items: Queries with their answers; their pictures are in memory one at a time, for POPE
            encoded.
        folder: Where to; made if it isn't there. Files of the same names are replaced.

    Raises:
        InputError: There is no such layout, or an item doesn't fit it.
        ConfigError: POPE, without pyarrow.
    """
    path = Path(folder)
    if name == "vstar":
        return vstar.write(items, path)
    if name in hrbench.FILES:
        return hrbench.write(items, path / hrbench.FILES[name])
    if name == "pope":
        return pope.write(items, path)
    if name == "jsonl":
        return jsonl.write(items, path / "questions.jsonl")
    raise InputError(f"no layout {name!r}; there are: {', '.join(NAMES[:-1])}")
