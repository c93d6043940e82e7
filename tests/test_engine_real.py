"""Against an engine that runs: SPECEYES_ENGINE_URL=http://localhost:8000/v1 pytest -m engine.

The engine serves any vision-language model, and returns 64 log-probabilities a token.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image, ImageDraw

from speceyes.models import OpenAIModel
from speceyes.types import Conversation, Message, Sampling

URL = os.environ.get("SPECEYES_ENGINE_URL")
pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(not URL, reason="SPECEYES_ENGINE_URL names no engine to test against"),
]


@pytest.fixture
def model() -> Iterator[OpenAIModel]:
    made = OpenAIModel(URL or "", top_k=64)
    yield made
    made.close()


def ask(text: str, colour: str = "red") -> Conversation:
    image = Image.new("RGB", (112, 84), "white")
    ImageDraw.Draw(image).ellipse((20, 10, 90, 74), fill=colour)
    return Conversation((Message("user", (image, text)),))


def test_rows_of_log_probabilities_belong_to_the_tokens(model: OpenAIModel) -> None:
    rows = model.generate([ask(f"{i}?") for i in range(8)], Sampling(max_tokens=12, top_k=64))
    for row in rows:
        assert row.error is None
        n = len(row.token_ids)  # none where it ended at once
        assert row.top_logprobs.shape == ((n, 64) if n else (0, 0))
        assert (np.diff(row.top_logprobs, axis=1) <= 0).all()
        assert (np.exp(row.top_logprobs.astype(np.float64)).sum(axis=1) <= 1 + 1e-4).all()
        assert row.prompt_tokens > 0
    assert any(row.token_ids for row in rows)
    again = model.generate([ask("0?")], Sampling(max_tokens=12, top_k=64))
    assert again[0].text == rows[0].text


def test_the_first_tokens_probabilities_see_the_image(model: OpenAIModel) -> None:
    sampling = Sampling(max_tokens=1, first_token=True)
    red, blue = model.generate([ask("Red?"), ask("Red?", "blue")], sampling)
    for row in (red, blue):
        assert row.error is None and 0 < sum(row.first_token.values()) <= 1 + 1e-4
    assert red.first_token != blue.first_token


def test_a_stop_string_stays_in_the_text(model: OpenAIModel) -> None:
    [whole] = model.generate([ask("What is it?")], Sampling(max_tokens=16))
    assert whole.error is None and len(whole.text) > 1
    stop = whole.text[len(whole.text) // 2]
    [cut] = model.generate([ask("What is it?")], Sampling(max_tokens=16, stop=(stop,), top_k=4))
    assert cut.text == whole.text[: whole.text.index(stop) + 1]
    assert cut.finish == "stop"


def test_a_turn_that_has_begun_is_continued(model: OpenAIModel) -> None:
    if model.engine == "openai":
        pytest.skip("this engine isn't known to continue an assistant's turn")
    [whole] = model.generate([ask("What is it?")], Sampling(max_tokens=12))
    begun = whole.text[: len(whole.text) // 2]
    said = Conversation(ask("What is it?").messages, prefill=begun)
    [rest] = model.generate([said], Sampling(max_tokens=12))
    assert rest.error is None and rest.text
