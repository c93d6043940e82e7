"""What the site has and the folder of pages has not: the examples, the changelog, one drawing.

Pages link to files beside `docs/` as a reader of the repository needs it (`../examples/a.py`).
On the site these files are pages of their own, made here from the files themselves.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

_OUTSIDE = re.compile(r"\]\((?P<up>(?:\.\./)+)(?P<target>[A-Za-z][^)\s]*)\)")
_DRAWING = re.compile(r'<img[^>]*src="(?P<src>[^"]*assets/[\w-]+\.svg)"[^>]*>')
_FIRST_PARAGRAPH = re.compile(r"(?P<first>.+?)(?:\n\s*\n|\Z)(?P<rest>.*)", re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    """Adds the page of examples and the changelog."""
    root = Path(config.config_file_path).parent
    files.append(File.generated(config, "examples.md", content=_examples(root / "examples")))
    changes = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "changelog.md", content=changes))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turns links to files beside `docs/` into links to the pages made of them."""
    depth = page.file.src_uri.count("/")

    def there(match: re.Match[str]) -> str:
        ups = match["up"].count("../")
        if ups <= depth:
            return match[0]  # it stays within docs/
        back, target = "../" * (ups - 1), match["target"]
        path = target.partition("#")[0]
        if path == "CHANGELOG.md":
            return f"]({back}changelog.md)"
        if path == "README.md":
            return f"]({back}index.md)"
        if path.startswith("examples"):
            # Files in folders of examples have no section of their own on that page.
            alone = path.endswith(".py") and Path(path).parent.name == "examples"
            name = Path(path).stem if alone else ""
            return f"]({back}examples.md{'#' + name if name else ''})"
        raise ValueError(f"{page.file.src_uri} links to {target}, which the site has no page for")

    return _OUTSIDE.sub(there, markdown)


def on_page_content(html: str, page: Any, config: Any, **_: Any) -> str:
    """Puts drawings into the page itself, so that they take the colours of its scheme."""

    def drawn(match: re.Match[str]) -> str:
        name = match["src"].rpartition("/")[2]
        svg = (Path(config.docs_dir) / "assets" / name).read_text(encoding="utf-8")
        return f'<div class="drawing">{svg[svg.index("<svg") :]}</div>'

    return _DRAWING.sub(drawn, html)


def _examples(folder: Path) -> str:
    parts = [
        "# Examples\n",
        "Each is one file of `examples/` that runs as it stands; tests run them.\n",
    ]
    for path in sorted(folder.glob("*.py")):
        source = path.read_text(encoding="utf-8")
        tree = ast.parse(source)
        said = _FIRST_PARAGRAPH.match(ast.get_docstring(tree) or "")
        assert said is not None, f"{path} has no docstring"
        code = source.split("\n", tree.body[0].end_lineno or 0)[-1].strip("\n")
        parts += [f"## {path.stem}\n", said["first"] + "\n"]
        if said["rest"].strip():
            parts.append(f"```text\n{said['rest'].strip()}\n```\n")
        parts.append(f'```python title="examples/{path.name}"\n{code}\n```\n')
    return "\n".join(parts)
