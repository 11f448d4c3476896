"""The needle in a haystack: is a fact found again wherever it stands in a long text? (Kamradt 2023; Llama 3, 3.4.2)

The haystack is held-out text without its document boundaries, the needle a sentence that gives a key its number, and the
end of the text asks for it. The answer is the candidate of the fewest nats, among as many numbers as
`long_context.needle_choices`: models too small to write a number can still be told from chance, which is one in so many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from l3_platform.settings import LongContext
from l3_platform.train.probes import Probe
from l3_platform.train.token_stream import TokenStream

KEYS = (
    *("Lisbon", "Nairobi", "Kyoto", "Quito", "Tallinn", "Perth", "Hanoi", "Oslo", "Tunis", "Bogota", "Riga", "Accra"),
    *("Seville", "Ankara", "Lima", "Zagreb", "Dakar", "Bergen", "Jaipur", "Ghent"),
)
MIN_HAY = 16  # tokens of text beside the needle; a shorter length is left out
AT_CHANCE = 0.05  # of a one-sided binomial test

CELLS = pa.schema(
    [
        ("length", pa.int64()),  # tokens
        ("depth", pa.float64()),  # of the needle: 0 at the start of the text, 1 at its end
        ("trials", pa.int64()),
        ("found", pa.int64()),
        ("accuracy", pa.float64()),
    ]
)
Encode = Callable[[Sequence[str]], list[list[int]]]


@dataclass(frozen=True)
class Needle:
    """A question, and which of its choices is right."""

    probe: Probe
    depth: float
    answer: int


def needles(
    held_out: Mapping[str, Sequence[str]],
    encode: Encode,
    *,
    bos_id: int,
    eos_id: int,
    lengths: Sequence[int],
    settings: LongContext,
    seed: int,
) -> list[Needle]:
    """`needle_trials` questions a length and depth, a pure function of the arguments.

    held_out: token files by domain, of which the largest is the haystack, repeated where it is too short. `encode` gives
    the token ids of texts. Lengths without room for a needle in a little text are left out.
    """
    hay = _haystack(held_out, bos_id, eos_id)
    depths = np.linspace(0.0, 1.0, settings.needle_depths) if settings.needle_depths > 1 else np.array([0.5])
    found = []
    for length in lengths:
        for depth in depths.tolist():
            for trial in range(settings.needle_trials):
                random = np.random.default_rng([seed, length, round(depth * 1000), trial])
                one = _needle(hay, encode, bos_id, length, depth, settings.needle_choices, random)
                found += [one] if one else []
    return found


def cells(asked: Sequence[Needle], nats: Sequence[Sequence[float]]) -> pa.Table:
    """A row of `CELLS` a length and depth. `nats`: a row a needle, of each of its choices."""
    by_cell: dict[tuple[int, float], list[bool]] = {}
    for needle, scores in zip(asked, nats, strict=True):
        right = int(np.argmin(scores)) == needle.answer
        by_cell.setdefault((needle.probe.length, needle.depth), []).append(right)
    rows = [
        {"length": length, "depth": depth, "trials": len(right), "found": sum(right), "accuracy": sum(right) / len(right)}
        for (length, depth), right in sorted(by_cell.items())
    ]
    return pa.Table.from_pylist(rows, schema=CELLS)


@dataclass(frozen=True)
class Finding:
    """What a table of `CELLS` says. `p_value`: of so many found by choosing blindly."""

    accuracy: float
    worst: float  # of a length and depth
    chance: float
    p_value: float

    @property
    def in_words(self) -> str:
        said = f"{self.accuracy:.0%} found where blind choice finds {self.chance:.0%}"
        return f"{said}: at chance" if self.p_value > AT_CHANCE else f"{said} (p = {self.p_value:.2g})"


def finding(table: pa.Table, choices: int) -> Finding | None:
    """None where there was no room to ask anything."""
    from scipy.stats import binomtest

    rows = table.to_pylist()
    if not rows:
        return None
    trials, found = (sum(row[name] for row in rows) for name in ("trials", "found"))
    blind = binomtest(found, trials, 1 / choices, alternative="greater")
    return Finding(found / trials, min(row["accuracy"] for row in rows), 1 / choices, float(blind.pvalue))


def _haystack(held_out: Mapping[str, Sequence[str]], bos_id: int, eos_id: int) -> np.ndarray:
    """Token ids without document boundaries, which would hide the needle from the question."""
    streams = {domain: TokenStream(files) for domain, files in held_out.items()}
    stream = max(streams.items(), key=lambda item: (len(item[1]), item[0]), default=("", TokenStream(())))[1]
    ids = stream.read(0, len(stream)) if len(stream) else np.zeros(0, np.uint32)
    ids = ids[(ids != bos_id) & (ids != eos_id)]
    if not len(ids):
        raise ValueError("needle: there is no held-out text for a haystack; raise mix.held_out_share or bring more documents")
    return ids


def _needle(
    hay: np.ndarray, encode: Encode, bos_id: int, length: int, depth: float, choices: int, random: np.random.Generator
) -> Needle | None:
    key = KEYS[random.integers(len(KEYS))]
    numbers = list(_different_numbers(choices, random))
    statement, newline, *values = encode([f"\nThe secret number of {key} is", "\n", *(f" {number}." for number in numbers)])
    answer = int(random.integers(choices))
    needle = [*statement, *values[answer], *newline]
    room = length + 1 - 1 - len(needle) - len(statement) - max(map(len, values))
    if room < MIN_HAY:
        return None
    text = np.take(hay, np.arange(room) + random.integers(len(hay)), mode="wrap").tolist()
    place = round(depth * room)
    context = (bos_id, *text[:place], *needle, *text[place:], *statement)
    return Needle(Probe(length, context, tuple(map(tuple, values))), depth, answer)


def _different_numbers(count: int, random: np.random.Generator) -> Iterator[int]:
    seen: set[int] = set()
    while len(seen) < count:
        number = int(random.integers(1_000_000, 10_000_000))
        if number not in seen:
            seen.add(number)
            yield number
