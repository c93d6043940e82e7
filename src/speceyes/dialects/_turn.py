"""Reading a turn: its reasoning, its answer, its code. Each is linear in the text."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace

from speceyes.dialects._bare_call import bare_call, call_within, empty_call
from speceyes.dialects._json_call import between
from speceyes.errors import ParseError
from speceyes.types import Turn

MAX_CODE_CHARS = 50_000
"""Longest program that is read; real ones are some thousand characters."""

_OPENING = re.compile(r"```[A-Za-z0-9_+-]{0,20}[ \t]{0,20}(?:\r?\n)?")


_ENDS = (
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|end|>",
    "<|user|>",
    "<|observation|>",
    "<turn|>",
    "</s>",
    "<eos>",
)
"""Tokens that end a turn, which some engines leave in its text."""


def without_end(text: str) -> str:
    """Text without the white space and the tokens that end it."""
    at = len(text)
    while at:
        if text[at - 1].isspace():
            at -= 1
            continue
        found = next((one for one in _ENDS if text.endswith(one, 0, at)), None)
        if found is None:
            break
        at -= len(found)
    return text[:at]


def spoken(text: str) -> str:
    """Text of a turn after its reasoning, without the tokens that end it; all of it where nothing
    follows.

    Models that think by themselves begin inside of `<think>`, so the end is what counts.
    """
    text = without_end(text)
    after = text.rpartition("</think>")[2]
    return after if after.strip() else text


def thought_in(text: str, *until: str) -> str:
    """The reasoning, for display: up to `</think>` or to the first of `until`."""
    if "<think>" not in text and "</think>" not in text:
        return ""
    start = text.find("<think>")
    start = 0 if start < 0 else start + len("<think>")
    ends = [at for end in ("</think>", *until) if (at := text.find(end, start)) >= 0]
    return text[start : min(ends, default=len(text))].strip()


def answer_in(text: str, known: Collection[str] = ()) -> str | None:
    """Content of the last `<answer>`; None where there is none.

    Args:
        text: The turn.
        known: Names of the tools there are.

    Raises:
        ParseError: It is empty, or a call.
    """
    answers = between(text, "<answer>", "</answer>")
    if not answers:
        return None
    answer = without_end(answers[-1]).strip()
    if not answer:
        raise ParseError("the <answer> is empty")
    opening = next((one for one in FOREIGN if answer.startswith(one)), None)
    if (opening is not None and re.search(r"</|\|>\Z|[}\]]\Z", answer[len(opening) :])) or (
        any(f'"{name}"' in answer for name in known) and bare_call(answer, known)
    ):
        raise ParseError("the <answer> holds a call; write the call alone")
    return answer


def boxed(text: str) -> tuple[str, bool] | None:
    r"""Content of the last `\boxed{...}`, and whether its brace is closed."""
    at = text.rfind("\\boxed{")
    if at < 0:
        return None
    start, depth = at + len("\\boxed{"), 1
    for brace in re.finditer(r"[{}]", text[start:]):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return text[start : start + brace.start()].strip(), True
    return text[start:].strip(), False


def unboxed(turn: Turn) -> Turn:
    r"""A turn with its answer taken out of `\boxed{}`, if it stands in one."""
    box = None if turn.answer is None else boxed(turn.answer)
    return replace(turn, answer=box[0]) if box and box[0] else turn


def code_in(body: str) -> str:
    """The program between `<code>` tags, with or without a Markdown fence around it.

    Raises:
        ParseError: There is none, or it is too long.
    """
    if len(body) > MAX_CODE_CHARS:
        raise ParseError(f"code of {len(body)} characters; at most {MAX_CODE_CHARS} are run")
    code = body.strip()
    opening = _OPENING.search(code)
    if opening is None:
        code = code.removeprefix("python\n")
    elif not code[opening.end() :].strip():  # only the closing fence was written
        code = code[: opening.start()].rstrip()
    else:
        closing = code.rfind("```")
        code = code[opening.end() : closing if closing >= opening.end() else len(code)]
        code = code.removesuffix("\n")
    if not code.strip():
        raise ParseError("the <code> is empty")
    return code


def codes(text: str) -> list[tuple[str, str]]:
    """(program, the text that it was read from) of each `<code>`, in order.

    Raises:
        ParseError: One of them is empty or too long.
    """
    return [(code_in(body), body) for body in between(text, "<code>", "</code>")]


FOREIGN = (
    "<tool_call>",
    "<function=",
    "<|tool_call_begin|>",
    "<|tool_calls_section_begin|>",
    "<|tool_call>",
    "<grounding>",
    "<code>",
    "[TOOL_CALLS]",
    "<|python_tag|>",
    "<tool_code>",
    "<function_calls>",
    "<\uff5ctool\u2581calls\u2581begin\uff5c>",
    "<minimax:tool_call>",
    "<arg_key>",
    "<invoke name=",
    "<parameter=",
    "<function name=",
    "<|tool_call_argument_begin|>",
    "<|tool_call_end|>",
    "```tool_code",
)
"""How calls begin in one family or another."""


def foreign_call(text: str, *own: str) -> str | None:
    """Beginning of some family's call that stands in a text; None where there is none.

    Args:
        text: The text.
        own: Beginnings that don't count.
    """
    return next((one for one in FOREIGN if one in text and one not in own), None)


def refuse_foreign(text: str, *own: str, known: Collection[str] = ()) -> None:
    """Makes sure that a turn taken for an answer is no empty call, nor holds one of another family.

    Args:
        text: What the turn says after its reasoning.
        own: Beginnings that mean something else here.
        known: Names of the tools there are.

    Raises:
        ParseError: It is, or it does.
    """
    if empty_call(text):
        raise ParseError("the call is empty: it names no tool")
    if _spelled_out(text, known):
        raise ParseError("a call in words or as a function of Python can't be read here")
    if (opening := foreign_call(text, *own)) is not None:
        raise ParseError(f"a call written as {opening}... can't be read here")


def is_call(text: str, known: Collection[str]) -> bool:
    """True where a text that nobody could read is a call, or its empty shell, and so no answer.

    Args:
        text: What a turn says after its reasoning.
        known: Names of the tools there are.
    """
    return (
        foreign_call(text) is not None
        or _LEFT.search(text) is not None
        or empty_call(text)
        or _spelled_out(text, known)
        or call_within(text, known) is not None
    )


_LEFT = re.compile(
    r"</tool_call>|<tool_call\|>|</function>|Action:\s{0,9}(?:Object Mapper|Path Tracer)"
    r"""|["']actions["']\s{0,9}:\s{0,9}\[?\s{0,9}\{\s{0,9}["']name["']"""
    r"""|["']source["']\s{0,9}:\s{0,9}["'](?:original_image|observation_)"""
)
"""What is left of a call whose other end is lost, and calls of one dialect or another in JSON."""


def _spelled_out(text: str, known: Collection[str]) -> bool:
    """True where a text calls a tool as Python or ReAct would: `zoom(...)`, "Action: zoom"."""
    body = text.strip().strip("`").strip().removeprefix("[")
    for name in known:
        if body.startswith(f"{name}(") and _closes_at_end(body.rstrip("]")):
            return True
        if f"Action: {name}" in text and "Action Input" in text:
            return True
    return False


def _closes_at_end(text: str) -> bool:
    """True where the first bracket that a text opens is closed by its last character."""
    depth = 0
    for found in re.finditer(r"[()]", text):
        depth += 1 if found[0] == "(" else -1
        if depth == 0:
            return found.end() == len(text)
    return False
