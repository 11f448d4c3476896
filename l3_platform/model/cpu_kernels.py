"""RMSNorm, rotary embedding, SwiGLU and cross-entropy, forward and backward, each in one pass over fp32 arrays; compiled by numba.

torch's own ways read and write an array of all tokens five to fifteen times. Numbers do not depend on how many threads there are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, prange, types
from numba.extending import intrinsic

SUMS = {"reassoc", "contract", "nsz"}  # what lets a sum become vector instructions
PARTS = 64  # sums over tokens are of so many parts, however many threads there are

_ONE, _HALF = np.float32(1.0), np.float32(0.5)
_LOWEST, _HIGHEST = np.float32(-87.0), np.float32(88.0)
_PER_LN2, _LN2_HIGH, _LN2_LOW = np.float32(1.44269504), np.float32(0.693359375), np.float32(-2.12194440e-4)
# exp on [-ln 2 / 2, ln 2 / 2] beyond 1 + x, highest power first (Cephes, expf).
_EXP = tuple(
    map(np.float32, (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1))
)


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
            result[t, j] = gate[t, j] * up[t, j] / (_ONE + exp(-gate[t, j]))


@njit(parallel=True, cache=True, nogil=True, fastmath={"contract"})
def swiglu_backward(grad, gate, up, of_gate, of_up):
    for t in prange(gate.shape[0]):
        for j in range(gate.shape[1]):
            open_ = _ONE / (_ONE + exp(-gate[t, j]))
            passed = gate[t, j] * open_
            of_up[t, j] = grad[t, j] * passed
            of_gate[t, j] = grad[t, j] * up[t, j] * (open_ + passed * (_ONE - open_))


@njit(parallel=True, cache=True, nogil=True, fastmath=SUMS)
def cross_entropy(logits, targets, losses, wholes):
    """logits: [tokens, vocab]; targets, losses: [tokens], a loss of 0 where a target is negative; wholes: [tokens], the logarithm
    of what a token's exponentials sum to."""
    for t in prange(len(logits)):
        row, total = logits[t], np.float32(0.0)
        top = highest(row)
        for j in range(len(row)):
            total += exp(row[j] - top) + (row[j] - row[j])  # 0, but for what is not finite
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
            row[j] = exp(row[j] - wholes[t]) * grad
        row[targets[t]] -= grad


@njit
def highest(row):
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
def exp(x):
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
