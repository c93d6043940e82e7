"""Digest of a file's content, so that what was changed after it was written is told from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from speceyes.errors import CalibrationError

DIGEST = "digest"
"""Field that holds the digest of all others."""


def digest_of(data: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of an object's fields but the digest, whatever their order and spacing.

    Example:
        >>> digest_of({"a": 1, "b": 2.5}) == digest_of({"b": 2.5, "a": 1, "digest": "x"})
        True
    """
    kept = {name: value for name, value in data.items() if name != DIGEST}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def sealed(data: Mapping[str, Any]) -> dict[str, Any]:
    """The fields with their digest, as the last one."""
    return {**data, DIGEST: digest_of(data)}


def check_digest(data: Mapping[str, Any], what_to_do: str) -> None:
    """Holds the fields against their digest.

    Args:
        data: All fields as they were read.
        what_to_do: End of the message, such as "calibrate anew".

    Raises:
        CalibrationError: They were changed, or hold no digest.
    """
    if DIGEST not in data:
        raise CalibrationError(
            "it holds no digest: it was written by an earlier version, or the digest was taken "
            f"out; {what_to_do}"
        )
    if data[DIGEST] != digest_of(data):
        raise CalibrationError(
            "it contradicts itself: the digest in it isn't that of its other fields, so something "
            f"was changed after it was written; {what_to_do}"
        )
