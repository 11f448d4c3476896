"""Word and domain lists, one entry a line, read once a process."""

from __future__ import annotations

from functools import lru_cache

import fsspec


@lru_cache(maxsize=64)
def read_words(path: str) -> tuple[str, ...]:
    """Entries of a list: lines without white space around them, empty ones and `#` comments left out. `path` is an fsspec URL.

    Raises FileNotFoundError, naming the path and what to check.
    """
    try:
        with fsspec.open(path, "r", encoding="utf-8", errors="replace") as stream:
            lines = stream.read().splitlines()  # pyright: ignore[reportAttributeAccessIssue]
    except FileNotFoundError:
        raise FileNotFoundError(f"list {path!r} does not exist; check the settings that name lists") from None
    return tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))
