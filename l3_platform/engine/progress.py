"""How far long work has come: a bar on a terminal, a line every few seconds in a log.

Work says `with progress("documents", total=8) as advance: ... advance(1)`; whoever runs it chooses the sink with `report_to`.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar

Sink = Callable[[str], None]
_SINK: ContextVar[Sink | None] = ContextVar("progress sink", default=None)


@contextlib.contextmanager
def report_to(sink: Sink | None) -> Iterator[None]:
    """Send periodic lines to `sink`, such as `context.log.info`."""
    token = _SINK.set(sink)
    try:
        yield
    finally:
        _SINK.reset(token)


@contextlib.contextmanager
def progress(label: str, total: float, *, every_seconds: float = 10.0) -> Iterator[Callable[[float], None]]:
    """Yields `advance(amount)`; `total` in the unit of the amounts."""
    with _bar(label, total) as bar:
        started = last = time.monotonic()
        done = 0.0

        def advance(amount: float) -> None:
            nonlocal done, last
            done += amount
            bar(amount)
            now = time.monotonic()
            sink = _SINK.get()
            if sink is not None and now - last >= every_seconds:
                last = now
                left = (now - started) / max(done, 1e-9) * (total - done)
                sink(f"{label}: {done:,.0f} of {total:,.0f} ({100 * done / max(total, 1e-9):.0f} %), about {left:.0f} s left")

        yield advance


@contextlib.contextmanager
def _bar(label: str, total: float) -> Iterator[Callable[[float], None]]:
    if not sys.stderr.isatty():
        yield lambda amount: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description:<22}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(label, total=total)
        yield lambda amount: bars.advance(task, amount)


def say(line: str) -> None:
    """A line for whoever watches a terminal; logs have their own sink."""
    if _SPEAKS:
        print(line, flush=True)


def speak(aloud: bool = True) -> None:
    """Whether this process prints what `say` is given: the command line does, a server's workers do not."""
    global _SPEAKS
    _SPEAKS = aloud


_SPEAKS = False
