"""Two gradient-boosted forests that say which blocks are content, scored by a kernel. Training them is `train`'s work.

The first sees a block and its surroundings; the second sees the same and what the first said of the neighbours, of the
containers and of blocks with the same tags and classes. What is chosen is the set of blocks with the largest expected F1 against
the unknown truth: blocks in order of probability, up to where the next would cost more precision than it wins recall (Lipton
et al. 2014).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from io import BytesIO

import numpy as np

from l3_platform.extract import markup as m
from l3_platform.extract import scan as s
from l3_platform.extract import tags as t
from l3_platform.extract import words as w
from l3_platform.extract.features import FEATURES, same_kind
from l3_platform.unaligned import lowest_bit

WEIGHTS = "content.npz"

_STEPS = (-4, -3, -2, -1, 1, 2, 3, 4)
_REACH = (3, 8, 20)
_LEVELS = 6
_ABREAST = 64
_ALL = np.uint32(0xFFFFFFFF)
LEAVES = 32  # of a tree, at most
_CODE_REACH = 3
_PRE = t.TAG_ID["pre"]


@dataclass(frozen=True)
class Forest:
    """Trees as the questions they ask, by column and threshold: what a row answers rules leaves out, and the first that is left
    is its own (QuickScorer, Lucchese et al. 2015)."""

    bounds: np.ndarray  # int32 [columns + 1]: where the questions about each column begin
    threshold: np.ndarray  # float32 [questions]: is x > threshold? Rising within a column
    tree: np.ndarray  # int32 [questions]: whose question it is
    ruled_out: np.ndarray  # uint32 [questions]: the leaves, as bits from left to right, that a yes rules out
    leaf: np.ndarray  # float32 [trees, LEAVES], log odds

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        """Float32 [rows] of x, float32 [rows, columns or more]."""
        return _score(x, self.bounds, self.threshold, self.tree, self.ruled_out, self.leaf)


@dataclass(frozen=True)
class Weights:
    """All that is learned: weights of words and of class names as tables of hashes, and the forests."""

    words: tuple[np.ndarray, np.ndarray]
    names: tuple[np.ndarray, np.ndarray]
    first: Forest
    second: Forest


@cache
def shipped() -> Weights:
    """The weights beside this file, made by `python -m l3_platform.extract.train`."""
    with np.load(BytesIO(files("l3_platform.extract").joinpath(WEIGHTS).read_bytes())) as arrays:
        first, second = (
            Forest(*(arrays[f"{name}_{field}"] for field in Forest.__dataclass_fields__)) for name in ("first", "second")
        )
        return Weights((arrays["word_keys"], arrays["word_weights"]), (arrays["name_keys"], arrays["name_weights"]), first, second)


def content(x: np.ndarray, blocks: np.ndarray, boxes: np.ndarray, words: np.ndarray, weights: Weights) -> np.ndarray:
    """Which blocks are content, bool [blocks]. `x` is what `features` gives, float32 [blocks, FEATURES + SECOND]; it is filled."""
    if not len(blocks):
        return np.zeros(0, np.bool_)
    look_again(x, weights.first.probabilities(x), blocks, boxes, words)
    chosen = best_set(weights.second.probabilities(x), words)[0]
    _with_code(chosen, blocks, boxes)
    return chosen


@m.jit
def _with_code(chosen, blocks, boxes):
    """Chooses the code near what is chosen: it goes with the text around it."""
    for i in range(len(blocks)):
        if boxes[blocks[i, s.CONTAINER], s.TAG] == _PRE:
            for near in range(max(0, i - _CODE_REACH), min(len(blocks), i + _CODE_REACH + 1)):
                chosen[i] |= chosen[near]


@m.jit
def best_set(probability, words):
    """The blocks that make the largest expected F1 of words, bool [blocks], and that F1."""
    n = len(probability)
    order = np.argsort(-probability, kind="mergesort")
    truth = 0.0
    for i in range(n):
        truth += probability[i] * words[i, w.WORDS]
    right = taken = best = 0.0
    count = 0
    for k in range(n):
        i = order[k]
        right += probability[i] * words[i, w.WORDS]
        taken += words[i, w.WORDS]
        score = 2 * right / max(1e-9, taken + truth)
        if score > best:
            best, count = score, k + 1
    chosen = np.zeros(n, np.bool_)
    for k in range(count):
        chosen[order[k]] = True
    return chosen, best


@m.jit
def look_again(x, probability, blocks, boxes, words):
    """Fills the last SECOND columns of `x` with what the first forest said, of each block and around it."""
    n = len(blocks)
    sums = np.zeros((n + 1, 2), np.float64)  # words, and words times probability
    for i in range(n):
        size = words[i, w.WORDS] + 0.5
        sums[i + 1, 0] = sums[i, 0] + size
        sums[i + 1, 1] = sums[i, 1] + size * probability[i]
    near, n_near = same_kind(blocks, boxes, 2)
    alike, n_alike = same_kind(blocks, boxes, 1)
    of_near, of_alike = np.zeros((n_near, 4)), np.zeros((n_alike, 2))
    highest = np.zeros(n + 1, np.float32)  # from the end
    for i in range(n - 1, -1, -1):
        size = words[i, w.WORDS] + 0.5
        of_near[near[i], 0] += size
        of_near[near[i], 1] += size * probability[i]
        of_near[near[i], 2] += 1
        of_near[near[i], 3] += probability[i]
        of_alike[alike[i], 0] += size
        of_alike[alike[i], 1] += size * probability[i]
        highest[i] = max(highest[i + 1], probability[i])
    _, expected = best_set(probability, words)
    so_far = np.float32(0)
    for i in range(n):
        at = FEATURES
        x[i, at] = probability[i]
        for step in _STEPS:
            at += 1
            x[i, at] = probability[i + step] if 0 <= i + step < n else -1
        for reach in _REACH:
            at += 1
            low, high = max(0, i - reach), min(n, i + reach + 1)
            x[i, at] = (sums[high, 1] - sums[low, 1]) / (sums[high, 0] - sums[low, 0])
        box = blocks[i, s.CONTAINER]
        for _ in range(_LEVELS):
            at += 1
            first, last = boxes[box, s.FIRST], boxes[box, s.LAST]
            x[i, at] = (sums[last, 1] - sums[first, 1]) / max(0.5, sums[last, 0] - sums[first, 0])
            if boxes[box, s.PARENT] >= 0:
                box = boxes[box, s.PARENT]
        so_far = max(so_far, probability[i])
        x[i, at + 1] = of_near[near[i], 1] / of_near[near[i], 0]
        x[i, at + 2] = of_near[near[i], 3] / of_near[near[i], 2]
        x[i, at + 3] = of_alike[alike[i], 1] / of_alike[alike[i], 0]
        x[i, at + 4] = expected
        x[i, at + 5] = probability[i] / max(0.05, expected)
        x[i, at + 6] = sums[n, 1] / sums[n, 0]
        x[i, at + 7] = np.log1p(sums[n, 1])
        x[i, at + 8] = sums[i, 1] / max(1e-3, sums[n, 1])
        x[i, at + 9] = max(so_far, highest[i]) - min(so_far, highest[i])


@m.jit
def _score(x, bounds, threshold, tree, ruled_out, leaf):
    """_ABREAST rows at a time. Most questions have the same answer for all of them, which the least and the largest value tell;
    the others are answered for all rows in a few instructions, where a walk from node to node would wait for memory at each."""
    n, columns = len(x), len(bounds) - 1  # a first forest does not ask about the last ones
    out = np.zeros(n, np.float32)
    low, high, values = np.empty(columns, np.float32), np.empty(columns, np.float32), np.empty(_ABREAST, np.float32)
    left = np.empty((len(leaf), _ABREAST), np.uint32)
    left_to_all = np.empty(len(leaf), np.uint32)
    for first in range(0, n, _ABREAST):
        rows = min(_ABREAST, n - first)
        left[:], left_to_all[:] = _ALL, _ALL
        low[:], high[:] = x[first, :columns], x[first, :columns]
        for r in range(first + 1, first + rows):
            for column in range(columns):
                value, least, most = x[r, column], low[column], high[column]
                low[column] = value if value < least else least
                high[column] = value if value > most else most
        for column in range(columns):
            question, end = bounds[column], bounds[column + 1]
            while question < end and threshold[question] < low[column]:
                left_to_all[tree[question]] &= ~ruled_out[question]
                question += 1
            if question == end or threshold[question] >= high[column]:
                continue
            for r in range(rows):
                values[r] = x[first + r, column]
            while question < end and threshold[question] < high[column]:
                limit, kept, mine = threshold[question], ~ruled_out[question], left[tree[question]]
                for r in range(_ABREAST):
                    mine[r] &= kept if values[r] > limit else _ALL
                question += 1
        for k in range(len(leaf)):
            for r in range(rows):
                out[first + r] += leaf[k, lowest_bit(np.uint64(left[k, r] & left_to_all[k]))]
    for i in range(n):
        out[i] = 1 / (1 + np.exp(-out[i]))
    return out
