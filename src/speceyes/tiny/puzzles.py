"""Puzzles: scenes of a few large shapes, and questions whose answer takes several steps.

Everything that a puzzle asks about is seen at 80 x 80 pixels, so a closer look adds nothing; what
helps is to write down what is there, to count along, and to conclude from it. The shapes, colours,
rendering and splits are those of `speceyes.tiny.scenes`; the objects lie on its 4 x 4 places.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

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
    shade_of,
    split_of,
    tint,
)
from speceyes.types import Image, Query

KINDS: dict[str, float] = {"count": 0.22, "sum": 0.20, "more": 0.22, "same": 0.18, "chain": 0.18}
"""Kinds of puzzles with their shares."""
OBJECTS = (5, 7)
"""Fewest and most objects in a scene."""
SIDES = (320, 400, 480)
"""Sides in pixels of rendered scenes."""
MOST = 9
"""Largest number that an answer can be."""


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
    """A question that can be asked of any scene.

    Args:
        kind: One of `KINDS`.
        groups: The colours or shapes that are counted: one for "count", three for "chain", else
            two.
    """

    kind: str
    groups: tuple[str, ...]

    @property
    def text(self) -> str:
        """The question."""
        first, *others = (plural(group) for group in self.groups)
        more = " plus the number of ".join(others)
        if self.kind == "count":
            return f"How many {first} are there?"
        if self.kind == "sum":
            return f"What is the number of {first} plus the number of {more}?"
        if self.kind == "more":
            return f"Which are there more of, {first} or {more}?"
        if self.kind == "same":
            return f"Is the number of {first} the same as the number of {more}?"
        return f"Is the number of {first} above the number of {more}?"

    @property
    def counted(self) -> tuple[tuple[str, ...], ...]:
        """Groups that are counted together, by what is counted first and second."""
        if self.kind in ("count", "sum"):
            return (self.groups,)
        return (self.groups[:1], self.groups[1:])

    def solve(self, scene: Scene) -> Solution | None:
        """The way to the answer in that scene; None where it is a number above `MOST`."""
        counts = [sum(len(_members(scene, g)) for g in groups) for groups in self.counted]
        if counts[0] > MOST or counts[-1] > MOST:
            return None
        names = ["Total" if len(g) > 1 else header(g[0]) for g in self.counted]
        said = [f"{name}: {n}." for name, n in zip(names, counts, strict=True)]
        return Solution((*_listing(scene, self.counted), *said), self._reckon(counts))

    def _reckon(self, counts: Sequence[int]) -> str:
        first, last = counts[0], counts[-1]
        if self.kind in ("count", "sum"):
            return str(first)
        if self.kind != "more":
            found = first == last if self.kind == "same" else first > last
            return "yes" if found else "no"
        if first == last:
            return "neither"
        group = self.groups[0 if first > last else 1]
        return group if group in COLOURS else plural(group)


def plural(group: str) -> str:
    """The members of a group, a colour or a shape, as questions call them."""
    if group in COLOURS:
        return f"{group} objects"
    return f"{group}es" if group.endswith("s") else f"{group}s"


def header(group: str) -> str:
    """A group as reasoning calls it."""
    return (group if group in COLOURS else plural(group)).capitalize()


def _members(scene: Scene, group: str) -> list[Shape]:
    return [o for o in scene.large if group in (o.colour, o.shape)]


def _by_row(scene: Scene) -> list[list[Shape]]:
    rows: list[list[Shape]] = [[] for _ in range(GRID)]
    for thing in sorted(scene.large, key=lambda o: cell(o)[1]):
        rows[cell(thing)[0] - 1].append(thing)
    return rows


def _listing(scene: Scene, counted: Sequence[tuple[str, ...]]) -> list[str]:
    """A sentence a row. Behind each object stands how many there are so far: (1) of what is counted
    first, [1] of what is counted second. Groups that are counted together may share members, which
    count for each.
    """
    counts = [0] * len(counted)
    marks = ("({})", "[{}]")
    sentences = []
    for number, row in enumerate(_by_row(scene), start=1):
        objects = []
        for thing in row:
            said = f"column {cell(thing)[1]} {thing.colour} {thing.shape}"
            for at, groups in enumerate(counted):
                counts[at] += sum(group in (thing.colour, thing.shape) for group in groups)
                said += f" {marks[at].format(counts[at])}"
            objects.append(said)
        sentences.append(f"Row {number}: {', '.join(objects) or 'nothing'}.")
    return sentences


def draw_scene(rng: np.random.Generator) -> Scene:
    """A scene of `OBJECTS` large shapes in three or four colours and three shapes."""
    n = int(rng.integers(OBJECTS[0], OBJECTS[1] + 1))
    colours = rng.permutation(list(COLOURS))[: int(rng.integers(3, 5))].tolist()
    shapes = rng.permutation(SHAPES)[:3].tolist()
    grey = int(rng.integers(150, 200))
    r, g, b = (shade_of(grey + d) for d in rng.integers(-10, 11, 3).tolist())
    objects = []
    for place in rng.permutation(GRID * GRID)[:n].tolist():
        colour, shape = str(rng.choice(colours)), str(rng.choice(shapes))
        size = float(rng.uniform(*LARGE_SIZES))
        slack = min(0.03, (1 / GRID - size) / 2)
        x = (place % GRID + 0.5) / GRID + float(rng.uniform(-slack, slack))
        y = (place // GRID + 0.5) / GRID + float(rng.uniform(-slack, slack))
        objects.append(Shape(shape, colour, x, y, size, tint(rng, colour)))
    return Scene((r, g, b), tuple(objects), (), (), ())


RARER: dict[tuple[str, str], float] = {("same", "no"): 0.6, ("chain", "no"): 0.9}
"""Shares of puzzles left out whose answer is frequent by chance."""


def pose(scene: Scene, kind: str, rng: np.random.Generator) -> Puzzle | None:
    """A puzzle of that kind which the scene answers, or None where this draw allows none."""
    here = [*{o.colour: 0 for o in scene.large}, *{o.shape: 0 for o in scene.large}]
    picked = rng.permutation(here)[: {"count": 1, "chain": 3}.get(kind, 2)].tolist()
    if rng.random() < 0.05:
        absent = [w for w in (*COLOURS, *SHAPES) if w not in here]
        picked[0] = str(rng.choice(absent))
    puzzle = Puzzle(kind, tuple(picked))
    solution = puzzle.solve(scene)
    if solution is None or rng.random() < RARER.get((kind, solution.answer), 0.0):
        return None
    return puzzle


def draw_kind(rng: np.random.Generator) -> str:
    """A kind of puzzle, by its share in `KINDS`."""
    return str(rng.choice(list(KINDS), p=np.array(list(KINDS.values())) / sum(KINDS.values())))


def pose_any(scene: Scene, rng: np.random.Generator) -> Puzzle:
    """A puzzle that the scene answers, of kinds about as frequent as in `KINDS`."""
    while True:
        kind = draw_kind(rng)
        # Some kinds of answers are rare in some scenes: they take many tries.
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
