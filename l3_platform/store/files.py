"""Whole files at fsspec URLs: a reader sees all of a file or none of it, on disk and on object stores alike."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
import uuid
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem


class StoreError(RuntimeError):
    """Storage said no; the message names the place and the next step."""


def filesystem(url: str) -> tuple[Any, str]:
    """The fsspec filesystem of a URL and the path inside it. Raises StoreError for a protocol without its package."""
    try:
        return fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise StoreError(f"{url}: {error}; install the extra for this storage, such as `pip install l3-platform[s3]`") from None
    except ValueError as error:
        raise StoreError(f"{url}: {error}") from None


def is_local(url: str) -> bool:
    return isinstance(filesystem(url)[0], LocalFileSystem)


def shared_between_processes(url: str) -> bool:
    return not url.startswith("memory:")


def join(url: str, *parts: str) -> str:
    return "/".join([url.rstrip("/"), *parts])


def write(url: str, data: bytes) -> None:
    """Put `data` at `url`, whole or not at all. Raises StoreError when the storage is full or refuses."""
    fs, path = filesystem(url)
    if not isinstance(fs, LocalFileSystem):
        fs.pipe_file(path, data)
        return
    target = Path(path)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise StoreError(_in_words(error, target, len(data))) from error


DISK_IS_FULL = "the disk is full"
AFTER_FULL = "nothing already made is lost: free some space (`l3 clean` drops old versions) and run the same command again"


def _in_words(error: OSError, target: Path, size: int) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{target}: {DISK_IS_FULL}, {size:,} bytes did not fit; {AFTER_FULL}"
    return f"{target}: cannot write: {error.strerror or error}"


def for_lack_of_space(error: BaseException, folder: Path) -> bool:
    """Whether a full disk is behind `error`: said by the system, or by an SQLite file in `folder`, which names it less plainly."""
    behind: BaseException | None = error
    while behind is not None:
        if isinstance(behind, OSError) and behind.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if isinstance(behind, sqlite3.OperationalError) and shutil.disk_usage(folder).free < 1 << 20:
            return True
        behind = behind.__cause__ or behind.__context__
    return False


def read(url: str) -> bytes:
    """All bytes at `url`. Raises FileNotFoundError."""
    fs, path = filesystem(url)
    return fs.cat_file(path)


def random_access(url: str) -> Any:
    """A file that Arrow reads parts of: in memory where it lies on a local disk, so that no part is copied."""
    if "://" not in url:
        return pa.memory_map(url)
    fs, path = filesystem(url)
    return fs.open(path) if isinstance(fs, LocalFileSystem) else fs.open(path, cache_type="none")


def exists(url: str) -> bool:
    fs, path = filesystem(url)
    return fs.exists(path)


def size(url: str) -> int:
    fs, path = filesystem(url)
    return int(fs.size(path))


def names(url: str) -> list[str]:
    """Names in a folder, sorted; empty where the folder is absent."""
    fs, path = filesystem(url)
    fs.invalidate_cache()
    try:
        entries = fs.ls(path, detail=False)
    except FileNotFoundError:
        return []
    return sorted(str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in entries)


def remove(url: str) -> None:
    """Delete a file or a folder with all it holds; absent is fine."""
    fs, path = filesystem(url)
    with contextlib.suppress(FileNotFoundError):  # another process may remove the same
        if fs.exists(path):
            fs.rm(path, recursive=True)


def remove_partial(url: str) -> None:
    """Delete what killed writers left unfinished in a folder and below; object stores keep no such thing."""
    fs, path = filesystem(url)
    if isinstance(fs, LocalFileSystem):
        for partial in Path(path).rglob(".*.partial"):
            partial.unlink(missing_ok=True)


def upload(source: Path, url: str) -> None:
    """Copy a local file to `url`, whole or not at all, without holding it in memory."""
    fs, path = filesystem(url)
    if not isinstance(fs, LocalFileSystem):
        fs.put_file(str(source), path)
        return
    target = Path(path)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, partial)
        os.replace(partial, target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise StoreError(_in_words(error, target, source.stat().st_size)) from error


def local_copy(url: str, folder: Path) -> Path:
    """A path on this machine that holds what `url` holds: itself where local, else downloaded into `folder` once."""
    fs, path = filesystem(url)
    if isinstance(fs, LocalFileSystem):
        return Path(path)
    target = folder / path.rsplit("/", 1)[-1]
    if not target.exists():
        write(str(target), fs.cat_file(path))
    return target
