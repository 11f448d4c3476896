"""Tasks on processes of this machine: a pool that outlives a stage, dies with its parent, and survives a killed worker."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from typing import Any

PRELOAD = ["pyarrow.parquet", "duckdb", "numpy", "l3_platform.engine.verbs"]


class TaskFailed(RuntimeError):
    """A shard could not be made; the message names it. Finished shards stay."""


def run(fn: Callable[[Any], Any], tasks: Mapping[str, Any], workers: int, attempts: int, done: Callable[[str], None]) -> None:
    """Call `fn` on every task, calling `done(name)` as each ends. Raises TaskFailed.

    A worker that dies (out of memory, SIGKILL) takes the pool with it: what was not finished runs again, up to
    `attempts` times, the last time one shard at a time so that the message can name the one that kills its worker.
    """
    left = dict(tasks)
    for attempt in range(1, attempts + 1):
        alone = attempt == attempts and attempt > 1
        batches = [{name: task} for name, task in left.items()] if alone else [left.copy()]
        for batch in batches:
            try:
                for name in _round(fn, batch, 1 if alone else workers):
                    del left[name]
                    done(name)
            except BrokenProcessPool:
                shutdown()
                if alone:
                    name = next(iter(batch))
                    raise TaskFailed(
                        f"shard {name}: its worker died {attempts} times (killed, or out of memory); lower engine.workers "
                        "or raise the machine's memory, then run again: finished shards are kept"
                    ) from None
                break
        if not left:
            return


def _round(fn: Callable[[Any], Any], tasks: Mapping[str, Any], workers: int) -> Iterator[str]:
    pool = _pool(workers)
    futures: dict[Future[Any], str] = {pool.submit(fn, task): name for name, task in tasks.items()}
    pending = set(futures)
    try:
        while pending:
            finished, pending = wait(pending, return_when=FIRST_EXCEPTION, timeout=0.2)
            broken = None
            for future in finished:
                try:
                    future.result()
                except BrokenProcessPool as error:
                    broken = error
                except Exception as error:
                    raise TaskFailed(f"shard {futures[future]}: {_in_words(error)}") from error
                else:
                    yield futures[future]
            if broken is not None:
                raise broken
    except BaseException:
        for future in pending:
            future.cancel()
        raise


def _in_words(error: Exception) -> str:
    """Our own errors are sentences; of others the class is half of what they say."""
    return str(error) if type(error).__module__.startswith("l3_platform.") else f"{type(error).__name__}: {error}"


_POOLS: dict[int, ProcessPoolExecutor] = {}


def _pool(workers: int) -> ProcessPoolExecutor:
    if workers not in _POOLS:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOAD)
        _POOLS[workers] = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    return _POOLS[workers]


def shutdown() -> None:
    """End every worker; the next `run` starts new ones."""
    while _POOLS:
        _, pool = _POOLS.popitem()
        pool.shutdown(wait=False, cancel_futures=True)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides: Ctrl-C reaches the whole group
    die_with_parent()
    with contextlib.suppress(ImportError):
        import pyarrow as pa

        pa.set_cpu_count(1)
        pa.set_io_thread_count(2)


def die_with_parent() -> None:
    """SIGKILL for this process when the one that started it ends, also where a fork server stands between them.

    To the kernel the parent is then the fork server, which lives as long as any of its children: hence no PR_SET_PDEATHSIG.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "only for processes that multiprocessing started"
    threading.Thread(target=_follow, args=(parent,), name="follows its parent", daemon=True).start()


def _follow(parent: BaseProcess) -> None:
    parent.join()
    os.kill(os.getpid(), signal.SIGKILL)
