"""Programs in `<code>` tags, as agents write them that act by Python."""

from __future__ import annotations

from speceyes.dialects._turn import codes
from speceyes.errors import InputError
from speceyes.types import ToolCall


def programs(text: str, tool: str, **more: object) -> tuple[ToolCall, ...]:
    """A call of the tool for each program in a turn, in order.

    Raises:
        ParseError: One of them is empty or too long.
    """
    return tuple(ToolCall(tool, {"code": code, **more}, raw) for code, raw in codes(text))


def render_code(call: ToolCall, tool: str) -> str:
    """A program in its fence and `<code>` tags.

    Raises:
        InputError: The call isn't a program, or holds the tag that ends one.
    """
    code = call.arguments.get("code")
    if call.name != tool or set(call.arguments) != {"code"} or not isinstance(code, str):
        raise InputError(f'only calls of {tool} with {{"code": "..."}} can be written as code')
    if not code.strip() or "</code>" in code:
        raise InputError("a program must not be blank nor hold </code>")
    return f"<code>\n```python\n{code}\n```\n</code>"
