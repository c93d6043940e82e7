"""Measures how much a reader has to hold in mind, for this checkout or another one.

    python tests/support/measure_house.py [CHECKOUT]

Prints files, lines and floors of the source; public names and arguments; how often attributes are
looked up by `getattr`, and how many of those a Protocol declares, so that `isinstance` could ask
(an object that isn't ours may have the same name); how docstrings open; and the way of one query:
the frames of ours between `pipe(...)` and a model's `generate`, and the files whose functions run
from question to result: all of them, and those that a reader opens who asks how the result came
about. What runs only below `NOTES`, which is told of a result that is settled, has no part in it.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import runpy
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

OPENINGS = {"who", "whom", "whose", "what", "which", "how", "whether"}
LEAVES = (
    *("models", "tools", "dialects", "images", "scoring", "gates", "calibration"),
    *("_pixels", "scales", "scores"),  # as two of these were called before
)
"""Rooms that the way of a query leads into, not through: a reader may take them as given."""
NOTES = "take_note"
"""The function that a scheduler calls with each request that has its result (`on_result`). It can't
change that result; `tests/test_route.py` holds answers and routes to what they are without it."""
GROUND = ("types", "protocols", "values", "errors", "texts", "prompts")


def main(root: Path) -> None:
    """Prints all figures of a checkout."""
    source = root / "src" / "speceyes"
    trees = {path: ast.parse(path.read_text("utf-8")) for path in sorted(source.rglob("*.py"))}
    _say("files", len(trees))
    _say("lines", sum(len(path.read_text("utf-8").splitlines()) for path in trees))
    over = [path for path in trees if len(path.read_text("utf-8").splitlines()) > 300]
    _say("files over 300 lines", len(over), [path.relative_to(source).as_posix() for path in over])
    _say("rooms", len({path.relative_to(source).parts[0] for path in trees}))
    sys.path[:0] = [str(root / "src"), str(root / "tests")]
    floors = runpy.run_path(str(root / "tests" / "test_floors.py"))["FLOORS"]
    # Until the table named rooms only, it gave each its height.
    _say("floors", len(set(floors.values()) if isinstance(floors, dict) else floors))
    looked = [
        (name, f"{path.relative_to(source).as_posix()}: {name}")
        for path, tree in trees.items()
        for name in _getattrs(tree)
    ]
    declared = _declared(trees[source / "protocols.py"])
    _say("getattr", len(looked))
    _say("by a name that varies, such as each field in turn", sum(not name for name, _ in looked))
    ours = [where for name, where in looked if name in declared]
    _say("by a name that a Protocol of ours declares", len(ours), ours)
    opened = Counter(word for tree in trees.values() for word in _openings(tree))
    riddles = {word: n for word, n in opened.items() if word in OPENINGS}
    _say("docstrings", opened.total())
    _say("that open with who, what, which, how, whether", sum(riddles.values()), riddles)

    import speceyes

    assert Path(speceyes.__file__).is_relative_to(root), speceyes.__file__
    _say("public names", len(speceyes.__all__))
    accepted = inspect.signature(speceyes.SpecPipeline.from_pretrained).parameters
    _say("arguments of SpecPipeline.from_pretrained", len(accepted))
    for route in ("draft", "agent"):
        depths, between, files, noting = _way(speceyes, source, route)
        _say(f"{route}: frames of ours from pipe(...) to generate", max(depths.values()), depths)
        _say(f"{route}: files on the way from pipe(...) to generate", len(between), between)
        leaf = tuple(f"{name}{end}" for name in LEAVES for end in ("/", ".py"))
        known = {f"{name}.py" for name in GROUND}
        through = [name for name in files if not name.startswith(leaf) and name not in known]
        _say(f"{route}: files that run from question to result", len(through), through)
        deciding = [name for name in through if name not in noting]
        _say(f"{route}: without those that only take note of the result", len(deciding), deciding)
        _say(f"{route}: with the rooms they lead into", len(files))


def _getattrs(tree: ast.AST) -> Iterator[str]:
    """The attribute of each `getattr`; "" where it isn't written out."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "getattr":
            name = node.args[1]
            yield str(name.value) if isinstance(name, ast.Constant) else ""


def _declared(protocols: ast.Module) -> set[str]:
    """Names that the classes of a file declare, special methods left out."""
    found = set()
    for kind in protocols.body:
        for node in kind.body if isinstance(kind, ast.ClassDef) else ():
            if isinstance(node, ast.FunctionDef):
                found.add(node.name)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found.add(node.target.id)
    return {name for name in found if not name.startswith("__")}


def _openings(tree: ast.AST) -> Iterator[str]:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, kinds) and (text := ast.get_docstring(node)):
            yield (text.split() or [""])[0].strip(".,:;'\"`").lower()


def _way(
    speceyes: Any, source: Path, route: str
) -> tuple[dict[str, int], list[str], list[str], set[str]]:
    """Frames of ours to each model call of a query, their files, all files that ran, and those of
    them that ran only to take note of the result.
    """
    from PIL import Image

    depths: dict[str, int] = {}
    between: dict[str, None] = {}
    ran: dict[str, None] = {}
    deciding: set[str] = set()

    def ours(frame: FrameType) -> bool:
        return frame.f_code.co_filename.startswith(f"{source}/")

    def name_of(frame: FrameType) -> str:
        return Path(frame.f_code.co_filename).relative_to(source).as_posix()

    class Watched:
        """A scripted model that looks at the calls that led to it."""

        def __init__(self, called: str, answer: Any) -> None:
            self.name = called
            scripted = importlib.import_module("speceyes.models.scripted").ScriptedModel
            self._model = scripted(answer, name=called, margin=12.0)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._model, name)

        def generate(self, conversations: Sequence[Any], sampling: Any) -> Any:
            frame: FrameType | None = sys._getframe(1)
            stack = []
            while frame is not None:
                stack += [name_of(frame)] if ours(frame) else []
                frame = frame.f_back
            call = f"{self.name} {len(depths) + 1}"
            if threading.current_thread() is threading.main_thread():
                depths[call] = len(stack) - 1  # less pipe(...) itself
            else:
                depths[f"{call}, in a thread"] = len(stack)
            between.update(dict.fromkeys(reversed(stack)))
            return self._model.generate(conversations, sampling)

    def takes_note(frame: FrameType | None) -> bool:
        while frame is not None and frame.f_code.co_name != NOTES:
            frame = frame.f_back
        return frame is not None

    def profile(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and ours(frame):
            ran.setdefault(name_of(frame))
            if not takes_note(frame):
                deciding.add(name_of(frame))

    judged = "no" if route == "draft" else "yes"
    large = Watched("large", {"Reply with one word": judged, "": "<answer>blue</answer>"})
    pipe = speceyes.SpecPipeline.from_pretrained(
        large, Watched("small", "red"), tools=["zoom"], dialect="deepeyes"
    )
    image = Image.new("RGB", (64, 64), "red")
    pipe(image, "Which colour?")  # imports what is imported late
    depths.clear()
    between.clear()
    sys.setprofile(profile)
    threading.setprofile(profile)
    try:
        result = pipe(image, "Which colour?")
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    assert result.route == route, result
    return depths, list(between), list(ran), ran.keys() - deciding


def _say(what: str, figure: int, more: object = "") -> None:
    print(f"{figure:6}  {what}", *([more] if more else []), sep="  ")  # noqa: T201


if __name__ == "__main__":
    here = Path(__file__).parents[2]
    main(Path(sys.argv[1] if len(sys.argv) > 1 else here).resolve())
