"""The README, the guides and the docstrings say what is so: their code is run."""

from __future__ import annotations

import ast
import doctest
import importlib
import importlib.util
import itertools
import re
import shlex
import textwrap
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

import speceyes
from speceyes import tiny
from speceyes.cli import parser
from speceyes.errors import ConfigError
from support.engine_server import serving

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(
    r"(?:<!-- not run: (?P<why>[^>]+?) -->\n+)?^ {0,3}```python\n(?P<code>.*?)```",
    re.DOTALL | re.MULTILINE,
)
_NOT_RUN = re.compile(r"<!-- not run: (?P<why>[^>]+?) -->\n+(?P<next>[^\n]*)")
_FENCE = re.compile(
    r"^(?P<pad> *)```(?P<kind>\w*)[^\n]*\n(?P<code>.*?)^(?P=pad)```$", re.DOTALL | re.MULTILINE
)
_OTHERS = {
    "base64": "a picture into text",
    "cd": "the shell's own",
    "curl": "needs a server that runs",
    "git": "changes a repository",
    "hf": "downloads",
    "lmms_eval": "another project's, with tests of its own",
    "mkdocs": "run by tests/test_site.py",
    "printf": "the shell's own",
    "twine": "run by tests/test_wheel.py",
    "vllm": "needs a GPU",
    "vllm-router": "needs several GPUs",
}
"""Commands on the pages whose arguments can't be checked here, and why."""
_LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")


def _modules(*, with_examples: bool) -> Iterator[str]:
    """Every module of the package with or without examples, but the one that runs on import."""
    home = Path(speceyes.__path__[0])
    for path in sorted(home.rglob("*.py")):
        if path.name != "__main__.py" and (">>>" in path.read_text("utf-8")) == with_examples:
            inside = path.relative_to(home).with_suffix("").parts
            yield ".".join(("speceyes", *inside)).removesuffix(".__init__")


def _imported(name: str) -> Any:
    """The module; None for an integration whose framework isn't installed."""
    try:
        return importlib.import_module(name)
    except ConfigError as exc:
        if "is not installed" not in str(exc):
            raise
        return None


@pytest.mark.parametrize("name", list(_modules(with_examples=True)))
def test_examples_in_docstrings_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    module = _imported(name)
    if module is None:
        pytest.skip("its framework is not installed")
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS, verbose=False)
    said: list[str] = []
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, name):
        runner.run(test, out=said.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(said)


@pytest.mark.exhaustive  # mypy and those that use them import most of them anyway
def test_modules_without_examples_can_be_imported() -> None:
    for name in _modules(with_examples=False):
        _imported(name)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_on_the_page_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of a page share their names, as a reader who types them in would find it. What
    stands under "not run: why" is read for its syntax only."""
    text = page.read_text(encoding="utf-8")
    if re.search(r"\b(LARGE|SMALL|settings\(\))", text) and not tiny.LARGE.is_dir():
        pytest.skip("the tiny pair's weights are not in this checkout")
    monkeypatch.chdir(tmp_path)
    photo = Image.new("RGB", (400, 300), (120, 140, 160))
    ImageDraw.Draw(photo).ellipse((150, 100, 230, 180), fill="red")
    photo.save("photo.jpg")
    names: dict[str, Any] = {"__name__": "page"}
    with _engine(text) as address:
        _run(page, text.replace("http://localhost:8000/v1", address), names)


@contextmanager
def _engine(text: str) -> Iterator[str]:
    """An engine that serves the bundled pair where the page's code asks one; its address."""
    asked = "http://localhost:8000/v1"
    if not any(asked in block["code"] for block in _BLOCK.finditer(text) if not block["why"]):
        yield asked
        return
    from speceyes.models import HFModel

    pair = {"large": HFModel.from_pretrained(tiny.LARGE)}
    with serving(pair) as (address, _):
        yield address


def _run(page: Path, text: str, names: dict[str, Any]) -> None:
    for block in _BLOCK.finditer(text):
        line = text.count("\n", 0, block.start("code"))
        where = f"{page.name}, block from line {line + 1}"
        code = compile("\n" * line + block["code"], where, "exec", dont_inherit=True)
        if not block["why"]:
            exec(code, names)


def test_what_is_not_run_says_why_and_imports_what_there_is() -> None:
    """Few blocks are left out, each for a reason, and what they import from here is there."""
    blocks = [block for page in PAGES for block in _BLOCK.finditer(page.read_text("utf-8"))]
    left_out = [block for block in blocks if block["why"]]
    assert len(left_out) <= 0.15 * len(blocks), [block["why"] for block in left_out]
    for block in left_out:
        assert re.search(r"\b(needs|starts|downloads|takes?) \w+", block["why"]), block["why"]
        for node in ast.walk(ast.parse(block["code"])):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("speceyes"):
                module = _imported(node.module or "")
                for name in node.names if module is not None else ():
                    assert hasattr(module, name.name), f"{node.module} has no {name.name}"
    for page in PAGES:
        for mark in _NOT_RUN.finditer(page.read_text("utf-8")):
            assert mark["next"] == "```python", f"{page.name}: nothing follows {mark['why']!r}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_on_the_page_are_understood(
    page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each command of a shell block is one that is checked, or named in `_OTHERS`. In blocks
    without a language, which may show output too, only those that can be checked are."""
    text = page.read_text(encoding="utf-8")
    for block in _FENCE.finditer(text):
        if block["kind"] not in ("", "bash", "sh"):
            continue
        for words in _commands(textwrap.dedent(block["code"]), all_of_it=bool(block["kind"])):
            check = _CHECKS.get(words[0])
            if check is None:
                assert words[0] in _OTHERS, f"{page.name}: {words[0]} is no known command"
                continue
            wrong = check(words[1:])
            assert not wrong, f"{page.name}: {shlex.join(words)}: {wrong} {capsys.readouterr()}"
    for name in re.findall(r"`speceyes ([a-z]+)", text):
        assert not _understood([name, "--help"]), f"{page.name}: there is no speceyes {name}"


def _commands(code: str, *, all_of_it: bool) -> Iterator[list[str]]:
    """The simple commands of a script, or of a transcript in which "$" leads them. Unless all of
    it is a script, lines that begin with none that is checked are left out."""
    lines = iter(re.sub(r"\\\n\s*", " ", code).splitlines())
    transcript = re.search(r"^\$ ", code, re.MULTILINE) is not None
    known = re.compile(rf"(\w+=\S* )*({'|'.join(map(re.escape, _CHECKS))})( |$)")
    for line in lines:
        if transcript and not line.startswith("$ "):
            continue
        script = re.sub(r"(^|\s)#( .*)?$", "", line.removeprefix("$ "))
        if not (transcript or all_of_it or known.match(script)):
            continue
        while (words := _words(script)) is None:
            more = next(lines, None)  # a text in quotes goes on
            assert more is not None, f"quotes are not closed: {script}"
            script = f"{script}\n{more}"
        yield from _simple(words)


def _words(script: str) -> list[str] | None:
    """The words and signs of a line; None where it ends inside of quotes."""
    script = re.sub(r"\$\([^()]*\)", "substituted", script)
    lexer = shlex.shlex(script, posix=True, punctuation_chars="&|;<>")
    lexer.whitespace_split, lexer.commenters = True, ""
    try:
        return list(lexer)
    except ValueError:
        return None


def _simple(words: list[str]) -> Iterator[list[str]]:
    for ends, part in itertools.groupby(words, lambda word: set(word) <= set("&|;")):
        if ends:
            continue
        command = list(part)
        while ">" in command or ">>" in command:
            sign = command.index(">") if ">" in command else command.index(">>")
            del command[sign : sign + 2]
        if command and command[0] in ("do", "then"):
            del command[0]
        while command and re.match(r"\w+=", command[0]):
            del command[0]
        if command and command[0] not in ("for", "done"):
            yield command


def _understood(arguments: list[str]) -> str:
    """What is wrong with arguments of the command line; nothing where it takes them."""
    try:
        parser().parse_args(arguments)
    except SystemExit as end:
        return "" if end.code == 0 else "the parser refuses it"
    return ""


def _there(path: str) -> str:
    return "" if (ROOT / path.split("::")[0]).exists() else f"{path} is not there"


def _python(arguments: list[str]) -> str:
    if arguments[0] != "-m":
        return _there(arguments[0])
    try:
        found = importlib.util.find_spec(arguments[1])
    except ModuleNotFoundError:
        found = None
    return "" if found else f"there is no module {arguments[1]}"


def _pip(arguments: list[str]) -> str:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    known = set(extras["optional-dependencies"])
    for asked in re.findall(r"(?:speceyes|\.)\[([\w,-]+)\]", " ".join(arguments)):
        if not known.issuperset(asked.split(",")):
            return f"the extras are {sorted(known)}"
    return ""


def _pytest(arguments: list[str]) -> str:
    paths = [word for word in arguments if word.startswith("tests/")]
    return next((wrong for path in paths if (wrong := _there(path))), "")


_CHECKS = {
    "speceyes": _understood,
    "python": _python,
    "pip": _pip,
    "pytest": _pytest,
    ".ci/run": lambda _: _there(".ci/run"),
    ".ci/record": lambda _: _there(".ci/record"),
}
"""What is wrong with a command's arguments, by its name."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_on_the_page_lead_somewhere(page: Path) -> None:
    for link in _LINK.finditer(page.read_text(encoding="utf-8")):
        target = link["target"].split("#")[0]
        if target and "://" not in target and not target.startswith("mailto:"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_readme_has_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "pip install . && speceyes demo" in text
    assert 'pip install -e ".[test]" && pytest -n 2 --dist worksteal' in text


def test_changelog_has_an_unreleased_section() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## Unreleased$", text, re.M)
