"""Reads this package's docstrings for the site's reference pages."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

_EXAMPLE = re.compile(r"^(?P<indent>[ \t]*)Example:$", re.MULTILINE)


class Examples(Extension):
    """Has `Example:` read as a section of code; by that name it would be taken for prose."""

    def on_instance(self, *, obj: Object, **_: Any) -> None:
        """Renames the section in an object's docstring."""
        if obj.docstring is not None:
            obj.docstring.value = _EXAMPLE.sub(r"\g<indent>Examples:", obj.docstring.value)
