"""What the tests lean on: rules for warnings, processes that end, the list of unsteady tests."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import pytest

from support import processes, unsteady

HERE = Path(__file__).resolve().parent

OTHERS = """
import logging
import warnings
from site_packages_stdlib import call  # stands for torch's machinery around a module

def attributed_to_the_caller():
    warnings.warn("careful", UserWarning, stacklevel=2)

def attributed_to_itself():
    warnings.warn("careful", UserWarning)

def deprecated(category=FutureWarning):
    _inner(category)

def _inner(category):
    warnings.warn("use another name", category)

def logged():
    logging.getLogger("others.thing").warning("`old` is deprecated, use `new`")

def between():
    import others_too
    others_too.uses(deprecated)

def breaks():
    raise ValueError("lost among others")
"""
OTHERS_TOO = """
def uses(it):
    it()
"""
TESTS = """
import gc
import threading
import warnings

import lazily
import others
import pytest

def test_fails_attributed_to_us():
    others.attributed_to_the_caller()

def test_passes_attributed_to_itself():
    others.attributed_to_itself()

def test_fails_raised_by_us():
    warnings.warn("of our own", UserWarning)

@pytest.mark.parametrize("category", [DeprecationWarning, PendingDeprecationWarning, FutureWarning])
def test_fails_deprecation_we_cause(category):
    others.deprecated(category)

def test_passes_deprecation_among_others():
    others.between()

def test_passes_deprecation_of_a_module_that_its_package_imports():
    lazily.first_use()

def test_fails_deprecated_module_that_we_import():
    import lazily.on_request

def test_fails_logged_deprecation():
    others.logged()

def test_fails_in_a_thread():
    thread = threading.Thread(target=lambda: others.deprecated())
    thread.start()
    thread.join()

def test_fails_though_it_was_caught():
    try:
        others.attributed_to_the_caller()
    except Exception:
        pass

def test_passes_expected():
    with pytest.warns(FutureWarning):
        others.deprecated()

def test_fails_exception_in_a_thread():
    def defective():
        raise ValueError("lost")
    thread = threading.Thread(target=defective)
    thread.start()
    thread.join()

def test_passes_exception_in_a_thread_of_others():
    thread = threading.Thread(target=others.breaks)
    thread.start()
    thread.join()

class Leaves:
    def __del__(self):
        warnings.warn("left open", ResourceWarning)

def test_fails_left_open_here():
    Leaves()

def test_passes_though_it_is_left_to_the_collector():
    it = Leaves()
    it.itself = it

def test_passes_while_it_collects_what_another_left():
    gc.collect()

@pytest.fixture
def careless():
    yield
    others.deprecated()

def test_passes_but_errors_at_teardown(careless):
    pass
"""


@pytest.fixture(autouse=True)
def _no_other_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions of pytest within a test load our plugins only: a tenth of the time."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", str(HERE))


def run(pytester: pytest.Pytester, plugin: str, *more: str) -> pytest.RunResult:
    return pytester.runpytest_subprocess("-p", plugin, *more)


def test_warnings_that_we_cause_fail_and_those_of_others_are_listed(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = pytester.path / "lib" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "others.py").write_text(OTHERS.replace("from site_packages_stdlib", "#"))
    (packages / "others_too.py").write_text(OTHERS_TOO)
    lazily = packages / "lazily"
    lazily.mkdir()
    (lazily / "__init__.py").write_text("def first_use():\n    import lazily.inner\n")
    for name in ("inner", "on_request"):
        (lazily / f"{name}.py").write_text(
            "import warnings\nwarnings.warn('old', DeprecationWarning)\n"
        )
    pytester.makepyfile(test_rules=TESTS)
    pytester.makepyfile(test_at_import="import others\nothers.deprecated()\n")
    pytester.makeini("[pytest]\nfilterwarnings = always\n")
    monkeypatch.setenv("PYTHONPATH", str(packages), prepend=os.pathsep)
    done = run(pytester, "support.warning_rules", "--continue-on-collection-errors", "-rA")
    said = done.stdout.str()
    ends = {
        (line.split("::")[1].split()[0], line.split()[0])
        for line in said.splitlines()
        if line.startswith(("PASSED ", "FAILED ")) and "::" in line
    }
    assert len(ends) == 19
    assert all(("passes" in name) == (end == "PASSED") for name, end in ends), ends
    assert "ERROR test_at_import.py" in said
    assert "ERROR test_rules.py::test_passes_but_errors_at_teardown" in said
    # The calls that led there, and the list of what is not our doing.
    assert "in test_fails_deprecation_we_cause" in said and "use another name" in said
    done.stdout.fnmatch_lines(["*warnings summary*", "*test_passes_deprecation_among_others*"])
    done.stdout.fnmatch_lines(["*warnings summary*", "*ResourceWarning: left open*"])


LEAVES = """
import subprocess
import sys

from support.processes import started

CODE = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', " \\
    "'import time; time.sleep(120)']); print('up', flush=True); time.sleep(120)"

def test_ends_what_it_starts_though_it_fails():
    with started(sys.executable, "-c", CODE, stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == "up\\n"
        assert not "as it should be"
"""
FORGETS = """
import os
import subprocess
import sys

def test_forgets():
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(121)"])

def test_orphan():
    code = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', " \\
        "'import time; time.sleep(122)'], start_new_session=True)"
    subprocess.run([sys.executable, "-c", code], check=True)
"""

needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")


@needs_proc
@pytest.mark.parametrize("more", [(), ("-p", "xdist", "-n", "2")], ids=["alone", "xdist"])
def test_what_a_test_leaves_is_named_and_ended(
    pytester: pytest.Pytester, more: tuple[str, ...]
) -> None:
    pytester.makepyfile(test_leaves=LEAVES, test_forgets=FORGETS)
    done = run(pytester, "support.processes", *more)
    assert done.ret == processes.LEFT_OVER
    said = done.stdout.str()
    assert "time.sleep(121)" in said and "test_forgets.py::test_forgets" in said
    assert "time.sleep(122)" in said and "test_forgets.py::test_orphan" in said
    assert "time.sleep(120)" not in said.partition("did not end")[2]
    assert not [one for one in processes.left_over(os.environ[processes.MARK])
                if "time.sleep(12" in one.command]  # fmt: skip


@needs_proc
def test_a_session_that_ends_what_it_starts_is_left_alone(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_leaves=LEAVES)
    done = run(pytester, "support.processes")
    assert done.ret == pytest.ExitCode.TESTS_FAILED
    assert "did not end" not in done.stdout.str()


def test_a_program_that_will_not_end_is_ended() -> None:
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "print('up', flush=True); time.sleep(120)"
    )
    begin = time.monotonic()
    with processes.started(
        sys.executable, "-c", code, grace_s=0.2, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None and child.stdout.readline() == "up\n"
    assert child.returncode == -9 and time.monotonic() - begin < 60


# The list of tests that a busy machine can disturb.


def test_every_unsteady_test_exists_and_says_why_and_since_when() -> None:
    listed = unsteady.listed()
    assert len({one.id for one in listed}) == len(listed)
    for one in listed:
        file, *names = one.id.split("::")
        body = ast.parse((HERE.parent / file).read_text("utf-8")).body
        found = {node.name for node in body if isinstance(node, ast.FunctionDef)}
        assert names and names[-1] in found, f"{one.id} is no test any more: take it off the list"
        assert type(one.since) is date and one.since <= date.today(), one.id
        assert len(one.reason) > 15, f"{one.id}: {one.reason!r} is no reason"
    assert len(listed) <= 8, "the list is to shrink"


def test_what_passes_alone_is_a_defect_unless_it_is_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = tmp_path / "unsteady.toml"
    known.write_text(
        '[[test]]\nid = "t.py::slow"\nsince = 2026-11-28\nreason = "watches the time"\n'
    )
    assert unsteady.listed(known) == [
        unsteady.Unsteady("t.py::slow", date(2026, 11, 28), "watches the time")
    ]
    first, again = tmp_path / "first", tmp_path / "again"
    monkeypatch.setattr(unsteady, "listed", lambda read=unsteady.listed: read(known))
    for failed, still, status in (
        (["t.py::slow[1]"], [], 0),
        (["t.py::slow", "t.py::racy"], [], 1),
        (["t.py::racy"], ["t.py::racy"], 0),  # it fails anyhow
        (["t.py"], [], 1),
    ):
        first.write_text(str({test: "true" for test in failed}).replace("'", '"'))
        again.write_text(str({test: "true" for test in still}).replace("'", '"'))
        assert unsteady.main([str(first), str(again)]) == status
    said = capsys.readouterr().out
    assert "known, since 2026-11-28: t.py::slow[1]: watches the time" in said
    assert said.count("defect: t.py::racy failed and passes alone") == 1
