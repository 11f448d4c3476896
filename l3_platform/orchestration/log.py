"""Dagster's log for long work: not a flood, and never the place where an interrupt is lost."""

import re
import time
from collections.abc import Callable

import dagster as dg
from dagster._utils.interrupts import capture_interrupts, pop_captured_interrupt

from l3_platform.engine.progress import say

Log = Callable[[str], None]

STEP_SECONDS = 10.0  # between lines of steps, each of which costs Dagster's database 20 ms
MOST_LINES = 20  # of others in STEP_SECONDS, of each kind

# What the trainers, the launchers and their supervisor tell a person; all else is what libraries print.
_OURS = re.compile(r"(INFO|WARNING|ERROR) |.*(relaunching from|Slurm job \d|JobSet l3-)")


def careful_log(context: dg.AssetExecutionContext) -> Log:
    """A sink of lines that raises an interrupt only when the line is stored.

    Dagster raises in the middle of whatever runs when SIGINT arrives; inside its own log, with a database cursor open, the
    exception is swallowed more often than not, and a Terminate or Ctrl-C would be lost.
    """

    def line(text: str) -> None:
        with capture_interrupts():
            (context.log.warning if text.startswith("WARNING ") else context.log.info)(text)
            interrupted = pop_captured_interrupt()
        if interrupted:
            raise dg.DagsterExecutionInterruptedError

    return line


class TrainingLog:
    """A sink of a training's lines. Of those of steps it takes one in a while; of others all, unless they come in a flood: then it
    says how many it left out, and that `where` has them. What is meant for a person a terminal shows too."""

    def __init__(self, log: Log, where: str, now: Callable[[], float] = time.monotonic) -> None:
        self._log, self._where, self._now = log, where, now
        self._stepped = self._since = float("-inf")
        self._lines = {"ours": 0, "others": 0}
        self._left_out = 0

    def __call__(self, text: str) -> None:
        now = self._now()
        if now - self._since >= STEP_SECONDS:
            self.flush()
            self._since, self._lines = now, dict.fromkeys(self._lines, 0)
        if text.startswith("step "):
            self._step(text, now)
            return
        kind = "ours" if _OURS.match(text) else "others"
        self._lines[kind] += 1
        if self._lines[kind] > MOST_LINES:
            self._left_out += 1
            return
        if kind == "ours":
            say(text)
        self._log(text)

    def flush(self) -> None:
        """Says what was left out since the last time."""
        if self._left_out:
            left_out, self._left_out = self._left_out, 0
            self._log(f"{left_out:,} more lines; {self._where} has them")

    def _step(self, text: str, now: float) -> None:
        if now - self._stepped >= STEP_SECONDS:
            self._stepped = now
            say(text)
            self._log(text)
