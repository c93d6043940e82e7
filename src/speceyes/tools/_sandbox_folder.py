"""Removal of a folder that a program has filled, whatever it did to it."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import stat
import time

_log = logging.getLogger(__name__)

_LONGEST_S = 300.0


def hold(folder: str) -> int:
    """A descriptor of a folder, by which it is found whatever becomes of its path."""
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def remove_tree(folder: str, held: int) -> None:
    """Removes a folder with all that is in it. Says so in the log where something is left.

    Folders may be nested past the longest path, thousands deep, or closed to their owner. Those
    within are therefore moved up, next to one another, and opened by name from one descriptor: no
    path is walked, nothing is followed, and nothing recurs.

    Args:
        folder: Its path.
        held: What `hold` gave before the program ran; it is closed.
    """
    failed: OSError | None = None
    until = time.monotonic() + _LONGEST_S
    try:
        with contextlib.suppress(OSError):
            os.chmod(held, 0o700)
        while before := _entries(held):
            for name, is_folder in before.items():
                try:
                    _remove(held, name, is_folder)
                except OSError as exc:
                    failed = exc
            if _entries(held).keys() <= before.keys() or time.monotonic() > until:
                break  # what is left can't be removed, or somebody goes on filling it
        os.rmdir(folder)  # noqa: PTH106
    except OSError as exc:
        failed = failed or exc
    finally:
        os.close(held)
    if os.path.lexists(folder):
        _log.warning("a program's folder could not be removed, %s: %s", folder, failed)


def _entries(folder: int) -> dict[str, bool]:
    """Names in a folder, and whether each is a folder itself."""
    with os.scandir(folder) as found:
        return {entry.name: entry.is_dir(follow_symlinks=False) for entry in found}


def _remove(top: int, name: str, is_folder: bool) -> None:
    """Removes a file, or a folder, whose own folders are moved into `top` first."""
    if not is_folder:
        os.unlink(name, dir_fd=top)
        return
    _open_up(top, name)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    folder = os.open(name, flags, dir_fd=top)
    try:
        for inner, holds_more in _entries(folder).items():
            if holds_more:
                _open_up(folder, inner)  # to be moved is to be changed
                # A name that the program couldn't have taken.
                os.rename(inner, secrets.token_hex(16), src_dir_fd=folder, dst_dir_fd=top)
            else:
                os.unlink(inner, dir_fd=folder)
    finally:
        os.close(folder)
    os.rmdir(name, dir_fd=top)


def _open_up(top: int, name: str) -> None:
    """Gives the owner all rights on a folder that lacks some."""
    mode = os.stat(name, dir_fd=top, follow_symlinks=False).st_mode
    if stat.S_ISDIR(mode) and mode & 0o700 != 0o700:
        os.chmod(name, 0o700, dir_fd=top)
