"""A sweep of branches: one stable run a size, whose decays are the runs that each budget would have had of its own."""

import numpy as np
import pytest

from l3_platform.scaling.branches import by_size, run_size
from l3_platform.scaling.isoflop import PointTask, point_job, points
from l3_platform.scaling.proxy import Corpus
from l3_platform.settings import Settings
from l3_platform.train.loop import train

VOCAB, BOS, EOS = 512, 256, 257
SETTINGS = Settings.model_validate(
    {
        "scaling": {
            **{"budgets": (4e8, 8e8, 1.6e9), "layers": (1, 2), "aspect": 16, "seq_len": 32, "batch_tokens": 256},
            **{"min_tokens": 1, "schedule": "wsd"},
        },
        "model": {"head_dim": 16},
    }
)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory) -> list[PointTask]:
    random = np.random.default_rng(5)
    file = tmp_path_factory.mktemp("stream") / "train.bin"
    documents = [[BOS, *np.arange(start, start + 30), EOS] for start in random.integers(0, 200, 300)]
    file.write_bytes(np.array(documents, "<u4").tobytes())
    files = {"code": (str(file),)}
    corpus = Corpus(files, files, BOS, EOS)
    return [PointTask(point, corpus, {"code": 1.0}, SETTINGS) for point in points(SETTINGS, VOCAB, 10**6)]


def test_every_point_is_trained_once_and_under_its_size(tasks):
    sizes = by_size(tasks)
    assert list(sizes) == ["layers-001", "layers-002"]
    assert [task.point.budget for task in sizes["layers-001"]] == [4e8, 8e8, 1.6e9]


def test_a_branch_has_the_loss_of_a_run_of_its_own_to_the_last_bit(tasks, tmp_path):
    group = by_size(tasks)["layers-001"]
    rows = run_size(group).table.to_pylist()
    assert [row["tokens"] for row in rows] == [task.point.tokens for task in group]
    longest = group[-1]
    stable = round(0.8 * longest.point.tokens) // 256 * 256
    alone = point_job(
        longest, str(tmp_path), longest.point.tokens,
        schedule="wsd", warmup_tokens=int(0.1 * group[0].point.tokens), decay_tokens=longest.point.tokens - stable,
    )  # fmt: skip
    assert train(alone).held_out_loss == rows[-1]["loss"]
    assert rows[-1]["loss"] < rows[0]["loss"]
