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
    if found := re.fullmatch(r"Is the number of (.+) the same as the number of (.+)\?", text):
        return "yes" if count(found[1]) == count(found[2]) else "no"
    found = re.fullmatch(
        r"Is the number of (.+) above the number of (.+) plus the number of (.+)\?", text
    )
    assert found, text
    return "yes" if count(found[1]) > count(found[2]) + count(found[3]) else "no"


def test_running_counts_are_those_of_what_was_listed(drawn: list[tuple[Scene, Puzzle]]) -> None:
    for scene, puzzle in drawn:
        solution = puzzle.solve(scene)
        assert solution is not None
        seen = [0] * len(puzzle.counted)
        listed = " ".join(solution.reasoning[:4])
        for colour, shape, marks in re.findall(r"column \d (\w+) (\w+) ([^,.]+)", listed):
            for at, groups in enumerate(puzzle.counted):
                seen[at] += (colour in groups) + (shape in groups)
            assert [int(n) for n in re.findall(r"\d", marks)] == seen
        ends = [int(re.findall(r": (\d)", said)[0]) for said in solution.reasoning[4:]]
        assert ends == seen


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
        assert listed == table(scene) and 5 <= len(solution.reasoning) <= 6


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


def test_a_number_above_nine_has_no_solution() -> None:
    row = [Shape("ring", "red", 0.1 + 0.2 * i, 0.1, 0.2, (200, 0, 0)) for i in range(4)]
    scene = Scene((170, 170, 170), (*row, row[0]), (), (), ())
    assert Puzzle("sum", ("ring", "red")).solve(scene) is None
    solved = Puzzle("count", ("bar",)).solve(scene)
    assert solved is not None and solved.answer == "0"


def test_altered_scenes_differ_in_what_is_seen(drawn: list[tuple[Scene, Puzzle]]) -> None:
    rng = np.random.default_rng(0)
    changed = [table(puzzles.altered(scene, rng)) != table(scene) for scene, _ in drawn[:100]]
    assert np.mean(changed) > 0.6
