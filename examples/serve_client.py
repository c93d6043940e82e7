"""Asks a speceyes server with the official OpenAI client, several questions at once.

Without an address it starts a server of its own, with the bundled tiny pair.
Run: python examples/serve_client.py [http://127.0.0.1:8000/v1]
Needs: pip install "speceyes[serve]" openai
"""

from __future__ import annotations

import base64
import io
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from openai import OpenAI

from speceyes.tiny.scenes import questions


def own_server() -> tuple[subprocess.Popen[str], str]:
    """A server in a process of its own, and its address."""
    command = [sys.executable, "-m", "speceyes", "serve", "--port", "0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for line in server.stderr or ():
        if " on http" in line:
            return server, line.split()[-1]
    raise SystemExit("the server did not start")


def main(url: str | None = None) -> None:
    server = None
    if url is None:
        server, url = own_server()
    client = OpenAI(base_url=url, api_key="none")

    def ask(item) -> str:
        picture = io.BytesIO()
        item.query.images[0].save(picture, "PNG")
        data = base64.b64encode(picture.getvalue()).decode()
        image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
        content = [image, {"type": "text", "text": item.query.question}]
        messages = [{"role": "user", "content": content}]
        said = client.chat.completions.create(model="speceyes", messages=messages)
        how = said.model_extra["speceyes"]
        return f"{item.query.question} {said.choices[0].message.content} (route: {how['route']})"

    with ThreadPoolExecutor(6) as pool:
        print(*pool.map(ask, questions("heldout", 6)), sep="\n")
    if server is not None:
        server.terminate()
        server.communicate()


if __name__ == "__main__":
    main(*sys.argv[1:2])
