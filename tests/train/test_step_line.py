"""Rank 0's line of a step: how far the run has come, and how long it will take."""

from pathlib import Path

import pytest

from l3_platform.settings import Stage
from l3_platform.train.__main__ import _printer, _span
from l3_platform.train.branch import complete
from l3_platform.train.loop import train
from tests.train.test_loop import job_in

ROW = {"step": 29, "tokens": 2048, "loss": 4.125, "learning_rate": 1.2e-3, "grad_norm": 0.9134, "tokens_per_second": 153.6}


def test_a_step_s_line_begins_as_ever_and_has_the_total_the_share_and_the_time_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show = _printer(job_in(tmp_path, total_tokens=8192 + 63))  # 63 tokens are no whole sequence
    show(ROW | {"step": 1, "tokens": 1024, "time": 100.0, "tokens_per_second": 0.5})  # it waited for a compiler
    show(ROW | {"time": 106.7})
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("tokens/s") and second == (
        "step      29  tokens         2,048 of 8,192 (25 %)  loss 4.1250  lr 1.20e-03  norm 0.913  154 tokens/s, 40 s left"
    )


def test_the_last_step_of_a_branch_is_all_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parent = job_in(tmp_path / "parent", ramp=(Stage(batch_tokens=256, seq_len=32),))
    train(parent)
    branch = job_in(
        tmp_path / "branch", ramp=(Stage(batch_tokens=192, seq_len=96),), branch_from=str(complete(parent.folder)[0]),
        total_tokens=8192 + 1000, model=parent.model,
    )  # fmt: skip
    rows: list[dict[str, float]] = []
    train(branch, rows.append)
    _printer(branch)(rows[-1])
    assert "tokens         9,152 of 9,152 (100 %)" in capsys.readouterr().out


@pytest.mark.parametrize(("seconds", "said"), [(0, "0 s"), (119, "119 s"), (150, "2 min"), (9_000, "2 h"), (864_000, "10 days")])
def test_times_are_said_in_their_unit(seconds: float, said: str) -> None:
    assert _span(seconds) == said
