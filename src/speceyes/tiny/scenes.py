"""Synthetic visual search: large scenes of coloured shapes, and questions about them.

A scene is a 4 x 4 field of places with some jitter. It holds large objects, a few small ones,
grey clutter, and two or three *cards*: framed coloured squares with two to four marks on them,
too tiny to be read once the scene is scaled down to what a model sees. Which card to look at
depends on the question. Everything is drawn from a seed, as vectors, so that a crop shows what
the downsampled scene hides.

Lengths are fractions of the scene's side unless they say otherwise; origin top left.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias

import numpy as np
from PIL import Image as PILImage
from PIL import ImageDraw

from speceyes.errors import InputError
from speceyes.types import Image, Query

Split: TypeAlias = Literal["train", "calibration", "heldout"]

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (215, 40, 40),
    "orange": (245, 135, 25),
    "yellow": (245, 220, 50),
    "green": (40, 155, 65),
    "blue": (45, 85, 215),
    "purple": (150, 55, 175),
    "white": (250, 250, 250),
    "black": (25, 25, 25),
}
SHAPES = ("circle", "triangle", "cross", "ring", "bar")
GRID = 4
CARD_SIDE = 0.195
QUADRANTS = ("top left", "top right", "bottom left", "bottom right")
MARK_SIZES = (0.047, 0.078)
"""Smallest and largest diameter of a mark: 48 to 80 px in a scene of 1024 px."""
SMALL_SIZES = (0.068, 0.112)
LARGE_SIZES = (0.165, 0.225)
SIDES = (1024, 1536, 2048, 4096)
SIDE_WEIGHTS = (0.82, 0.10, 0.05, 0.03)

KINDS: dict[str, float] = {
    "large/colour": 0.12,
    "large/shape": 0.10,
    "large/presence": 0.12,
    "large/position": 0.14,
    "small/shape": 0.12,
    "card/colour": 0.12,
    "card/shape": 0.12,
    "card/presence": 0.05,
    "card/position": 0.05,
    "card/count": 0.04,
    "card/same": 0.02,
}
"""Kinds of questions with their shares."""

NEED_TOOLS = ("card/shape", "card/position", "card/same")
"""Kinds for which the judge is taught to ask for tools: the shape of a mark matters, or its place.
Other questions about marks it lets through, and the gate has to catch what the draft can't read."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A coloured shape: centre and diameter."""

    shape: str
    colour: str
    x: float
    y: float
    size: float
    rgb: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Card:
    """A framed square with marks; `marks` holds one shape or None a quadrant (`QUADRANTS`)."""

    colour: str
    x: float
    y: float
    size: float
    rgb: tuple[int, int, int]
    marks: tuple[Shape | None, ...]


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that is drawn. Large and small objects have colours of their own, and large
    ones shapes of their own, so that questions have one answer.
    """

    background: tuple[int, int, int]
    large: tuple[Shape, ...]
    small: tuple[Shape, ...]
    cards: tuple[Card, ...]
    clutter: tuple[tuple[float, float, float, float, int], ...]

    @property
    def id(self) -> str:
        """Fingerprint of what a question can be about: the layout without jitter and tints."""
        rows = [
            [kind, o.colour, o.shape if isinstance(o, Shape) else "", *cell(o), _marks(o)]
            for kind, group in (("L", self.large), ("S", self.small), ("C", self.cards))
            for o in group
        ]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


def _marks(thing: Shape | Card) -> list[str]:
    marks = thing.marks if isinstance(thing, Card) else ()
    return [f"{m.colour} {m.shape}" if m else "" for m in marks]


def split_of(scene_id: str) -> Split:
    """The split a scene belongs to, by its fingerprint: no scene can be in two."""
    bucket = int(scene_id[:4], 16) % 16
    return "heldout" if bucket == 0 else "calibration" if bucket == 1 else "train"


def cell(thing: Shape | Card) -> tuple[int, int]:
    """(row, column), 1 to 4, of the place that holds the thing's centre."""
    row, column = int(thing.y * GRID) + 1, int(thing.x * GRID) + 1
    return min(max(row, 1), GRID), min(max(column, 1), GRID)


def tint(rng: np.random.Generator, colour: str) -> tuple[int, int, int]:
    """The colour, varied a little."""
    (r, g, b), (red, green, blue) = COLOURS[colour], rng.integers(-12, 13, 3).tolist()
    return shade_of(r + red), shade_of(g + green), shade_of(b + blue)


def shade_of(value: int) -> int:
    """The nearest of 0 to 255. Numpy would take ten times as long for one number."""
    return min(max(value, 0), 255)


def _pick(rng: np.random.Generator, options: Sequence[str], n: int) -> list[str]:
    return [options[i] for i in rng.permutation(len(options))[:n]]


def _card(rng: np.random.Generator, colour: str, x: float, y: float) -> Card:
    size = float(rng.uniform(*MARK_SIZES))
    n = int(rng.integers(2, 5))
    quadrants = set(rng.permutation(4)[:n].tolist())
    colours = iter(_pick(rng, [c for c in COLOURS if c != colour], n))
    shapes = iter(_pick(rng, SHAPES, n))
    marks: list[Shape | None] = []
    for quadrant in range(4):
        if quadrant not in quadrants:
            marks.append(None)
            continue
        dx, dy = (quadrant % 2 - 0.5) * 0.096, (quadrant // 2 - 0.5) * 0.096
        dx, dy = dx + float(rng.uniform(-0.006, 0.006)), dy + float(rng.uniform(-0.006, 0.006))
        hue = next(colours)
        marks.append(Shape(next(shapes), hue, x + dx, y + dy, size, tint(rng, hue)))
    return Card(colour, x, y, CARD_SIDE, tint(rng, colour), tuple(marks))


def draw_scene(rng: np.random.Generator) -> Scene:
    """A scene, drawn from `rng`."""
    n_large = int(rng.integers(3, 5))
    n_small = int(rng.integers(1, 3))
    n_cards = int(rng.integers(2, 4))
    places = iter(rng.permutation(GRID * GRID).tolist())

    def spot(room: float) -> tuple[float, float]:
        place = next(places)
        slack = min(0.03, max(0.0, (1 / GRID - room) / 2))
        x = (place % GRID + 0.5) / GRID + float(rng.uniform(-slack, slack))
        y = (place // GRID + 0.5) / GRID + float(rng.uniform(-slack, slack))
        return x, y

    large = []
    for shape, colour in zip(
        _pick(rng, SHAPES, n_large), _pick(rng, list(COLOURS), n_large), strict=True
    ):
        size = float(rng.uniform(*LARGE_SIZES))
        large.append(Shape(shape, colour, *spot(size), size, tint(rng, colour)))
    small = []
    for colour in _pick(rng, list(COLOURS), n_small):
        size, shape = float(rng.uniform(*SMALL_SIZES)), SHAPES[int(rng.integers(len(SHAPES)))]
        small.append(Shape(shape, colour, *spot(size), size, tint(rng, colour)))
    cards = [_card(rng, c, *spot(CARD_SIDE)) for c in _pick(rng, list(COLOURS), n_cards)]
    grey = int(rng.integers(150, 200))
    background = tuple(shade_of(grey + d) for d in rng.integers(-10, 11, 3).tolist())
    clutter = []
    for _ in range(int(rng.integers(6, 14))):
        x, y, reach = float(rng.random()), float(rng.random()), float(rng.uniform(0.004, 0.05))
        angle = float(rng.uniform(0, np.pi))
        shade = shade_of(grey + int(rng.integers(-45, 40)))
        clutter.append((x, y, x + reach * np.cos(angle), y + reach * np.sin(angle), shade))
    return Scene(
        (background[0], background[1], background[2]),
        tuple(large),
        tuple(small),
        tuple(cards),
        tuple(clutter),
    )


def _draw_shape(draw: ImageDraw.ImageDraw, s: Shape, x0: float, y0: float, scale: float) -> None:
    x, y, r = (s.x - x0) * scale, (s.y - y0) * scale, s.size * scale / 2
    if s.shape == "circle":
        draw.ellipse((x - r, y - r, x + r, y + r), fill=s.rgb)
    elif s.shape == "ring":
        draw.ellipse((x - r, y - r, x + r, y + r), outline=s.rgb, width=max(1, round(r * 0.42)))
    elif s.shape == "triangle":
        draw.polygon([(x, y - r), (x + r, y + r * 0.85), (x - r, y + r * 0.85)], fill=s.rgb)
    elif s.shape == "bar":
        draw.rectangle((x - r, y - r * 0.32, x + r, y + r * 0.32), fill=s.rgb)
    else:
        arm = r * 0.32
        draw.rectangle((x - r, y - arm, x + r, y + arm), fill=s.rgb)
        draw.rectangle((x - arm, y - r, x + arm, y + r), fill=s.rgb)


def render(
    scene: Scene, side: int, region: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
) -> Image:
    """The scene, or a square region of it (left, top, right, bottom), at `side` x `side` px."""
    x0, y0, x1, _ = region
    scale = side / (x1 - x0)
    image = PILImage.new("RGB", (side, side), scene.background)
    draw = ImageDraw.Draw(image)
    for ax, ay, bx, by, shade in scene.clutter:
        line = ((ax - x0) * scale, (ay - y0) * scale, (bx - x0) * scale, (by - y0) * scale)
        draw.line(line, fill=(shade, shade, shade), width=max(1, round(0.006 * scale)))
    for card in scene.cards:
        x, y, half = (card.x - x0) * scale, (card.y - y0) * scale, card.size * scale / 2
        draw.rectangle(
            (x - half, y - half, x + half, y + half),
            fill=card.rgb,
            outline=(60, 60, 60),
            width=max(1, round(0.008 * scale)),
        )
        for mark in card.marks:
            if mark is not None:
                _draw_shape(draw, mark, x0, y0, scale)
    for thing in (*scene.large, *scene.small):
        _draw_shape(draw, thing, x0, y0, scale)
    return image


@dataclass(frozen=True, slots=True)
class Look:
    """Something the agent looks at: what it calls it, and its centre."""

    name: str
    x: float
    y: float
    row: int
    column: int


@dataclass(frozen=True, slots=True)
class Question:
    """A question with its answer and the way a careful agent takes to it.

    Args:
        text: The question.
        answer: The right answer, as short as can be.
        kind: One of `KINDS`.
        needs_tools: What the judge is taught; see `NEED_TOOLS`.
        looks: What to zoom in on, in order; empty where the scene is enough.
        findings: What the agent says it saw after each look (one more than looks: the last is
            said before the answer; the others before the next look).
        choices: Options, the answer among them; may be empty.
    """

    text: str
    answer: str
    kind: str
    needs_tools: bool
    looks: tuple[Look, ...]
    findings: tuple[str, ...]
    choices: tuple[str, ...] = ()


def look_at(name: str, thing: Shape | Card) -> Look:
    """A look at a thing under that name."""
    return Look(name, thing.x, thing.y, *cell(thing))


def _seen(thing: Shape, asked: str = "") -> str:
    """Sentence about a thing; where another colour was asked for, that it isn't that one."""
    other = f" not {asked}" if asked not in ("", thing.colour) else ""
    return f"The {thing.shape} is {thing.colour}{other}."


def _seen_by_colour(thing: Shape) -> str:
    return f"The {thing.colour} one is a {thing.shape}."


def _side(a: tuple[float, float], b: tuple[float, float], across: bool) -> str:
    if across:
        return "left" if a[0] < b[0] else "right"
    return "above" if a[1] < b[1] else "below"


def _apart(a: Shape, b: Shape, across: bool, least: float) -> bool:
    return abs(a.x - b.x if across else a.y - b.y) >= least


def _position_text(a: str, b: str, across: bool) -> str:
    way = "to the left or to the right of" if across else "above or below"
    return f"Is the {a} {way} the {b}?"


def _ask_large(scene: Scene, kind: str, rng: np.random.Generator) -> Question | None:
    one = scene.large[int(rng.integers(len(scene.large)))]
    if kind == "large/colour":
        text = f"What colour is the large {one.shape}?"
        seen = ("", _seen(one))
        looks = (look_at(f"large {one.shape}", one),)
        return Question(text, one.colour, kind, False, looks, seen)
    if kind == "large/shape":
        text = f"What shape is the large {one.colour} object?"
        seen = ("", _seen_by_colour(one))
        looks = (look_at(f"large {one.colour} object", one),)
        return Question(text, one.shape, kind, False, looks, seen)
    if kind == "large/presence":
        draw = rng.random()
        if draw < 0.5:
            colour, shape = one.colour, one.shape
        elif draw < 0.75:
            others = [o.colour for o in scene.large if o is not one]
            colour, shape = others[int(rng.integers(len(others)))], one.shape
        elif draw < 0.88:
            unused = [c for c in COLOURS if all(o.colour != c for o in scene.large)]
            colour, shape = unused[int(rng.integers(len(unused)))], one.shape
        else:
            absent = [s for s in SHAPES if all(o.shape != s for o in scene.large)]
            colour, shape = one.colour, absent[int(rng.integers(len(absent)))]
        text = f"Is there a large {colour} {shape}?"
        found = [o for o in scene.large if o.shape == shape]
        if not found:
            return Question(text, "no", kind, False, (), (f"There is no large {shape}.",))
        seen = ("", _seen(found[0], colour))
        answer = "yes" if found[0].colour == colour else "no"
        looks = (look_at(f"large {shape}", found[0]),)
        return Question(text, answer, kind, False, looks, seen)
    other = scene.large[int(rng.integers(len(scene.large)))]
    across = bool(rng.random() < 0.5)
    if other is one or not _apart(one, other, across, 0.17):
        return None
    text = _position_text(f"large {one.shape}", f"large {other.shape}", across)
    (r1, c1), (r2, c2) = cell(one), cell(other)
    seen_at = (
        f"The large {one.shape} is in row {r1}, column {c1}, "
        f"the large {other.shape} is in row {r2}, column {c2}."
    )
    answer = _side((one.x, one.y), (other.x, other.y), across)
    return Question(text, answer, kind, False, (), (seen_at,))


def _ask_card(scene: Scene, kind: str, rng: np.random.Generator) -> Question | None:
    card = scene.cards[int(rng.integers(len(scene.cards)))]
    marks = [m for m in card.marks if m is not None]
    one = marks[int(rng.integers(len(marks)))]
    tools = kind in NEED_TOOLS
    looks = (look_at(f"{card.colour} card", card),)
    on = f"on the {card.colour} card"
    if kind == "card/colour":
        text = f"What colour is the {one.shape} {on}?"
        return Question(text, one.colour, kind, tools, looks, ("", _seen(one)))
    if kind == "card/shape":
        text = f"What shape is the {one.colour} mark {on}?"
        return Question(text, one.shape, kind, tools, looks, ("", _seen_by_colour(one)))
    if kind == "card/presence":
        draw = rng.random()
        if draw < 0.5:
            colour, shape = one.colour, one.shape
        elif draw < 0.85:
            others = [m.colour for m in marks if m is not one]
            colour, shape = others[int(rng.integers(len(others)))], one.shape
        else:
            absent = [s for s in SHAPES if all(m.shape != s for m in marks)]
            colour, shape = one.colour, absent[int(rng.integers(len(absent)))]
        text = f"Is there a {colour} {shape} {on}?"
        found = [m for m in marks if m.shape == shape]
        seen = _seen(found[0], colour) if found else f"There is no {shape}."
        answer = "yes" if found and found[0].colour == colour else "no"
        return Question(text, answer, kind, tools, looks, ("", seen))
    if kind == "card/position":
        other = marks[int(rng.integers(len(marks)))]
        across = bool(rng.random() < 0.5)
        if other is one or not _apart(one, other, across, 0.06):
            return None
        at = {m.shape: QUADRANTS[i] for i, m in enumerate(card.marks) if m is not None}
        text = f"On the {card.colour} card: " + _position_text(one.shape, other.shape, across)
        seen = f"The {one.shape} is {at[one.shape]}, the {other.shape} is {at[other.shape]}."
        answer = _side((one.x, one.y), (other.x, other.y), across)
        return Question(text, answer, kind, tools, looks, ("", seen))
    if kind == "card/count":
        text = f"How many marks are {on}?"
        taken = [QUADRANTS[i] for i, m in enumerate(card.marks) if m is not None]
        seen = "Marks: " + ", ".join(taken) + "."
        return Question(text, str(len(marks)), kind, tools, looks, ("", seen))
    other_card = scene.cards[int(rng.integers(len(scene.cards)))]
    if other_card is card:
        return None
    others_marks = [m for m in other_card.marks if m is not None]
    same = [m for m in others_marks if m.colour == one.colour]
    if rng.random() < 0.5 and same:
        two = same[0]
    elif rng.random() < 0.25:
        two = others_marks[int(rng.integers(len(others_marks)))]
    else:
        return None  # rather another card: "yes" should be as frequent as "no"
    text = (
        f"Is the {one.shape} on the {card.colour} card of the same colour as "
        f"the {two.shape} on the {other_card.colour} card?"
    )
    return Question(
        text,
        "yes" if two.colour == one.colour else "no",
        kind,
        True,
        (*looks, look_at(f"{other_card.colour} card", other_card)),
        ("", _seen(one), _seen(two, one.colour)),
    )


def ask(scene: Scene, kind: str, rng: np.random.Generator) -> Question | None:
    """A question of that kind, or None where this draw of the scene allows none."""
    if kind.startswith("large/"):
        return _ask_large(scene, kind, rng)
    if kind.startswith("card/"):
        return _ask_card(scene, kind, rng)
    one = scene.small[int(rng.integers(len(scene.small)))]
    text = f"What shape is the small {one.colour} object?"
    looks = (look_at(f"small {one.colour} object", one),)
    seen = ("", _seen_by_colour(one))
    return Question(text, one.shape, kind, False, looks, seen)


def options(question: Question, rng: np.random.Generator) -> tuple[str, ...]:
    """Shuffled options for a question, the answer among them; four for colours and shapes."""
    pool: Sequence[str]
    if question.answer in COLOURS:
        pool = tuple(COLOURS)
    elif question.answer in SHAPES:
        pool = SHAPES
    elif question.answer in ("left", "right"):
        pool = ("left", "right")
    elif question.answer in ("above", "below"):
        pool = ("above", "below")
    elif question.answer in ("yes", "no"):
        pool = ("yes", "no")
    else:
        pool = ("2", "3", "4")
    wrong = _pick(rng, [p for p in pool if p != question.answer], 3)
    return tuple(_pick(rng, [question.answer, *wrong], 4))


def draw_kind(rng: np.random.Generator) -> str:
    """A kind of question, by its share in `KINDS`."""
    shares = np.array(list(KINDS.values()))
    return list(KINDS)[int(rng.choice(len(shares), p=shares / shares.sum()))]


_SPLIT_SEED = {"train": 1, "calibration": 2, "heldout": 3}


@dataclass(frozen=True, slots=True)
class Item:
    """A query with its right answer.

    Args:
        query: The question on its scene, rendered in full size.
        answer: The right answer.
        kind: One of `KINDS`.
        scene_id: The scene's fingerprint.
        needs_tools: What the judge was taught for such a question.
    """

    query: Query
    answer: str
    kind: str
    scene_id: str
    needs_tools: bool


def draw(split: Split, index: int) -> tuple[Scene, Question, int]:
    """The scene, the question and the side in pixels of a split's item number `index`."""
    if split not in _SPLIT_SEED:
        raise InputError(f"split={split!r}; there are: {', '.join(_SPLIT_SEED)}")
    rng = np.random.default_rng([20260323, _SPLIT_SEED[split], index])
    kind = draw_kind(rng)
    while True:
        scene = draw_scene(rng)
        if split_of(scene.id) != split:
            continue
        for _ in range(8):
            question = ask(scene, kind, rng)
            if question is not None:
                side = int(rng.choice(SIDES, p=SIDE_WEIGHTS))
                return scene, question, side


def questions(
    split: Split, n: int, *, start: int = 0, with_choices: bool = False
) -> Iterator[Item]:
    """Items `start` to `start + n` of a split, each on a scene of its own, rendered as it comes.

    Args:
        split: "train", "calibration" or "heldout"; no scene is in two of them.
        n: How many.
        start: Number of the first.
        with_choices: Give each query shuffled options.

    Example:
        >>> item = next(questions("heldout", 1))
        >>> item.query.images[0].width >= 1024
        True
    """
    for index in range(start, start + n):
        scene, question, side = draw(split, index)
        choices: tuple[str, ...] = ()
        if with_choices:
            choices = options(question, np.random.default_rng([7, index]))
        query = Query(question.text, (render(scene, side),), choices, id=f"{split}-{index}")
        yield Item(query, question.answer, question.kind, scene.id, question.needs_tools)


def as_dict(scene: Scene) -> dict[str, object]:
    """The scene as plain values, for writing down."""
    return asdict(scene)


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """The items by `size`, the last of them fewer."""
    batch: list[Item] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
