import dataclasses
import math

import numpy as np
import pytest

from l3_platform.scaling.isoflop import PointTask, points, run_point
from l3_platform.scaling.proxy import Corpus
from l3_platform.settings import Settings

VOCAB, BOS, EOS = 512, 256, 257
SETTINGS = Settings.model_validate(
    {
        "scaling": {
            "budgets": (3e9,),
            "layers": (1,),
            "aspect": 16,
            "seq_len": 32,
            "batch_tokens": 256,
            "min_tokens": 1,
        },
        "model": {"head_dim": 16},
    }
)


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> PointTask:
    """Text that repeats eight tokens: easy to learn, so that training must lower the loss far below log(vocabulary)."""
    folder = tmp_path_factory.mktemp("streams")
    for split in ("train", "held_out"):
        document = [BOS, *np.tile(np.arange(8), 20).tolist(), EOS]
        (folder / f"{split}.bin").write_bytes(np.array(document * 20, "<u4").tobytes())
    (point,) = points(SETTINGS, VOCAB, 10**6)
    data, held_out = ({"code": (str(folder / f"{split}.bin"),)} for split in ("train", "held_out"))
    return PointTask(point, Corpus(data, held_out, BOS, EOS), {"code": 0.17}, SETTINGS)


@pytest.fixture(scope="module")
def row(task) -> dict:
    return run_point(task).table.to_pylist()[0]


def test_a_point_learns_on_its_budget(row):
    assert row["loss"] < 0.5 * math.log(VOCAB)


def test_a_point_spends_its_budget_to_a_sequence(task, row):
    assert row["tokens"] == task.point.tokens
    assert 0 <= row["flops"] - row["spent_flops"] < 6 * row["params"] * 32


def test_a_point_run_again_gives_the_same_row(task, row):
    assert run_point(task).table.to_pylist()[0] == row


def test_a_row_says_which_model_it_was(task, row):
    assert (row["point"], row["layers"], row["d_model"]) == (task.point.name, 1, 16)


def test_a_point_that_diverges_is_a_failure_with_its_reason_and_no_error(task):
    hot = SETTINGS.model_copy(update={"scaling": SETTINGS.scaling.model_copy(update={"learning_rate": 1e30})})
    output = run_point(dataclasses.replace(task, settings=hot))
    assert (output.table.num_rows, output.counts.failed) == (0, 1)
    (quarantined,) = output.quarantine.to_pylist()
    assert quarantined["file"] == task.point.name
    assert "loss nan" in quarantined["detail"] or "gradient norm" in quarantined["detail"]
