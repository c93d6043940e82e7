"""Mutation run: small faults put into the rooms that carry the promise, and which tests see them.

    python tests/support/mutants.py scores --sample 40 --seed 1
    python tests/support/mutants.py calibration gate route --sample 0    all of them; takes long

Each mutant changes one place of one file: a comparison, an operator, a whole number, a truth
value, the sense of a condition. A room's tests are collected once and run once without a fault.
Then a fork for each mutant takes over its functions and constants, and runs the tests, the
quickest first, up to the first failure. Mutants that no test sees are printed; `EQUIVALENT` names
those that change nothing that could be seen, with the reason. Mutants are drawn by lot from each
file, as many from each; the seed and the numbers by file are printed, and how many ended for their
time alone.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import importlib
import inspect
import json
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "speceyes"

ROOMS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "scores": (
        ("scoring/scores.py", "scoring/scales.py"),
        ("tests/test_scores.py", "tests/test_gate.py"),
    ),
    "gate": (("gate.py",), ("tests/test_gate.py", "tests/test_calibration.py")),
    "calibration": (
        (
            "calibration/risk.py",
            "calibration/fit.py",
            "calibration/images.py",
            "calibration/many.py",
            "calibration/sequence.py",
            "calibration/recompute.py",
        ),
        (
            "tests/test_label_use.py",
            "tests/test_calibration.py",
            "tests/test_files_that_contradict.py",
        ),
    ),
    "monitor": (
        (
            "calibration/monitor.py",
            "calibration/ordered.py",
            "calibration/arming.py",
            "calibration/watched.py",
            "pipeline/audit.py",
        ),
        (
            "tests/test_running_gate.py",
            "tests/test_auditing.py",
            "tests/test_monitoring.py",
            "tests/test_files_that_contradict.py",
        ),
    ),
    "relative": (
        (
            "calibration/matched.py",
            "calibration/relative.py",
            "calibration/shifted.py",
            "calibration/priced.py",
        ),
        ("tests/test_relative.py",),
    ),
    "route": (("pipeline/route.py",), ("tests/test_route.py",)),
    "cascade": (("gates/joint_thresholds.py",), ("tests/test_label_use.py", "tests/test_gates.py")),
    "costs": (("pipeline/costs.py", "pipeline/efficiency.py"), ("tests/test_efficiency.py",)),
}
"""Room to its files and the tests that should see a fault in them, the quickest first."""

SIMULATED = (
    "promise_holds",
    "was_promised",
    "no_false",
    "false_alarms",
    "holds_on_average",
    "hold_at_all_times",
    "every_sample",
    "wanders",
    "drift",
    "ranks_are_uniform",
    "prints_its_tables",
    "torch",
    "about_right",
    "accepted_together",
)
"""Parts of names of tests that simulate, or load much: run last, only for what the others left."""

EQUIVALENT: dict[tuple[str, str, str], str] = {
    (
        "scoring/scales.py",
        "Compare",
        "logit = 2 * math.atanh(2 * score - 1) if score >= 0.25 else math.log(score) "
        "- math.log1p(-score)",
    ): "at 1/4 both forms give the same number",
    (
        "scoring/scales.py",
        "Constant",
        "step = 1e-15 * max(1.0, abs(guess))",
    ): "the first step of a search that ends at the same number from any step",
    (
        "scoring/scales.py",
        "Constant",
        "high, step = high + step, 2 * step",
    ): "steps of a search that ends at the same number whether they double or treble",
    (
        "scoring/scales.py",
        "Constant",
        "low, step = low - step, 2 * step",
    ): "steps of a search that ends at the same number whether they double or treble",
    (
        "scoring/scores.py",
        "Compare",
        "if array.shape[1] > k:",
    ): "where there are k columns, the partition that is left out there keeps them all",
    (
        "calibration/monitor.py",
        "Constant",
        'return json.dumps(sealed(state), allow_nan=False) + "\\n"',
    ): "capital is capped, so that no state holds a number that isn't finite",
    (
        "gate.py",
        "Constant",
        "raw_threshold: float = field(init=False, repr=False, compare=False)",
    ): "it follows from the fields that are compared, and its repr is no promise",
}
"""(file, kind, line's text) of places whose mutants change nothing that could be seen, and why."""

_COMPARE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_BINARY: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}


def places(tree: ast.Module) -> Iterator[ast.AST]:
    """Nodes that can be mutated, in order; annotations and what raises errors are left out."""
    skipped: set[int] = set()
    for node in ast.walk(tree):
        for name in ("annotation", "returns"):
            if (found := getattr(node, name, None)) is not None:
                skipped |= {id(one) for one in ast.walk(found)}
        for decorator in getattr(node, "decorator_list", ()):  # frozen and slots show in no result
            skipped |= {id(one) for one in ast.walk(decorator)}
        if isinstance(node, ast.Raise | ast.JoinedStr | ast.Assert):
            skipped |= {id(one) for one in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in skipped or not hasattr(node, "lineno"):
            continue
        if (
            (isinstance(node, ast.Compare) and type(node.ops[0]) in _COMPARE)
            or (isinstance(node, ast.BinOp) and type(node.op) in _BINARY)
            or isinstance(node, ast.BoolOp | ast.If | ast.IfExp)
            or (isinstance(node, ast.Constant) and type(node.value) in (bool, int))
        ):
            yield node


def mutate(node: Any) -> None:
    """Puts the fault into a node."""
    if isinstance(node, ast.Compare):
        node.ops[0] = _COMPARE[type(node.ops[0])]()
    elif isinstance(node, ast.BinOp):
        node.op = _BINARY[type(node.op)]()
    elif isinstance(node, ast.BoolOp):
        node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
    elif isinstance(node, ast.If | ast.IfExp):
        node.test = ast.copy_location(ast.UnaryOp(ast.Not(), node.test), node.test)
    else:
        node.value = (not node.value) if isinstance(node.value, bool) else node.value + 1


def mutants(file: str, size: int, seed: int) -> tuple[int, list[tuple[int, str, ast.Module]]]:
    """How many mutants a file has, and (line, kind, tree) of as many as are drawn by lot."""
    tree = ast.parse((SOURCE / file).read_text(encoding="utf-8"))
    every = list(places(tree))
    drawn = []
    for at in random.Random(seed).sample(range(len(every)), min(size, len(every))):
        changed = copy.deepcopy(tree)
        mutate(list(places(changed))[at])
        whole = ast.fix_missing_locations(changed)
        drawn.append((getattr(every[at], "lineno", 0), type(every[at]).__name__, whole))
    return len(every), drawn


def module_of(file: str) -> ModuleType:
    """The loaded module of a file below `SOURCE`."""
    return importlib.import_module(f"speceyes.{file.removesuffix('.py').replace('/', '.')}")


def functions(values: Mapping[str, Any], made_in: str) -> Iterator[tuple[str, FunctionType]]:
    """(name, function) of each function of a namespace and of its classes, under any decorator."""
    for name, value in values.items():
        if isinstance(value, type) and value.__module__ == made_in:
            for inner, function in functions(vars(value), made_in):
                yield f"{name}.{inner}", function
        elif isinstance(value, property):
            for part in ("fget", "fset"):
                if isinstance(function := getattr(value, part), FunctionType):
                    yield f"{name}.{part}", function
        else:
            bare = value.__func__ if isinstance(value, classmethod | staticmethod) else value
            bare = inspect.unwrap(bare) if callable(bare) else bare
            if isinstance(bare, FunctionType) and bare.__module__ == made_in:
                yield name, bare


def take_over(module: ModuleType, tree: ast.Module) -> None:
    """Puts a changed file's functions, defaults and constants in the place of the module's own."""
    fresh = {"__name__": module.__name__, "__file__": module.__file__}
    exec(compile(tree, str(module.__file__), "exec"), fresh)
    changed = dict(functions(fresh, module.__name__))
    for name, function in functions(dict(vars(module)), module.__name__):
        if name in changed:
            function.__code__ = changed[name].__code__
            function.__defaults__ = changed[name].__defaults__
            function.__kwdefaults__ = changed[name].__kwdefaults__
    for name, old in list(vars(module).items()):
        new = fresh.get(name, old)
        if name.startswith("__") or callable(old) or isinstance(old, ModuleType):
            continue
        if repr(new) != repr(old):
            for user in [m for m in sys.modules.values() if getattr(m, name, None) is old]:
                setattr(user, name, new)


_LONG = (3600, 3600.0)


class Run:
    """A room's mutants, in pytest's place once its tests are collected."""

    def __init__(self, room: str, options: argparse.Namespace, told: Callable[[str], None]) -> None:
        self.files, self.options, self.told = ROOMS[room][0], options, told
        self.seen, self.late, self.left = 0, 0, list[str]()
        self._last: list[pytest.Item] = []

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Runs all tests once for their time, and then for each mutant."""
        from hypothesis import Phase, settings

        settings.register_profile(
            "mutants",
            deadline=None,
            database=None,
            derandomize=True,
            phases=(Phase.explicit, Phase.generate),
        )
        settings.load_profile("mutants")
        names = [(item, item.name) for item in session.items]
        self._last = [item for item, name in names if any(part in name for part in SIMULATED)]
        session.items = [item for item in session.items if item not in self._last]
        reading, writing = os.pipe()
        began = time.monotonic()
        code, _ = self._forked(session, lambda: None, _LONG, writing)
        os.close(writing)
        with os.fdopen(reading) as lines:
            spent = {name: float(t) for name, t in map(str.split, lines)}
        wall = time.monotonic() - began
        if code != 0:
            failed = [name for name, seconds in spent.items() if seconds < 0]
            self.told(f"the tests fail without a fault (exit {code}): {failed}\n")
            self.left.append("no fault at all")
            return True
        session.items.sort(key=lambda item: spent.get(_short(item.nodeid), 0.0))
        most = (int(10 + 3 * sum(spent.values())), 60 + 6 * wall)
        for file in self.files:
            self._file(session, file, most)
        return True

    def _file(self, session: pytest.Session, file: str, most: tuple[int, float]) -> None:
        every, drawn = mutants(file, self.options.sample or 10**9, self.options.seed)
        tried, before, module = 0, len(self.left), module_of(file)
        lines = (SOURCE / file).read_text(encoding="utf-8").splitlines()
        for line, kind, tree in drawn:
            text = lines[line - 1].strip()
            if (file, kind, text) in EQUIVALENT:
                continue
            if time.monotonic() > self.options.end:
                break
            tried += 1
            code, late = self._forked(session, lambda tree=tree: take_over(module, tree), most)
            if code == 0 and self._last and not self.options.quick:
                quick, session.items = session.items, self._last
                code, late = self._forked(session, lambda tree=tree: take_over(module, tree), _LONG)
                session.items = quick
            self.late += late
            if code == 0:
                self.left.append(f"{file}:{line} {kind}: {text}")
                self.told(f"survives: {self.left[-1]}\n")
        self.seen += tried
        self.told(
            f"{file}: {len(self.left) - before} of {tried} survive, of {every} in all, "
            f"seed {self.options.seed}\n"
        )

    def _forked(
        self,
        session: pytest.Session,
        prepare: Callable[[], None],
        most: tuple[int, float],
        spent: int | None = None,
    ) -> tuple[int, bool]:
        """(exit code, whether it was ended for its time) of the tests in a fork.

        Args:
            session: Of the tests.
            prepare: Puts the fault in.
            most: Seconds of the processor, and of the clock.
            spent: Where each test's seconds are written to.
        """
        child = os.fork()
        if not child:
            _run(session, prepare, most[0], spent)
        end = time.monotonic() + most[1]
        while time.monotonic() < end:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                code = os.waitstatus_to_exitcode(status)
                return code, code == -signal.SIGXCPU
            time.sleep(0.005)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return -signal.SIGKILL, True


def _run(
    session: pytest.Session, prepare: Callable[[], None], seconds: int, spent: int | None
) -> None:
    """Runs the tests in this process up to the first failure, and ends it."""
    code = 3
    try:
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
        with Path(os.devnull).open("w") as null:
            os.dup2(null.fileno(), 1)
            os.dup2(null.fileno(), 2)
        prepare()
        for at, item in enumerate(session.items):
            began, following = time.process_time(), (session.items[at + 1 :] or [None])[0]
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if session.testsfailed:
                if spent is not None:
                    os.write(spent, f"{_short(item.nodeid)} -1\n".encode())
                break
            if spent is not None:
                took = time.process_time() - began
                os.write(spent, f"{_short(item.nodeid)} {took}\n".encode())
        code = 1 if session.testsfailed else 0
    finally:
        os._exit(code)


def _short(nodeid: str) -> str:
    return "".join(nodeid.split())


def room_run(room: str, options: argparse.Namespace) -> tuple[int, int, list[str]]:
    """(mutants, ended for their time, those left) of a room, in a process of its own."""
    reading, writing = os.pipe()
    if child := os.fork():
        os.close(writing)
        with os.fdopen(reading) as file:
            text = file.read()
        os.waitpid(child, 0)
        seen, late, left = json.loads(text)
        return seen, late, left
    code = 3
    try:
        out = os.fdopen(os.dup(1), "w")

        def told(text: str) -> None:
            out.write(text)
            out.flush()

        run = Run(room, options, told)
        quiet = ["-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-p", "no:xdist"]
        with Path(os.devnull).open("w") as null, contextlib.redirect_stdout(null):
            pytest.main([*quiet, "-m", "not slow", *ROOMS[room][1]], plugins=[run])
        os.write(writing, json.dumps([run.seen, run.late, run.left]).encode())
        code = 0
    finally:
        os._exit(code)


def main() -> int:
    """Runs it; 1 where more than 5 % survive."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("rooms", nargs="+", choices=list(ROOMS))
    parser.add_argument("--sample", type=int, default=40, help="mutants a file; 0 for all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="leave tests that simulate out")
    parser.add_argument("--budget", type=float, default=1e9, help="most for all, seconds")
    options = parser.parse_args()
    options.end = time.monotonic() + options.budget
    sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]
    os.chdir(ROOT)
    seen, late, left = 0, 0, list[str]()
    for room in options.rooms:
        of_room = room_run(room, options)
        seen, late, left = seen + of_room[0], late + of_room[1], left + of_room[2]
    sys.stdout.write(f"{len(left)} of {seen} mutants survive, {late} ended for their time\n")
    return int(20 * len(left) > seen)


if __name__ == "__main__":
    sys.exit(main())
