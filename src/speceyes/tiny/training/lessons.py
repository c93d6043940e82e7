"""Batches to train on: scenes, views of them, transcripts in tokens, and what views hold.

Nothing is stored: every scene is drawn from its number, and only scenes of the train split are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage
from transformers import PreTrainedTokenizerFast

from speceyes.tiny import scenes
from speceyes.tiny.scenes import COLOURS, SHAPES, Card, Look, Question, Scene, Shape
from speceyes.tiny.training import transcripts, zooming
from speceyes.tiny.training.models import Size
from speceyes.tiny.training.transcripts import Piece, Region, Transcript, region_of

ROLES = ("given", "said", "place", "box", "seen", "answer")
TOKENS = 4  # merged vision tokens a side
COARSE = 3  # the same in the smaller view of a drafter that judges
THINGS = ("none", "large", "small", "card")
Array = npt.NDArray[np.int64]
COMPARED = ("large/presence", "card/presence", "card/position", "card/same")
"""Kinds that compare two things, which are learned last: the agent is taught more of them."""
_COLOUR = {name: i + 1 for i, name in enumerate(COLOURS)}
_SHAPE = {name: i + 1 for i, name in enumerate(SHAPES)}


@dataclass(frozen=True, slots=True)
class Row:
    """A transcript in tokens.

    Args:
        ids: int64[t].
        roles: int64[t], index into `ROLES` of what each token is.
        images: Indices into the batch's views, in order.
        name: Branch and kind of question, for reports.
        mentions: int64[m, 5]: for each thing that the question names, the place of the last
            token of its name, its row and column (from 0), its colour and shape (-1: not asked).
    """

    ids: Array
    roles: Array
    images: tuple[int, ...]
    name: str
    mentions: Array


@dataclass(frozen=True, slots=True)
class Batch:
    """Views with what they hold, and the transcripts about them.

    Args:
        views: uint8[n, view, view, 3].
        labels: int64[n, 16, 7]: row and column of each merged token, and thing, colour, shape,
            offset across, offset down of what it shows; -1 where it isn't asked.
        rows: Transcripts.
        tokens: Merged vision tokens a side of each view.
    """

    views: npt.NDArray[np.uint8]
    labels: Array
    rows: tuple[Row, ...]
    tokens: int = TOKENS


def view_of(scene: Scene, region: Region, view: int, rng: np.random.Generator) -> Array:
    """uint8[view, view, 3]: the region scaled down as the processor scales a photograph."""
    across = region[2] - region[0]
    factors = (3, 4, 5) if across > 0.9 else (2, 3)
    side = view * factors[int(rng.integers(len(factors)))]
    image = scenes.render(scene, side, region)
    small = image.resize((view, view), PILImage.Resampling.BICUBIC)
    return np.asarray(small)


def places_alone() -> Array:
    """int64[16, 7]: rows and columns alone."""
    labels = np.full((TOKENS * TOKENS, 7), -1, dtype=np.int64)
    labels[:, 0], labels[:, 1] = np.divmod(np.arange(TOKENS * TOKENS), TOKENS)
    return labels


def scene_labels(scene: Scene) -> Array:
    """int64[16, 7] for the whole scene."""
    labels = places_alone()
    labels[:, 2] = 0
    for one in _things(scene):
        row, column = scenes.cell(one)
        dx = round((one.x * TOKENS - column + 0.5) * 7)
        dy = round((one.y * TOKENS - row + 0.5) * 7)
        shape = _SHAPE[one.shape] if isinstance(one, Shape) else -1
        thing = 3 if isinstance(one, Card) else 1 if one in scene.large else 2
        at = (row - 1) * TOKENS + column - 1
        labels[at, 2:] = (thing, _COLOUR[one.colour], shape, dx + 3, dy + 3)
    return labels


def coarse_labels(scene: Scene) -> Array:
    """int64[9, 7] for a scene in a smaller view; of a token that shows the middles of several
    things, row and column alone.
    """
    labels = np.full((COARSE * COARSE, 7), -1, dtype=np.int64)
    labels[:, 0], labels[:, 1] = np.divmod(np.arange(COARSE * COARSE), COARSE)
    labels[:, 2] = 0
    for one in _things(scene):
        column, row = min(int(one.x * COARSE), COARSE - 1), min(int(one.y * COARSE), COARSE - 1)
        at = row * COARSE + column
        if labels[at, 2]:
            labels[at, 2:] = -1
            continue
        offsets = (
            min(6, int((place * COARSE - cell) * 7))
            for place, cell in ((one.x, column), (one.y, row))
        )
        shape = _SHAPE[one.shape] if isinstance(one, Shape) else -1
        thing = 3 if isinstance(one, Card) else 1 if one in scene.large else 2
        labels[at, 2:] = (thing, _COLOUR[one.colour], shape, *offsets)
    return labels


def crop_labels(scene: Scene, look: Look) -> Array:
    """int64[16, 7] for a crop around a look: the four tokens in the middle."""
    labels = places_alone()
    for one in _things(scene):
        if (one.x, one.y) != (look.x, look.y):
            continue
        for quadrant in range(4):
            at = (1 + quadrant // 2) * TOKENS + 1 + quadrant % 2
            shown = one.marks[quadrant] if isinstance(one, Card) else one
            colour = _COLOUR[shown.colour] if shown else 0
            labels[at, 3:5] = (colour, _SHAPE[shown.shape] if shown else 0)
    return labels


Named = tuple[int, str, tuple[int, int, int, int]]
"""After which image a name stands, the name, and row, column, colour and shape of its thing."""


def _things(scene: Scene) -> list[Shape | Card]:
    return [*scene.large, *scene.small, *scene.cards]


def _named(scene: Scene, question: Question) -> list[Named]:
    """The things that the question names."""
    found: list[Named] = []
    for one in _things(scene):
        row, column = scenes.cell(one)
        colour = _COLOUR[one.colour]
        if isinstance(one, Card):
            names, shape = [f" {one.colour} card"], -1
        elif one in scene.large:
            names, shape = [f" large {one.shape}", f" large {one.colour} object"], _SHAPE[one.shape]
            if question.kind == "large/presence":
                names = [f" {one.shape}"]
        else:
            names, shape = [f" small {one.colour} object"], _SHAPE[one.shape]
        place = (row - 1, column - 1, colour, shape)
        found += [(0, name, place) for name in names if name in question.text]
    return found


def _named_in_findings(scene: Scene, question: Question) -> list[Named]:
    """The things that the agent names in its crops; places are those of the crop."""
    found: list[Named] = []
    for number, look in enumerate(question.looks, start=1):
        said = question.findings[number].lower()
        [thing] = [t for t in _things(scene) if (t.x, t.y) == (look.x, look.y)]
        marks = thing.marks if isinstance(thing, Card) else (thing,)
        for quadrant, mark in enumerate(marks):
            if mark is None:
                continue
            place = (-1, -1)
            if isinstance(thing, Card):
                place = (1 + quadrant // 2, 1 + quadrant % 2)
            looks_like = (_COLOUR[mark.colour], _SHAPE[mark.shape])
            if f"the {mark.shape} is" in said:
                found.append((number, f" {mark.shape}", (*place, *looks_like)))
            if f"the {mark.colour} one" in said:
                found.append((number, f" {mark.colour}", (*place, *looks_like)))
    return found


def _where(scene: Scene, rng: np.random.Generator) -> Question:
    """A question for training alone: where is it? It teaches both models to locate."""
    group: list[Shape | Card] = [*scene.large, *scene.cards, *scene.small]
    one = group[int(rng.integers(len(group)))]
    if isinstance(one, Shape) and one in scene.large:
        name = f"large {one.shape}" if rng.random() < 0.7 else f"large {one.colour} object"
    else:
        name = f"{one.colour} card" if one in scene.cards else f"small {one.colour} object"
    row, column = scenes.cell(one)
    return Question(f"Where is the {name}?", f"row {row}, column {column}", "where", False, (), ())


class Lessons:
    """Draws batches for one model. A batch depends on the seed and its number alone.

    Args:
        tokenizer: The pair's.
        size: The model's.
        large: Teach the agent (else the drafter).
        zooms: Teach the drafter to zoom as well.
        judges: Teach the drafter to judge as well, two batches of three at three quarters of the
            size.
        seed: Of all batches.
        scenes_a_batch: How many scenes a batch has.
        easy: In this many first batches all questions are about large objects: what can be
            seen is learned first, what can only be guessed waits.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        size: Size,
        *,
        large: bool,
        seed: int,
        scenes_a_batch: int,
        easy: int = 0,
        zooms: bool = False,
        judges: bool = False,
    ) -> None:
        self._tokenizer = tokenizer
        self._size = size
        self._judges = judges
        self._large = large
        self._zooms = zooms
        self._seed = seed
        self._count = scenes_a_batch
        self._easy = easy
        self._cache: dict[tuple[str, int], Array] = {}
        self._pad = int(tokenizer.convert_tokens_to_ids("<|image_pad|>"))

    def batch(self, number: int, *, rows: bool = True) -> Batch:
        """Batch `number`; without rows, views and labels alone (to train the vision tower)."""
        course = 3 if self._judges else 2 if self._zooms else int(self._large)
        rng = np.random.default_rng([self._seed, course, number])
        tokens = COARSE if self._judges and number % 3 else TOKENS
        view = self._size.view * tokens // TOKENS
        views: list[Array] = []
        labels: list[Array] = []
        told: list[Row] = []
        for _ in range(self._count):
            scene = self.scene(rng)
            whole = len(views)
            views.append(view_of(scene, (0.0, 0.0, 1.0, 1.0), view, rng))
            labels.append(scene_labels(scene) if tokens == TOKENS else coarse_labels(scene))
            easy = number < self._easy
            for name, transcript, question in self.transcripts(scene, rng, rows, easy, tokens):
                images = [whole]
                for look, region in zip(question.looks, transcript.regions[1:], strict=False):
                    images.append(len(views))
                    views.append(view_of(scene, region, self._size.view, rng))
                    labels.append(crop_labels(scene, look))
                if rows:
                    named = _named(scene, question)
                    if len(images) == len(question.looks) + 1:
                        named += _named_in_findings(scene, question)
                    told.append(self.row(name, transcript, images, named, tokens))
            if self._large or (self._zooms and not rows):
                # Marks are the hardest to read: every card is looked at, asked about or not.
                for card in scene.cards:
                    look = scenes.look_at(f"{card.colour} card", card)
                    region = region_of(look, self._size.view)
                    views.append(view_of(scene, region, self._size.view, rng))
                    labels.append(crop_labels(scene, look))
        return Batch(np.stack(views).astype(np.uint8), np.stack(labels), tuple(told), tokens)

    def scene(self, rng: np.random.Generator) -> Scene:
        """A scene of the training split, drawn at random."""
        while True:
            scene = scenes.draw_scene(rng)
            if scenes.split_of(scene.id) == "train":
                return scene

    def _question(
        self, scene: Scene, rng: np.random.Generator, easy: bool, harder: bool = False
    ) -> Question:
        while True:
            kind = scenes.draw_kind(rng)
            if harder and rng.random() < 0.35:
                kind = COMPARED[int(rng.integers(len(COMPARED)))]
            if easy and not kind.startswith("large/"):
                continue
            question = scenes.ask(scene, kind, rng)
            if question is not None:
                if rng.random() < 0.12:
                    return replace(question, choices=scenes.options(question, rng))
                return question

    def transcripts(
        self, scene: Scene, rng: np.random.Generator, rows: bool, easy: bool, tokens: int = TOKENS
    ) -> list[tuple[str, Transcript, Question]]:
        """Transcripts about a scene: (name, transcript, the question that it answers).

        Args:
            scene: What is asked about.
            rng: Questions and variations are drawn from it.
            rows: They are trained on; without, only what they look at is.
            easy: Early in the training: questions about large cards, more of where things are.
            tokens: Image tokens a side.
        """
        told: list[tuple[str, Transcript, Question]] = []
        view = self._size.view
        if self._judges:
            return self._judged(scene, rng, tokens) if rows else told
        if self._zooms:
            if not rows:
                return told
            return zooming.lessons_about(
                scene,
                view,
                rng,
                lambda: self._question(scene, rng, easy),
                lambda: _where(scene, rng),
            )
        if not self._large:
            if rows:
                for _ in range(6):
                    q = self._question(scene, rng, easy)
                    told.append((f"draft {q.kind}", transcripts.draft(q), q))
                for _ in range(3 if easy else 1):
                    q = _where(scene, rng)
                    told.append(("draft where", transcripts.draft(q), q))
            return told
        for _ in range(4 if rows else 3):
            q = self._question(scene, rng, easy, harder=True)
            cut = None
            if q.looks and rng.random() < 0.04:
                cut = len(q.looks)
            told.append((f"agent {q.kind}", transcripts.agent(q, view, cut=cut), q))
        if rows:
            q = self._question(scene, rng, easy)
            told.append((f"judge {q.kind}", transcripts.judge(q), replace(q, looks=())))
            q = self._question(scene, rng, easy) if rng.random() < 0.5 else _where(scene, rng)
            told.append((f"direct {q.kind}", transcripts.direct(q), replace(q, looks=())))
        return told

    def _judged(
        self, scene: Scene, rng: np.random.Generator, tokens: int
    ) -> list[tuple[str, Transcript, Question]]:
        """Drafts, judgements, and drafts that may ask for a closer look, at one size."""
        told: list[tuple[str, Transcript, Question]] = []
        at = "coarse" if tokens == COARSE else "whole"
        for number in range(8):
            q = self._question(scene, rng, False)
            if number in (3, 4):
                one, name = transcripts.small_judge(q), f"judge {at} {q.kind}"
            elif number >= 5:
                one, name = transcripts.one_pass(q), f"one-pass {at} {q.kind}"
            else:
                one, name = transcripts.draft(q), f"draft {at} {q.kind}"
            told.append((name, one, replace(q, looks=())))
        if rng.random() < 0.5:
            q = _where(scene, rng)
            told.append((f"draft {at} where", transcripts.draft(q), q))
        return told

    def row(
        self,
        name: str,
        transcript: Transcript,
        images: Sequence[int],
        named: Sequence[Named] = (),
        side: int = TOKENS,
    ) -> Row:
        """A transcript as tokens, to train on.

        Args:
            name: Of the kind of lesson.
            transcript: What is said.
            images: Numbers of its images within the batch.
            named: Things in the images that tokens speak of.
            side: Image tokens a side.
        """
        ids: list[Array] = []
        roles: list[Array] = []
        for piece in _joined(transcript.pieces):
            tokens = self._encode(piece.text, side)
            ids.append(tokens)
            roles.append(np.full(len(tokens), ROLES.index(piece.role), dtype=np.int64))
        whole = np.concatenate(ids)
        pads = np.flatnonzero(whole == self._pad)
        mentions = []
        for image, words, place in named:
            start = int(pads[(image + 1) * side * side - 1])
            end = _end_of(whole, self._encode(words, side), start)
            if end is not None:
                mentions.append((end, *place))
        return Row(
            whole,
            np.concatenate(roles),
            tuple(images),
            name,
            np.array(mentions, dtype=np.int64).reshape(-1, 5),
        )

    def _encode(self, text: str, side: int = TOKENS) -> Array:
        found = self._cache.get((text, side))
        if found is None:
            if len(self._cache) > 200_000:
                self._cache.clear()
            raw = self._tokenizer(text, add_special_tokens=False)["input_ids"]
            expanded: list[int] = []
            for token in raw:
                expanded += [token] * (side * side if token == self._pad else 1)
            found = self._cache[text, side] = np.array(expanded, dtype=np.int64)
        return found


def _end_of(ids: Array, words: Array, start: int) -> int | None:
    """The place of the last token of the first run of `words` in ids after `start`."""
    windows = np.lib.stride_tricks.sliding_window_view(ids[start:], len(words))
    hits = np.flatnonzero((windows == words).all(axis=1))
    return start + int(hits[0]) + len(words) - 1 if len(hits) else None


def _joined(pieces: Sequence[Piece]) -> list[Piece]:
    """Pieces whose border falls inside a phrase token, put together so that it stays one."""
    out: list[Piece] = []
    for piece in pieces:
        if out and out[-1].text.endswith("<tool_call>\n") and piece.role == "said":
            out[-1] = Piece(out[-1].text + piece.text, "said")
        else:
            out.append(piece)
    return out
