"""The official client against what `speceyes serve` serves, and the command as a user starts it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from speceyes import tiny
from speceyes.cli import main, parser
from speceyes.cli.models import pipeline
from speceyes.errors import ConfigError
from speceyes.models.scripted import ScriptedModel
from speceyes.server.keys import Keys, new_key
from speceyes.server.run import is_loopback
from speceyes.tiny.scenes import questions
from support.engine_server import engines
from support.processes import started, until
from support.served import asking, data_url, serving

needs_weights = pytest.mark.skipif(
    not tiny.LARGE.is_dir(), reason="the tiny pair's weights are not in this checkout"
)


class Process:
    """`speceyes serve` in a process of its own."""

    def __init__(self, child: subprocess.Popen[str], log: Path) -> None:
        self.child, self._log = child, log
        assert child.stderr is not None
        said = []
        for line in child.stderr:
            said.append(line)
            if found := re.search(r"on (http\S+)/v1", line):
                self.url = found[1]
                return
        raise AssertionError("".join(said))

    @property
    def logged(self) -> int:
        """Requests that it has taken on and ended."""
        return len(self._log.read_text().splitlines()) if self._log.exists() else 0

    def ready(self) -> None:
        for _ in range(6000):
            try:
                if httpx.get(f"{self.url}/readyz", trust_env=False).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.01)
        raise AssertionError("it did not get ready")

    def end(self) -> tuple[int, str]:
        """Exit code and the rest of standard error."""
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
        _, said = self.child.communicate(timeout=90)
        return self.child.returncode, said


@contextmanager
def serving_tests(folder: Path, *words: str) -> Iterator[tuple[Process, str]]:
    """A server, and the one key that it takes; it logs requests into the folder."""
    key, line = new_key("tests")
    file = folder / "keys.txt"
    file.write_text(f"{line}\n")
    command = [sys.executable, "-m", "speceyes", "serve", "--port", "0"]
    log = file.with_name("requests.jsonl")
    more = ["--keys", str(file), "--batch-size", "4", "--request-log", str(log), *words]
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}
    with started(*command, *more, stderr=subprocess.PIPE, env=alone) as child:
        one = Process(child, log)
        one.ready()
        yield one, key


@pytest.fixture(scope="module")
def bundled() -> Iterator[tuple[str, str]]:
    """The address of a server in this process with what `speceyes serve` serves, and its one key: a
    process that loads the pair takes 8 CPU seconds to start, and test_examples.py has one do it.
    """
    key, line = new_key("tests")
    keys = Keys({"tests": line.rpartition(":")[2].strip()})
    with serving(pipeline(parser().parse_args(["serve"])), keys=keys) as served:
        yield served.url, key


@pytest.fixture
def client(bundled: tuple[str, str]) -> Iterator[openai.OpenAI]:
    url, key = bundled
    http = httpx.Client(trust_env=False)
    with openai.OpenAI(base_url=f"{url}/v1", api_key=key, http_client=http) as made:
        yield made


def _scene(number: int) -> tuple[Any, list[Any]]:
    item = list(questions("heldout", number + 1))[number]
    image = {"type": "image_url", "image_url": {"url": data_url(item.query.images[0])}}
    text = {"type": "text", "text": item.query.question}
    return item, [{"role": "user", "content": [image, text]}]


@needs_weights
def test_the_official_client_works_unchanged(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["speceyes"]
    routes = set()
    for number in range(6):
        item, messages = _scene(number)
        said = client.chat.completions.create(model="speceyes", messages=messages, temperature=0)
        assert said.choices[0].message.content
        assert said.usage is not None and said.usage.prompt_tokens > 0
        how = said.model_extra["speceyes"] if said.model_extra else {}
        routes.add(how["route"])
        if number > 1:
            continue
        forced = client.chat.completions.create(
            model="speceyes", messages=messages, extra_body={"speceyes": {"route": "agent"}}
        )
        assert forced.model_extra is not None
        assert forced.model_extra["speceyes"]["route"] == "agent"
        assert item.query.id
    assert routes == {"draft", "agent"}


@needs_weights
def test_it_streams_and_tells_log_probabilities(client: openai.OpenAI) -> None:
    _, messages = _scene(0)
    whole = client.chat.completions.create(
        model="speceyes", messages=messages, logprobs=True, top_logprobs=5
    )
    text = whole.choices[0].message.content
    if whole.model_extra and whole.model_extra["speceyes"]["route"] == "draft":
        assert whole.choices[0].logprobs is not None
        tokens = whole.choices[0].logprobs.content or []
        assert "".join(token.token for token in tokens) == text
        assert all(len(token.top_logprobs) == 5 for token in tokens)
    chunks = list(
        client.chat.completions.create(
            model="speceyes",
            messages=messages,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    said = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert said == text and chunks[-1].usage is not None


@needs_weights
def test_its_errors_are_the_client_s_own(client: openai.OpenAI, bundled: tuple[str, str]) -> None:
    _, messages = _scene(0)
    with pytest.raises(openai.BadRequestError, match="it must be 1") as raised:
        client.chat.completions.create(model="speceyes", messages=messages, n=2)
    assert raised.value.param == "n"
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="other", messages=messages)
    stranger = openai.OpenAI(
        base_url=f"{bundled[0]}/v1",
        api_key="sk-nobody",
        http_client=httpx.Client(trust_env=False),
    )
    with stranger, pytest.raises(openai.AuthenticationError):
        stranger.models.list()


def test_many_at_once_then_sigterm_loses_nothing(tmp_path: Path) -> None:
    def slowly(conversation: Any, sampling: Any) -> str:
        time.sleep(0.1)
        return "no"

    # A server of its own: tests of several workers come in any order.
    slow = ScriptedModel(slowly)
    with (
        engines(slow, ScriptedModel("red")) as asked,
        serving_tests(tmp_path, *asked) as (one, key),
    ):
        _many_at_once_then_sigterm(one, key)


def _many_at_once_then_sigterm(one: Process, key: str) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    bodies = [asking(f"Which colour? {number}") for number in range(4)]
    replies: list[httpx.Response] = []
    refused: list[Exception] = []

    def ask(body: dict[str, Any]) -> None:
        try:
            replies.append(
                httpx.post(
                    f"{one.url}/v1/chat/completions",
                    json=body,
                    headers=headers,
                    timeout=90,
                    trust_env=False,
                )
            )
        # It had closed its door, or hadn't read a word yet: it took nothing on.
        except (httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError) as exc:
            refused.append(exc)

    before = one.logged
    threads = [threading.Thread(target=ask, args=(body,)) for body in bodies * 4]
    for thread in threads:
        thread.start()
    until(lambda: len(replies) >= 2, 90)
    code, said = one.end()
    for thread in threads:
        thread.join(90)
    assert len(replies) + len(refused) == 16
    assert 2 <= one.logged - before <= len(replies), "what it took on, it answered"
    assert {reply.status_code for reply in replies} <= {200, 503}
    assert code == 0 and "Traceback" not in said


def test_it_lets_no_one_in_without_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--host", "0.0.0.0", "--port", "0"]) == 2
    assert "there are no keys" in capsys.readouterr().err
    assert main(["serve", "--new-key", "alice"]) == 0
    said = capsys.readouterr()
    key = said.err.split()[-1]
    assert key.startswith("sk-speceyes-") and key not in said.out
    assert re.fullmatch(r"alice sha256:[0-9a-f]{64}\n", said.out)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--large", "x"], "--large was given without --small"),
        (["--small", "x"], "--small was given without --large"),
        (["--calibration", "x", "--threshold", "0.5"], "--calibration brings"),
    ],
)
def test_options_that_do_not_go_together(arguments: list[str], says: str) -> None:
    options = parser().parse_args(["serve", *arguments])
    with pytest.raises(ConfigError, match=says):
        pipeline(options)


def test_addresses_that_stay_here() -> None:
    stays = ["localhost", "127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "::", "10.0.0.1", "host"]
    assert [is_loopback(host) for host in stays] == [True] * 4 + [False] * 4


@needs_weights
def test_engines_behind_addresses_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    from speceyes import HFModel
    from support.engine_server import serving as engine

    large, small = (HFModel.from_pretrained(size) for size in (tiny.LARGE, tiny.SMALL))
    with (
        engine({"large": large, "other": large}) as (first, _),
        engine({"s": small}) as (second, _),
    ):
        options = parser().parse_args(
            ["serve", "--large", f"{first}#large", "--small", second, "--top-k", "9"]
        )
        pipe = pipeline(options)
        assert pipe.parts.overlaps
        with serving(pipe) as served:
            body = {**asking(), "messages": _scene(1)[1]}
            said = served.post(body)
            assert said.status_code == 200, said.text
            assert said.json()["choices"][0]["message"]["content"]
