"""Which tokens a step sees: a pure function of (seed, token position), whatever the number of ranks.

The run is cut into units as long as its longest sequence. Unit `u` belongs to one domain (low-discrepancy: every prefix
of the run holds the shares to within a few units) and is the n-th unit of that domain, which a keyed permutation maps
to a window of the domain's token files. A sequence is a slice of a unit, so each token is seen once an epoch by every
batch ramp, sequence length and mesh.

Where the shares or the unit change (another mix, longer sequences), a new segment begins. It goes on in each domain at
the share of an epoch that the segments before have read: with the same unit at the very next window; with another, whose
windows are other ones in another order, a token read before may come again within the epoch. NumPy only.
"""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from l3_platform.settings import Stage

_ONE = 1 << 32  # shares and phases as integers over 2^32: exact at any position, unlike floats past 2^53


@dataclass(frozen=True)
class Step:
    """Tokens [start, start + tokens) of the run, as sequences of `seq_len`."""

    index: int
    start: int
    tokens: int
    seq_len: int

    @property
    def sequences(self) -> int:
        return self.tokens // self.seq_len

    @property
    def end(self) -> int:
        return self.start + self.tokens


@dataclass(frozen=True)
class Segment:
    """From token `from_tokens` on, windows of `unit` tokens from the domains by `shares`."""

    from_tokens: int
    unit: int
    shares: Mapping[str, float]


def steps(ramp: Sequence[Stage], total_tokens: int, index: int = 0, position: int = 0) -> Iterator[Step]:
    """All steps of a run that begins with step `index` at token `position`, 0 but for a branch. Batch and sequence length
    follow the tokens consumed, never step counts (Llama 3, 3.4.1)."""
    total = whole_units(ramp, total_tokens, position)
    starts = [stage.from_tokens for stage in ramp]
    while position < total:
        stage = ramp[bisect_right(starts, position) - 1]
        step = Step(index, position, min(stage.batch_tokens, total - position), stage.seq_len)
        yield step
        position, index = step.end, index + 1


def whole_units(ramp: Sequence[Stage], total_tokens: int, position: int = 0) -> int:
    """Where a run to `total_tokens` ends that begins at `position`: after whole sequences of the longest length."""
    unit = max(stage.seq_len for stage in ramp)
    return position + (total_tokens - position) // unit * unit


def segments_of(parents: Sequence[Segment], position: int, unit: int, shares: Mapping[str, float]) -> tuple[Segment, ...]:
    """The segments of a run that begins at `position`: a new one where its shares or its unit are not its parent's."""
    shares = {domain: share for domain, share in sorted(shares.items()) if share > 0}
    if parents and (parents[-1].unit, dict(parents[-1].shares)) == (unit, shares):
        return tuple(parents)
    return (*parents, Segment(position, unit, shares))


class DataOrder:
    """`sequence(position, seq_len)` for any position of the last segment that is a multiple of `seq_len` from its start.

    Raises ValueError where a domain with a share holds no token.
    """

    def __init__(self, streams: Mapping[str, TokenStream], segments: Sequence[Segment], seed: int) -> None:
        last = segments[-1]
        self.unit, self._from = last.unit, last.from_tokens
        self._split = _Split(last.shares, seed)
        self.domains = self._split.domains
        for domain in self.domains:
            if len(streams[domain]) == 0:
                raise ValueError(f"data: domain {domain!r} has a share of {last.shares[domain]} but its files hold no token")
        self._streams = [streams[domain] for domain in self.domains]
        self._keys = [_hash(seed, domain) for domain in self.domains]
        read = _tokens_read(segments, seed)
        self._first = [-(-read.get(domain, 0) // self.unit) for domain in self.domains]

    def sequence(self, position: int, seq_len: int) -> np.ndarray:
        """uint32 [seq_len + 1]: the inputs, and one token more, the last target."""
        unit, offset = divmod(position - self._from, self.unit)
        domain, number = self.place(unit)
        stream = self._streams[domain]
        windows = max(1, len(stream) // self.unit)
        epoch, index = divmod(number, windows)
        window = epoch * windows + permute(index, windows, _mix(self._keys[domain] + epoch))
        # Windows tile the files end to end again and again: the rest of an epoch begins the next, and none is lost.
        return stream.read(window * self.unit + offset, seq_len + 1)

    def place(self, unit: int) -> tuple[int, int]:
        """(index into `domains`, number of the unit inside that domain) of a unit of the last segment."""
        domain, number = self._split.place(unit)
        return domain, self._first[domain] + number


def _tokens_read(segments: Sequence[Segment], seed: int) -> dict[str, int]:
    """Tokens of each domain that all segments but the last have read."""
    read: dict[str, int] = {}
    for segment, following in pairwise(segments):
        split = _Split(segment.shares, seed)
        units = split.counts((following.from_tokens - segment.from_tokens) // segment.unit)
        for domain, count in zip(split.domains, units, strict=True):
            read[domain] = read.get(domain, 0) + count * segment.unit
    return read


class _Split:
    """Which domain a unit of a segment belongs to, every prefix holding the shares to within a few units."""

    def __init__(self, shares: Mapping[str, float], seed: int) -> None:
        self.domains = sorted(domain for domain, share in shares.items() if share > 0)
        # Share of each domain among those not yet decided: a chain of two-way splits needs no table of past choices.
        rest = np.cumsum([shares[domain] for domain in self.domains][::-1])[::-1]
        self._splits = [round(shares[domain] / float(left) * _ONE) for domain, left in zip(self.domains, rest, strict=True)]
        self._splits[-1] = _ONE
        self._phases = [_hash(seed, f"phase of {domain}") % _ONE for domain in self.domains]

    def place(self, unit: int) -> tuple[int, int]:
        """(index into `domains`, number of the unit among the segment's of that domain)."""
        for domain, (split, phase) in enumerate(zip(self._splits, self._phases, strict=True)):
            before, after = (unit * split + phase) // _ONE, ((unit + 1) * split + phase) // _ONE
            if after > before:
                return domain, before
            unit -= before
        raise AssertionError("the last domain takes every unit that reaches it")

    def counts(self, units: int) -> list[int]:
        """Of the first so many units, those of each domain."""
        found = []
        for split, phase in zip(self._splits, self._phases, strict=True):
            found.append((units * split + phase) // _ONE)
            units -= found[-1]
        return found


class TokenStream:
    """Token files as one endless ring, memory-mapped; a read may straddle files and the end."""

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


def permute(index: int, size: int, key: int) -> int:
    """A keyed permutation of range(size): Feistel network with cycle walking (Black and Rogaway 2002)."""
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    while True:
        left, right = index >> half, index & mask
        for turn in range(4):
            left, right = right, left ^ (_mix(key + (turn << 56) + right) & mask)
        index = left << half | right
        if index < size:
            return index


def _mix(value: int) -> int:
    """splitmix64 (Steele et al. 2014)."""
    value = (value + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return value ^ (value >> 31)


def _hash(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest(), "little")
