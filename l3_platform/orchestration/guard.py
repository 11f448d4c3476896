"""Runs a server and ends all it started, whatever becomes of us: `python -m l3_platform.orchestration.guard SIGNAL COMMAND...`

Standard input is a pipe that only the parent holds. Its end, a SIGTERM to the guard, or the server's own end: each ends
the whole family of the server, SIGNAL first (what the server takes for a polite request), SIGKILL after a grace.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading

import psutil

GRACE_SECONDS = 10.0


def main() -> int:
    polite, command = signal.Signals[sys.argv[1]], sys.argv[2:]
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    server = psutil.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    threading.Thread(target=_until_the_parent_ends, args=(stop,), daemon=True).start()
    while not stop.wait(0.2) and server.poll() is None:
        pass
    end(server, polite)
    return server.returncode or 0


def _until_the_parent_ends(stop: threading.Event) -> None:
    while os.read(0, 1024):  # not sys.stdin, whose lock this thread would hold while the interpreter ends
        pass
    stop.set()


def end(server: psutil.Popen, polite: signal.Signals) -> None:
    """The server and all its descendants, also those that it left behind in sessions of their own."""
    family = _family(server)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, polite)  # its whole group, as Ctrl-C on a terminal would
    _, alive = psutil.wait_procs(family, timeout=GRACE_SECONDS)
    for process in [*alive, *(one for survivor in alive for one in _family(survivor))]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    server.wait()


def _family(process: psutil.Process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return [process, *process.children(recursive=True)]
    return []


if __name__ == "__main__":
    sys.exit(main())
