"""Bytes of an array inside a numba kernel, one or eight at a time at any place, and the lowest set bit of a word.

Each is one instruction, which numba has no way to say: its own indexing asks of every index whether it is negative, and so
keeps a loop over bytes from becoming vector instructions. Nothing here checks bounds: the caller does. numba passes the typing
context itself; the defaults are for type checkers, which do not know that.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic


@intrinsic
def load8(typing_context: Any, data: Any, index: Any = None) -> Any:
    """data[index] of a uint8 array."""
    return types.uint8(data, types.intp), _load(8)


@intrinsic
def load64(typing_context: Any, data: Any, index: Any = None) -> Any:
    """data[index:index + 8] of a uint8 array as one little-endian uint64."""
    return types.uint64(data, types.intp), _load(64)


@intrinsic
def store8(typing_context: Any, data: Any, index: Any, value: Any = None) -> Any:
    """data[index] = value."""
    return types.void(data, types.intp, types.uint8), _store(8)


@intrinsic
def store64(typing_context: Any, data: Any, index: Any, value: Any = None) -> Any:
    """data[index:index + 8] = a uint64, little-endian."""
    return types.void(data, types.intp, types.uint64), _store(64)


@intrinsic
def lowest_bit(typing_context: Any, value: Any = None) -> Any:
    """Number of the lowest set bit of a uint64 that is not 0."""

    def generate(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


def _load(bits):
    def generate(context, builder, signature, arguments):
        return builder.load(_address(context, builder, signature, arguments, bits), align=1)

    return generate


def _store(bits):
    def generate(context, builder, signature, arguments):
        builder.store(arguments[2], _address(context, builder, signature, arguments, bits), align=1)
        return context.get_dummy_value()

    return generate


def _address(context, builder, signature, arguments, bits):
    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    return builder.bitcast(builder.gep(array.data, [arguments[1]]), ir.IntType(bits).as_pointer())
