"""Which tokens a step sees: a pure function of (seed, token position), whatever the number of ranks; and its inverse.

The run is cut into units as long as its longest sequence. Unit `u` is the n-th unit of one domain (`interleave`), and
that reads a window of the domain's token files. Windows tile the files end to end, again and again; a keyed permutation
shuffles those that lie whole inside one epoch, and the one that ends an epoch and begins the next stays between them. So
an epoch holds each token of the domain exactly once, at any number of tokens, and a sequence is a slice of a unit, so this
is true of every batch ramp, sequence length, mesh and change of the mixture. Plain arithmetic: nothing is listed or stored.

A run that branches from another with a mixture or unit of its own begins in each domain where that one had come to: with the
same unit at the very next window; with another, whose windows are other ones in another order, a token read before may come
again within the epoch.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from l3_platform.settings import Stage
from l3_platform.train.interleave import Interleave, Mixture
from l3_platform.train.permutation import key_of, mix, permute, unpermute

Shuffle = Callable[[int, int, int], int]


@dataclass(frozen=True)
class Step:
    """Tokens [start, start + tokens) of the run, as sequences of `seq_len`. `index` counts from 0."""

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


def steps(ramp: Sequence[Stage], total_tokens: int, index: int = 0, start: int = 0) -> Iterator[Step]:
    """All steps of a run that begins with step `index` at token `start`, 0 but for a branch. Batch and sequence length follow
    the tokens consumed, never step counts (Llama 3, 3.4.1)."""
    for leg in _legs(ramp, total_tokens, index, start):
        for number in range(leg.steps):
            yield leg.step(number)


def step_at(ramp: Sequence[Stage], total_tokens: int, position: int, index: int = 0, start: int = 0) -> Step | None:
    """The step that holds token `position` of the run; None before its beginning and past its end."""
    legs = [leg for leg in _legs(ramp, total_tokens, index, start) if leg.steps]
    if not legs or not start <= position < legs[-1].end:
        return None
    leg = legs[bisect_right([leg.start for leg in legs], position) - 1]
    return leg.step((position - leg.start) // leg.stage.batch_tokens)


@dataclass(frozen=True)
class _Leg:
    """Steps of one stage of the ramp; the last step of a run may be shorter than the stage's batch."""

    index: int
    start: int
    end: int
    stage: Stage

    @property
    def steps(self) -> int:
        return -(-(self.end - self.start) // self.stage.batch_tokens)

    def step(self, number: int) -> Step:
        start = self.start + number * self.stage.batch_tokens
        return Step(self.index + number, start, min(self.stage.batch_tokens, self.end - start), self.stage.seq_len)


def whole_units(ramp: Sequence[Stage], total_tokens: int, start: int = 0) -> int:
    """Where a run to `total_tokens` ends that begins at token `start`: after whole sequences of the longest length."""
    unit = max(stage.seq_len for stage in ramp)
    return start + (total_tokens - start) // unit * unit


def _legs(ramp: Sequence[Stage], total_tokens: int, index: int, start: int) -> Iterator[_Leg]:
    total, position = whole_units(ramp, total_tokens, start), start
    for stage, until in zip(ramp, [*(later.from_tokens for later in ramp[1:]), total], strict=True):
        count = max(0, -(-(min(until, total) - position) // stage.batch_tokens))
        leg = _Leg(index, position, min(position + count * stage.batch_tokens, total), stage)
        yield leg
        position, index = leg.end, index + count


class Piece(NamedTuple):
    """Tokens [start, start + tokens) of a domain's endless ring: epoch · its tokens + the position in its files."""

    domain: str
    start: int
    tokens: int


class Occurrence(NamedTuple):
    """A piece of what was looked for, and the token of the run at which it is read; None where it never is."""

    piece: Piece
    position: int | None


class DataOrder:
    """`piece(position, seq_len)` for any position of the run that is a multiple of `seq_len` from the `start` of the order.

    `sizes` are the tokens of each domain, `before` those that were read of its ring before the start. Raises ValueError where
    a domain with a share holds no token.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        mixtures: Sequence[Mixture],
        unit: int,
        seed: int,
        start: int = 0,
        before: Mapping[str, int] | None = None,
    ) -> None:
        self.unit, self.start = unit, start
        self._sizes, self._before = sizes, dict(before or {})
        units = {domain: -(-tokens // unit) for domain, tokens in self._before.items()}
        self._interleave = Interleave(mixtures, unit, seed, start, units)
        for domain in self._interleave.domains:
            if not sizes.get(domain):
                raise ValueError(f"data: domain {domain!r} has a share of the mix but its files hold no token")
        self._keys = {domain: key_of(seed, domain) for domain in self._interleave.domains}

    @property
    def domains(self) -> list[str]:
        """Those with a share at any time."""
        return self._interleave.domains

    def piece(self, position: int, seq_len: int) -> Piece:
        """What the sequence at a position of the run reads."""
        unit, offset = divmod(position - self.start, self.unit)
        domain, number = self._interleave.place(unit)
        return Piece(domain, self._shuffled(domain, number, permute) * self.unit + offset, seq_len)

    def read_until(self, position: int) -> dict[str, int]:
        """Tokens of each domain's ring that are read before a position of the run, those before the start included."""
        units = self._interleave.before((position - self.start) // self.unit)
        return self._before | {domain: count * self.unit for domain, count in units.items()}

    def occurrences(self, domain: str, start: int, tokens: int, total_tokens: int) -> list[Occurrence]:
        """Where a run reads tokens [start, start + tokens) of a domain's files: in the order of the run, a piece a unit.

        The inverse of `piece`: every epoch that begins within `total_tokens`, and the next one even where it comes later.
        Empty where the domain has no share.
        """
        if domain not in self._keys:
            return []
        size = self._sizes[domain]
        begins = -(-self._before.get(domain, 0) // self.unit) * self.unit  # on the ring; the next whole window of this unit
        read = self._interleave.before(-(-(total_tokens - self.start) // self.unit))[domain] * self.unit
        begun = begins // size
        found = []
        for epoch in range(begun, max(begun + (2 if begins % size else 1), -(-read // size))):
            at = epoch * size + start
            for window in range(at // self.unit, (at + tokens - 1) // self.unit + 1):
                first = max(at, window * self.unit)
                piece = Piece(domain, first, min(at + tokens, (window + 1) * self.unit) - first)
                found.append(Occurrence(piece, self._position(domain, window, first)))
        return sorted(found, key=lambda one: (one.position is None, one.position))

    def _position(self, domain: str, window: int, ring: int) -> int | None:
        unit = self._interleave.unit_of(domain, self._shuffled(domain, window, unpermute))
        return None if unit is None else self.start + unit * self.unit + ring - window * self.unit

    def _shuffled(self, domain: str, number: int, shuffle: Shuffle) -> int:
        """The window that the domain's n-th unit reads, or with `unpermute` the unit that reads the n-th window."""
        size = self._sizes[domain]
        epoch = number * self.unit // size
        if (number + 1) * self.unit > (epoch + 1) * size:
            return number  # it ends this epoch and begins the next
        first = -(-epoch * size // self.unit)
        count = (epoch + 1) * size // self.unit - first
        return first + shuffle(number - first, count, mix(self._keys[domain] + epoch))
