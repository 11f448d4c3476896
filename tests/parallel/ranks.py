"""Runs a function in so many gloo processes once, for all the cases of a world size: starting them costs seconds."""

import multiprocessing
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

# Imported once, in the process that ranks are forked from.
PRELOADED = [
    "l3_platform.parallel.composed",
    "l3_platform.parallel.pipeline",
    "l3_platform.parallel.tensor",
    "torch.distributed.fsdp",
]


def in_processes(world: int, folder: Path, work: Callable[..., Any], *arguments: Any) -> Any:
    """What `work(rank, *arguments)` returns on rank 0."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)
    mp.start_processes(_rank, (world, port, str(folder), work, arguments), nprocs=world, start_method="forkserver")
    return torch.load(folder / "result.pt", weights_only=False)


def _rank(rank: int, world: int, port: int, folder: str, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo",
        "RANK": str(rank), "WORLD_SIZE": str(world),
    }  # fmt: skip
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world)
    result = work(rank, *arguments)
    if rank == 0:
        torch.save(result, Path(folder) / "result.pt")
    dist.destroy_process_group()
