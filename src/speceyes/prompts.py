"""Every text that is sent to a model, a named constant each.

The words are this project's own; what they ask for follows the published agents' formats
(DeepEyes, arXiv 2505.14362; SpecEyes, arXiv 2603.23483, Sec. 3). The bundled tiny pair was
trained on these very texts: changing one means training the pair again
(`python -m speceyes.tiny.train`), and a test says so.
"""

from __future__ import annotations

import hashlib

DEEPEYES_SYSTEM = """\
You are a helpful assistant that answers questions about images.

# Tools
Before you answer you may call tools to look closer. Their signatures, as JSON schemas:
<tools>
{tools}
</tools>

# How to call a tool
Write a JSON object with the tool's name and its arguments inside <tool_call></tool_call>:
<tool_call>
{{"name": "a tool's name", "arguments": {{"an argument": "its value"}}}}
</tool_call>
Boxes are [left, top, right, bottom] in pixels of the image as you see it."""

DEEPEYES_INSTRUCTION = (
    "Think first, inside <think></think>. Then either call a tool inside "
    "<tool_call></tool_call> or, once you know, give the final answer inside <answer></answer>."
)

LAST_TURN = (
    "No further tool calls are possible. Give your best final answer now, inside <answer></answer>."
)

JUDGE = (
    "Is a closer look through the tools needed to answer this question reliably? "
    "Reply with one word: yes if tools are needed, no if the image as you see it is enough."
)

DIRECT = "Answer at once, without tools and without explanation, in as few words as possible."

DRAFT = "Answer with a single word or a short phrase."

CHOICE = "Answer with one of the options."

OBSERVATION_ERROR = "Error: {error}"

PARSE_ERROR = "your last turn could not be read: {error}"


def fingerprint(*texts: str) -> str:
    """Hash of prompt texts (16 hex digits), kept in a calibration to refuse other prompts."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode("utf-8"))
        digest.update(b"\0")
    return digest.hexdigest()[:16]
