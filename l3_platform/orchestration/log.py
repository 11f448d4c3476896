"""Dagster's log for long work: not a flood, and never the place where an interrupt is lost."""

import time
from collections.abc import Callable

import dagster as dg
from dagster._utils.interrupts import capture_interrupts, pop_captured_interrupt


def careful_log(context: dg.AssetExecutionContext, every_seconds: float = 0.0) -> Callable[[str], None]:
    """A sink of lines that logs one in `every_seconds` and raises an interrupt only when the line is stored.

    Dagster raises in the middle of whatever runs when SIGINT arrives; inside its own log, with a database cursor open, the
    exception is swallowed more often than not, and a Terminate or Ctrl-C would be lost.
    """
    last = float("-inf")

    def line(text: str) -> None:
        nonlocal last
        if time.monotonic() - last < every_seconds:
            return
        last = time.monotonic()
        with capture_interrupts():
            context.log.info(text)
            interrupted = pop_captured_interrupt()
        if interrupted:
            raise dg.DagsterExecutionInterruptedError

    return line
