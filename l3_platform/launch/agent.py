"""One torchrun agent that cannot outlive its client: `python -m l3_platform.launch.agent ARGUMENTS OF TORCHRUN`.

When the client's thread ends, Linux sends SIGTERM; where the client's process ends, the pipe that only it holds open
closes, everywhere. torchrun passes SIGTERM on to its ranks, which save a checkpoint, and kills them after its shutdown
timeout. An agent that is not gone by then ends itself, and with it its ranks.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

from l3_platform.launch.kernel_log import keep_kernel_lines
from l3_platform.train.lifeline import die_with_parent


def main() -> None:
    die_with_parent(int(os.environ["L3_CLIENT_PID"]), signal.SIGTERM)
    pipe, grace = int(os.environ.pop("L3_WATCH_FD")), float(os.environ.pop("L3_SHUTDOWN_SECONDS"))
    threading.Thread(target=_watch, args=(pipe, grace), daemon=True).start()
    os.environ["L3_AGENT_PID"] = str(os.getpid())

    from torch.distributed.run import main as torchrun

    started = time.monotonic()
    try:
        torchrun(sys.argv[1:])
    except BaseException:
        if folder := os.environ.get("L3_LOG_DIR"):
            keep_kernel_lines(folder, int(os.environ.get("L3_NODE", "0")), started)
        raise


def _watch(pipe: int, grace: float) -> None:
    """Nothing is ever written to the pipe: a read returns when the client is gone."""
    os.read(pipe, 1)
    print("the client is gone; stopping", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace + 2)
    os._exit(1)


if __name__ == "__main__":
    main()
