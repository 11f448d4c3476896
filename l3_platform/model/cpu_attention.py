"""Causal attention inside documents, forward and backward, over fp32 arrays in blocks of queries; compiled by numba.

As FlashAttention 2 does (Dao 2023), the backward pass computes scores anew and no array of seq · seq numbers ever stands in memory.
Unlike torch's kernel for CPUs, which multiplies small blocks by a library that packs them each time, products are of tiles whose
sums stay in registers, over keys that were put in order once; and no product is of keys that a block of queries may not see.
Numbers do not depend on how many threads there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import njit, prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from l3_platform.model.cpu_kernels import SUMS, exp, highest

LANES = 16  # numbers of a vector, which LLVM makes of whatever registers there are
# A tile's sums are ROWS · WIDE numbers: 16 of 32 registers of AVX-512, 8 of 16 of AVX2, 16 of 32 of NEON.
ROWS, VECTORS = (8, 2) if llvm.get_host_cpu_features().get("avx512f") else (4, 1)
WIDE = VECTORS * LANES
QUERIES = 64  # of a block: a multiple of ROWS and of WIDE

_ZERO, _ONE = np.float32(0.0), np.float32(1.0)
_UNSEEN = np.float32(-1e30)  # finite, so that its difference to a finite score is
_VECTOR = ir.VectorType(ir.FloatType(), LANES)


@njit(parallel=True, cache=True, nogil=True)
def attend(q, k, v, begins, scale, result, wholes):
    """q, result: [batch, seq, heads, size]; k, v: [batch, seq, kv_heads, size]; begins: [batch, seq], the first position that each
    query sees, ascending; wholes: [batch, seq, heads], the logarithm of what a query's exponentials sum to, for the way back."""
    for task in prange(len(k) * k.shape[2]):
        b, n = task // k.shape[2], task % k.shape[2]
        _attend(n, q[b], k[b], v[b], begins[b], scale, result[b], wholes[b])


@njit(parallel=True, cache=True, nogil=True)
def attend_backward(grad, q, k, v, begins, scale, result, wholes, of_q, of_k, of_v):
    """grad is of `result`; shapes as above."""
    for task in prange(len(k) * k.shape[2]):
        b, n = task // k.shape[2], task % k.shape[2]
        _attend_backward(n, grad[b], q[b], k[b], v[b], begins[b], scale, result[b], wholes[b], of_q[b], of_k[b], of_v[b])


@njit
def _attend(n, q, k, v, begins, scale, result, wholes):
    """Of one sequence, and of the heads that share the keys and values of head n."""
    seq, heads, size = q.shape
    group = heads // k.shape[1]
    length, width = _up(seq, QUERIES), _up(size, LANES)
    keys, values = _in_panels(k[:, n], length), _padded(v[:, n], _ONE, length, width)
    scores = np.empty((QUERIES, length + LANES), np.float32)  # rows of whole pages would meet in the same lines of the cache
    mixed = np.empty((QUERIES, width), np.float32)
    for h in range(n * group, n * group + group):
        for start in range(0, seq, QUERIES):
            end, low = min(seq, start + QUERIES), begins[start] // WIDE * WIDE
            _score(_padded(q[start:end, h], scale, QUERIES, size), keys, start, low, end, scores)
            for t in range(start, end):
                row, first = scores[t - start], begins[t]
                seen = row[first // WIDE * WIDE : _up(t + 1, WIDE)]
                _fill_unseen(row, low, first, t + 1, _UNSEEN)
                top = highest(seen)
                whole = _exponentials(seen, top)
                _fill_unseen(row, low, first, t + 1, _ZERO)
                wholes[t, h] = top + np.log(whole)
                row[-1] = _ONE / whole  # behind all positions
            for r in range(0, end - start, ROWS):
                _multiply(scores, r, low, False, values, low, mixed, r, 0, start + r + ROWS - low, True)
            for t in range(start, end):
                share = scores[t - start, -1]
                for d in range(size):
                    result[t, h, d] = mixed[t - start, d] * share


@njit
def _attend_backward(n, grad, q, k, v, begins, scale, result, wholes, of_q, of_k, of_v):
    seq, heads, size = q.shape
    group = heads // k.shape[1]
    length, width = _up(seq, QUERIES), _up(size, LANES)
    keys, values, key_rows = _in_panels(k[:, n], length), _in_panels(v[:, n], length), _padded(k[:, n], scale, length, width)
    of_keys, of_values = np.zeros((length, width), np.float32), np.zeros((length, width), np.float32)
    scores, of_scores = np.empty((QUERIES, length + LANES), np.float32), np.empty((QUERIES, length + LANES), np.float32)
    of_queries = np.empty((QUERIES, width), np.float32)
    for h in range(n * group, n * group + group):
        for start in range(0, seq, QUERIES):
            end, low = min(seq, start + QUERIES), begins[start] // WIDE * WIDE
            queries = _padded(q[start:end, h], scale, QUERIES, width)
            grads = _padded(grad[start:end, h], _ONE, QUERIES, width)
            _score(queries, keys, start, low, end, scores)
            _score(grads, values, start, low, end, of_scores)
            for t in range(start, end):
                row, of_row, first = scores[t - start], of_scores[t - start], begins[t]
                part = slice(first // WIDE * WIDE, _up(t + 1, WIDE))
                _pass_back(row[part], of_row[part], wholes[t, h], _along(grad[t, h], result[t, h]))
                _fill_unseen(row, low, first, t + 1, _ZERO)
                _fill_unseen(of_row, low, first, t + 1, _ZERO)
            for r in range(0, end - start, ROWS):
                _multiply(of_scores, r, low, False, key_rows, low, of_queries, r, 0, start + r + ROWS - low, True)
            _copy(of_queries, of_q[start:end, h])
            last = _up(end - start, ROWS)
            for j in range(low, end, ROWS):
                r = max(0, j - start)  # queries before it do not see it
                _multiply(scores, r, j, True, grads, r, of_values, j, 0, last - r, False)
                _multiply(of_scores, r, j, True, queries, r, of_keys, j, 0, last - r, False)
    _copy(of_keys, of_k[:, n])
    _copy(of_values, of_v[:, n])


@njit
def _score(queries, keys, start, low, end, scores):
    """Of a block of queries from position `start` on with the keys of whole panels from `low` to `end`, as far as a query of the
    same tile may see one. queries: [QUERIES, at least size]; keys: in panels; scores: [QUERIES, positions]."""
    size = len(keys) * WIDE // (scores.shape[1] - LANES)
    for at in range(low, end, WIDE):  # a panel and the queries are in the cache next to the core
        for r in range(max(0, at - start), end - start, ROWS):
            _multiply(queries, r, 0, False, keys, at // WIDE * size, scores, r, at, size, True)


@njit
def _multiply(a, row, column, transposed, b, first, c, c_row, c_column, steps, fresh):
    """ROWS rows of c from c_row on, and as many columns as b has, become or (not fresh) grow by the product of
    a[row : row + ROWS, column : column + steps], or transposed a[row : row + steps, column : column + ROWS].T, and
    b[first : first + steps]."""
    a_row, a_step = (1, a.shape[1]) if transposed else (a.shape[1], 1)
    a_at, b_at, c_at = row * a.shape[1] + column, first * b.shape[1], c_row * c.shape[1] + c_column
    for j in range(0, b.shape[1], WIDE):
        if b.shape[1] - j >= WIDE:
            _wide_tile(a, a_at, a_row, a_step, b, b_at + j, b.shape[1], c, c_at + j, c.shape[1], steps, fresh)
        else:
            _narrow_tile(a, a_at, a_row, a_step, b, b_at + j, b.shape[1], c, c_at + j, c.shape[1], steps, fresh)


def _tile(vectors: int) -> Any:
    """c[r, j] = or (not fresh) += sum over i of a[r, i] b[i, j], for ROWS rows r, `vectors` vectors of columns j, `steps` many i.

    Each array is followed by where the tile begins in it and how far apart its rows are, a's by how far its steps, in numbers.
    """

    @intrinsic
    def tile(context, a, a_at, a_row, a_step, b, b_at, b_row, c, c_at, c_row, steps, fresh):
        def generate(target: Any, build: Any, signature: Any, arguments: Any) -> Any:
            def number(position: int) -> Any:
                """Pointer to the one that the array among the arguments is followed by the place of."""
                array = target.make_array(signature.args[position])(target, build, arguments[position])
                return build.gep(array.data, [arguments[position + 1]])

            def row_of_vectors(start: Any, offset: Any) -> list[Any]:
                places = (build.gep(start, [build.add(offset, offset.type(LANES * i))]) for i in range(vectors))
                return [build.bitcast(place, _VECTOR.as_pointer()) for place in places]

            first_a, first_b, first_c = number(0), number(4), number(7)
            a_row, a_step, b_row, c_row, steps, fresh = (arguments[i] for i in (2, 3, 6, 9, 10, 11))
            rows = [build.gep(first_a, [build.mul(a_row, a_row.type(r))]) for r in range(ROWS)]
            ends = [row_of_vectors(first_c, build.mul(c_row, c_row.type(r))) for r in range(ROWS)]
            sums = [[cgutils.alloca_once(build, _VECTOR) for _ in row] for row in ends]  # LLVM keeps them in registers
            for total, end in _pairs(sums, ends):
                build.store(build.select(fresh, ir.Constant(_VECTOR, [0.0] * LANES), build.load(end, align=4)), total)
            with cgutils.for_range(build, steps) as loop:
                across = [build.load(place, align=4) for place in row_of_vectors(first_b, build.mul(loop.index, b_row))]
                for row, row_sums in zip(rows, sums, strict=True):
                    lanes = _in_all_lanes(build, build.load(build.gep(row, [build.mul(loop.index, a_step)])))
                    for vector, total in zip(across, row_sums, strict=True):
                        product = build.fmul(lanes, vector, flags=("contract",))
                        build.store(build.fadd(product, build.load(total), flags=("contract",)), total)
            for total, end in _pairs(sums, ends):
                build.store(build.load(total), end, align=4)
            return target.get_dummy_value()

        i = types.int64
        return types.void(a, i, i, i, b, i, i, c, i, i, i, types.boolean), generate

    return tile


def _pairs(some: list[list[Any]], others: list[list[Any]]) -> Iterator[tuple[Any, Any]]:
    for row, other in zip(some, others, strict=True):
        yield from zip(row, other, strict=True)


def _in_all_lanes(build: Any, number: Any) -> Any:
    nothing, first = ir.Constant(_VECTOR, ir.Undefined), ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return build.shuffle_vector(build.insert_element(nothing, number, ir.IntType(32)(0)), nothing, first)


_wide_tile, _narrow_tile = _tile(VECTORS), _tile(1)


@njit
def _in_panels(x, length):
    """x [seq, size] as [length / WIDE · size, WIDE]: each WIDE positions transposed, zeros after the last."""
    seq, size = x.shape
    panels = np.zeros((length // WIDE * size, WIDE), np.float32)
    for t in range(seq):
        for d in range(size):
            panels[t // WIDE * size + d, t % WIDE] = x[t, d]
    return panels


@njit
def _padded(x, factor, length, width):
    """x [seq, size] times `factor` as [length, width], with zeros around it."""
    rows = np.zeros((length, width), np.float32)
    for t in range(x.shape[0]):
        for d in range(x.shape[1]):
            rows[t, d] = x[t, d] * factor
    return rows


@njit
def _copy(padded, rows):
    for t in range(rows.shape[0]):
        for d in range(rows.shape[1]):
            rows[t, d] = padded[t, d]


@njit
def _fill_unseen(row, low, first, end, value):
    """What lies in the same panels as the seen positions from `first` to `end`, and from `low` on."""
    row[low:first] = value
    row[end : _up(end, WIDE)] = value


@njit(fastmath=SUMS)
def _exponentials(row, top):
    """Takes the place of `row`, relative to `top`. Returns their sum."""
    total = _ZERO
    for j in range(len(row)):
        value = exp(row[j] - top)
        total += value + (row[j] - row[j])  # 0, but for what is not finite
        row[j] = value
    return total


@njit(fastmath=SUMS)
def _pass_back(row, of_row, whole, along):
    """Scores become probabilities, and gradients of probabilities those of scores."""
    for j in range(len(row)):
        row[j] = exp(row[j] - whole)
        of_row[j] = row[j] * (of_row[j] - along)


@njit(fastmath=SUMS)
def _along(one, other):
    total = _ZERO
    for d in range(len(one)):
        total += one[d] * other[d]
    return total


@njit(inline="always")
def _up(number, of):
    return (number + of - 1) // of * of
