"""One holder of a folder at a time, known by name: a lock file with a heartbeat.

A lock whose holder ran on this machine is free as soon as that process is gone; one from elsewhere when its heartbeat
is older than `stale_seconds`: whoever wants it watches until it beats, or is stale. On a local disk the take-over is
serialised by flock, so that two waiting processes cannot both win; on object stores the file is created only if absent.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import socket
import threading
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from l3_platform.store import files


class Locked(RuntimeError):
    """Somebody else holds it; the message names the holder and the next step."""


class Lock:
    """`with Lock(url, owner="run 1234"):` Raises Locked after `wait_seconds`."""

    def __init__(
        self,
        url: str,
        *,
        owner: str = "",
        wait_seconds: float = 0.0,
        heartbeat_seconds: float = 5.0,
        stale_seconds: float = 60.0,
    ) -> None:
        self.url = url
        self.owner = owner
        self.wait_seconds = wait_seconds
        self.heartbeat_seconds = heartbeat_seconds
        self.stale_seconds = stale_seconds
        self._token = uuid.uuid4().hex
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Lock:
        self.acquire()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()

    def acquire(self) -> None:
        deadline = time.monotonic() + self.wait_seconds
        first: dict[str, Any] | None = None
        while (holder := self._try()) is not None:
            first = first or holder
            lives = _is_here(holder) or holder.get("beat") != first.get("beat")
            if lives and time.monotonic() >= deadline:
                raise Locked(
                    f"{self.url}: held by {holder.get('owner') or 'a process'} (pid {holder.get('pid')} on {holder.get('host')}, "
                    f"since {holder.get('since')}); wait for it to end, or stop it, then run again"
                )
            time.sleep(0.2)
        self._thread = threading.Thread(target=self._beat, name=f"heartbeat {self.url}", daemon=True)
        self._thread.start()

    def release(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        with self._guard():
            if (holder := self._read()) and holder.get("token") == self._token:
                files.remove(self.url)

    def _try(self) -> dict[str, Any] | None:
        """None once the lock is ours, else who holds it."""
        with self._guard():
            holder = self._read()
            if holder is not None and not self._stale(holder):
                return holder
            if holder is not None:
                files.remove(self.url)
            return None if self._create() else (self._read() or {})

    def _create(self) -> bool:
        fs, path = files.filesystem(self.url)
        try:
            if files.is_local(self.url):
                files.write(self.url, self._content())  # the guard makes this exclusive
            else:
                fs.pipe_file(path, self._content(), mode="create")
        except FileExistsError:
            return False
        return True

    @contextlib.contextmanager
    def _guard(self) -> Any:
        if not files.is_local(self.url):
            yield
            return
        path = Path(files.filesystem(self.url)[1] + ".guard")
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    def _read(self) -> dict[str, Any] | None:
        try:
            return json.loads(files.read(self.url))
        except FileNotFoundError:
            return None
        except ValueError:
            return {}

    def _stale(self, holder: dict[str, Any]) -> bool:
        if _is_here(holder):
            return not _alive(holder)
        return time.time() - float(holder.get("beat", 0.0)) > self.stale_seconds

    def _content(self) -> bytes:
        me = psutil.Process()
        return json.dumps(
            {
                "token": self._token,
                "owner": self.owner,
                "host": socket.gethostname(),
                "boot": _boot(),
                "pid": me.pid,
                "started": me.create_time(),
                "since": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(me.create_time())),
                "beat": time.time(),
            }
        ).encode()

    def _beat(self) -> None:
        while not self._stop.wait(self.heartbeat_seconds):
            with contextlib.suppress(files.StoreError, OSError), self._guard():
                holder = self._read()
                if holder is None or holder.get("token") != self._token:
                    return  # taken over: do not fight for it
                files.write(self.url, self._content())


def _is_here(holder: dict[str, Any]) -> bool:
    return holder.get("host") == socket.gethostname() and holder.get("boot") == _boot()


def _alive(holder: dict[str, Any]) -> bool:
    try:
        process = psutil.Process(int(holder["pid"]))
        return abs(process.create_time() - float(holder["started"])) < 1.0 and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, KeyError, ValueError):
        return False


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except FileNotFoundError:
        return str(int(psutil.boot_time()))


def holder_of(url: str) -> str:
    """Who holds the lock at `url`, in words; empty when it is free. Never waits."""
    lock = Lock(url)
    holder = lock._read()
    if holder is None or lock._stale(holder):
        return ""
    return f"{holder.get('owner') or 'a process'} (pid {holder.get('pid')} on {holder.get('host')})"
