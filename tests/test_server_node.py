"""OpenAI's own client for Node, unchanged, against a server that runs.

    npm install --prefix node openai@7.55.0
    SPECEYES_NODE_CLIENT=node pytest tests/test_server_node.py

`.ci/run` does this where there are Node and npm's registry; other tests need no network.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from speceyes.server.keys import Keys, new_key
from support.served import data_url, pipeline, serving

CLIENT = os.environ.get("SPECEYES_NODE_CLIENT", "")

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


@pytest.mark.skipif(not CLIENT, reason="SPECEYES_NODE_CLIENT names no folder with openai for Node")
def test_the_official_node_client_works_unchanged() -> None:
    script = Path(CLIENT) / "ask.mjs"
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
