"""Mutation run: small faults put into the rooms that carry the promise, and which tests see them.

    python tests/support/mutants.py scores --sample 40
    python tests/support/mutants.py calibration gate route --sample 0    all of them; takes long

Each mutant changes one place of one file: a comparison, an operator, a whole number, a truth value,
the sense of a condition. A fork of this process loads the file with the fault and runs the room's
tests up to the first failure. Mutants that no test sees are printed; `EQUIVALENT` names those that
change nothing that could be seen, with the reason.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import importlib.machinery
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
        ("tests/test_label_use.py", "tests/test_calibration.py"),
    ),
    "monitor": (
        (
            "calibration/monitor.py",
            "calibration/ordered.py",
            "calibration/arming.py",
            "calibration/watched.py",
            "pipeline/audit.py",
        ),
        ("tests/test_running_gate.py", "tests/test_auditing.py", "tests/test_monitoring.py"),
    ),
    "route": (("pipeline/route.py",), ("tests/test_route.py",)),
    "cascade": (("gates/joint_thresholds.py",), ("tests/test_label_use.py", "tests/test_gates.py")),
    "costs": (("pipeline/costs.py",), ("tests/test_efficiency.py",)),
}
"""Room to its files and the tests that should see a fault in them, the quickest first."""

EQUIVALENT: dict[tuple[str, str], str] = {}
"""(file, line's text) of places whose mutants change nothing that could be seen, and why."""

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


def mutants(file: str) -> Iterator[tuple[int, str, ast.Module]]:
    """(line, kind, tree) of each mutant of a file."""
    tree = ast.parse((SOURCE / file).read_text(encoding="utf-8"))
    for at, node in enumerate(places(tree)):
        changed = copy.deepcopy(tree)
        target = list(places(changed))[at]
        mutate(target)
        yield getattr(node, "lineno", 0), type(node).__name__, ast.fix_missing_locations(changed)


def survives(file: str, tree: ast.Module, tests: tuple[str, ...], seconds: float) -> bool:
    """True where the tests pass on a mutant, in a fork."""
    child = os.fork()
    if child:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status) == 0
            time.sleep(0.02)
        os.kill(child, signal.SIGKILL)  # a mutant that never ends is seen
        os.waitpid(child, 0)
        return False
    code = 3
    try:
        path, plain = str(SOURCE / file), importlib.machinery.SourceFileLoader.get_code

        def get_code(loader: Any, name: str) -> Any:
            own = loader.get_filename(name) == path
            return compile(tree, path, "exec") if own else plain(loader, name)

        importlib.machinery.SourceFileLoader.get_code = get_code  # type: ignore[method-assign]
        with Path(os.devnull).open("w") as null:
            os.dup2(null.fileno(), 1)
            os.dup2(null.fileno(), 2)
            import pytest

            options = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:randomly"]
            code = int(pytest.main([*options, *tests]))
    finally:
        os._exit(code)
    return False


def main() -> int:
    """Runs it; 1 where more than 5 % survive."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("rooms", nargs="+", choices=list(ROOMS))
    parser.add_argument("--sample", type=int, default=40, help="mutants a room; 0 for all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60.0, help="most for one mutant")
    parser.add_argument("--budget", type=float, default=1e9, help="most for all, seconds")
    options = parser.parse_args()
    sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]
    os.chdir(ROOT)
    for name in ("numpy", "hypothesis", "pytest", "PIL.Image"):
        with contextlib.suppress(ImportError):
            __import__(name)
    began, seen, left = time.monotonic(), 0, []
    for room in options.rooms:
        files, tests = ROOMS[room]
        every = [(file, *one) for file in files for one in mutants(file)]
        chosen = random.Random(options.seed).sample(every, min(len(every), options.sample or 10**9))
        for file, line, kind, tree in chosen:
            if time.monotonic() - began > options.budget:
                break
            text = (SOURCE / file).read_text(encoding="utf-8").splitlines()[line - 1].strip()
            if (file, text) in EQUIVALENT:
                continue
            seen += 1
            if survives(file, tree, tests, options.seconds):
                left.append(f"{file}:{line} {kind}: {text}")
                sys.stdout.write(f"survives: {left[-1]}\n")
                sys.stdout.flush()
    sys.stdout.write(f"{len(left)} of {seen} mutants survive\n")
    return int(20 * len(left) > seen)


if __name__ == "__main__":
    sys.exit(main())
