"""A teacher whose models run behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import base64
import io
import json
import os
import random
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import requests
from PIL import Image

from ..prompts import Message
from .fusing import FusingTeacher

LONGEST_WAIT = (
    300  # seconds that an endpoint may ask to be left alone before this is an error
)
LONGEST_CONNECTING = 10.0  # seconds
LONGEST_ANSWERING = 600.0  # seconds from the first to the last byte
LARGEST_ANSWER = 2**20  # bytes; a completion has some thousands
READ_AT_ONCE = 256  # bytes, after which the limits are looked at
JITTER = 0.1  # share of a wait, so that processes which failed together do not come again together


class EndpointError(RuntimeError):
    """An endpoint refused, or went on failing."""


class RequestFailed(Exception):
    """One request failed in a way that may pass.

    Args:
        fault (`str`): what happened.
        wait (`float`): seconds that the server asks to be left alone.
    """

    def __init__(self, fault: str, wait: float = 0.0) -> None:
        super().__init__(fault)
        self.fault = fault
        self.wait = wait


class EndpointTeacher(FusingTeacher):
    """Models behind an OpenAI-compatible endpoint (vLLM's server, TGI).

    Args:
        base_url (`str`): such as "http://localhost:8000/v1"; "/chat/completions" is added.
        text (`str`), vision (`str`, *optional*): the endpoint's names of the models, as for [`ModelTeacher`]. Photos
            are sent as PNG.
        api_key_env (`str`, *optional*): name of the environment variable that holds the key. Without it none is sent.
        requests_per_minute (`float`, *optional*): upper limit, retries included; of each process.
        concurrent (`int`): requests under way at once.
        retries (`int`): of a request after status 429 or 5xx, a failed connection or an answer that is no chat
            completion; the first after `backoff` seconds, or as many as the server asks for, then twice as long each
            time.
        timeout (`float`): seconds without a byte after which a connection counts as failed; to connect it has 10, for
            a whole answer 10 minutes and a mebibyte.
        temperature (`float`), max_new_tokens (`int`): sent with each request.

    Calls raise [`EndpointError`] when retries are used up, or at once on any other status.
    """

    def __init__(
        self,
        base_url: str,
        text: str,
        vision: str | None = None,
        *,
        api_key_env: str | None = None,
        requests_per_minute: float | None = None,
        concurrent: int = 8,
        retries: int = 5,
        backoff: float = 1.0,
        timeout: float = 120.0,
        temperature: float = 0.0,
        max_new_tokens: int = 200,
    ) -> None:
        super().__init__(vision, text, queries_at_once=4 * concurrent)
        check_url(base_url)
        self.base_url = base_url.rstrip("/")
        self.api_key_env = api_key_env
        self.concurrent = concurrent
        self.retries = retries
        self.backoff = backoff
        self.timeout = timeout
        self.temperature = temperature
        self.max_new_tokens = max_new_tokens
        self.api_key()  # a missing one is told now
        self.turns = Turns(60 / requests_per_minute if requests_per_minute else 0.0)
        self.info = {
            "teacher": "endpoint",
            **self.info,
            "base_url": self.base_url,
            "temperature": temperature,
            "max_new_tokens": max_new_tokens,
        }

    def api_key(self) -> str | None:
        """The key, read anew each time so that it is no part of this object; None where no variable was named."""
        if self.api_key_env is None:
            return None
        key = os.environ.get(self.api_key_env, "")
        if not re.fullmatch(r"[!-~]+", key):
            raise ValueError(
                f"the environment variable {self.api_key_env} must hold the endpoint's key, "
                "without spaces or line breaks"
            )
        return key

    def authorize(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """For requests, which without it would look for a key in ~/.netrc."""
        if key := self.api_key():
            request.headers["Authorization"] = f"Bearer {key}"
        return request

    def answer(
        self, model: str, chats: list[list[Message]], seeds: list[int]
    ) -> list[str]:
        name = self.vision if model == "vision" else self.text
        assert name is not None  # a teacher without a vision model does not ask for it
        with ThreadPoolExecutor(self.concurrent) as pool:
            futures = []
            for chat, seed in zip(chats, seeds):
                futures.append(pool.submit(self.complete, name, chat, seed))
            try:
                return [future.result() for future in futures]
            except BaseException:
                # no further requests to an endpoint that failed
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def complete(self, model: str, chat: list[Message], seed: int) -> str:
        """The text that answers one chat, "" where the model gave none."""
        body = self.request_body(model, chat, seed)
        fault = ""
        for attempt in range(self.retries + 1):
            self.turns.wait()
            try:
                return self.post(body)
            except RequestFailed as failed:
                fault = failed.fault
                wait = max(self.backoff * 2**attempt, failed.wait)
                wait *= 1 + JITTER * random.random()
            if wait > LONGEST_WAIT:
                raise self.error(f"{fault}; the next attempt would be in {wait:.0f} s")
            if attempt < self.retries:
                time.sleep(wait)
        raise self.error(f"{fault}; given up after {self.retries + 1} attempts")

    def request_body(
        self, model: str, chat: list[Message], seed: int
    ) -> dict[str, Any]:
        """What is sent to ask one chat."""
        body = {
            "model": model,
            "messages": [with_data_urls(message) for message in chat],
            "temperature": self.temperature,
            "max_tokens": self.max_new_tokens,
        }
        if self.temperature:
            body["seed"] = seed
        return body

    def post(self, body: dict[str, Any]) -> str:
        """The answer to one request.

        Raises [`RequestFailed`] where another attempt may help, else [`EndpointError`].
        """
        try:
            with requests.post(
                f"{self.base_url}/chat/completions",
                json=body,
                auth=self.authorize,
                timeout=(min(LONGEST_CONNECTING, self.timeout), self.timeout),
                allow_redirects=False,
                hooks={"response": forget_location},
                stream=True,
            ) as response:
                content = content_of(response)
        except requests.RequestException as error:
            raise RequestFailed(f"{type(error).__name__}: {error}") from error
        status = response.status_code
        if status == 200:
            return completion_text(content)
        fault = f"status {status}: {beginning(content)}"
        if status != 429 and status < 500:
            raise self.error(fault)
        raise RequestFailed(fault, seconds_of(response.headers.get("Retry-After", "")))

    def error(self, fault: str) -> EndpointError:
        """The error that says what happened, without the key."""
        if key := self.api_key():
            fault = fault.replace(key, "***")
        return EndpointError(f"{self.base_url}: {fault}")


def check_url(base_url: str) -> None:
    """Raises ValueError for what is no address, or one that holds a secret."""
    url = urlsplit(base_url)
    if url.scheme not in ("http", "https") or "@" in url.netloc or url.query:
        raise ValueError(
            "base_url must look like http://host:8000/v1, without user, password or query: "
            "a key goes into the variable that api_key_env names"
        )


def forget_location(response: requests.Response, *args: Any, **kwargs: Any) -> None:
    """Takes out where a response leads to: nobody goes there, and requests would read it all the same."""
    response.headers.pop("Location", None)


def content_of(response: requests.Response) -> bytes:
    """The body of a response. Raises [`RequestFailed`] where it is too large or takes too long."""
    end = time.monotonic() + LONGEST_ANSWERING
    content = b""
    for piece in response.iter_content(READ_AT_ONCE):
        content += piece
        if len(content) > LARGEST_ANSWER:
            raise RequestFailed(f"more than {LARGEST_ANSWER} bytes of an answer")
        if time.monotonic() > end:
            raise RequestFailed(f"no whole answer after {LONGEST_ANSWERING:.0f} s")
    return content


def beginning(content: bytes) -> str:
    """What a message says of an answer."""
    return content[:300].decode(errors="replace")


def seconds_of(retry_after: str) -> float:
    """The seconds of a Retry-After, which is a number or a date; 0 where it is neither."""
    if re.fullmatch(r"[0-9]{1,9}", retry_after):
        return float(retry_after)
    try:
        date = parsedate_to_datetime(retry_after)
    except (TypeError, ValueError):
        return 0.0
    now = datetime.now(date.tzinfo)
    return max(0.0, (date - now).total_seconds())


def completion_text(body: bytes) -> str:
    """The text of a chat completion, "" where the model gave none. Raises [`RequestFailed`] for anything else."""
    fault = f"no chat completion: {beginning(body)}"
    try:
        content = json.loads(body)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise RequestFailed(fault) from error
    if content is not None and not isinstance(content, str):
        raise RequestFailed(fault)
    # a token limit may cut a character in two
    return (content or "").encode(errors="ignore").decode()


class Turns:
    """Lets threads through at least `gap` seconds after one another. A copy in another process counts for itself."""

    def __init__(self, gap: float) -> None:
        self.gap = gap
        self.lock = threading.Lock()
        self.next_start = 0.0

    def __reduce__(self) -> tuple[type[Turns], tuple[float]]:
        return Turns, (self.gap,)

    def wait(self) -> None:
        """Returns when it is the caller's turn."""
        with self.lock:
            now = time.monotonic()
            start = max(now, self.next_start)
            self.next_start = start + self.gap
        time.sleep(start - now)


def with_data_urls(message: Message) -> Message:
    """A message in OpenAI's form: its images as PNG in data URLs."""
    content = message["content"]
    if isinstance(content, str):
        return message
    parts = []
    for part in content:
        if part["type"] == "image":
            part = {"type": "image_url", "image_url": {"url": data_url(part["image"])}}
        parts.append(part)
    return {**message, "content": parts}


def data_url(image: Image.Image) -> str:
    """The image as PNG in a URL."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
