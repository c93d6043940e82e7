"""Prints how many attempts on the sandbox were tried and how many held, under the interpreter and
the user that run it: `python tests/support/attacks.py`.

Nothing is asserted, so that it tells the same of an earlier version. `held` counts attempts that
got nothing; a program that can't be run at all counts as neither.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    HERE = Path(__file__).resolve().parents[1]
    sys.path[:0] = [str(HERE), str(HERE.parent / "src")]

from speceyes.errors import SpecEyesError
from speceyes.tools.python import (
    BubblewrapExecutor,
    Executor,
    LandlockExecutor,
    Limits,
    NamespaceExecutor,
    Program,
)
from support.sandbox_attempts import ATTEMPTS, CALL
from support.sandbox_attributes import ATTRIBUTES

# These end or stop the program that they run in; the tests run them alone.
_ALONE = {"thread bomb", "fork bomb", "frames of the caller", "os.system"}
_RUNNER = """
import contextlib, io, json
programs = json.loads({programs!r})
got = []
for name, code in programs.items():
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        try: exec(code, {{}})
        except BaseException: pass
    if "BROKEN" in said.getvalue(): got.append(name)
print(json.dumps(got))
"""


@contextmanager
def surroundings() -> Iterator[dict[str, Any]]:
    """A host with a file, a folder and servers, open to all users: what attempts are made on."""
    with (
        tempfile.TemporaryDirectory(prefix="speceyes-attacks-") as top,
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_UNIX) as local,
        socket.socket(socket.AF_UNIX) as abstract,
    ):
        folder, name = Path(top, "open"), f"\0speceyes-{secrets.token_hex(8)}"
        folder.mkdir()
        secret = folder / "secret.txt"
        secret.write_text("secret")
        for path, mode in ((Path(top), 0o777), (folder, 0o777), (secret, 0o666)):
            path.chmod(mode)
        local.bind(f"{top}/unix")
        abstract.bind(name)
        local.listen()
        abstract.listen()
        yield {
            "SECRET": str(secret),
            "FOLDER": str(folder),
            "HOMEDIR": top,
            "PORT": server.getsockname()[1],
            "UNIX": f"{top}/unix",
            "ABSTRACT": name,
            "OUTSIDE": os.getpid(),
            "MODEL": str(secret),
        }


def broken(executor: Executor, attempts: dict[str, str]) -> list[str]:
    """Names of the attempts that got what they wanted. Each batch has surroundings of its own, for
    one that succeeds may take away what the next is tried on.

    Raises:
        ToolError: No program can be run there.
    """
    names, found = list(attempts), list[str]()
    for at in range(0, len(names), 20):
        with surroundings() as given:
            head = "".join(f"{key} = {value!r}\n" for key, value in given.items())
            programs = {name: head + attempts[name] for name in names[at : at + 20]}
            code = _RUNNER.format(programs=json.dumps(programs))
            outcome = executor(Program(code, files={"image_1.png": b"x"}, limits=Limits(time_s=60)))
        try:
            found += json.loads(outcome.stdout.strip().splitlines()[-1])
        except (ValueError, IndexError):
            found.append(f"{outcome.error or outcome.stdout[-200:]} (in {', '.join(programs)})")
    return found


def main() -> None:
    """Prints a line for each isolation and area."""
    user = "root" if os.geteuid() == 0 else f"user {os.geteuid()}"
    print(f"Python {platform.python_version()} at {sys.base_prefix}, {user}")  # noqa: T201
    native = platform.machine() == "x86_64"
    areas = {"getting out": ATTEMPTS, "what Landlock leaves open": ATTRIBUTES}
    for make in (BubblewrapExecutor, NamespaceExecutor, LandlockExecutor):
        executor = make()
        for area, all_attempts in areas.items():
            attempts = {
                name: code
                for name, code in all_attempts.items()
                if name not in _ALONE and (native or not code.startswith(CALL))
            }
            try:
                got = broken(executor, attempts)
            except SpecEyesError as exc:
                print(f"{executor.name:<12}{area:<28}not to be had: {str(exc)[:150]}")  # noqa: T201
                continue
            held = len(attempts) - len(got)
            print(f"{executor.name:<12}{area:<28}{held} of {len(attempts)} held")  # noqa: T201
            if got:
                print(f"{'':<12}got: {', '.join(got)}")  # noqa: T201


if __name__ == "__main__":
    main()
