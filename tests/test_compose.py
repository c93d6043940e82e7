"""The compose example: its commands are understood, and its board shows what the server counts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from speceyes.cli import parser
from support.served import asking, pipeline, serving

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
