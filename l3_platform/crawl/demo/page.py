"""What the demo web is made of: articles of source text, pages as a server sent them, and the truth about planted ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import pyarrow as pa
import xxhash

T = TypeVar("T")

LEDGER = pa.schema(
    [
        ("snapshot", pa.string()),
        ("url", pa.string()),
        ("warc_file", pa.string()),
        ("warc_offset", pa.int64()),
        ("kind", pa.string()),
        ("stage", pa.string()),  # the stage that should act on the page; empty where none should
        ("expect", pa.string()),  # drop, keep, mask (kept without `detail`), quarantine, any
        ("twin_url", pa.string()),  # the page that it is a version or a copy of
        ("jaccard", pa.float64()),  # with the twin: word 5-gram sets of the visible main text
        ("detail", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class Article:
    """Text for one page, still in its source markup. Each section is a heading (may be empty) and its text."""

    collection: str
    name: str  # dotted name, unique
    markup: str  # rst, markdown or code
    sections: tuple[tuple[str, str], ...]

    @property
    def text(self) -> str:
        return "\n\n".join(text for _, text in self.sections)


@dataclass(frozen=True, slots=True)
class Truth:
    """A row of the ledger, less what the WARC file decides."""

    kind: str
    stage: str
    expect: str
    twin_url: str = ""
    jaccard: float | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """One response. `order` in [0, 1) is its place in the crawl, so a larger one was fetched later."""

    snapshot: str
    url: str
    order: float
    body: bytes
    status: int = 200
    content_type: str = "text/html; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()
    encoding: str = ""  # how the body travelled: chunked, gzip or plain
    fault: str = ""  # how the record is damaged: a key of warc_writer.FAULTS
    truth: Truth | None = None


def draw(*key: object) -> float:
    """A number in [0, 1) that is a pure function of the key: the only source of chance outside Faker."""
    return xxhash.xxh64_intdigest("\x1f".join(map(str, key)).encode()) / 2**64


def pick(options: Sequence[T], *key: object) -> T:
    """One of a sequence, by `draw`."""
    return options[int(draw(*key) * len(options))]
