from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speceyes.evaluation.grading import is_correct, normalise

RIGHT = [
    # plain text: case, punctuation, articles
    ("red", "red"),
    ("Red", "red"),
    ("RED.", "red"),
    ("  red \n", "red"),
    ("a circle", "circle"),
    ("The circle", "a circle"),
    ("an apple!", "apple"),
    ('"green"', "green"),
    ("**green**", "green"),
    ("grey", "gray"),
    ("the colour red", "the color red"),
    ("dark-blue", "dark blue"),
    ("traffic light", "Traffic Light"),
    # wrapped
    ("The answer is red.", "red"),
    ("Answer: red", "red"),
    ("Final answer: red", "red"),
    ("So the final answer is: red.", "red"),
    ("<answer>red</answer>", "red"),
    ("<think>blue?</think><answer> Red </answer>", "red"),
    ("<answer>red", "red"),
    (r"\boxed{red}", "red"),
    (r"$\boxed{\text{red}}$", "red"),
    ("The collar is red.", "red"),
    ("It is red", "red"),
    ("The dog's collar is blue", "blue"),
    ("It's on the left.", "left"),
    ("on the left", "left"),
    ("To the right", "right"),
    # yes and no
    ("Yes", "yes"),
    ("yes.", "yes"),
    ("Yes, there is a red circle.", "yes"),
    ("No, there is not.", "no"),
    ("no", "No"),
    ("There is no red circle.", "no"),
    ("There isn't one.", "no"),
    ("The answer is no", "no"),
    # numbers
    ("3", "3"),
    ("three", "3"),
    ("3", "three"),
    ("There are three circles.", "3"),
    ("3 circles", "3"),
    ("3.0", "3"),
    ("1,000", "1000"),
    ("twenty-one", "21"),
    ("-5", "-5"),
    ("2.5 m", "2.5"),
    ("0", "zero"),
    # a letter without options at hand
    ("(A)", "A"),
    ("A.", "A"),
    ("a", "A"),
    ("The answer is B.", "B"),
    ("B) blue", "B"),
]

WRONG = [
    (None, "red"),
    ("", "red"),
    ("   ", "red"),
    (".", "red"),
    ("blue", "red"),
    ("not red", "red"),
    ("It is not red", "red"),
    ("red or blue", "red"),
    ("red and blue", "red"),
    ("dark red", "red"),
    ("infrared", "red"),
    ("The red one is left", "red"),
    ("I cannot tell", "red"),
    ("No", "yes"),
    ("There is no red circle.", "yes"),
    ("maybe", "yes"),
    ("yesterday", "yes"),
    ("It could be yes or no", "no"),
    ("4", "3"),
    ("2 or 3", "3"),
    ("13", "3"),
    ("3.5", "3"),
    ("5", "-5"),
    ("thirteen", "3"),
    ("B", "A"),
    ("A dog", "A"),
    ("left", "right"),
]


def _rows() -> list[tuple[bool, str, str, tuple[str, ...]]]:
    """The table of answers graded by hand."""
    rows = []
    table = Path(__file__).with_name("data") / "grading.tsv"
    for line in table.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        verdict, answer, gold, *more = line.split("\t")
        options = {"": (), "4": ("red", "blue", "green", "yellow")}
        written = more[0] if more else ""
        choices = options.get(written, tuple(written.split("|")))
        rows.append((verdict == "+", answer.replace("\\n", "\n"), gold, choices))
    return rows


TABLE = _rows()


def test_the_table_is_long_and_has_no_row_twice() -> None:
    assert len(TABLE) >= 150
    assert len({row[1:] for row in TABLE}) == len(TABLE)
    assert min(sum(row[0] for row in TABLE), sum(not row[0] for row in TABLE)) >= 75


@pytest.mark.parametrize(("right", "answer", "gold", "choices"), TABLE)
def test_graded_by_hand(right: bool, answer: str, gold: str, choices: tuple[str, ...]) -> None:
    assert is_correct(answer, gold, choices) is right


OPTIONS = ("red", "blue", "dark red", "A4 paper")

CHOSEN = [
    ("(B)", "blue"),
    ("B", "blue"),
    ("b", "blue"),
    ("B.", "blue"),
    ("B)", "blue"),
    ("(B) blue", "blue"),
    ("B. blue", "B"),
    ("B: Blue.", "(B)"),
    ("blue", "B"),
    ("Blue.", "blue"),
    ("The answer is (B).", "blue"),
    ("Option B", "blue"),
    ("The car is blue.", "blue"),
    ("dark red", "C"),
    ("A4 paper", "D"),
    (r"\boxed{B}", "blue"),
    ("<answer>B</answer>", "blue"),
]

NOT_CHOSEN = [
    ("(A)", "blue"),
    ("red", "blue"),
    ("dark red", "red"),
    ("red", "dark red"),
    ("B. red", "blue"),
    ("B. red", "red"),
    ("E", "blue"),
    ("green", "blue"),
    ("red or blue", "blue"),
    ("A or B", "blue"),
    (None, "blue"),
]


@pytest.mark.parametrize(("answer", "gold"), RIGHT)
def test_right_answers(answer: str, gold: str) -> None:
    assert is_correct(answer, gold)


@pytest.mark.parametrize(("answer", "gold"), WRONG)
def test_wrong_answers(answer: str | None, gold: str) -> None:
    assert not is_correct(answer, gold)


@pytest.mark.parametrize(("answer", "gold"), CHOSEN)
def test_right_options(answer: str, gold: str) -> None:
    assert is_correct(answer, gold, OPTIONS)


@pytest.mark.parametrize(("answer", "gold"), NOT_CHOSEN)
def test_wrong_options(answer: str | None, gold: str) -> None:
    assert not is_correct(answer, gold, OPTIONS)


def test_options_that_are_letters_are_read_as_text() -> None:
    shuffled = ("B", "C", "A")
    assert is_correct("A", "A", shuffled)
    assert not is_correct("A", "B", shuffled)


def test_yes_no_options_and_number_options() -> None:
    assert is_correct("Yes", "A", ("Yes", "No"))
    assert not is_correct("No", "A", ("Yes", "No"))
    assert is_correct("three", "3", ("2", "3", "4"))
    assert is_correct("(C)", "4", ("2", "3", "4"))


words = st.sampled_from("red blue left circle traffic light 3 seven the".split())


@given(st.lists(words, min_size=1, max_size=4).map(" ".join))
def test_an_answer_is_always_its_own_gold(text: str) -> None:
    assert is_correct(text, text)
    assert is_correct(text.upper() + ".", text)


@given(st.text(max_size=80), st.text(max_size=20), st.lists(st.text(max_size=8), max_size=4))
def test_no_text_breaks_the_grader(answer: str, gold: str, choices: list[str]) -> None:
    assert is_correct(answer, gold, choices) in (True, False)


def test_normalise_shows_its_rules() -> None:
    assert normalise("The answer is: Forty-Two Grey, *small* cats!") == "42 gray small cats"
    assert normalise("the") == "the"  # an article alone is all there is


@pytest.mark.parametrize(
    "piece",
    ["\n", " ", "a ", "answer ", "answer is ", "(A) ", "{", "<think>", "not ", "1,", "'", "$"],
)
def test_long_answers_are_graded_in_reasonable_time(piece: str) -> None:
    """Rules that look back for each character would take minutes over these."""
    text = "x" + piece * (60_000 // len(piece)) + "y"
    assert not is_correct(text, "red")
    assert not is_correct(text, "red", ("red", "blue"))
    assert not is_correct(text, "yes")
    assert not is_correct(text, "3")
