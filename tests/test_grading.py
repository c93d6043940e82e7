from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speceyes.evaluation.grading import is_correct, normalise, options, same_answer, sameness

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
    assert len(TABLE) >= 2500
    assert len({row[1:] for row in TABLE}) == len(TABLE)
    assert min(sum(row[0] for row in TABLE), sum(not row[0] for row in TABLE)) >= 600


def test_graded_by_hand() -> None:
    missed = [row for row in TABLE if is_correct(*row[1:]) is not row[0]]
    assert missed == []


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


STRANGE = st.sampled_from(
    """red|Red|a red|the red|B|A|A. red|(B) blue|S (small)|x > y|x < y|m²|m2|👍|👎|+|-|3|-3|3 cm|3cm
    |three|.5|5|1,000|1000|yes|no|not sure|none of the above|about 3|red or blue|not red|C++|C|C#
    |It is on the left.|It is on the right.|?|!|...|May|maybe|wait|$5|50%|</s>|\\boxed{3}|½|a|I
    |The answer is B|{"answer": "B"}|ice cream|ice-cream|猫|是""".replace("\n    ", "").split("|")
)


@given(st.lists(STRANGE, min_size=2, max_size=5, unique=True))
def test_every_option_that_can_be_told_apart_is_named_by_its_text_and_its_letter(
    choices: list[str],
) -> None:
    if sameness.indistinguishable(choices):
        return
    for at, choice in enumerate(choices):
        assert options.of_gold(choice, choices) == at
        assert is_correct(choice, choice, choices)
        assert is_correct(f"({chr(65 + at)})", choice, choices) or choice[:1] + choice[-1:] == "()"
        for other in choices:
            assert not is_correct(other, choice, choices) or other == choice


@given(st.text(min_size=1, max_size=12), st.text(min_size=1, max_size=12))
def test_any_two_options_that_can_be_told_apart_are(one: str, other: str) -> None:
    if not one.strip() or not other.strip() or sameness.indistinguishable((one, other)):
        return
    for gold, wrong in ((one, other), (other, one)):
        assert is_correct(gold, gold, (one, other))
        assert not is_correct(wrong, gold, (one, other))


SUBJECTS = st.sampled_from(["a dog", "a red car", "a person", "an apple", "a traffic light"])
SENTENCES = (
    ("There is {a}.", "There is no {n}."),
    ("There is {a} in the image.", "There isn't {a} in the image."),
    ("Yes, there is {a}.", "No, there is no {n}."),
    ("I can see {a}.", "I can't see {a}."),
    ("I see {a} there.", "I don't see {a} there."),
    ("The image shows {a}.", "The image does not show {a}."),
    ("The picture contains {a}.", "The picture doesn't contain {a}."),
    ("{a} is visible.", "no {n} is visible."),
    ("{a} is present in the picture.", "{a} is not present in the picture."),
    ("I think there is {a}.", "I don't think there is {a}."),
    ("So the answer is: yes.", "So the answer is: no."),
    ("It is {a}.", "It is not {a}."),
    ("The animal is {a}.", "The animal isn't {a}."),
    ("Absolutely.", "Absolutely not."),
    ("Yes it is, the {n} is in the corner.", "No it isn't, the {n} is in the corner."),
    ("There appears to be {a}.", "There does not appear to be {a}."),
    ("It looks like there is {a}.", "It looks like there isn't {a}."),
    ("{a} can be seen here.", "{a} can't be seen here."),
    ("True.", "Not true."),
    ("That's right.", "That's not right."),
    ("It is true that there is {a}.", "It is not true that there is {a}."),
    ("No doubt, yes.", "No doubt, no."),
    ("Of course.", "Of course not."),
    ("No. Wait, yes.", "Yes. Wait, no."),
    ("Yes\nConfidence: 80%", "No\nConfidence: 80%"),
    ("Y", "N"),
    ("是的,图中有。", "不,图中没有。"),
    ("Hay un perro.", "No hay ningún perro."),
    ("Il y a un chien.", "Il n'y a pas de chien."),
    ("Es gibt einen Hund.", "Es gibt keinen Hund."),
    ("C'è un cane.", "Non c'è un cane."),
    ("犬がいます。", "犬がいません。"),
    ("Yes, {a}.", "No {n}."),
    ("Yes, {a} in the image.", "No {n} in the image."),
    ("Ja, ein Hund.", "Kein Hund."),
    ("Oui, un chien.", "Aucun chien."),
    ("Sí, un perro.", "Ningún perro."),
)
REFUSALS = (
    "No image was provided.", "I cannot see the image", "There is no image attached.",
    "I don't see an image in your message.", "The image failed to load.", "No picture, sorry.",
    "I'm unable to view images.", "Please upload the image.", "The image is not visible to me.",
    "I need to see the image.", "No answer.", "As an AI, I can't view pictures.",
    "No information.", "No clear answer.", "No details are given.",
    "You have not provided an image.", "It looks like no image was uploaded.",
)  # fmt: skip


@pytest.mark.parametrize("refusal", REFUSALS)
def test_an_answer_that_has_seen_nothing_is_right_of_nothing(refusal: str) -> None:
    for gold, choices in (
        ("no", ()), ("yes", ()), ("No", ("Yes", "No")), ("0", ()), ("red", ("red", "blue")),
    ):  # fmt: skip
        assert not is_correct(refusal, gold, choices)


@pytest.mark.parametrize(
    ("answer", "question", "said"),
    [
        ("It is blue.", "Is it red?", "no"),
        ("It is red.", "Is it red?", "yes"),
        ("It's not red.", "Is it red?", "no"),
        ("The car is blue", "Is the car red?", "no"),
        ("The cup is on the left.", "Is the cup on the right of the plate?", "no"),
        ("There are 3 dogs.", "Are there 4 dogs?", "no"),
        ("There is a brown dog on the grass.", "Is there a dog?", "yes"),
        ("Yes, it is blue.", "Is it red?", "yes"),
        ("No, it is blue.", "Is it red?", "no"),
        ("There is a cat.", "Is there a lamp?", None),
        ("It is not blue.", "Is it red?", None),
        ("It is blue or red.", "Is it red?", None),
        ("A dog.", "Is there a dog?", "yes"),
        ("It is closed, not open.", "Is the door open?", "no"),
        ("No dog.", "Is there a dog?", "no"),
        ("A cat.", "Is there a dog?", None),
        ("No, a cat.", "Is it a dog?", "no"),
    ],
)
def test_a_statement_is_held_against_the_question(
    answer: str, question: str, said: str | None
) -> None:
    for gold in ("yes", "no"):
        assert is_correct(answer, gold, question=question) is (gold == said)


@pytest.mark.parametrize(
    ("gold", "same"),
    [
        ("3 cm", ["30 mm", "0.03 m", "3 centimetres"]),
        ("1.5 km", ["1500 m", "1 km 500 m", "150000 cm"]),
        ("2 kg", ["2000 g", "2 kilos", "2 kg", "0.002 t"]),
        ("90 min", ["1.5 h", "1 hour 30 minutes", "5400 s", "1 hour and 30 minutes"]),
        ("500 ml", ["0.5 l", "50 cl", "500 cm^3"]),
        ("36 km/h", ["10 m/s"]),
        ("$0.50", ["50 cents", "0.5 dollars"]),
        ("0.25", ["25%", "1/4", "one quarter"]),
        ("60 mph", ["60 miles/hour", "60 mi/h", "60 miles an hour", "60 miles per hour"]),
        ("5 ft", ["5'", "60 in", '60"']),
        ("1 ft", ["12 in", "12 inches", "30.48 cm"]),
    ],
)
def test_a_quantity_is_the_same_in_any_unit_of_its_kind(gold: str, same: list[str]) -> None:
    for answer in same:
        assert is_correct(answer, gold)
        assert not is_correct(f"about {answer}", gold)
        assert not is_correct(f"1{answer}", gold)
        assert not is_correct(answer, gold.rstrip("abcdefghijklmnopqrstuvwxyz/%") + " px")


def test_a_percentage_is_a_number_or_a_share_but_not_both() -> None:
    assert is_correct("3%", "3") and not is_correct("300%", "3")
    assert is_correct("25%", "0.25") and not is_correct("0.25%", "0.25")
    assert not is_correct("3", "3%")


HEDGES = (
    "Maybe {}", "{}, maybe", "{} or so, perhaps", "I guess {}", "{}, I guess", "probably {}",
    "{}?", "It might be {}", "It could be {}.", "I'm not sure, but {}", "{}. I am not certain.",
    "most likely {}", "{} (probably)", "I can't tell, {}", "possibly {}", "{}. Or not, who knows, "
    "it is hard to tell.", "vielleicht {}", "peut-être {}", "quizás {}", "可能是{}", "forse {}",
    "My best guess is {}", "The answer could be {}", "The answer is probably {}.",
    "I am unsure. The answer is {}.", "Perhaps the answer is {}.", "unclear, {}",
)  # fmt: skip
CASES = (
    ("B", "blue", ("red", "blue")),
    ("(B)", "blue", ("red", "blue")),
    ("blue", "blue", ("red", "blue")),
    ("B. blue", "blue", ("red", "blue")),
    ("3", "3", ()),
    ("3 cm", "3 cm", ()),
    ("yes", "yes", ()),
    ("no", "no", ()),
    ("red", "red", ()),
    ("3", "3", ("2", "3")),
    ("Yes", "Yes", ("Yes", "No")),
)
WRAPPERS = (
    "{}", "{}.", " {}\n", "**{}**", "The answer is {}.", "Answer: {}", "Final answer: {}",
    "I think it is {}.", "So the answer is {}.", "<think>red or blue?</think>{}", "{}</s>",
    "<answer>{}</answer>", "\\boxed{{{}}}", '{{"answer": "{}"}}', "{}<|im_end|>",
    "Therefore, the correct answer is {}.", "### Answer\n\n{}", "I believe the answer is {}.",
    "Based on the image, the answer is {}.", "{}\n\nThe picture shows it clearly.",
    "Die Antwort ist {}.", "La respuesta es {}.", "La réponse est {}.", "答案是{}",
    "答えは{}です。",
    "My answer is {}.", "The answer is: {}", "Sure! The answer is {}.", "{}<eos>",
    "Let me look.\nI see it.\nAnswer: {}", "```\n{}\n```", "Well, {}", "`{}`", '"{}"',
)  # fmt: skip


@pytest.mark.parametrize("form", HEDGES)
def test_hedges_are_wrong_wherever_they_stand(form: str) -> None:
    assert [case for case in CASES if is_correct(form.format(case[0]), *case[1:])] == []


@pytest.mark.parametrize("form", WRAPPERS)
def test_wrappers_are_right(form: str) -> None:
    assert [case for case in CASES if not is_correct(form.format(case[0]), *case[1:])] == []


THINGS = st.sampled_from("dog|red car|person|traffic light|cup of tea|clock".split("|"))
PLACES = st.sampled_from(["", " in the image", " on the left", " behind the house", " here"])
NEGATED = (
    # what says yes, and what says no
    ("There is a {} {}.", "There is no {} {}."),
    ("There is a {} {}.", "There isn't a {} {}."),
    ("There is a {} {}.", "There is not any {} {}."),
    ("I see a {} {}.", "I don't see a {} {}."),
    ("I can see a {} {}.", "I cannot see any {} {}."),
    ("A {} is visible {}.", "A {} is not visible {}."),
    ("A {} is visible {}.", "No {} is visible {}."),
    ("The picture shows a {} {}.", "The picture does not show a {} {}."),
    ("It has a {} {}.", "It doesn't have a {} {}."),
    ("Yes, there is a {} {}.", "No, there is no {} {}."),
    ("Indeed, a {} can be seen {}.", "Indeed, a {} can't be seen {}."),
    ("It is true that there is a {} {}.", "It is not true that there is a {} {}."),
)  # fmt: skip
IN_OTHER_LANGUAGES = (
    ("Es gibt einen Hund.", "Es gibt keinen Hund."),
    ("Ich sehe einen Hund.", "Ich sehe nicht einen Hund."),
    ("Il y a un chien.", "Il n'y a pas de chien."),
    ("Hay un perro.", "No hay ningún perro."),
    ("C'è un cane.", "Non c'è un cane."),
    ("Há um cão.", "Não há um cão."),
    ("Er is een hond.", "Er is geen hond."),
    ("На фото есть собака.", "На фото нет собаки."),
    ("图中有一只狗。", "图中没有狗。"),
    ("犬がいます。", "犬はいません。"),
    ("개가 있습니다.", "개가 없습니다."),
)


@pytest.mark.parametrize("word", ["Indeed", "Correct", "True", "Absolutely", "Affirmative"])
def test_a_word_that_agrees_says_what_the_sentence_behind_it_says(word: str) -> None:
    assert is_correct(f"{word}, there is a dog.", "yes") and is_correct(f"{word}.", "yes")
    assert is_correct(f"{word}, and there is no cat.", "yes")
    for denied in ("there is no dog", "a dog can't be seen", "there isn't one", "no dog is there"):
        assert is_correct(f"{word}, {denied}.", "no") and not is_correct(
            f"{word}, {denied}.", "yes"
        )


@settings(max_examples=60)
@given(st.sampled_from(NEGATED), THINGS, PLACES)
def test_negating_a_sentence_flips_its_grade(pair: tuple[str, str], thing: str, place: str) -> None:
    said, denied = (" ".join(one.format(thing, place).replace(" .", ".").split()) for one in pair)
    assert is_correct(said, "yes") and not is_correct(said, "no")
    assert is_correct(denied, "no") and not is_correct(denied, "yes")
    for choices in (("yes", "no"), ("No", "Yes"), ("Yes", "No", "Not sure")):
        yes, no = (next(c for c in choices if c.lower() == word) for word in ("yes", "no"))
        assert is_correct(said, yes, choices) and not is_correct(said, no, choices)
        assert is_correct(denied, no, choices) and not is_correct(denied, yes, choices)


@pytest.mark.parametrize("pair", IN_OTHER_LANGUAGES)
def test_negating_a_sentence_flips_its_grade_in_other_languages(pair: tuple[str, str]) -> None:
    said, denied = pair
    assert is_correct(said, "yes") and not is_correct(said, "no")
    assert is_correct(denied, "no") and not is_correct(denied, "yes")


def test_two_answers_of_models_are_the_same_where_they_say_the_same() -> None:
    assert same_answer("The answer is B.", "blue", ("red", "blue"))
    assert same_answer("It is red.", "<answer>Red</answer>")
    assert same_answer("three", "There are 3 dogs.")
    assert same_answer("maybe red", "Maybe red.")
    assert not same_answer("(A)", "blue", ("red", "blue"))
    assert not same_answer("red", "not red")
    assert not same_answer(None, None)
    assert not same_answer("", "red")


def test_normalise_shows_its_rules() -> None:
    assert normalise("The answer is: Forty-Two Grey, *small* cats!") == "42 gray small cats"
    assert normalise("the") == "the"  # an article alone is all there is


@pytest.mark.parametrize(
    "piece",
    [
        "\n",
        " ",
        "a ",
        "answer ",
        "answer is ",
        "(A) ",
        "{",
        "<think>",
        "not ",
        "1,",
        "1,2 ",
        "10^3 ",
        "A. red ",
        "'",
        "$",
    ],
)
def test_long_answers_are_graded_in_reasonable_time(piece: str) -> None:
    """Rules that look back for each character would take minutes over these."""
    text = "x" + piece * (24_000 // len(piece)) + "z"
    assert not is_correct(text, "red")
    assert not is_correct(text, "red", ("red", "blue"))
    assert not is_correct(text, "yes")
    assert not is_correct(text, "3")


@pytest.mark.parametrize(
    ("answer", "question", "yes"),
    [
        ("A dog.", "Is there a dog?", True),
        ("a brown dog", "Is there a dog in the image?", True),
        ("two dogs", "Are there dogs?", True),
        ("a car", "Is there a dog?", False),
        ("a car", "Is it red?", False),
        ("Three people.", "Is there a dog in the image?", False),
    ],
)
def test_a_phrase_says_yes_only_where_it_names_what_was_asked(
    answer: str, question: str, yes: bool
) -> None:
    assert is_correct(answer, "yes", question=question) is yes
    assert not is_correct(answer, "no", question=question)
