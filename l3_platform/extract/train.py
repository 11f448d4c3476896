"""Makes the weights of the extractor from pages with gold text, and says what they are worth: five-fold, no site in two folds.

    python -m l3_platform.extract.train wcxb-dev.parquet

The shipped weights come from the development split of WCXB (Web Content Extraction Benchmark, CC-BY-4.0): 850 pages, columns
`html`, `url` and `main_content`. Needs the extra `train`. Reading a page needs neither it nor the pages.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow.parquet as pq

from l3_platform.extract import scan as s
from l3_platform.extract import tags as t
from l3_platform.extract.charset import decode
from l3_platform.extract.features import FEATURES
from l3_platform.extract.forest import LEAVES, WEIGHTS, Forest, Weights, content, look_again
from l3_platform.extract.labels import gold_shares, tokens
from l3_platform.extract.layout import Layout, Table, read
from l3_platform.extract.page import render
from l3_platform.extract.slim import slim

FOLDS = 5
_INNER = 3  # folds in which a training page is seen by tables and a first forest that did not learn from it
_ROUNDS = (110, 70)  # trees of the two forests
_WORD_SITES, _NAME_SITES = 8, 6  # sites that must use a word before it gets a weight
_PRIOR = 4.0  # sites' worth of belief that a word says nothing
_SCALE = 16  # of log odds in the tables, int8
_PARAMETERS: dict[str, Any] = {
    "objective": "cross_entropy", "learning_rate": 0.09, "num_leaves": LEAVES - 1, "min_data_in_leaf": 40, "feature_fraction": 0.35,
    "bagging_fraction": 0.4, "bagging_freq": 1, "lambda_l2": 5.0, "max_bin": 63, "num_threads": 1, "verbose": -1, "seed": 1,
    "deterministic": True, "force_row_wise": True,
}  # fmt: skip


@dataclass(frozen=True)
class Example:
    """A page to learn from: `share` of each block's tokens that are in the gold text, `tokens` in each block."""

    url: str
    layout: Layout
    gold: str
    share: np.ndarray
    tokens: np.ndarray

    @property
    def site(self) -> str:
        """The registrable domain, nearly: two labels, three under a country's second level."""
        labels = (urlsplit(self.url).hostname or "").split(".")
        return ".".join(labels[-3 if len(labels) > 2 and len(labels[-1]) == 2 and len(labels[-2]) <= 3 else -2 :])

    def score(self, chosen: np.ndarray) -> float:
        """F1 of the multisets of tokens."""
        return f1(render(self.layout, np.flatnonzero(chosen)), self.gold)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parquet", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name(WEIGHTS))
    parser.add_argument("--folds", type=int, default=FOLDS, help="folds to judge; 0: only make the weights")
    options = parser.parse_args()
    examples = read_examples(options.parquet)
    scores: list[float] = []
    for tested, weights in folds(examples, options.folds):
        found = [example.score(chosen_by(weights, example.layout)) for example in tested]
        scores += found
        print(f"{len(found)} pages of sites not learned from: F1 {np.mean(found):.4f}", flush=True)
    if scores:
        print(f"{len(scores)} pages: mean F1 {np.mean(scores):.4f}", flush=True)
    save(fit(examples), options.out)
    print(f"{options.out}: {options.out.stat().st_size:,} bytes")


def f1(found: str, gold: str) -> float:
    """F1 of the multisets of tokens of two texts."""
    ours, theirs = Counter(tokens(found)), Counter(tokens(gold))
    return 2 * (ours & theirs).total() / max(1, ours.total() + theirs.total())


def read_examples(path: Path, max_depth: int = 512) -> list[Example]:
    rows = pq.read_table(path, columns=["url", "html", "main_content"]).to_pylist()
    examples = []
    for row in rows:
        layout = read(slim(decode(row["html"])[0])[0], max_depth)
        share, count = gold_shares([layout.block(i) for i in range(len(layout.blocks))], row["main_content"])
        examples.append(Example(row["url"], layout, row["main_content"], share, count))
    return examples


def folds(examples: Sequence[Example], judged: int = FOLDS) -> Iterator[tuple[list[Example], Weights]]:
    """The first `judged` of FOLDS: pages and weights that were learned from other sites only."""
    fold = _fold_of_sites(examples, FOLDS, seed=7)
    for k in range(judged):
        yield (
            [example for example, mine in zip(examples, fold, strict=True) if mine == k],
            fit([example for example, mine in zip(examples, fold, strict=True) if mine != k]),
        )


def chosen_by(weights: Weights, layout: Layout) -> np.ndarray:
    words = layout.words(weights.words)
    return content(layout.features(words, weights.names), layout.blocks, layout.boxes, words, weights)


def fit(examples: Sequence[Example]) -> Weights:
    """Tables and forests from pages. What the second forest learns from is what the first says of pages that it did not see."""
    pages = [example for example in examples if len(example.layout.blocks)]
    pages += [cut for i, example in enumerate(pages) for cut in _cuts(example, np.random.default_rng(i))]
    inner = _fold_of_sites(pages, _INNER, seed=11)
    rows: list[np.ndarray] = [np.empty(0)] * len(pages)
    words: list[np.ndarray] = [np.empty(0)] * len(pages)
    for k in range(_INNER):
        others = [pages[i] for i in np.flatnonzero(inner != k)]
        word_table, name_table = _word_table(others), _name_table(others)
        for i in np.flatnonzero(inner == k):
            words[i] = pages[i].layout.words(word_table)
            rows[i] = pages[i].layout.features(words[i], name_table)
    share = [page.share for page in pages]
    weight = [_weights_of_blocks(page) for page in pages]
    everywhere = np.ones(len(pages), np.bool_)
    first_rows = [x[:, :FEATURES] for x in rows]
    for k in range(_INNER):
        first = _forest(first_rows, share, weight, inner != k, _ROUNDS[0])
        for i in np.flatnonzero(inner == k):
            look_again(rows[i], first.probabilities(rows[i]), pages[i].layout.blocks, pages[i].layout.boxes, words[i])
    return Weights(
        _word_table(pages),
        _name_table(pages),
        _forest(first_rows, share, weight, everywhere, _ROUNDS[0]),
        _forest(rows, share, weight, everywhere, _ROUNDS[1]),
    )


def _cuts(example: Example, dice: np.random.Generator) -> Iterator[Example]:
    """Short pages, which the examples lack: a few blocks in a row from where the gold is; the second without class names."""
    held = np.flatnonzero(example.share > 0.5)
    for named in (True, False):
        if not len(held):
            return
        first = max(0, int(dice.choice(held)) - int(dice.integers(0, 3)))
        last = min(len(example.share), first + int(dice.choice([1, 2, 3, 5, 8, 12, 20])))
        layout = example.layout
        boxes = layout.boxes.copy()
        boxes[:, s.FIRST] = np.clip(boxes[:, s.FIRST] - first, 0, last - first)
        boxes[:, s.LAST] = np.clip(boxes[:, s.LAST] - first, 0, last - first)
        blocks = layout.blocks[first:last].copy()
        blocks[:, s.SOURCE] -= layout.blocks[first - 1, s.SOURCE] if first else 0
        cut = replace(
            layout, blocks=blocks, bits=layout.bits[first:last], boxes=boxes,
            names=layout.names if named else layout.names[:0], owners=layout.owners if named else layout.owners[:0],
        )  # fmt: skip
        yield replace(example, layout=cut, share=example.share[first:last], tokens=example.tokens[first:last])


def save(weights: Weights, path: Path) -> None:
    arrays: dict[str, Any] = {
        "word_keys": weights.words[0], "word_weights": weights.words[1],
        "name_keys": weights.names[0], "name_weights": weights.names[1],
    }  # fmt: skip
    for name, forest in (("first", weights.first), ("second", weights.second)):
        arrays |= {f"{name}_{field}": getattr(forest, field) for field in Forest.__dataclass_fields__}
    np.savez_compressed(path, **arrays)


def _fold_of_sites(examples: Sequence[Example], count: int, seed: int) -> np.ndarray:
    sites = sorted({example.site for example in examples})
    order = np.random.default_rng(seed).permutation(len(sites))
    fold = {site: int(order[i]) % count for i, site in enumerate(sites)}
    return np.array([fold[example.site] for example in examples])


def _weights_of_blocks(example: Example) -> np.ndarray:
    """A page weighs about the same whatever its length, since the score is a mean over pages; long blocks weigh more in it."""
    size = (example.tokens + 0.5) ** 0.8
    return 100 * size / max(20.0, (size * example.share).sum() + 0.3 * size.sum())


def _word_table(examples: Sequence[Example]) -> Table:
    """Log odds that a word is in content, from the mean over pages."""
    empty = t.table({})
    return _table(
        [(example.site, hashes, example.share[of]) for example in examples for hashes, of in [example.layout.word_pairs(empty)]],
        _WORD_SITES,
    )


def _name_table(examples: Sequence[Example]) -> Table:
    """The same of class words and the content in their containers."""
    rows = []
    for example in examples:
        layout = example.layout
        held = np.concatenate([[0], np.cumsum(example.share * example.tokens)])
        size = np.concatenate([[0], np.cumsum(example.tokens)])
        first, last = layout.boxes[:, s.FIRST], layout.boxes[:, s.LAST]
        inside = size[last] - size[first]
        share = (held[last] - held[first]) / np.maximum(1, inside)
        known = layout.owners >= 0
        known[known] = inside[layout.owners[known]] > 0
        rows.append((example.site, layout.names[known], share[layout.owners[known]]))
    return _table(rows, _NAME_SITES)


def _table(pages: Sequence[tuple[str, np.ndarray, np.ndarray]], min_sites: int) -> Table:
    """A table from (site, hashes, shares) of pages: log odds against the mean of all words, times _SCALE."""
    sums: dict[int, float] = defaultdict(float)
    counts: Counter[int] = Counter()
    sites: dict[int, set[str]] = defaultdict(set)
    for site, hashes, shares in pages:
        found, inverse = np.unique(hashes, return_inverse=True)
        means = np.bincount(inverse, weights=shares) / np.maximum(1, np.bincount(inverse))
        for key, mean in zip(found.tolist(), means.tolist(), strict=True):
            sums[key] += mean
            counts[key] += 1
            sites[key].add(site)
    base = sum(sums.values()) / max(1, counts.total())
    values: dict[int, int] = {}
    for key, total in sums.items():
        if len(sites[key]) >= min_sites and key:
            share = (total + _PRIOR * base) / (counts[key] + _PRIOR)
            values[key] = int(np.clip(round(_SCALE * (np.log(share / (1 - share)) - np.log(base / (1 - base)))), -127, 127))
    return t.table({key: value for key, value in values.items() if value}, np.int8)


def _forest(
    rows: Sequence[np.ndarray], share: Sequence[np.ndarray], weight: Sequence[np.ndarray], used: np.ndarray, rounds: int
) -> Forest:
    import lightgbm  # pyright: ignore[reportMissingImports]

    x, y, w = (
        np.concatenate([rows_of for rows_of, mine in zip(part, used, strict=True) if mine]) for part in (rows, share, weight)
    )
    booster = lightgbm.train(_PARAMETERS, lightgbm.Dataset(x, y, weight=w), rounds)
    return flattened(booster.dump_model()["tree_info"], x.shape[1])


def flattened(trees: Sequence[dict[str, Any]], columns: int) -> Forest:
    """Trees of LightGBM's dump, over rows of so many columns, as the arrays of a Forest."""
    questions: list[tuple[int, float, int, int]] = []  # column, threshold, tree, ruled out
    leaf = np.zeros((len(trees), LEAVES), np.float32)

    def add(node: dict[str, Any], number: int, leaves: list[float]) -> None:
        """The questions of a tree, and its leaves from left to right."""
        if "leaf_value" in node:
            leaves.append(node["leaf_value"])
            return
        before = len(leaves)
        add(node["left_child"], number, leaves)
        questions.append((node["split_feature"], node["threshold"], number, (1 << len(leaves)) - (1 << before)))
        add(node["right_child"], number, leaves)

    for number, root in enumerate(trees):
        leaves: list[float] = []
        add(root["tree_structure"], number, leaves)
        leaf[number, : len(leaves)] = leaves
    questions.sort()
    column, threshold, tree, ruled_out = (np.array([question[part] for question in questions]) for part in range(4))
    bounds = np.searchsorted(column, np.arange(columns + 1))
    exact = threshold.astype(np.float64)
    below = exact.astype(np.float32)  # the largest float32 that is not above: the same answer for every float32 row
    below = np.where(below > exact, np.nextafter(below, np.float32(-np.inf)), below).astype(np.float32)
    return Forest(bounds.astype(np.int32), below, tree.astype(np.int32), ruled_out.astype(np.uint32), leaf)


if __name__ == "__main__":
    main()
