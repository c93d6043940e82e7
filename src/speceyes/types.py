"""Values that travel through the funnel.

Every value is frozen: a phase returns new values and fills in nothing later. Arrays are
checked once, in the constructor of the value that carries them, and trusted afterwards.

A query's way (Sec. 3 of SpecEyes, arXiv 2603.23483)::

    Query --ToolJudge--> Judgement --SpeculativeAnswerer--> Completion
                             |                                    |
                             | tools needed               SeparabilityGate
                             |                                    |
                             v              rejected              v        accepted
                      AgenticFallback <------------------------ Verdict ------------> Result
                             |
                             +--> Trajectory --> Result
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage

from speceyes.errors import Fault, InputError

Image: TypeAlias = PILImage.Image
Box: TypeAlias = tuple[float, float, float, float]
"""left, top, right, bottom in pixels; origin at the top left of the image it refers to."""

Finish: TypeAlias = Literal["stop", "length", "error", "rejected"]
Route: TypeAlias = Literal["draft", "agent", "error"]


@dataclass(frozen=True, slots=True)
class Query:
    """A question about one or several images.

    Args:
        question: The question in words; must not be blank.
        images: The images, already loaded (see `speceyes.images.load_image`); at least one.
        choices: The options of a multiple-choice question, without letters; may be empty.
        id: Anything that names the query in results; the pipeline numbers queries without one.
        instructions: What an application asks of its answers. The agent alone is told: judge and
            draft keep the prompts that the gate was calibrated under.
        history: What was said before, texts only, oldest first. The agent alone is told.
    """

    question: str
    images: tuple[Image, ...]
    choices: tuple[str, ...] = ()
    id: str = ""
    instructions: str = ""
    history: tuple[Message, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.question, str) or not self.question.strip():
            raise InputError(f"question={self.question!r} is blank: pass the question as text")
        object.__setattr__(self, "images", tuple(self.images))
        object.__setattr__(self, "choices", tuple(self.choices))
        object.__setattr__(self, "history", tuple(self.history))
        earlier = [part for message in self.history for part in message.content]
        said = [part for part in earlier if isinstance(part, str)]
        for text in (self.question, *self.choices, self.instructions, *said):
            try:
                text.encode()
            except UnicodeEncodeError as exc:
                raise InputError(
                    f"{text[exc.start : exc.end]!a} at character {exc.start} of the question, "
                    "a choice, the instructions or the history is half a surrogate pair, which "
                    "no tokenizer reads: decode the text with errors='replace'"
                ) from None
        if not self.images:
            raise InputError(f"query {self.id or self.question!r} has no image: pass at least one")
        for image in self.images:
            if not isinstance(image, PILImage.Image):
                raise InputError(
                    f"images holds a {type(image).__name__}; only PIL images are allowed here: "
                    "load paths, bytes and arrays with speceyes.load_image first"
                )

    @property
    def text(self) -> str:
        """The question with its lettered options below it, as phases send it."""
        if not self.choices:
            return self.question
        lines = [f"({chr(65 + i)}) {choice}" for i, choice in enumerate(self.choices)]
        return "\n".join([self.question, *lines])


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation: text and images in the order in which they are read.

    Args:
        role: Whose turn it is. "tool" is for chat templates that show results in a role of
            their own.
        content: Text and images.
        call_id: The call that a "tool" message answers, where the template names it.
        reasoning: An assistant's reasoning, where it is kept apart from its content.
        calls: An assistant's tool calls, where the template writes them; otherwise they stand in
            the content, in the words of the model.
    """

    role: Literal["system", "user", "assistant", "tool"]
    content: tuple[str | Image, ...]
    call_id: str = ""
    reasoning: str = ""
    calls: tuple[ToolCall, ...] = ()

    @property
    def images(self) -> tuple[Image, ...]:
        """Images of the turn, in reading order."""
        return tuple(part for part in self.content if not isinstance(part, str))

    @property
    def text(self) -> str:
        """Text of the turn, joined."""
        return "".join(part for part in self.content if isinstance(part, str))


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation that a model is asked to continue.

    Args:
        messages: The turns so far, oldest first. Phases only ever append.
        tools: JSON schemas for chat templates that take `tools=`; empty where the dialect
            describes its tools in the text.
        prefill: The beginning of the assistant's turn, which the model continues: text, or
            text and images in the order in which they are read.
        thinking: Whether the model may reason before it speaks: False closes the reasoning block
            that templates of thinking models open, None leaves it to the template.
    """

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    prefill: str | tuple[str | Image, ...] = ""
    thinking: bool | None = None

    @property
    def begun(self) -> tuple[str | Image, ...]:
        """The parts of the prefill; none where the assistant's turn hasn't begun."""
        if isinstance(self.prefill, str):
            return (self.prefill,) if self.prefill else ()
        return self.prefill

    @property
    def images(self) -> tuple[Image, ...]:
        """All images, in reading order: the order in which tools address them."""
        said = (image for message in self.messages for image in message.images)
        return (*said, *(part for part in self.begun if not isinstance(part, str)))

    def then(self, *messages: Message) -> Conversation:
        """This conversation with further messages; the prefill, if any, is dropped."""
        return Conversation(self.messages + messages, self.tools, thinking=self.thinking)


@dataclass(frozen=True, slots=True)
class Floor:
    """A separability below which one token alone rejects an answer, as it does under "min".

    Args:
        separability: The raw threshold S (dimensionless).
        top_k: K of the score; at most `Sampling.top_k`.
        formula: "code" or "paper"; see `speceyes.scoring.scores.separability`.
    """

    separability: float
    top_k: int
    formula: Literal["code", "paper"] = "code"


@dataclass(frozen=True, slots=True)
class Sampling:
    """All that a phase may ask of a model.

    Args:
        max_tokens: Most new tokens, the end-of-sequence token included; at least 1.
        stop: Strings that end the answer; the one that was met stays at the end of the text.
        top_k: How many log-probabilities to return for each token; 0 for none.
        temperature: 0 is greedy, which is what every phase of the paper uses.
        first_token: Also return the probability of each text that could come first
            (`Completion.first_token`), for the judge.
        seed: Seed of the random draws where temperature > 0.
        floor: A row may end with finish "rejected" at a token that is below it. A model may
            ignore this, for whoever sets it holds the answer against the threshold all the same.
        top_p: Draw among the likeliest tokens that together have this probability, 0 to 1; 1
            draws among all. Without effect where temperature is 0, as `sample_top_k` is.
        sample_top_k: Draw among so many of the likeliest tokens; 0 draws among all.
        presence_penalty: Taken off the logits of tokens that the answer has already, -2 to 2;
            0 for none.
        repetition_penalty: Logits of tokens that prompt or answer have already are divided by it
            if positive, else multiplied (CTRL, arXiv 1909.05858); 1 for none, and None for what
            the checkpoint's generation_config says. It changes greedy answers too.
        stop_after: Text that closes a reasoning block, such as "</think>": while a block is
            open, in the answer or from the prompt's end on, stop strings don't count. Empty
            lets them count everywhere.
        token_texts: Also return the text of each token (`Completion.tokens`).
    """

    max_tokens: int = 256
    stop: tuple[str, ...] = ()
    top_k: int = 0
    temperature: float = 0.0
    first_token: bool = False
    seed: int | None = None
    floor: Floor | None = None
    top_p: float = 1.0
    sample_top_k: int = 0
    presence_penalty: float = 0.0
    repetition_penalty: float | None = 1.0
    stop_after: str = ""
    token_texts: bool = False

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise InputError(f"max_tokens={self.max_tokens}; it must be at least 1")
        if self.top_k < 0:
            raise InputError(f"top_k={self.top_k}; it must be 0 (none) or more")
        if not (self.temperature >= 0 and math.isfinite(self.temperature)):
            raise InputError(f"temperature={self.temperature}; it must be finite and at least 0")
        if self.floor is not None and self.floor.top_k > self.top_k:
            raise InputError(
                f"floor.top_k={self.floor.top_k} is more than top_k={self.top_k}: ask for as "
                "many log-probabilities as the floor is held against"
            )
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p={self.top_p}; it must be above 0 and at most 1 (all tokens)")
        if self.sample_top_k < 0:
            raise InputError(f"sample_top_k={self.sample_top_k}; it must be 0 (all) or more")
        if not -2 <= self.presence_penalty <= 2:
            raise InputError(f"presence_penalty={self.presence_penalty}; it must be -2 to 2")
        penalty = self.repetition_penalty
        if penalty is not None and not (penalty > 0 and math.isfinite(penalty)):
            raise InputError(
                f"repetition_penalty={penalty}; it must be finite and above 0, or None for the "
                "checkpoint's own"
            )
        object.__setattr__(self, "stop", tuple(self.stop))


def _no_logprobs() -> npt.NDArray[np.float32]:
    return np.zeros((0, 0), dtype=np.float32)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Completion:
    """A model's answer, with its tokens and their log-probabilities.

    Args:
        text: The decoded answer, without special tokens; a stop string that was met is kept.
        token_ids: The n tokens of the answer, the end-of-sequence token left out.
        top_logprobs: float32[n, K] in nats, each row descending; the end-of-sequence row left
            out. float32[0, 0] where none were asked for or no token was produced.
        finish: "stop" (end of sequence or stop string), "length" (cut at max_tokens), "rejected"
            (ended at a token below `Sampling.floor`) or "error".
        prompt_tokens: Length of the prompt in tokens, image tokens included.
        first_token: Text to probability (0 to 1) of what could come first, where
            `Sampling.first_token` asked for it. Tokens that decode to the same text are summed.
        error: Why the model failed; None where it didn't.
        fault: What of the request is at fault, where no further attempt can succeed.
        tokens: The text of each token, where `Sampling.token_texts` asked and the model tells;
            put together they are `text`, but for a character that spans several tokens.
        cached_tokens: Tokens of the prompt that an engine had kept from before; None where it
            doesn't say.
        notes: Name to number: what an answerer tells its gate about a draft, or about how it was
            made, so that a draft that is written down can be gated again.

    Raises:
        InputError: top_logprobs has another shape than [n, K].
    """

    text: str
    token_ids: tuple[int, ...] = ()
    top_logprobs: npt.NDArray[np.float32] = field(default_factory=_no_logprobs)
    finish: Finish = "stop"
    prompt_tokens: int = 0
    first_token: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None
    fault: Fault | None = None
    tokens: tuple[str, ...] = ()
    notes: Mapping[str, float] = field(default_factory=dict)
    cached_tokens: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "token_ids", tuple(int(t) for t in self.token_ids))
        object.__setattr__(self, "tokens", tuple(self.tokens))
        rows = np.asarray(self.top_logprobs, dtype=np.float32)
        if rows.ndim != 2 or (rows.shape[1] > 0 and rows.shape[0] != len(self.token_ids)):
            raise InputError(
                f"top_logprobs has shape {rows.shape} for {len(self.token_ids)} tokens; "
                "it must be float32[n, K] with one row a token (end of sequence left out), "
                "or empty [0, 0]"
            )
        rows.setflags(write=False)
        object.__setattr__(self, "top_logprobs", rows)

    def __repr__(self) -> str:
        """One line: the log-probabilities by their shape, without the tokens."""
        rows, k = self.top_logprobs.shape
        parts = [f"{_brief(self.text, 60)!r}", f"{len(self.token_ids)} tokens"]
        parts += [f"top_logprobs=float32[{rows}, {k}]"] if k else []
        parts += [f"finish={self.finish!r}"]
        parts += [f"error={_brief(self.error, 80)!r}"] if self.error else []
        return f"Completion({', '.join(parts)})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Completion):
            return NotImplemented
        return all(
            np.array_equal(a, b, equal_nan=True) if f.name == "top_logprobs" else a == b
            for f in dataclasses.fields(self)
            for a, b in [(getattr(self, f.name), getattr(other, f.name))]
        )

    __hash__ = None  # type: ignore[assignment]

    def noted(self, name: str, value: float) -> Completion:
        """This completion with one more note."""
        return dataclasses.replace(self, notes={**self.notes, name: value})

    @classmethod
    def failed(cls, error: str, fault: Fault | None = None) -> Completion:
        """The completion of a request that failed."""
        return cls(text="", finish="error", error=error, fault=fault)


@dataclass(frozen=True, slots=True)
class Judgement:
    """Phase I: does the query need tools?

    Args:
        needs_tools: The decision; what can't be read means True.
        p_tools: Probability (0 to 1) of "yes" among yes and no; None where neither could be read.
        completion: What the judge said; None where a rule decided.
        reason: Why, where it isn't plain from p_tools.
    """

    needs_tools: bool
    p_tools: float | None = None
    completion: Completion | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Phase III: may the draft be the answer?

    Args:
        accepted: True only where the score reached the threshold.
        score: The aggregate in [0, 1], for people; None where the draft couldn't be scored.
        separability: The raw aggregate S that is compared (dimensionless); None where unscored.
            For "log" it is the mean log-probability in nats.
        threshold: The threshold in [0, 1] it was held against.
        token_scores: Raw score of each of the n tokens.
        reason: Why it was rejected without a comparison; empty where it was compared.
    """

    accepted: bool
    score: float | None
    separability: float | None
    threshold: float
    token_scores: tuple[float, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call as the model wrote it.

    Args:
        name: The tool's name; not necessarily a known one.
        arguments: The arguments, JSON values, coordinates still in the dialect's space.
        raw: The text that it was parsed from.
        id: What its result is matched by, where the dialect writes one.
    """

    name: str
    arguments: Mapping[str, Any]
    raw: str = ""
    id: str = ""


@dataclass(frozen=True, slots=True)
class ImageRef:
    """Reference to an image in a result that is written down: its size and its fingerprint."""

    width: int
    height: int
    sha256: str

    @classmethod
    def of(cls, image: Image) -> ImageRef:
        """Reference of an image, by its mode, size and pixels."""
        digest = hashlib.sha256(f"{image.mode}:{image.size}".encode())
        digest.update(image.tobytes())
        if image.mode == "P":  # the same indices are other colours under another palette
            digest.update(bytes(image.getpalette() or ()))
        return cls(image.width, image.height, digest.hexdigest())


@dataclass(frozen=True, slots=True)
class Observation:
    """A tool's reply to the model.

    Args:
        content: Text and images, in order.
        error: What went wrong, in words for the model; None where it went well.
        box: For a crop, its place in `source`: pixels of that image, after clamping.
        source: Index of the image that was looked at, 0 being the query's first.
    """

    content: tuple[str | Image | ImageRef, ...] = ()
    error: str | None = None
    box: Box | None = None
    source: int | None = None

    @property
    def images(self) -> tuple[Image, ...]:
        """Images that the tool returned, in order."""
        return tuple(part for part in self.content if isinstance(part, PILImage.Image))


@dataclass(frozen=True, slots=True)
class Turn:
    """A model's turn, parsed by its dialect.

    Args:
        calls: Tool calls in the order written; empty where there are none.
        answer: The final answer; None where the turn has none.
        thought: The reasoning before them, for display.
        plain: The answer stands without tags that close it, so that a turn which was cut off
            at its token limit has none.
    """

    calls: tuple[ToolCall, ...] = ()
    answer: str | None = None
    thought: str = ""
    plain: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """One round of the agent: what it said and what it was shown for it.

    `cached_tokens` are those of its prompt that an engine had kept; None where it doesn't say.
    """

    text: str
    calls: tuple[ToolCall, ...] = ()
    observations: tuple[Observation, ...] = ()
    tokens: int = 0
    prompt_tokens: int = 0
    error: str | None = None
    cached_tokens: int | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Trajectory:
    """Phase IV: the agent's whole way to its answer; it can be replayed step by step.

    Args:
        steps: The rounds, first to last.
        answer: The final answer; None where there is none.
        stop: "answered", "max_steps" (out of turns without an answer), "calls" (a turn of another
            program's loop, which runs the tools itself),
            "repeated" (it went on doing or saying the same) or "error".
        error: What ended it, where stop is "error" or "repeated".
        fault: What of the request is at fault, where no further attempt can succeed.
    """

    steps: tuple[Step, ...]
    answer: str | None
    stop: Literal["answered", "max_steps", "calls", "repeated", "error"]
    error: str | None = None
    fault: Fault | None = None

    def __repr__(self) -> str:
        """One line: how it ended, and how long it is."""
        said = f"{len(self.steps)} steps, depth={self.depth}, tokens={self.tokens}"
        error = f", error={_brief(self.error, 80)!r}" if self.error else ""
        answer = None if self.answer is None else _brief(self.answer, 60)
        return f"Trajectory({answer!r}, {said}, stop={self.stop!r}{error})"

    @property
    def depth(self) -> int:
        """The agentic depth D(q): how many tool calls were made."""
        return sum(len(step.calls) for step in self.steps)

    @property
    def tokens(self) -> int:
        """Decoded tokens over all steps."""
        return sum(step.tokens for step in self.steps)

    def _repr_html_(self) -> str:
        from speceyes.notebook import trajectory_html

        return trajectory_html(self)


@dataclass(frozen=True, slots=True)
class Timings:
    """Wall-clock seconds of one query. A batch's time is shared equally by its rows.

    Args:
        judge: Phase I; None where it did not run.
        draft: Phase II.
        gate: Phase III.
        fallback: Phase IV.
        latency: From submission to answer, waiting for the batch included.
    """

    judge: float | None = None
    draft: float | None = None
    gate: float | None = None
    fallback: float | None = None
    latency: float | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Result:
    """Result of a query. None means that the phase did not run.

    Args:
        query_id: The query's id.
        answer: The answer; None where there is none, and then `error` says why.
        route: "draft" (accepted by the gate), "agent" (fallback) or "error".
        judgement: Phase I.
        draft: Phase II.
        verdict: Phase III.
        trajectory: Phase IV.
        timings: Seconds by phase.
        error: What went wrong; None where nothing did.
        images: The query's images as they were given, where a single query was asked, for
            `show`. They are neither compared nor written down.
        question: The question, for whoever reads results later; equality doesn't look at it.
        straight: Why it went straight to the agent, neither judged nor drafted: "costs" (under
            `speculate="auto"`: speculation doesn't pay, or the agent's own cost is being learned),
            "probe" (`ScheduleConfig.probe`), "asked" (the request wanted it), or "" where it
            didn't.
    """

    query_id: str
    answer: str | None
    route: Route
    judgement: Judgement | None = None
    draft: Completion | None = None
    verdict: Verdict | None = None
    trajectory: Trajectory | None = None
    timings: Timings = Timings()
    error: str | None = None
    images: tuple[Image, ...] = field(default=(), compare=False, repr=False)
    question: str = field(default="", compare=False)
    straight: Literal["", "costs", "probe", "asked"] = ""

    def show(self, images: Sequence[Image] = ()) -> None:
        """Shows the result in a notebook, scene and crops included; prints a line elsewhere.

        Args:
            images: The query's images, where they aren't known: of results of many queries.
        """
        from speceyes.notebook import result_html, result_text, show

        show(result_html(self, tuple(images) or self.images), result_text(self))

    def _repr_html_(self) -> str:
        from speceyes.notebook import result_html

        return result_html(self, self.images)

    def __repr__(self) -> str:
        """A few lines: what each phase found, without tokens, log-probabilities and images."""
        answer = None if self.answer is None else _brief(self.answer, 80)
        lines = [f"Result({self.query_id!r}, {answer!r}, {self.route!r}"]
        if self.question:
            lines.append(f"question={_brief(self.question, 80)!r}")
        if self.judgement is not None:
            needs, p = self.judgement.needs_tools, self.judgement.p_tools
            shown = "" if p is None else f", p_tools={p:.3g}"
            lines.append(f"judgement=needs_tools={needs}{shown}")
        if self.draft is not None:
            lines.append(f"draft={self.draft!r}")
        if self.straight:
            lines.append(f"straight={self.straight!r}")
        if self.verdict is not None:
            score = "none" if self.verdict.score is None else f"{self.verdict.score:.4g}"
            said = "accepted" if self.verdict.accepted else "rejected"
            why = f" ({_brief(self.verdict.reason, 60)})" if self.verdict.reason else ""
            lines.append(f"verdict={said}, score {score} at {self.verdict.threshold:.4g}{why}")
        if self.trajectory is not None:
            lines.append(f"trajectory={self.trajectory!r}")
        if self.timings.latency is not None:
            lines.append(f"latency={self.timings.latency:.3g} s")
        if self.error is not None:
            lines.append(f"error={_brief(self.error, 160)!r}")
        return ",\n       ".join(lines) + ")"

    def to_json(self) -> str:
        """One line of JSON. Images are reduced to an `ImageRef`; NaN and infinities to strings."""
        whole = dataclasses.replace(self, images=())  # nor are they hashed
        plain = {name: one for name, one in _plain(whole).items() if name != "images"}
        line = json.dumps(plain, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        # A half of a character is written as JSON escapes it, or the line couldn't be encoded.
        line = line.encode(errors="backslashreplace").decode()
        # JSON allows these in strings, but readers that split lines by Unicode's rules don't.
        for breaking in "\x85\u2028\u2029":
            line = line.replace(breaking, f"\\u{ord(breaking):04x}")
        return line

    @classmethod
    def from_json(cls, line: str) -> Result:
        """The result that `to_json` wrote; equal to it but for images, which are `ImageRef`s.

        Raises:
            InputError: The line is not such a result.
        """
        try:
            data = json.loads(line)
            return _result(data)
        except (ValueError, TypeError, KeyError, AttributeError) as exc:
            raise InputError(
                f"not a Result written by to_json: {exc} in {line[:120]!r:.120}"
            ) from exc


def _brief(text: str, most: int) -> str:
    """A text cut for display."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _number(value: float) -> float | str:
    """A float as JSON can carry it."""
    return value if math.isfinite(value) else str(value)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, np.ndarray):
        return [[_number(float(str(x))) for x in row] for row in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, PILImage.Image):
        return _plain(ImageRef.of(value))
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def _float(value: Any) -> Any:
    return float(value) if isinstance(value, str) else value


def _completion(data: Mapping[str, Any]) -> Completion:
    rows = [[_float(x) for x in row] for row in data["top_logprobs"]]
    array = np.array(rows, dtype=np.float32) if rows else _no_logprobs()
    return Completion(**{**data, "top_logprobs": array, "token_ids": tuple(data["token_ids"])})


def _observation(data: Mapping[str, Any]) -> Observation:
    content = tuple(part if isinstance(part, str) else ImageRef(**part) for part in data["content"])
    box = data["box"] and tuple(data["box"])
    return Observation(content, data["error"], box, data["source"])


def _step(data: Mapping[str, Any]) -> Step:
    calls = tuple(ToolCall(**call) for call in data["calls"])
    seen = tuple(_observation(o) for o in data["observations"])
    return Step(**{**data, "calls": calls, "observations": seen})


def _result(data: Mapping[str, Any]) -> Result:
    judgement, draft, verdict = data["judgement"], data["draft"], data["verdict"]
    trajectory = data["trajectory"]
    if judgement is not None:
        said = judgement["completion"]
        judgement = Judgement(**{**judgement, "completion": said and _completion(said)})
    if verdict is not None:
        numbers = {k: _float(verdict[k]) for k in ("score", "separability", "threshold")}
        scores = tuple(_float(s) for s in verdict["token_scores"])
        verdict = Verdict(**{**verdict, **numbers, "token_scores": scores})
    if trajectory is not None:
        trajectory = Trajectory(
            **{**trajectory, "steps": tuple(_step(s) for s in trajectory["steps"])}
        )
    return Result(
        **{
            **data,
            "judgement": judgement,
            "draft": draft and _completion(draft),
            "verdict": verdict,
            "trajectory": trajectory,
            "timings": Timings(**data["timings"]),
        }
    )
