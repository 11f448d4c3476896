"""A process that ends with the one that started it. Standard library alone, for it runs before anything is imported."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int, with_signal: signal.Signals) -> None:
    """`with_signal` comes when the parent's thread ends, from the kernel on Linux, else from a thread that looks twice
    a second. Ends this process now where `parent` is already gone."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, int(with_signal), 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed; this process could outlive its parent")
    else:
        threading.Thread(target=_look, args=(parent, with_signal), daemon=True).start()
    if os.getppid() != parent:
        print(f"process {parent} that started this one is gone; ending", file=sys.stderr)
        os._exit(1)


def _look(parent: int, with_signal: signal.Signals) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), with_signal)
