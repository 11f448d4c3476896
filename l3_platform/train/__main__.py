"""One rank: `python -m l3_platform.train --job job.json`, run by torchrun, or by hand as a single process.

Exit codes: 0 finished; 143 stopped on request (SIGTERM or SIGINT) after its step and, where it fitted, a checkpoint; 86
hung (`watchdog.py`); 1 failed. `status.json` beside the logs says which, in words; a rank that is killed leaves none.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from l3_platform.lifeline import die_with_parent
from l3_platform.train.branch import read_origin
from l3_platform.train.job import TrainingError, TrainingStopped, TrainJob, write_text

EXIT_STOPPED = 143  # 0x8F: 128 + SIGTERM
STATUS_FILE = "status.json"


def main() -> int:
    if agent := os.environ.get("L3_AGENT_PID"):
        die_with_parent(int(agent), signal.SIGKILL)
    _log_to_own_file()
    request = _StopRequest()
    parser = argparse.ArgumentParser(prog="python -m l3_platform.train", description=__doc__)
    parser.add_argument("--job", required=True, help="JSON file of a TrainJob")
    job = TrainJob.read(parser.parse_args().job)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stdout)

    from l3_platform.store.lock import Locked
    from l3_platform.train.loop import train

    first = os.environ.get("RANK", "0") == "0"
    try:
        result = train(job, _printer(job), request.seconds_ago)
    except TrainingStopped as stopped:
        return _end(job, "stopped", str(stopped), EXIT_STOPPED) if first else EXIT_STOPPED
    except (TrainingError, Locked, ValueError, FileNotFoundError) as error:
        return _end(job, "failed", str(error), 1)
    return _end(job, "finished", f"loss {result.loss:.4f} after {result.tokens:,} tokens", 0) if first else 0


class _StopRequest:
    """Remembers the first SIGINT or SIGTERM; the loop looks after every step."""

    def __init__(self) -> None:
        self._since: float | None = None
        signal.signal(signal.SIGINT, self._note)
        signal.signal(signal.SIGTERM, self._note)

    def seconds_ago(self) -> float | None:
        return None if self._since is None else time.monotonic() - self._since

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._since = self._since or time.monotonic()


def _log_to_own_file() -> None:
    """Everything this rank prints, C++ included, goes to its own file where the launcher named a folder."""
    if folder := os.environ.get("L3_LOG_DIR"):
        rank = int(os.environ.get("RANK", "0"))
        handle = os.open(Path(folder) / f"rank-{rank:05d}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        os.close(handle)
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]


def _printer(job: TrainJob) -> Callable[[dict[str, float]], None]:
    """Prints a row, with how far the run has come: a branch's tokens and share count from its parent's start, as its rows do.

    The time left is by the pace since the first row, which compiling and loading make no measure of the others.
    """
    from l3_platform.train.data_order import whole_units

    start = read_origin(job.branch_from).position.tokens if job.branch_from else 0
    total = whole_units(job.ramp, job.total_tokens, start)
    first: dict[str, float] = {}

    def show(row: dict[str, float]) -> None:
        seconds, tokens = (row[name] - first.setdefault(name, row[name]) for name in ("time", "tokens"))
        left = f", {_span((total - row['tokens']) / tokens * seconds)} left" if tokens > 0 else ""
        print(
            f"step {row['step']:>7,}  tokens {row['tokens']:>13,} of {total:,} ({100 * row['tokens'] // total:.0f} %)  "
            f"loss {row['loss']:.4f}  lr {row['learning_rate']:.2e}  norm {row['grad_norm']:.3f}  "
            f"{row['tokens_per_second']:,.0f} tokens/s{left}"
        )

    return show


def _span(seconds: float) -> str:
    """In the unit in which a person would say it."""
    limits = (120, 1, "s"), (7_200, 60, "min"), (172_800, 3_600, "h"), (math.inf, 86_400, "days")
    return next(f"{seconds / size:.0f} {unit}" for below, size, unit in limits if seconds < below)


def _end(job: TrainJob, state: str, message: str, code: int) -> int:
    print(f"{state}: {message}")
    write_text(
        Path(os.environ.get("L3_LOG_DIR", job.folder)) / STATUS_FILE,
        json.dumps({"state": state, "message": message}) + "\n",
    )
    return code


if __name__ == "__main__":
    try:
        code = main()
    except Exception:  # any: what Python does with it by itself, which os._exit below leaves out
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: a background thread in a collective with a rank that is gone would hold the process.
    os._exit(code)
