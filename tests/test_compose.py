"""The compose example: its commands are understood, and its board shows what the server counts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from speceyes.cli import parser
from speceyes.models.scripted import ScriptedModel
from support.engine_server import serving as engine
from support.processes import started, until
from support.served import JUDGE, asking, pipeline, serving

ROOT = Path(__file__).resolve().parents[1] / "examples" / "compose"
yaml = pytest.importorskip("yaml")


def _services() -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    return services


def test_its_server_starts_with_options_that_there_are_on_engines_that_it_names() -> None:
    services = _services()
    options = parser().parse_args(services["speceyes"]["command"])
    engines = {
        re.sub(r"https?://(\w+):8000/v1", r"\1", one) for one in (options.large, options.small)
    }
    assert engines == {"agent", "drafter"} <= set(services)
    # The gate's K must be allowed by the engine that drafts.
    drafter = services["drafter"]["command"]
    assert int(drafter[drafter.index("--max-logprobs") + 1]) >= 64
    for name, one in services.items():
        for mounted in one.get("volumes", ()):
            source = mounted.partition(":")[0]
            assert not source.startswith("./") or (ROOT / source).is_file(), (name, source)
        # Nobody outside is let in without a key.
        assert all(port.startswith("127.0.0.1:") for port in one.get("ports", ()))


def test_prometheus_asks_services_that_there_are() -> None:
    jobs = yaml.safe_load((ROOT / "prometheus.yml").read_text())["scrape_configs"]
    asked = [target for job in jobs for one in job["static_configs"] for target in one["targets"]]
    assert {target.partition(":")[0] for target in asked} == {"speceyes", "agent", "drafter"}


def test_the_board_shows_metrics_that_the_server_has() -> None:
    board = json.loads((ROOT / "grafana" / "speceyes.json").read_text())
    source = yaml.safe_load((ROOT / "grafana" / "datasource.yaml").read_text())["datasources"][0]
    shown = {
        name
        for panel in board["panels"]
        for target in panel["targets"]
        for name in re.findall(r"speceyes_[a-z_]+", target["expr"])
    }
    assert all(panel["datasource"]["uid"] == source["uid"] for panel in board["panels"])
    with serving(pipeline()) as served:
        served.ask()
        served.post(asking(n=2))
        told = served.http.get("/metrics").text
    there = set(re.findall(r"^(speceyes_[a-z_]+)", told, re.M))
    # Audits are counted where a pipeline has an auditor, and a gain is told once it is known.
    missing = {name for name in shown - there if not re.search("audit|tripped|gain", name)}
    assert not missing and len(shown & there) >= 9


def test_all_that_services_name_is_declared() -> None:
    whole = yaml.safe_load((ROOT / "compose.yaml").read_text())
    services = whole["services"]
    known = set(
        "image build command ipc volumes deploy healthcheck depends_on ports stop_grace_period "
        "environment".split()
    )
    assert set(whole) == {"services", "volumes"}
    for name, one in services.items():
        assert set(one) <= known and ("image" in one) != ("build" in one), name
        assert set(one.get("depends_on", ())) <= set(services), name
        for mounted in one.get("volumes", ()):
            source = mounted.partition(":")[0]
            assert source.startswith("./") or source in whole["volumes"], (name, source)
    boards = yaml.safe_load((ROOT / "grafana" / "boards.yaml").read_text())["providers"]
    mounted = " ".join(services["grafana"]["volumes"])
    assert all(f":{board['options']['path']}/" in mounted for board in boards)
    told = (ROOT / "Dockerfile").read_text()
    [entry], [asked] = (re.findall(rf"^{word} (.*)$", told, re.M) for word in ("ENTRYPOINT", "CMD"))
    assert json.loads(entry) == ["speceyes"] and parser().parse_args(json.loads(asked))


def test_its_command_serves_in_front_of_scripted_engines() -> None:
    """What a container would run, on this machine, with scripted engines in vLLM's place."""
    agent = ScriptedModel({JUDGE: {"hard": "yes", "": "no"}, "": "<answer>blue</answer>"})
    models = {"agent": agent, "drafter": ScriptedModel("red")}
    with (
        engine({"agent": models["agent"]}) as (large, _),
        engine({"drafter": models["drafter"]}) as (small, _),
    ):
        there = {"http://agent:8000/v1": large, "http://drafter:8000/v1": small}
        there["0.0.0.0"] = "127.0.0.1"
        command = [there.get(word, word) for word in _services()["speceyes"]["command"]]
        run = [sys.executable, "-m", "speceyes", *command, "--port", "0"]
        with started(
            *run, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}
        ) as child:
            assert child.stderr is not None
            said = []
            for line in child.stderr:
                said.append(line)
                if found := re.search(r"on (http\S+)/v1", line):
                    break
            else:
                raise AssertionError("".join(said))
            with httpx.Client(base_url=found[1], trust_env=False, timeout=90) as http:
                until(lambda: http.get("/readyz").status_code == 200, seconds=60)
                for question, route in (("Which colour?", "draft"), ("A hard one?", "agent")):
                    reply = http.post("/v1/chat/completions", json=asking(question))
                    assert reply.status_code == 200, reply.text
                    assert reply.json()["speceyes"]["route"] == route
                # As Prometheus asks, by the service's name.
                told = http.get("/metrics", headers={"Host": "speceyes:8000"})
                assert told.status_code == 200
                names = {one.name for one in text_string_to_metric_families(told.text)}
                assert {"speceyes_results", "speceyes_phase_seconds"} <= names
