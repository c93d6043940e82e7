"""Vision-language model behind an OpenAI-compatible engine."""

from __future__ import annotations

import contextlib
import logging
import math
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Literal, final, get_args

from PIL import Image as PILImage

from speceyes.errors import ConfigError, ModelError, describe
from speceyes.models._seed import row_seed
from speceyes.models.openai import likelihoods as told
from speceyes.models.openai.client import EngineClient
from speceyes.models.openai.decisions import Endpoint, decision_body, find, read_decision
from speceyes.models.openai.engine_times import EngineTimes, engine_times
from speceyes.models.openai.handshake import HOSTED, Engine, identify, request_headers
from speceyes.models.openai.http_errors import (
    EngineRefusal,
    LogprobsError,
    refused_fault,
    refuses_images,
    with_notes,
)
from speceyes.models.openai.image_sizing import Seen, own_size, resize_of, rule_of
from speceyes.models.openai.image_urls import ImageFormat, ImageUrls, sent_size
from speceyes.models.openai.logprobs import about_logprobs, refused_logprobs
from speceyes.models.openai.replies import read_completion
from speceyes.models.openai.requests import CAPABILITIES, request_body
from speceyes.models.openai.sent_images import SentImages
from speceyes.models.openai.session import EngineSession, result_of
from speceyes.protocols import Session
from speceyes.types import Completion, Conversation, Image, Message, Sampling

logger = logging.getLogger(__name__)

_FIRST_TOKENS = (64, 20, 5)
"""Numbers of first tokens to ask for, for the judge: the next where an engine refuses one."""


def _picture() -> Image:
    """A picture with something to be seen, of a size that every family takes."""
    return PILImage.linear_gradient("L").convert("RGB").resize((224, 224))


@final
class OpenAIModel:
    """A vision-language model behind an engine's chat completions.

    Each conversation is a request of its own, many at a time: the engine makes the batches. A
    request that fails is a `Completion` with `error`, and its neighbours never notice. Images
    travel inside the request, encoded once each. One object may be called from several threads;
    an exception in the caller, such as Ctrl-C, closes the connections, which ends the work in
    engines that watch them. `Sampling.floor` is not sent: no engine can stop at a token that is
    below it, and the gate rejects the draft all the same.

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
        template_kwargs: Arguments of the chat template (`chat_template_kwargs`), such as
            `{"enable_thinking": False}`.
        seen: How the engine resizes images: `QwenResize(factor, min_pixels, max_pixels)` or these
            three in a mapping, "own" for not at all, or any function of an image that gives
            (width, height) in pixels. Default: by the model's name, else the image's own size.
        max_pixels: Larger images are shrunk to so many pixels (bicubic) before they are sent, which
            spares the engine the rest: a drafter's image tokens are most of its cost.
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
        proxy: Address of an HTTP proxy to send everything through; the environment's are not used.
        headers: Further headers, such as a gateway's key. Never logged or shown.
        extra_body: Further fields of each request; a field that is None is left out.
        session_header: Name of a header, such as "x-session-id", that is sent with a digest of a
            conversation's first image, so that a router which goes by it keeps what is asked about
            an image on the replica that has read it. None sends none.
        decisions: "auto" asks now whether the engine has a decision endpoint (`/v1/decisions` or
            `/v1/systemone`) that takes images, and judges by it; "off" judges by the probabilities
            of the first token, whose prompt begins as the agent's does, so that its prefix is
            kept. A judge's probabilities, and with them its threshold, are others.

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
        template_kwargs: Mapping[str, Any] | None = None,
        seen: Seen | None = None,
        max_pixels: int | None = None,
        image_format: ImageFormat = "png",
        jpeg_quality: int = 95,
        cache_bytes: int = 1 << 28,
        max_concurrency: int = 32,
        timeout_s: float = 120.0,
        retries: int = 4,
        backoff_s: float = 0.5,
        max_wait_s: float = 60.0,
        proxy: str | None = None,
        headers: Mapping[str, str] | None = None,
        extra_body: Mapping[str, Any] | None = None,
        session_header: str | None = None,
        decisions: Literal["auto", "off"] = "off",
    ) -> None:
        for what, choice, allowed in (
            ("decisions", decisions, ("auto", "off")),
            ("engine", engine, get_args(Engine)),
            ("image_format", image_format, get_args(ImageFormat)),
        ):
            if choice not in allowed:
                raise ConfigError(f"{what}={choice!r}; it must be one of {allowed}")
        for what, amount, least, most in (
            ("jpeg_quality", jpeg_quality, 1, 95),
            ("cache_bytes", cache_bytes, 0, math.inf),
            ("max_concurrency", max_concurrency, 1, math.inf),
            ("retries", retries, 0, math.inf),
            ("top_k", 1 if top_k is None else top_k, 1, math.inf),
            ("max_pixels", 1 if max_pixels is None else max_pixels, 1, math.inf),
        ):
            if not least <= amount <= most:
                limit = "" if most == math.inf else f" and at most {most}"
                raise ConfigError(f"{what}={amount}; it must be at least {least}{limit}")
        for what, seconds in (("backoff_s", backoff_s), ("max_wait_s", max_wait_s)):
            if not (math.isfinite(seconds) and seconds >= 0):
                raise ConfigError(f"{what}={seconds}; it must be finite and at least 0 seconds")
        if not (math.isfinite(timeout_s) and timeout_s > 0):
            raise ConfigError(f"timeout_s={timeout_s}; it must be finite and above 0 seconds")
        if proxy is not None and not re.fullmatch(r"https?://[^\s/]+/?", proxy):
            raise ConfigError("proxy isn't an address such as 'http://proxy.example:3128'")
        sent, secrets = request_headers(base_url, api_key, headers or {})
        self._client = EngineClient(
            base_url,
            headers=sent,
            secrets=secrets,
            timeout_s=timeout_s,
            retries=retries,
            backoff_s=backoff_s,
            max_wait_s=max_wait_s,
            max_concurrency=max_concurrency,
            proxy=proxy,
        )
        self._image_urls = ImageUrls(cache_bytes, image_format, jpeg_quality, max_pixels)
        self._max_pixels = max_pixels
        self._template_kwargs = dict(template_kwargs or {})
        self._extra = dict(extra_body or {})
        self._first_tokens: tuple[int, ...] = _FIRST_TOKENS
        self._checked_k = 0
        self._takes_images = False
        self._said: set[str] = set()
        if model is None or engine == "auto":
            model, engine = identify(self._client, model, engine)
        self._model, self._engine = model, engine
        self._capabilities = CAPABILITIES[engine]
        self._sent = SentImages(self._image_urls, named=self._capabilities.names_images)
        if session_header is not None and not re.fullmatch(r"[A-Za-z0-9-]+", session_header):
            raise ConfigError(f"session_header={session_header!r}; letters, digits and dashes")
        self._session_header = session_header
        self.decision_endpoint: Endpoint | None = None
        """Where judgements are asked for; None for chat completions."""
        if decisions == "auto":
            self.decision_endpoint = find(self._client, model, self._image_urls)
        self._name = name or model
        hosted = self._client.host == HOSTED
        self._tokens_field = "max_completion_tokens" if hosted else "max_tokens"
        rule = resize_of(model) if seen is None else rule_of(seen)
        self._seen: Callable[[Image], tuple[int, int]] = rule or own_size
        self.guesses_sizes: bool = rule is None
        """True where neither `seen` nor the model's name says how images are resized."""
        if top_k is not None:
            self.check_top_k(top_k)

    def __repr__(self) -> str:
        return f"OpenAIModel({self._client.url!r}, {self._model!r}, engine={self._engine!r})"

    @property
    def name(self) -> str:
        """Name of the model in results and calibrations."""
        return self._name

    @property
    def engine(self) -> Engine:
        """The engine's kind, as told or found out."""
        return self._engine

    @property
    def images_spared(self) -> int:
        """Number of times that an image went by its name alone, since the engine had it."""
        return self._sent.spared

    @property
    def images_encoded(self) -> int:
        """Number of images that were encoded so far."""
        return self._image_urls.encoded

    def seen_size(self, image: Image) -> tuple[int, int]:
        """(width, height) in pixels of the image as the model sees it, by the rule of `seen`.

        Raises:
            ImageError: The model can't see such an image.
        """
        size = sent_size(image, self._max_pixels)
        return self._seen(image if size == image.size else PILImage.new("1", size))

    def prepare(self, images: Sequence[Image]) -> None:
        """Encodes images ahead of a call that shows them.

        Never raises for an image: the call itself says what is wrong with it.
        """
        for image in images:
            with contextlib.suppress(Exception):
                self._image_urls(image)

    def check_top_k(self, top_k: int) -> None:
        """Asks for two tokens, to see whether the engine returns top_k log-probabilities, and then
        whether it takes pictures (`check_images`).

        Nothing is asked where as many were found before.

        Raises:
            ConfigError: It returns fewer, or none, cannot be reached, or reads text alone.
        """
        if top_k <= self._checked_k:
            return
        try:
            self._ask(("Say yes.",), Sampling(max_tokens=2, top_k=top_k))
        except ModelError as exc:
            raise ConfigError(f"{self!r}: {with_notes(exc)}") from exc
        self._checked_k = top_k
        self.check_images()

    def check_images(self) -> None:
        """Asks for a token about a picture, once, to see whether the engine takes pictures.

        An engine that can't be reached, or refuses for another reason, is left to the queries.

        Raises:
            ConfigError: The model behind it reads text alone.
        """
        if self._takes_images:
            return
        self._takes_images = True  # whatever comes of it, no later pipeline waits for it again
        try:
            self._ask((_picture(), "Say yes."), Sampling(max_tokens=1))
        except ModelError as exc:
            if not isinstance(exc, EngineRefusal) or not refuses_images(exc.status, str(exc)):
                logger.info("%r: it isn't known whether it takes pictures: %s", self, exc)
                return
            self._takes_images = False
            raise ConfigError(
                f"{self!r} takes no pictures ({with_notes(exc)}): serve a vision-language model, "
                "with its projector where the engine wants one (llama.cpp: --mmproj)"
            ) from exc

    def _ask(self, parts: tuple[str | Image, ...], sampling: Sampling) -> None:
        """Asks a trial question.

        Raises:
            ModelError: It fails.
        """
        asked = Conversation((Message("user", parts),))
        self._client.submit(self._complete(0, asked, sampling)).result()

    def times(self) -> EngineTimes | None:
        """The engine's own times so far; None where it says nothing."""
        return engine_times(self._client.url, self._model)

    def close(self) -> None:
        """Ends what is under way, closes connections and gives up encoded images; the model stays
        usable.
        """
        self._client.close()
        self._image_urls.clear()

    def generate(
        self, conversations: Sequence[Conversation], sampling: Sampling
    ) -> list[Completion]:
        """One completion a conversation, in order.

        With a temperature, row i is given a seed made of `sampling.seed` and i.

        Raises:
            ConfigError: A stop string is empty.
        """
        _check_stop(sampling)
        rows = [
            self._client.submit(self._row(index, conversation, sampling))
            for index, conversation in enumerate(conversations)
        ]
        try:
            return [result_of(row) for row in rows]
        except BaseException:
            self._client.cancel(rows)
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

        def submit(conversation: Conversation) -> Future[Completion]:
            return self._client.submit(self._row(0, conversation, sampling))

        return EngineSession(submit, self._client.cancel)

    @property
    def tells_likelihoods(self) -> bool:
        """True where the engine tells the log-probabilities of a prompt, as vLLM does."""
        return self._capabilities.prompt_logprobs

    def likelihoods(
        self, conversations: Sequence[Conversation], answers: Sequence[str]
    ) -> list[float | None]:
        """Log-likelihood of an answer to each conversation; a request each.

        Args:
            conversations: What is asked.
            answers: What is answered, one each.

        Returns:
            The mean log-probability of the answer's tokens in nats; None where an answer is
            blank, its request failed, or its tokens can't be told from those before it.

        Raises:
            ConfigError: The engine can't tell.
        """
        if not self.tells_likelihoods:
            raise ConfigError(
                f"{self._name}: {self._engine} tells no log-probabilities of a prompt, so that an "
                "answer's likelihood can't be told; vLLM does (engine='vllm' if it is one)"
            )
        rows = [
            self._client.submit(self._likelihood(conversation, answer))
            for conversation, answer in zip(conversations, answers, strict=True)
        ]
        try:
            return [row.result() for row in rows]
        except BaseException:
            self._client.cancel(rows)
            raise

    async def _likelihood(self, conversation: Conversation, answer: str) -> float | None:
        if not answer.strip():
            return None
        try:
            reply = await self._client.call(
                "/chat/completions",
                lambda: request_body(
                    told.answered(conversation, answer),
                    told.ASKED,
                    model=self._model,
                    capabilities=self._capabilities,
                    image_part=lambda image: self._sent.part(image, {}, whole=True),
                    seed=None,
                    tokens_field=self._tokens_field,
                    top_logprobs=None,
                    template_kwargs=self._template_kwargs,
                    extra={**self._extra, **told.FIELDS},
                ),
            )
            return told.mean_logprob(reply, answer)
        except Exception as exc:  # noqa: BLE001  (it ends this row, whatever it is)
            self._say_once("likelihood", f"an answer's likelihood can't be told: {exc}")
            return None

    async def _row(self, index: int, conversation: Conversation, sampling: Sampling) -> Completion:
        """The completion of one conversation; a failed one where it can't be had."""
        try:
            return await self._complete(index, conversation, sampling)
        except LogprobsError as exc:
            self._say_once("judge" if not sampling.top_k else "draft", str(exc))
            return Completion.failed(with_notes(exc))
        except EngineRefusal as exc:
            return Completion.failed(with_notes(exc), refused_fault(exc.status, str(exc)))
        except ModelError as exc:
            return Completion.failed(with_notes(exc))
        except Exception as exc:  # noqa: BLE001  (it ends this row, whatever it is)
            return Completion.failed(f"the request can't be made: {describe(exc)}")

    def _say_once(self, phase: str, why: str) -> None:
        if phase not in self._said:
            self._said.add(phase)
            logger.warning(
                "%s: %s (said once; until then every such request fails, and its query goes to "
                "the agent)",
                self._name,
                why,
            )

    async def _complete(
        self, index: int, conversation: Conversation, sampling: Sampling
    ) -> Completion:
        # The token that was drawn is listed too, and can push the last of the top K out.
        if sampling.first_token and not sampling.top_k and self.decision_endpoint is not None:
            return await self._decide(self.decision_endpoint, conversation)
        whole = False
        least = sampling.top_k + (sampling.temperature > 0 and sampling.top_k > 0)
        while True:
            first = self._first_tokens
            asked: int | None = max(least, first[0] if sampling.first_token else 0)
            if not asked and not (self._capabilities.counts_by_logprobs or sampling.token_texts):
                asked = None

            shown: dict[str, bool] = {}

            def body(
                top_logprobs: int | None = asked,
                shown: dict[str, bool] = shown,
                whole: bool = whole,
            ) -> Mapping[str, Any]:
                return request_body(
                    conversation,
                    sampling,
                    model=self._model,
                    capabilities=self._capabilities,
                    image_part=lambda image: self._sent.part(image, shown, whole=whole),
                    seed=row_seed(sampling.seed, index),
                    tokens_field=self._tokens_field,
                    top_logprobs=top_logprobs,
                    template_kwargs=self._template_kwargs,
                    extra=self._extra,
                )

            try:
                reply = await self._client.call(
                    "/chat/completions", body, self._routing(conversation)
                )
            except EngineRefusal as exc:
                if not whole and self._sent.missed(shown):
                    whole = True
                    continue
                if not asked or not about_logprobs(exc):
                    raise
                if sampling.first_token and asked > least and len(first) > 1:
                    logger.info("%s: %s; asking for fewer", self._name, exc)
                    self._first_tokens = first[1:]
                    continue
                raise refused_logprobs(asked, sampling, exc) from exc
            self._sent.arrived(shown)
            return read_completion(reply, sampling, self._capabilities)

    async def _decide(self, endpoint: Endpoint, conversation: Conversation) -> Completion:
        """Yes or no by the engine's decision endpoint."""
        reply = await self._client.call(
            endpoint,
            lambda: decision_body(endpoint, self._model, conversation, self._image_urls),
            self._routing(conversation),
        )
        return read_decision(reply)

    def _routing(self, conversation: Conversation) -> Mapping[str, str]:
        """Headers by which a router keeps an image's requests together."""
        if self._session_header is None or not conversation.images:
            return {}
        return {self._session_header: self._sent.name(conversation.images[0])}


def _check_stop(sampling: Sampling) -> None:
    if "" in sampling.stop:
        raise ConfigError("stop holds an empty string, which would stop every answer at once")
