"""Ray Data's workers find what one process finds, on a Ray of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import speceyes
from speceyes import SpecPipeline, tiny
from speceyes.gate import SeparabilityGate
from speceyes.tiny.scenes import questions
from speceyes.types import Result

pytest.importorskip("ray.data", reason='needs pip install "speceyes[ray]"')

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "ray_offline.py"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not tiny.LARGE.is_dir(), reason="the tiny pair's weights are not in this checkout"
    ),
]


def test_workers_find_what_one_process_finds_and_a_bad_picture_is_one_failure(
    tmp_path: Path,
) -> None:
    queries = [item.query for item in questions("heldout", 9)]
    lines = [json.dumps({"path": str(tmp_path / "gone.png"), "question": "Which colour?"})]
    for query in queries:
        query.images[0].save(tmp_path / f"{query.id}.png")
        row = {"path": str(tmp_path / f"{query.id}.png"), "question": query.question}
        lines.append(json.dumps(row))
    (tmp_path / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    # Ray sets signal handlers, threads and processes up, which are not for this one.
    alone = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    alone["PYTHONPATH"] = str(Path(speceyes.__file__).parents[1])  # for its workers too
    command = [sys.executable, str(EXAMPLE), str(tmp_path), str(tmp_path / "rows.jsonl")]
    done = subprocess.run(command, env=alone, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "10 results in" in done.stdout
    found: dict[str, Result] = {}
    for file in (tmp_path / "results").iterdir():
        for line in file.read_text(encoding="utf-8").splitlines():
            result = Result.from_json(json.loads(line)["result"])
            found[Path(result.query_id).stem] = result
    assert set(found) == {"gone", *(query.id for query in queries)}
    assert found["gone"].route == "error" and found["gone"].error
    chosen = {name: tiny.settings()[name] for name in ("threshold", "top_k", "aggregate")}
    pipe = SpecPipeline.from_pretrained(
        tiny.LARGE, tiny.SMALL, tools=["zoom"], gate=SeparabilityGate(**chosen)
    )
    for query, local in zip(queries, pipe(queries), strict=True):
        assert (found[query.id].answer, found[query.id].route) == (local.answer, local.route)
