"""A process that ends with the one that started it. Standard library alone, for it runs before anything is imported."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int, with_signal: signal.Signals) -> None:
    """Asks Linux for `with_signal` when the parent's thread ends, and ends now where `parent` is already gone.

    Elsewhere it only makes the check: there the agents' watchdog pipe does the work.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, int(with_signal), 0, 0, 0):
            raise OSError(
                ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed; training processes could outlive their parent"
            )
    if os.getppid() != parent:
        print(f"process {parent} that started this one is gone; ending", file=sys.stderr)
        os._exit(1)
