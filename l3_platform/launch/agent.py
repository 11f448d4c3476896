"""One torchrun agent that cannot outlive its client: `python -m l3_platform.launch.agent ARGUMENTS OF TORCHRUN`.

Its standard input is its lifeline, on this machine as through ssh or srun: it ends when the client closes it, when the
client is gone, or, where that was asked for, when the client has been silent for too long. On the same machine Linux sends
SIGTERM as well once the client's thread ends. torchrun passes SIGTERM on to its ranks, which save a checkpoint, and kills
them after its shutdown timeout. An agent that is not gone by then ends itself, and with it its ranks.

The agent knows its place from `L3_NODE`, or from what Slurm and Kubernetes tell a process; node 0 hosts the rendezvous.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback

from l3_platform.launch.kernel_log import keep_kernel_lines
from l3_platform.lifeline import die_with_parent

EXIT_FAILED = 64
# Where one command line starts the agents of all nodes, these tell them apart.
NODE_VARIABLES = ("L3_NODE", "SLURM_NODEID", "JOB_COMPLETION_INDEX")


def main() -> None:
    if client := os.environ.pop("L3_CLIENT_PID", ""):
        die_with_parent(int(client), signal.SIGTERM)
    grace = float(os.environ.pop("L3_SHUTDOWN_SECONDS", "30"))
    if silence := os.environ.pop("L3_LIFELINE", ""):
        pipe = os.dup(0)  # the ranks must not read from it
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        threading.Thread(target=_watch, args=(pipe, float(silence), grace), daemon=True).start()
    os.environ["L3_AGENT_PID"] = str(os.getpid())
    arguments = [*_place(), *sys.argv[1:]]

    os.makedirs(os.environ["L3_LOG_DIR"], exist_ok=True)

    from torch.distributed.run import main as torchrun

    started = time.monotonic()
    code = 1
    try:
        with tempfile.TemporaryDirectory(prefix="torchrun-") as scratch:  # it would make one and leave it
            torchrun(["--log-dir", scratch, *arguments])
        code = 0
    except BaseException:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        traceback.print_exc()
        _let_ranks_end(grace)
        keep_kernel_lines(os.environ["L3_LOG_DIR"], int(_node()), started)
    _exit_by_word()
    sys.stderr.flush()
    os._exit(code)  # to take torch down in order is half a second in which nothing is left to do


def _let_ranks_end(seconds: float) -> None:
    """Whoever stops the agent may say so twice, by its lifeline and by a signal: the second cuts torchrun's own wait short."""
    import psutil

    ranks = psutil.Process().children()
    for rank in ranks:
        with contextlib.suppress(psutil.NoSuchProcess):
            rank.terminate()
    psutil.wait_procs(ranks, timeout=seconds)


def _place() -> list[str]:
    """Options of torchrun that differ from node to node."""
    options = ["--node-rank", _node()]
    if interface := os.environ.pop("L3_INTERFACE", ""):
        os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = interface
        options += ["--local-addr", _address(interface)]
    return options


def _node() -> str:
    return next(os.environ[name] for name in NODE_VARIABLES if name in os.environ)


def _address(interface: str) -> str:
    import psutil

    known = psutil.net_if_addrs()
    for address in known.get(interface, ()):
        if address.family == socket.AF_INET:
            return address.address
    sys.exit(f"this host has no network interface {interface!r} with an IPv4 address; it has {', '.join(sorted(known))}")


def _exit_by_word() -> None:
    """Where nobody reads rank 0's word but a controller that knows exit codes: EXIT_FAILED, if training would fail again."""
    status = os.path.join(os.environ["L3_LOG_DIR"], "status.json")
    deadline = time.monotonic() + float(os.environ.get("L3_WORD_SECONDS", "0"))
    while time.monotonic() < deadline:
        if os.path.exists(status):
            with open(status, encoding="utf-8") as file:
                if json.load(file)["state"] == "failed":
                    os._exit(EXIT_FAILED)
            return
        time.sleep(0.1)


def _watch(pipe: int, silence: float, grace: float) -> None:
    """Returns never: what the client writes says only that it lives; `silence` 0 waits for the end of the pipe alone."""
    while select.select([pipe], [], [], silence or None)[0] and os.read(pipe, 4096):
        pass
    print("the client asked to stop, or is gone; stopping", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace + 2)
    os._exit(1)


if __name__ == "__main__":
    main()
