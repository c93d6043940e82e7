"""Revisions of weights, so that a calibration isn't used with others of the same name."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

_ENDS = 1 << 20
"""Bytes that are read at each end of a weights file: all of a small one, and of a large one its
header, with every tensor's name, shape and place, and its last tensors."""
_WEIGHTS = ("*.safetensors", "*.bin", "*.safetensors.index.json")


def revision_of(model: Any, source: str) -> str | None:
    """The commit on the Hub that a checkpoint came from, or a fingerprint of local weights.

    Args:
        model: The Hugging Face model.
        source: Where it was loaded from; "" where that isn't known.

    Returns:
        The commit, "files-" and 16 hex digits of the names, sizes and both ends of the weights
        files and of the configuration, or None for a model that was made in memory.
    """
    commit = getattr(model.config, "_commit_hash", None)
    if commit:
        return str(commit)
    folder = Path(source)
    if not source or not folder.is_dir():
        return None
    files = sorted({path for pattern in _WEIGHTS for path in folder.glob(pattern)})
    if not files:
        return None
    digest = hashlib.sha256()
    for path in (*files, folder / "config.json"):
        if not path.is_file():
            continue
        size = path.stat().st_size
        digest.update(f"{path.name}:{size}:".encode())
        with path.open("rb") as file:
            digest.update(file.read(_ENDS))
            if size > _ENDS:
                file.seek(max(_ENDS, size - _ENDS))
                digest.update(file.read(_ENDS))
    return f"files-{digest.hexdigest()[:16]}"
