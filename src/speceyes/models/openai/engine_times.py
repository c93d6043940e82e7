"""An engine's own times: seconds in its queue, of reading and of writing."""

from __future__ import annotations

import logging
import re
import urllib.request
from dataclasses import dataclass
from typing import Final, final

_log = logging.getLogger(__name__)

_SUMS: Final = {
    "requests": "vllm:request_queue_time_seconds_count",
    "queued": "vllm:request_queue_time_seconds_sum",
    "prefill": "vllm:request_prefill_time_seconds_sum",
    "decode": "vllm:request_decode_time_seconds_sum",
}
_LINE: Final = re.compile(r"^([a-z_:]+)(?:\{(.*)\})? ([0-9.eE+-]+)$")
_TIMEOUT_S: Final = 2.0
_MOST_BYTES: Final = 1 << 24


@final
@dataclass(frozen=True, slots=True)
class EngineTimes:
    """Sums over the requests that an engine has finished, of one model.

    Args:
        requests: Their number.
        queued: Seconds that they waited before anything was done for them.
        prefill: Seconds from then to their first token, image encoding included.
        decode: Seconds of the tokens behind it. Those of a batch overlap.
    """

    requests: float
    queued: float
    prefill: float
    decode: float


def engine_times(url: str, model: str) -> EngineTimes | None:
    """The sums in an engine's `/metrics`, as vLLM names them; None where it tells none.

    Args:
        url: The engine's base URL, with its "/v1".
        model: As the engine calls it.
    """
    place = url.removesuffix("/").removesuffix("/v1") + "/metrics"
    try:
        with urllib.request.urlopen(place, timeout=_TIMEOUT_S) as reply:
            return parsed(reply.read(_MOST_BYTES).decode("utf-8", "replace"), model)
    except (OSError, ValueError) as exc:
        _log.debug("%s tells no times: %s", place, exc)
        return None


def parsed(text: str, model: str) -> EngineTimes | None:
    r"""Sums of a model in Prometheus' text format, over all of its replicas.

    Example:
        >>> lines = [f'{name}{{model_name="m"}} 2.5' for name in _SUMS.values()]
        >>> parsed("\n".join(lines), "m")
        EngineTimes(requests=2.5, queued=2.5, prefill=2.5, decode=2.5)
    """
    found: dict[str, float] = {}
    fields = {name: field for field, name in _SUMS.items()}
    for line in text.splitlines():
        read = _LINE.match(line)
        if read is None or read[1] not in fields:
            continue
        named = re.search(r'model_name="((?:[^"\\]|\\.)*)"', read[2] or "")
        if named is None or named[1] == model:
            field = fields[read[1]]
            found[field] = found.get(field, 0.0) + float(read[3])
    return EngineTimes(**found) if len(found) == len(_SUMS) else None
