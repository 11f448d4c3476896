"""Reads the index of a checkpoint without running what it may hold.

DCP keeps it as a pickle, `.metadata`, and a pickle calls whatever it names. Ours names a dozen things: each is unpickled as
an inert record, from which the index is built anew, as tensors in files of the checkpoint's folder. All else is refused: also
an entry of bytes, which DCP would take for a pickle of its own.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.distributed.checkpoint.filesystem import FileSystemReader, _StorageInfo
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)

_T = TypeVar("_T")

FILE = ".metadata"
_RECORDS = {
    *(
        f"torch.distributed.checkpoint.metadata.{name}"
        for name in (
            "Metadata",
            "TensorStorageMetadata",
            "TensorProperties",
            "ChunkStorageMetadata",
            "MetadataIndex",
            "StorageMeta",
        )
    ),
    "torch.distributed.checkpoint.filesystem._StorageInfo",
    # What nothing here asks for: the layout and memory format of a tensor, and where the checkpoint was written.
    *("torch.serialization._get_layout", "torch.distributed.checkpoint.metadata._MEM_FORMAT_ENCODING", "builtins.getattr"),
    *("pathlib.PosixPath", "pathlib._local.PosixPath"),
}


class Refused(Exception):
    """The index of a checkpoint holds what none of ours does; says what, and begins with the file's name."""


class SafeReader(FileSystemReader):
    """DCP's reader of a folder, but for the index."""

    def read_metadata(self, *_: Any, **__: Any) -> Metadata:  # parameters named kwargs would have DCP try a second file
        metadata = read_metadata(Path(self.path))
        metadata.storage_meta = StorageMeta(load_id=self.load_id)
        return metadata


def refusal(checkpoint: Path) -> str | None:
    """Why the index of a checkpoint is refused, in words; None where it is not."""
    try:
        read_metadata(checkpoint)
    except Refused as error:
        return str(error)
    return None


def read_metadata(checkpoint: Path) -> Metadata:
    """The index of a checkpoint; raises Refused."""
    try:
        with open(checkpoint / FILE, "rb") as file:
            return _metadata(_Unpickler(file).load())
    except Refused:
        raise
    except Exception as error:  # a pickle that is not ours may raise anything
        raise Refused(f"{FILE} cannot be read ({type(error).__name__}: {error})") from error


class _Record:
    """Stands for what a pickle names, whether it makes one or calls it. `__setstate__` lies in the way of setting attributes,
    of the class too."""

    state: Any = None

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if module_name == "torch" and isinstance(dtype := vars(torch).get(global_name), torch.dtype):
            return dtype
        if (module_name, global_name) == ("torch", "Size"):
            return tuple
        if (name := f"{module_name}.{global_name}") in _RECORDS:
            return _Record
        raise Refused(f"{FILE} names {name}, which is in no checkpoint of ours and might run; it was not loaded")


def _metadata(record: Any) -> Metadata:
    state = record.state
    return Metadata(
        state_dict_metadata={_a(str, name): _tensor(entry.state) for name, entry in state["state_dict_metadata"].items()},
        storage_data={_index(key.state): _place(value.state) for key, value in state["storage_data"].items()},
        version=_a(str, state["version"]),
    )


def _tensor(state: Any) -> TensorStorageMetadata:
    chunks = [ChunkStorageMetadata(torch.Size(c.state["offsets"]), torch.Size(c.state["sizes"])) for c in state["chunks"]]
    dtype = _a(torch.dtype, state["properties"].state[0])
    return TensorStorageMetadata(TensorProperties(dtype=dtype), torch.Size(state["size"]), chunks)


def _index(state: Any) -> MetadataIndex:
    return MetadataIndex(_a(str, state["fqn"]), torch.Size(state["offset"]))


def _place(state: Any) -> _StorageInfo:
    file = _a(str, state["relative_path"])
    if Path(file).name != file:
        raise Refused(f"{FILE} names a file outside the checkpoint, {file}; it was not loaded")
    if state.get("transform_descriptors"):
        raise Refused(f"{FILE} says that {file} is encoded, which no checkpoint of ours is; it was not loaded")
    return _StorageInfo(file, _a(int, state["offset"]), _a(int, state["length"]))


def _a(kind: type[_T], value: Any) -> _T:
    if type(value) is not kind:
        raise Refused(f"{FILE} has {value!r:.80} where a {kind.__name__} belongs; it was not loaded")
    return value
