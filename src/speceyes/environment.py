"""Versions of this package and of those that it runs on, and the machine, for reports of faults."""

from __future__ import annotations

import os
import platform
from typing import Any, Final

PACKAGES: Final = ("torch", "transformers", "torchvision", "numpy", "pillow", "qwen-vl-utils")
"""Distributions whose version can change what a model answers."""


def versions(*more: str) -> dict[str, str]:
    """Version by name: speceyes, Python, `PACKAGES`, and further distributions.

    Nothing is imported to tell. A distribution that isn't there is "not installed".

    Example:
        >>> list(versions())[:3]
        ['speceyes', 'python', 'torch']
    """
    from importlib import metadata

    from speceyes import __version__

    found = {"speceyes": __version__, "python": platform.python_version()}
    for name in (*PACKAGES, *more):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def versions_line() -> str:
    """The versions as one line of text."""
    return ", ".join(f"{name} {version}" for name, version in versions().items())


def machine() -> dict[str, Any]:
    """Operating system, processor architecture, and how many processors there are."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
    }
