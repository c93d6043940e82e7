"""Tools made for other libraries, as tools of this one: smolagents, LangChain, MCP servers.

None of these libraries is imported before one of its tools is brought.
"""

from __future__ import annotations

from speceyes.tools.adapters.foreign import ForeignTool
from speceyes.tools.adapters.langchain import from_langchain
from speceyes.tools.adapters.mcp import McpTools, mcp_tools
from speceyes.tools.adapters.smolagents import from_smolagents

__all__ = ["ForeignTool", "McpTools", "from_langchain", "from_smolagents", "mcp_tools"]
