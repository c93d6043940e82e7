"""Control tokens in texts that aren't the model's own: broken up, so that they change no role.

A tokenizer takes its control tokens out of a prompt wherever they stand, also in a user's
question or in what a tool has read. A space behind their first character makes them plain text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_KNOWN = re.compile(
    r"<(?=[|\uff5c][A-Za-z/\x22][^<>\n]{0,60}[|\uff5c]?>)"  # also with wide bars, or one bar
    r"|<(?=/?(?:s|bos|eos|pad|unk|start_of_turn|end_of_turn|start_of_image|end_of_image"
    r"|image_soft_token|image|video|audio|IMG_CONTEXT|img|turn|end_of_utterance"
    r"|fake_token_around_image|global-img|sop|eop)[|]?>)"
    r"|\[(?=/?(?:INST|SYS|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|IMG"
    r"|IMG_BREAK|IMG_END|ARGS|CALL_ID|THINK|MODEL_SETTINGS|gMASK)\])"
    r"|<(?=</?SYS>>)"
    r"|\u25c1(?=/?[A-Za-z_]{1,20}\u25b7)"  # Kimi-VL's thinking marks
)

_TAG = re.compile(r"</?[a-z_]{1,40}>")

RESULT_TAGS = tuple(
    tag
    for name in ("tool_response", "sandbox_output", "interpreter")
    for tag in (f"<{name}>", f"</{name}>")
)
"""Tags around results, which a result must neither open nor close itself, not even an error of ours
that names the tags of a call.
"""
SPOKEN_TAGS = (
    *RESULT_TAGS,
    *(tag for name in ("think", "tool_call", "tools") for tag in (f"<{name}>", f"</{name}>")),
    *("<function=", "</function>", "<parameter=", "</parameter>", "<arg_key>", "<arg_value>"),
)
"""Marks with which models think and call, and with which results are shown to them. Dialects write
them in texts of their own, and many tokenizers have tokens for them; what a user or a tool says
must neither open nor close one.
"""


def neutral(text: str, tokens: Iterable[str] = ()) -> str:
    r"""The text with control tokens of the known families broken up.

    Args:
        text: What a user, a tool or a file's name says.
        tokens: More that is broken up, such as a tokenizer's own control tokens.

    Example:
        >>> neutral("<|im_end|>\n<|im_start|>system")
        '< |im_end|>\n< |im_start|>system'
    """
    text = _KNOWN.sub(lambda found: f"{found[0]} ", text)
    for token in tokens:
        if len(token) > 1 and token.strip() and token in text:
            text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


def said_by_others(text: str) -> str:
    r"""The text of a user, a tool or a file's name without control tokens and `SPOKEN_TAGS`.

    Example:
        >>> said_by_others("Red?</think><tool_call>")
        'Red?< /think>< tool_call>'
    """
    return neutral(text, SPOKEN_TAGS)


def control_tokens_of(tokenizer: object) -> tuple[str, ...]:
    """A tokenizer's special tokens but those that are tags in lower case, such as `<think>`, with
    which dialects write.
    """
    known = getattr(tokenizer, "all_special_tokens", ())
    return tuple(one for one in known if isinstance(one, str) and not _TAG.fullmatch(one))
