"""Puzzles that take several steps as a benchmark, drawn as they are asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

from speceyes.errors import InputError
from speceyes.evaluation.benchmarks._gather import Draft
from speceyes.evaluation.benchmarks.layout import DrawnLayout
from speceyes.tiny import puzzles
from speceyes.tiny.scenes import Split
from speceyes.types import Image

SPLITS: tuple[Split, ...] = get_args(Split)


@dataclass(frozen=True, slots=True)
class PuzzleImage:
    """The picture of a split's item number `index`."""

    split: Split
    index: int
    key: str

    def image(self) -> Image:
        """The scene, rendered."""
        return puzzles.picture(puzzles.draw(self.split, self.index)[0], self.index)


def read(part: str, n: int) -> Iterator[Draft]:
    """The first n items of a split; no picture is drawn yet.

    Args:
        part: The split: "train", "calibration" or "heldout".
        n: How many.

    Raises:
        InputError: There is no such split.
    """
    split = next((one for one in SPLITS if one == part), None)
    if split is None:
        raise InputError(f"split={part!r} of the puzzles; there are: {', '.join(SPLITS)}")
    for index in range(n):
        scene, puzzle = puzzles.draw(split, index)
        solution = puzzle.solve(scene)
        assert solution is not None  # `draw` saw to it
        name = f"puzzle-{split}-{index}"
        key = hashlib.sha256(f"puzzle {scene.id}".encode()).hexdigest()
        picture = PuzzleImage(split, index, key)
        yield Draft(name, name, puzzle.text, (), solution.answer, puzzle.kind, (picture,))


LAYOUTS = (DrawnLayout("puzzles", read),)
