"""Lessons of a drafter that may zoom: to draft as before, to say where it would look, and to
draft from the scene with a crop behind it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from speceyes.tiny import scenes
from speceyes.tiny.scenes import Card, Question, Scene, Shape
from speceyes.tiny.training import transcripts
from speceyes.tiny.training.transcripts import Transcript

Told = tuple[str, Transcript, Question]
"""Name in reports, transcript, and the question with the looks whose crops are shown."""

LOOKED: dict[str, float] = {
    "card/colour": 0.20,
    "card/shape": 0.20,
    "card/presence": 0.17,
    "card/position": 0.15,
    "card/count": 0.10,
    "card/same": 0.04,
    "small/shape": 0.10,
    "large/colour": 0.02,
    "large/presence": 0.02,
}
"""Kinds that are asked about crops, with their shares: mostly those that a scene can't answer."""
WRONG = 0.12
"""Share of crops that show another thing than the one asked about. A drafter that has never seen
one is as sure of what it reads there as anywhere.
"""


def lessons_about(
    scene: Scene,
    view: int,
    rng: np.random.Generator,
    ask: Callable[[], Question],
    where: Callable[[], Question],
) -> list[Told]:
    """A scene's transcripts.

    Args:
        scene: What is asked about.
        view: Pixels a side of what the model sees.
        rng: Draws kinds and crops.
        ask: Draws a question about the scene.
        where: Draws a question for a place.
    """
    told: list[Told] = []
    for _ in range(3):
        question = ask()
        told.append((f"draft {question.kind}", transcripts.draft(question), _blind(question)))
    if rng.random() < 0.5:
        question = where()
        told.append(("draft where", transcripts.draft(question), question))
    for number in range(3):
        question = _looked(scene, rng) if number else ask()
        told.append((f"zoom {question.kind}", transcripts.zoom(question, view), _blind(question)))
    for _ in range(4):
        question = _looked(scene, rng)
        name = f"deep {question.kind}"
        if rng.random() < WRONG:
            question, name = _elsewhere(scene, question, rng), "deep wrong"
        told.append((name, transcripts.draft(question, view, looks=1), _seeing(question, 1)))
    return told


def _blind(question: Question) -> Question:
    return replace(question, looks=())


def _seeing(question: Question, looks: int) -> Question:
    """The question with its first looks alone, and one finding more than looks."""
    return replace(question, looks=question.looks[:looks], findings=question.findings[: looks + 1])


def _looked(scene: Scene, rng: np.random.Generator) -> Question:
    shares = np.array(list(LOOKED.values()))
    while True:
        kind = list(LOOKED)[int(rng.choice(len(shares), p=shares / shares.sum()))]
        question = scenes.ask(scene, kind, rng)
        if question is not None and question.looks:
            if rng.random() < 0.12:
                return replace(question, choices=scenes.options(question, rng))
            return question


def _elsewhere(scene: Scene, question: Question, rng: np.random.Generator) -> Question:
    """The question with a look at something else, and nothing found there."""
    asked = (question.looks[0].x, question.looks[0].y)
    things: list[Card | Shape] = [*scene.cards, *scene.large]
    others = [t for t in things if (t.x, t.y) != asked]
    other = others[int(rng.integers(len(others)))]
    return replace(question, looks=(scenes.look_at("another thing", other),), findings=("", ""))
