"""A page's source to its blocks: parse, replace formulas where there are any, serialise, scan."""

from __future__ import annotations

from dataclasses import dataclass
from html import unescape

import numpy as np
from selectolax.lexbor import LexborDocumentOptions, LexborHTMLParser

from l3_platform.extract import scan as s
from l3_platform.extract import tags as t
from l3_platform.extract.features import features
from l3_platform.extract.formulas import mark_formulas
from l3_platform.extract.words import name_statistics, word_statistics

_PLAIN_TREE = LexborDocumentOptions.WO_EVENTS.value  # without the work of keeping mirrored elements up to date
_TABLES = (*t.TAG_TABLE, t.TAG_BITS, *t.ATTRIBUTE_TABLE, *t.ROLE_TABLE)
_NO_HASHES, _NO_BLOCKS = np.zeros(0, np.uint32), np.zeros(0, np.int32)

Table = tuple[np.ndarray, np.ndarray]


class TooDeep(ValueError):
    """Elements nest deeper than the limit: a trap or a broken generator."""


@dataclass(frozen=True)
class Layout:
    """What `scan` finds in a page."""

    title: str
    text: np.ndarray  # uint8, the text of all blocks
    blocks: np.ndarray  # int32 [blocks, BLOCK_COLUMNS]
    bits: np.ndarray  # int64 [blocks], state bits of `tags`
    boxes: np.ndarray  # int32 [containers, CONTAINER_COLUMNS]
    names: np.ndarray  # uint32, hashed class words
    owners: np.ndarray  # int32, the container of each; -1: a type of the page

    def words(self, table: Table) -> np.ndarray:
        """Float32 [blocks, WORD_COLUMNS], with the weights of a table of word hashes."""
        return word_statistics(self.text, self.blocks, self._title(), *table, _NO_HASHES, _NO_BLOCKS)[0]

    def word_pairs(self, table: Table) -> tuple[np.ndarray, np.ndarray]:
        """The hash of every word, and its block."""
        hashes, blocks = np.zeros(len(self.text), np.uint32), np.zeros(len(self.text), np.int32)
        count = word_statistics(self.text, self.blocks, self._title(), *table, hashes, blocks)[1]
        return hashes[:count], blocks[:count]

    def features(self, words: np.ndarray, names: Table) -> np.ndarray:
        """Float32 [blocks, FEATURES + SECOND], with the weights of a table of class words; the last SECOND are 0 still."""
        sums = name_statistics(self.boxes, self.names, self.owners, *names)
        return features(self.blocks, self.bits, self.boxes, self.names, self.owners, words, sums)

    def block(self, i: int) -> str:
        return self.text[self.blocks[i, s.START] : self.blocks[i, s.END]].tobytes().decode("utf-8", "replace")

    def tags(self) -> np.ndarray:
        """int32 [blocks]: of the element that holds each block, as an index of `tags.TAGS`."""
        return self.boxes[self.blocks[:, s.CONTAINER], s.TAG]

    def _title(self) -> np.ndarray:
        return np.frombuffer(self.title.encode(), np.uint8)


def read(slimmed: bytes, max_depth: int) -> Layout:
    """Blocks of a page, whose source `slim` has prepared. Raises TooDeep."""
    tree = LexborHTMLParser(slimmed, options=_PLAIN_TREE)
    html, found = _scanned(tree, max_depth)
    if found[0][s.MATHS] and not found[0][s.STATUS]:
        mark_formulas(tree)
        html, found = _scanned(tree, max_depth)
    page, *tables = found
    if page[s.STATUS]:
        raise TooDeep(f"elements nest deeper than {max_depth}")
    title = unescape(html[page[s.TITLE_START] : page[s.TITLE_END]].decode("utf-8", "replace"))
    return Layout(" ".join(title.split()), *tables)


def _scanned(tree: LexborHTMLParser, max_depth: int) -> tuple[bytes, tuple[np.ndarray, ...]]:
    html = (tree.html or "").encode("utf-8", "replace")
    return html, s.scan(np.frombuffer(html, np.uint8), max_depth, *_TABLES)
