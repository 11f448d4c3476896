"""Runs this rank's stages in a pipeline schedule of torch.distributed.pipelining (Llama 3, section 3.3.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.pipelining as torch_pipelining
from torch import Tensor

from l3_platform.parallel.batch import Batch
from l3_platform.parallel.mesh import Mesh
from l3_platform.parallel.schedule import PipelineSchedule
from l3_platform.parallel.stage import Stage

_CLASSES = {
    "1f1b": torch_pipelining.Schedule1F1B,
    "interleaved": torch_pipelining.ScheduleInterleaved1F1B,
    "zero_bubble": torch_pipelining.ScheduleZBVZeroBubble,
}


class Pipeline:
    """The stages of this rank, by their number, and their neighbours in `group`."""

    def __init__(self, stages: Mapping[int, Stage], mesh: Mesh, schedule: PipelineSchedule, group: Any, dtype: torch.dtype) -> None:
        self._stages = stages
        self._mesh, self._schedule, self._group, self._dtype = mesh, schedule, group, dtype
        self._count = mesh.pp * schedule.stages_per_rank
        self._rank = group.rank()
        self._built: tuple[tuple[int, ...], Any] | None = None

    def forward_backward(self, batch: Batch, rows_a_micro_batch: int) -> Tensor:
        """One pass of the schedule. Returns the summed nats on the rank of the last stage, zero on others; gradients are
        reduced over data ranks at its end."""
        micro_batches = self._schedule.micro_batches_of(len(batch.tokens), rows_a_micro_batch, self._mesh.pp)
        batch = batch.padded(len(batch.tokens) + self._schedule.padding(len(batch.tokens), rows_a_micro_batch, self._mesh.pp))
        rows = len(batch.tokens) // micro_batches
        run = self._running(micro_batches, rows, batch.targets)
        losses: list[Tensor] = []
        last = self._count - 1 in self._stages
        # Each rank gives its own stages the targets and documents: only hidden states travel.
        run.step(
            *((batch.tokens,) if 0 in self._stages else ()),
            target=batch.targets if last else None,
            losses=losses if last else None,
            **batch.others(),
        )
        return torch.stack([loss.detach() for loss in losses]).sum() if last else torch.zeros((), device=batch.tokens.device)

    @torch.no_grad()
    def forward(self, batch: Batch, rows_a_micro_batch: int) -> Tensor:
        """The nats alone, where `forward_backward` gives them. Reshard the stages afterwards."""
        total = torch.zeros((), device=batch.tokens.device)
        for part in batch.parts(rows_a_micro_batch):
            hidden = part.tokens
            for number in range(self._count):
                if number in self._stages:
                    if number and number - 1 not in self._stages:
                        hidden = torch.empty_like(self._hidden(len(part.tokens), part.targets), device=part.tokens.device)
                        dist.recv(hidden, group=self._group, group_src=self._owner(number - 1))
                    hidden = self._stages[number](hidden, **part.others())
                    if number + 1 < self._count and number + 1 not in self._stages:
                        dist.send(hidden.contiguous(), group=self._group, group_dst=self._owner(number + 1))
            if self._count - 1 in self._stages:
                total += hidden.sum()
        return total

    def _owner(self, number: int) -> int:
        return self._schedule.rank_of(number, self._mesh.pp)

    def _running(self, micro_batches: int, rows: int, targets: Tensor) -> Any:
        """torch's schedule for micro-batches of this shape; another shape, as after a step of the ramp, makes it anew."""
        shape = (micro_batches, rows, targets.shape[1])
        if self._built is None or self._built[0] != shape:
            between = self._hidden(rows, targets)
            tokens = torch.empty(rows, targets.shape[1], dtype=torch.long, device="meta")
            nats = torch.empty(1, dtype=torch.float32, device="meta", requires_grad=True)
            stages = [
                _PipelineStage(
                    stage, number, self._count, targets.device, group=self._group,
                    input_args=between if number else tokens,
                    output_args=between if number < self._count - 1 else nats,
                )
                for number, stage in sorted(self._stages.items())
            ]  # fmt: skip
            make: Any = _CLASSES[self._schedule.name]
            one = stages if self._schedule.stages_per_rank > 1 else stages[0]
            # The loop divides by the tokens of the whole batch: gradients are sums here.
            self._built = shape, make(one, n_microbatches=micro_batches, loss_fn=_nats, scale_grads=False)
        return self._built[1]

    def _hidden(self, rows: int, targets: Tensor) -> Tensor:
        """A meta tensor of the shape in which hidden states go from stage to stage."""
        config = next(iter(self._stages.values())).config
        shape = (rows, targets.shape[1] // self._mesh.tp, config.d_model)
        return torch.empty(shape, dtype=self._dtype, device="meta", requires_grad=True)


class _PipelineStage(torch_pipelining.PipelineStage):
    def _get_init_p2p_neighbors_ops(self) -> list[dist.P2POp]:
        """Without those to itself, which torch 2.11 would send where ZBV turns, and gloo cannot."""
        return [op for op in super()._get_init_p2p_neighbors_ops() if op.group_peer != self.group_rank]


def _nats(output: Tensor, target: Tensor) -> Tensor:
    """torch's loss function: the last stage has computed it already."""
    return output.sum()
