"""Which rank this process is, on which device, and the few collectives that the loop needs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Ranks:
    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over ranks, in place."""
        if self.size > 1:
            torch.distributed.all_reduce(tensor)
        return tensor

    def max(self, value: float) -> float:
        """The highest of all ranks."""
        if self.size == 1:
            return value
        highest = torch.tensor(value, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(highest, torch.distributed.ReduceOp.MAX)
        return highest.item()

    def from_first(self, value: Any) -> Any:
        """Rank 0's value on every rank; also a barrier behind rank 0."""
        if self.size == 1:
            return value
        box = [value]
        torch.distributed.broadcast_object_list(box, src=0)
        return box[0]

    def wait(self) -> None:
        if self.size > 1:
            torch.distributed.barrier()


@contextmanager
def ranks(needs_group: bool = False) -> Iterator[Ranks]:
    """This process's place, from torchrun's environment; without one, a single rank.

    A process group is made where there are several ranks or `needs_group`, and ended on success. After an error it is
    left alone: ending it would wait for ranks that may be gone.
    """
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    made = False
    if (size > 1 or needs_group) and not torch.distributed.is_initialized():
        backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
        if size > 1:
            torch.distributed.init_process_group(backend)
        else:
            store = torch.distributed.HashStore()  # pyright: ignore[reportPrivateImportUsage]
            torch.distributed.init_process_group(backend, store=store, rank=0, world_size=1)
        made = True
    yield Ranks(rank, size, device)
    if made:
        torch.distributed.destroy_process_group()
