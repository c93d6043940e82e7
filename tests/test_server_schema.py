"""The server against its own OpenAPI description, by schemathesis: whatever that allows is taken,
whatever it doesn't is refused, and every response is one that it names.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from speceyes.server.keys import Keys, new_key
from speceyes.server.schemas import DATA_URL
from support.served import asking, pipeline, serving

HOOKS = f"""
import schemathesis
from hypothesis import strategies as st
from support.served import data_url

pictures = [data_url(kind=kind) for kind in ("PNG", "JPEG", "GIF")]
schemathesis.openapi.format({DATA_URL!r}, st.sampled_from(pictures))
"""
# A request may set a deadline that nothing can keep, and is told so with 504.
CONFIG = '[checks]\nnot_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", 504]\n'


@pytest.mark.parametrize(
    ("tolerant", "phases", "examples"),
    [
        (False, "examples,fuzzing", 3),
        pytest.param(False, "examples,coverage,fuzzing", 8, marks=pytest.mark.exhaustive),
        pytest.param(True, "examples,coverage,fuzzing", 8, marks=pytest.mark.exhaustive),
    ],
    ids=["quick", "strict", "tolerant"],
)
def test_schemathesis_finds_nothing(
    tmp_path: Path, tolerant: bool, phases: str, examples: int
) -> None:
    (tmp_path / "schema_hooks.py").write_text(HOOKS)
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    key, line = new_key("schema")
    keys = Keys({"schema": line.rpartition(":")[2]})
    paths = (str(tmp_path), str(Path(__file__).parent), os.environ.get("PYTHONPATH", ""))
    # A description can't forbid what a tolerant server ignores, nor say "the last message".
    left_out = "negative_data_rejection,positive_data_acceptance"
    less = ("--exclude-checks", left_out) if tolerant else ()
    # Nor can it say how many images all messages may have together.
    limits = {"tolerant": tolerant, "images": 1000}
    with serving(pipeline(draft="dark red"), keys=keys, limits=limits) as served:
        known = {"Authorization": f"Bearer {key}"}
        done = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "--config-file", "schemathesis.toml"),
                *("run", f"{served.url}/openapi.json", "--header", f"Authorization: Bearer {key}"),
                *("--phases", phases, "--checks", "all", "--seed", "1"),
                *("--max-examples", str(examples), "--continue-on-failure", "--no-color"),
                *("--generation-database", "none", *less),
            ],
            cwd=tmp_path,
            env={
                **os.environ,
                "SCHEMATHESIS_HOOKS": "schema_hooks",
                "PYTHONPATH": os.pathsep.join(filter(None, paths)),
                "NO_PROXY": "127.0.0.1",
            },
            capture_output=True,
            text=True,
            timeout=480,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        counted = served.http.get("/metrics", headers=known).text
    # It got through to the funnel, and not only to the refusals.
    for status in ("200", "400", "401", "404") if "coverage" in phases else ("200", "400"):
        assert f'speceyes_responses_total{{status="{status}"}}' in counted


def test_the_example_in_the_description_can_be_sent_as_it_stands() -> None:
    with serving(pipeline()) as served:
        described = served.http.get("/openapi.json").json()
        post = described["paths"]["/v1/chat/completions"]["post"]
        reply = served.post(post["requestBody"]["content"]["application/json"]["example"])
        assert reply.status_code == 200
        said = post["responses"]["200"]["content"]["application/json"]["schema"]
        assert set(said["required"]) == set(reply.json())
        assert "security" not in post and "securitySchemes" not in described.get("components", {})


def test_the_description_tells_this_server_s_own_limits() -> None:
    limits = {"thresholds": (0.6, 0.9), "agent_on_request": False, "seconds": 30.0}
    with serving(pipeline(), name="mine", limits=limits) as served:
        body = served.http.get("/openapi.json").json()["paths"]["/v1/chat/completions"]["post"]
        fields = body["requestBody"]["content"]["application/json"]["schema"]["properties"]
        own = fields["speceyes"]["anyOf"][0]["properties"]
        assert fields["model"]["const"] == "mine"
        assert own["threshold"]["anyOf"][0] == {"type": "number", "minimum": 0.6, "maximum": 0.9}
        assert own["route"]["anyOf"][0] == {"enum": ["auto"]}
        assert own["deadline_s"]["anyOf"][0]["maximum"] == 30
        assert served.refused(asking(), 404)["code"] == "model_not_found"
