"""Shapes of the mesh: what is refused, and in which words."""

import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest

from l3_platform.model import ModelConfig, presets
from l3_platform.parallel import Mesh, mesh_for
from l3_platform.parallel.schedule import PipelineSchedule, split_layers

SMALL = ModelConfig(vocab_size=64, d_model=64, layers=4, heads=8, kv_heads=4, ffn=96)
ONE = PipelineSchedule()


@pytest.mark.parametrize(
    ("degrees", "expected"),
    [
        ({}, Mesh(1, 16)),
        ({"dp_shard": 4}, Mesh(4, 4)),
        ({"tp": 2, "cp": 2, "pp": 2}, Mesh(1, 2, 2, 2, 2)),
        ({"tp": 2, "pp": 2, "dp_shard": 2}, Mesh(2, 2, 2, 1, 2)),
    ],
)
def test_what_the_model_leaves_is_data_parallelism(degrees: dict[str, int], expected: Mesh) -> None:
    assert mesh_for(16, **degrees) == expected


def test_the_order_is_tensor_context_pipeline_data_from_the_inside() -> None:
    mesh = Mesh(dp_replicate=1, dp_shard=2, pp=2, cp=2, tp=2)
    places = [(mesh.data_rank(r), mesh.pp_rank(r), mesh.cp_rank(r), mesh.tp_rank(r)) for r in range(mesh.ranks)]
    assert places == sorted(places) and len(set(places)) == 16
    assert places[1] == (0, 0, 0, 1) and places[2] == (0, 0, 1, 0) and places[4] == (0, 1, 0, 0) and places[8] == (1, 0, 0, 0)


@pytest.mark.parametrize("row", [(8_192, 8, 1, 16, 64, 8_192), (16_384, 8, 1, 16, 128, 8_192), (16_384, 8, 16, 16, 8, 131_072)])
def test_the_meshes_of_the_paper_are_possible(row: tuple[int, ...]) -> None:
    ranks, tp, cp, pp, data, seq_len = row  # Llama 3, table 4; in its last row the other degrees leave 8
    mesh = mesh_for(ranks, tp=tp, cp=cp, pp=pp)
    mesh.check(presets["405b"], [seq_len], ONE)
    assert mesh.data_ranks == data


@pytest.mark.parametrize(
    ("mesh", "model", "schedule", "message"),
    [
        (Mesh(tp=8), SMALL, ONE, "4 KV heads cannot be cut over 8 tensor-parallel ranks; set train.tensor_parallel to a divisor"),
        (Mesh(tp=2), replace(SMALL, vocab_size=63), ONE, "63 vocabulary entries cannot be cut over 2"),
        (Mesh(tp=4), replace(SMALL, ffn=90), ONE, "90 FFN columns cannot be cut over 4"),
        (Mesh(cp=3), SMALL, ONE, r"sequences of 32 tokens cannot be cut into 6 chunks.* set train.context_parallel"),
        (Mesh(cp=16, tp=4), SMALL, ONE, r"the 2 tokens of a sequence on a context-parallel rank cannot be cut over 4"),
        (Mesh(pp=8), SMALL, ONE, "4 layers, an embedding and an output head cannot fill 8 pipeline stages; lower train.pipe"),
        (Mesh(pp=4), SMALL, PipelineSchedule("interleaved"), "an output head cannot fill 8 pipeline stages"),
        (Mesh(pp=2), replace(SMALL, tied=True), ONE, "a tied embedding would lie on the first and on the last"),
        (Mesh(pp=2), SMALL, PipelineSchedule("1f1b", 2), "1F1B has one stage a rank, not 2"),
        (Mesh(pp=2), replace(SMALL, layers=8), PipelineSchedule("zero_bubble", 3), "ZBV has two stages a rank, not 3"),
        (Mesh(pp=2), SMALL, PipelineSchedule("interleaved", 1), "interleaving needs two stages a rank or more"),
        (Mesh(pp=4), SMALL, PipelineSchedule("1f1b", 0, 3), r"3 micro-batches cannot run on 4 ranks.*pipeline_micro_batches to 4"),
        (Mesh(pp=2), SMALL, PipelineSchedule("interleaved", 0, 5), "5 micro-batches cannot run on 2 ranks.* to 6, or to 0"),
    ],
)
def test_an_impossible_shape_names_the_setting_to_change(
    mesh: Mesh, model: ModelConfig, schedule: PipelineSchedule, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        mesh.check(model, [32], schedule)


@pytest.mark.parametrize(
    ("degrees", "message"),
    [
        ({"tp": 3}, r"8 ranks cannot hold whole models of 3 ranks \(tensor 3 · context 1 · pipeline 1\); start a multiple of 3"),
        ({"tp": 2, "dp_shard": 3}, r"4 data-parallel ranks \(of 8\) cannot be cut into shards of 3; .* one of 1, 2, 4"),
    ],
)
def test_ranks_that_do_not_come_out_even_are_refused(degrees: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mesh_for(8, **degrees)


def test_too_few_ranks_are_counted_as_a_person_would_and_name_the_settings() -> None:
    with pytest.raises(ValueError, match=r"0 ranks cannot train; set train\.nodes and train\.processes_per_node"):
        mesh_for(0)
    with pytest.raises(ValueError, match=r"mesh: 1 rank cannot hold whole models of 2 ranks"):
        mesh_for(1, tp=2)
    with pytest.raises(ValueError, match=r"mesh: 1 rank cannot be cut into shards of 2"):
        mesh_for(1, 2)


def test_the_first_and_the_last_stage_of_405b_have_one_layer_fewer() -> None:
    assert [len(blocks) for blocks in split_layers(126, 16)] == [7, *[8] * 14, 7]
    assert [len(blocks) for blocks in split_layers(126, 128)] == [0, *[1] * 126, 0]


@pytest.mark.parametrize("layers", [1, 2, 3, 7, 32, 80, 126])
def test_stages_hold_every_layer_once_in_order_and_none_has_nothing_to_do(layers: int) -> None:
    for stages in range(1, layers + 3):
        split = split_layers(layers, stages)
        assert [index for blocks in split for index in blocks] == list(range(layers))
        assert len(split) == stages and min(map(len, split if stages <= layers else split[1:-1]), default=1) >= 1
        load = [len(blocks) + (number == 0) + (number == stages - 1) for number, blocks in enumerate(split)]
        assert max(load) - min(load) <= 1 or min(len(split[0]), len(split[-1])) <= 1


@pytest.mark.parametrize("schedule", [ONE, PipelineSchedule("interleaved", 3), PipelineSchedule("zero_bubble")])
def test_each_rank_runs_its_number_of_stages(schedule: PipelineSchedule) -> None:
    owners = [schedule.rank_of(stage, 4) for stage in range(4 * schedule.stages_per_rank)]
    assert Counter(owners) == dict.fromkeys(range(4), schedule.stages_per_rank)
    assert owners[-1] == (0 if schedule.name == "zero_bubble" else 3)


def test_micro_batches_follow_the_rows_and_fit_the_schedule() -> None:
    assert ONE.micro_batches_of(rows=16, rows_a_micro_batch=2, pp=4) == 8
    assert ONE.micro_batches_of(rows=3, rows_a_micro_batch=0, pp=4) == 4  # one row is added
    assert PipelineSchedule("interleaved").micro_batches_of(rows=5, rows_a_micro_batch=1, pp=4) == 8  # whole rounds
    assert ONE.padding(rows=3, rows_a_micro_batch=0, pp=4) == 1 and ONE.padding(rows=16, rows_a_micro_batch=2, pp=4) == 0
    assert PipelineSchedule("1f1b", 0, 6).micro_batches_of(rows=16, rows_a_micro_batch=1, pp=4) == 6  # set by hand


def test_a_mesh_is_checked_without_torch() -> None:
    code = "import sys; from l3_platform.parallel import mesh_for; mesh_for(8, tp=2); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_single_process_imports_neither_dtensor_nor_pipelining() -> None:
    code = (
        "import sys, torch; from l3_platform.parallel.parallel_model import build; from l3_platform.model import presets;"
        "from l3_platform.parallel import Mesh; build(presets['tiny'], Mesh(), 0, device=torch.device('cpu'));"
        "import l3_platform.train.loop; names = set(sys.modules);"
        "assert not names & {'torch.distributed.tensor', 'torch.distributed.pipelining', 'torch.distributed.fsdp'}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
