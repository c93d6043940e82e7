"""Puzzles: scenes of a few large shapes, and questions whose answer takes several steps.

Everything that a puzzle asks about is seen at 80 x 80 pixels, so a closer look adds nothing; what
helps is to write down what is there and to conclude from it. The shapes, colours, rendering and
splits are those of `speceyes.tiny.scenes`; the objects lie on its 4 x 4 places, and "right of" and
"left of" mean the nearest object in the same row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from speceyes.errors import InputError
from speceyes.tiny.scenes import (
    COLOURS,
    GRID,
    LARGE_SIZES,
    SHAPES,
    Item,
    Scene,
    Shape,
    Split,
    cell,
    render,
    split_of,
    tint,
)
from speceyes.types import Image, Query

Side: TypeAlias = Literal["right", "left"]
Asked: TypeAlias = Literal["colour", "shape"]

KINDS: dict[str, float] = {
    "count": 0.20,
    "sum": 0.20,
    "more": 0.15,
    "next": 0.15,
    "same": 0.12,
    "chain": 0.18,
}
"""Kinds of puzzles with their shares."""
OBJECTS = (5, 7)
"""Fewest and most objects in a scene."""
SIDES = (320, 400, 480)
"""Sides in pixels of rendered scenes."""
MOST = 9
"""Largest number that an answer can be."""


@dataclass(frozen=True, slots=True)
class Hop:
    """A step from a named object to its neighbour in the row."""

    colour: str
    shape: str
    side: Side

    @property
    def words(self) -> str:
        """As questions name the neighbour."""
        return f"{self.side} of the {self.colour} {self.shape}"


@dataclass(frozen=True, slots=True)
class Solution:
    """A puzzle's way and its end.

    Args:
        reasoning: Sentences that list what is seen, then conclude.
        answer: What follows, as short as can be.
    """

    reasoning: tuple[str, ...]
    answer: str


@dataclass(frozen=True, slots=True)
class Puzzle:
    """A question that can be asked of any scene in which what it names is there once.

    Args:
        kind: One of `KINDS`.
        groups: For "count", "sum" and "more": the colours or shapes that are counted.
        hops: For "next", "same" and "chain".
        asked: Of what is found, its colour or its shape.
        row: For "chain": the row, from 1, in which the last object lies.
    """

    kind: str
    groups: tuple[str, ...] = ()
    hops: tuple[Hop, ...] = ()
    asked: Asked = "colour"
    row: int = 0

    @property
    def text(self) -> str:
        """The question."""
        named = [plural(group) for group in self.groups]
        found = [hop.words for hop in self.hops]
        if self.kind == "count":
            return f"How many {named[0]} are there?"
        if self.kind == "sum":
            return f"What is the number of {named[0]} plus the number of {named[1]}?"
        if self.kind == "more":
            return f"Which are there more of, {named[0]} or {named[1]}?"
        if self.kind == "next":
            return f"What {self.asked} is the object {found[0]}?"
        if self.kind == "same":
            return f"Is the object {found[0]} of the same {self.asked} as the object {found[1]}?"
        other = "shape" if self.asked == "colour" else "colour"
        return f"In row {self.row}, what {self.asked} has the {other} of the object {found[0]}?"

    def solve(self, scene: Scene) -> Solution | None:
        """The way to the answer in that scene; None where the scene doesn't have what it names."""
        if self.groups:
            counts = [len(_members(scene, group)) for group in self.groups]
            said = [f"{header(g)}: {n}." for g, n in zip(self.groups, counts, strict=True)]
            answer = _reckon(self.kind, self.groups, counts)
            return None if answer is None else self._solution(scene, said, answer)
        found: list[Shape] = []
        said = []
        for hop in self.hops:
            step = _follow(scene, hop)
            if step is None:
                return None
            one, other = step
            (row, column), (_, at) = cell(one), cell(other)
            said.append(f"The {one.colour} {one.shape}: row {row}, column {column}.")
            way = hop.side.capitalize()
            said.append(f"{way} of it: column {at} {other.colour} {other.shape}.")
            found.append(other)
        if self.kind == "next":
            return self._solution(scene, said, _get(found[0], self.asked))
        if self.kind == "same":
            one_is, other_is = (_get(thing, self.asked) for thing in found)
            said.append(f"{self.asked.capitalize()}s: {one_is}, {other_is}.")
            return self._solution(scene, said, "yes" if one_is == other_is else "no")
        wanted = found[0].shape if self.asked == "colour" else found[0].colour
        there = [o for o in _members(scene, wanted) if cell(o)[0] == self.row]
        if len(there) != 1 or there[0] is found[0]:
            return None
        answer = _get(there[0], self.asked)
        said.append(f"{header(wanted)} in row {self.row}: column {cell(there[0])[1]} {answer}.")
        return self._solution(scene, said, answer)

    def _solution(self, scene: Scene, said: list[str], answer: str) -> Solution:
        """The list of what is there, then what is concluded."""
        return Solution((*_listing(scene, self.groups), *said), answer)


def plural(group: str) -> str:
    """The members of a group, a colour or a shape, as questions call them."""
    if group in COLOURS:
        return f"{group} objects"
    return f"{group}es" if group.endswith("s") else f"{group}s"


def header(group: str) -> str:
    """A group as reasoning calls it."""
    return (group if group in COLOURS else plural(group)).capitalize()


def _get(thing: Shape, asked: Asked) -> str:
    return thing.colour if asked == "colour" else thing.shape


def _members(scene: Scene, group: str) -> list[Shape]:
    return [o for o in scene.large if group in (o.colour, o.shape)]


def _reckon(kind: str, groups: tuple[str, ...], counts: list[int]) -> str | None:
    if kind == "more":
        first, second = counts
        if first == second:
            return "neither"
        group = groups[0 if first > second else 1]
        return group if group in COLOURS else plural(group)
    return str(sum(counts)) if sum(counts) <= MOST else None


def _by_row(scene: Scene) -> list[list[Shape]]:
    rows: list[list[Shape]] = [[] for _ in range(GRID)]
    for thing in sorted(scene.large, key=lambda o: cell(o)[1]):
        rows[cell(thing)[0] - 1].append(thing)
    return rows


def _follow(scene: Scene, hop: Hop) -> tuple[Shape, Shape] | None:
    """The named object and its neighbour."""
    named = [o for o in scene.large if (o.colour, o.shape) == (hop.colour, hop.shape)]
    if len(named) != 1:
        return None
    row = _by_row(scene)[cell(named[0])[0] - 1]
    at = row.index(named[0]) + (1 if hop.side == "right" else -1)
    return (named[0], row[at]) if 0 <= at < len(row) else None


def _listing(scene: Scene, groups: tuple[str, ...]) -> list[str]:
    """A sentence a row; members of the first group are numbered (1), of the second [1]."""
    counts = dict.fromkeys(groups, 0)
    marks = ("({})", "[{}]")
    sentences = []
    for number, row in enumerate(_by_row(scene), start=1):
        objects = []
        for thing in row:
            said = f"column {cell(thing)[1]} {thing.colour} {thing.shape}"
            numbers = ""
            for group, mark in zip(groups, marks, strict=False):
                if group in (thing.colour, thing.shape):
                    counts[group] += 1
                    numbers += mark.format(counts[group])
            objects.append(f"{said} {numbers}" if numbers else said)
        sentences.append(f"Row {number}: {', '.join(objects) or 'nothing'}.")
    return sentences


def draw_scene(rng: np.random.Generator) -> Scene:
    """A scene of `OBJECTS` large shapes in three or four colours and three shapes."""
    n = int(rng.integers(OBJECTS[0], OBJECTS[1] + 1))
    colours = rng.permutation(list(COLOURS))[: int(rng.integers(3, 5))].tolist()
    shapes = rng.permutation(SHAPES)[:3].tolist()
    grey = int(rng.integers(150, 200))
    r, g, b = (int(np.clip(grey + d, 0, 255)) for d in rng.integers(-10, 11, 3))
    objects = []
    for place in rng.permutation(GRID * GRID)[:n].tolist():
        colour, shape = str(rng.choice(colours)), str(rng.choice(shapes))
        size = float(rng.uniform(*LARGE_SIZES))
        slack = min(0.03, (1 / GRID - size) / 2)
        x = (place % GRID + 0.5) / GRID + float(rng.uniform(-slack, slack))
        y = (place // GRID + 0.5) / GRID + float(rng.uniform(-slack, slack))
        objects.append(Shape(shape, colour, x, y, size, tint(rng, colour)))
    return Scene((r, g, b), tuple(objects), (), (), ())


def pose(scene: Scene, kind: str, rng: np.random.Generator) -> Puzzle | None:
    """A puzzle of that kind which the scene answers, or None where this draw allows none."""
    asked: Asked = "colour" if rng.random() < 0.5 else "shape"
    if kind in ("count", "sum", "more"):
        here = [*{o.colour: 0 for o in scene.large}, *{o.shape: 0 for o in scene.large}]
        picked = rng.permutation(here)[: 1 if kind == "count" else 2].tolist()
        if rng.random() < 0.05:
            absent = [w for w in (*COLOURS, *SHAPES) if w not in here]
            picked[0] = str(rng.choice(absent))
        puzzle = Puzzle(kind, tuple(picked))
    else:
        hops = []
        for _ in range(2 if kind == "same" else 1):
            one = scene.large[int(rng.integers(len(scene.large)))]
            hops.append(Hop(one.colour, one.shape, "right" if rng.random() < 0.5 else "left"))
        if kind == "same" and hops[0] == hops[1]:
            return None
        row = int(rng.integers(1, GRID + 1)) if kind == "chain" else 0
        puzzle = Puzzle(kind, (), tuple(hops), asked, row)
    solution = puzzle.solve(scene)
    if solution is None:
        return None
    # Answers that are frequent by chance are asked for less often.
    if kind == "same" and solution.answer == "no" and rng.random() < 0.5:
        return None
    return puzzle


def draw_kind(rng: np.random.Generator) -> str:
    """A kind of puzzle, by its share in `KINDS`."""
    return str(rng.choice(list(KINDS), p=np.array(list(KINDS.values())) / sum(KINDS.values())))


def pose_any(scene: Scene, rng: np.random.Generator) -> Puzzle:
    """A puzzle that the scene answers, of kinds about as frequent as in `KINDS`."""
    while True:
        kind = draw_kind(rng)
        # Few objects have a neighbour and a name of their own: such kinds take many tries.
        for _ in range(60):
            puzzle = pose(scene, kind, rng)
            if puzzle is not None:
                return puzzle


_SPLIT_SEED = {"train": 1, "calibration": 2, "heldout": 3}


def draw(split: Split, index: int) -> tuple[Scene, Puzzle]:
    """The scene and the puzzle of a split's item number `index`."""
    if split not in _SPLIT_SEED:
        raise InputError(f"split={split!r}; there are: {', '.join(_SPLIT_SEED)}")
    rng = np.random.default_rng([20260404, _SPLIT_SEED[split], index])
    kind = draw_kind(rng)
    while True:
        scene = draw_scene(rng)
        if split_of(scene.id) != split:
            continue
        for _ in range(12):
            puzzle = pose(scene, kind, rng)
            if puzzle is not None:
                return scene, puzzle


def picture(scene: Scene, index: int) -> Image:
    """The scene of item number `index`, rendered."""
    return render(scene, SIDES[index % len(SIDES)])


def questions(split: Split, n: int, *, start: int = 0) -> Iterator[Item]:
    """Items `start` to `start + n` of a split, each on a scene of its own, rendered as it comes.

    Args:
        split: "train", "calibration" or "heldout"; no scene is in two of them.
        n: How many.
        start: Number of the first.

    Example:
        >>> item = next(questions("heldout", 1))
        >>> item.kind in KINDS, item.query.images[0].width in SIDES
        (True, True)
    """
    for index in range(start, start + n):
        scene, puzzle = draw(split, index)
        solution = puzzle.solve(scene)
        assert solution is not None  # `draw` saw to it
        query = Query(puzzle.text, (picture(scene, index),), id=f"puzzle-{split}-{index}")
        yield Item(query, solution.answer, puzzle.kind, scene.id, False)


def altered(scene: Scene, rng: np.random.Generator) -> Scene:
    """The scene with one or two of its objects misread: another colour, shape or place."""
    objects = list(scene.large)
    taken = {cell(o) for o in objects}
    for _ in range(int(rng.integers(1, 3))):
        at = int(rng.integers(len(objects)))
        one = objects[at]
        draw_ = rng.random()
        if draw_ < 0.4:
            objects[at] = replace(one, colour=str(rng.choice([o.colour for o in objects])))
        elif draw_ < 0.8:
            objects[at] = replace(one, shape=str(rng.choice([o.shape for o in objects])))
        else:
            row, column = int(rng.integers(1, GRID + 1)), int(rng.integers(1, GRID + 1))
            if (row, column) not in taken:
                taken.add((row, column))
                objects[at] = replace(one, x=(column - 0.5) / GRID, y=(row - 0.5) / GRID)
    return replace(scene, large=tuple(objects))
