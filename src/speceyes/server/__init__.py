"""`speceyes serve`: a pipeline behind OpenAI's chat completions. See docs/server.md.

Nothing here is imported by the rest of the package, and what needs FastAPI only where a server
is made: `speceyes.server.app.application(pipe)`.
"""
