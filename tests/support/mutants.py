"""Mutation run: small faults put into the rooms that carry the promise, and which tests see them.

    python tests/support/mutants.py scores --sample 40 --seed 1
    python tests/support/mutants.py calibration gate route --sample 0    all of them; takes long

Each mutant changes one place of one file: a comparison, an operator, a whole number, a truth
value, the sense of a condition; with `--others` a statement is left out, a sign or a negation, or a
float is another. A room's tests are collected once and run once without a fault,
which tells the seconds and the lines of each. Then a fork for each mutant takes over its functions
and constants, and runs the tests that run its lines, the quickest first, up to the first failure,
and the others only where those pass. Mutants that no test sees are printed; `EQUIVALENT` of
`equivalent_mutants.py` names those that change nothing that could be seen, with the reason. Mutants
are drawn by lot from each file, as many from each; the seed and the numbers by file and by room are
printed, with 95 % intervals, and how many ended for their time alone.
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
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType, FunctionType, ModuleType
from typing import Any

import pytest

if __name__ == "__main__":
    HERE = Path(__file__).resolve().parents[1]
    sys.path[:0] = [str(HERE), str(HERE.parent / "src")]

from support.equivalent_mutants import EQUIVALENT

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "speceyes"

ROOMS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "scores": (
        ("scoring/scores.py", "scoring/scales.py"),
        ("tests/test_scores.py", "tests/test_threshold_edges.py", "tests/test_gate.py"),
    ),
    "gate": (
        ("gate.py",),
        ("tests/test_gate.py", "tests/test_threshold_edges.py", "tests/test_calibration.py"),
    ),
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
            "tests/test_threshold_edges.py",
            "tests/test_recomputing.py",
            "tests/test_promise_inputs.py",
            "tests/test_label_by_label.py",
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
            "calibration/evidence.py",
            "calibration/shift.py",
            "pipeline/audit.py",
        ),
        (
            "tests/test_bets.py",
            "tests/test_monitor_limits.py",
            "tests/test_promise_inputs.py",
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
        (
            "tests/test_relative_defined.py",
            "tests/test_shifted_defined.py",
            "tests/test_priced_defined.py",
            "tests/test_promise_inputs.py",
            "tests/test_relative.py",
        ),
    ),
    "images": (
        ("images/similarity.py",),
        ("tests/test_similarity_limits.py", "tests/test_label_use.py"),
    ),
    "route": (("pipeline/route.py",), ("tests/test_route.py",)),
    "cascade": (
        ("gates/joint_thresholds.py",),
        ("tests/test_joint_thresholds.py", "tests/test_label_use.py", "tests/test_gates.py"),
    ),
    "ledger": (
        ("calibration/ledger.py", "calibration/sealed.py", "calibration/groups.py"),
        (
            "tests/test_label_ledgers.py",
            "tests/test_promise_inputs.py",
            "tests/test_label_use.py",
            "tests/test_calibration.py",
            "tests/test_files_that_contradict.py",
        ),
    ),
    "costs": (
        ("pipeline/costs.py", "pipeline/efficiency.py"),
        (
            "tests/test_cost_ledger.py",
            "tests/test_costs_noted.py",
            "tests/test_promises.py",
            "tests/test_efficiency.py",
        ),
    ),
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
    "told_beside_what_was_measured",
    "torch",
    "about_right",
    "accepted_together",
)
"""Parts of names of tests that simulate, or load much: run last, only for what the others left."""

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


def places(tree: ast.Module, others: bool = False) -> Iterator[ast.AST]:
    """Nodes that can be mutated, in order; annotations and what raises errors are left out.

    Args:
        tree: A file.
        others: Calls whose result is dropped, assignments that add, signs, negations and float
            numbers, in place of comparisons, operators, whole numbers and conditions.
    """
    skipped: set[int] = set()
    for node in ast.walk(tree):
        for name in ("annotation", "returns"):
            if (found := getattr(node, name, None)) is not None:
                skipped |= {id(one) for one in ast.walk(found)}
        for decorator in getattr(node, "decorator_list", ()):  # frozen and slots show in no result
            skipped |= {id(one) for one in ast.walk(decorator)}
        if isinstance(node, ast.Raise | ast.JoinedStr | ast.Assert):
            skipped |= {id(one) for one in ast.walk(node)}
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            skipped.add(id(node))
    for node in ast.walk(tree):
        if id(node) in skipped or not hasattr(node, "lineno"):
            continue
        if others:
            if (
                (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call))
                or isinstance(node, ast.AugAssign)
                or (isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub))
                or (isinstance(node, ast.Constant) and type(node.value) is float)
            ):
                yield node
        elif (
            (isinstance(node, ast.Compare) and type(node.ops[0]) in _COMPARE)
            or (isinstance(node, ast.BinOp) and type(node.op) in _BINARY)
            or isinstance(node, ast.BoolOp | ast.If | ast.IfExp)
            or (isinstance(node, ast.Constant) and type(node.value) in (bool, int))
        ):
            yield node


def mutate(node: Any) -> None:
    """Puts the fault into a node: nothing in the place of a statement, no sign, another number."""
    if isinstance(node, ast.Expr):
        node.value = ast.copy_location(ast.Constant(None), node.value)
        return
    if isinstance(node, ast.AugAssign):
        node.value = ast.copy_location(ast.Constant(0), node.value)
        return
    if isinstance(node, ast.UnaryOp):
        node.op = ast.UAdd() if isinstance(node.op, ast.USub) else ast.Not()
        if isinstance(node.op, ast.Not):  # twice
            node.operand = ast.copy_location(ast.UnaryOp(ast.Not(), node.operand), node.operand)
        return
    if isinstance(node, ast.Constant) and isinstance(node.value, float):
        node.value = 1.5 * node.value + 0.25
        return
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


def mutants(
    file: str, size: int, seed: int, others: bool = False
) -> tuple[int, list[tuple[tuple[int, int], str, str, ast.Module]]]:
    """How many mutants a file has, and of as many as are drawn by lot (lines, kind, what stands
    there then, tree).
    """
    tree = ast.parse((SOURCE / file).read_text(encoding="utf-8"))
    every = list(places(tree, others))
    drawn = []
    for at in random.Random(seed).sample(range(len(every)), min(size, len(every))):
        changed = copy.deepcopy(tree)
        mutate(node := list(places(changed, others))[at])
        whole = ast.fix_missing_locations(changed)
        first = getattr(every[at], "lineno", 0)
        test = getattr(every[at], "test", every[at])  # not all the lines under an if
        last = max(first, getattr(test, "end_lineno", first))
        drawn.append(((first, last), type(every[at]).__name__, ast.unparse(node), whole))
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
    """Puts a changed file's functions, defaults and constants in the place of the module's own.

    Raises:
        ImportError: The file can't even be loaded, which every test would see.
    """
    fresh = {"__name__": module.__name__, "__file__": module.__file__}
    try:
        exec(compile(tree, str(module.__file__), "exec"), fresh)
    except Exception as exc:
        raise ImportError(f"{module.__name__} can't be loaded") from exc
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
            for user in list(sys.modules.values()):
                if getattr(user, "__dict__", {}).get(name) is old:
                    vars(user)[name] = new


_NOT_PUT_IN = 4


class Run:
    """A room's mutants, in pytest's place once its tests are collected."""

    def __init__(self, room: str, options: argparse.Namespace, told: Callable[[str], None]) -> None:
        self.files = tuple(file for file in ROOMS[room][0] if options.only in file)
        self.options, self.told = options, told
        self.seen, self.late, self.same, self.left = 0, 0, 0, list[str]()
        self._slow: list[pytest.Item] = []
        self._spent: dict[str, float] = {}
        self._lines: dict[str, set[tuple[str, int]]] = {}

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Runs all tests once for their time and their lines, and then for each mutant."""
        from hypothesis import Phase, settings

        settings.register_profile(
            "mutants",
            deadline=None,
            database=None,
            derandomize=True,
            phases=(Phase.explicit, Phase.generate),
        )
        settings.load_profile("mutants")
        last = [item for item in session.items if any(part in item.name for part in SIMULATED)]
        quick = [item for item in session.items if item not in last]
        self._slow = [] if self.options.quick else last
        watched = {str(SOURCE / file): file for file in self.files}
        reading, writing = os.pipe()
        if not (child := os.fork()):
            os.close(reading)
            _run(session, quick, self._unchanged, 3600, (writing, watched))
        os.close(writing)
        with os.fdopen(reading) as told:
            tests = [json.loads(line) for line in told]
        _, status = os.waitpid(child, 0)
        if code := os.waitstatus_to_exitcode(status):
            failed = [name for name, seconds, _ in tests if seconds < 0]
            self.told(f"the tests fail without a fault (exit {code}): {failed}\n")
            self.left.append("no fault at all")
            return True
        self._spent = {name: seconds for name, seconds, _ in tests}
        self._lines = {name: {(file, at) for file, at in ran} for name, _, ran in tests}
        quick.sort(key=lambda item: self._spent[item.nodeid])
        for file in self.files:
            self._file(session, quick, file)
        return True

    def _unchanged(self) -> None:
        for file in self.files:
            take_over(module_of(file), ast.parse((SOURCE / file).read_text(encoding="utf-8")))

    def _file(self, session: pytest.Session, tests: list[pytest.Item], file: str) -> None:
        every, drawn = mutants(
            file, self.options.sample or 10**9, self.options.seed, self.options.others
        )
        tried, before, module = 0, len(self.left), module_of(file)
        lines = (SOURCE / file).read_text(encoding="utf-8").splitlines()
        for (first, last), kind, changed, tree in drawn:
            text = lines[first - 1].strip()
            if (file, kind, text) in EQUIVALENT or (file, text, changed) in EQUIVALENT:
                self.same += 1
                continue
            if time.monotonic() > self.options.end:
                break
            tried += 1
            places = {(file, at) for at in range(first, last + 1)}
            near = [item for item in tests if not places.isdisjoint(self._lines[item.nodeid])]
            far = [item for item in tests if item not in near]
            for some in (near, far, self._slow):
                ended = self._seen(session, some, lambda tree=tree: take_over(module, tree))
                if ended is not None:
                    self.late += ended
                    break
            else:
                self.left.append(f"{file}:{first} {kind}: {text} -> {changed}")
                self.told(f"survives: {self.left[-1]}\n")
        self.seen += tried
        self.told(
            f"{file}: {share(len(self.left) - before, tried)}, of {every} in all, "
            f"seed {self.options.seed}\n"
        )

    def _seen(
        self, session: pytest.Session, tests: list[pytest.Item], prepare: Callable[[], None]
    ) -> bool | None:
        """Whether it was only their time that ended these tests, and None where all pass."""
        if not tests:
            return None
        slow = tests is self._slow
        most = 3600 if slow else int(5 + 4 * sum(self._spent[item.nodeid] for item in tests))
        child = os.fork()
        if not child:
            _run(session, tests, prepare, most, None)
        end = time.monotonic() + 60 + 12 * most
        while time.monotonic() < end:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                code = os.waitstatus_to_exitcode(status)
                if code == _NOT_PUT_IN:
                    self.told("not put in, and so not seen: ")
                return None if code in (0, _NOT_PUT_IN) else code == -signal.SIGXCPU
            time.sleep(0.002)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return True


def _run(
    session: pytest.Session,
    tests: list[pytest.Item],
    prepare: Callable[[], None],
    seconds: int,
    told: tuple[int, dict[str, str]] | None,
) -> None:
    """Runs tests in this process up to the first failure, and ends it.

    Args:
        session: Of the tests.
        tests: Which.
        prepare: Puts the fault in.
        seconds: Most of the processor's.
        told: Where each test's name, seconds and lines are written to as JSON, and the files by
            path whose lines are wanted.
    """
    code = 3
    try:
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
        with Path(os.devnull).open("w") as null:
            os.dup2(null.fileno(), 1)
            os.dup2(null.fileno(), 2)
        code = _NOT_PUT_IN
        prepare()
        code = 3
        session.items = tests
        for item, following in zip(tests, [*tests[1:], None], strict=True):
            ran: set[tuple[str, int]] = set()
            began = time.process_time()
            with _lines_into(ran, told[1]) if told else contextlib.nullcontext():
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            failed = bool(session.testsfailed)
            if told is not None:
                took = -1.0 if failed else time.process_time() - began
                row = json.dumps([item.nodeid, took, sorted(ran)]) + "\n"
                os.write(told[0], row.encode())
            if failed:
                break
        code = 1 if session.testsfailed else 0
    except ImportError:
        code = 1 if code == _NOT_PUT_IN else code
    finally:
        os._exit(code)


@contextlib.contextmanager
def _lines_into(ran: set[tuple[str, int]], files: Mapping[str, str]) -> Iterator[None]:
    """Notes (file, line) of what runs meanwhile in any thread that begins, of these files only."""

    def of_call(frame: FrameType, event: str, argument: object) -> Any:
        if (file := files.get(frame.f_code.co_filename)) is None:
            return None

        def of_line(frame: FrameType, event: str, argument: object) -> Any:
            ran.add((file, frame.f_lineno))
            return of_line

        return of_line(frame, event, argument)

    sys.settrace(of_call)
    threading.settrace(of_call)
    try:
        yield
    finally:
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]


def share(left: int, tried: int) -> str:
    """How many survive, with the exact (Clopper-Pearson) interval of the share at 95 %."""
    if not tried:
        return "none tried"
    from speceyes.calibration.binomial import binomial_cdf

    def where(found: Callable[[float], bool]) -> float:
        low, high = 0.0, 1.0
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if found(middle) else (low, middle)
        return low

    low = 0.0 if not left else where(lambda p: 1 - binomial_cdf(left - 1, tried, p) < 0.025)
    high = 1.0 if left == tried else where(lambda p: binomial_cdf(left, tried, p) > 0.025)
    return f"{left} of {tried} survive, {left / tried:.1%} ({low:.1%} to {high:.1%})"


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
    parser.add_argument("--only", default="", help="a part of the names of the files to change")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--others", action="store_true", help="faults of other kinds")
    parser.add_argument("--quick", action="store_true", help="leave tests that simulate out")
    parser.add_argument("--budget", type=float, default=1e9, help="most for all, seconds")
    options = parser.parse_args()
    options.end = time.monotonic() + options.budget
    os.chdir(ROOT)
    seen, late, left = 0, 0, list[str]()
    for room in options.rooms:
        of_room = room_run(room, options)
        sys.stdout.write(f"{room}: {share(len(of_room[2]), of_room[0])}\n")
        sys.stdout.flush()
        seen, late, left = seen + of_room[0], late + of_room[1], left + of_room[2]
    sys.stdout.write(f"all: {share(len(left), seen)}; {late} ended for their time\n")
    return int(20 * len(left) > seen)


if __name__ == "__main__":
    sys.exit(main())
