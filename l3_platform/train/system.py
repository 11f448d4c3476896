"""How each node is: processor, GPUs, memory, disk and network, at a low rate, in the same record as the loss.

The first rank of each node samples its node into `system/node-00001.json` of the run's folder; rank 0 puts what is new into
its next row, as `system/node-1/cpu_percent`. psutil loads after a second, so a short run never pays for it.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

from l3_platform.train.job import write_text

SECONDS = 5.0


class SystemMetrics:
    """A thread of the first rank of a node; nothing in the other ranks. `new()` is for rank 0."""

    def __init__(self, folder: str | Path, seconds: float = SECONDS) -> None:
        self._folder, self._seconds = Path(folder) / "system", seconds
        self._node = int(os.environ.get("GROUP_RANK", "0"))
        self._gathered: dict[str, float] = {}
        self._seen: dict[str, float] = {}
        self._end = threading.Event()
        if os.environ.get("LOCAL_RANK", "0") == "0":
            threading.Thread(target=self._run, name="system metrics", daemon=True).start()

    def new(self) -> dict[str, float]:
        """What no call has returned yet; mostly nothing."""
        gathered, self._gathered = self._gathered, {}
        return gathered

    def close(self) -> None:
        self._end.set()

    def _run(self) -> None:
        before: dict[str, float] | None = None
        while not self._end.wait(self._seconds if before else min(1.0, self._seconds)):
            with contextlib.suppress(OSError):  # a full disk ends the run at its checkpoint, in words, not here
                counters, cpu_percent = _counters(), _cpu_percent()
                if before is not None:
                    sample = _sample(before, counters) | {"cpu_percent": cpu_percent} | _gpus()
                    write_text(self._folder / f"node-{self._node:05d}.json", json.dumps(sample) + "\n")
                before = counters
                if os.environ.get("RANK", "0") == "0":
                    self._gather()

    def _gather(self) -> None:
        found: dict[str, float] = {}
        for path in sorted(self._folder.glob("node-*.json")):
            sample: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            taken = sample.pop("time")
            if taken > self._seen.get(path.name, 0.0) and time.time() - taken < 10 * self._seconds:
                self._seen[path.name] = taken
                node = int(path.stem.removeprefix("node-"))
                found |= {f"system/node-{node}/{name}": value for name, value in sample.items()}
        if found:
            self._gathered = found


def _cpu_percent() -> float:
    """Of all cores, since the call before."""
    import psutil

    return psutil.cpu_percent()


def _gpus() -> dict[str, float]:
    """Of those that this rank sees: the mean share of the time that they computed, and the memory in use of the fullest.

    Without nvidia-ml-py, memory of this rank's alone: CUDA takes memory on every GPU that it is asked about.
    """
    import torch

    if not torch.cuda.is_available():
        return {}
    gpus = range(torch.cuda.device_count())
    try:
        percent = sum(torch.cuda.utilization(gpu) for gpu in gpus) / len(gpus)
        return {"gpu_percent": percent, "gpu_memory_used_bytes": float(max(map(torch.cuda.device_memory_used, gpus)))}
    except Exception:  # of NVML, which is missing or does not know slices of a GPU; the class of its errors goes missing with it
        free, total = torch.cuda.mem_get_info(int(os.environ.get("LOCAL_RANK", "0")))
        return {"gpu_memory_used_bytes": float(total - free)}


def _counters() -> dict[str, float]:
    """Of the whole node since it was started, in bytes, and the time."""
    import psutil

    disk, network = psutil.disk_io_counters(), psutil.net_io_counters()
    return {
        "time": time.time(),
        "disk_read": disk.read_bytes if disk else 0,
        "disk_written": disk.write_bytes if disk else 0,
        "received": network.bytes_recv,
        "sent": network.bytes_sent,
    }


def _sample(before: dict[str, float], now: dict[str, float]) -> dict[str, float]:
    import psutil

    change = {name: now[name] - before[name] for name in now}
    seconds = max(change["time"], 1e-9)
    memory = psutil.virtual_memory()
    return {
        "time": now["time"],
        "memory_used_bytes": float(memory.total - memory.available),
        "disk_read_bytes_a_second": round(change["disk_read"] / seconds),
        "disk_written_bytes_a_second": round(change["disk_written"] / seconds),
        "received_bytes_a_second": round(change["received"] / seconds),
        "sent_bytes_a_second": round(change["sent"] / seconds),
    }
