"""A keyed shuffle of any number of things in O(1) memory, and its inverse: a Feistel network with cycle walking
(Black and Rogaway 2002). Nothing is ever listed: 15 T tokens are shuffled by arithmetic."""

from __future__ import annotations

import hashlib

ROUNDS = 4


def permute(index: int, size: int, key: int) -> int:
    """Where the shuffle puts `index`, of range(size)."""
    half, mask = _half(size)
    while True:
        left, right = index >> half, index & mask
        for turn in range(ROUNDS):
            left, right = right, left ^ _round(right, turn, key, mask)
        index = left << half | right
        if index < size:
            return index


def unpermute(index: int, size: int, key: int) -> int:
    """What the shuffle puts at `index`: the inverse of `permute`."""
    half, mask = _half(size)
    while True:
        left, right = index >> half, index & mask
        for turn in reversed(range(ROUNDS)):
            left, right = right ^ _round(left, turn, key, mask), left
        index = left << half | right
        if index < size:
            return index


def _half(size: int) -> tuple[int, int]:
    """Bits of each half of a block that holds range(size), and their mask."""
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    return half, (1 << half) - 1


def _round(half: int, turn: int, key: int, mask: int) -> int:
    return mix(key + (turn << 56) + half) & mask


def mix(value: int) -> int:
    """splitmix64 (Steele et al. 2014)."""
    value = (value + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return value ^ (value >> 31)


def key_of(seed: int, name: str) -> int:
    """64 bits for a name under a seed."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest(), "little")
