"""The small model's reasoning in the large model's prompt."""

from __future__ import annotations

import re
import threading
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from speceyes import tiny
from speceyes.errors import ConfigError, ModelError
from speceyes.gate import SeparabilityGate
from speceyes.models import HFModel, OpenAIModel
from speceyes.models.openai.likelihoods import mean_logprob
from speceyes.models.scripted import ScriptedModel, scripted_logprobs
from speceyes.strategies import Reasoner, ReasoningTransfer, Selector
from speceyes.strategies.questions import short
from speceyes.strategies.verification import same_words
from speceyes.tiny.scenes import questions
from speceyes.types import Completion, Conversation, Message, Query, Sampling
from support.engine_server import refused, serving
from support.random_models import FAMILIES, Family, batch_of, build

DOT = Image.new("RGB", (48, 48))
THOUGHT = "The wall is grey. The ball lies left. It is blue. Its edge is white."


def small(answer: Any = "red", thought: Any = THOUGHT, second: str = "blue") -> ScriptedModel:
    def reasoned(conversation: Conversation, sampling: Sampling) -> Any:
        return second if conversation.prefill else thought

    return ScriptedModel({"step by step": reasoned, "": answer}, name="small")


def large(first: Any = "green", again: Any = "blue") -> ScriptedModel:
    return ScriptedModel({"Somebody looked": again, "": first}, name="large")


def ask(run: ReasoningTransfer, n: int = 1) -> list[Any]:
    return run([Query(f"Which colour? {i}", (DOT,), id=str(i)) for i in range(n)])


def test_agreement_is_the_answer_and_nothing_is_reasoned() -> None:
    run = ReasoningTransfer(large("Red."), small("the red"))
    [result] = ask(run)
    assert (result.answer, result.route) == ("Red.", "draft")
    assert len(result.trajectory.steps) == 1
    found = run.transferred
    assert (found.queries, found.agreed, found.written) == (1, 1, 0)
    assert found.large_decoded == 1 and found.small_decoded == 2 and found.large_read > 0


def test_disagreement_hands_the_reasoning_over() -> None:
    seen: list[str] = []

    def again(conversation: Conversation, sampling: Sampling) -> str:
        seen.append(conversation.messages[-1].text)
        return "blue"

    run = ReasoningTransfer(large(again=again), small())
    [result] = ask(run)
    assert (result.answer, result.route) == ("blue", "agent")
    assert THOUGHT in seen[0] and "Which colour? 0" in seen[0]
    assert [step.text for step in result.trajectory.steps] == ["green", THOUGHT, "blue"]
    assert run.transferred.written == run.transferred.kept == len(THOUGHT.split())


def kept_of(keep: Any, thought: Any = THOUGHT) -> tuple[str, ReasoningTransfer]:
    """What the large model is handed, and the run."""
    seen: list[str] = []

    def again(conversation: Conversation, sampling: Sampling) -> str:
        seen.append(conversation.messages[-1].text)
        return "blue"

    run = ReasoningTransfer(large(again=again), small(thought=thought), keep=keep)
    ask(run)
    return seen[0].split("trust what you see.\n")[1].split("\nAnswer with")[0], run


@pytest.mark.parametrize(
    ("keep", "wanted"),
    [
        ("all", THOUGHT),
        (Selector("last", unit="sentences"), "It is blue. Its edge is white."),
        (Selector("likeliest", unit="sentences"), "The wall is grey. It is blue."),
        (Selector("last", share=0.2), "edge is white."),
        (Selector("likeliest", share=0.2), "The wall is"),
        (Selector("last", share=1.0), THOUGHT),
    ],
)
def test_what_is_kept_of_the_reasoning(keep: Any, wanted: str) -> None:
    sure = {"The wall is grey.": -0.1, "The ball lies left.": -3.0, "It is blue.": -0.2}
    rows = [
        [value]
        for part in THOUGHT.split(". ")
        for value in [sure.get(part.rstrip(".") + ".", -2.0)] * len(part.split())
    ]
    tokens = re.findall(r"\s*\S+", THOUGHT)
    for told in (tokens, ()):  # with the model's tokens, and with words where it tells none
        thought = Completion(
            THOUGHT, tuple(range(len(rows))), np.array(rows, np.float32), tokens=told
        )
        notes, run = kept_of(keep, thought)
        # Of tokens that are as likely as each other the later ones are kept.
        assert notes == (wanted if wanted != "The wall is" else "wall is grey.")
        assert run.transferred.kept == len(notes.split())
        assert run.transferred.written == len(tokens)


@given(
    tokens=st.lists(st.sampled_from(["A", " red", "ring", ".", " It", "\n", " é"]), min_size=1),
    by=st.sampled_from(["all", "last", "likeliest", "attended", "random"]),
    unit=st.sampled_from(["tokens", "sentences"]),
    share=st.floats(0.01, 1.0),
    seed=st.integers(0, 3),
)
@settings(max_examples=200, deadline=None)
def test_a_selector_keeps_its_share_in_order(
    tokens: list[str], by: Any, unit: Any, share: float, seed: int
) -> None:
    n, rng = len(tokens), np.random.default_rng(seed)
    rows = -rng.random((n, 1)).astype(np.float32)
    said = Completion("".join(tokens), tuple(range(n)), rows, tokens=tuple(tokens))
    weights = rng.random((2, 3, n)).astype(np.float32)
    selector = Selector(by, share, unit, heads=((1, 2),), seed=seed)
    notes, kept, written = selector.select(said, weights)
    assert selector.select(said, weights) == (notes, kept, written) and written == n
    left = iter("".join(tokens))
    assert all(any(c == other for other in left) for c in notes if not c.isspace())
    if by == "all":
        assert notes == said.text.strip() and kept == n
    elif unit == "tokens":
        assert kept == max(1, round(share * n))
    if by == "attended" and unit == "tokens" and kept == 1:
        assert notes == tokens[int(np.argmax(weights[1, 2]))].strip()


def test_a_random_selection_is_the_same_in_every_batch_and_differs_by_seed() -> None:
    words = " ".join(f"w{i}" for i in range(40))
    found = {seed: kept_of(Selector("random", seed=seed), words)[0] for seed in (0, 0, 1)}
    assert found[0] != found[1] and all(len(one.split()) == 20 for one in found.values())


def test_a_second_answer_of_the_small_model_can_settle_it() -> None:
    run = ReasoningTransfer(large("blue", "never asked"), small("red"), two_stage=True)
    [result] = ask(run)
    assert (result.answer, result.route, run.transferred.reasoned) == ("blue", "agent", 1)
    run = ReasoningTransfer(large("green", "blue"), small("red"), two_stage=True)
    assert ask(run)[0].answer == "blue" and run.transferred.reasoned == 0


@pytest.mark.parametrize("broken", ["small", "reasoning", "again", "large"])
def test_whatever_fails_the_large_models_answer_stands(broken: str) -> None:
    gone = RuntimeError("gone")
    strong = large(gone if broken == "large" else "green", gone if broken == "again" else "blue")
    quick = small(gone if broken == "small" else "red", gone if broken == "reasoning" else THOUGHT)
    results = ask(ReasoningTransfer(strong, quick), 3)
    # Without reasoning the large one is asked once more as before, and says what it said.
    wanted = {"small": "blue", "reasoning": "green", "again": "green", "large": "blue"}[broken]
    assert [r.answer for r in results] == [wanted] * 3
    gone_both = ReasoningTransfer(large(gone, gone), small())
    assert {r.route for r in ask(gone_both, 2)} == {"error"}


def test_an_image_that_cannot_be_read_is_its_own() -> None:
    run = ReasoningTransfer(large("red"), small("red"), batch_size=2)
    results = run([(DOT, "?"), (b"no image", "?"), (DOT, "?")])
    assert [r.route for r in results] == ["draft", "error", "draft"]


@given(
    words=st.lists(st.tuples(*[st.sampled_from(["red", "blue", "", "!"])] * 4), max_size=12),
    batch=st.integers(1, 5),
    two_stage=st.booleans(),
    keep=st.sampled_from(["all", "last", "likeliest"]),
)
@settings(max_examples=60, deadline=None)
def test_no_query_is_lost_and_every_answer_was_the_large_models(
    words: list[tuple[str, str, str, str]], batch: int, two_stage: bool, keep: Any
) -> None:
    def told(i: int, at: int) -> Any:
        return RuntimeError("no") if words[i][at] == "!" else words[i][at]

    n = len(words)
    strong = ScriptedModel(
        {f"#{i}.": {"Somebody looked": told(i, 1), "": told(i, 0)} for i in range(n)}
    )
    quick = ScriptedModel(
        {f"#{i}.": {"step by step": told(i, 3), "": told(i, 2)} for i in range(n)}
    )
    run = ReasoningTransfer(strong, quick, batch_size=batch, two_stage=two_stage, keep=keep)
    results = run([Query(f"#{i}.", (DOT,), id=str(i)) for i in range(n)])
    assert [r.query_id for r in results] == [str(i) for i in range(n)]
    for i, result in enumerate(results):
        said = {words[i][0], words[i][1]} - {"", "!"}
        assert result.answer in said if result.error is None else result.answer is None
        if result.route == "draft":
            assert words[i][0] == words[i][2] == result.answer
    assert run.transferred.queries == n


def test_arguments_that_are_none() -> None:
    for options, message in (
        ({"verify": "vote"}, "verify='vote'"),
        ({"keep": "first"}, "keep='first'"),
        ({"keep": Selector("last"), "batch_size": 0}, "batch_size=0"),
        ({"verify": "separability"}, "needs gates"),
        ({"verify": "likelihood"}, "can't tell how likely"),
        ({"keep": "attended"}, "small can't tell what it attends to"),
    ):
        with pytest.raises(ConfigError, match=message):
            ReasoningTransfer(large(), small(), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"by": "first"}, "keep='first'"), ({"unit": "words"}, "unit='words'")]
    + [({"share": share}, "share=") for share in (0.0, 1.1, float("nan"))],
)
def test_selectors_that_are_none(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Selector(**options)


def test_heads_that_the_model_lacks_are_named_and_all_is_handed_over() -> None:
    said = Completion("a b", (1, 2), tokens=("a", " b"))
    with pytest.raises(ConfigError, match="2 layers of 3 heads"):
        Selector("attended", heads=((2, 0),)).select(said, np.zeros((2, 3, 2), np.float32))
    assert Selector("attended").select(said) == ("a b", 2, 2)


def test_same_words() -> None:
    query = Query("?", (DOT,))
    assert same_words(query, "A red ball!", "red ball") and not same_words(query, "", "")


@pytest.mark.parametrize(
    ("margins", "settled"), [((9.0, 9.0), 3), ((9.0, 2.0), 0), ((2.0, 9.0), 0)]
)
def test_by_separability_both_must_be_sure(margins: tuple[float, float], settled: int) -> None:
    gate = SeparabilityGate(0.98, top_k=4)
    strong = ScriptedModel({"Somebody looked": "blue", "": "red"}, margin=margins[0])
    quick = ScriptedModel({"step by step": THOUGHT, "": "red"}, margin=margins[1])
    run = ReasoningTransfer(strong, quick, verify="separability", gates=(gate, gate))
    results = ask(run, 3)
    assert run.transferred.agreed == settled
    assert {r.answer for r in results} == {"red" if settled else "blue"}


def test_both_first_answers_are_asked_at_once() -> None:
    both = threading.Barrier(2, timeout=30)

    def waits(conversation: Conversation, sampling: Sampling) -> str:
        both.wait()  # breaks, and fails the row, unless the other model is asked meanwhile
        return "red"

    run = ReasoningTransfer(ScriptedModel({"": waits}), ScriptedModel({"": waits}))
    assert ask(run)[0].route == "draft"


def test_a_model_by_itself_reasons_or_does_not() -> None:
    model = small(answer="red", thought=THOUGHT, second="blue")
    [at_once], [reasoned] = ask(Reasoner(model, reason=False)), ask(Reasoner(model))
    assert (at_once.answer, reasoned.answer) == ("red", "blue")
    assert [s.text for s in reasoned.trajectory.steps] == [THOUGHT, "blue"]
    gone = RuntimeError("gone")
    [without] = ask(Reasoner(small(thought=gone)))
    assert without.answer == "red"  # where it can't reason it answers at once
    assert ask(Reasoner(small(answer=gone, thought=gone)))[0].route == "error"


# --- likelihoods of given answers -------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_a_likelihood_is_what_the_logits_say(family: Family) -> None:
    net, processor = build(family)
    model = HFModel(net, processor)
    rng = np.random.default_rng(0)
    asked, answers = [], ["red", "a small blue square", " ", "What colour"]
    for i in range(4):
        image = Image.fromarray(rng.integers(0, 256, (50 + 20 * i, 60, 3), np.uint8))
        asked.append(Conversation((Message("user", (image, "What colour is it?" * (i + 1))),)))
    for _ in range(2):  # the second time over what was kept
        found = model.likelihoods(asked, answers)
        assert found[2] is None
        for i in (0, 1, 3):
            said = processor.tokenizer(answers[i], add_special_tokens=False)["input_ids"]
            inputs, [length] = batch_of(model, model.prompt(asked[i]))
            ids = torch.cat((inputs["input_ids"], torch.tensor([said])), dim=1)
            inputs["input_ids"] = ids
            inputs["attention_mask"] = torch.ones_like(ids)
            if "mm_token_type_ids" in inputs:
                more = torch.zeros(1, len(said), dtype=inputs["mm_token_type_ids"].dtype)
                types = torch.cat((inputs["mm_token_type_ids"], more), dim=1)
                inputs["mm_token_type_ids"] = types
            with torch.no_grad():
                logits = net(**inputs).logits[0, length - 1 : -1].log_softmax(dim=-1)
            wanted = logits.gather(1, torch.tensor(said)[:, None]).mean().item()
            assert found[i] == pytest.approx(wanted, abs=1e-4)
        model.generate(asked, Sampling(max_tokens=3))


# --- what is attended to ------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("cache_bytes", [0, None])
def test_attention_is_what_the_whole_pass_gives(family: Family, cache_bytes: int | None) -> None:
    net, processor = build(family)
    model = HFModel(net, processor, cache_bytes=cache_bytes)
    rng = np.random.default_rng(0)
    asked, said, lead = [], [], "\nSo it is the large circle?"
    for i in range(3):
        image = Image.fromarray(rng.integers(0, 256, (56 + 30 * i, 84, 3), np.uint8))
        asked.append(Conversation((Message("user", (image, "What colour is it?" * (i + 1))),)))
        said.append(processor.tokenizer("the small square left of" + " it" * i)["input_ids"])
    before = net.config.get_text_config()._attn_implementation
    for _ in range(2):  # the second time over what was kept
        found = model.attended(asked, said, lead)
        model.generate(asked, Sampling(max_tokens=2))
    assert net.config.get_text_config()._attn_implementation == before

    net.set_attn_implementation("eager")
    for conversation, mine, weights in zip(asked, said, found, strict=True):
        inputs, [length] = batch_of(model, model.prompt(conversation))
        ids = torch.tensor([[*mine, *processor.tokenizer(lead)["input_ids"]]])
        inputs["input_ids"] = torch.cat((inputs["input_ids"], ids), dim=1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        if "mm_token_type_ids" in inputs:
            more = torch.zeros(1, ids.shape[1], dtype=inputs["mm_token_type_ids"].dtype)
            inputs["mm_token_type_ids"] = torch.cat((inputs["mm_token_type_ids"], more), dim=1)
        with torch.no_grad():
            whole = net(**inputs, output_attentions=True).attentions
        wanted = torch.stack([one[0, :, -1] for one in whole])[:, :, length : length + len(mine)]
        np.testing.assert_allclose(weights, wanted.numpy(), atol=1e-5)


def test_what_cannot_be_read_has_no_attention_and_all_of_it_is_handed_over() -> None:
    net, processor = build("qwen3_vl")
    model = HFModel(net, processor)
    asked = Conversation((Message("user", (Image.new("RGB", (4000, 2)), "?")),))
    assert model.attended([asked], [[1, 2]], "") == [None]
    with pytest.raises(ConfigError, match="can't tell what it attends to"):
        model.reference().attended([asked], [[1, 2]], "")

    class Blind:
        """Looks at one sentence only, where it can tell."""

        name, tells_attention = "blind", True

        def __init__(self, told: Any) -> None:
            self.inner, self.told = small(), told
            self.seen_size, self.generate = self.inner.seen_size, self.inner.generate

        def attended(self, conversations: Any, said: Any, lead: str) -> Any:
            if isinstance(self.told, Exception):
                raise self.told
            assert "answer" in lead and len(said[0]) == len(THOUGHT.split())
            return [self.told]

    looked = np.zeros((1, 2, len(THOUGHT.split())), np.float32)
    looked[0, 1, 10] = looked[0, 0, 14] = 0.5  # in "It is blue." and "Its edge is white."
    for told, kept in (
        (looked, "It is blue. Its edge is white."),
        (None, THOUGHT),
        (RuntimeError("gone"), THOUGHT),
    ):
        seen: list[str] = []

        def again(conversation: Conversation, sampling: Sampling, seen: Any = seen) -> str:
            seen.append(conversation.messages[-1].text)
            return "blue"

        keep = Selector("attended", unit="sentences")
        [result] = ask(ReasoningTransfer(large(again=again), Blind(told), keep=keep))
        assert result.answer == "blue" and f"trust what you see.\n{kept}\n" in seen[0]


def test_verification_by_likelihood_on_the_bundled_pair() -> None:
    big, quick = HFModel.from_pretrained(tiny.LARGE), HFModel.from_pretrained(tiny.SMALL)
    queries = [item.query for item in questions("heldout", 8)]
    strict = ReasoningTransfer(big, quick, verify="likelihood", likely=0.0)
    loose = ReasoningTransfer(big, quick, verify="likelihood", likely=-1e6)
    for run in (strict, loose):
        assert all(r.error is None or r.answer is None for r in run(queries))
    assert strict.transferred.agreed == 0 and loose.transferred.agreed >= 6


class Reader:
    """A large model that holds some reasonings likely, and reasons in other words itself."""

    name, tells_likelihoods = "reader", True

    def __init__(self, likely: Any) -> None:
        self.likely = likely
        self.inner = ScriptedModel(
            {"Somebody looked": "noted", "step by step": "I see.", "": "at once"}
        )
        self.seen_size, self.asked = self.inner.seen_size, 0

    def generate(self, conversations: Any, sampling: Sampling) -> Any:
        said = self.inner.generate(conversations, sampling)
        own = [c.prefill.startswith("I see.") for c in conversations]
        return [
            Completion("by myself", (1,)) if mine else one
            for mine, one in zip(own, said, strict=True)
        ]

    def likelihoods(self, conversations: Any, answers: Any) -> Any:
        self.asked += len(answers)
        if isinstance(self.likely, Exception):
            raise self.likely
        assert answers == [THOUGHT] and "step by step" in conversations[0].messages[-1].text
        return [self.likely]


@pytest.mark.parametrize(
    ("likely", "answer", "doubted"),
    [
        (-0.1, "noted", 0),
        (-0.5, "by myself", 1),
        (None, "by myself", 1),
        (RuntimeError("gone"), "by myself", 1),
    ],
)
def test_the_large_model_reasons_itself_where_it_doubts(
    likely: Any, answer: str, doubted: int
) -> None:
    reader = Reader(likely)
    run = ReasoningTransfer(reader, small(), credible=-0.2)
    [result] = ask(run)
    assert (result.answer, run.transferred.doubted, reader.asked) == (answer, doubted, 1)
    assert result.trajectory is not None
    said = [step.text for step in result.trajectory.steps]
    assert said == ["at once", THOUGHT, *["I see."] * doubted, answer]
    assert (run.transferred.kept == 0) == bool(doubted)


def test_a_model_that_cannot_doubt_is_refused() -> None:
    with pytest.raises(ConfigError, match="can't tell how likely"):
        ReasoningTransfer(large(), small(), credible=-0.2)
    with pytest.raises(ConfigError, match=r"credible=0\.5"):
        ReasoningTransfer(Reader(-1.0), small(), credible=0.5)


def test_scripted_rows_have_the_columns_that_are_read() -> None:
    assert scripted_logprobs(3, 1).shape == (3, 1)


def test_transfer_works_over_engines() -> None:
    scripts = {"large": large(), "small": small()}
    with serving(scripts) as (url, _):
        strong, quick = (OpenAIModel(url, name, timeout_s=30) for name in scripts)
        for keep, notes in (
            (Selector("last", share=0.2), "edge is white."),
            (Selector("likeliest", share=0.2), "edge is white."),  # all are as likely here
        ):
            run = ReasoningTransfer(strong, quick, keep=keep)
            results = ask(run, 3)
            assert [r.answer for r in results] == ["blue"] * 3
            assert run.transferred.kept == 3 * len(notes.split())
            assert run.transferred.large_decoded == 6
        agreed = ReasoningTransfer(strong, strong)
        assert {r.route for r in ask(agreed, 2)} == {"draft"}


def test_an_engine_tells_likelihoods_where_it_can(caplog: pytest.LogCaptureFixture) -> None:
    model = HFModel.from_pretrained(tiny.SMALL)
    queries = [item.query for item in questions("heldout", 3)]
    asked = [short(query) for query in queries]
    answers = ["red", " no", "x" * 40]
    with serving({"small": model}) as (url, seen):
        engine = OpenAIModel(url, timeout_s=30)
        assert engine.tells_likelihoods
        found = engine.likelihoods([*asked, asked[0]], [*answers, "  "])
        assert found[:3] == pytest.approx(model.likelihoods(asked, answers)) and found[3] is None
        run = ReasoningTransfer(engine, engine, verify="likelihood", likely=-1e6)
        assert {result.route for result in run(queries)} == {"draft"}
        seen.early = lambda number, body: refused(400, "no prompt logprobs here")
        assert engine.likelihoods(asked, answers) == [None] * 3
        assert caplog.text.count("an answer's likelihood can't be told") == 1
    for kind in ("sglang", "openai"):
        with serving({"small": model}, kind=kind) as (url, _):
            other = OpenAIModel(url, engine=kind, timeout_s=30)  # type: ignore[arg-type]
            with pytest.raises(ConfigError, match="can't tell how likely"):
                ReasoningTransfer(other, model, verify="likelihood")
            with pytest.raises(ConfigError, match="no log-probabilities of a prompt"):
                other.likelihoods(asked, answers)


@pytest.mark.parametrize(
    ("pieces", "mean"),
    [
        (["user", "\n", "re", "d"], -1.5),
        (["\nre", "d"], -1.5),  # a line's end in the answer's first token is no other word
        (["a re", "d"], None),  # a token that spells the end of something else as well
        (["d"], None),
        ([], None),
    ],
)
def test_an_answers_tokens_are_counted_from_the_end(pieces: list[str], mean: float | None) -> None:
    told = [
        {str(i): {"logprob": -1.0 * (i % 2) - 1, "decoded_token": p}} for i, p in enumerate(pieces)
    ]
    assert mean_logprob({"prompt_logprobs": [None, *told]}, "red") == mean


@pytest.mark.parametrize("told", [None, 3, [None, {"1": {"logprob": -1.0}}]])
def test_a_reply_without_a_prompts_log_probabilities_is_an_error(told: Any) -> None:
    reply = {} if told == 3 else {"prompt_logprobs": told}
    with pytest.raises(ModelError, match="no log-probabilities of the prompt"):
        mean_logprob(reply, "red")
