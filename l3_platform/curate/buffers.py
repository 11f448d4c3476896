"""Arrow strings as the buffers that kernels read: UTF-8 bytes and int64 offsets, whatever the chunks, slices and nulls."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Bytes = npt.NDArray[np.uint8]
Offsets = npt.NDArray[np.int64]


def strings(texts: pa.Array | pa.ChunkedArray) -> tuple[Bytes, Offsets]:
    """Bytes, and where each text begins in them and the last one ends; both read-only, so that a kernel is compiled for one type.

    A null text is an empty one.
    """
    array = _one_array(texts, pa.large_string())
    if array.null_count:
        array = array.fill_null("")
    _, offsets, data = array.buffers()
    if offsets is None or len(array) == 0:
        return np.frombuffer(bytes(1), np.uint8)[:0], np.frombuffer(bytes(8), np.int64)
    numbers = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    letters = np.frombuffer(data or bytes(1), np.uint8)
    for values in (letters, numbers):
        values.setflags(write=False)
    return letters, numbers


def word_lists(words: pa.Array | pa.ChunkedArray) -> tuple[Bytes, Offsets, Offsets]:
    """Bytes of all words, where each word begins in them, and the first word of each list. A null list is an empty one."""
    array = _one_array(words, pa.large_list(pa.large_string()))
    first = np.concatenate([[0], np.cumsum(array.value_lengths().fill_null(0).to_numpy(zero_copy_only=False))]).astype(np.int64)
    data, bounds = strings(array.flatten())
    return data, bounds, first


def _one_array(values: pa.Array | pa.ChunkedArray, kind: pa.DataType) -> Any:
    chunks = values.chunks if isinstance(values, pa.ChunkedArray) else [values]
    chunks = [chunk.cast(kind) for chunk in chunks]
    return chunks[0] if len(chunks) == 1 else pa.concat_arrays(chunks) if chunks else pa.array([], kind)
