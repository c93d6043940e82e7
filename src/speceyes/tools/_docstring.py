"""Reading a Google-style docstring: what a function does, and what its parameters are."""

from __future__ import annotations

import re

_SECTION = re.compile(r"(Args|Arguments|Parameters|Returns|Yields|Raises|Examples?|Notes?):\s*$")
_ENTRY = re.compile(r"\*{0,2}(\w+)\s*(?:\([^)]*\))?:\s*(.*)$")


def read_docstring(text: str) -> tuple[str, dict[str, str]]:
    """Text before the first section of a Google-style docstring, and its Args."""
    about: list[str] = []
    entries: dict[str, str] = {}
    section, current, indent = "", "", None
    for line in text.splitlines():
        bare = line.strip()
        depth = len(line) - len(line.lstrip())
        if depth == 0 and (header := _SECTION.match(line)):
            section, current, indent = header[1], "", None
        elif not section:
            about.append(bare)
        elif section in ("Args", "Arguments", "Parameters") and bare:
            indent = depth if indent is None else indent
            if depth <= indent and (entry := _ENTRY.match(bare)):
                current = entry[1]
                entries[current] = entry[2]
            elif current:
                entries[current] = f"{entries[current]} {bare}".strip()
    paragraphs = "\n".join(about).strip().split("\n\n")
    return "\n".join(" ".join(p.split("\n")) for p in paragraphs), entries
