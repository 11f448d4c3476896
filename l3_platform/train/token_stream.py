"""A domain's token files as one endless ring, memory-mapped."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np


class TokenStream:
    """Files of raw little-endian uint32, end to end, again and again; a read may straddle files and the end.

    Raises ValueError on a file that is cut inside a token.
    """

    def __init__(self, files: Sequence[str]) -> None:
        self._maps: list[np.ndarray] = []
        for file in files:
            size = os.path.getsize(file)
            if size % 4:
                raise ValueError(f"{file}: {size} bytes is not a whole number of uint32 tokens; write the shard again")
            if size:
                self._maps.append(np.memmap(file, dtype="<u4", mode="r"))
        self._ends = np.cumsum([len(tokens) for tokens in self._maps], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if self._maps else 0

    def read(self, start: int, count: int) -> np.ndarray:
        """uint32 [count] from ring position `start`."""
        pieces = []
        position = start % len(self)
        while count:
            file = int(np.searchsorted(self._ends, position, side="right"))
            tokens = self._maps[file]
            inside = position - (int(self._ends[file]) - len(tokens))
            piece = tokens[inside : inside + count]
            pieces.append(piece)
            count -= len(piece)
            position = (position + len(piece)) % len(self)
        return np.concatenate(pieces)
