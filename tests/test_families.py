"""The whole funnel on random-weight models of both Qwen-VL families, loaded from disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from random_models import FAMILIES, Family, save
from speceyes import Query, SpecPipeline
from speceyes.models.hf import HFModel


@pytest.fixture(scope="module", params=FAMILIES)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    family: Family = request.param
    return save(family, tmp_path_factory.mktemp(family))


def _queries(n: int) -> list[Query]:
    rng = np.random.default_rng(4)
    sizes = [(96, 64), (200, 200), (57, 143)]
    return [
        Query(
            f"Is there a yellow triangle above the cup? {i}",
            tuple(
                Image.fromarray(rng.integers(0, 255, (h, w, 3), dtype=np.uint8))
                for w, h in sizes[: 1 + i % 2]
            ),
            id=f"q{i}",
        )
        for i in range(n)
    ]


def test_every_query_comes_back_and_batches_change_nothing(checkpoint: Path) -> None:
    """Random models babble; the funnel still gives each query one result, the same alone."""
    model = HFModel.from_pretrained(checkpoint, device="cpu")
    pipe = SpecPipeline.from_pretrained(
        model, model, threshold=0.9, top_k=16, max_steps=2, max_tokens=12, judge_threshold=0.5
    )
    queries = _queries(6)
    together = pipe(queries)
    assert [r.query_id for r in together] == [q.id for q in queries]
    for query, result in zip(queries, together, strict=True):
        alone = pipe(query)
        assert (alone.answer, alone.route) == (result.answer, result.route)
        assert result.judgement is not None
        assert result.judgement.p_tools is not None or result.judgement.needs_tools


def test_a_loose_gate_lets_drafts_through(checkpoint: Path) -> None:
    """With a judge that never asks for tools and a gate that takes all, drafts are answers."""
    pipe = SpecPipeline.from_pretrained(
        None, checkpoint, judge=None, threshold=0.0, top_k=16, draft_tokens=24, device="cpu"
    )
    for result in pipe(_queries(4)):
        assert result.draft is not None
        if result.route == "draft":
            assert result.answer == result.draft.text.strip()
        else:
            assert result.verdict is not None and result.verdict.reason
