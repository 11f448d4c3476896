"""The planner against Llama 3's own configurations, and against arithmetic that can be done by hand."""

import functools
import json
import math
import subprocess
import sys
from dataclasses import replace

import pytest

from l3_platform import settings
from l3_platform.model import parameters, presets
from l3_platform.parallel.mesh import mesh_for
from l3_platform.parallel.schedule import PipelineSchedule
from l3_platform.planner import report
from l3_platform.planner.calibration import TABLE_4, fit, fitted, leave_one_out, predicted
from l3_platform.planner.cluster import H100, Shares
from l3_platform.planner.layout import Layout, PlanError, Step, stage_layers
from l3_platform.planner.memory import memory
from l3_platform.planner.pace import pace
from l3_platform.planner.search import Plan, layouts, search

BIG = presets["405b"]
SHARES = Shares(matrices=0.5, attention=0.5)


@pytest.mark.parametrize("row", TABLE_4, ids=lambda row: f"{row.layout.gpus}-{row.step.seq_len}")
def test_table_4_fits_80_gb_without_checkpointing_and_has_its_mfu(row) -> None:
    assert row.layout.saving != "full" and memory(BIG, row.layout, row.step).peak < 80e9
    assert predicted(row, fitted()) == pytest.approx(row.mfu, abs=0.05)


def test_each_row_of_table_4_is_the_gpus_and_tokens_that_it_says() -> None:
    assert [row.layout.gpus for row in TABLE_4] == [8192, 16_384, 16_384]
    assert {row.step.batch_tokens for row in TABLE_4} == {16 << 20}
    assert [row.layout.micro_batches(row.step) for row in TABLE_4] == [32, 16, 16]


def test_rows_at_8k_are_predicted_from_the_other_two_and_the_long_one_from_published_attention() -> None:
    misses = [left - row.mfu for row, left in leave_one_out()]
    assert max(map(abs, misses[:2])) < 0.01 and abs(misses[2]) < 0.07
    assert fit(TABLE_4[:2]).attention == pytest.approx(0.35, rel=1e-3)


def test_the_fit_finds_the_shares_that_made_the_rows() -> None:
    truth = Shares(matrices=0.48, attention=0.35)
    made = [replace(row, mfu=predicted(row, truth)) for row in TABLE_4]
    found = fit(made)
    assert (found.matrices, found.attention) == (pytest.approx(0.48, rel=1e-4), pytest.approx(0.35, rel=1e-4))


def test_126_layers_make_8_stages_on_16_ranks_with_none_at_either_end() -> None:
    sizes = stage_layers(BIG, Layout(pp=16, stages=8))
    assert sizes == [0, *[1] * 126, 0]
    assert stage_layers(BIG, Layout(pp=16)) == [7, *[8] * 14, 7]


@pytest.mark.parametrize("pp", range(1, 12))
@pytest.mark.parametrize("layers", [10, 11, 32])
def test_no_layer_is_lost_between_stages(layers: int, pp: int) -> None:
    sizes = stage_layers(replace(presets["8b"], layers=layers), Layout(pp=pp))
    assert sum(sizes) == layers and min(sizes) >= 0 and max(sizes) - min(sizes[1:-1] or sizes) <= 1


def test_the_bubble_is_that_of_the_interleaved_schedule() -> None:
    layout, step = Layout(pp=8, dp=2, stages=4), Step(8192, 2 * 32 * 8192)
    even = replace(BIG, layers=62, vocab_size=1)  # without a head, all ranks work alike but those at the ends
    found = pace(even, layout, step, SHARES)
    busy = found.matrices + found.attention + found.elementwise + found.tensor
    assert found.bubble / busy == pytest.approx(7 / (4 * 32))


def test_more_shards_take_less_optimizer_memory_and_the_weights_stay_gathered() -> None:
    one, many = (memory(presets["8b"], Layout(dp=dp), Step(8192, dp * 8192)) for dp in (1, 64))
    count = parameters(presets["8b"])
    assert one.optimizer == 12 * count and many.optimizer == 12 * count / 64 and one.weights == many.weights == 2 * count


@pytest.mark.parametrize("tp", [1, 2, 8])
def test_tensor_parallelism_divides_weights_and_activations(tp: int) -> None:
    whole, part = (memory(presets["8b"], Layout(tp=tp_), Step(8192, 8192)) for tp_ in (1, tp))
    assert part.weights == whole.weights / tp and part.activations == whole.activations / tp


def test_activations_of_a_pipeline_grow_to_its_depth_and_no_further() -> None:
    shallow, deep, deeper = (memory(BIG, Layout(tp=8, pp=16, dp=1), Step(8192, m * 8192)) for m in (16, 32, 64))
    assert shallow.activations == deep.activations == deeper.activations
    assert memory(BIG, Layout(tp=8, pp=16), Step(8192, 4 * 8192)).activations < shallow.activations / 3


def test_gathers_take_the_slowest_link_on_their_way() -> None:
    size, rate = 1e9, 0.8
    assert H100.gather_seconds(size, 1, 1, 8) == 0
    assert H100.gather_seconds(size, 8, 1, 8) == pytest.approx(7 / 8 * size / (rate * 450e9), rel=0.02)
    assert H100.gather_seconds(size, 8, 8, 64) == pytest.approx(7 / 8 * size / (rate * 50e9), rel=0.02)
    assert H100.gather_seconds(size, 16, 1, 64) == pytest.approx(15 / 16 * size / (rate * 400e9), rel=0.03)


@functools.cache
def searched(step: Step) -> Plan:
    """For 405B on 16,384 GPUs: seconds of searching."""
    return search(BIG, step, 16_384, fitted())


def test_the_search_finds_the_papers_mesh_among_the_best_and_all_proposals_fit() -> None:
    found = searched(Step(8192, 16 << 20))
    meshes = [(c.layout.tp, c.layout.cp, c.layout.pp, c.layout.dp) for c in found.best]
    assert (8, 1, 16, 128) in meshes and all(c.memory.peak <= 80e9 and c.layout.gpus == 16_384 for c in found.best)
    assert [c.pace.seconds for c in found.best] == sorted(c.pace.seconds for c in found.best)
    papers = found.best[meshes.index((8, 1, 16, 128))]
    assert papers.layout.stages == 8 and papers.pace.seconds < 1.05 * found.best[0].pace.seconds


@pytest.mark.parametrize("step", [Step(8192, 16 << 20), Step(131_072, 16 << 20)])
def test_the_trainer_takes_every_proposal(step: Step) -> None:
    for layout in (candidate.layout for candidate in searched(step).best):
        schedule = PipelineSchedule("interleaved" if layout.stages > 1 else "1f1b", layout.stages)
        mesh = mesh_for(layout.gpus, tp=layout.tp, cp=layout.cp, pp=layout.pp)
        mesh.check(BIG, [step.seq_len], schedule)
        assert mesh.data_ranks == layout.dp and schedule.padding(step.sequences // layout.dp, layout.rows, layout.pp) == 0


def test_no_proposal_is_beaten_by_a_layout_that_fits() -> None:
    step = Step(8192, 1 << 20)
    best = search(presets["8b"], step, 16, SHARES).best[0]
    for layout in layouts(presets["8b"], step, 16, H100):
        if memory(presets["8b"], layout, step).peak <= H100.memory:
            assert pace(presets["8b"], layout, step, SHARES).seconds >= best.pace.seconds


def test_what_cannot_be_planned_is_said_in_a_sentence() -> None:
    with pytest.raises(PlanError, match=r"nothing fits: the smallest of .* needs 1\d\d GB a GPU of 80 .*take more GPUs"):
        search(presets["8b"], Step(8192, 1 << 20), 1, SHARES)
    with pytest.raises(PlanError, match=r"no mesh of 7 GPUs can cut 128 sequences"):
        search(replace(presets["8b"], layers=3), Step(8192, 1 << 20), 7, SHARES)
    with pytest.raises(PlanError, match=r"no whole number of sequences of 3,000 tokens"):
        report.plan(settings.load("llama3-8b"), 64, 3000)
    with pytest.raises(PlanError, match=r"--set model.preset=NAME"):
        report.plan(settings.load("demo"))
    with pytest.raises(settings.SettingsError, match=r"model\.preset: there is no preset '7b'; did you mean '70b'\?"):
        report.plan(settings.load("demo", ["model.preset=7b"]))
    with pytest.raises(
        PlanError, match=r"no mesh of 16,384 GPUs .* 1 tokens? evenly; take another number of GPUs, another batch, or longer"
    ):
        report.plan(settings.load("llama3-8b"), 16_384, 1)


def test_the_command_prints_a_plan_that_json_repeats_without_importing_torch() -> None:
    program = (
        "import sys\nfrom l3_platform import cli\nsys.argv = ['l3', 'plan', '-p', 'llama3-70b', '--gpus', '1024', '--json']\n"
        "try:\n    cli.main()\nexcept SystemExit:\n    pass\n"
        "assert not {'torch', 'dagster', 'scipy', 'transformers'} & set(sys.modules)"
    )
    printed = json.loads(subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout)
    found = report.plan(settings.load("llama3-70b"), 1024)
    best = found.best[0]
    text = report.as_text(found)
    assert (
        printed["best"][0]["mfu"] == pytest.approx(best.pace.mfu)
        and math.prod(printed["best"][0]["layout"][name] for name in ("tp", "cp", "pp", "dp")) == 1024
    )
    assert f"{best.pace.mfu:.1%}" in text and "What binds" in text and "from the other two rows" in text
