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


def in_training(world: World) -> list[psutil.Process]:
    """Both ranks, once a checkpoint exists: a kill then loses work, and a resume has something to find."""
    wait_for(world.checkpoints, 120, "the first checkpoint")
    return wait_for(lambda: ranks if len(ranks := world.ranks()) == 2 else None, 20, "two ranks")


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


@pytest.mark.parametrize("victim", ["rank", "agent"])
def test_a_killed_trainer_process_is_survived_within_the_run(world, undisturbed, victim):
    run = world.start("run", "--select", "pretrained")
    ranks = in_training(world)
    (ranks if victim == "rank" else world.agents())[0].kill()
    assert run.wait(120) == 0
    assert as_if_nothing_had_happened(world, undisturbed)
    told = world.time_of("pretrained")
    assert [row["attempt"] for row in told["interruptions"]] == [1] and 0 < told["share"] < undisturbed.time_of("pretrained")[
        "share"
    ]
    assert "interruptions" in world.l3("report").stdout


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_l3_leaves_no_process_and_the_next_resumes(world, undisturbed, number):
    run = world.start("run", "--select", "pretrained")
    in_training(world)
    run.send_signal(number)
    assert run.wait(40) != 0
    wait_for(lambda: not world.processes(), 15, "every process of the home to end")
    assert resumes(world)
    assert as_if_nothing_had_happened(world, undisturbed)
    (row,) = world.time_of("pretrained")["interruptions"]
    assert row["cause"] == ("user's request" if number == signal.SIGINT else "unknown")


class Web:
    """`l3 up` on a home, and what its buttons do."""

    def __init__(self, world: World) -> None:
        self.world, self.port = world, free_port()
        self.process = world.start("up", "--port", str(self.port), "--mlflow-port", str(free_port()))
        self.url = f"http://127.0.0.1:{self.port}"
        log = world.home / "up.log"
        wait_for(lambda: "Ctrl-C ends both" in log.read_text(), 60, f"both servers; the log says: {log.read_text()}")

    def materialize(self, asset: str) -> str:
        selector = {"repositoryName": "__repository__", "repositoryLocationName": "l3", "jobName": "rebuild"}
        selector["assetSelection"] = [{"path": [asset]}]
        answer = graphql(self.url, LAUNCH, params={"selector": selector, "mode": "default", "runConfigData": {}})
        return answer["launchPipelineExecution"]["run"]["runId"]

    def terminate(self, run: str) -> None:
        graphql(self.url, TERMINATE, run=run)

    def status(self, run: str) -> str:
        return graphql(self.url, STATUS, run=run)["runOrError"]["status"]

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(40) == 0
        assert not self.world.processes()


def test_terminate_in_the_ui_ends_the_training(world, undisturbed):
    web = Web(world)
    run = web.materialize("pretrained")
    in_training(world)
    web.terminate(run)
    wait_for(lambda: not world.ranks(), 15, "the trainers to end")
    wait_for(lambda: web.status(run) == "CANCELED", 60, "the run to be cancelled")
    web.stop()
    assert resumes(world)
    assert as_if_nothing_had_happened(world, undisturbed)


@pytest.mark.parametrize("victim", ["step process", "run worker"])
def test_a_killed_dagster_process_leaves_no_trainer(world, undisturbed, victim):
    web = Web(world)
    run = web.materialize("pretrained")
    in_training(world)
    step, *above = world.agents()[0].parents()
    code_server = next(process for process in above if "grpc" in process.cmdline())
    (worker,) = [process for process in above if process.ppid() == code_server.pid]
    (step if victim == "step process" else worker).kill()
    wait_for(lambda: not world.ranks(), 15, "the trainers to end")
    wait_for(lambda: web.status(run) == "FAILURE", 90, "the run to fail")
    web.stop()
    assert resumes(world)
    assert as_if_nothing_had_happened(world, undisturbed)
