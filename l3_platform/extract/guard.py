"""The page limit, held inside C code too: pages that could take long are read in a child process that is killed at the limit.

A parser's time and memory can grow with the square of a page: with nesting, with the attributes of one tag, with formatting
elements that are never closed (33 kB of those make a tree of 86 MB). `slim` bounds that work from above; nearly all pages are far
below the limit and are read where they are. Only the others pay for a fork.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from l3_platform.extract.layout import TooDeep
from l3_platform.extract.slim import Cost
from l3_platform.settings import Extract

_T = TypeVar("_T")

_SAFE_PACE = 400 << 10  # bytes a second that are surely read; the worst pages found take 0.7 s a MiB
_SAFE_WORK = 5_000_000
_PARSABLE_DEPTH = 5000
_MAX_COPIES = 20_000_000  # of formatting elements, some hundred bytes each
_CHILD_BYTES = 2 << 30  # of address space beyond what the parent has


class TooSlow(ValueError):
    """The page took longer than the limit, or more memory than it may have."""


def guarded(read: Callable[[], _T], cost: Cost, settings: Extract) -> _T:
    """read(), within `settings.max_seconds`. Raises TooSlow, TooDeep for pages no parser should see, and what `read` raises."""
    if cost.depth > max(settings.max_depth, _PARSABLE_DEPTH):
        raise TooDeep(f"elements nest {cost.depth:,} deep")
    if cost.copies > _MAX_COPIES:
        raise TooDeep(f"formatting elements that are not closed would be opened again {cost.copies:,} times")
    if cost.size > _SAFE_PACE * settings.max_seconds or cost.work > _SAFE_WORK:
        return _in_a_child(read, settings.max_seconds)
    started = time.monotonic()
    found = read()
    if time.monotonic() - started > settings.max_seconds:
        raise TooSlow(f"over extract.max_seconds = {settings.max_seconds:g} s")
    return found


def _in_a_child(read: Callable[[], Any], seconds: float) -> Any:
    receive, send = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads: the child only computes
        child = os.fork()
    if child == 0:
        _answer(read, receive, send, seconds)
    os.close(send)
    try:
        answer = _received(receive, time.monotonic() + seconds)
    finally:
        os.close(receive)
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
    if answer is None:
        raise TooSlow(f"over extract.max_seconds = {seconds:g} s in a process of its own")
    if not answer:
        raise TooSlow(f"its process ended with status {status}: the page needs more than {_CHILD_BYTES >> 30} GiB")
    found, error = pickle.loads(answer)
    if error is not None:
        raise error
    return found


def _answer(read: Callable[[], Any], receive: int, send: int, seconds: float) -> None:
    """What the child does: reads the page, writes what it found and ends without cleaning up what is its parent's."""
    try:
        os.close(receive)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(int(seconds) + 2)  # should the parent be killed before it kills this
        _limit_memory()
        try:
            answer = pickle.dumps((read(), None))
        except Exception as error:
            answer = pickle.dumps((None, error))
        while answer:
            answer = answer[os.write(send, answer) :]
    finally:
        os._exit(0)


def _limit_memory() -> None:
    import resource

    statm = Path("/proc/self/statm")
    if statm.exists():
        limit = int(statm.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE") + _CHILD_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _received(pipe: int, deadline: float) -> bytes | None:
    """All that the child wrote; None where it had not ended by the deadline."""
    parts: list[bytes] = []
    while True:
        if not select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return None
        part = os.read(pipe, 1 << 20)
        if not part:
            return b"".join(parts)
        parts.append(part)
