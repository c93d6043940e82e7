"""The Python tool: what programs are given, what comes back, state, errors, and other places."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PILImage
from PIL import ImageDraw
from PIL.Image import Image

from speceyes import AgenticFallback, Query
from speceyes.errors import ConfigError, ToolError
from speceyes.models.scripted import ScriptedModel
from speceyes.tools import Tools
from speceyes.tools._sandbox_run import outcome_of
from speceyes.tools.python import (
    CommandExecutor,
    Limits,
    NamespaceExecutor,
    Outcome,
    PlainExecutor,
    Produced,
    Program,
    PythonTool,
    _cut,
    holes,
    prove,
)
from speceyes.types import Observation, ToolCall
from support.models import FakeModel
from support.sandbox_host import any_executor

ROOMY = Limits(time_s=25)


def photo() -> Image:
    image = PILImage.new("RGB", (200, 100), (120, 140, 160))
    ImageDraw.Draw(image).rectangle((150, 20, 169, 39), fill="red")
    return image


def run(code: str, *images: Image, **more: Any) -> Observation:
    return PythonTool(executor=any_executor(), limits=ROOMY)(images, {"code": code, **more})


# --- what goes in and what comes out -------------------------------------------------------


def test_images_are_files_and_variables_pixel_by_pixel() -> None:
    code = (
        "from PIL import Image\nimport os\n"
        "print(image_1.size, image_2.mode, Image.open('image_1.png').getpixel((155, 25)))\n"
        "print(sorted(f for f in os.listdir() if f[0] != '.'))\nimage_1.show()"
    )
    seen = run(code, photo(), PILImage.new("L", (9, 8), 3))
    assert seen.content[0] == "(200, 100) L (255, 0, 0)\n['image_1.png', 'image_2.png']"
    assert seen.error is None and seen.images[0].tobytes() == photo().tobytes()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F", "HSV"])
def test_images_of_any_mode_are_handed_in(mode: str) -> None:
    seen = PythonTool(executor=PlainExecutor())(
        [PILImage.new(mode, (6, 5))], {"code": "print(image_1.size)"}
    )
    assert seen.content == ("(6, 5)",)


@pytest.mark.parametrize("path", ["crop.png", "/tmp/crop.jpg", "/mnt/data/new/crop.png", "a b.png"])
def test_an_image_comes_back_whose_path_is_printed(path: str) -> None:
    code = (
        f"import os\npath = {path!r}\nos.makedirs(os.path.dirname(path) or '.', exist_ok=True)\n"
        "image_1.save('other.png')\nimage_1.crop((150, 20, 170, 40)).save(path)\nprint(path)"
    )
    seen = run(code, photo())
    assert seen.error is None and seen.content[0] == path
    assert [image.size for image in seen.images] == [(20, 20)]
    red, green, _ = seen.images[0].getpixel((10, 10))  # type: ignore[misc]
    assert red > 240 and green < 15


def test_saved_images_come_back_where_nothing_was_named_or_shown() -> None:
    assert len(run("image_1.save('a.png'); image_1.save('b.webp')", photo()).images) == 2
    assert len(run("image_1.save('a.png'); image_1.show()", photo()).images) == 1
    assert run("print('image_1.png')", photo()).images == ()
    assert run("x = 1", photo()).content == ("(the program printed nothing and showed no image)",)


def test_figures_come_back_by_show() -> None:
    pytest.importorskip("matplotlib")
    code = "plt.imshow(image_1); plt.show(); plt.plot([1, 2]); plt.show(); print(plt.get_fignums())"
    seen = run(code, photo())
    assert seen.error is None and len(seen.images) == 2 and "[]" in str(seen.content[0])
    assert len(seen.images[0].getcolors(1 << 20) or ()) > 2  # not an empty page


def test_without_a_package_its_import_fails_as_it_does() -> None:
    tool = PythonTool(executor=NamespaceExecutor(("pillow",)), limits=ROOMY)
    any_executor()
    try:
        seen = tool([photo()], {"code": "print(image_1.size)\nimport numpy"})
    except ToolError as exc:
        pytest.skip(str(exc))
    assert seen.error and "No module named 'numpy'" in seen.error
    assert seen.content == ("(200, 100)",)


def test_numpy_and_opencv_work_there() -> None:
    pytest.importorskip("cv2")
    code = (
        "import cv2, numpy as np\na = cv2.imread('image_1.png')\n"
        "cv2.imwrite('x.png', cv2.resize(a, None, fx=2, fy=2))\n"
        "print(np.linalg.norm(np.eye(4)), a.shape)"
    )
    seen = run(code, photo())
    assert seen.error is None and seen.content[0] == "2.0 (100, 200, 3)"
    assert seen.images[0].size == (400, 200)


# --- errors ---------------------------------------------------------------------------------


def test_an_error_is_told_with_the_programs_own_lines_and_what_was_printed_stays() -> None:
    seen = run("print('so far')\ndef half(x):\n    return x / 0\nhalf(3)", photo())
    assert seen.content == ("so far",) and seen.error is not None
    assert "line 4, in <module>: half(3)" in seen.error
    assert "line 3, in half: return x / 0" in seen.error
    assert seen.error.rstrip().endswith("ZeroDivisionError: division by zero")
    assert "speceyes" not in seen.error


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("print('a", "SyntaxError"),
        ("raise SystemExit('no cup here')", "SystemExit: no cup here"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("class E(Exception):\n    def __str__(self): raise E\nraise E", "E: <exception str"),
        ("input()", "EOFError"),
        ("import sys; sys.stdout = None; 1 / 0", "ZeroDivisionError"),
        ("from __future__ import nothing", "not defined"),
    ],
)
def test_ways_to_fail(code: str, told: str) -> None:
    seen = PythonTool(executor=PlainExecutor())([], {"code": code})
    assert seen.error is not None and told in seen.error


@pytest.mark.parametrize("code", ["raise SystemExit", "import sys; sys.exit(0)", "pass\n\n#"])
def test_ends_that_are_no_failure(code: str) -> None:
    assert PythonTool(executor=PlainExecutor())([], {"code": code}).error is None


def test_what_is_no_program_is_refused() -> None:
    tool = PythonTool(executor=PlainExecutor())
    for arguments in ({}, {"code": ""}, {"code": 3}, {"code": "a\0b"}, {"code": "1", "before": 3}):
        with pytest.raises(ToolError, match=r"program|code"):
            tool([], arguments)


def test_long_output_is_shown_by_its_ends() -> None:
    code = "print('first'); print('x' * 50_000); print('last')"
    text = PythonTool(executor=PlainExecutor(), max_chars=400)([], {"code": code}).content[0]
    assert isinstance(text, str) and len(text) < 450
    assert text.startswith("first") and text.endswith("last") and "characters left out" in text


@given(st.text(max_size=80), st.integers(1, 40))
def test_a_cut_keeps_both_ends(text: str, most: int) -> None:
    cut = _cut(text, most)
    if len(text) <= most:
        assert cut == text
    else:
        assert cut.startswith(text[: most // 2]) and cut.endswith(text[len(text) - most // 2 :])


@given(st.binary(max_size=200), st.binary(max_size=60))
def test_whatever_comes_back_is_an_outcome(before: bytes, tail: bytes) -> None:
    boundary = b"\n--boundary--\n"
    seen = outcome_of(before + boundary + tail, b"", boundary, None, Limits())
    assert isinstance(seen, Outcome) and (seen.error is not None or seen.stdout is not None)
    if before.isascii():
        assert seen.stdout == before.decode()
    assert outcome_of(before, b"", boundary, None, Limits()).ended


def _tail(head: str, blobs: bytes = b"") -> bytes:
    return len(head).to_bytes(4, "big") + head.encode() + blobs


@pytest.mark.parametrize(
    "images",
    [
        '[{"path": "a.png", "new": true, "size": Infinity}]',
        '[{"path": "a.png", "new": true, "size": -Infinity}]',
        '[{"path": "a.png", "new": true, "size": NaN}]',
        '[{"path": "a.png", "new": true, "size": 1e308}]',
        '[{"path": "a.png", "new": true, "size": 1.5}]',
        '[{"path": "a.png", "new": true, "size": "7"}]',
        '[{"path": "a.png", "new": true, "size": true}]',
        '[{"path": "a.png", "new": true, "size": 99999999999999999999}]',
        '[{"path": ["a.png"], "new": true, "size": -1}]',
        '[{"path": null, "new": true, "size": -1}]',
        '[{"path": "' + "/" * 60_000 + '", "new": true, "size": -1}]',
        '[{"new": true, "size": -1}]',
        '{"path": "a.png"}',
        '"image"',
        "[7]",
        "null",
        "[" * 5_000,
    ],
)
def test_a_forged_list_of_images_is_the_programs_error(images: str) -> None:
    head = f'{{"error": null, "images": {images}}}'
    seen = outcome_of(b"said\n--\n" + _tail(head), b"", b"\n--\n", None, Limits())
    assert (seen.stdout, seen.error) == ("said", "the program spoilt its own result")
    assert seen.images == ()


@pytest.mark.parametrize("head", ['{"error": 3, "images": []}', '{"error": ["a"], "images": []}'])
def test_a_forged_error_is_the_programs_error(head: str) -> None:
    seen = outcome_of(b"\n--\n" + _tail(head), b"", b"\n--\n", None, Limits())
    assert seen.error == "the program spoilt its own result"


def test_halves_of_characters_are_replaced_in_what_comes_back() -> None:
    head = r'{"error": "E: \ud800!", "images": [{"path": "\udcff.png", "new": true, "size": -1}]}'
    outcome = outcome_of(b"\xff\n--\n" + _tail(head), b"\xed\xa0\x80", b"\n--\n", None, Limits())
    tool = PythonTool(executor=_Canned(outcome))
    seen = tool([], {"code": "1"})
    assert seen.error == "E: ?!"
    "".join(part for part in seen.content if isinstance(part, str)).encode()


class _Canned:
    """Executor of a program whose outcome is known."""

    name = "canned"

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome

    def __call__(self, program: Program) -> Outcome:
        return self._outcome


@pytest.mark.parametrize(
    ("path", "printed"),
    [
        ("/" * 1_000, "/" * 262_144),
        ("/" * 60_000, "/" * 262_144),
        ("a" * 1_000 + "b", "a" * 262_144),
        ("a" * 500, "b" + "a" * 262_143),
        (" =" * 500, " =" * 131_072),
        ("((((" * 250 + "x", "(" * 262_144),
        ("\t" * 1_000 + "'", "\t" * 262_144),
    ],
)
def test_paths_are_found_in_output_without_a_pattern(path: str, printed: str) -> None:
    """With a regular expression the first took minutes, in which nothing else ran."""
    made = tuple(Produced(path + str(n), False, None) for n in range(8))
    seen = PythonTool(executor=_Canned(Outcome(printed, images=made)))([], {"code": "1"})
    assert len(seen.content) == 1


@pytest.mark.parametrize(
    ("printed", "found"),
    [
        ("crop.png", True),
        ("saved to:crop.png", True),
        ("see ['crop.png']", True),
        ("/mnt/data/crop.png", True),
        ("path=crop.png", True),
        ("`crop.png`", True),
        ("a\ncrop.png\n", True),
        ("acrop.png", False),
        ("crop.pn", False),
        ("_crop.png", False),
    ],
)
def test_a_path_is_named_where_it_stands_by_itself(printed: str, found: bool) -> None:
    made = (Produced("crop.png", False, None),)
    seen = PythonTool(executor=_Canned(Outcome(printed, images=made)))([], {"code": "1"})
    assert ("crop.png is not shown" in str(seen.content[0])) is found


def test_all_that_is_told_is_held_to_max_chars() -> None:
    made = tuple(Produced("x" * 900 + str(n), True, b"no image") for n in range(8))
    outcome = Outcome("o" * 9_000, "e" * 9_000, "E" * 9_000, images=made)
    seen = PythonTool(executor=_Canned(outcome), max_chars=1_000)([], {"code": "1"})
    told = "".join(part for part in seen.content if isinstance(part, str))
    assert (
        len(told) < 1_200
        and "o\n... " in told
        and "Convert it" in told
        and len(seen.error or "") < 1_100
    )


# --- state ----------------------------------------------------------------------------------


def test_state_is_carried_on_by_running_what_was_before_silently() -> None:
    tool = PythonTool(executor=any_executor(), limits=ROOMY)
    earlier: list[tuple[ToolCall, Observation]] = []
    said = []
    for code in (
        "x = 20; print('once'); image_1.save('kept.png')",
        "x += 1; 1 / 0",
        "import os; os._exit(1)",  # killed: left out of what is run again
        "print(x * 2); print('kept.png')",
        "print(x)",
    ):
        seen = tool([photo()], tool.carry({"code": code}, earlier))
        earlier.append((ToolCall("python", {"code": code}), seen))
        said.append(seen)
    assert said[3].error is None and said[3].content[0] == "42\nkept.png"
    assert len(said[3].images) == 1
    assert said[4].content == ("21",)  # and kept.png isn't shown again


def test_two_trajectories_share_nothing() -> None:
    tool = PythonTool(executor=any_executor(), limits=ROOMY)
    image = photo()
    tool([image], {"code": "x = 5; open('left.txt', 'w').write('x')"})
    seen = tool([image], {"code": "import os; print(os.path.exists('left.txt')); print(x)"})
    assert seen.content == ("False",) and "NameError" in (seen.error or "")


def test_state_is_not_carried_where_it_is_not_wanted() -> None:
    arguments = {"code": "print(x)"}
    earlier = [(ToolCall("python", {"code": "x = 1"}), Observation())]
    assert PythonTool(executor=PlainExecutor()).carry(arguments, earlier)["before"] == ["x = 1"]
    plain = PythonTool(executor=PlainExecutor(), keep_state=False)
    assert plain.carry(arguments, earlier) == arguments
    others = [(ToolCall("zoom", {"code": "x"}), Observation()), (ToolCall("python", {}), earlier)]
    assert PythonTool(executor=PlainExecutor()).carry(arguments, others) == arguments  # type: ignore[arg-type]


# --- isolation ------------------------------------------------------------------------------


def test_a_place_that_does_not_hold_is_found_out() -> None:
    found = holes(PlainExecutor())
    assert {"read", "write", "connect", "start", "signal", "execute"} <= set(found)
    with pytest.raises(ConfigError, match="does not hold: a trial program could read, write"):
        prove(PlainExecutor())


def test_none_must_be_asked_for_and_is_said_aloud(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING"):
        assert PythonTool(isolation="none").executor == PlainExecutor()
    assert "without isolation" in caplog.text


def test_where_there_is_no_isolation_it_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "_base_executable", "/bin/false")  # no program runs in any of them
    prove.cache_clear()
    with pytest.raises(ConfigError, match=r"can't be isolated.*bubblewrap.*namespaces.*landlock"):
        PythonTool()
    prove.cache_clear()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"isolation": "docker"}, "there are: auto, bubblewrap"),
        ({"max_pixels": 0}, "max_pixels=0"),
        ({"packages": "numpy"}, "tuple of names"),
    ],
)
def test_tools_that_can_not_work(arguments: Mapping[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        PythonTool(**arguments)


@pytest.mark.parametrize(
    "limits", [{"time_s": 0}, {"memory": -1}, {"images": True}, {"time_s": 1e9}]
)
def test_limits_that_can_not_work(limits: Mapping[str, Any]) -> None:
    with pytest.raises(ConfigError, match="must be"):
        Limits(**limits)


def test_a_normal_user_has_the_same_sandbox(tmp_path: Path) -> None:
    """As root, this becomes another user; the interpreter, which may lie in root's home, is shown
    to it in a mount namespace of the test's own."""
    if os.geteuid() != 0 or not sys.platform.startswith("linux") or not shutil.which("unshare"):
        pytest.skip("needs root, to become someone else")
    any_executor()
    source = str(Path(sys.modules["speceyes"].__file__ or "").parents[1])
    code = textwrap.dedent(f"""
        import os
        os.setgroups([]); os.setgid(12345); os.setuid(12345)
        os.environ["HOME"] = "/nowhere"
        import sys; sys.path.insert(0, {source!r})
        from speceyes.tools.python import *
        for make in (NamespaceExecutor, LandlockExecutor):
            print(make().name, holes(make()))
        print(PythonTool()([], {{"code": "import os; print(os.getuid())"}}).content)
    """)
    # What it runs from may lie in a folder that only root may enter.
    needed = dict.fromkeys([Path(sys.base_prefix), Path(sys.prefix), Path(source)])
    lie_in = {p: [q for q in (p, *p.parents) if not q.stat().st_mode & 0o005] for p in needed}
    hidden = {at: above[-1] for at, above in lie_in.items() if above}
    steps = ["true"]
    for n, at in enumerate(hidden):
        steps.append(f"mkdir {tmp_path}/{n} && mount --bind {at} {tmp_path}/{n}")
    steps += [f"mount -t tmpfs -o mode=755 none {top}" for top in dict.fromkeys(hidden.values())]
    for n, at in enumerate(hidden):
        steps.append(f"mkdir -p {at} && mount --move {tmp_path}/{n} {at}")
    shown = " && ".join([*steps, f"exec {sys.executable} -c '$CODE'"])
    tmp_path.chmod(0o755)
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c",
         shown.replace("'$CODE'", '"$CODE"')],
        env={**os.environ, "CODE": code}, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    if done.returncode and "mount" in done.stderr:
        pytest.skip(f"mounts can't be made here: {done.stderr[-200:]}")
    assert done.returncode == 0, done.stderr[-800:]
    assert done.stdout.splitlines() == ["namespaces []", "landlock []", "('65534',)"]


# --- elsewhere ------------------------------------------------------------------------------


def test_a_command_of_ones_own_runs_programs_elsewhere(tmp_path: Path) -> None:
    """What Docker or ssh would be given is given to `env`, which starts Python here."""
    cwd = tmp_path / "cwd"
    cwd.mkdir()
    path = [p for p in sys.path if p and "speceyes" not in p]
    elsewhere = CommandExecutor(
        ["env", sys.executable], path, cwd=str(cwd), inputs=str(tmp_path / "inputs")
    )
    tool = PythonTool(executor=elsewhere)
    seen = tool([photo()], {"code": "image_1.crop((0, 0, 30, 20)).show(); print(1 + 1)"})
    assert seen.content[0] == "2" and seen.images[0].size == (30, 20)
    assert not tool.bounded
    with pytest.raises(ConfigError, match="command and path"):
        CommandExecutor((), ())
    broken = PythonTool(executor=CommandExecutor(["/no/such/thing"], path))
    with pytest.raises(ToolError, match="can't be started"):
        broken([], {"code": "1"})


def test_an_executor_is_any_callable_with_a_name() -> None:
    class Canned:
        name = "canned"

        def __call__(self, program: Program) -> Outcome:
            assert program.files.keys() == {"image_1.png"}
            return Outcome("said", images=(Produced("", True, None),))

    seen = PythonTool(executor=Canned())([photo()], {"code": "1"})
    assert seen.images == () and str(seen.content[0]).startswith("said\nan image is not shown")


# --- end to end -----------------------------------------------------------------------------


def agent(script: list[str], dialect: str) -> AgenticFallback:
    tool = PythonTool(executor=any_executor(), limits=ROOMY)
    return AgenticFallback(ScriptedModel(script), tools=Tools([tool]), dialect=dialect)


def test_thyme_crops_by_code() -> None:
    code = (
        "from PIL import Image\nimage = Image.open('image_1.png')\n"
        "image.crop((150, 20, 170, 40)).save('crop.png')\nprint('crop.png')"
    )
    turns = [
        f"<think>Closer. <code>\n```python\n{code}\n```\n</code>",
        "It is red.</think><answer>red</answer>",
    ]

    def say(conversation: Any, _: Any) -> str:
        return turns[1] if "<sandbox_output>" in str(conversation.begun) else turns[0]

    tool = PythonTool(executor=any_executor(), limits=ROOMY)
    thyme = AgenticFallback(ScriptedModel(say), tools=[tool], dialect="thyme")
    way = thyme([Query("Which colour is the square?", (photo(),))])[0]
    assert way.answer == "red" and way.depth == 1
    seen = way.steps[0].observations[0]
    assert seen.error is None and seen.content[0] == "crop.png"
    assert seen.images[0].size == (20, 20) and seen.images[0].getpixel((9, 9)) == (255, 0, 0)


def test_deepeyesv2_crops_by_code_and_looks_at_the_crop() -> None:
    first = "crop = image_1.crop((150, 20, 170, 40))\ncrop.show()\nprint(crop.size)"
    second = "print(crop.size, crop.getpixel((3, 3)))"
    turns = [f"<think>Look.</think><code>```python\n{code}\n```</code>" for code in (first, second)]
    deepeyes = agent([*turns, "<answer>red</answer>"], "deepeyesv2")
    way = deepeyes([Query("Which colour is the square?", (photo(),))])[0]
    assert way.answer == "red" and way.depth == 2
    one, two = (step.observations[0] for step in way.steps[:2])
    assert one.content[0] == "(20, 20)" and one.images[0].getpixel((9, 9)) == (255, 0, 0)
    assert two.content == ("(20, 20) (255, 0, 0)",)


def test_a_program_that_fails_goes_back_to_the_agent_and_hurts_no_other() -> None:
    def say(conversation: Any, _: Any) -> str:
        said = "".join(message.text for message in conversation.messages)
        if "ZeroDivisionError" in said or "took longer" in said:
            return "<answer>told</answer>"
        if "(200, 100)" in said:
            return "<answer>fine</answer>"
        code = "1 / 0" if "bad" in said else "while True: pass" if "endless" in said else ""
        return f"<code>{code or 'print(image_1.size)'}</code>"

    tool = PythonTool(executor=any_executor(), limits=Limits(time_s=2))
    deepeyes = AgenticFallback(ScriptedModel(say), tools=[tool], dialect="deepeyesv2")
    ways = deepeyes([Query(word, (photo(),)) for word in ("good", "bad", "endless", "good")])
    assert [way.answer for way in ways] == ["fine", "told", "told", "fine"]


def test_the_tool_goes_by_its_name() -> None:
    any_executor()
    assert [one.name for one in Tools("python")] == ["python"]


def test_state_lasts_within_a_trajectory_and_never_reaches_another() -> None:
    """Two trajectories on one image, in one batch: each goes on from its own variables."""

    def code(text: str) -> str:
        return f"<code>\n```python\n{text}\n```\n</code>"

    def turns(start: int) -> list[str]:
        first = code(f"total = {start}\nprint('set')")
        return [first, code("total += 2; print('total', total)"), "<answer>done</answer>"]

    model = ScriptedModel({"from forty": turns(40), "from seven": turns(7)})
    agent = AgenticFallback(model, tools=[PythonTool()], dialect="deepeyesv2", max_batch=2)
    image = PILImage.new("RGB", (64, 48), "red")
    ways = agent([Query("count from forty", (image,)), Query("count from seven", (image,))])
    said = [str(way.steps[1].observations[0].content[0]) for way in ways]
    assert [way.answer for way in ways] == ["done", "done"]
    assert "total 42" in said[0] and "total 9" in said[1]
    assert "set" not in said[0], "what ran before runs silently"


# --- programs in the style of the agents that act by Python ---------------------------------------


def as_code(text: str) -> str:
    return f"<code>\n```python\n{text}\n```\n</code>"


@pytest.mark.parametrize("which", ["none", "auto"])
def test_a_program_as_thyme_writes_it_comes_back_as_its_image_alone(which: str) -> None:
    """It reads a path that isn't there, saves into a folder of its training, and prints where."""
    if which == "auto":
        any_executor()
    first = as_code(
        'image_path = "/eval/17127.jpg"\n'
        "image = Image.open(image_path)\n"
        "cropped = image.crop((150, 60, 260, 140))\n"
        'processed_path = os.path.join("/mnt/data/temp_processed_images/", "17127_ab.png")\n'
        "cropped.resize((cropped.width * 2, cropped.height * 2)).save(processed_path)\n"
        "print(processed_path)"
    )
    second = as_code("print(int(np.array(Image.open(image_path))[:, :, 0].max()) + 1)")
    third = as_code("print(zoom_factor)")
    turns = iter([f"<think>Closer.\n{first}", second, third, "</think>\n<answer>told</answer>"])
    model = FakeModel(lambda conversation, sampling: next(turns))
    tool = PythonTool(isolation=which, limits=Limits(time_s=60))
    agent = AgenticFallback(model, tools=[tool], dialect="thyme")
    [way] = agent([Query("What is it?", (photo(),))])
    assert (way.answer, way.depth, way.error) == ("told", 3, None)
    crop, number, failed = (step.observations[0] for step in way.steps[:3])
    # Clamped to the image, as upstream clamps it, and enlarged.
    assert crop.error is None and crop.images[0].size == (100, 80)
    begun = model.asked[1].begun
    assert [part for part in begun if not isinstance(part, str)] == list(crop.images)
    assert (
        begun[-1] == "</sandbox_output>" and "processed_images" not in begun[0].split("</code>")[-1]
    )
    assert number.error is None and int(str(number.content[0])) > 0
    assert f"<sandbox_output>{number.content[0]}</sandbox_output>" in model.asked[2].begun[-1]
    assert "zoom_factor" in (failed.error or "")


def test_deepeyesv2_code_works_on_the_questions_images_as_the_model_sees_them() -> None:
    any_executor()

    class Small(FakeModel):
        def seen_size(self, image: PILImage.Image) -> tuple[int, int]:
            return (112, 56) if image.size == (200, 100) else image.size

    turns = [
        as_code(
            "left = image_1.crop((0, 0, 56, 56))\nplt.imshow(left)\nplt.axis('off')\nplt.show()"
        ),
        as_code("print(image_1.size, left.size, 'image_2' in globals())"),
        "<answer>seen</answer>",
    ]
    model = Small(turns)
    tool = PythonTool(limits=Limits(time_s=60))
    agent = AgenticFallback(model, tools=[tool], dialect="deepeyesv2")
    [way] = agent([Query("What is it?", (photo(),))])
    shown, said = (step.observations[0] for step in way.steps[:2])
    assert (way.answer, shown.error, said.error) == ("seen", None, None)
    assert len(shown.images) == 1
    assert str(said.content[0]).strip() == "(112, 56) (56, 56) False"
    told = model.asked[2].messages[-1].text
    assert told == (
        "Code execution result:\nstdout:\n```\n(112, 56) (56, 56) False\n```\n\nstderr:\n```\n\n```"
    )
