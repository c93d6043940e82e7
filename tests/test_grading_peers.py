"""The table of hand-graded answers under the published extractors of two other harnesses.

Where one of them disagrees with us, tests/data/grading_peers.tsv says who is right, by hand; a
disagreement that isn't there fails. Neither package is needed by anything else:

    pip install --no-deps lmms-eval math-verify latex2sympy2-extended antlr4-python3-runtime sympy
"""

from __future__ import annotations

import importlib.util
import logging
import random
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from speceyes.evaluation.grading import is_correct, options, quantity
from test_grading import TABLE

SETTLED = Path(__file__).with_name("data") / "grading_peers.tsv"
Row = tuple[str, str, tuple[str, ...]]


def lmms_eval() -> Callable[[str, str, tuple[str, ...]], bool]:
    """The MMMU extractor of lmms-eval, read from its own file: it needs none of the harness."""
    found = importlib.util.find_spec("lmms_eval")
    if found is None or not found.submodule_search_locations:
        pytest.skip("lmms-eval is not installed (pip install --no-deps lmms-eval)")
    path = Path(next(iter(found.submodule_search_locations)))
    path = path / "tasks" / "_task_utils" / "mmmu_mcq_utils.py"
    if not path.is_file():
        pytest.skip(f"this lmms-eval has no {path.name}")
    spec = importlib.util.spec_from_file_location("lmms_eval_mcq", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def right(answer: str, gold: str, choices: tuple[str, ...]) -> bool:
        letters = [chr(65 + i) for i in range(len(choices))]
        said = module.parse_mmmu_multi_choice_response(
            answer, letters, dict(zip(letters, choices, strict=True))
        )
        wanted = options.of_gold(gold, choices)
        return wanted is not None and said == letters[wanted]

    return right


def math_verify() -> Callable[[str, str, tuple[str, ...]], bool]:
    """Math-Verify, which compares numbers and formulas."""
    module = pytest.importorskip(
        "math_verify", reason="math-verify is not installed (pip install math-verify)"
    )

    def right(answer: str, gold: str, choices: tuple[str, ...]) -> bool:
        try:
            wanted = module.parse(f"${gold}$", parsing_timeout=None)
            said = module.parse(answer, parsing_timeout=None)
            return bool(module.verify(wanted, said, timeout_seconds=None))
        except Exception:  # noqa: BLE001 - it has no answer then
            return False

    return right


def settled(peer: str) -> set[Row]:
    rows = set()
    for line in SETTLED.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        name, _, answer, gold, *more = line.split("\t")
        written = more[0] if more else ""
        if name == peer:
            rows.add((answer.replace("\\n", "\n"), gold, tuple(filter(None, written.split("|")))))
    return rows


@pytest.mark.parametrize("make", [lmms_eval, math_verify], ids=lambda make: make.__name__)
def test_every_disagreement_with_a_published_extractor_is_settled(
    make: Callable[[], Callable[[str, str, tuple[str, ...]], bool]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    peer = make()
    # It answers by lot where it finds nothing; nothing is what that is.
    monkeypatch.setattr(random, "choice", lambda some: None)
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore")
    by_choice = make is lmms_eval
    rows = [
        row
        for row in TABLE
        if bool(row[3]) is by_choice and (by_choice or quantity.of_gold(row[2]) is not None)
    ]
    differ = {row[1:] for row in rows if peer(*row[1:]) is not row[0]}
    assert differ - settled(make.__name__) == set()
    assert len(differ) < 0.6 * len(rows), "a peer that agrees on nothing was not run"


def test_what_is_settled_stands_in_the_table_as_it_was_settled() -> None:
    verdicts = {row[1:]: row[0] for row in TABLE}
    for peer in ("lmms_eval", "math_verify"):
        rows = settled(peer)
        assert len(rows) > 100
        assert all(is_correct(*row) is verdicts[row] for row in rows)
