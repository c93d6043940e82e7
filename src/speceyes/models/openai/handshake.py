"""Handshake with an engine: its key, the name of its model and its kind."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from typing import Literal, TypeAlias

from speceyes.errors import ConfigError, ModelError
from speceyes.models.openai.client import EngineClient
from speceyes.models.openai.http_errors import EngineRefusal, with_notes

logger = logging.getLogger(__name__)

Engine: TypeAlias = Literal["auto", "vllm", "sglang", "openai"]

HOSTED = "api.openai.com"


def identify(client: EngineClient, model: str | None, engine: Engine) -> tuple[str, Engine]:
    """The model's name and the engine's kind, from its list of models.

    Raises:
        ConfigError: It can't be reached, or doesn't serve the model.
    """
    hint = "(pass model= and engine= to do without its list)"
    try:
        listed = client.submit(client.call("/models")).result()
    except ModelError as exc:
        hidden = isinstance(exc, EngineRefusal) and exc.status in (404, 405, 501)
        if model is not None and hidden:
            logger.warning("%s lists no models: taken for a plain engine", client.url)
            return model, "openai" if engine == "auto" else engine
        raise ConfigError(f"{with_notes(exc)} {hint}") from exc
    try:
        served = {str(entry["id"]): str(entry.get("owned_by")) for entry in listed["data"]}
    except (LookupError, TypeError, AttributeError) as exc:
        raise ConfigError(f"{client.url}: its list of models is malformed {hint}") from exc
    if model is None:
        if len(served) != 1:
            raise ConfigError(
                f"{client.url} serves {sorted(served) or 'no model'}: "
                "name the model that is meant by model="
            )
        model = next(iter(served))
    owner = served.get(model, next(iter(served.values()), "")).lower()
    kind: Engine = "vllm" if owner == "vllm" else "sglang" if owner == "sglang" else "openai"
    if model not in served:
        if kind != "openai":
            raise ConfigError(
                f"model={model!r} isn't served at {client.url}, which has "
                f"{sorted(served)}: pass one of these"
            )
        logger.warning("%s doesn't list %s", client.url, model)
    return model, kind if engine == "auto" else engine


def request_headers(
    base_url: str, api_key: str | None, headers: Mapping[str, str]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Headers with the key among them, and the texts of them that must never be shown.

    Raises:
        ConfigError: A name or value that can't be a header.
    """
    if api_key is None:
        api_key = os.environ.get("SPECEYES_API_KEY")
        # A key for one company must not be sent to whoever listens at another address.
        if api_key is None and str(base_url).startswith(f"https://{HOSTED}/"):
            api_key = os.environ.get("OPENAI_API_KEY")
    sent = dict(headers)
    if api_key:
        sent["Authorization"] = f"Bearer {api_key}"
    for field, value in sent.items():
        if not re.fullmatch(r"[A-Za-z0-9-]+", field) or not re.fullmatch(r"[\x20-\x7e]*", value):
            where = "api_key" if field == "Authorization" and api_key else f"headers[{field!r}]"
            raise ConfigError(
                f"{where} holds characters that a header can't: look for a line's end in it"
            )
    return sent, tuple(filter(None, (api_key, *headers.values())))
