"""Any OpenAI-compatible engine: vLLM, SGLang, llama.cpp's server, hosted APIs."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, final, get_args

from speceyes.errors import ConfigError, ModelError
from speceyes.models._engine_ask import HABITS, ImageLinks, body_of
from speceyes.models._engine_http import Cancel, Endpoint, Refused
from speceyes.models._engine_meet import HOSTED, Engine, capped, headers_of, meet, said
from speceyes.models._engine_read import read
from speceyes.models._engine_session import EngineSession
from speceyes.models._engine_sight import QwenSight, own_size, sight_of
from speceyes.models._engine_words import refused_fault
from speceyes.models._seed import row_seed
from speceyes.protocols import Session
from speceyes.types import Completion, Conversation, Image, Message, Sampling

__all__ = ["OpenAIModel", "QwenSight", "own_size"]

logger = logging.getLogger(__name__)

_FIRST = (64, 20, 5)
"""How many first tokens the judge is told of, at most; less where an engine refuses."""


@final
class OpenAIModel:
    """A vision-language model behind an engine's chat completions.

    Each conversation is a request of its own, many at a time: the engine makes the batches. A
    request that fails is a `Completion` with `error`, and its neighbours never notice. Images
    travel inside the request, encoded once each. One object may be called from several threads;
    an exception in the caller, such as Ctrl-C, closes the connections, which ends the work in
    engines that watch them.

    Args:
        base_url: The engine's address, such as "http://localhost:8000/v1"; "/v1" is added where
            there is no path.
        model: The name it is served under; None takes the only one that the engine lists.
        engine: What may be asked beyond the common protocol: "vllm", "sglang", "openai" (nothing),
            or "auto", which reads it from the engine's list of models.
        api_key: Sent as a bearer token; default: the environment's SPECEYES_API_KEY, and
            OPENAI_API_KEY for api.openai.com alone. Never logged or shown.
        name: Names the model in results and calibrations; default: `model`.
        top_k: Ask now, with a request of two tokens, whether so many log-probabilities come back.
        seen: How the engine resizes images: `QwenSight(factor, min_pixels, max_pixels)`,
            `own_size`, or any function of an image that gives (width, height) in pixels.
            Default: by the model's name, else the image's own size.
        image_format: "png", which loses nothing, or "jpeg", which is smaller for photos and
            changes what the model sees.
        jpeg_quality: 1 to 95.
        cache_bytes: Memory for encoded images; 0 keeps none.
        max_concurrency: Most requests under way, over all threads.
        timeout_s: Seconds for one attempt of a request. One that runs out is not tried again.
        retries: Further attempts after 429, 500, 502, 503, 504 or a dropped connection.
        backoff_s: Seconds before the second attempt; doubled for each further one, times a random
            number from 0.5 to 1.5. Where the engine says Retry-After, that counts instead.
        max_wait_s: The longest pause in seconds; an engine that asks for more is given up.
        headers: Further headers, such as a gateway's key. Never logged or shown.
        extra_body: Further fields of each request; a field that is None is left out.

    Raises:
        ConfigError: An argument that can't work, an engine that can't be reached or doesn't
            serve the model, or, with `top_k`, one that returns fewer log-probabilities.

    Example:
        >>> from speceyes.models import OpenAIModel
        >>> small = OpenAIModel("http://localhost:8000/v1", top_k=64)  # doctest: +SKIP
        >>> small.name  # doctest: +SKIP
        'Qwen/Qwen3-VL-2B-Instruct'
    """

    def __init__(
        self,
        base_url: str,
        model: str | None = None,
        *,
        engine: Engine = "auto",
        api_key: str | None = None,
        name: str | None = None,
        top_k: int | None = None,
        seen: Callable[[Image], tuple[int, int]] | None = None,
        image_format: Literal["png", "jpeg"] = "png",
        jpeg_quality: int = 95,
        cache_bytes: int = 1 << 28,
        max_concurrency: int = 32,
        timeout_s: float = 120.0,
        retries: int = 4,
        backoff_s: float = 0.5,
        max_wait_s: float = 60.0,
        headers: Mapping[str, str] | None = None,
        extra_body: Mapping[str, Any] | None = None,
    ) -> None:
        if engine not in get_args(Engine):
            raise ConfigError(f"engine={engine!r}; it must be one of {get_args(Engine)}")
        if image_format not in ("png", "jpeg"):
            raise ConfigError(f"image_format={image_format!r}; it must be 'png' or 'jpeg'")
        if not 1 <= jpeg_quality <= 95:
            raise ConfigError(f"jpeg_quality={jpeg_quality}; it must be 1 to 95")
        for what, amount, least in (
            ("cache_bytes", cache_bytes, 0),
            ("max_concurrency", max_concurrency, 1),
            ("retries", retries, 0),
            ("top_k", 1 if top_k is None else top_k, 1),
        ):
            if amount < least:
                raise ConfigError(f"{what}={amount}; it must be at least {least}")
        for what, seconds in (("backoff_s", backoff_s), ("max_wait_s", max_wait_s)):
            if not (math.isfinite(seconds) and seconds >= 0):
                raise ConfigError(f"{what}={seconds}; it must be finite and at least 0 seconds")
        if not (math.isfinite(timeout_s) and timeout_s > 0):
            raise ConfigError(f"timeout_s={timeout_s}; it must be finite and above 0 seconds")
        sent, secrets = headers_of(base_url, api_key, headers or {})
        self._endpoint = Endpoint(
            base_url,
            headers=sent,
            secrets=secrets,
            timeout_s=timeout_s,
            retries=retries,
            backoff_s=backoff_s,
            max_wait_s=max_wait_s,
            connections=max_concurrency,
        )
        self._threads = max_concurrency
        self._links = ImageLinks(cache_bytes, image_format, jpeg_quality)
        self._extra = dict(extra_body or {})
        self._first: tuple[int, ...] = _FIRST
        if model is None or engine == "auto":
            model, engine = meet(self._endpoint, model, engine)
        self._model, self._engine = model, engine
        self._habits = HABITS[engine]
        self._name = name or model
        hosted = self._endpoint.host == HOSTED
        self._tokens_field = "max_completion_tokens" if hosted else "max_tokens"
        self._seen = seen or sight_of(model)
        if self._seen is None:
            logger.info(
                "%s: how it resizes images isn't known from its name; coordinates in pixels are "
                "taken to be those of the image itself unless seen= says otherwise",
                self._name,
            )
            self._seen = own_size
        if top_k is not None:
            self.probe(top_k)

    def __repr__(self) -> str:
        return f"OpenAIModel({self._endpoint.url!r}, {self._model!r}, engine={self._engine!r})"

    @property
    def name(self) -> str:
        """Names the model in results and calibrations."""
        return self._name

    @property
    def engine(self) -> Engine:
        """What it was told, or found, the engine to be."""
        return self._engine

    @property
    def images_encoded(self) -> int:
        """How many images were encoded so far."""
        return self._links.encoded

    def seen_size(self, image: Image) -> tuple[int, int]:
        """(width, height) in pixels of the image as the model sees it, by the rule of `seen`.

        Raises:
            ImageError: The model can't see such an image.
        """
        assert self._seen is not None
        return self._seen(image)

    def prepare(self, images: Sequence[Image]) -> None:
        """Encodes images ahead of a call that shows them.

        Never raises for an image: the call itself says what is wrong with it.
        """
        for image in images:
            with contextlib.suppress(Exception):
                self._links(image)

    def probe(self, top_k: int) -> None:
        """Asks for two tokens, to see whether the engine returns top_k log-probabilities.

        Raises:
            ConfigError: It doesn't, or doesn't answer; with what to do.
        """
        asked = Conversation((Message("user", ("Say yes.",)),))
        sampling = Sampling(max_tokens=2, top_k=top_k)
        try:
            self._complete(0, asked, sampling, Cancel())
        except ModelError as exc:
            raise ConfigError(f"{self!r}: {said(exc)}") from exc

    def close(self) -> None:
        """Closes idle connections and gives up encoded images; the model stays usable."""
        self._endpoint.close()
        self._links.clear()

    def generate(
        self, conversations: Sequence[Conversation], sampling: Sampling
    ) -> list[Completion]:
        """One completion a conversation, in order.

        With a temperature, row i is given a seed made of `sampling.seed` and i.

        Raises:
            ConfigError: A stop string is empty.
        """
        _check_stop(sampling)
        cancel = Cancel()
        if len(conversations) < 2:
            return [self._row(i, c, sampling, cancel) for i, c in enumerate(conversations)]
        threads = min(self._threads, len(conversations))
        with ThreadPoolExecutor(threads, thread_name_prefix="speceyes-engine") as pool:
            try:
                rows = [
                    pool.submit(self._row, index, conversation, sampling, cancel)
                    for index, conversation in enumerate(conversations)
                ]
                return [row.result() for row in rows]
            except BaseException:
                cancel.now()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def session(self, sampling: Sampling) -> Session | None:
        """Conversations that are sent as they are added and come back as they finish, or None
        where rows are drawn: draws depend on a row's place in a call.

        Raises:
            ConfigError: A stop string is empty.
        """
        _check_stop(sampling)
        if sampling.temperature > 0:
            return None
        return EngineSession(
            lambda conversation, cancel: self._row(0, conversation, sampling, cancel),
            self._threads,
        )

    def _row(
        self, index: int, conversation: Conversation, sampling: Sampling, cancel: Cancel
    ) -> Completion:
        try:
            return self._complete(index, conversation, sampling, cancel)
        except Refused as exc:
            return Completion.failed(said(exc), refused_fault(exc.status, str(exc)))
        except ModelError as exc:
            return Completion.failed(said(exc))
        except Exception as exc:  # noqa: BLE001  (it ends this row, whatever it is)
            return Completion.failed(f"the request can't be made: {type(exc).__name__}: {exc}")

    def _complete(
        self, index: int, conversation: Conversation, sampling: Sampling, cancel: Cancel
    ) -> Completion:
        seed = row_seed(sampling.seed, index)
        # The token that was drawn is listed too, and can push the last of the top K out.
        least = sampling.top_k + (sampling.temperature > 0 and sampling.top_k > 0)
        while True:
            first = self._first
            asked: int | None = max(least, first[0] if sampling.first_token else 0)
            if not asked and not self._habits.tells_count:
                asked = None
            body = body_of(
                conversation,
                sampling,
                model=self._model,
                habits=self._habits,
                links=self._links,
                seed=seed,
                tokens_field=self._tokens_field,
                top_logprobs=asked,
                extra=self._extra,
            )
            try:
                reply = self._endpoint.call("/chat/completions", body, cancel)
            except Refused as exc:
                if asked and exc.status in (400, 422) and "logprob" in str(exc).lower():
                    if sampling.first_token and asked > least and len(first) > 1:
                        logger.info("%s: %s; asking for fewer", self._name, exc)
                        self._first = first[1:]
                        continue
                    raise ModelError(capped(asked, sampling, exc)) from exc
                raise
            return read(reply, sampling, self._habits)


def _check_stop(sampling: Sampling) -> None:
    if "" in sampling.stop:
        raise ConfigError("stop holds an empty string, which would stop every answer at once")
