"""A line of JSON for each request: what it cost and what became of it, never what it said."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass, field
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any, Final, final

from speceyes.errors import ConfigError
from speceyes.server.chat_response import kind_of
from speceyes.server.messages import Notes
from speceyes.server.refusal import Refusal
from speceyes.types import Result

LOGGER: Final = "speceyes.server.requests"
"""Lines go to this logger at INFO; `speceyes serve --request-log FILE` writes them to a file."""

_log = logging.getLogger(LOGGER)


def log_requests(path: Path) -> None:
    """Has the lines written to a file, at its end; "-" is standard error.

    The file is opened anew where it was moved away, so that it can be rotated.

    Raises:
        ConfigError: It can't be written to.
    """
    try:
        handler = (
            logging.StreamHandler()
            if str(path) == "-"
            else WatchedFileHandler(path, encoding="utf-8")
        )
    except OSError as exc:
        raise ConfigError(f"--request-log {path} can't be written to: {exc.strerror}") from exc
    handler.setFormatter(logging.Formatter("%(message)s"))
    _log.addHandler(handler)
    _log.setLevel(logging.INFO)
    _log.propagate = False


@final
@dataclass(slots=True)
class RequestRecord:
    """The line of one request. It holds no text, image, URL or key of a client.

    Args:
        path: The route.
        client: The name of the client's key; "" without keys, since addresses are personal data.
    """

    path: str
    client: str = ""
    id: str = ""
    images: int = 0
    stream: bool = False
    status: int = 0
    notes: Notes = field(default_factory=Notes)
    _since: float = field(default_factory=time.perf_counter)
    _more: dict[str, Any] = field(default_factory=dict)

    def refused(self, exc: Refusal) -> None:
        """Notes which field was refused, and the code; the message may quote a request."""
        self.status = exc.status
        self._more |= {"code": exc.code, "param": exc.param}

    def answered(self, result: Result, queued_s: float) -> None:
        """Notes the way that a query took."""
        verdict, way = result.verdict, result.trajectory
        self._more |= {
            "route": result.route,
            "score": None if verdict is None else verdict.score,
            "turns": 0 if way is None else len(way.steps),
            "queue_s": round(queued_s, 6),
        }
        if result.answer is None and (way is None or way.stop != "calls"):
            self._more["reason"] = kind_of(result)

    def write(self) -> None:
        """Writes the line."""
        if not _log.isEnabledFor(logging.INFO):
            return
        line = {
            "time": round(time.time(), 3),
            "path": self.path,
            "id": self.id,
            "client": self.client,
            "status": self.status,
            "seconds": round(time.perf_counter() - self._since, 6),
            "images": self.images,
            "stream": self.stream,
            **self._more,
        }
        for name, found in (
            ("ignored", self.notes.ignored),
            ("agent_only", self.notes.agent_only),
        ):
            if found:
                line[name] = list(found)
        _log.info("%s", json.dumps(line))
