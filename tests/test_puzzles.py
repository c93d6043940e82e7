"""Puzzles: every answer follows from the scene, every reasoning from what is there."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from speceyes.errors import InputError
from speceyes.tiny import puzzles
from speceyes.tiny.puzzles import KINDS, Puzzle, draw
from speceyes.tiny.scenes import COLOURS, SHAPES, Scene, Shape, cell, split_of

N = 300


@pytest.fixture(scope="module")
def drawn() -> list[tuple[Scene, Puzzle]]:
    return [draw("heldout", i) for i in range(N)]


def table(scene: Scene) -> dict[tuple[int, int], tuple[str, str]]:
    return {cell(o): (o.colour, o.shape) for o in scene.large}


def neighbour(scene: Scene, colour: str, shape: str, side: str) -> tuple[str, str]:
    there = table(scene)
    [(row, column)] = [at for at, what in there.items() if what == (colour, shape)]
    step = 1 if side == "right" else -1
    ahead = range(column + step, 5 if step > 0 else 0, step)
    return next(there[row, c] for c in ahead if (row, c) in there)


def answer(scene: Scene, text: str) -> str:
    """The answer, from the question's words alone."""
    things = list(table(scene).values())

    def count(name: str) -> int:
        word = re.sub(r"(es|s)$", "", name) if name.endswith("sses") else name
        word = name.removesuffix(" objects") if name.endswith(" objects") else word
        word = word if word in (*COLOURS, *SHAPES) else word.removesuffix("s")
        assert word in (*COLOURS, *SHAPES), name
        return sum(word in thing for thing in things)

    if found := re.fullmatch(r"How many (.+) are there\?", text):
        return str(count(found[1]))
    if found := re.fullmatch(r"What is the number of (.+) plus the number of (.+)\?", text):
        return str(count(found[1]) + count(found[2]))
    if found := re.fullmatch(r"Which are there more of, (.+) or (.+)\?", text):
        one, other = count(found[1]), count(found[2])
        winner = found[1] if one > other else found[2]
        return "neither" if one == other else winner.removesuffix(" objects")
    named = re.findall(r"(right|left) of the (\w+) (\w+)", text)
    hops = [neighbour(scene, colour, shape, side) for side, colour, shape in named]
    if found := re.match(r"What (\w+) is the object", text):
        return hops[0][found[1] == "shape"]
    if found := re.match(r"Is the object .* of the same (\w+) as", text):
        at = found[1] == "shape"
        return "yes" if hops[0][at] == hops[1][at] else "no"
    found = re.match(r"In row (\d), what (\w+) has the (\w+) of", text)
    assert found, text
    key = found[3] == "shape"
    [thing] = [
        what
        for (row, _), what in table(scene).items()
        if row == int(found[1]) and what[key] == hops[0][key]
    ]
    return thing[found[2] == "shape"]


def test_answers_follow_from_scene_and_question(drawn: list[tuple[Scene, Puzzle]]) -> None:
    for scene, puzzle in drawn:
        solution = puzzle.solve(scene)
        assert solution is not None and solution.answer == answer(scene, puzzle.text), puzzle.text


def test_reasoning_lists_what_is_there(drawn: list[tuple[Scene, Puzzle]]) -> None:
    for scene, puzzle in drawn:
        solution = puzzle.solve(scene)
        assert solution is not None
        listed = {}
        for number, sentence in enumerate(solution.reasoning[:4], start=1):
            assert sentence.startswith(f"Row {number}: ")
            for column, colour, shape in re.findall(r"column (\d) (\w+) (\w+)", sentence):
                listed[number, int(column)] = colour, shape
        assert listed == table(scene) and len(solution.reasoning) >= 5


def test_every_kind_is_drawn_and_no_answer_is_nearly_certain() -> None:
    answers: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    for i in range(800):
        scene, puzzle = draw("train", i)
        solution = puzzle.solve(scene)
        assert solution is not None
        answers[puzzle.kind][solution.answer] += 1
    for kind, counts in answers.items():
        assert sum(counts.values()) == pytest.approx(800 * KINDS[kind], rel=0.35)
        assert max(counts.values()) / sum(counts.values()) < 0.6, kind


def test_no_scene_is_in_two_splits_and_items_are_the_same_each_time() -> None:
    for split in ("train", "calibration", "heldout"):
        assert {split_of(draw(split, i)[0].id) for i in range(10)} == {split}
    one, two = (next(puzzles.questions("heldout", 1, start=7)) for _ in range(2))
    assert one.query.question == two.query.question and one.answer == two.answer
    assert np.array_equal(np.asarray(one.query.images[0]), np.asarray(two.query.images[0]))
    with pytest.raises(InputError, match="split='test'"):
        draw("test", 0)  # type: ignore[arg-type]


def test_a_puzzle_that_the_scene_does_not_answer_has_no_solution() -> None:
    one = Shape("ring", "red", 0.1, 0.1, 0.2, (200, 0, 0))
    scene = Scene((170, 170, 170), (one,), (), (), ())
    hop = puzzles.Hop("red", "ring", "right")
    assert Puzzle("next", (), (hop,)).solve(scene) is None
    assert Puzzle("next", (), (puzzles.Hop("blue", "bar", "left"),)).solve(scene) is None
    assert Puzzle("count", ("bar",)).solve(scene) is not None


def test_altered_scenes_differ_in_what_is_seen(drawn: list[tuple[Scene, Puzzle]]) -> None:
    rng = np.random.default_rng(0)
    changed = [table(puzzles.altered(scene, rng)) != table(scene) for scene, _ in drawn[:100]]
    assert np.mean(changed) > 0.6
