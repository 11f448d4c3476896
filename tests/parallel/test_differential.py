"""Every composition of parallelism against one process. Silent wrong gradients are the field's worst bug."""

from dataclasses import replace
from pathlib import Path

import pytest

from l3_platform.parallel import Mesh
from l3_platform.parallel.schedule import PipelineSchedule
from tests.flex_on_cpu import refusal_lifted, traced_flex
from tests.parallel.differential import CONFIG, Case, three_steps, worst_errors
from tests.parallel.planted import BUGS
from tests.parallel.ranks import in_processes

TOLERANCE = 1e-5
ONE, INTERLEAVED, ZBV = PipelineSchedule("1f1b"), PipelineSchedule("interleaved"), PipelineSchedule("zero_bubble")
SCHEDULES = (ONE, INTERLEAVED, ZBV)

TWO = [
    Case(Mesh(tp=2)),
    Case(Mesh(cp=2)),
    *(Case(Mesh(pp=2), schedule) for schedule in SCHEDULES),
    Case(Mesh(dp_shard=2)),
    Case(Mesh(dp_replicate=2)),
    Case(Mesh(tp=2), config=replace(CONFIG, tied=True)),
    *(Case(mesh, document_mask=False) for mesh in (Mesh(tp=2), Mesh(cp=2), Mesh(dp_shard=2))),
    *(
        Case(mesh, options={"activation_checkpointing": how})
        for mesh in (Mesh(tp=2), Mesh(cp=2), Mesh(dp_shard=2))
        for how in ("selective", "full")
    ),
    *(Case(Mesh(pp=2), schedule, document_mask=False) for schedule in SCHEDULES),
    *(Case(Mesh(pp=2), schedule, sequences=5) for schedule in SCHEDULES),  # three of eight rows predict nothing
    *(Case(Mesh(pp=2), schedule, options={"activation_checkpointing": "full"}) for schedule in SCHEDULES),
    Case(Mesh(pp=2), INTERLEAVED, options={"activation_checkpointing": "selective"}),
    # The first stage is the embedding alone, or the last the output head, or both.
    *(Case(Mesh(pp=2), schedule, config=replace(CONFIG, layers=2)) for schedule in (INTERLEAVED, ZBV)),
    Case(Mesh(pp=2), replace(INTERLEAVED, stages_per_rank=3)),
    Case(Mesh(pp=2), ONE, config=replace(CONFIG, layers=1)),
    *(Case(mesh, kernels=True) for mesh in (Mesh(tp=2), Mesh(cp=2), Mesh(dp_shard=2), Mesh(dp_replicate=2))),
    *(Case(Mesh(pp=2), schedule, kernels=True) for schedule in SCHEDULES),
    *(Case(Mesh(dp_shard=2), kernels=True, options={"activation_checkpointing": how}) for how in ("selective", "full")),
    Case(Mesh(tp=2), options={"compile_blocks": True}),
    Case(Mesh(pp=2), ONE, options={"compile_blocks": True}),
    *(
        Case(mesh, options={"compile_blocks": True, "activation_checkpointing": how})
        for mesh, how in ((Mesh(tp=2), "full"), (Mesh(dp_shard=2), "selective"))
    ),
]
TWO_MORE = [  # compiling takes a while
    Case(mesh, options={"compile_blocks": True, "activation_checkpointing": how})
    for mesh, how in ((Mesh(tp=2), "selective"), (Mesh(cp=2), "selective"), (Mesh(cp=2), "full"), (Mesh(dp_shard=2), "full"))
]
FOUR = [
    Case(Mesh(dp_replicate=2, dp_shard=2)),
    Case(Mesh(cp=4)),
    *(Case(mesh, document_mask=False) for mesh in (Mesh(cp=4), Mesh(dp_replicate=2, dp_shard=2), Mesh(cp=2, tp=2))),
    *(Case(Mesh(pp=2, tp=2), schedule, document_mask=False) for schedule in SCHEDULES),
    Case(Mesh(pp=4), ONE),
    Case(Mesh(cp=2, tp=2)),
    Case(Mesh(dp_shard=2, tp=2)),
    Case(Mesh(dp_replicate=2, tp=2)),
    Case(Mesh(dp_shard=2, cp=2)),
    Case(Mesh(dp_replicate=2, cp=2)),
    *(Case(Mesh(dp_shard=2, pp=2), schedule) for schedule in SCHEDULES),
    *(Case(Mesh(pp=2, cp=2), schedule) for schedule in SCHEDULES),
    *(Case(Mesh(pp=2, tp=2), schedule) for schedule in SCHEDULES),
    Case(Mesh(dp_replicate=2, pp=2), INTERLEAVED),
]
EIGHT = [
    *(Case(Mesh(pp=2, cp=2, tp=2), schedule) for schedule in SCHEDULES),
    Case(Mesh(dp_shard=2, pp=2, tp=2), ZBV),
    Case(Mesh(dp_shard=2, pp=2, cp=2), INTERLEAVED, document_mask=False),
    Case(Mesh(dp_replicate=2, dp_shard=2, cp=2)),
]
SIXTEEN = [
    Case(Mesh(dp_shard=2, pp=2, cp=2, tp=2), INTERLEAVED),
    Case(Mesh(dp_replicate=2, dp_shard=2, pp=2, tp=2), ONE),
    Case(Mesh(dp_replicate=2, pp=2, cp=2, tp=2), ZBV, document_mask=False),
]
PLANTED = [
    Case(Mesh(pp=2), ONE, bug="no mask on one stage"),
    Case(Mesh(dp_shard=2), bug="one shard's gradient scaled"),
    Case(Mesh(tp=2), bug="one shard's gradient scaled"),
    Case(Mesh(cp=2), bug="chunks in order"),
    Case(Mesh(cp=2), bug="positions from zero"),
    Case(Mesh(cp=2), bug="keys without gradient"),
    Case(Mesh(pp=2), INTERLEAVED, bug="last micro-batch lost"),
    Case(Mesh(pp=2), ONE, bug="mean over micro-batches"),
    Case(Mesh(tp=2), bug="loss counted on every rank"),
    Case(Mesh(pp=2), ZBV, bug="norm of one stage"),
]


@pytest.mark.parametrize(
    ("world", "cases"),
    [
        pytest.param(2, TWO, marks=pytest.mark.slow),
        pytest.param(2, TWO_MORE, marks=pytest.mark.exhaustive),
        pytest.param(4, FOUR, marks=pytest.mark.slow),
        pytest.param(8, EIGHT, marks=pytest.mark.exhaustive),
        pytest.param(16, SIXTEEN, marks=pytest.mark.exhaustive),
    ],
)
def test_every_composition_has_the_loss_and_every_gradient_of_one_process(world: int, cases: list[Case], tmp_path: Path) -> None:
    errors = in_processes(world, tmp_path, worst_errors, cases)
    assert wrong(errors) == {}


@pytest.mark.slow
def test_a_planted_bug_is_noticed(tmp_path: Path) -> None:
    errors = in_processes(2, tmp_path, worst_errors, PLANTED)
    assert {name: error for name, error in errors.items() if error < 10 * TOLERANCE} == {}
    assert {case.bug for case in PLANTED} == set(BUGS) and len(errors) == len(PLANTED)


def bf16_losses(rank: int, cases: list[Case]) -> dict[str, list[list[float]]]:
    """Of each case, and of one process in fp32."""
    expected = three_steps(Case(Mesh()), Mesh(), 0).losses
    return {case.name: [three_steps(case, case.mesh, rank).losses, expected] for case in cases}


@pytest.mark.slow
def test_bf16_follows_fp32_to_the_precision_of_bf16_under_every_parallelism(tmp_path: Path) -> None:
    meshes = [(Mesh(cp=2, tp=2), None), (Mesh(pp=2, tp=2), ZBV), (Mesh(dp_shard=2, pp=2), ONE)]
    cases = [Case(mesh, schedule, options={"precision": "bf16"}) for mesh, schedule in meshes]
    for got, expected in in_processes(4, tmp_path, bf16_losses, cases).values():
        assert got == pytest.approx(expected, rel=1e-3) and got != pytest.approx(expected, rel=1e-7)


def worst_errors_under_flex(rank: int, cases: list[Case]) -> dict[str, float]:
    with refusal_lifted():
        return worst_errors(rank, [replace(case, options=case.options | {"kernel": traced_flex()}) for case in cases])


@pytest.mark.exhaustive
def test_flex_has_the_gradients_of_one_process_under_sdpa(tmp_path: Path) -> None:
    cases = [
        Case(Mesh(cp=2)),
        Case(Mesh(cp=2), document_mask=False),
        Case(Mesh(tp=2), options={"activation_checkpointing": "selective"}),
        Case(Mesh(pp=2), INTERLEAVED),
        Case(Mesh(dp_shard=2), options={"compile_blocks": True}),
        Case(Mesh(cp=2), options={"compile_blocks": True, "activation_checkpointing": "selective"}),
    ]
    errors = in_processes(2, tmp_path, worst_errors_under_flex, cases)
    assert len(errors) == len(cases) and wrong(errors) == {}


def wrong(errors: dict[str, float]) -> dict[str, float]:
    return {name: error for name, error in errors.items() if not error <= TOLERANCE}
