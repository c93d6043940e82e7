"""Synthetic scenes: drawn from a seed, split without leaks, answers that are true."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from speceyes.errors import InputError
from speceyes.tiny import scenes
from speceyes.tiny.scenes import KINDS, Question, Scene, Shape

Drawn = dict[scenes.Split, list[tuple[Scene, Question, int]]]


@pytest.fixture(scope="module")
def drawn() -> Drawn:
    """The first scenes of each split."""
    counts: dict[scenes.Split, int] = {"train": 30, "calibration": 30, "heldout": 100}
    return {split: [scenes.draw(split, i) for i in range(n)] for split, n in counts.items()}


@pytest.fixture(scope="module")
def many() -> list[Scene]:
    """Scenes of no split."""
    rng = np.random.default_rng(9)
    return [scenes.draw_scene(rng) for _ in range(400)]


def test_no_scene_is_in_two_splits(drawn: Drawn) -> None:
    """The split is a function of the scene, so a leak is impossible; and none is seen."""
    ids = {split: {scene.id for scene, _, _ in found} for split, found in drawn.items()}
    for split, members in ids.items():
        assert {scenes.split_of(m) for m in members} == {split}
    for a, b in itertools.combinations(ids.values(), 2):
        assert not a & b


def test_training_draws_only_from_the_train_split() -> None:
    """What the trainer draws never falls into a split that is measured on."""
    lessons = pytest.importorskip("speceyes.tiny.training.lessons")
    models = pytest.importorskip("speceyes.tiny.training.models")
    lesson = lessons.Lessons(
        models.build_tokenizer(), models.SMALL_SIZE, large=False, seed=5, scenes_a_batch=2
    )
    rng = np.random.default_rng(3)
    drawn = {scenes.split_of(lesson.scene(rng).id) for _ in range(200)}
    assert drawn == {"train"}


def test_an_item_is_the_same_each_time() -> None:
    one, again = (next(scenes.questions("heldout", 1, start=17)) for _ in range(2))
    assert one.query.question == again.query.question
    assert one.answer == again.answer
    assert one.query.images[0].tobytes() == again.query.images[0].tobytes()


def test_scenes_are_large(drawn: Drawn) -> None:
    sides = [side for _, _, side in drawn["heldout"]]
    assert min(sides) >= 1024
    assert 4096 in sides


def test_kinds_come_in_their_shares() -> None:
    rng = np.random.default_rng(0)
    drawn = [scenes.draw_kind(rng) for _ in range(20_000)]
    for kind, share in KINDS.items():
        assert abs(drawn.count(kind) / len(drawn) - share / sum(KINDS.values())) < 0.01


def _answer_by_looking(scene: Scene, question: Question) -> str:
    """The answer worked out from the drawn objects and the question's words alone."""
    words = question.text.rstrip("?").replace(":", "").split()
    group: list[Shape]
    if "card" in words and question.kind != "card/same":
        name = words[words.index("card") - 1]
        [card] = [c for c in scene.cards if c.colour == name]
        group = [m for m in card.marks if m is not None]
    else:
        group = list(scene.small if question.kind.startswith("small") else scene.large)
    kind = question.kind.split("/")[1]
    if kind == "same":
        colours = []
        for at in (i for i, w in enumerate(words) if w == "card"):
            [card] = [c for c in scene.cards if c.colour == words[at - 1]]
            shape = words[at - 4]
            [mark] = [m for m in card.marks if m is not None and m.shape == shape]
            colours.append(mark.colour)
        return "yes" if colours[0] == colours[1] else "no"
    if kind == "colour":
        [shape] = [w for w in words if w in scenes.SHAPES]
        [one] = [o for o in group if o.shape == shape]
        return one.colour
    if kind == "shape":
        colour = words[words.index("the") + (1 if "mark" in words else 2)]
        [one] = [o for o in group if o.colour == colour]
        return one.shape
    if kind == "presence":
        [shape] = [w for w in words if w in scenes.SHAPES]
        colour = words[words.index(shape) - 1]
        return "yes" if any(o.shape == shape and o.colour == colour for o in group) else "no"
    if kind == "count":
        return str(len(group))
    first, second = [w for w in words if w in scenes.SHAPES]
    [a], [b] = ([o for o in group if o.shape == s] for s in (first, second))
    if "left" in words:
        return "left" if a.x < b.x else "right"
    return "above" if a.y < b.y else "below"


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_true(kind: str, many: list[Scene]) -> None:
    """Every kind of question, answered a second time from its words and the objects."""
    rng = np.random.default_rng(8)
    asked = [(scene, scenes.ask(scene, kind, rng)) for scene in many]
    checked = [(scene, question) for scene, question in asked if question is not None]
    assert len(checked) >= 60
    for scene, question in checked:
        assert _answer_by_looking(scene, question) == question.answer, question.text


@pytest.mark.parametrize("kind", KINDS)
def test_no_answer_can_be_guessed(kind: str, many: list[Scene]) -> None:
    """No answer of a kind comes much more often than its rivals."""
    rng = np.random.default_rng(9)
    answers: list[str] = []
    while len(answers) < 400:
        asked = (scenes.ask(scene, kind, rng) for scene in many)
        answers += [question.answer for question in asked if question is not None]
    most = max(answers.count(a) for a in set(answers)) / len(answers)
    assert most <= 0.62


def test_a_crop_shows_what_the_scene_hides() -> None:
    """Rendering a region gives the same picture as cropping the full rendering."""
    scene, _, _ = scenes.draw("heldout", 3)
    card = scene.cards[0]
    half = 0.125
    x, y = (min(max(v, half), 1 - half) for v in (card.x, card.y))
    region = (x - half, y - half, x + half, y + half)
    whole = np.asarray(scenes.render(scene, 1024), dtype=float)
    left, top = round(region[0] * 1024), round(region[1] * 1024)
    crop = whole[top : top + 256, left : left + 256]
    direct = np.asarray(scenes.render(scene, 256, region), dtype=float)
    assert np.abs(crop - direct).mean() < 6  # edges may differ by a pixel


def test_options_hold_the_answer_once() -> None:
    rng = np.random.default_rng(4)
    for index in range(100):
        _, question, _ = scenes.draw("train", index)
        choices = scenes.options(question, rng)
        assert choices.count(question.answer) == 1
        assert len(set(choices)) == len(choices) >= 2


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(InputError, match="there are: train, calibration, heldout"):
        scenes.draw("test", 0)  # type: ignore[arg-type]
