"""OpenAI's own client for Node, unchanged, against a server that runs.

The package is installed once, into the user's cache.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from served import data_url, pipeline, serving
from speceyes.server.keys import Keys, new_key

VERSION = "7.55.0"

SCRIPT = """
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.env.URL_OF_IT, apiKey: process.env.KEY_OF_IT });
const about = (text) => [{ role: "user", content: [
  { type: "image_url", image_url: { url: process.env.PICTURE } },
  { type: "text", text },
] }];
const ask = (text, more) =>
  client.chat.completions.create({ model: "speceyes", messages: about(text), ...more });
const told = {};

told.models = (await client.models.list()).data.map((model) => model.id);

const one = await ask("Which colour?", { logprobs: true, top_logprobs: 2, seed: 1, max_tokens: 9 });
told.answer = one.choices[0].message.content;
told.finish = one.choices[0].finish_reason;
told.tokens = one.choices[0].logprobs.content.map((entry) => entry.top_logprobs.length);
told.usage = one.usage.total_tokens > 0;
told.route = one.speceyes.route;

const agent = await ask("Which colour?", { speceyes: { route: "agent" } });
told.agent = [agent.choices[0].message.content, agent.speceyes.route];

told.streamed = "";
const streaming = { stream: true, stream_options: { include_usage: true } };
const stream = await ask("Which colour?", streaming);
for await (const chunk of stream) {
  told.streamed += chunk.choices[0]?.delta?.content ?? "";
  if (chunk.usage) told.streamedUsage = chunk.usage.total_tokens > 0;
}

const many = await Promise.all(Array.from({ length: 8 }, () => ask("Which colour?")));
told.many = many.map((each) => each.choices[0].message.content);

try {
  await ask("Which colour?", { n: 2 });
} catch (error) {
  told.refused = [error.constructor.name, error.status, error.param];
}
try {
  await new OpenAI({ baseURL: process.env.URL_OF_IT, apiKey: "wrong" }).models.list();
} catch (error) {
  told.stranger = [error.constructor.name, error.status];
}
console.log(JSON.stringify(told));
"""


def _installed() -> Path:
    """The folder that has the package; skips the test where it can't be had."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("there is no Node with npm")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    where = cache / "speceyes" / f"node-openai-{VERSION}"
    if not (where / "installed").exists():
        where.mkdir(parents=True, exist_ok=True)
        install = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", "."]
        try:
            done = subprocess.run(
                [*install, f"openai@{VERSION}"],
                cwd=where,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
        except subprocess.TimeoutExpired:
            pytest.skip("npm took longer than two minutes to install openai")
        if done.returncode:
            pytest.skip(f"npm can't install openai: {done.stderr.strip().splitlines()[-1:]}")
        (where / "installed").touch()
    return where


def test_the_official_node_client_works_unchanged() -> None:
    where = _installed()
    script = where / "ask.mjs"
    script.write_text(SCRIPT, encoding="utf-8")
    key, line = new_key("node")
    keys = Keys({"node": line.rpartition(":")[2]})
    with serving(pipeline(draft="dark red", agent="<answer>blue</answer>"), keys=keys) as served:
        own = {"URL_OF_IT": f"{served.url}/v1", "KEY_OF_IT": key, "PICTURE": data_url()}
        done = subprocess.run(
            ["node", str(script)],
            env={**os.environ, **own},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "models": ["speceyes"],
        "answer": "dark red",
        "finish": "stop",
        "tokens": [2, 2],
        "usage": True,
        "route": "draft",
        "agent": ["blue", "agent"],
        "streamed": "dark red",
        "streamedUsage": True,
        "many": ["dark red"] * 8,
        "refused": ["BadRequestError", 400, "n"],
        "stranger": ["AuthenticationError", 401],
    }
