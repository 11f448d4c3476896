"""The ledger: what the weights have seen, each step once, however often the run was stopped."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from l3_platform.train import TrainingStopped
from l3_platform.train import ledger as module
from l3_platform.train.branch import complete
from l3_platform.train.data_order import Piece
from l3_platform.train.data_plan import DataPlan, Stream, read_plans
from l3_platform.train.interleave import Mixture
from l3_platform.train.ledger import Ledger, consumed, read, rewind
from l3_platform.train.loop import train
from l3_platform.train.token_stream import TokenStream
from tests.train.test_loop import StopAfter, job_in

CHANGE = Mixture(from_tokens=5000, shares={"general": 0.2, "code": 0.8})


def write(folder: Path, resumed: int, rank: int, steps: range) -> None:
    ledger = Ledger(folder, ["b", "a"], resumed, rank)
    for step in steps:
        ledger.add(step, Piece("b", 100 * step + rank, 8))
    ledger.flush()
    ledger.close()


def rows(folder: Path, **bounds: int) -> list[tuple[int, int, int, int]]:
    return [tuple(map(int, row)) for row in read(folder, **bounds)]


def test_records_are_read_by_step_whoever_wrote_them(tmp_path: Path) -> None:
    for rank in (1, 0):
        write(tmp_path, 0, rank, range(1, 4))
    assert rows(tmp_path, first_step=2) == [(2, 200, 8, 1), (2, 201, 8, 1), (3, 300, 8, 1), (3, 301, 8, 1)]
    assert rows(tmp_path, last_step=1) == [(1, 100, 8, 1), (1, 101, 8, 1)]


def test_an_attempt_forgets_what_came_after_its_checkpoint_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path, 0, 0, range(1, 10))
    write(tmp_path, 9, 0, range(10, 13))
    rewind(tmp_path, 5)
    assert [row[0] for row in rows(tmp_path)] == [1, 2, 3, 4, 5]
    for rank in range(2):
        write(tmp_path, 5, rank, range(6, 8))
    assert [row[0] for row in rows(tmp_path)] == [1, 2, 3, 4, 5, 6, 6, 7, 7]


def test_a_record_that_a_crash_cut_short_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, 0, 0, range(1, 4))
    (path,) = (tmp_path / "ledger").iterdir()
    path.write_bytes(path.read_bytes()[:-5])
    assert [row[0] for row in rows(tmp_path)] == [1, 2]


def test_what_was_consumed_is_counted_leg_by_leg(tmp_path: Path) -> None:
    for rank in range(3):
        write(tmp_path, 0, rank, range(1, 11))
    assert consumed(tmp_path, ["a", "b"], [4, 9]) == [{"a": 0, "b": 96}, {"a": 0, "b": 120}]


@pytest.mark.parametrize("changes", [(), (CHANGE,)])
def test_the_trainer_records_each_token_that_it_reads(tmp_path: Path, changes: tuple[Mixture, ...], monkeypatch) -> None:
    """The record is held against the reads of the token files themselves."""
    job = job_in(tmp_path, mix_changes=changes)
    reads = []
    real = TokenStream.read
    monkeypatch.setattr(
        TokenStream, "read", lambda self, start, count: reads.append((len(self), start, count)) or real(self, start, count)
    )
    train(job.model_copy(update={"held_out": {}}))
    recorded = [(5000, int(row["start"]), int(row["tokens"]) + 1) for row in read(job.folder)]
    assert sorted(recorded) == sorted(reads) and sum(count - 1 for _, _, count in reads) == 8192
    code = [tokens["code"] for tokens in consumed(job.folder, list(job.data), [16, 24])]
    assert code == pytest.approx([4096 * 0.3, 4096 * (0.75 if changes else 0.3)], abs=300)


def test_a_run_stopped_twice_has_the_ledger_of_an_undisturbed_one(tmp_path: Path) -> None:
    whole, broken = (job_in(tmp_path / name, mix_changes=(CHANGE,)) for name in ("whole", "broken"))
    train(whole)
    for step in (7, 9):
        with pytest.raises(TrainingStopped):
            train(broken, stop_requested=StopAfter(step))
    train(broken)
    assert np.array_equal(read(broken.folder), read(whole.folder))
    assert len(list((Path(broken.folder) / "ledger").iterdir())) == 3


def test_steps_that_a_crash_undid_are_recorded_once(tmp_path: Path) -> None:
    whole, broken = job_in(tmp_path / "whole"), job_in(tmp_path / "broken")
    train(whole)

    def crash(row: dict[str, float]) -> None:
        if row["step"] == 13:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(broken, crash)
    assert read(broken.folder)["step"].max() == 13
    train(broken)
    assert np.array_equal(read(broken.folder), read(whole.folder))


def test_falling_back_to_an_older_checkpoint_rewinds_the_ledger_too(tmp_path: Path) -> None:
    job = job_in(tmp_path)
    train(job)
    expected = read(job.folder)
    shutil.rmtree(job.output)
    for folder in complete(job.folder)[:2]:
        damaged = next(folder.glob("*.distcp"))
        damaged.write_bytes(damaged.read_bytes()[:-100] + bytes(100))
    train(job)
    assert np.array_equal(read(job.folder), expected)


def test_a_checkpoint_finds_its_steps_on_disk(tmp_path: Path) -> None:
    job = job_in(tmp_path)

    def crash(row: dict[str, float]) -> None:
        if row["step"] == 13:
            (newest, *_) = complete(job.folder)
            newest_step = int(newest.name.removeprefix("step-"))
            assert set(read(job.folder)["step"]) >= set(range(1, newest_step + 1))  # while the run's files are still open
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(job, crash)


def test_an_exported_model_knows_all_that_it_was_trained_on(tmp_path: Path) -> None:
    base = job_in(tmp_path / "base", total_tokens=512, mix_changes=(CHANGE,))
    train(base)
    job = job_in(tmp_path / "anneal", init_from=base.output, schedule="linear_to_zero", total_tokens=512, seed=8)
    train(job)
    plans = read_plans(job.output)
    assert [plan.phase for plan in plans] == ["pre-training", "annealing"]
    assert plans == read_plans(job.folder) and plans[0] == read_plans(base.output)[0]
    assert plans[0] == DataPlan.of(base, base.fingerprint) and plans[0].mixtures[1] == CHANGE


def test_a_plan_reads_what_the_run_read(tmp_path: Path) -> None:
    job = job_in(tmp_path, mix_changes=(CHANGE,))
    train(job)
    (plan,) = read_plans(job.folder)
    order, step = plan.order(), plan.step_at(6000)
    assert step is not None
    pieces = [order.piece(position, step.seq_len) for position in range(step.start, step.end, step.seq_len)]
    domains = sorted(job.data)
    expected = {(domains[row["domain"]], row["start"], row["tokens"]) for row in read(job.folder, step.index + 1, step.index + 1)}
    assert expected == set(pieces)


def test_other_token_files_are_another_stream() -> None:
    same = Stream.of([("a.bin", 5), ("empty.bin", 0), ("b.bin", 6)])
    assert same == Stream.of([("a.bin", 5), ("b.bin", 6)]) != Stream.of([("a.bin", 6), ("b.bin", 5)])


def test_rewinding_to_the_beginning_leaves_nothing(tmp_path: Path) -> None:
    write(tmp_path, 0, 0, range(1, 4))
    rewind(tmp_path, 0)
    assert not list((tmp_path / "ledger").iterdir()) and module.exists(tmp_path)
