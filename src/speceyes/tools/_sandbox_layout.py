"""Files of this machine that a sandbox is shown: an interpreter's library and a few packages."""

from __future__ import annotations

import functools
import importlib.metadata
import logging
import re
import site
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_log = logging.getLogger(__name__)

PACKAGES = ("numpy", "pillow", "opencv-python", "opencv-python-headless", "matplotlib", "scipy")
"""Distributions that programs may import, with what they need, where they are installed."""

CWD, INPUTS, IMPORTS = "/sandbox", "/inputs", "/packages"
_SYSTEM = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/fonts")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
_NAME = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths of this machine, and where they are in a sandbox with a root of its own.

    Args:
        mounts: (here, there) of files and folders that can be read.
        masks: Folders among them that are covered by empty ones.
        links: (path, where it leads) of symbolic links.
        imports: Where modules are found, there.
        paths: Where modules are found where there is no root of its own.
        readable: What must be read then, instead of mounts.
        listable: Folders whose names must be listed then.
    """

    mounts: tuple[tuple[str, str], ...]
    masks: tuple[str, ...]
    links: tuple[tuple[str, str], ...]
    imports: tuple[str, ...]
    paths: tuple[str, ...]
    readable: tuple[str, ...]
    listable: tuple[str, ...]


@functools.lru_cache(maxsize=8)
def layout(packages: tuple[str, ...]) -> Layout:
    """The layout for this interpreter.

    Args:
        packages: Names of distributions; those that aren't installed are left out.
    """
    standard = sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix})
    masks = tuple(f"{standard}/{name}" for name in ("site-packages", "dist-packages"))
    masks += ("/usr/lib/python3/dist-packages",)
    found = _top_levels(packages)
    runtime = [path for name in _SYSTEM if Path(path := name).is_dir()]
    links, folders = [], []
    for path in runtime:
        if Path(path).is_symlink():
            links.append((path, str(Path(path).readlink())))
        else:
            folders.append(path)
    runtime = [*folders, "/etc/ld.so.cache"]
    library = Path(sysconfig.get_config_var("LIBDIR") or "")
    runtime += [str(path) for path in sorted(library.glob("libpython*.so*"))]
    runtime += [str(Path(sys._base_executable).resolve())]  # type: ignore[attr-defined]
    dynload = f"{standard}/lib-dynload"
    inside = [str(p) for p in sorted(Path(standard).iterdir()) if str(p) not in masks]
    return Layout(
        mounts=(
            *((path, path) for path in [*runtime, standard, *_DEVICES] if Path(path).exists()),
            *((str(path), f"{IMPORTS}/{path.name}") for path in found),
        ),
        masks=masks,
        links=(*links, ("/tmp", f"{CWD}/.tmp"), ("/mnt", f"{CWD}/.mnt")),
        imports=(standard, dynload, IMPORTS),
        paths=(standard, dynload, *dict.fromkeys(str(path.parent) for path in found)),
        readable=(*folders, *runtime, *inside, *_DEVICES, *(str(path) for path in found)),
        listable=(standard, *dict.fromkeys(str(path.parent) for path in found)),
    )


def _top_levels(packages: Sequence[str]) -> list[Path]:
    """Files and folders of the distributions and of all that they require."""
    folders = [Path(path) for path in [*sys.path, *site.getsitepackages()] if path]
    waiting, seen, found = list(packages), set[str](), dict[str, Path]()
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in seen:
            continue
        seen.add(name)
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        for line in distribution.requires or ():
            required = _NAME.match(line)
            if required and "extra ==" not in line:
                waiting.append(required[0])
        for file in distribution.files or ():
            top = file.parts[0]
            if top in ("..", "__pycache__") or top.endswith((".dist-info", ".egg-info")):
                continue
            path = Path(str(distribution.locate_file(top)))
            if path.parent in folders:
                found.setdefault(top, path)
    return sorted(found.values())
