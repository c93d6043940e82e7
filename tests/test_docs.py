"""The README, the guides and the docstrings say what is so: their code is run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

import speceyes
from engine_server import serving
from speceyes import tiny

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(
    r"(?:<!-- not run: (?P<why>[^>]+?) -->\n+)?```python\n(?P<code>.*?)```", re.DOTALL
)
_LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")


def _modules() -> Iterator[str]:
    """Every module of the package, but the one that runs on import."""
    for found in pkgutil.walk_packages(speceyes.__path__, "speceyes."):
        if not found.name.endswith("__main__"):
            yield found.name


@pytest.mark.parametrize("name", ["speceyes", *_modules()])
def test_examples_in_docstrings_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS, verbose=False)
    said: list[str] = []
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, name):
        runner.run(test, out=said.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(said)


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
        code = compile("\n" * line + block["code"], where, "exec")
        if not block["why"]:
            exec(code, names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_on_the_page_lead_somewhere(page: Path) -> None:
    for link in _LINK.finditer(page.read_text(encoding="utf-8")):
        target = link["target"].split("#")[0]
        if target and "://" not in target and not target.startswith("mailto:"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_readme_has_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "pip install . && speceyes demo" in text
    assert 'pip install -e ".[test]" && pytest -n 2 --cov' in text


def test_changelog_has_an_unreleased_section() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## Unreleased$", text, re.M)
