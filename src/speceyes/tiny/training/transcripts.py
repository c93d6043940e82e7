"""Conversations that the tiny pair is taught, as the library's phases hold them.

The texts come from the same dialect and prompts that the phases use, so that what is trained
is what is asked. A transcript is a list of pieces of text, some of them to be learned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from PIL import Image as PILImage

from speceyes import prompts
from speceyes.dialects.deepeyes import SpecEyesDialect
from speceyes.tiny.scenes import Look, Question
from speceyes.tiny.training.models import END
from speceyes.tools.zoom import Zoom
from speceyes.types import Conversation, Image, Message, Observation, Query, ToolCall

IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
CROP = 0.29
"""Side of the box that an agent zooms in on, of the scene's: 32 of the large model's 112 pixels, 24
of the small one's 80.
"""
STEP = 4
"""Boxes lie on multiples of this, pixels."""

Role: TypeAlias = Literal["given", "said", "place", "box", "seen", "answer"]
Region: TypeAlias = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a transcript: `given` is not learned, the others are told apart in reports."""

    text: str
    role: Role


@dataclass(frozen=True, slots=True)
class Transcript:
    """Pieces in order, and the regions (fractions of the scene) its images show."""

    pieces: tuple[Piece, ...]
    regions: tuple[Region, ...]


_WHOLE = (0.0, 0.0, 1.0, 1.0)
_BLANK: Image = PILImage.new("RGB", (8, 8))
_DIALECT = SpecEyesDialect()
_TOOLS = (Zoom(),)


def chat_text(conversation: Conversation) -> str:
    """The conversation as the tiny pair's chat template writes it, up to the assistant's turn."""
    turns = []
    for message in conversation.messages:
        parts = [part if isinstance(part, str) else IMAGE for part in message.content]
        turns.append(f"<|im_start|>{message.role}\n{''.join(parts)}{END}\n")
    return "".join(turns) + "<|im_start|>assistant\n"


def zoom_box(look: Look, view: int) -> tuple[int, int, int, int]:
    """The box around a look's centre, pixels of the `view` x `view` image, on the grid."""
    side = round(CROP * view / STEP) * STEP

    def start(centre: float) -> int:
        low = round((centre * view - side / 2) / STEP) * STEP
        return min(max(low, 0), view - side)

    x, y = start(look.x), start(look.y)
    return x, y, x + side, y + side


def region_of(look: Look, view: int) -> Region:
    """The region in the box around a look, in fractions of the scene."""
    left, top, right, bottom = zoom_box(look, view)
    return left / view, top / view, right / view, bottom / view


def _query(question: Question) -> Query:
    return Query(question.text, (_BLANK,), question.choices)


def agent(question: Question, view: int, *, cut: int | None = None) -> Transcript:
    """The whole way: think, zoom, look, answer. With `cut`, the agent is told after that many
    looks to answer now, with what it has.
    """
    conversation = _DIALECT.open(_query(question), _TOOLS)
    pieces: list[Piece] = []
    regions = [_WHOLE]
    done = 0  # characters of the conversation that are already in pieces

    def give() -> None:
        nonlocal done
        text = chat_text(conversation)
        pieces.append(Piece(text[done:], "given"))
        done = len(text)

    looks = question.looks if cut is None else question.looks[:cut]
    for number, look in enumerate(looks):
        give()
        before = question.findings[number]
        lead = f"{before} The" if before else "The"
        box = zoom_box(look, view)
        call = ToolCall("image_zoom_in_tool", {"bbox_2d": list(box)})
        head, tail = _DIALECT.render_call(call).split(str(box[0]), 1)
        numbers, end = tail.split("]", 1)
        turn = [
            Piece(f"<think>{lead} {look.name}", "said"),
            Piece(f" is in row {look.row}, column {look.column}.", "place"),
            Piece(f"</think>\n{head}", "said"),
            Piece(f"{box[0]}{numbers}", "box"),
            Piece(f"]{end}", "said"),
        ]
        text = "".join(p.text for p in turn)
        pieces += [*turn, Piece(END, "said")]
        last = cut is not None and number == len(looks) - 1
        seen = Observation((_BLANK,))
        conversation = _DIALECT.observe(conversation, text, (seen,), last=last)
        done += len(text) + len(END)
        regions.append(region_of(look, view))
    give()
    finding = question.findings[len(looks)] if len(looks) == len(question.looks) else ""
    pieces += [
        Piece(f"<think>{finding}", "seen"),
        Piece("</think>\n<answer>", "said"),
        Piece(question.answer, "answer"),
        Piece(f"</answer>{END}", "said"),
    ]
    return Transcript(tuple(pieces), tuple(regions))


def _short(conversation: Conversation, answer: str) -> Transcript:
    said = (Piece(chat_text(conversation), "given"), Piece(answer, "answer"), Piece(END, "said"))
    return Transcript(said, (_WHOLE,))


def judge(question: Question) -> Transcript:
    """The large model's yes or no: are tools needed?"""
    conversation = _DIALECT.ask_judge(_query(question), _TOOLS)
    return _short(conversation, "yes" if question.needs_tools else "no")


def direct(question: Question) -> Transcript:
    """The large model's answer at once."""
    return _short(_DIALECT.ask_direct(_query(question), _TOOLS), question.answer)


def draft(question: Question, view: int = 0, *, looks: int = 0) -> Transcript:
    """The small model's answer: no system prompt, no tools. With `looks`, what its first looks
    show stands behind the scene, as a draft with depth is asked.
    """
    instruction = prompts.CHOICE if question.choices else prompts.DRAFT
    text = f"{_query(question).text}\n{instruction}"
    images = (_BLANK,) * (1 + looks)
    told = _short(Conversation((Message("user", (*images, text)),)), question.answer)
    seen = tuple(region_of(look, view) for look in question.looks[:looks])
    return Transcript(told.pieces, (_WHOLE, *seen))


def small_judge(question: Question) -> Transcript:
    """The small model's yes or no, asked as it is asked for a draft: no system prompt, no tools."""
    text = f"{_query(question).text}\n{prompts.JUDGE}"
    asked = Conversation((Message("user", (_BLANK, text)),))
    return _short(asked, "yes" if question.needs_tools else "no")


def one_pass(question: Question) -> Transcript:
    """The small model's answer, or that it must look closer."""
    instruction = prompts.CHOICE if question.choices else prompts.DRAFT
    text = f"{_query(question).text}\n{instruction}\n{prompts.DRAFT_LOOK}"
    asked = Conversation((Message("user", (_BLANK, text)),))
    return _short(asked, prompts.LOOK_CLOSER if question.needs_tools else question.answer)


def zoom(question: Question, view: int) -> Transcript:
    """The small model's first turn as an agent, in as few tokens as can be: a call where there
    is something to look at, else the answer. It doesn't think in words, for its words would
    cost what a draft is to save.
    """
    given = Piece(chat_text(_DIALECT.open(_query(question), _TOOLS)), "given")
    if not question.looks:
        said = (
            Piece("<think>", "said"),
            Piece("</think>\n<answer>", "said"),
            Piece(question.answer, "answer"),
            Piece(f"</answer>{END}", "said"),
        )
        return Transcript((given, *said), (_WHOLE,))
    box = zoom_box(question.looks[0], view)
    call = ToolCall("image_zoom_in_tool", {"bbox_2d": list(box)})
    head, tail = _DIALECT.render_call(call).split(str(box[0]), 1)
    numbers, end = tail.split("]", 1)
    said = (
        Piece("<think>", "said"),
        Piece(f"</think>\n{head}", "said"),
        Piece(f"{box[0]}{numbers}", "box"),
        Piece(f"]{end}", "said"),
    )
    return Transcript((given, *said), (_WHOLE,))
