"""The synthetic scenes of the tiny pair as a benchmark, drawn as they are asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import get_args

import numpy as np

from speceyes.errors import InputError
from speceyes.evaluation.benchmarks._gather import Draft
from speceyes.evaluation.benchmarks.layout import DrawnLayout
from speceyes.tiny import scenes
from speceyes.types import Image, Query

SPLITS: tuple[scenes.Split, ...] = get_args(scenes.Split)
DEFAULT_LIMIT = 200
_TRIES = 1000
"""Scenes in a row of none of the kinds asked for, after which there are none."""


@dataclass(frozen=True, slots=True)
class SceneImage:
    """The picture of a split's item number `index`."""

    split: scenes.Split
    index: int
    key: str

    def image(self) -> Image:
        """The scene in full size."""
        scene, _, side = scenes.draw(self.split, self.index)
        return scenes.render(scene, side)


@dataclass(frozen=True, slots=True)
class SceneItem:
    """A question on a scene, with its answer; see `speceyes.evaluation.row.Item`."""

    query: Query
    answer: str
    kind: str


def read(
    part: str, n: int, *, answers: Collection[str] | None = None, with_choices: bool = True
) -> Iterator[Draft]:
    """The first n items of a split, or of those with such answers; nothing is drawn yet.

    Args:
        part: The split: "train", "calibration" or "heldout".
        n: How many.
        answers: Take only items with these answers, such as {"yes", "no"}.
        with_choices: Give each question its options; they don't depend on n.

    Raises:
        InputError: There is no such split, or there are no such answers.
    """
    split: scenes.Split | None = next((one for one in SPLITS if one == part), None)
    if split is None:
        raise InputError(f"split={part!r} of the scenes; there are: {', '.join(SPLITS)}")
    found, index, since = 0, -1, 0
    while found < n:
        index, since = index + 1, since + 1
        if since > _TRIES:
            raise InputError(f"answers={answers}: none of {_TRIES} questions has such an answer")
        scene, question, _ = scenes.draw(split, index)
        if answers is not None and question.answer not in answers:
            continue
        found, since = found + 1, 0
        choices: tuple[str, ...] = ()
        if with_choices:
            choices = scenes.options(question, np.random.default_rng([7, index]))
        name = f"{split}-{index}"
        key = hashlib.sha256(f"scene {scene.id}".encode()).hexdigest()
        picture = SceneImage(split, index, key)
        yield Draft(name, name, question.text, choices, question.answer, question.kind, (picture,))


def items(
    split: str, n: int, *, answers: Collection[str] | None = None, with_choices: bool = True
) -> Iterator[SceneItem]:
    """The same with pictures, to be written in a benchmark's layout; see `read`.

    Example:
        >>> from speceyes.evaluation import benchmarks
        >>> benchmarks.write("pope", items("heldout", 3, answers={"yes", "no"},
        ...                                with_choices=False), "pope")
        3
    """
    for draft in read(split, n, answers=answers, with_choices=with_choices):
        picture = draft.sources[0]
        assert isinstance(picture, SceneImage)
        query = Query(draft.question, (picture.image(),), draft.choices, id=draft.id)
        yield SceneItem(query, draft.answer, draft.kind)


LAYOUTS = (DrawnLayout("scenes", read),)
