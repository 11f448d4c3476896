"""One question to a model behind OpenAI's chat/completions, until it is answered or there is no hope."""

from __future__ import annotations

import email.utils
import http.client
import json
import os
import random
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from l3_platform.settings import Annotator

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds between two attempts
LONGEST_ANSWER = 4 << 20  # bytes


class EndpointError(RuntimeError):
    """The server will answer no question at all; the message is meant for a person."""


class NoReply(Exception):
    """This question stays without an answer: `reason` is the word under which it is counted."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Reply:
    """`tokens` as the server counts them, 0 where it does not."""

    text: str
    prompt_tokens: int
    completion_tokens: int


def ask(settings: Annotator, system: str, user: str, stopped: threading.Event) -> Reply:
    """The model's answer at temperature 0. Raises NoReply or EndpointError; gives up early once `stopped` is set."""
    body = {
        "model": settings.model,
        "messages": [{"role": "system", "content": system}, {"role": "user", "content": user}],
        "temperature": 0,
        "max_tokens": settings.max_tokens,
    }
    failure = _Again("stopped", "it was not asked")
    for attempt in range(settings.retries + 1):
        if stopped.is_set():
            break
        try:
            return _reply(_post(settings, json.dumps(body).encode()))
        except _Again as again:
            failure = again
        if attempt < settings.retries:
            stopped.wait(_pause(attempt, failure.after))
    if failure.reason in ("unreachable", "http_429"):
        raise EndpointError(
            f"annotator.url: {settings.url} gave no answer in {settings.retries + 1} attempts ({failure}); the answers so far "
            "are kept, so run it again when the server is back, or raise annotator.retries, or lower annotator.concurrency"
        )
    raise NoReply(failure.reason)


class _Again(Exception):
    """An attempt failed in a way that another may not; `after` is how long the server asks to wait, seconds."""

    def __init__(self, reason: str, why: str, after: float = 0.0) -> None:
        super().__init__(why)
        self.reason, self.after = reason, after


def _pause(attempt: int, asked: float) -> float:
    """Exponential, and never the same for two threads that were refused together; what the server asks for comes first."""
    return min(asked or FIRST_WAIT * 2.0**attempt * random.uniform(0.5, 1.0), LONGEST_WAIT)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: Any) -> None:
        """Never: the key is for the server that the setting names."""


_OPENER = urllib.request.build_opener(_NoRedirect)


def _post(settings: Annotator, body: bytes) -> bytes:
    headers = {"Content-Type": "application/json", "User-Agent": "l3-platform"}
    key = os.environ.get(settings.api_key_variable, "")
    if key:
        headers["Authorization"] = f"Bearer {key}"
    url = settings.url.rstrip("/") + "/chat/completions"
    deadline = time.monotonic() + settings.timeout_seconds
    try:
        request = urllib.request.Request(url, data=body, headers=headers, method="POST")
        with _OPENER.open(request, timeout=settings.timeout_seconds) as response:
            return _read(response, deadline)
    except urllib.error.HTTPError as error:
        error.close()
        raise _refusal(error, settings) from None
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, TimeoutError) or isinstance(getattr(error, "reason", None), TimeoutError):
            raise _Again("timed_out", f"no answer in {settings.timeout_seconds:g} s") from None
        raise _Again("unreachable", str(getattr(error, "reason", "") or error or type(error).__name__)) from None


def _read(response: http.client.HTTPResponse, deadline: float) -> bytes:
    """All of an answer that neither trickles past the deadline nor never ends."""
    content = b""
    while chunk := response.read1(1 << 16):
        content += chunk
        if time.monotonic() > deadline:
            raise TimeoutError
        if len(content) > LONGEST_ANSWER:
            raise NoReply("malformed")
    return content


def _refusal(error: urllib.error.HTTPError, settings: Annotator) -> Exception:
    if error.code in (408, 409, 425, 429) or error.code >= 500:
        return _Again(f"http_{error.code}", f"HTTP {error.code} {error.reason}", _seconds(error.headers.get("Retry-After", "")))
    if error.code in (400, 413, 422):  # too long for this model, or against its provider's rules: this text only
        return NoReply(f"http_{error.code}")
    hint = {401: f"set {settings.api_key_variable} to a valid key", 403: f"the key in {settings.api_key_variable} may not do this"}
    hint[404] = "check annotator.url and annotator.model"
    return EndpointError(
        f"annotator.url: {settings.url} answered HTTP {error.code} {error.reason}; {hint.get(error.code, 'check annotator.url')}"
    )


def _seconds(retry_after: str) -> float:
    """Of a Retry-After header, which is a number of seconds or a date."""
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        return max(0.0, (email.utils.parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return 0.0


def _reply(content: bytes) -> Reply:
    try:
        answer = json.loads(content)
    except ValueError:  # a proxy's page with status 200, say
        raise _Again("malformed", "the answer is not JSON") from None
    try:
        text, usage = answer["choices"][0]["message"]["content"], answer.get("usage") or {}
        return Reply(str(text or ""), int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        raise NoReply("malformed") from None
