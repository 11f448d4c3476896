"""Tensor, context and pipeline parallelism in composition with FSDP2 (Llama 3, section 3.3.2)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from l3_platform.model.llama import Llama
from l3_platform.parallel.batch import Batch, batch_for
from l3_platform.parallel.device_mesh import groups_for
from l3_platform.parallel.mesh import Mesh
from l3_platform.parallel.parallelize import full, prepare_blocks, reduce_gradients, reshard, shard
from l3_platform.parallel.schedule import PipelineSchedule, split_layers
from l3_platform.parallel.stage import Stage
from l3_platform.settings import ActivationCheckpointing

# That parameters are gathered over data ranks and then over tensor ranks is meant: they are cut in this order.
logging.getLogger("torch.distributed.tensor._redistribute").setLevel(logging.ERROR)


class Composed:
    """A `ParallelModel` whose sequences are computed by several ranks together."""

    def __init__(
        self,
        model: Llama,
        mesh: Mesh,
        rank: int,
        *,
        device: torch.device,
        schedule: PipelineSchedule,
        precision: Literal["fp32", "bf16"],
        activation_checkpointing: ActivationCheckpointing,
        compile_blocks: bool,
        unit_parameters: int,
    ) -> None:
        """`model` is on the meta device; its parts that this rank holds are allocated here."""
        self._mesh, self._rank, self._schedule, self._device = mesh, rank, schedule, device
        self._shapes = {name: p.shape for name, p in model.named_parameters()}
        groups = groups_for(mesh, device)
        self.pipeline = groups.pipeline
        if groups.pipeline is not None:
            # NCCL connects here: the schedules' first sends involve some of the ranks only. Without the ids gloo would meet.
            dist.barrier(groups.pipeline, device_ids=[device.index] if device.type == "cuda" else None)
        self._layers = split_layers(model.config.layers, mesh.pp * schedule.stages_per_rank if mesh.pp > 1 else 1)
        here = [number for number in range(len(self._layers)) if self._owner(number) == mesh.pp_rank(rank)]
        self._stages = {number: self._stage(model, [number]) for number in here}
        for stage in self._stages.values():
            if groups.context is not None:
                _attend_over(stage, groups.context)
            if groups.tensor is not None:
                from l3_platform.parallel.tensor import shard_tensors

                shard_tensors(stage, groups.tensor)
            prepare_blocks(stage.layers.values(), activation_checkpointing, compile_blocks)
            shard(stage, stage.layers.values(), groups.data, precision, unit_parameters)
            stage.to_empty(device=device)
        self.module: nn.Module = self._stage(model, here)
        if mesh.pp > 1:
            from l3_platform.parallel.pipeline import Pipeline

            dtype = torch.bfloat16 if precision == "bf16" else torch.float32
            self._pipeline = Pipeline(self._stages, mesh, schedule, groups.pipeline, dtype)

    def forward_backward(self, inputs: Tensor, targets: Tensor, bos_id: int | None, rows: int) -> Tensor:
        batch = self._batch(inputs, targets, bos_id)
        with self._vocabulary_cut():
            nats = self._pipeline.forward_backward(batch, rows) if self.pipeline else self._accumulate(batch, rows or len(inputs))
        return self._share(nats)

    @torch.no_grad()
    def __call__(self, inputs: Tensor, targets: Tensor, bos_id: int | None = None) -> Tensor:
        batch = self._batch(inputs, targets, bos_id)
        with self._vocabulary_cut():
            if self.pipeline:
                return self._share(self._pipeline.forward(batch, -(-len(inputs) // self._mesh.pp)))
            return self._share(self._stages[0](batch.tokens, **batch.others()).sum())

    def reshard(self) -> None:
        for stage in self._stages.values():
            reshard(stage)

    def whole(self, name: str) -> Tensor:
        mine = dict(self.module.named_parameters()).get(name)
        tensor = torch.empty(self._shapes[name], device=self._device) if mine is None else full(mine.detach())
        if not self.pipeline or self._rank % (self._mesh.tp * self._mesh.cp) or self._mesh.data_rank(self._rank):
            return tensor
        return self._to_first(tensor, self._owner(self._stage_of(name)))

    def _stage(self, model: Llama, numbers: list[int]) -> Stage:
        blocks = [index for number in numbers for index in self._layers[number]]
        first, last = 0 in numbers, len(self._layers) - 1 in numbers
        return Stage(model, blocks, first=first, last=last, mesh=self._mesh, cp_rank=self._mesh.cp_rank(self._rank))

    def _owner(self, stage: int) -> int:
        return self._schedule.rank_of(stage, self._mesh.pp)

    def _stage_of(self, name: str) -> int:
        if not name.startswith("layers."):
            return 0 if name.startswith("tok_embeddings.") else len(self._layers) - 1
        return next(number for number, blocks in enumerate(self._layers) if int(name.split(".")[1]) in blocks)

    def _to_first(self, tensor: Tensor, owner: int) -> Tensor:
        """From the pipeline's rank `owner` to its rank 0."""
        me = self._mesh.pp_rank(self._rank)
        if me == owner != 0:
            dist.send(tensor.contiguous(), group=self.pipeline, group_dst=0)
        elif me == 0 != owner:
            dist.recv(tensor, group=self.pipeline, group_src=owner)
        return tensor

    def _batch(self, inputs: Tensor, targets: Tensor, bos_id: int | None) -> Batch:
        return batch_for(inputs, targets, bos_id, self._mesh, self._mesh.cp_rank(self._rank))

    def _accumulate(self, batch: Batch, rows: int) -> Tensor:
        stage = self._stages[0]
        total = torch.zeros((), dtype=torch.float64, device=batch.tokens.device)
        for first, part in zip(range(0, len(batch.tokens), rows), batch.parts(rows), strict=True):
            reduce_gradients(stage, wanted=first + rows >= len(batch.tokens))
            nats = stage(part.tokens, **part.others()).sum()
            nats.backward()
            total += nats.detach()
        return total

    def _share(self, nats: Tensor) -> Tensor:
        """Tensor-parallel ranks all have the nats, so the first counts them."""
        return nats if self._mesh.tp_rank(self._rank) == 0 else torch.zeros_like(nats)

    @contextmanager
    def _vocabulary_cut(self) -> Iterator[None]:
        if self._mesh.tp == 1:
            yield
            return
        from torch.distributed.tensor.parallel import loss_parallel

        with loss_parallel():
            yield


def _attend_over(stage: Stage, group: object) -> None:
    from l3_platform.parallel.context import gathered_attention

    for block in stage.layers.values():
        attention = cast(Any, block).attention
        attention.attend = partial(gathered_attention, group=group, attend=attention.attend)
