"""Getting out of the sandbox is tried, in many ways, and the host is looked over after each."""

from __future__ import annotations

import re

import pytest
from PIL import Image as PILImage

from speceyes.tools.python import Limits, PythonTool
from support.sandbox_attempts import ATTEMPTS, CALL, FLOODS
from support.sandbox_attributes import ATTRIBUTES
from support.sandbox_host import Host, any_executor, executor, host, numbers_are_ours

__all__ = ["host"]  # a fixture is found by its name

IMAGE = PILImage.new("RGB", (64, 48), "teal")
FAST = Limits(time_s=0.9, memory=400 << 20, disk_bytes=1 << 24, file_bytes=1 << 23)
SLIPS = "SyntaxError|NameError|AttributeError|TypeError"
ROOMY = Limits(time_s=20)  # for what fails at once; a busy machine is slow


def test_there_are_as_many_attempts_as_promised() -> None:
    assert len(ATTEMPTS) + len(FLOODS) >= 100


@pytest.mark.parametrize("kind", ["namespaces", "landlock", "bubblewrap"])
def test_programs_that_do_as_they_should_run_there(kind: str, host: Host) -> None:
    tool = PythonTool(executor=executor(kind), limits=ROOMY)
    seen = tool([IMAGE], {"code": host.code("print('fine', image_1.size)")})
    assert seen.content == ("fine (64, 48)",) and seen.error is None
    host.check()


@pytest.mark.exhaustive  # below, all of them run in one program under each isolation
@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_an_attempt_fails_and_harms_nothing(attempt: str, host: Host) -> None:
    program = ATTEMPTS[attempt]
    if program.startswith(CALL) and not numbers_are_ours():
        pytest.skip("the numbers of system calls are those of x86-64")
    tool = PythonTool(executor=any_executor(), limits=ROOMY)
    seen = tool([IMAGE] if "image_1" in program else [], {"code": host.code(program)})
    told = " ".join(part for part in seen.content if isinstance(part, str))
    assert "BROKEN" not in told and host.token not in told, told
    # It was the attempt that failed, by an error of its own: an attack with a slip proves nothing.
    assert seen.error is not None or attempt in ("os.system", "fork bomb"), told
    assert not re.search(f"{SLIPS}|lacks a package", seen.error or ""), seen
    host.check()


@pytest.mark.parametrize("kind", ["namespaces", "landlock", "bubblewrap"])
def test_all_attempts_in_one_program(kind: str, host: Host) -> None:
    """Every isolation there is; and no attempt opens the way for the next."""
    programs = {
        name: host.code(code)
        for name, code in (ATTEMPTS | ATTRIBUTES).items()
        # The last would find the others' words in the program itself.
        if name not in ("thread bomb", "fork bomb", "frames of the caller")
        and (numbers_are_ours() or not code.startswith(CALL))
    }
    code = (
        f"programs = {programs!r}\nfailed = {{}}\n"
        "for name, program in programs.items():\n"
        "    try: exec(program, {})\n"
        "    except BaseException as exc: failed[name] = type(exc).__name__\n"
        "for name in programs: print(name, failed.get(name, 'went well'), sep=': ')"
    )
    seen = PythonTool(executor=executor(kind), limits=ROOMY)([IMAGE], {"code": code})
    text = seen.content[0]
    assert seen.error is None and isinstance(text, str)
    assert "BROKEN" not in text and host.token not in text, text
    lines = dict(line.split(": ") for line in text.splitlines())
    assert lines.keys() == programs.keys()
    assert {name for name, how in lines.items() if how == "went well"} <= {"os.system"}
    assert not re.search(SLIPS, text)
    host.check()


@pytest.mark.parametrize("flood", FLOODS)
def test_what_takes_too_much_is_ended_and_told(flood: str, host: Host) -> None:
    program, told = FLOODS[flood]
    limits = FAST if "took longer" in told else ROOMY
    limits = Limits(limits.time_s, FAST.memory, FAST.disk_bytes, FAST.file_bytes)
    seen = PythonTool(executor=any_executor(), limits=limits)([IMAGE], {"code": program})
    assert seen.error is not None and re.search(told, seen.error), seen
    assert sum(len(part) for part in seen.content if isinstance(part, str)) < 20_000
    host.check()


@pytest.mark.parametrize("flood", ["endless sleep", "memory bomb", "standard output"])
def test_floods_where_there_are_no_namespaces(flood: str, host: Host) -> None:
    program, told = FLOODS[flood]
    limits = FAST if flood == "endless sleep" else Limits(20, FAST.memory)
    seen = PythonTool(executor=executor("landlock"), limits=limits)([IMAGE], {"code": program})
    assert seen.error is not None and re.search(told, seen.error), seen
    host.check()


def test_images_that_are_bombs_stay_outside(host: Host) -> None:
    code = (
        "from PIL import Image\n"
        "Image.new('1', (30_000, 20_000)).save('bomb.png')\n"
        "open('broken.png', 'wb').write(b'\\x89PNG\\r\\n\\x1a\\n' + b'x' * 99)\n"
        "open('page.png', 'w').write('<svg/>')\n"
        "image_1.save('good.png')\n"
        "print('bomb.png broken.png page.png good.png')"
    )
    seen = PythonTool(executor=any_executor(), limits=ROOMY)([IMAGE], {"code": code})
    text = seen.content[0]
    assert isinstance(text, str) and seen.error is None
    assert "bomb.png is not shown" in text and "max_pixels" in text
    assert "broken.png is not shown" in text and "page.png is not shown" in text
    assert [image.size for image in seen.images] == [(64, 48)]
    host.check()


@pytest.mark.parametrize(
    "forged",
    [
        "b'\\xff\\xff\\xff\\xff'",
        "b'\\0\\0\\0\\2{}'",
        "b'\\0\\0\\0\\2[]'",
        "b'\\0\\0\\0\\4nope'",
        "b'\\0\\0\\xc3\\x50' + b'[' * 50_000",
        "b''",
    ],
)
def test_a_forged_result_is_held_to_the_form(forged: str, host: Host) -> None:
    """The boundary is in the worker's memory, where a program can find it."""
    code = (
        "import sys, os\nf = sys._getframe()\n"
        "while 'job' not in f.f_locals: f = f.f_back\n"
        f"os.write(1, f.f_locals['job']['boundary'].encode() + {forged})\nos._exit(0)"
    )
    seen = PythonTool(executor=any_executor(), limits=ROOMY)([IMAGE], {"code": code})
    assert seen.error == "the program spoilt its own result" and seen.images == ()
    host.check()
