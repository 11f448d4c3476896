"""Kill anything during training: no trainer outlives it, the next run resumes, and the loss is that of an undisturbed run."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
from collections.abc import Callable, Mapping

import pytest

from tests.end_to_end.buttons import Web, kill_run_worker, kill_step_process, terminate
from tests.end_to_end.conftest import World, as_if_nothing_had_happened, in_training, newest_checkpoint, resumes, wait_for


@pytest.mark.slow
def test_a_training_without_a_server_at_hand_starts_one_and_is_logged_there(undisturbed):
    with contextlib.closing(sqlite3.connect(undisturbed.home / "mlflow" / "mlflow.db")) as database:
        runs = database.execute("SELECT name, status FROM runs").fetchall()
        metrics = {key for (key,) in database.execute("SELECT DISTINCT key FROM metrics")}
    assert {("isoflop_runs", "FINISHED"), ("pretrained", "FINISHED")} <= set(runs)
    assert {"loss", "effective_training_time", "peak_memory_bytes"} <= {name.rsplit("/", 1)[-1] for name in metrics}


@pytest.mark.slow
def test_a_killed_rank_and_then_a_killed_agent_are_survived_within_the_run(world, undisturbed):
    run = world.start("run", "--select", "pretrained")
    (rank, _) = in_training(world)
    rank.kill()
    wait_for(lambda: rank.pid not in {process.pid for process in world.ranks()}, 15, "the rank to end")
    in_training(world, after=newest_checkpoint(world))
    world.agents()[0].kill()
    assert run.wait(120) == 0
    assert as_if_nothing_had_happened(world, undisturbed)
    told = world.time_of("pretrained")
    assert [row["attempt"] for row in told["interruptions"]] == [1, 2]
    assert 0 < told["share"] < undisturbed.time_of("pretrained")["share"]
    assert "interruptions" in world.l3("report").stdout


@pytest.mark.slow
def test_a_stopped_l3_leaves_no_process_and_the_next_resumes(world, undisturbed):
    reached = ""
    for number in (signal.SIGKILL, signal.SIGINT):
        run = world.start("run", "--select", "pretrained")
        in_training(world, after=reached)
        run.send_signal(number)
        assert run.wait(40) != 0
        wait_for(lambda: not world.processes(), 15, "every process of the home to end")
        reached = newest_checkpoint(world)
    assert resumes(world)
    assert as_if_nothing_had_happened(world, undisturbed)
    assert [row["cause"] for row in world.time_of("pretrained")["interruptions"]] == ["unknown", "user's request"]


@pytest.mark.slow
def test_whatever_ends_a_run_of_the_ui_leaves_no_trainer_and_the_next_one_resumes(world, undisturbed):
    _resumes_whatever_ended_it(world, undisturbed, {terminate: "CANCELED", kill_run_worker: "FAILURE"})


@pytest.mark.exhaustive
def test_a_killed_step_of_the_ui_leaves_no_trainer_and_the_next_one_resumes(world, undisturbed):
    _resumes_whatever_ended_it(world, undisturbed, {kill_step_process: "FAILURE"})


def _resumes_whatever_ended_it(world: World, undisturbed: World, ends: Mapping[Callable[[Web, str], None], str]) -> None:
    web = Web(world)
    reached = ""
    for end, status in ends.items():
        run = web.materialize("pretrained")
        in_training(world, after=reached)
        end(web, run)
        wait_for(lambda: not world.ranks(), 15, f"the trainers to end after {end.__name__}")
        reached = newest_checkpoint(world)
        wait_for(lambda run=run, status=status: web.status(run) == status, 90, f"the run to be {status} after {end.__name__}")
    web.stop()
    assert resumes(world)
    assert as_if_nothing_had_happened(world, undisturbed)
