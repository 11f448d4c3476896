"""The decoded bytes from the current record on, and where in them the file's members begin and fail."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from l3_platform.crawl.members import Damage, Piece
from l3_platform.crawl.record import OPENING_BYTES, find_record, opens_record

_PADDING = re.compile(rb"[\r\n\0]*")


@dataclass(frozen=True, slots=True)
class _Edge:
    """Where a record must end: a member that opens another begins at this stream position, or the bytes are damaged."""

    position: int
    damage: Damage | None


@dataclass(frozen=True, slots=True)
class Gap:
    """What was passed over to reach the next record: decoded bytes, whether they end like a whole record, damage."""

    passed: int
    whole: bool
    raw_end: int
    damage: Damage | None


class Window:
    """A buffer that begins with the current record; a record never runs on past a member that opens another."""

    def __init__(self, pieces: Iterator[Piece | Damage], plain: bool) -> None:
        self.pieces, self.plain = pieces, plain
        self.buffer = bytearray()
        self.base = 0  # stream position of buffer[0]
        self.member = 0  # file position of the member that buffer[0] lies in
        self.members: deque[tuple[int, int]] = deque()  # later members: stream position, file position
        self.edges: deque[_Edge] = deque()
        self.extents: deque[tuple[int, int]] = deque()  # stream position up to which, file position
        self.ahead: Piece | Damage | None = None  # the next piece, not taken in yet

    @property
    def offset(self) -> int:
        """File position of the current record, or of the member that it lies in."""
        return self.base if self.plain else self.member

    def next_record(self) -> Piece | Damage | bool:
        """Move over padding to the next record: True there, False at the end, or damage that hits no open record.

        A piece is a whole member at a place where a record may begin: `take_in` it, unless it is a record by itself.
        """
        while True:
            while self.edges and self.edges[0].position == self.base:
                damage = self.edges.popleft().damage
                if damage:
                    return damage
            if self.buffer:
                padding = _PADDING.match(self.buffer, 0, self._stop())
                self.advance(padding.end() if padding else 0)
                if self._stop():
                    return True
            if not self.edges:
                piece = self._next()
                if piece is None:
                    return False
                if isinstance(piece, Piece) and piece.whole:
                    return piece
                self.take_in(piece)

    def reach(self, size: int) -> int:
        """How many of the next `size` bytes belong to the current record's region, pulling what is missing."""
        while not self.edges and len(self.buffer) < size and self._pull():
            pass
        return min(self._stop(), size)

    def advance(self, size: int) -> None:
        """Drop the first `size` bytes, none of them past an edge."""
        del self.buffer[:size]
        self.base += size
        while self.members and self.members[0][0] <= self.base:
            self.member = self.members.popleft()[1]
        while len(self.extents) > 1 and self.extents[0][0] < self.base:
            self.extents.popleft()

    def member_begins(self, size: int) -> bool:
        """Whether a member of the file begins after `size` bytes."""
        return any(position == self.base + size for position, _ in reversed(self.members))

    def raw_end(self, size: int) -> int:
        """File position up to which the first `size` bytes reach."""
        if self.plain:
            return self.base + size
        return next((raw for position, raw in self.extents if position >= self.base + size), self.offset)

    def damage_at(self, size: int, end: int) -> Damage | None:
        """Damage up to `end` of the member that byte `size - 1` lies in; the damage is taken off the window."""
        edge = self.edges[0] if self.edges else None
        if edge is None or edge.damage is None or edge.position > self.base + end:
            return None
        inside = (member for position, member in reversed(self.members) if position < self.base + size)
        return self._take_damage() if edge.damage.offset == next(inside, self.member) else None

    def skip(self) -> Gap:
        """Move to the next place where a record may begin: on a line of its own, at a member, or after damage."""
        start, tail = self.base, b""
        while True:
            stop = self._stop()
            found = find_record(self.buffer, 0, stop)
            if found is not None or self.edges or not self._pull():
                break
            # The first line of the next record may still be incomplete.
            keep = max(stop - OPENING_BYTES, 0)
            tail = (tail + bytes(self.buffer[max(keep - 4, 0) : keep]))[-4:]
            self.advance(keep)
        end = stop if found is None else found
        tail = (tail + bytes(self.buffer[max(end - 4, 0) : end]))[-4:]
        raw_end = self.raw_end(end)
        self.advance(end)
        damage = self._take_damage() if found is None else None
        return Gap(self.base - start, tail == b"\r\n\r\n", damage.end if damage else raw_end, damage)

    def _stop(self) -> int:
        """How far the current record may reach in what is buffered."""
        return self.edges[0].position - self.base if self.edges else len(self.buffer)

    def _take_damage(self) -> Damage | None:
        return self.edges.popleft().damage if self.edges and self.edges[0].damage else None

    def _next(self) -> Piece | Damage | None:
        piece, self.ahead = self.ahead or next(self.pieces, None), None
        return piece

    def _pull(self) -> bool:
        """Take in the next piece; False at the end of the file. A whole record's member only ends the current record."""
        piece = self._next()
        if piece is None:
            return False
        if isinstance(piece, Piece) and piece.whole and self.buffer and opens_record(piece.data):
            self.edges.append(_Edge(self.base + len(self.buffer), None))
            self.ahead = piece
        else:
            self.take_in(piece)
        return True

    def take_in(self, piece: Piece | Damage) -> None:
        """Put a piece behind what is buffered."""
        position = self.base + len(self.buffer)
        if isinstance(piece, Damage):
            self.edges.append(_Edge(position, piece))
            return
        if piece.opens is not None and piece.data:
            self.members.append((position, piece.opens))
            if opens_record(piece.data):
                self.edges.append(_Edge(position, None))
        self.buffer += piece.data
        if piece.data or not self.extents:
            self.extents.append((position + len(piece.data), piece.raw_end))
        elif self.extents[-1][0] == position:
            self.extents[-1] = (position, piece.raw_end)
