"""Benchmarks in their published layouts, a file each, a user's JSONL, and drawn scenes and puzzles.

`load` reads one from a folder, `write` writes questions in its layout, `split` parts samples by
image into those a threshold is chosen on and those it is tested on.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from speceyes.errors import InputError
from speceyes.evaluation.benchmarks import scenes
from speceyes.evaluation.benchmarks._gather import Draft, gather
from speceyes.evaluation.benchmarks.layout import DrawnLayout, Layout, layouts
from speceyes.evaluation.benchmarks.sample import BadRow, Loaded, Sample, Samples, split
from speceyes.evaluation.row import Item
from speceyes.images import DEFAULT_LIMITS, ImageLimits

__all__ = ["BadRow", "Layout", "Loaded", "Sample", "Samples", "load", "names", "split", "write"]


def names() -> tuple[str, ...]:
    """The names that `load` knows: what is read from files, then what is drawn.

    Example:
        >>> "treebench" in names(), names()[-2:]
        (True, ('puzzles', 'scenes'))
    """
    return tuple(layouts())


def load(
    name_or_path: str | os.PathLike[str],
    *,
    folder: str | os.PathLike[str] | None = None,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    parity: bool = False,
    limits: ImageLimits = DEFAULT_LIMITS,
    labels: bool = True,
) -> Loaded:
    """A benchmark's samples, and the rows that can't be used.

    Args:
        name_or_path: One of `names()`; or the path of a JSONL file, or of a folder in which the
            layout is recognised.
        folder: Where the benchmark's files are; for "jsonl" the file or its folder. Not for
            "scenes" and "puzzles", which are drawn.
        split: Only this category, such as a folder of V*, "single" or "cross" of HR-Bench, or a
            category of a JSONL file. For scenes and puzzles "train", "calibration" or "heldout"
            (default).
        limit: At most so many samples, drawn by the seed; all where it is None. For the scenes
            the first so many, 200 by default.
        seed: Draws the order of each question's options, by its id, so that it doesn't depend
            on other questions; and which questions a limit takes.
        parity: Keep options in published order (in V* the first is right), and give each sample
            the prompt of published evaluations.
        limits: What images may be. Of HR-Bench 8K some may be larger than the default allows.
        labels: Whether each row must have an answer; where not, it is blank in those without.

    Raises:
        InputError: The files aren't there, can't be read at all, or an argument can't work.
        ConfigError: Its files are parquet, and there is no pyarrow.

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
    layout, path = _named(name_or_path, folder)
    if isinstance(layout, DrawnLayout):
        drawn = layout.read(split or "heldout", limit or scenes.DEFAULT_LIMIT)
        return gather(drawn, layout.name, limit=None, seed=seed, parity=parity, limits=limits)
    assert path is not None
    name = layout.named(path) if layout.named else layout.name
    rows = _some(layout.read(path, split), path, split)
    return gather(rows, name, limit=limit, seed=seed, parity=parity, limits=limits, labels=labels)


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
) -> tuple[Layout | DrawnLayout, Path | None]:
    """The benchmark, and where its files are.

    Raises:
        InputError: There is no such benchmark, or its files aren't named.
    """
    known = layouts()
    names = ", ".join(known)
    if name_or_path in known:
        layout = known[str(name_or_path)]
        if isinstance(layout, DrawnLayout):
            if folder is not None:
                raise InputError(f"the {layout.name} are drawn, not read: leave folder out")
            return layout, None
        if folder is None:
            raise InputError(
                f"{layout.name} is read from files: pass folder= with the folder they are in"
            )
        path = Path(folder)
        if not path.exists():
            raise InputError(
                f"folder={str(path)!r} isn't there: pass where {layout.name}'s files are"
            )
        return layout, path
    if folder is not None:
        raise InputError(f"{name_or_path!r} is no benchmark; with folder= there are: {names}")
    path = Path(name_or_path)
    if path.exists():
        read = [one for one in known.values() if isinstance(one, Layout) and one.holds]
        for broad in (False, True):
            found = [one for one in read if one.broad is broad and one.holds and one.holds(path)]
            if len(found) > 1:
                several = ", ".join(one.name for one in found)
                raise InputError(
                    f"{path} holds files of {several}: say which by its name and folder="
                )
            if found:
                return found[0], path
    raise InputError(
        f"{str(name_or_path)!r} is neither a benchmark ({names}), nor a JSONL file, nor a folder "
        "in a known layout"
    )


def write(name: str, items: Iterable[Item], folder: str | os.PathLike[str]) -> int:
    """Writes items in a benchmark's layout; how many rows were written.

    HR-Bench gets each question as often as it has options, turned each time. V*, HR-Bench and
    POPE hold JPEG pictures (quality 95), JSONL holds PNG.

    Args:
        name: "vstar", "hr-bench-4k", "hr-bench-8k", "pope" or "jsonl".
        items: Queries with their answers; their pictures are in memory one at a time, for POPE
            encoded.
        folder: Where to; made if it isn't there. Files of the same names are replaced.

    Raises:
        InputError: There is no such layout, or an item doesn't fit it.
        ConfigError: POPE, without pyarrow.
    """
    layout = layouts().get(name)
    if isinstance(layout, Layout) and layout.write is not None:
        return layout.write(items, Path(folder))
    written = [one.name for one in layouts().values() if isinstance(one, Layout) and one.write]
    raise InputError(f"no layout {name!r} is written; there are: {', '.join(written)}")
