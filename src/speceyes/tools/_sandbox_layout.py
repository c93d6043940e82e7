"""Files of this machine that a sandbox is shown: an interpreter's library and a few packages."""

from __future__ import annotations

import functools
import importlib.metadata
import itertools
import logging
import os
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
        shared: (name, path) of folders in the working directory that are found at these paths
            too, where a link would be in the way of what is mounted below.
        cwd: The working directory, there.
        inputs: The folder of the inputs, there.
        packages: The folder of the packages, there.
        imports: Where modules are found, there.
        paths: Where modules are found where there is no root of its own.
        readable: What must be read then, instead of mounts.
        listable: Folders whose names must be listed then.
    """

    mounts: tuple[tuple[str, str], ...]
    masks: tuple[str, ...]
    links: tuple[tuple[str, str], ...]
    shared: tuple[tuple[str, str], ...]
    cwd: str
    inputs: str
    packages: str
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
    # An interpreter that was moved since it was built has its library beside it.
    for library in dict.fromkeys([sysconfig.get_config_var("LIBDIR"), f"{sys.base_prefix}/lib"]):
        if library and os.access(library, os.R_OK | os.X_OK):
            runtime += [str(path) for path in sorted(Path(library).glob("libpython*.so*"))]
    runtime += [str(Path(sys._base_executable).resolve())]  # type: ignore[attr-defined]
    dynload = f"{standard}/lib-dynload"
    inside = [str(p) for p in sorted(Path(standard).iterdir()) if str(p) not in masks]
    mounted: list[str] = []
    for path in [*runtime, standard, *_DEVICES]:
        # What lies in a folder that is mounted is there, and nothing can be made in its place.
        there = os.access(path, os.F_OK)  # a path that may not be looked at is none
        if there and not any(_lies_in(path, top, links) for top in mounted):
            mounted.append(path)
    cwd, inputs, imports = (_free(name, mounted) for name in ("/sandbox", "/inputs", "/packages"))
    shared: list[tuple[str, str]] = []
    own: list[tuple[str, str]] = []
    for name in ("tmp", "mnt"):
        taken = any(_lies_in(path, f"/{name}", links) for path in mounted)
        (shared if taken else own).append((f".{name}", f"/{name}"))
    return Layout(
        mounts=(
            *((path, path) for path in mounted),
            *((str(path), f"{imports}/{path.name}") for path in found),
        ),
        masks=masks,
        links=(*links, *((path, f"{cwd}/{name}") for name, path in own)),
        shared=tuple(shared),
        cwd=cwd,
        inputs=inputs,
        packages=imports,
        imports=(standard, dynload, imports),
        paths=(standard, dynload, *dict.fromkeys(str(path.parent) for path in found)),
        readable=(*folders, *runtime, *inside, *_DEVICES, *(str(path) for path in found)),
        listable=(standard, *dict.fromkeys(str(path.parent) for path in found)),
    )


def _lies_in(path: str, folder: str, links: Sequence[tuple[str, str]]) -> bool:
    """True where a path is a folder or below it, by the links that will be there."""
    for link, leads_to in links:
        if path == link or path.startswith(f"{link}/"):
            path = os.path.normpath(f"{Path(link).parent / leads_to}{path.removeprefix(link)}")
    return path == folder or path.startswith(f"{folder}/")


def _free(name: str, mounted: Sequence[str]) -> str:
    """A folder of that name in the root, or with a number, that nothing is mounted in."""
    names = itertools.chain([name], (f"{name}-{n}" for n in itertools.count(2)))
    return next(one for one in names if not any(_lies_in(path, one, ()) for path in mounted))


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
