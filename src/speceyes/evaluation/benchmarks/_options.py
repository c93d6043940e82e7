"""Options that a benchmark publishes as one text: a line or a mark each."""

from __future__ import annotations

import re


def lettered(text: str) -> tuple[str, tuple[str, ...]]:
    r"""(what stands around them, the options with their letters) of "A. red", "(B) blue" and so on.

    Options begin on a line of their own, or, where they don't, behind a space; letters run from A
    upwards. Without two of them there are no options. Line ends may be written as a backslash
    and an n.

    Example:
        >>> lettered("Which one?\nA. red\nB. deep blue")
        ('Which one?', ('A. red', 'B. deep blue'))
        >>> lettered("(A) red (B) blue")
        ('', ('(A) red', '(B) blue'))
    """
    whole = text.replace("\\r\\n", "\n").replace("\\n", "\n").replace("\r\n", "\n")
    for start in (r"^[ \t]*", r"(?:^|(?<=\s))"):
        begins: list[int] = []
        at = 0
        for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ":
            mark = re.compile(rf"{start}(\({letter}\)|{letter}[.):])(?=\s*\S)", re.M)
            found = mark.search(whole, at)
            if found is None:
                break
            begins.append(found.start(1))
            at = found.end()
        if len(begins) >= 2:
            last, _, tail = whole[begins[-1] :].partition("\n")
            ends = [*begins[1:], begins[-1] + len(last)]
            choices = tuple(
                whole[begin:end].strip() for begin, end in zip(begins, ends, strict=True)
            )
            around = "\n".join(part for part in (whole[: begins[0]].strip(), tail.strip()) if part)
            return around, choices
    return whole.strip(), ()
