"""The Dagster UI of a home, by the requests that its buttons send, and what may happen to a run of it."""

from __future__ import annotations

import signal

from l3_platform.orchestration.services import free_port
from tests.end_to_end.conftest import World, graphql, wait_for

LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchPipelineExecution(executionParams: $params) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } }
}"""
TERMINATE = """
mutation Terminate($run: String!) { terminateRun(runId: $run) { __typename } }"""
STATUS = "query Status($run: ID!) { runOrError(runId: $run) { ... on Run { status } } }"


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
