"""Protocols of the parts that a funnel is made of, and of what a part may offer beyond its call."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

from typing_extensions import TypeIs, get_protocol_members

from speceyes.texts import Texts
from speceyes.types import (
    Completion,
    Conversation,
    Floor,
    Image,
    Judgement,
    Observation,
    Query,
    Sampling,
    ToolCall,
    Turn,
    Verdict,
)

_Offered = TypeVar("_Offered")


def offers(part: object, what: type[_Offered]) -> TypeIs[_Offered]:
    """True where a part has all that a protocol names.

    `isinstance` asks the same up to Python 3.11. From 3.12 on it doesn't see what `__getattr__`
    passes on, so that a model or tool wrapped in that way would lose what it can do beyond its
    call.

    Args:
        part: A model, tool, gate or other part.
        what: A protocol of this module, or another one that can be checked at run time.

    Example:
        >>> class Logged:
        ...     def __init__(self, tool): self._tool = tool
        ...     def __getattr__(self, name): return getattr(self._tool, name)
        >>> from speceyes.tools import Zoom
        >>> offers(Logged(Zoom()), Stateless), offers(print, Stateless)
        (True, False)
    """
    protocol: Any = what
    methods, values = _members(protocol)
    return all(hasattr(part, name) for name in values) and all(
        getattr(part, name, None) is not None for name in methods
    )


@functools.cache
def _members(what: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of a protocol's methods, and of its other members."""
    names = sorted(get_protocol_members(what))
    methods = tuple(name for name in names if callable(getattr(what, name, None)))
    return methods, tuple(name for name in names if name not in methods)


@runtime_checkable
class VisionLanguageModel(Protocol):
    """Anything that continues conversations about images: local weights or an engine.

    A batch goes in and a batch comes out: same order, same length. A conversation that
    fails comes back as a `Completion` with `error`, and never raises for its neighbours.
    """

    @property
    def name(self) -> str:
        """Names the model in results and calibrations."""
        ...

    def generate(
        self, conversations: Sequence[Conversation], sampling: Sampling
    ) -> list[Completion]:
        """One completion a conversation, in order."""
        ...

    def seen_size(self, image: Image) -> tuple[int, int]:
        """(width, height) in pixels of the image as the model sees it, after its resizing."""
        ...


@runtime_checkable
class ChecksTopK(Protocol):
    """A model that can tell beforehand whether it returns enough log-probabilities."""

    def check_top_k(self, top_k: int) -> None:
        """Finds out whether it returns top_k log-probabilities a token.

        Raises:
            ConfigError: It doesn't; with what to do.
        """
        ...


@runtime_checkable
class ChecksImages(Protocol):
    """A model that can tell beforehand whether it takes pictures."""

    def check_images(self) -> None:
        """Finds out whether it takes pictures.

        Raises:
            ConfigError: It reads text alone.
        """
        ...


@runtime_checkable
class BehindEngine(Protocol):
    """A model that an engine serves, which batches whatever reaches it: what a call costs there
    depends on its company.
    """

    @property
    def engine(self) -> Any:
        """The engine, or its kind; None where there is none after all."""
        ...


@runtime_checkable
class GuessesSizes(Protocol):
    """A model behind an engine, which doesn't tell how it resizes images."""

    guesses_sizes: bool
    """True where `seen_size` is a guess: the image's own size, for want of anything better."""


@runtime_checkable
class TellsTimes(Protocol):
    """A model whose engine says how it spends its time."""

    def times(self) -> Any:
        """A dataclass of sums so far; None where the engine says nothing."""
        ...


@runtime_checkable
class ForeseesLength(Protocol):
    """A model that tells before it is asked which conversations are above its context."""

    def too_long(self, conversation: Conversation) -> str | None:
        """The reason for which it can never read a conversation; None where it may fit."""
        ...


@runtime_checkable
class DescribesDrafts(Protocol):
    """An answerer that tells how its drafts are made, for calibrations to be checked against."""

    @property
    def model(self) -> VisionLanguageModel | None:
        """The model that drafts, where there is one."""
        ...

    @property
    def top_k(self) -> int | None:
        """Number of log-probabilities that a draft's tokens keep."""
        ...

    @property
    def prompt_hash(self) -> str | None:
        """Fingerprint of the prompts."""
        ...


@runtime_checkable
class SeesFewer(Protocol):
    """A phase that may look at smaller views of images."""

    @property
    def max_pixels(self) -> int | None:
        """Most pixels of an image that it looks at; None for all of them."""
        ...


@runtime_checkable
class JudgesDrafts(Protocol):
    """An answerer whose drafts may say that tools are needed, so that it judges as it drafts."""

    @property
    def may_look(self) -> bool:
        """True where they may; False where this one's drafts are answers alone."""
        ...

    def judgement(self, draft: Completion) -> Judgement | None:
        """Judgement that a draft holds; None where this answerer's drafts hold none."""
        ...


@runtime_checkable
class HasName(Protocol):
    """A part that has a name."""

    @property
    def name(self) -> str: ...


@runtime_checkable
class HasSeenSize(Protocol):
    """A model that tells at what size it sees an image."""

    def seen_size(self, image: Image) -> tuple[int, int]:
        """See `VisionLanguageModel.seen_size`."""
        ...


@runtime_checkable
class HasDtype(Protocol):
    """A model that tells what numbers it computes in."""

    @property
    def dtype(self) -> Any:
        """The torch dtype."""
        ...


@runtime_checkable
class HasRevision(Protocol):
    """A model that tells which weights it has."""

    @property
    def revision(self) -> str | None:
        """Commit or fingerprint of the weights; None where it isn't known."""
        ...


@runtime_checkable
class RunsHere(Protocol):
    """A model with weights in this process."""

    @property
    def device(self) -> Any:
        """The torch device that it runs on."""
        ...


@runtime_checkable
class HasConfig(Protocol):
    """A model that shows its configuration."""

    @property
    def config(self) -> Any:
        """As transformers has it, or a mapping; None where there is none."""
        ...


@runtime_checkable
class HasChatTemplate(Protocol):
    """A model that shows how it writes conversations."""

    @property
    def chat_template(self) -> str | None:
        """Its chat template, in Jinja; None where there is none."""
        ...


@runtime_checkable
class HasProcessor(Protocol):
    """A model whose tokenizer is in this process."""

    @property
    def processor(self) -> Any:
        """The transformers processor, with its tokenizer."""
        ...


@runtime_checkable
class SpellsTokens(Protocol):
    """A model that tells the text of each token."""

    def piece(self, token: int) -> str:
        """A token's id as text; "" for a special one."""
        ...


@runtime_checkable
class CountsTokens(Protocol):
    """A model that counts what it computes."""

    @property
    def spent(self) -> Any:
        """A dataclass of sums so far."""
        ...


@runtime_checkable
class SupportsSession(Protocol):
    """A model that continues conversations side by side, each joining and leaving on its own."""

    def session(self, sampling: Sampling) -> Session | None:
        """A session; None where the model can't have one."""
        ...


@runtime_checkable
class HasIdentity(Protocol):
    """A judge that tells what a calibration must keep of it."""

    @property
    def identity(self) -> str:
        """Model and threshold."""
        ...


@runtime_checkable
class HasTopK(Protocol):
    """An answerer that keeps, or a gate that scores by, K log-probabilities a token."""

    @property
    def top_k(self) -> int | None:
        """K; None where any number will do."""
        ...


@runtime_checkable
class HasLeast(Protocol):
    """A gate that tells where its scale ends."""

    @property
    def least(self) -> float | None:
        """The threshold that accepts whatever can be scored; None where there is none."""
        ...


class Session(Protocol):
    """Conversations that a model continues side by side, each joining and leaving on its own.

    A model may offer `session(sampling)`, which returns one, or None where it can't. What comes
    back is what `VisionLanguageModel.generate` would have given. Used by one thread.
    """

    def __len__(self) -> int:
        """Number of conversations that were added and have not come back yet."""
        ...

    def add(self, key: int, conversation: Conversation) -> None:
        """Lets a conversation join at the next step. Returns at once and never raises for it."""
        ...

    def step(self) -> list[tuple[int, Completion]]:
        """Works on all of them for a moment.

        Returns:
            (key, completion) of those that are finished now; perhaps none.
        """
        ...

    def drop(self, key: int) -> None:
        """Gives one up: it will not come back. An unknown key is ignored."""
        ...

    def close(self) -> None:
        """Gives all of them up."""
        ...


@runtime_checkable
class Tool(Protocol):
    """Something that the agent may call. A class with these, or a function under `@tool`."""

    @property
    def name(self) -> str: ...

    @property
    def description(self) -> str:
        """Description of the tool, for the model."""
        ...

    @property
    def parameters(self) -> Mapping[str, Any]:
        """JSON schema of the arguments (an object)."""
        ...

    def __call__(self, images: Sequence[Image], arguments: Mapping[str, Any]) -> Observation:
        """Run it.

        Args:
            images: Every image of the conversation so far, 0 being the query's first, each at
                full resolution.
            arguments: The model's arguments, boxes and points already in pixels of the image
                that they refer to.

        Raises:
            ToolError: Told to the model as an observation, as any other exception is.
        """
        ...


@runtime_checkable
class Stateless(Protocol):
    """A tool that may say that the same call always gives the same, so that it is kept."""

    stateless: bool
    """True where it does."""


@runtime_checkable
class TellsKept(Protocol):
    """A stateless tool that may say that its results aren't worth keeping."""

    kept: bool
    """False where making one again takes no longer than looking it up."""


@runtime_checkable
class ReadsImages(Protocol):
    """A tool that says which images a call's result depends on; else it is all of them."""

    reads: Literal["none", "image", "images"]
    """"image" is the one that `img_idx` names, by default the first."""


@runtime_checkable
class RunsPrograms(Protocol):
    """A tool that may say that it runs programs which models write, so that servers refuse it."""

    runs_programs: bool
    """True where it does."""


@runtime_checkable
class Bounded(Protocol):
    """A tool that may say that it keeps time itself, and need not be watched."""

    bounded: bool
    """True where it does."""


@runtime_checkable
class CarriesState(Protocol):
    """A tool whose calls go on from earlier ones of the same query."""

    def carry(
        self, arguments: Mapping[str, Any], earlier: Sequence[tuple[ToolCall, Observation]]
    ) -> Mapping[str, Any]:
        """The arguments, with what the call must know of those before it."""
        ...


@runtime_checkable
class HasTexts(Protocol):
    """A dialect that shows what it tells the model."""

    @property
    def texts(self) -> Texts:
        """Its texts."""
        ...


@runtime_checkable
class Dialect(Protocol):
    """Format of one family of agents: tool calls, answers and observations."""

    @property
    def name(self) -> str: ...

    @property
    def stop(self) -> tuple[str, ...]:
        """Strings that end a turn."""
        ...

    def open(self, query: Query, tools: Sequence[Tool]) -> Conversation:
        """The agent's first conversation; images come first, so that its beginning is shared
        with `ask_judge` and `ask_direct` of the same query.
        """
        ...

    def ask_judge(self, query: Query, tools: Sequence[Tool]) -> Conversation:
        """Asks whether tools are needed, yes or no."""
        ...

    def ask_direct(self, query: Query, tools: Sequence[Tool]) -> Conversation:
        """Asks for the answer at once, without tools."""
        ...

    def parse(self, text: str) -> Turn:
        """The calls and the answer of a turn.

        Raises:
            ParseError: The turn has neither, or a call that can't be read.
        """
        ...

    def render_call(self, call: ToolCall) -> str:
        """The text of a call, so that parse(render_call(c)) gives c back."""
        ...

    def locate(
        self, call: ToolCall, images: Sequence[Image], seen: Sequence[tuple[int, int]]
    ) -> ToolCall:
        """The call with its boxes in pixels of the image they refer to.

        Args:
            call: As parsed, its boxes in the dialect's space.
            images: Every image so far, full resolution.
            seen: (width, height) of each as the model sees it.

        Raises:
            ParseError: A box or an image index that can't be understood.
        """
        ...

    def observe(
        self,
        conversation: Conversation,
        text: str,
        observations: Sequence[Observation],
        *,
        last: bool,
    ) -> Conversation:
        """The conversation after the model said `text` and was shown `observations`; `last`
        tells it to answer now with what it has.
        """
        ...


class Judge(Protocol):
    """Phase I: judges a batch of queries."""

    def __call__(self, queries: Sequence[Query], /) -> Sequence[Judgement]:
        """One judgement a query, in order."""
        ...


class Answerer(Protocol):
    """Phase II: drafts answers to a batch of queries."""

    def __call__(self, queries: Sequence[Query], /) -> Sequence[Completion]:
        """One draft a query, in order."""
        ...


class Gate(Protocol):
    """Phase III: decides whether a draft may be the answer."""

    def __call__(self, draft: Completion, /) -> Verdict:
        """Verdict on one draft."""
        ...


@runtime_checkable
class HasModel(Protocol):
    """A phase that asks a model of ours."""

    @property
    def model(self) -> VisionLanguageModel | None:
        """The model; None where something else answers."""
        ...


@runtime_checkable
class NeedsTopK(Protocol):
    """A gate that states how many log-probabilities a draft must carry."""

    @property
    def needed_top_k(self) -> int:
        """Log-probabilities a token; with fewer, it rejects."""
        ...


@runtime_checkable
class HasThreshold(Protocol):
    """A gate that compares a score with one number."""

    @property
    def threshold(self) -> float | None:
        """The least score that it accepts; None where there is none."""
        ...


@runtime_checkable
class SupportsFloor(Protocol):
    """A gate under which one token alone can reject a draft, so that the draft may end there."""

    @property
    def floor(self) -> Floor | None:
        """The least separability of a token; None where no token decides alone."""
        ...


@runtime_checkable
class SupportsCheck(Protocol):
    """A gate that holds for certain drafts only, as a calibrated one does."""

    def check(
        self,
        *,
        model: str | None = None,
        revision: str | None = None,
        prompt_hash: str | None = None,
        top_k: int | None = None,
        judge: str | None = None,
    ) -> None:
        """Raises `CalibrationError` for drafts of another model, revision, prompt, K or judge."""
        ...


@runtime_checkable
class SupportsPrepare(Protocol):
    """A model that can make images ready ahead of time, in another thread."""

    def prepare(self, images: Sequence[Image]) -> None:
        """Resizes images and keeps the pixels, bounded in bytes."""
        ...


@runtime_checkable
class SupportsForget(Protocol):
    """A model that keeps something between calls."""

    def forget(self) -> None:
        """Gives up all that is kept."""
        ...


@runtime_checkable
class SupportsReference(Protocol):
    """A model that can also run as the paper's code does, as a yardstick."""

    def reference(self) -> VisionLanguageModel:
        """The same weights, with everything read anew at each call."""
        ...
