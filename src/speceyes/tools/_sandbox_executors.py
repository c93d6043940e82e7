"""Where programs run, each with its own way of keeping them from everything else."""

from __future__ import annotations

import os
import sys
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speceyes.errors import ConfigError
from speceyes.tools._sandbox_folder import hold, remove_tree
from speceyes.tools._sandbox_layout import PACKAGES, layout
from speceyes.tools._sandbox_run import inside, run
from speceyes.tools._sandbox_values import Outcome, Program

_FLAGS = ("-I", "-S", "-B", "-u")


def _interpreter() -> str:
    """The interpreter itself, not the link to it in a virtual environment."""
    return str(Path(sys._base_executable).resolve())  # type: ignore[attr-defined]


def _python() -> list[str]:
    return [_interpreter(), *_FLAGS, "-c", inside()]


def _confined(packages: tuple[str, ...]) -> dict[str, Any]:
    """A job's setup in a root of its own, Landlock and seccomp inside of it."""
    there = layout(packages)
    roots = {target for _, target in there.mounts}
    return {
        "cwd": there.cwd,
        "inputs_dir": there.inputs,
        "writable": [target for _, target in there.shared],
        "count_threads": True,
        "confine": "all",
        "path": there.imports,
        "readable": [*roots, there.inputs],
        "listable": [there.packages],
        "mounts": None,
    }


@dataclass(frozen=True, slots=True)
class NamespaceExecutor:
    """Namespaces of its own for users, files, processes, network, IPC and names; in them, Landlock
    and seccomp. Linux 5.12 or later; needs no rights where users may make namespaces.

    Args:
        packages: Distributions that programs may import, with what they require.
    """

    packages: tuple[str, ...] = PACKAGES
    name: str = "namespaces"

    def __call__(self, program: Program) -> Outcome:
        """Runs it in a new sandbox.

        Raises:
            ToolError: The kernel doesn't let one be made.
        """
        there = layout(self.packages)
        setup = _confined(self.packages) | {
            "mounts": there.mounts,
            "masks": there.masks,
            "links": there.links,
            "shared": there.shared,
            "host": os.getpid(),
        }
        return run(_python(), program, setup, self.name)


@dataclass(frozen=True, slots=True)
class BubblewrapExecutor:
    """The same by bubblewrap, where it is installed; in it, Landlock and seccomp.

    Args:
        packages: Distributions that programs may import, with what they require.
        command: bubblewrap's name or path.
    """

    packages: tuple[str, ...] = PACKAGES
    command: str = "bwrap"
    name: str = "bubblewrap"

    def __call__(self, program: Program) -> Outcome:
        """Runs it in a new sandbox.

        Raises:
            ToolError: bubblewrap isn't there, or can't make one.
        """
        there = layout(self.packages)
        command = [self.command, "--unshare-all", "--unshare-user", "--die-with-parent"]
        command += ["--uid", "65534", "--gid", "65534", "--hostname", "sandbox", "--clearenv"]
        disk = program.limits.disk_bytes // (1 + len(there.shared))
        for _, target in there.shared:
            command += ["--size", str(disk), "--tmpfs", target]
        for source, target in there.mounts:
            way = "--dev-bind" if target.startswith("/dev/") else "--ro-bind"
            command += [way, source, target]
        for target in there.masks:
            if Path(target).is_dir():
                command += ["--tmpfs", target, "--remount-ro", target]
        for path, leads_to in there.links:
            command += ["--symlink", leads_to, path]
        room = sum(map(len, program.files.values())) + 8192 * (len(program.files) + 2)
        command += ["--size", str(room), "--tmpfs", there.inputs]
        command += ["--size", str(disk), "--tmpfs", there.cwd]
        for name, target in there.shared:
            command += ["--symlink", target, f"{there.cwd}/{name}"]
        command += ["--remount-ro", "/", "--chdir", there.cwd, "--"]
        return run([*command, *_python()], program, _confined(self.packages), self.name)


@dataclass(frozen=True, slots=True)
class LandlockExecutor:
    """Landlock and seccomp alone, for where no namespaces can be made, as in most containers.

    Files that aren't needed can't be read, none can be written outside of a temporary folder,
    and there are no connections, new processes or signals. What it lacks: names and attributes
    of files can be seen, and the disk is limited by file and not as a whole.

    Args:
        packages: Distributions that programs may import, with what they require.
    """

    packages: tuple[str, ...] = PACKAGES
    name: str = "landlock"

    def __call__(self, program: Program) -> Outcome:
        """Runs it in a process of its own.

        Raises:
            ToolError: The kernel has no Landlock (Linux 5.13) or no seccomp.
        """
        there = layout(self.packages)
        setup = {
            "confine": "landlock",
            "path": there.paths,
            "readable": there.readable,
            "listable": there.listable,
        }
        return _in_folder(program, setup, self.name)


@dataclass(frozen=True, slots=True)
class PlainExecutor:
    """A process with limits and nothing else: a program can do all that its user can.

    Args:
        name: Names it in errors.
    """

    name: str = "none"

    def __call__(self, program: Program) -> Outcome:
        """Runs it in a process of its own, in a temporary folder.

        Raises:
            ToolError: It doesn't start.
        """
        standard = sysconfig.get_path("stdlib")
        path = [standard, f"{standard}/lib-dynload", sysconfig.get_path("purelib")]
        path.append(sysconfig.get_path("platlib"))
        setup = {"confine": "", "path": path}
        return _in_folder(program, setup, self.name)


def _in_folder(program: Program, setup: Mapping[str, Any], name: str) -> Outcome:
    """Runs it in a temporary folder of this machine, which is taken away afterwards."""
    folder = tempfile.mkdtemp(prefix="speceyes-")
    held = hold(folder)
    try:
        cwd, inputs = f"{folder}/cwd", f"{folder}/inputs"
        Path(cwd).mkdir(mode=0o700)
        readable = [*setup.get("readable", ()), inputs]
        setup = {
            **setup,
            "cwd": cwd,
            "inputs_dir": inputs,
            "readable": readable,
            "mounts": None,
            "writable": [],
            "count_threads": False,
            "host": os.getpid(),
        }
        if os.geteuid() == 0:
            Path(folder).chmod(0o711)  # the program becomes nobody, and must come to its folder
        return run(_python(), program, setup, name)
    finally:
        remove_tree(folder, held)


@dataclass(frozen=True, slots=True)
class CommandExecutor:
    """Runs programs by a command of yours that starts Python elsewhere: Docker, ssh, a cluster.

    The isolation is the command's; seccomp and Landlock are added inside where `confine` is set.
    Python there needs Pillow, and a place `cwd` that can be written to.

    Args:
        command: The command with its arguments, up to and with the name of the interpreter, such
            as ("docker", "run", "-i", "--rm", "--network=none", ..., "image", "python"). Standard
            input must reach it. It should end by itself when its time is over, for killing it
            here may leave what runs there.
        path: Where modules are found there, as `sys.path`.
        cwd: A folder that can be written to and is empty in each run.
        inputs: A folder that doesn't exist yet; the inputs are put there.
        environment: Names of variables that the command itself is given, where they are set. The
            program never sees them.
        confine: Whether the program gives up its rights inside too (Linux 5.13 or later there).
        name: Names it in errors.

    Raises:
        ConfigError: The command or the path is empty.
    """

    command: Sequence[str]
    path: Sequence[str]
    cwd: str = "/sandbox"
    inputs: str = "/tmp/inputs"
    environment: Sequence[str] = ("PATH", "HOME", "DOCKER_HOST", "SSH_AUTH_SOCK")
    confine: bool = False
    name: str = "command"

    def __post_init__(self) -> None:
        if isinstance(self.command, str) or not self.command or not self.path:
            raise ConfigError(
                "command and path must be tuples of texts that are not empty: the command that "
                "starts Python elsewhere, and sys.path there"
            )
        object.__setattr__(self, "command", tuple(self.command))
        object.__setattr__(self, "path", tuple(self.path))
        object.__setattr__(self, "environment", tuple(self.environment))

    def __call__(self, program: Program) -> Outcome:
        """Runs it by the command.

        Raises:
            ToolError: The command doesn't start, or can't do the job.
        """
        setup: dict[str, Any] = {
            "cwd": self.cwd,
            "inputs_dir": self.inputs,
            "count_threads": False,
            "confine": "landlock" if self.confine else "",
            "path": self.path,
            "readable": [*self.path, "/lib", "/lib64", "/usr/lib", "/dev/null", self.inputs],
            "listable": [],
            "writable": [],
            "mounts": None,
        }
        command: Sequence[str] = [*self.command, *_FLAGS, "-c", inside()]
        given = {key: os.environ[key] for key in self.environment if key in os.environ}
        return run(command, program, setup, self.name, given)
