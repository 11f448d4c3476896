"""The ledger of a run: which tokens each step consumed, written by the ranks that read them.

A file a data rank and attempt, `ledger/after-00000012-rank-00003.bin`: records of 24 bytes in the order of the steps, none
of them for a step that its attempt did not take. An attempt that resumes at a checkpoint first cuts off what was recorded
past it, so the ledger holds what the weights have seen, each step once, and ranks may be more or fewer every time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from l3_platform.train.data_order import Piece

FOLDER = "ledger"
RECORD = np.dtype(
    [
        ("step", "<i8"),  # counted from 1, as in metrics.jsonl and in the names of checkpoints
        ("start", "<i8"),  # on the endless ring of the domain: epoch · its tokens + the position in its files
        ("tokens", "<i4"),
        ("domain", "<i4"),  # index into the sorted domains of the run's data
    ]
)


class Ledger:
    """What one data rank has consumed since step `resumed_step`. One process a data rank writes; call `rewind` before."""

    def __init__(self, folder: str | Path, domains: Sequence[str], resumed_step: int, data_rank: int) -> None:
        path = Path(folder) / FOLDER / f"after-{resumed_step:08d}-rank-{data_rank:05d}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._domains = {domain: index for index, domain in enumerate(sorted(domains))}
        self._file = open(path, "wb")  # noqa: SIM115 - held for the life of the run

    def add(self, step: int, piece: Piece) -> None:
        record = (step, piece.start, piece.tokens, self._domains[piece.domain])
        self._file.write(np.array(record, RECORD).tobytes())

    def flush(self) -> None:
        """To disk: before a checkpoint, which is to find its steps here."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def rewind(folder: str | Path, step: int) -> None:
    """Forgets everything after `step`. One process alone, before any `Ledger` of the attempt is opened."""
    for path, resumed in _files(folder):
        if resumed >= step:
            path.unlink()
            continue
        kept = int(np.searchsorted(_records(path)["step"], step, side="right")) * RECORD.itemsize
        if kept < path.stat().st_size:
            os.truncate(path, kept)


def read(folder: str | Path, first_step: int = 1, last_step: int | None = None) -> np.ndarray:
    """RECORD [pieces] of steps first to last, by step, domain and start: equal for equal data, however many ranks read it."""
    parts = [np.empty(0, RECORD)]
    for path, resumed in _files(folder):
        if last_step is not None and resumed >= last_step:
            continue
        records = _records(path)
        end = len(records) if last_step is None else np.searchsorted(records["step"], last_step, side="right")
        parts.append(np.array(records[np.searchsorted(records["step"], first_step) : end]))
    found = np.concatenate(parts)
    return found[np.lexsort((found["start"], found["domain"], found["step"]))]


def exists(folder: str | Path) -> bool:
    return (Path(folder) / FOLDER).is_dir()


def consumed(folder: str | Path, domains: Sequence[str], bounds: Sequence[int]) -> list[dict[str, int]]:
    """Tokens of each domain in the steps up to each of `bounds`, since the one before: what the run was fed in fact."""
    names = sorted(domains)
    totals = np.zeros((len(bounds), len(names)), np.int64)
    for path, _ in _files(folder):
        records = _records(path)
        legs = np.searchsorted(bounds, records["step"], side="left")
        inside = legs < len(bounds)
        np.add.at(totals, (legs[inside], records["domain"][inside]), records["tokens"][inside])
    return [dict(zip(names, map(int, row), strict=True)) for row in totals]


def _files(folder: str | Path) -> Iterator[tuple[Path, int]]:
    """Files of a run and the step after which each begins."""
    for path in sorted((Path(folder) / FOLDER).glob("after-*-rank-*.bin")):
        yield path, int(path.name.split("-")[1])


def _records(path: Path) -> np.ndarray:
    """Memory-mapped; a record that a crash cut short is left out."""
    count = path.stat().st_size // RECORD.itemsize
    return np.memmap(path, RECORD, "r", shape=(count,)) if count else np.empty(0, RECORD)
