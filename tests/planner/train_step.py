"""Run as a program: trains small models for two steps and prints what their tensors took, in bytes. See test_memory.py."""

import json
import os
import sys
import tempfile
from functools import partial

import torch
import torch.distributed as dist
from torch.distributed._tools.mem_tracker import MemTracker

from l3_platform.model import Llama, ModelConfig, cpu
from l3_platform.model.init import initialize
from l3_platform.parallel.mesh import Mesh
from l3_platform.parallel.parallelize import local_rows, parallelize, reduce_gradients
from l3_platform.train.optimizer import AdamW, clip_gradients

torch.compile = partial(torch.compile, backend="aot_eager_decomp_partition")  # what is kept is chosen there; no C++
cpu.PLAIN = ()  # the planner speaks of GPUs, where the loss makes three tensors of logits


class Trainer:
    """A model as `l3_platform.train` builds it; `saving` and `precision` are the planner's words."""

    def __init__(self, case: dict) -> None:
        self.micro_batches = case["micro_batches"]
        self.model = Llama(ModelConfig(**case["model"]))
        parallelize(
            self.model,
            Mesh(),
            device=torch.device("cpu"),
            precision=case["precision"],
            activation_checkpointing=case["saving"] if case["saving"] in ("selective", "full") else "none",
            compile_blocks=case.get("compiled", case["saving"] == "compiled"),
            unit_parameters=1,
        )
        initialize(self.model, 0, local_rows)
        self.optimizer = AdamW(self.model, betas=(0.9, 0.95), epsilon=1e-8, weight_decay=0.1)
        self.batch = torch.randint(0, self.model.config.vocab_size, (case["rows"], case["seq_len"]))

    def step(self, tracker: MemTracker | None = None) -> None:
        for micro_batch in range(self.micro_batches):
            if tracker:
                tracker.reset_mod_stats()
            reduce_gradients(self.model, wanted=micro_batch == self.micro_batches - 1)
            self.model(self.batch, self.batch).backward()
        clip_gradients(self.model, 1.0, 1.0)
        self.optimizer.step(1e-3)
        for parameter in self.model.parameters():
            parameter.grad = None

    def saved(self) -> int:
        """Bytes of the storages that the forward pass keeps for the backward pass, the parameters' own left out."""
        sizes: dict[int, int] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            whole = tensor if tensor._base is None else tensor._base
            if not isinstance(whole, torch.nn.Parameter):
                sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = self.model(self.batch, self.batch)
        total = sum(sizes.values())
        loss.backward()
        for parameter in self.model.parameters():
            parameter.grad = None
        return total


def measured(case: dict) -> dict[str, int]:
    trainer = Trainer(case)
    found = {"saved": trainer.saved()}
    if case.get("compiled", case["saving"] == "compiled"):  # a tracker's dispatch mode would run the blocks uncompiled
        return found
    optimizer = trainer.optimizer
    moments = [*optimizer.averages.values(), *optimizer.squares.values()]
    trainer.step()
    tracker = MemTracker()
    tracker.track_external(trainer.model, *moments)
    with tracker:
        trainer.step(tracker)
    [peak] = tracker.get_tracker_snapshot("peak").values()
    return found | {"peak": peak["Total"]}


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("gloo", init_method=f"file://{os.path.join(folder, 'store')}", rank=0, world_size=1)
        print(json.dumps([measured(case) for case in json.loads(sys.argv[1])]))
        dist.destroy_process_group()


main()
