"""What the kernels compute, in plain Python: no word of their code is here."""

from __future__ import annotations

from collections.abc import Sequence

ALL = 2**64 - 1
MULTIPLY, RADIX = 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93


def mix(value: int, first: int, second: int) -> int:
    product = (value ^ first) * MULTIPLY & ALL
    return product ^ product >> 32 ^ second * RADIX & ALL


def hash_bytes(data: bytes, seed: int = 0) -> int:
    for start in range(0, len(data), 16):
        halves = data[start : start + 8], data[start + 8 : start + 16]
        seed = mix(seed, *(int.from_bytes(half, "little") for half in halves))
    return seed


def hash_shingle(shingle: bytes) -> int:
    total = 0
    for word in shingle.split(b" "):
        total = (total * RADIX + hash_bytes(word)) & ALL
    return mix(total, 0, 0)


def jaccard(left: set[int], right: set[int]) -> float:
    return len(left & right) / len(left | right)


def place(components: Sequence[int], sets: Sequence[set[int]], threshold: float) -> list[int]:
    """Position of the representative of each member, earlier members first."""
    placed: list[int] = []
    for member, (component, mine) in enumerate(zip(components, sets, strict=True)):
        stay = [other for other in range(member) if components[other] == component and placed[other] == other]
        placed.append(next((other for other in stay if jaccard(sets[other], mine) >= threshold), member))
    return placed


def components(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """The smallest node that each node can reach."""
    labels = list(range(count))
    for _ in range(count):
        for one, other in edges:
            labels[one] = labels[other] = min(labels[one], labels[other])
    return labels
