"""A server that goes on with another gate and other keys while it serves."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from speceyes.errors import ConfigError
from speceyes.gate import SeparabilityGate
from speceyes.models.scripted import ScriptedModel
from speceyes.server.allowance import Allowance
from speceyes.server.keys import Keys, new_key
from support.engine_server import engines
from support.processes import started, until
from support.served import asking, pipeline, serving


def _renew(served: Any, **parts: Any) -> None:
    work = served.service.renew(**parts)
    asyncio.run_coroutine_threadsafe(work, served.service.loop).result(60)


def test_another_gate_takes_over_and_no_request_is_lost() -> None:
    with serving(pipeline(margin=8.0)) as served, ThreadPoolExecutor(8) as pool:
        assert served.ask()["speceyes"]["threshold"] == 0.98
        ended = threading.Event()

        def many() -> list[tuple[int, str]]:
            said = []
            while not ended.is_set():
                reply = served.post(asking())
                said.append((reply.status_code, reply.json()["speceyes"]["route"]))
            return said

        under_way = [pool.submit(many) for _ in range(8)]
        for threshold in (0.9999, 0.5, 0.9999, 0.5, 0.9999):
            _renew(served, gate=SeparabilityGate(threshold))
        ended.set()
        said = [one for done in under_way for one in done.result(60)]
        assert {status for status, _ in said} == {200} and len(said) > 8
        assert served.ask()["speceyes"]["route"] == "agent"
        assert served.ask()["speceyes"]["threshold"] == 0.9999
        assert served.gauge("in_flight") == 0
        # What can't be served changes nothing.
        with pytest.raises(ConfigError):
            _renew(served, gate=SeparabilityGate(0.9, top_k=500))
        assert served.ask()["speceyes"]["threshold"] == 0.9999


def test_other_keys_take_over_and_what_was_spent_stays_spent() -> None:
    (alice, first), (bob, second) = new_key("alice"), new_key("bob")

    def keys(*lines: str) -> Keys:
        hashes = {line.split()[0]: line.split()[1].removeprefix("sha256:") for line in lines}
        return Keys(hashes, {name: Allowance(turns_per_hour=1) for name in hashes})

    with serving(pipeline(judge="yes"), keys=keys(first)) as served:

        def status(key: str) -> int:
            return served.post(asking(), headers={"Authorization": f"Bearer {key}"}).status_code

        assert (status(alice), status(bob)) == (200, 401)
        _renew(served, keys=keys(first, second))
        assert (status(alice), status(bob)) == (429, 200)
        _renew(served, keys=keys(second))
        assert (status(alice), status(bob)) == (401, 429)


def test_the_command_reads_its_files_again_on_sighup(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    (alice, first), (bob, second) = new_key("alice"), new_key("bob")
    file.write_text(f"{first}\n")
    command = [sys.executable, "-m", "speceyes", "serve", "--port", "0", "--keys", str(file)]
    with (
        engines(ScriptedModel("no"), ScriptedModel("red")) as asked,
        started(*command, "--no-check", *asked, stderr=subprocess.PIPE) as child,
    ):
        assert child.stderr is not None
        url = next(line.split()[-1] for line in child.stderr if " on http" in line)

        def status(key: str) -> int:
            headers = {"Authorization": f"Bearer {key}"}
            return httpx.get(f"{url}/models", headers=headers, trust_env=False).status_code

        until(lambda: status(alice) == 200)
        assert status(bob) == 401
        file.write_text("no key\n")
        child.send_signal(signal.SIGHUP)
        assert "goes on as it was" in child.stderr.readline()
        assert status(alice) == 200
        file.write_text(f"{second}\n")
        child.send_signal(signal.SIGHUP)
        assert child.stderr.readline() == "speceyes: reloaded\n"
        assert (status(alice), status(bob)) == (401, 200)
        child.terminate()
        assert child.wait(90) == 0
