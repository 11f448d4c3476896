"""Kill anything during training: no trainer outlives it, the next run resumes, and the loss is that of an undisturbed run."""

from __future__ import annotations

import contextlib
import signal
import sqlite3

import psutil
import pytest

from l3_platform.orchestration.services import free_port
from tests.end_to_end.conftest import World, graphql, wait_for

pytestmark = pytest.mark.slow

LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchPipelineExecution(executionParams: $params) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } }
}"""
TERMINATE = """
mutation Terminate($run: String!) { terminateRun(runId: $run) { __typename } }"""
STATUS = "query Status($run: ID!) { runOrError(runId: $run) { ... on Run { status } } }"


def in_training(world: World, after: str = "") -> list[psutil.Process]:
    """Both ranks, once a checkpoint newer than `after` exists: a kill then loses work, and a resume has something to find."""
    wait_for(lambda: newest_checkpoint(world) > after, 120, f"a checkpoint after {after or 'the start'}")
    return wait_for(lambda: ranks if len(ranks := world.ranks()) == 2 else None, 60, "two ranks")


def newest_checkpoint(world: World) -> str:
    return max((path.parent.name for path in world.checkpoints()), default="")


def as_if_nothing_had_happened(world: World, undisturbed: World) -> bool:
    """The same metrics and the same bytes: the manifest lists the digest of the shard, which lists those of the model."""
    return world.dataset("pretrained") == undisturbed.dataset("pretrained")


def resumes(world: World) -> bool:
    """The next run goes on from a checkpoint, to the end."""
    before = len(world.checkpoints())
    done = world.l3("run", "--select", "pretrained")
    assert done.returncode == 0, done.stdout + done.stderr
    return before > 0


def test_a_training_without_a_server_at_hand_starts_one_and_is_logged_there(undisturbed):
    with contextlib.closing(sqlite3.connect(undisturbed.home / "mlflow" / "mlflow.db")) as database:
        runs = database.execute("SELECT name, status FROM runs").fetchall()
        metrics = {key for (key,) in database.execute("SELECT DISTINCT key FROM metrics")}
    assert {("isoflop_runs", "FINISHED"), ("pretrained", "FINISHED")} <= set(runs)
    assert {"loss", "effective_training_time", "peak_memory_bytes"} <= {name.rsplit("/", 1)[-1] for name in metrics}


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


class Web:
    """`l3 up` on a home, and what its buttons do."""

    def __init__(self, world: World) -> None:
        self.world, self.port = world, free_port()
        self.process = world.start("up", "--port", str(self.port), "--mlflow-port", str(free_port()))
        self.url = f"http://127.0.0.1:{self.port}"
        log = world.home / "up.log"
        wait_for(lambda: "Ctrl-C ends both" in log.read_text(), 180, "both servers", log)

    def materialize(self, asset: str) -> str:
        selector = {"repositoryName": "__repository__", "repositoryLocationName": "l3", "jobName": "rebuild"}
        selector["assetSelection"] = [{"path": [asset]}]
        answer = graphql(self.url, LAUNCH, params={"selector": selector, "mode": "default", "runConfigData": {}})
        return answer["launchPipelineExecution"]["run"]["runId"]

    def status(self, run: str) -> str:
        return graphql(self.url, STATUS, run=run)["runOrError"]["status"]

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(40) == 0
        assert not self.world.processes()


def terminate(web: Web, run: str) -> None:
    graphql(web.url, TERMINATE, run=run)


def kill_step_process(web: Web, run: str) -> None:
    web.world.agents()[0].parents()[0].kill()


def kill_run_worker(web: Web, run: str) -> None:
    above = web.world.agents()[0].parents()
    code_server = next(process for process in above if "grpc" in process.cmdline())
    (worker,) = [process for process in above if process.ppid() == code_server.pid]
    worker.kill()


def test_whatever_ends_a_run_of_the_ui_leaves_no_trainer_and_the_next_one_resumes(world, undisturbed):
    web = Web(world)
    reached = ""
    for end, status in ((terminate, "CANCELED"), (kill_step_process, "FAILURE"), (kill_run_worker, "FAILURE")):
        run = web.materialize("pretrained")
        in_training(world, after=reached)
        end(web, run)
        wait_for(lambda: not world.ranks(), 15, f"the trainers to end after {end.__name__}")
        reached = newest_checkpoint(world)
        wait_for(lambda run=run, status=status: web.status(run) == status, 90, f"the run to be {status} after {end.__name__}")
    web.stop()
    assert resumes(world)
    assert as_if_nothing_had_happened(world, undisturbed)
