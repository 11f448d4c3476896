"""The large profiles by our own planner: every phase fits its GPUs, the trainer takes its mesh, and next to no rank idles."""

import math
from dataclasses import dataclass
from functools import cache

import pytest

from l3_platform.parallel.schedule import split_layers
from l3_platform.planner.layout import Layout, Saving, Step, stage_layers
from l3_platform.planner.memory import memory
from l3_platform.pretrain import annealing_stage, at_length, short_length
from l3_platform.scaling.laws import ScalingLaw
from l3_platform.scaling.plan import training_plan
from l3_platform.settings import Settings, Stage, load
from l3_platform.train.job import TrainJob

GPU = {"llama3-405b": 80e9, "llama3-70b": 80e9, "llama3-8b": 80e9, "one-gpu": 24e9}  # bytes that tensors may take
CHINCHILLA = ScalingLaw(method="fallback", exponent=0.5, coefficient=math.sqrt(20 / 6), minima=(), notes=("assumed",))


@dataclass(frozen=True)
class Phase:
    """A step of a profile as the trainer lays it out; `idle` is the share of the sequences computed that predict nothing."""

    profile: str
    name: str
    job: TrainJob
    layout: Layout
    step: Step
    idle: float

    @property
    def bubble(self) -> float:
        return (self.layout.pp - 1) / (self.layout.stages * self.layout.micro_batches(self.step))


@cache
def phases(profile: str) -> list[Phase]:
    settings = load(profile)
    plan = training_plan(CHINCHILLA, settings, settings.tokenizer.vocab_size, 10**15)
    short, last = short_length(plan), settings.long_context.stages[-1]
    before = [phase_of(settings, f"from {stage.from_tokens:,} tokens", stage, model=plan.model) for stage in plan.ramp]
    grown = [
        phase_of(settings, f"{one.seq_len:,} tokens long", Stage(batch_tokens=one.batch_tokens, seq_len=one.seq_len),
                 held_out_seq_len=short, **at_length(one, plan, settings))
        for one in settings.long_context.stages
    ]  # fmt: skip
    end = phase_of(settings, "annealing", annealing_stage(plan, last.seq_len), held_out_seq_len=short,
                   **at_length(last, plan, settings))  # fmt: skip
    return [*before, *grown, end]


def phase_of(settings: Settings, name: str, stage: Stage, **fields) -> Phase:
    """Raises ValueError where the trainer would not start."""
    train, sequences = settings.train, stage.batch_tokens // stage.seq_len
    job = TrainJob.from_settings(
        train, folder="", output="", data={"general": ("tokens.bin",)}, shares={"general": 1.0}, bos_id=0, eos_id=1,
        total_tokens=stage.batch_tokens, ramp=(stage.model_copy(update={"from_tokens": 0}),), **fields,
    )  # fmt: skip
    mesh, schedule = job.mesh(train.nodes * train.processes_per_node), job.schedule_of_pipeline
    assert mesh.dp_replicate == 1, "the planner shards over all data ranks"
    rows, wanted = -(-sequences // mesh.data_ranks), job.micro_batch_tokens // stage.seq_len
    if mesh.pp > 1:
        count, stages = schedule.micro_batches_of(rows, wanted, mesh.pp), schedule.stages_per_rank
    else:
        count, stages = -(-rows // max(1, wanted)) if job.micro_batch_tokens else 1, 1
    each = -(-rows // count)
    computed = each * count if mesh.pp > 1 else rows
    saving: dict[str, Saving] = {"none": "compiled" if job.compile else "eager", "selective": "selective", "full": "full"}
    layout = Layout(mesh.tp, mesh.cp, mesh.pp, mesh.data_ranks, stages, each, saving[job.activation_checkpointing])
    step = Step(stage.seq_len, mesh.data_ranks * each * count * stage.seq_len)
    return Phase(settings.profile, name, job, layout, step, 1 - sequences / (computed * mesh.data_ranks))


ALL = [pytest.param(profile, at, id=f"{profile}-{at}") for profile in GPU for at in range(10 if profile.startswith("llama") else 5)]


def test_there_are_ten_phases_of_llama_3_and_five_on_one_gpu() -> None:
    assert [len(phases(profile)) for profile in GPU] == [10, 10, 10, 5]


@pytest.mark.parametrize(("profile", "at"), ALL)
def test_every_phase_fits(profile: str, at: int) -> None:
    phase = phases(profile)[at]
    precision = phase.job.precision
    assert memory(phase.job.model, phase.layout, phase.step, precision).peak <= GPU[profile], phase.name


@pytest.mark.parametrize(("profile", "at"), ALL)
def test_no_rank_computes_for_nothing(profile: str, at: int) -> None:
    phase = phases(profile)[at]
    assert phase.idle == 0 and phase.bubble < 0.12, phase.name


@pytest.mark.parametrize("profile", GPU)
def test_the_planner_cuts_the_layers_as_the_trainer_does(profile: str) -> None:
    layout, model = phases(profile)[0].layout, phases(profile)[0].job.model
    count = layout.pp * layout.stages
    planned, trained = stage_layers(model, layout), [len(blocks) for blocks in split_layers(model.layers, count)]
    ranks = [[sum(sizes[rank :: layout.pp]) for rank in range(layout.pp)] for sizes in (planned, trained)]
    assert max(ranks[0]) == max(ranks[1]) and sum(ranks[0]) == sum(ranks[1])


def test_at_128k_405b_has_the_mesh_of_table_4() -> None:
    for phase in phases("llama3-405b")[-2:]:
        at = phase.layout
        assert (at.tp, at.cp, at.pp, at.dp, at.gpus, phase.step.seq_len) == (8, 16, 16, 8, 16_384, 131_072)
        assert phase.step.batch_tokens == 16 << 20


@pytest.mark.parametrize("profile", ["llama3-8b", "llama3-70b", "llama3-405b"])
def test_long_sequences_have_the_rope_of_llama_3_1(profile: str) -> None:
    scalings = [phase.job.model.rope_scaling for phase in phases(profile)]
    assert scalings[:3] == [None] * 3
    for scaling in scalings[3:]:
        assert scaling is not None
        assert (scaling.factor, scaling.low_freq_factor, scaling.high_freq_factor, scaling.original_seq_len) == (8, 1, 4, 8192)
