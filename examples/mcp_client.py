"""Asks a speceyes MCP server with the official client, over standard input and output.

Run: python examples/mcp_client.py
Needs: pip install "speceyes[mcp]"
"""

from __future__ import annotations

import asyncio
import base64
import io
import os
import sys

from mcp import Client, StdioServerParameters, stdio_client

from speceyes.tiny.scenes import questions


async def main() -> None:
    # The same command stands in the settings of an agent that speaks MCP.
    arguments = ["-m", "speceyes", "mcp"]
    command = StdioServerParameters(command=sys.executable, args=arguments, env=dict(os.environ))
    async with Client(stdio_client(command, errlog=sys.__stderr__)) as client:
        for tool in (await client.list_tools()).tools:
            print(f"tool {tool.name}({', '.join(tool.input_schema['properties'])})")

        async def ask(item) -> str:
            picture = io.BytesIO()
            item.query.images[0].save(picture, "PNG")
            image = base64.b64encode(picture.getvalue()).decode()
            asked = {"question": item.query.question, "images": [image]}
            said = (await client.call_tool("ask_about_image", asked)).structured_content
            how = f"route: {said['route']}, score: {said['score']}, depth: {said['depth']}"
            return f"{item.query.question} {said['answer']} ({how})"

        for line in await asyncio.gather(*map(ask, questions("heldout", 6))):
            print(line)


if __name__ == "__main__":
    asyncio.run(main())
