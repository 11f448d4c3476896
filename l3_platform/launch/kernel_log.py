"""What the kernel of a node has said since a moment: GPUs, memory and disks report their faults there, to nobody else."""

from __future__ import annotations

import os
from pathlib import Path

FILE = "kernel-{node:05d}.log"
_MOST_LINES = 500


def kernel_lines(since: float) -> list[str]:
    """Messages since `since`, in seconds of the monotonic clock, which is the kernel's; empty where its log may not be read."""
    try:
        handle = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return []
    lines = []
    try:
        while True:
            try:
                record = os.read(handle, 8192).decode(errors="replace")
            except BrokenPipeError:  # older records were overwritten while we read
                continue
            except OSError:  # no more, or not allowed
                break
            facts, _, message = record.partition(";")
            microseconds = int(facts.split(",")[2])
            if microseconds / 1e6 >= since:
                lines.append(f"[{microseconds / 1e6:.6f}] {message.splitlines()[0]}")
    finally:
        os.close(handle)
    return lines[-_MOST_LINES:]


def keep_kernel_lines(folder: str | Path, node: int, since: float) -> None:
    """Into the log folder of the attempt, where there are any."""
    if lines := kernel_lines(since):
        (Path(folder) / FILE.format(node=node)).write_text("".join(line + "\n" for line in lines), encoding="utf-8")
