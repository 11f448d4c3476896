"""What the ranks of a hung attempt left behind: who waited, where, and who never said a word."""

from __future__ import annotations

import re
from pathlib import Path


def hung_ranks(logs: Path) -> str:
    """In words; empty where nothing hung. A rank dumps its stacks when its step does not end (`train/watchdog.py`); the one that
    the others waited for can be so stuck, or stopped, that it dumps nothing."""
    ranks = {int(path.stem.removeprefix("rank-")) for path in logs.glob("rank-*.log")}
    dumps = {int(path.stem.removeprefix("hang-")): path for path in sorted(logs.glob("hang-*.txt")) if path.stat().st_size}
    if not dumps:
        return ""
    first = min(dumps)
    said = f"{_named(sorted(dumps))} dumped stacks, rank {first} waited in {hung_in(dumps[first].read_text(errors='replace'))}"
    silent = sorted(ranks - set(dumps))
    return f"{said}; {_named(silent)} left none: look there first" if silent else said


def hung_in(dump: str) -> str:
    """The functions that the main thread was in, the innermost first, from faulthandler's text; it prints that thread last."""
    main = dump.rpartition("(most recent call first):")[2]
    frames = re.findall(r'File "([^"]+)", line (\d+) in (\S+)', main)
    return " < ".join(f"{name} ({Path(file).name}:{line})" for file, line, name in frames[:4]) or "no Python function"


def _named(ranks: list[int]) -> str:
    shown = ", ".join(map(str, ranks[:8])) + (", ..." if len(ranks) > 8 else "")
    return f"rank{'s' if len(ranks) > 1 else ''} {shown}"
