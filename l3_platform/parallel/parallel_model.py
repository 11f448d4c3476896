"""The model that a training loop drives without knowing the mesh."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from l3_platform.model.attention import Kernel
from l3_platform.model.config import ModelConfig
from l3_platform.model.llama import Llama
from l3_platform.parallel.mesh import Mesh
from l3_platform.parallel.parallelize import UNIT_PARAMETERS, full, parallelize, reduce_gradients, reshard
from l3_platform.parallel.schedule import PipelineSchedule
from l3_platform.settings import ActivationCheckpointing, Precision


class ParallelModel(Protocol):
    """Every method is collective. Its weights are undefined until something fills `module`."""

    module: nn.Module  # this rank's parameters, under the names that they have in a `Llama`
    pipeline: Any  # the process group of the pipeline, None without one

    def forward_backward(self, inputs: Tensor, targets: Tensor, bos_id: int | None, rows: int) -> Tensor:
        """Adds to this rank's gradients, reduced over data ranks, those of the summed nats of its data rank's sequences.

        inputs, targets: [batch, seq], the same on all ranks of a data rank, of `rows` sequences a micro-batch (0: all, in
        a pipeline one). Returns this rank's share of the nats, 0-dim: the loss of the whole batch is the sum over ALL
        ranks.
        """
        ...

    def __call__(self, inputs: Tensor, targets: Tensor, bos_id: int | None = None) -> Tensor:
        """This rank's share of the nats, without gradients. `reshard` before the parameters are used otherwise."""
        ...

    def reshard(self) -> None: ...

    def whole(self, name: str) -> Tensor:
        """A parameter of the whole model. Every rank gathers; rank 0 has the result, others may have garbage."""
        ...


def build(
    config: ModelConfig,
    mesh: Mesh,
    rank: int,
    *,
    device: torch.device,
    schedule: PipelineSchedule | None = None,
    kernel: Kernel | None = None,
    precision: Precision = "fp32",
    activation_checkpointing: ActivationCheckpointing = "none",
    compile_blocks: bool = False,
    unit_parameters: int = UNIT_PARAMETERS,
) -> ParallelModel:
    """A model over the mesh, its memory allocated and not filled. Collective over the mesh's ranks. `kernel`: of attention,
    Native without one. Raises ValueError in words where this device has no fp8."""
    # A sharded model is never whole in memory; another is made in place, which spares a process half a second.
    in_place = mesh.ranks == 1 and precision == "fp32"
    with device if in_place else torch.device("meta"):
        model = Llama(config, kernel)
    if precision == "fp8":
        from l3_platform.parallel.float8 import check_device, convert

        check_device(device)
        convert(model.layers)
        precision = "bf16"  # of all else
    if mesh.model_ranks > 1:
        from l3_platform.parallel.composed import Composed

        return Composed(
            model, mesh, rank, device=device, schedule=schedule or PipelineSchedule(), precision=precision,
            activation_checkpointing=activation_checkpointing, compile_blocks=compile_blocks, unit_parameters=unit_parameters,
        )  # fmt: skip
    parallelize(
        model, mesh, device=device, precision=precision, activation_checkpointing=activation_checkpointing,
        compile_blocks=compile_blocks, unit_parameters=unit_parameters,
    )  # fmt: skip
    return DataParallel(model if in_place else model.to_empty(device=device))


class DataParallel:
    """Each rank runs the whole model on sequences of its own: FSDP2, HSDP, or a single process."""

    pipeline = None

    def __init__(self, model: Llama) -> None:
        self.module: nn.Module = model

    def forward_backward(self, inputs: Tensor, targets: Tensor, bos_id: int | None, rows: int) -> Tensor:
        rows = rows or len(inputs)
        total = torch.zeros((), dtype=torch.float64, device=inputs.device)
        for first in range(0, len(inputs), rows):
            reduce_gradients(self.module, wanted=first + rows >= len(inputs))
            part = slice(first, first + rows)
            nats: Tensor = self.module(inputs[part], targets[part], bos_id)
            nats.backward()
            total += nats.detach()
        return total

    @torch.no_grad()
    def __call__(self, inputs: Tensor, targets: Tensor, bos_id: int | None = None) -> Tensor:
        return self.module(inputs, targets, bos_id)

    def reshard(self) -> None:
        reshard(self.module)

    def whole(self, name: str) -> Tensor:
        return full(dict(self.module.named_parameters())[name].detach())
