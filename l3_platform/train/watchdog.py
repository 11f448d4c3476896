"""A rank that hangs says where, and ends, so that the job can be started again instead of waiting for ever.

When no step has finished for so long, each rank that can still run writes into the log folder of the attempt:
`hang-00001.txt`, the Python stacks of all its threads, and the last collectives as torch's flight recorders saw them, of
which NCCL and gloo (since torch 2.10) have one each: `flight-nccl-00001.json`, `flight-gloo-00001.json`. Then it ends with
`EXIT_HUNG`. A rank that leaves none is the one that the others waited for. If the interpreter itself is stuck, with its
lock held, faulthandler's own thread does the same.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
import threading
import time
from pathlib import Path
from types import TracebackType

EXIT_HUNG = 86
DUMP = "hang-{rank:05d}.txt"
FLIGHT = "flight-{of}-{rank:05d}.json"
_RECORDERS = {"nccl": "_dump_nccl_trace_json", "gloo": "_dump_fr_trace_json"}

# Between a rank's dump and its end: when one ends, the collectives of the others fail, and they would dump no more.
_GRACE = 2.0
# After the watchdog's thread should have acted, faulthandler's does.
_LAST_RESORT = 10.0


def record_flight(entries: int = 2000) -> None:
    """Turns torch's flight recorder on; call it before a process group is made."""
    os.environ.setdefault("TORCH_FR_BUFFER_SIZE", str(entries))


class Watchdog:
    """`with Watchdog(300.0, folder, rank) as dog:` and `dog.step_finished()` after every step; 0 seconds: never acts.

    The clock begins when it is entered, and runs on while a checkpoint is saved: `seconds` must exceed the longest step. The
    start-up before it and the held-out loss behind it are not watched: there torch's own timeouts of collectives hold.
    """

    def __init__(self, seconds: float, folder: str | Path, rank: int) -> None:
        self._seconds, self._folder, self._rank = seconds, Path(folder), rank
        self._finished = self._armed = time.monotonic()
        self._steps = 0
        self._end = threading.Event()

    def __enter__(self) -> Watchdog:
        if self._seconds:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = open(self._folder / DUMP.format(rank=self._rank), "w", encoding="utf-8")
            self._finished = time.monotonic()
            self._arm()
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end.set()
        if self._seconds:
            faulthandler.cancel_dump_traceback_later()
            self._file.close()
            with contextlib.suppress(FileNotFoundError):
                (self._folder / DUMP.format(rank=self._rank)).unlink()

    def step_finished(self) -> None:
        self._finished = time.monotonic()
        self._steps += 1
        if self._seconds and self._finished - self._armed > 1.0:  # it costs a thread: not at every step
            self._arm()

    def _arm(self) -> None:
        self._armed = time.monotonic()
        faulthandler.dump_traceback_later(self._seconds + _LAST_RESORT, exit=True, file=self._file)

    def _watch(self) -> None:
        while not self._end.wait(min(1.0, self._seconds / 10)):
            if time.monotonic() - self._finished > self._seconds:
                self._dump()
                time.sleep(_GRACE)
                os._exit(EXIT_HUNG)

    def _dump(self) -> None:
        said = (
            f"rank {self._rank}: no step finished within {self._seconds:g} s (train.hang_seconds), {self._steps:,} had before; "
            f"ending with code {EXIT_HUNG}"
        )
        print(f"{said}; stacks are in {self._file.name}", flush=True)
        print(said, file=self._file, flush=True)
        faulthandler.dump_traceback(self._file, all_threads=True)
        self._file.flush()
        for of, flight in flights().items():
            (self._folder / FLIGHT.format(of=of, rank=self._rank)).write_bytes(flight)


def flights() -> dict[str, bytes]:
    """JSON of each flight recorder that this build of torch has and that has recorded anything, by what it records."""
    distributed = sys.modules.get("torch._C._distributed_c10d")
    found = {}
    for of, name in _RECORDERS.items():
        if dump := getattr(distributed, name, None):
            with contextlib.suppress(RuntimeError):
                found[of] = dump()
    return {of: flight for of, flight in found.items() if flight}
