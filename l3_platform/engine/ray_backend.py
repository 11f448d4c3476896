"""Tasks on a Ray cluster: Ray places and retries them; shards go from the workers straight to storage, never through Ray.

Settings: `engine.backend=ray`, `engine.ray_address` (empty: a cluster on this machine that ends with this process).
Workers of other machines need this package in the same version, and a `store.root` that all of them see.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import itertools
import logging
import os
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from l3_platform.engine.backend import TaskFailed, in_words, use_one_core, worker_died
from l3_platform.settings import Engine, SettingsError

OBJECT_STORE_BYTES = 100 << 20  # of a cluster on this machine: only the stage's function and its tasks lie there


def run(fn: Callable[[Any], Any], tasks: Mapping[str, Any], settings: Engine, done: Callable[[str], None]) -> None:
    """Call `fn` on every task on the cluster: see `backend.Backend`. Raises TaskFailed; SettingsError where no cluster is.

    No more tasks are handed over than `engine.workers`, or than keep a cluster of any size busy while it grows.
    """
    ray = _connect(settings)
    function = ray.put(fn)
    call = ray.remote(_call).options(num_cpus=1, max_retries=settings.attempts - 1, scheduling_strategy="SPREAD")
    waiting, running = iter(tasks.items()), {}
    try:
        while True:
            with _interrupts_held_back():
                for name, task in itertools.islice(waiting, max(_in_flight(ray, settings) - len(running), 0)):
                    running[call.remote(function, task)] = name
                ended = ray.wait(list(running), timeout=1.0)[0] if running else []
            if not running:
                return
            for finished in ended:
                name = running.pop(finished)
                _result(ray, finished, name, settings.attempts)
                done(name)
    except BaseException:
        for unfinished in running:
            ray.cancel(unfinished, force=True)
        raise


@contextlib.contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """SIGINT takes effect at the end of the block: raised inside Ray's compiled code, KeyboardInterrupt is sometimes lost there."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[Any] = []
    handler = signal.signal(signal.SIGINT, lambda number, frame: came.append(frame))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if came:
        signal.raise_signal(signal.SIGINT)


def workers(settings: Engine) -> int:
    """Tasks that run at a time: the setting, or one a core of the cluster."""
    return settings.workers or _cores(_connect(settings))


def shutdown() -> None:
    """Leave the cluster, and end it where it is ours; the next `run` connects again."""
    global _joined
    if _joined is None:
        return
    _joined = None
    importlib.import_module("ray").shutdown()
    while _FOLDERS:
        shutil.rmtree(_FOLDERS.pop(), ignore_errors=True)


def _call(fn: Callable[[Any], Any], task: Any) -> None:
    use_one_core()
    fn(task)


def _result(ray: Any, reference: Any, name: str, attempts: int) -> None:
    try:
        ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise TaskFailed(f"shard {name}: {in_words(error.cause)}") from error.cause
    except ray.exceptions.RayError as error:
        raise worker_died(name, attempts, f"; Ray: {str(error).strip().splitlines()[0]}") from error


def _in_flight(ray: Any, settings: Engine) -> int:
    return settings.workers or max(2 * _cores(ray), 2)


def _cores(ray: Any) -> int:
    return int(ray.cluster_resources().get("CPU", 0))


_joined: tuple[str, int] | None = None  # address and workers of the cluster that this module connected to
_FOLDERS: list[str] = []


def _connect(settings: Engine) -> Any:
    """The package `ray`, connected as the settings say; a connection that someone else made is used as it is."""
    global _joined
    with _own_signals():
        ray = _package()
        wanted = (settings.ray_address, 0 if settings.ray_address else settings.workers)
        if ray.is_initialized() and _joined in (wanted, None):
            return ray
        shutdown()
        options = {"log_to_driver": False, "logging_level": logging.ERROR}
        try:
            if settings.ray_address:
                _knock(settings.ray_address)
                ray.init(address=settings.ray_address, **options)
            else:
                ray.init(**_this_machine(settings), **options)
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise SettingsError(
                f"engine.ray_address={settings.ray_address!r}: no Ray cluster can be used there ({error}); start one with "
                "`ray start --head`, or leave the setting empty for one on this machine"
            ) from None
        atexit.register(shutdown)
        _joined = wanted
        return ray


def _this_machine(settings: Engine) -> dict[str, Any]:
    """How to start a cluster of one node that nobody else can reach, without dashboard or usage report."""
    folder = tempfile.mkdtemp(prefix="l3-ray-")  # short, since Ray puts sockets there, whose paths may have 107 bytes
    _FOLDERS.append(folder)
    return {
        "address": "local",
        "num_cpus": settings.workers or len(os.sched_getaffinity(0)),
        "num_gpus": 0,
        "include_dashboard": False,
        "object_store_memory": OBJECT_STORE_BYTES,
        "_node_ip_address": "127.0.0.1",
        "_temp_dir": folder,
        "_system_config": {"task_oom_retries": settings.attempts - 1},  # without it Ray tries for ever
    }


def _knock(address: str) -> None:
    """Raises OSError where nothing listens, for which Ray itself would wait minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()


def _package() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else a warning about GPUs that no task asks for
    try:
        return importlib.import_module("ray")
    except ImportError:
        raise SettingsError(
            "engine.backend=ray needs the package ray: `pip install 'l3-platform[ray]'`, or set engine.backend=local"
        ) from None


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Ray replaces the handler of SIGTERM when it is imported; what this process wanted of it stays."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
