"""Training over hosts, in namespaces of their own and behind ssh; a cable is cut in tests/end_to_end/test_hosts.py."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from l3_platform.launch import launcher_for, run_training
from l3_platform.launch.causes import Cause
from l3_platform.launch.interruptions import read_interruptions
from l3_platform.settings import Hosts, SettingsError, Train
from l3_platform.train import TrainingError, TrainJob
from tests.launch.ssh_server import SshServer
from tests.launch.two_hosts import TwoHosts

needs_root = pytest.mark.skipif(bool(TwoHosts.missing()), reason=TwoHosts.missing())
MakeJob = Callable[[Path], TrainJob]
Processes = Callable[..., list[psutil.Process]]

CLIENT = """
import sys
from l3_platform.launch import run_training
from l3_platform.settings import Hosts, Train
from l3_platform.train import TrainJob
job, train, hosts = sys.argv[1:]
train, hosts = Train.model_validate_json(train), Hosts.model_validate_json(hosts)
run_training(TrainJob.read(job), train, hosts, on_line=lambda line: print(line, flush=True))
"""


@pytest.fixture
def hosts() -> Iterator[TwoHosts]:
    with TwoHosts() as both:
        yield both


@pytest.fixture
def on_hosts(settings: Train) -> Train:
    return settings.model_copy(update={"launcher": "hosts"})


@contextmanager
def client_of(job: TrainJob, train: Train, hosts: Hosts) -> Iterator[subprocess.Popen[str]]:
    """`run_training` in a process of its own, that is to end in the block."""
    path = Path(job.folder).with_name("job.json")
    job.write(path)
    arguments = [str(path), train.model_dump_json(), hosts.model_dump_json()]
    with subprocess.Popen([sys.executable, "-c", CLIENT, *arguments], stdout=subprocess.PIPE, text=True) as client:
        yield client


def gone_within(seconds: float, processes: Processes, folder: Path) -> bool:
    deadline = time.monotonic() + seconds
    while processes(folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not processes(folder)


def step_of(line: str) -> int:
    return int(line.split()[1].replace(",", "")) if line.startswith("step ") else 0


@pytest.mark.exhaustive
@needs_root
def test_a_killed_client_takes_the_trainers_of_all_hosts_with_it(
    make_job: MakeJob, tmp_path: Path, on_hosts: Train, hosts: TwoHosts, processes: Processes
) -> None:
    with client_of(make_job(tmp_path), on_hosts, hosts.settings) as client:
        assert client.stdout is not None
        next(line for line in client.stdout if step_of(line) >= 50)
        running = [str(process.pid) for process in processes(tmp_path)]
        inside = {subprocess.check_output(["ip", "netns", "identify", pid], text=True).strip() for pid in running}
        assert inside == set(hosts.names) and len(running) == 4
        client.send_signal(signal.SIGKILL)
    assert gone_within(15, processes, tmp_path)


@pytest.mark.exhaustive
@pytest.mark.skipif(bool(SshServer.missing()), reason=SshServer.missing())
def test_ssh_survives_a_killed_rank_and_a_killed_client_takes_all_with_it(
    make_job: MakeJob, tmp_path: Path, on_hosts: Train, processes: Processes
) -> None:
    """Behind ssh the client sees no process but ssh itself."""
    with SshServer(tmp_path) as server:
        hosts = Hosts(names=("127.0.0.1", "localhost"), command=server.command, interface="lo", port=29488)
        with client_of(make_job(tmp_path), on_hosts, hosts) as client:
            assert client.stdout is not None
            next(line for line in client.stdout if step_of(line) >= 50)
            processes(tmp_path, "l3_platform.train")[-1].kill()
            next(line for line in client.stdout if "relaunching from step-" in line)
            next(line for line in client.stdout if step_of(line) >= 60)
            assert len(processes(tmp_path, "l3_platform.train")) == 2
            client.send_signal(signal.SIGKILL)
        assert gone_within(15, processes, tmp_path)


def test_an_agent_ends_once_its_client_is_silent_and_not_before() -> None:
    code = "from l3_platform.launch.agent import _watch; _watch(0, 1.0, 5.0)"
    agent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)
    assert agent.stdin is not None and agent.stderr is not None
    for _ in range(10):
        agent.stdin.write(b".")
        time.sleep(0.2)
    assert agent.poll() is None
    assert agent.wait(20) == -signal.SIGTERM and b"or is gone" in agent.stderr.read()


def test_a_command_that_runs_nothing_is_refused_in_words(on_hosts: Train) -> None:
    with pytest.raises(SettingsError, match=r"hosts.command: 'ssh \{host\}' has no word \{command\}"):
        launcher_for(on_hosts, Hosts(names=("a", "b"), command="ssh {host}"))


def test_too_few_hosts_are_refused_in_words(on_hosts: Train) -> None:
    with pytest.raises(SettingsError, match=r"hosts.names: 1 hosts for train.nodes=2"):
        launcher_for(on_hosts, Hosts(names=("alone",)))


def test_ssh_gets_one_line_of_shell_that_means_the_same_there(tmp_path: Path) -> None:
    from l3_platform.launch.places import on_hosts

    job_file = tmp_path / "a folder's job.json"
    hosts = Hosts(names=("far-1", "far-2"), command="ssh -o BatchMode=yes l3@{host} {command}", interface="ib0")
    start = on_hosts(hosts, 2)(Train(nodes=2, processes_per_node=8), job_file, tmp_path)[1]
    assert start.command[:2] == ["ssh", "-o"] and start.command[-2] == "l3@far-2"
    # As sshd does: the line goes to a shell, which here prints what it would run.
    line = start.command[-1].replace("exec env", "printf '%s\\n'", 1)
    words = subprocess.check_output(["sh", "-c", line], text=True).splitlines()
    assert {"L3_NODE=1", "L3_INTERFACE=ib0", "L3_LIFELINE=120.0"} <= set(words)
    assert words[words.index("--rdzv-endpoint") + 1] == "far-1:29400" and words[-1] == str(job_file)


SSH_SAYS = {
    "a": "ssh: Could not resolve hostname a: Name or service not known",
    "b": "ssh: connect to host b port 22: Connection refused",
}


@pytest.mark.parametrize(("name", "cause", "attempts"), [("a", Cause.DEPENDENCY, 1), ("b", Cause.NETWORK, 2)])
def test_a_host_to_which_ssh_would_never_come_is_not_tried_again(
    make_job: MakeJob, tmp_path: Path, on_hosts: Train, name: str, cause: Cause, attempts: int
) -> None:
    ssh = tmp_path / "ssh"
    ssh.write_text(f"#!/bin/sh\necho '{SSH_SAYS[name]}' >&2\nexit 255\n")
    ssh.chmod(0o755)
    job, once = make_job(tmp_path), on_hosts.model_copy(update={"nodes": 1, "max_restarts": 1})
    with pytest.raises(TrainingError, match=SSH_SAYS[name]):
        run_training(job, once, Hosts(names=(name,), command=f"{ssh} {{host}} {{command}}"))
    rows = read_interruptions(job.folder)
    assert [(row.cause, row.evidence) for row in rows] == [(cause, f"agent-00000.log: {SSH_SAYS[name]}")] * attempts
