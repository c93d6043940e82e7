"""Asks a server of the bundled pair as its clients do, and prints what came back.

    cd tests && python -m support.server_transcripts

`speceyes eval` records a run, whose rows pandas reads; `speceyes calibrate` makes a threshold of
it; `speceyes serve` answers OpenAI's client over Responses and decisions behind that threshold;
then the server of examples/compose answers, with two engines of the tests' own where the
containers of vLLM would be.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import openai
import yaml

from speceyes import HFModel, tiny
from speceyes.evaluation import runs
from speceyes.tiny.scenes import Item, questions
from support.engine_server import serving as engine
from support.processes import started, until
from support.served import data_url

COMPOSE = Path(__file__).resolve().parents[2] / "examples" / "compose" / "compose.yaml"
_ENV = {**os.environ, "OMP_NUM_THREADS": "1"}


def say(line: str) -> None:
    """Writes a line of the transcript."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def ran(*words: str, shown: int = 0) -> None:
    """Runs a command of ours, and shows it with the last lines that it printed."""
    say(f"$ speceyes {shlex.join(words)}")
    done = subprocess.run(
        [sys.executable, "-m", "speceyes", *words],
        env=_ENV,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for line in done.stdout.strip().splitlines()[-shown:] if shown else ():
        say(line)


@contextmanager
def served(*words: str) -> Iterator[httpx.Client]:
    """A server that these arguments start, ready, on a port that was free."""
    command = [sys.executable, "-m", "speceyes", *words, "--port", "0"]
    with started(*command, stderr=subprocess.PIPE, env=_ENV) as child:
        assert child.stderr is not None
        for line in child.stderr:
            if found := re.search(r"on (http\S+)/v1", line):
                break
        else:
            raise RuntimeError("the server ended before it listened")
        with httpx.Client(base_url=found[1], trust_env=False, timeout=300) as http:
            until(lambda: http.get("/readyz").status_code == 200, seconds=120)
            yield http


def _parts(one: Item) -> list[Any]:
    return [
        {"type": "input_image", "image_url": data_url(one.query.images[0])},
        {"type": "input_text", "text": one.query.question},
    ]


def _client(http: httpx.Client) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{http.base_url}/v1".replace("//v1", "/v1"), api_key="none")


def responses(client: openai.OpenAI, one: Item) -> None:
    """One question over /v1/responses, at once and as a stream."""
    asked: list[Any] = [{"role": "user", "content": _parts(one)}]
    said: Any = client.responses.create(model="speceyes", input=asked)
    told = said.speceyes
    score = told["score"] and round(told["score"], 4)
    say(f"{one.query.question} (right: {one.answer})")
    say(f"  {said.output_text} (route: {told['route']}, score: {score}, depth: {told['depth']})")
    events = client.responses.create(model="speceyes", input=asked, stream=True)
    say("  streamed: " + ", ".join(event.type.removeprefix("response.") for event in events))


def decisions(client: openai.OpenAI, one: Item) -> None:
    """A yes/no question and a choice over /v1/decisions."""
    parts = _parts(one)[:1]
    asked: list[Any] = [
        {"type": "predicate", "name": "red", "instructions": "Is there a large red ring?"},
        {
            "type": "choice",
            "name": "shape",
            "instructions": one.query.question,
            "choices": [{"value": value} for value in one.query.choices or ("above", "below")],
        },
    ]
    there: Any = client
    said = there.decisions.create(
        model="speceyes", input=[{"role": "user", "content": parts}], questions=asked
    )
    for wanted, answer in zip(asked, said.answers, strict=True):
        told = answer.model_dump(exclude_none=True)
        ours = told.pop("speceyes", {})
        kept = {key: told[key] for key in ("choice", "confidence", "probability") if key in told}
        for key in ("source", "calibrated", "of", "interval", "raw"):
            if ours.get(key) is not None:
                kept[key] = ours[key]
        say(f"{wanted['instructions']}")
        say("  " + ", ".join(f"{key}: {_short(value)}" for key, value in kept.items()))


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return " to ".join(_short(one) for one in value)
    return str(value)


def compose(asked: list[Item]) -> None:
    """The compose example's server, as its container would start it, on engines of the tests."""
    words = yaml.safe_load(COMPOSE.read_text("utf-8"))["services"]["speceyes"]["command"]
    gate = tiny.gate()
    fit = [
        *("--threshold", str(gate.threshold), "--top-k", str(gate.top_k)),
        *("--model-arg", "large.max_pixels=12544", "--model-arg", "small.max_pixels=6400"),
    ]
    with (
        engine({"agent": HFModel.from_pretrained(tiny.LARGE)}) as (large, _),
        engine({"drafter": HFModel.from_pretrained(tiny.SMALL)}) as (small, _),
    ):
        there = {"http://agent:8000/v1": large, "http://drafter:8000/v1": small}
        there |= {"0.0.0.0": "127.0.0.1", "-": os.devnull}
        say(f"$ speceyes {shlex.join([*words, *fit])}")
        with served(*(there.get(word, word) for word in words), *fit) as http:
            for one in asked:
                responses(_client(http), one)
            names = r"^speceyes_(?:results_total|in_flight|responses_total)"
            for line in http.get("/metrics", headers={"Host": "speceyes:8000"}).text.splitlines():
                if re.match(names, line):
                    say(line)


def main() -> None:
    """Prints the transcripts."""
    items = list(islice(questions("heldout", 40), 6))
    asked = [items[0], items[5]]  # one for a draft, one for the agent
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        wanted = ("--arms", "min", "--limit", "120", "--calibration-share", "0.5")
        ran("eval", "scenes", *wanted, "--out", "run")
        ran("report", "run", "--to", "parquet", shown=1)
        frame = runs.read("run").frame()
        import pandas

        (table,) = Path("run").glob("*.parquet")
        rows = pandas.read_parquet(table)
        assert len(rows) == len(frame)
        say(f">>> pandas.read_parquet({str(table)!r}).groupby('arm').correct.agg(['mean', 'size'])")
        say(str(rows.groupby("arm").correct.agg(["mean", "size"]).round(3)))
        ran("calibrate", "run", "--target", "0.1", "--out", "gate.json", shown=3)
        say("$ speceyes serve --calibration gate.json")
        with served("serve", "--calibration", "gate.json") as http:
            for one in asked:
                responses(_client(http), one)
            decisions(_client(http), items[0])
    compose(asked)


if __name__ == "__main__":
    main()
