"""Tasks on processes of this machine: a pool that outlives a stage, dies with its parent, and survives a killed worker."""

from __future__ import annotations

import atexit
import contextlib
import itertools
import multiprocessing
import multiprocessing.util
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from typing import Any

from l3_platform.engine.backend import TaskFailed, in_words, leave_pandas_out, use_one_core, worker_died
from l3_platform.settings import Engine

PRELOAD = ["pyarrow.parquet", "duckdb", "numpy", "l3_platform.engine.verbs"]


def run(fn: Callable[[Any], Any], tasks: Mapping[str, Any], settings: Engine, done: Callable[[str], None]) -> None:
    """Call `fn` on every task in processes of this machine: see `backend.Backend`. Raises TaskFailed.

    A worker that dies (out of memory, SIGKILL) takes the pool with it: what was not finished runs again, the last
    time one shard at a time so that the message can name the one that kills its worker.
    """
    left = dict(tasks)
    for attempt in range(1, settings.attempts + 1):
        alone = attempt == settings.attempts and attempt > 1
        batches = [{name: task} for name, task in left.items()] if alone else [left.copy()]
        for batch in batches:
            try:
                for name in _round(fn, batch, 1 if alone else workers(settings)):
                    del left[name]
                    done(name)
            except BrokenProcessPool:
                shutdown()
                if alone:
                    raise worker_died(next(iter(batch)), settings.attempts) from None
                break
        if not left:
            return
    raise worker_died(" or ".join(left), settings.attempts)


def start(*modules: str) -> None:
    """Start the fork server now: it imports these modules beside what the caller does next, and every worker has them."""
    PRELOAD.extend(modules)
    _context()
    forkserver.ensure_running()
    atexit.register(_end_fork_server)  # while it imports it would outlive a command that was refused, and hold its output open


def _end_fork_server() -> None:
    pid = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    with contextlib.suppress(ProcessLookupError, TypeError):
        os.kill(pid, signal.SIGKILL)


def workers(settings: Engine) -> int:
    """Processes to use: the setting, or one a core that this process may run on."""
    return settings.workers or len(os.sched_getaffinity(0))


def _round(fn: Callable[[Any], Any], tasks: Mapping[str, Any], workers: int) -> Iterator[str]:
    """Names of tasks as they end; only so many are handed over as keep every worker busy, whatever their number."""
    pool, waiting = _pool(workers), iter(tasks.items())
    pending: dict[Future[Any], str] = {}
    try:
        while True:
            for name, task in itertools.islice(waiting, 4 * workers - len(pending)):
                pending[pool.submit(fn, task)] = name
            if not pending:
                return
            broken = None
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                name = pending.pop(future)
                try:
                    future.result()
                except BrokenProcessPool as error:
                    broken = error
                except Exception as error:
                    raise TaskFailed(f"shard {name}: {in_words(error)}") from error
                else:
                    yield name
            if broken is not None:
                raise broken
    except BaseException:
        for future in pending:
            future.cancel()
        raise


_POOLS: dict[int, ProcessPoolExecutor] = {}


def _pool(workers: int) -> ProcessPoolExecutor:
    if workers not in _POOLS:
        _POOLS[workers] = ProcessPoolExecutor(workers, mp_context=_context(), initializer=_start_worker)
        # A process that multiprocessing started, such as a step of Dagster, else waits at its end for workers that nobody told:
        # they are told before the queues close, which have priority 10.
        multiprocessing.util.Finalize(None, shutdown, kwargs={"wait": True}, exitpriority=100)
    return _POOLS[workers]


def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    return context


def shutdown(wait: bool = False) -> None:
    """End every worker; the next `run` starts new ones."""
    while _POOLS:
        _, pool = _POOLS.popitem()
        pool.shutdown(wait=wait, cancel_futures=True)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides: Ctrl-C reaches the whole group
    die_with_parent()
    use_one_core()
    leave_pandas_out()


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
