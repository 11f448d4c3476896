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
class _Mark:
    """Something at a position of the decoded stream: a member begins there, or the bytes before it are damaged."""

    position: int
    member: int  # file position
    opens: bool = False  # the member begins with a record
    damage: Damage | None = None


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
        self.marks: deque[_Mark] = deque()
        self.extents: deque[tuple[int, int]] = deque()  # stream position up to which, file position

    @property
    def offset(self) -> int:
        """File position of the current record, or of the member that it lies in."""
        return self.base if self.plain else self.member

    def next_record(self) -> Damage | bool:
        """Move over padding to the next record: True there, False at the end, or damage that hits no open record."""
        while True:
            while self.marks and self.marks[0].position == self.base:
                mark = self.marks.popleft()
                if mark.damage:
                    return mark.damage
                self.member = mark.member
            stop = self.marks[0].position - self.base if self.marks else len(self.buffer)
            padding = _PADDING.match(self.buffer, 0, stop)
            self.advance(padding.end() if padding else 0)
            if self.buffer and (not self.marks or self.marks[0].position > self.base):
                return True
            if not self.marks and not self._pull():
                return False

    def reach(self, size: int) -> int:
        """How many of the next `size` bytes belong to the current record's region, pulling what is missing."""
        while True:
            edge = self._edge()
            if edge is not None:
                return min(edge.position - self.base, size)
            if len(self.buffer) >= size or not self._pull():
                return min(len(self.buffer), size)

    def advance(self, size: int) -> None:
        """Drop the first `size` bytes. Marks at the new beginning stay for `next_record`."""
        del self.buffer[:size]
        self.base += size
        while self.marks and self.marks[0].position < self.base:
            self.member = self.marks.popleft().member
        while len(self.extents) > 1 and self.extents[0][0] < self.base:
            self.extents.popleft()

    def raw_end(self, size: int) -> int:
        """File position up to which the first `size` bytes reach."""
        if self.plain:
            return self.base + size
        return next((raw for position, raw in self.extents if position >= self.base + size), self.offset)

    def damage_at(self, size: int, end: int) -> Damage | None:
        """Damage up to `end` of the member that byte `size - 1` lies in; the damage is taken off the window."""
        edge = self._edge()
        if edge is None or edge.damage is None or edge.position > self.base + end:
            return None
        inside = [m.member for m in self.marks if m.position < self.base + size and not m.damage]
        if edge.damage.offset != (inside[-1] if inside else self.member):
            return None
        self.marks.remove(edge)
        return edge.damage

    def skip(self) -> Gap:
        """Move to the next place where a record may begin: on a line of its own, at a member, or after damage."""
        start, search, tail = self.base, 1, b""
        while True:
            edge = self._edge()
            stop = edge.position - self.base if edge else len(self.buffer)
            found = find_record(self.buffer, max(search - 1, 0), stop)
            if found is None and edge is None and self._pull():
                # The first line of the next record may still be incomplete.
                keep = max(stop - OPENING_BYTES, 0)
                tail = bytes(self.buffer[max(keep - 4, 0) : keep]) or tail
                self.advance(keep)
                search = 1
                continue
            stop = stop if found is None else found
            tail = (tail + bytes(self.buffer[max(stop - 4, 0) : stop]))[-4:]
            raw_end = self.raw_end(stop)
            self.advance(stop)
            damage = edge.damage if edge and found is None else None
            if damage and edge:
                self.marks.remove(edge)
                raw_end = damage.end
            return Gap(self.base - start, tail == b"\r\n\r\n", raw_end, damage)

    def _edge(self) -> _Mark | None:
        """The first mark at which the current record must end."""
        return next((m for m in self.marks if (m.opens or m.damage) and m.position > self.base), None)

    def _pull(self) -> bool:
        piece = next(self.pieces, None)
        if piece is None:
            return False
        position = self.base + len(self.buffer)
        if isinstance(piece, Damage):
            self.marks.append(_Mark(position, piece.offset, damage=piece))
            return True
        if piece.opens is not None and piece.data:
            self.marks.append(_Mark(position, piece.opens, opens_record(piece.data)))
        self.buffer += piece.data
        if piece.data or not self.extents:
            self.extents.append((position + len(piece.data), piece.raw_end))
        elif self.extents[-1][0] == position:
            self.extents[-1] = (position, piece.raw_end)
        return True
