"""Three optimizer steps on any mesh against one process: the loss, the gradient's norm and every gradient."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist

from l3_platform.model import ModelConfig, cpu
from l3_platform.model.init import initialize
from l3_platform.parallel import Mesh
from l3_platform.parallel.parallel_model import build
from l3_platform.parallel.parallelize import full, local_rows
from l3_platform.parallel.schedule import PipelineSchedule
from l3_platform.train.optimizer import AdamW, clip_gradients

CONFIG = ModelConfig(vocab_size=64, d_model=32, layers=4, heads=4, kv_heads=2, ffn=64)
BOS = 63
SEQ = 32


@dataclass(frozen=True)
class Case:
    mesh: Mesh
    schedule: PipelineSchedule | None = None
    document_mask: bool = True
    sequences: int = 8
    rows: int = 2  # sequences a micro-batch
    bug: str = ""  # of `planted`
    config: ModelConfig = CONFIG
    kernels: bool = False  # those of a CPU, where they can be; else all is as on a GPU
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        m = self.mesh
        degrees = [("replicate", m.dp_replicate), ("shard", m.dp_shard), ("pp", m.pp), ("cp", m.cp), ("tp", m.tp)]
        words = [f"{name}{degree}" for name, degree in degrees if degree > 1]
        words += [self.schedule.name] if self.schedule else []
        words += [] if self.document_mask else ["no mask"]
        words += [f"{self.sequences} sequences"] if self.sequences != 8 else []
        words += ["kernels"] if self.kernels else []
        words += ["tied"] if self.config.tied else []
        words += [f"{self.config.layers} layers"] if self.config.layers != CONFIG.layers else []
        words += [f"{self.schedule.stages_per_rank} stages a rank"] if self.schedule and self.schedule.stages_per_rank > 2 else []
        return " ".join([*words, *self.options, *([f"with {self.bug}"] if self.bug else [])])


@dataclass
class Steps:
    """Of three steps: nats a token, norm before clipping, whole gradients after it."""

    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    gradients: list[dict[str, torch.Tensor]] = field(default_factory=list)


# Through dynamo and autograd's tracer, where compilation can go wrong with collectives, but not through inductor, whose C++
# takes a minute.
_compile = partial(torch.compile, backend="aot_eager")


def three_steps(case: Case, mesh: Mesh, rank: int) -> Steps:
    """Gradients are those of the parameters that this rank holds a part of."""
    # Without the kernels tensor parallelism, of DTensors, rounds as its reference does.
    with mock.patch.multiple(cpu, PLAIN=cpu.PLAIN if case.kernels else (), _LARGE=1, _WORTH_IT=1):
        return _three_steps(case, mesh, rank)


def _three_steps(case: Case, mesh: Mesh, rank: int) -> Steps:
    with mock.patch.object(torch, "compile", _compile):
        model = build(
            case.config, mesh, rank, device=torch.device("cpu"), schedule=case.schedule, unit_parameters=15_000, **case.options
        )
    initialize(model.module, 1, local_rows)
    # With the usual epsilon the first steps follow the signs of gradients, which makes much of the rounding of small ones.
    optimizer = AdamW(model.module, betas=(0.9, 0.95), epsilon=1e-2, weight_decay=0.1)
    done = Steps()
    for step in range(3):
        tokens = ragged_documents(case.sequences, step)
        mine = tokens[mesh.data_rank(rank) :: mesh.data_ranks]
        nats = model.forward_backward(mine[:, :-1], mine[:, 1:], BOS if case.document_mask else None, case.rows).double()
        if mesh.ranks > 1:
            dist.all_reduce(nats)
        count = case.sequences * SEQ
        done.norms.append(clip_gradients(model.module, 1 / count, 1.0, model.pipeline))
        done.losses.append(nats.item() / count)
        gradients = {name: p.grad for name, p in model.module.named_parameters() if p.grad is not None}
        done.gradients.append({name: full(gradient).clone() for name, gradient in gradients.items()})
        optimizer.step(2e-2)
        for parameter in model.module.parameters():
            parameter.grad = None
    return done


def worst_errors(rank: int, cases: Sequence[Case]) -> dict[str, float]:
    """For each case the largest relative error of any loss, norm or gradient on any rank; infinite where one is missing.

    A gradient's error is its largest difference over its largest entry.
    """
    expected: dict[Any, Steps] = {}
    found = {}
    for case in cases:
        key = (case.document_mask, case.sequences, case.config)
        if key not in expected:
            expected[key] = three_steps(Case(Mesh(), None, case.document_mask, case.sequences, config=case.config), Mesh(), 0)
        from tests.parallel.planted import planted

        with planted(case.bug, rank):
            errors = _errors(three_steps(case, case.mesh, rank), expected[key])
        gathered: list[Any] = [None] * case.mesh.ranks
        dist.all_gather_object(gathered, errors)
        whole = {"loss", "norm", *expected[key].gradients[0]}
        complete = set().union(*gathered) == whole
        found[case.name] = max(max(errors.values()) for errors in gathered) if complete else float("inf")
    return found


def ragged_documents(sequences: int, seed: int) -> torch.Tensor:
    """[sequences, SEQ + 1] of documents of all lengths: single tokens, whole sequences, some across every chunk's edge."""
    random = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, BOS, (sequences, SEQ + 1), generator=random)
    often = torch.linspace(0.0, 0.5, sequences)[:, None]
    return torch.where(torch.rand(tokens.shape, generator=random) < often, BOS, tokens)


def _errors(got: Steps, expected: Steps) -> dict[str, float]:
    errors: dict[str, list[float]] = {"loss": [], "norm": []}
    for step in range(3):
        errors["loss"].append(abs(got.losses[step] / expected.losses[step] - 1))
        errors["norm"].append(abs(got.norms[step] / expected.norms[step] - 1))
        for name, gradient in got.gradients[step].items():
            right = expected.gradients[step][name]
            errors.setdefault(name, []).append(((gradient - right).abs().max() / right.abs().max()).item())
    return {name: max(values) if all(v == v for v in values) else float("inf") for name, values in errors.items()}
