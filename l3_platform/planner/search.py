"""The best layouts of a step over so many GPUs, by trying all that the model, the batch and a server allow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from l3_platform.model.config import ModelConfig
from l3_platform.planner.cluster import H100, Cluster, Shares
from l3_platform.planner.layout import Layout, PlanError, Saving, Step
from l3_platform.planner.memory import Memory, memory
from l3_platform.planner.pace import Pace, pace

SAVINGS: tuple[Saving, ...] = ("compiled", "selective", "full")
ROWS = (1, 2, 4, 8)
MAX_CONTEXT_PARALLEL = 64


@dataclass(frozen=True)
class Candidate:
    layout: Layout
    memory: Memory
    pace: Pace


@dataclass(frozen=True)
class Plan:
    """`best` fit the memory, fastest first, one a mesh. `faster` is the fastest that does not fit, where it would be
    faster than the best."""

    config: ModelConfig
    step: Step
    gpus: int
    best: list[Candidate]
    faster: Candidate | None
    tried: int


def search(config: ModelConfig, step: Step, gpus: int, shares: Shares, cluster: Cluster = H100, count: int = 5) -> Plan:
    """Raises PlanError where the batch cannot be cut for so many GPUs, or where nothing fits."""
    tried = [
        Candidate(layout, memory(config, layout, step), pace(config, layout, step, shares, cluster))
        for layout in layouts(config, step, gpus, cluster)
    ]
    if not tried:
        raise PlanError(
            f"no mesh of {gpus:,} GPUs can cut {step.sequences:,} sequences of {step.seq_len:,} "
            f"token{'s' * (step.seq_len > 1)} evenly; take another number of GPUs, another batch, or longer sequences"
        )
    tried.sort(key=lambda candidate: (candidate.pace.seconds, candidate.memory.peak))
    fitting = [candidate for candidate in tried if candidate.memory.peak <= cluster.memory]
    if not fitting:
        least = min(tried, key=lambda candidate: candidate.memory.peak)
        raise PlanError(
            f"nothing fits: the smallest of {len(tried):,} layouts needs {least.memory.peak / 1e9:,.0f} GB a GPU of "
            f"{cluster.memory / 1e9:.0f} ({describe(least.layout)}); take more GPUs, or shorter sequences"
        )
    best: dict[tuple[int, int, int, int], Candidate] = {}
    for candidate in fitting:
        mesh = candidate.layout
        best.setdefault((mesh.tp, mesh.cp, mesh.pp, mesh.dp), candidate)
    faster = tried[0] if tried[0].memory.peak > cluster.memory else None
    return Plan(config, step, gpus, list(best.values())[:count], faster, len(tried))


def layouts(config: ModelConfig, step: Step, gpus: int, cluster: Cluster) -> Iterator[Layout]:
    """Tensor parallelism stays in a server and divides KV heads; context parallelism cuts a sequence into 2·CP chunks."""
    for tp in _divisors(config.kv_heads, cluster.gpus_a_node):
        for cp in _divisors(gpus // tp, MAX_CONTEXT_PARALLEL) if gpus % tp == 0 else ():
            if step.seq_len % (2 * cp * tp):
                continue
            for pp in _divisors(gpus // tp // cp, config.layers + 2):
                yield from _schedules(config, step, Layout(tp=tp, cp=cp, pp=pp, dp=gpus // tp // cp // pp))


def _schedules(config: ModelConfig, step: Step, mesh: Layout) -> Iterator[Layout]:
    for rows in ROWS:
        if step.sequences % (mesh.dp * rows):
            return
        micro_batches = step.sequences // (mesh.dp * rows)
        if micro_batches < mesh.pp:  # the pipeline would never be full
            return
        most = (config.layers + 2) // mesh.pp if mesh.pp > 1 else 1
        for stages in (count for count in range(1, most + 1) if (config.layers + 2) % (mesh.pp * count) == 0 or count == 1):
            if stages > 1 and micro_batches % mesh.pp:  # the interleaved schedule takes PP micro-batches at a time
                continue
            for saving in SAVINGS:
                yield Layout(mesh.tp, mesh.cp, mesh.pp, mesh.dp, stages, rows, saving)


def describe(layout: Layout) -> str:
    """One line: `TP 8, CP 1, PP 16 of 8 stages, DP 128, 1 sequence a micro-batch, selective`."""
    stages = f" of {layout.stages} stages" if layout.stages > 1 else ""
    rows = f"{layout.rows} sequence{'s' * (layout.rows > 1)} a micro-batch"
    return f"TP {layout.tp}, CP {layout.cp}, PP {layout.pp}{stages}, DP {layout.dp}, {rows}, {layout.saving}"


def _divisors(number: int, most: int) -> list[int]:
    return [size for size in range(1, min(number, most) + 1) if number % size == 0]
