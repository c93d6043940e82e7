"""The sandbox under other interpreters, what is said where a weaker one is taken, and what is left
when a program or its host has ended."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import speceyes
from speceyes.cli import main
from speceyes.errors import ConfigError, ToolError
from speceyes.tools.python import (
    Executor,
    LandlockExecutor,
    Limits,
    NamespaceExecutor,
    PlainExecutor,
    Program,
    PythonTool,
    prove,
)
from support.sandbox_host import executor

SOURCE = str(Path(speceyes.__file__).parents[1])


def _modules() -> str:
    """A search path with this package and what it needs."""
    return os.pathsep.join([SOURCE, sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])


def _holes_under(python: str) -> list[str]:
    """What a trial program can do that it must not, in each isolation, under an interpreter."""
    code = (
        "from speceyes.tools.python import *\n"
        "for make in (NamespaceExecutor, LandlockExecutor):\n"
        "    print(make().name, holes(make()))\n"
        "print(PythonTool(isolation='namespaces')([], {'code': "
        '\'import os, json, zipfile; open("/tmp/a", "w"); print(os.getcwd())\'}).content)'
    )
    done = subprocess.run(
        [python, "-B", "-c", code],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": _modules(), "PATH": os.defpath},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-800:]
    return done.stdout.splitlines()


WELL = ["namespaces []", "landlock []", "('/sandbox',)"]


def test_it_holds_under_the_systems_own_python() -> None:
    """Its library lies in a folder that is mounted as a whole."""
    executor("namespaces"), executor("landlock")
    python = shutil.which("python3", path="/usr/bin")
    if python is None:
        pytest.skip("the system has no Python of its own")
    asked = [python, "-c", "import sys; print(sys.version_info[:2])"]
    found = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    if found != str(sys.version_info[:2]):
        pytest.skip(f"the system's Python {found} can't load this one's packages")
    assert _holes_under(python) == WELL


@pytest.fixture
def moved_python() -> Iterator[str]:
    """A copy of this interpreter under /tmp."""
    folder = Path(tempfile.mkdtemp(prefix="python-", dir="/tmp"))
    folder.chmod(0o755)
    name = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    shutil.copytree(
        Path(sys.base_prefix, "lib", name),
        folder / "lib" / name,
        symlinks=True,
        copy_function=_link,
        ignore=shutil.ignore_patterns("test", "site-packages", "dist-packages", "config-*", "*.a"),
    )
    (folder / "bin").mkdir()
    shutil.copy2(sys._base_executable, folder / "bin" / name)  # type: ignore[attr-defined]
    for library in Path(sys.base_prefix, "lib").glob("libpython*.so*"):
        shutil.copy2(library, folder / "lib")
    yield str(folder / "bin" / name)
    shutil.rmtree(folder)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def test_it_holds_under_a_python_in_the_temporary_folder(moved_python: str) -> None:
    """It lies where the sandbox's own /tmp is to be."""
    executor("namespaces"), executor("landlock")
    asked = [moved_python, "-c", "import sys; print(sys.base_prefix)"]
    found = subprocess.run(asked, capture_output=True, text=True, check=False)
    if found.stdout.strip() != str(Path(moved_python).parents[1]):
        pytest.skip(f"this interpreter can't be moved: {found.stdout}{found.stderr[-200:]}")
    assert _holes_under(moved_python) == WELL


# --- a weaker one is never taken in silence -------------------------------------------------------


@pytest.fixture
def without_namespaces(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    executor("landlock")

    def fail(self: NamespaceExecutor, program: Program) -> None:
        raise ToolError("the kernel said no")

    monkeypatch.setattr(NamespaceExecutor, "__call__", fail)
    monkeypatch.setenv("PATH", "/nowhere")
    prove.cache_clear()
    yield
    prove.cache_clear()


@pytest.mark.usefixtures("without_namespaces")
def test_a_weaker_sandbox_is_warned_of_with_the_reason(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING"):
        assert PythonTool().executor == LandlockExecutor()
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert "'landlock', since namespaces failed here" in record.getMessage()
    assert "the kernel said no" in record.getMessage()


@pytest.mark.usefixtures("without_namespaces")
def test_what_was_asked_for_by_name_never_becomes_another() -> None:
    with pytest.raises(ConfigError, match=r"namespaces: the kernel said no"):
        PythonTool(isolation="namespaces")
    assert PythonTool(isolation="landlock").executor == LandlockExecutor()


@pytest.mark.usefixtures("without_namespaces")
def test_env_says_which_sandbox_there_is_and_why_no_stronger(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["env", "--no-models"]) == 0
    [line] = [one for one in capsys.readouterr().out.splitlines() if one.startswith("sandbox ")]
    assert "landlock (not bubblewrap: " in line and "namespaces: the kernel said no" in line


def test_the_strongest_is_taken_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    strongest = executor("namespaces")
    with caplog.at_level("WARNING"):
        assert PythonTool(isolation="namespaces").executor == strongest
    assert caplog.records == []


# --- nothing is left ------------------------------------------------------------------------------

DEEP = """
import os
for n in range(1100):  # deeper than Python recurs, its path longer than any may be
    os.mkdir('d' * 150); os.chdir('d' * 150)
open('deep', 'w').write('x')
"""
CLOSED = """
import os
os.makedirs('a/b/c'); open('a/b/c/d', 'w').write('x')
os.mkdir('a/b/closed', 0); os.umask(0o777); os.makedirs('shut'); os.symlink('/', 'a/link')
"""
OWN_RIGHTS = (
    "import os\nos.makedirs('a/b'); os.chmod('a/b', 0); os.chmod('a', 0); os.chmod('..', 0)"
)
NAMES = """
import os
for name in ['\\n', ' ', '-rf', '*', '\\udcff', 'x' * 255, '.speceyes', '...']:
    os.mkdir(name); open(name + '/' + name, 'w'); os.mkdir(name + '/more')
    os.mkdir(name + '/\\udcfe')
"""


@pytest.mark.parametrize("make", [LandlockExecutor, PlainExecutor])
@pytest.mark.parametrize(
    "code", [DEEP, CLOSED, OWN_RIGHTS, NAMES], ids=["deep", "closed", "own", "names"]
)
def test_nothing_is_left_of_what_a_program_wrote(
    make: Callable[[], Executor], code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if make is LandlockExecutor:
        executor("landlock")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    seen = PythonTool(executor=make(), limits=Limits(time_s=30))([], {"code": code})
    if code != OWN_RIGHTS or make is PlainExecutor:
        assert seen.error is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's programs become somebody else")
def test_roots_program_is_nobody_without_rights(tmp_path: Path) -> None:
    code = (
        "import os, resource\nprint(os.getresuid(), os.getresgid(), os.getgroups())\n"
        "open('mine', 'w'); print(os.stat('mine').st_uid)"
    )
    seen = PythonTool(executor=executor("landlock"))([], {"code": code})
    nobody = (65534,) * 3
    assert seen.content == (f"{nobody} {nobody} []\n65534",)


@pytest.mark.parametrize("kind", ["namespaces", "landlock", "bubblewrap"])
def test_a_program_ends_when_its_host_is_killed(kind: str) -> None:
    executor(kind)
    code = (
        "from speceyes.tools.python import *\n"
        f"PythonTool(isolation={kind!r}, limits=Limits(time_s=900))"
        "([], {'code': 'import time; time.sleep(900)'})"
    )
    host = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": _modules()}
    )
    started: set[int] = set()
    try:
        # The trial runs first; what sleeps is the one that is confined and stays.
        _until(lambda: any(map(_sleeps, _below(host.pid))))
        started |= _below(host.pid)
    finally:
        host.kill()
        host.wait()
    try:
        _until(lambda: not any(map(_lives, started)))
    finally:
        for process in filter(_lives, started):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


def _until(true: Callable[[], bool]) -> None:
    """Waits; gives up after as long as no machine takes."""
    until = time.monotonic() + 120
    while not true():
        assert time.monotonic() < until, "it does not come"
        time.sleep(0.02)


def _stat(process: int) -> list[str]:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return []


def _below(process: int) -> set[int]:
    """Every process that a process has started, and what these have."""
    parents = {int(p.name): _stat(int(p.name)) for p in Path("/proc").iterdir() if p.name.isdigit()}
    found, new = set[int](), {process}
    while new:
        new = {pid for pid, stat in parents.items() if stat and int(stat[1]) in new}
        found |= new
    return found


def _lives(process: int) -> bool:
    stat = _stat(process)
    return bool(stat) and stat[0] not in "ZX"


def _sleeps(process: int) -> bool:
    """Whether it is confined and waits for a clock."""
    with contextlib.suppress(OSError):
        called = Path(f"/proc/{process}/syscall").read_text().split()[0]
        return called in ("230", "115")  # clock_nanosleep, on x86-64 and AArch64
    return False
