"""RMSNorm, rotary embedding, SwiGLU and cross-entropy, forward and backward, each in one pass over fp32 arrays, where torch's own
ways read and write an array of all tokens five to fifteen times; and causal attention inside documents. Compiled by numba.

Attention goes over blocks of queries. As in FlashAttention 2 (Dao 2023) the backward pass computes scores anew, and no array of
seq · seq numbers ever stands in memory. Unlike torch's kernel for CPUs, which multiplies small blocks by a library that packs them
each time, products are of tiles whose sums stay in registers, over keys that were put in order once; and panels of keys that no
query of a block may see are passed over.

Numbers do not depend on how many threads there are. All is in one file, since numba's cache looks for changes in a kernel's own.
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

SUMS = {"reassoc", "contract", "nsz"}  # what lets a sum become vector instructions
PARTS = 64  # sums over tokens are of so many parts, however many threads there are

_ZERO, _ONE, _HALF = np.float32(0.0), np.float32(1.0), np.float32(0.5)
_LOWEST, _HIGHEST = np.float32(-87.0), np.float32(88.0)
_PER_LN2, _LN2_HIGH, _LN2_LOW = np.float32(1.44269504), np.float32(0.693359375), np.float32(-2.12194440e-4)
# exp on [-ln 2 / 2, ln 2 / 2] beyond 1 + x, highest power first (Cephes, expf).
_EXP = tuple(
    map(np.float32, (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1))
)

LANES = 16  # numbers of a vector, which LLVM makes of whatever registers there are
# A tile's sums are ROWS · WIDE numbers: 16 of 32 registers of AVX-512, 8 of 16 of AVX2, 16 of 32 of NEON.
ROWS, VECTORS = (8, 2) if llvm.get_host_cpu_features().get("avx512f") else (4, 1)
WIDE = VECTORS * LANES
QUERIES = 64  # of a block: a multiple of ROWS and of WIDE

_UNSEEN = np.float32(-1e30)  # finite, so that its difference to a finite score is
_VECTOR = ir.VectorType(ir.FloatType(), LANES)


@njit(parallel=True, cache=True, nogil=True, fastmath=SUMS)
def rms_norm(x, weight, eps, result, scale):
    """x, result: [tokens, width]; scale: [tokens], 1 / the root of each token's mean square, for the backward pass."""
    width = x.shape[1]
    for t in prange(x.shape[0]):
        squares = np.float32(0.0)
        for j in range(width):
            squares += x[t, j] * x[t, j]
        scale[t] = _ONE / np.sqrt(squares / np.float32(width) + eps)
        for j in range(width):
            result[t, j] = x[t, j] * scale[t] * weight[j]


@njit(parallel=True, cache=True, nogil=True, fastmath=SUMS)
def rms_norm_backward(grad, x, weight, scale, of_x, of_weight):
    """grad, x, of_x: [tokens, width]; of_weight: [PARTS, width], to be summed."""
    tokens, width = x.shape
    for part in prange(len(of_weight)):
        sums = of_weight[part]
        sums[:] = 0.0
        for t in range(part * tokens // len(of_weight), (part + 1) * tokens // len(of_weight)):
            k, along = scale[t], np.float32(0.0)
            for j in range(width):
                along += grad[t, j] * weight[j] * x[t, j]
            along *= k * k * k / np.float32(width)
            for j in range(width):
                of_x[t, j] = grad[t, j] * weight[j] * k - x[t, j] * along
                sums[j] += grad[t, j] * x[t, j] * k


@njit(parallel=True, cache=True, nogil=True, fastmath=SUMS)
def rotate(x, cos, sin, direction, result):
    """x, result: [batch, seq, heads, head_dim]; cos, sin: [seq, head_dim / 2]; direction: 1, or -1 for the way back."""
    batch, seq, heads, size = x.shape
    half = size // 2
    for token in prange(batch * seq):
        b, t = token // seq, token % seq
        for h in range(heads):
            for j in range(half):
                first, second, across = x[b, t, h, j], x[b, t, h, j + half], sin[t, j] * direction
                result[b, t, h, j] = first * cos[t, j] - second * across
                result[b, t, h, j + half] = second * cos[t, j] + first * across


@njit(parallel=True, cache=True, nogil=True, fastmath={"contract"})
def swiglu(gate, up, result):
    """silu(gate) * up; all [tokens, width]."""
    for t in prange(gate.shape[0]):
        for j in range(gate.shape[1]):
            result[t, j] = gate[t, j] * up[t, j] / (_ONE + _exp(-gate[t, j]))


@njit(parallel=True, cache=True, nogil=True, fastmath={"contract"})
def swiglu_backward(grad, gate, up, of_gate, of_up):
    for t in prange(gate.shape[0]):
        for j in range(gate.shape[1]):
            open_ = _ONE / (_ONE + _exp(-gate[t, j]))
            passed = gate[t, j] * open_
            of_up[t, j] = grad[t, j] * passed
            of_gate[t, j] = grad[t, j] * up[t, j] * (open_ + passed * (_ONE - open_))


@njit(parallel=True, cache=True, nogil=True, fastmath=SUMS)
def cross_entropy(logits, targets, losses, wholes):
    """logits: [tokens, vocab]; targets, losses: [tokens], a loss of 0 where a target is negative; wholes: [tokens], the logarithm
    of what a token's exponentials sum to."""
    for t in prange(len(logits)):
        row, total = logits[t], np.float32(0.0)
        top = _highest(row)
        for j in range(len(row)):
            total += _exp(row[j] - top)
        wholes[t] = top + np.log(total)
        losses[t] = wholes[t] - row[targets[t]] if targets[t] >= 0 else np.float32(0.0)


@njit(parallel=True, cache=True, nogil=True, fastmath={"contract"})
def cross_entropy_backward(logits, targets, wholes, grad):
    """Overwrites `logits` with the gradient of the summed losses, times `grad`."""
    for t in prange(len(logits)):
        row = logits[t]
        if targets[t] < 0:
            row[:] = 0.0
            continue
        for j in range(len(row)):
            row[j] = _exp(row[j] - wholes[t]) * grad
        row[targets[t]] -= grad


@njit(parallel=True, cache=True, nogil=True)
def attend(q, k, v, begins, scale, result, wholes):
    """q, result: [batch, seq, heads, size]; k, v: [batch, seq, kv_heads, size], kv_heads a divisor of heads; begins: [batch, seq],
    the first position that each query sees, ascending and never after it; wholes: [batch, seq, heads], the logarithm of what a
    query's exponentials sum to, for the way back."""
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
                top = _highest(seen)
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
            for j in range(low, end, ROWS):
                r = max(0, j - start)  # queries before it do not see it
                _multiply(scores, r, j, True, grads, r, of_values, j, 0, end - start - r, False)
                _multiply(of_scores, r, j, True, queries, r, of_keys, j, 0, end - start - r, False)
    _copy(of_keys, of_k[:, n])
    _copy(of_values, of_v[:, n])


@njit
def _score(queries, keys, start, low, end, scores):
    """The products of a block's queries, from position `start` on, with the keys from `low` to `end` in whole panels; a tile whose
    queries all stand before a panel is passed over. queries: [QUERIES, at least size]; keys: in panels; scores: [QUERIES,
    positions]."""
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
                """Pointer to the tile's first: of the array at `position`, at the offset in the argument after it."""
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
    """Puts `value` at the positions that were computed and are not seen: `low` to `first`, and `end` to the end of its panel."""
    row[low:first] = value
    row[end : _up(end, WIDE)] = value


# Sums in these functions have an order of their own: a process that compiles attention and one that finds it compiled run copies of
# them that LLVM has inlined in different places, and would else round differently.


@njit(fastmath={"contract"})
def _exponentials(row, top):
    """Takes the place of `row`, whole panels relative to `top`. Returns their sum."""
    for j in range(len(row)):
        row[j] = _exp(row[j] - top)
    one, two, three, four = _ZERO, _ZERO, _ZERO, _ZERO
    for j in range(0, len(row), 4):
        one += row[j]
        two += row[j + 1]
        three += row[j + 2]
        four += row[j + 3]
    return (one + two) + (three + four)


@njit(fastmath={"contract"})
def _pass_back(row, of_row, whole, along):
    """Scores become probabilities, and gradients of probabilities those of scores."""
    for j in range(len(row)):
        row[j] = _exp(row[j] - whole)
        of_row[j] = row[j] * (of_row[j] - along)


@njit(fastmath={"contract"})
def _along(x, y):
    one, two, three, four = _ZERO, _ZERO, _ZERO, _ZERO
    whole = len(x) // 4 * 4
    for d in range(0, whole, 4):
        one += x[d] * y[d]
        two += x[d + 1] * y[d + 1]
        three += x[d + 2] * y[d + 2]
        four += x[d + 3] * y[d + 3]
    for d in range(whole, len(x)):
        one += x[d] * y[d]
    return (one + two) + (three + four)


@njit(inline="always")
def _up(number, of):
    return (number + of - 1) // of * of


@njit
def _highest(row):
    """Of fp32 numbers, in the order of their bits, since that of floating-point numbers has a special case for NaN, which vectors
    have not. NaN may count as the highest."""
    bits, last = row.view(np.int32), np.int32(np.iinfo(np.int32).min)
    for j in range(len(bits)):
        last = max(last, _in_order(bits[j]))
    return _float_of(_in_order(last))


@njit(inline="always")
def _in_order(bits):
    """Those of negative numbers turned around, or turned back."""
    return np.int32(bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF)))


@njit(inline="always")  # numba's own inlining, without which loops over it do not become vector instructions
def _exp(x):
    """exp(x) of x cut to [-87, 88], within 2 units in the last place: numba's own is a call, which no vector has."""
    x = min(max(x, _LOWEST), _HIGHEST)
    power = np.floor(x * _PER_LN2 + _HALF)
    x = x - power * _LN2_HIGH - power * _LN2_LOW
    value = _EXP[0]
    value = value * x + _EXP[1]
    value = value * x + _EXP[2]
    value = value * x + _EXP[3]
    value = value * x + _EXP[4]
    value = value * x + _EXP[5]
    return (value * x * x + x + _ONE) * _float_of((np.int32(power) + np.int32(127)) << np.int32(23))


@intrinsic
def _float_of(typing_context: Any, bits: Any = None) -> Any:
    """The float32 with the bits of an int32."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate
