"""The generic dialect: tools through the chat template, calls as Hermes-style JSON.

For any model whose chat template takes `tools=` and teaches JSON calls: in `<tool_call>` tags
(Hermes, Qwen), or bare (Llama, and Mistral, whose tags are special tokens and not in the text).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from speceyes.dialects._native import NativeFamily
from speceyes.dialects.profile import Profile

PROFILE = Profile(scale=1000.0)


@final
@dataclass(frozen=True, slots=True)
class HermesDialect(NativeFamily):
    """Any model whose chat template takes tools. Its profile's `scale` is 1000, which suits most
    of today's models; 1 is for those that write fractions, None for pixels as seen.

    Example:
        >>> text = '<tool_call>{"name": "zoom", "arguments": {"bbox_2d": [0, 0, 500, 500]}}'
        >>> HermesDialect().parse(text).calls[0].arguments
        {'bbox_2d': [0, 0, 500, 500]}
        >>> HermesDialect().parse("It is red.").answer
        'It is red.'
    """

    profile: Profile = PROFILE
    name: str = "hermes"
