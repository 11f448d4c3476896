"""What a backend is, and what both have in common: `local` (processes of this machine) and `ray_backend` (a Ray cluster)."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from l3_platform.settings import Engine


class TaskFailed(RuntimeError):
    """A shard could not be made; the message names it. Finished shards stay."""


class Backend(Protocol):
    def __call__(
        self, fn: Callable[[Any], Any], tasks: Mapping[str, Any], settings: Engine, done: Callable[[str], None], /
    ) -> None:
        """Call `fn` on every task, in any order, calling `done(name)` as each ends; what `fn` returns is dropped.

        A task whose worker dies runs again, `settings.attempts` times in all. Raises TaskFailed, after which no further
        task begins; an interrupt ends what is running.
        """
        ...


def in_words(error: BaseException) -> str:
    """Our own errors are sentences; of others the class is half of what they say."""
    return str(error) if type(error).__module__.startswith("l3_platform.") else f"{type(error).__name__}: {error}"


def worker_died(name: str, attempts: int, after: str = "") -> TaskFailed:
    """What to raise for the shard that ends its worker each time; `after` is what the backend knows of the cause."""
    return TaskFailed(
        f"shard {name}: its worker died {attempts} times (killed, or out of memory{after}); lower engine.workers "
        "or raise the machine's memory, then run again: finished shards are kept"
    )


def use_one_core() -> None:
    """A worker has one core: a stage's own threads would take its neighbours'."""
    with contextlib.suppress(ImportError):
        import pyarrow as pa

        pa.set_cpu_count(1)
        pa.set_io_thread_count(2)


def leave_pandas_out() -> None:
    """pyarrow's first `pa.array` in a process imports pandas, where it is installed, to tell whether the values are one of its
    series: 0.3 s, and ours never are. It asks once."""
    if "pandas" in sys.modules:
        return
    import pyarrow as pa

    sys.meta_path.insert(0, _NoPandas)
    try:
        pa.array([0])
    finally:
        sys.meta_path.remove(_NoPandas)


class _NoPandas:
    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name)
