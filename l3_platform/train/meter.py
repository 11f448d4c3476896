"""Where the time of a run goes and what it holds in memory: what stands in a row of metrics beside loss and rate."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from l3_platform.model.flops import flops_a_token
from l3_platform.train.data_order import Step
from l3_platform.train.job import TrainJob
from l3_platform.train.ranks import Ranks


class Meter:
    """Adds up between two rows. One a rank; only rank 0's is read."""

    def __init__(self, job: TrainJob, device: torch.device, ranks: int) -> None:
        self._job, self._device, self._ranks = job, device, ranks
        self._waits = {"data": 0.0, "checkpoint": 0.0}
        self._tokens = self._skipped = 0
        self._flops = 0.0
        self._rolled_back_to: int | None = None
        self._peak = 0.0  # memory, the highest of all ranks when they last compared
        self._since = time.monotonic()

    @contextmanager
    def waiting_for(self, what: Literal["data", "checkpoint"]) -> Iterator[None]:
        began = time.monotonic()
        yield
        self._waits[what] += time.monotonic() - began

    def step(self, step: Step, skipped: bool) -> None:
        self._tokens += step.tokens
        self._flops += step.tokens * flops_a_token(self._job.model, step.seq_len)
        self._skipped += skipped

    def rolled_back_to(self, step: int) -> None:
        self._rolled_back_to = step

    def memory_grew(self) -> bool:
        """Whether this rank has come to hold more than the ranks know of. By a hundredth, so that few steps say yes."""
        return peak_memory(self._device) > 1.01 * self._peak

    def compare_memory(self, ranks: Ranks) -> None:
        """Collective, in the steps after which some rank's `memory_grew`."""
        self._peak = ranks.max(peak_memory(self._device))

    def row(self) -> dict[str, float]:
        """What was added since the last row, which this ends: seconds of the wall clock, of which `data_seconds` were spent
        waiting for the batch and `checkpoint_seconds` for a save; the pace over all of them, of all devices and of one;
        bytes of the rank that holds most, up to a hundredth."""
        now = time.monotonic()
        seconds = now - self._since
        row = {
            "time": round(time.time(), 3),
            "seconds": round(seconds, 4),
            "tokens_per_second": round(self._tokens / max(seconds, 1e-9), 1),
            "tokens_per_second_per_device": round(self._tokens / max(seconds, 1e-9) / self._ranks, 1),
            "data_seconds": round(self._waits["data"], 4),
            "checkpoint_seconds": round(self._waits["checkpoint"], 4),
            "peak_memory_bytes": float(max(self._peak, peak_memory(self._device))),
        }
        if self._skipped:
            row["skipped_steps"] = float(self._skipped)
        if self._rolled_back_to is not None:
            row["rolled_back_to_step"], self._rolled_back_to = float(self._rolled_back_to), None
        if self._job.peak_flops:
            row["mfu"] = self._flops / max(seconds, 1e-9) / (self._job.peak_flops * self._ranks)
        self._waits = dict.fromkeys(self._waits, 0.0)
        self._tokens, self._skipped, self._flops, self._since = 0, 0, 0.0, now
        return row


def peak_memory(device: torch.device) -> int:
    """The most bytes that this process has held: of the GPU's memory as torch counts it, else of the host's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
