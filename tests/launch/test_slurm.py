"""Training over two nodes of a real Slurm ends with the loss of an undisturbed run; a node is lost in tests/end_to_end."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from l3_platform.launch import run_training
from l3_platform.launch.causes import Cause
from l3_platform.launch.effective_time import effective_time
from l3_platform.launch.interruptions import read_interruptions
from l3_platform.launch.protocol import job_name
from l3_platform.settings import Slurm, Train
from l3_platform.train import TrainingStopped, TrainJob, TrainResult
from tests.launch.slurm_cluster import SlurmCluster, run, wait_for

pytestmark = [pytest.mark.exhaustive, pytest.mark.skipif(bool(SlurmCluster.missing()), reason=SlurmCluster.missing())]

AGENT, RANK = "l3_platform.launch.agent", "l3_platform.train"
# Both nodes are this machine, so collectives stay on the loopback.
SLURM = Slurm(poll_seconds=0.5, setup=("export GLOO_SOCKET_IFNAME=lo",))
MakeJob = Callable[[Path], TrainJob]
Processes = Callable[..., list[psutil.Process]]
Losses = Callable[[Path], dict[int, float]]

CLIENT = """
import sys
from l3_platform.launch import run_training
from l3_platform.settings import Slurm, Train
from l3_platform.train import TrainJob
job, train, slurm = sys.argv[1:]
train, slurm = Train.model_validate_json(train), Slurm.model_validate_json(slurm)
run_training(TrainJob.read(job), train, slurm, on_line=lambda line: print(line, flush=True))
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    with SlurmCluster(tmp_path_factory.mktemp("slurm")) as one:
        yield one


@pytest.fixture
def on_slurm(settings: Train, cluster: SlurmCluster) -> Train:
    return settings.model_copy(update={"launcher": "slurm"})


class At:
    """Keeps the lines of a job, and acts once from each of these steps on."""

    def __init__(self, acts: dict[int, Callable[[], object]]) -> None:
        self.lines: list[str] = []
        self._acts = acts

    def __call__(self, line: str) -> None:
        self.lines.append(line)
        if self._acts and step_of(line) >= (first := min(self._acts)):
            self._acts.pop(first)()

    def said(self, words: str) -> bool:
        return any(words in line for line in self.lines)


def step_of(line: str) -> int:
    return int(line.split()[1].replace(",", "")) if line.startswith("step ") else 0


def slurm_id(folder: Path) -> str:
    """Of the job of a test, while it waits or runs."""
    return run("squeue", "--noheader", "--format=%i", "--name", job_name(folder / "run"))


def test_a_killed_rank_is_relaunched_in_place_and_a_sigterm_by_slurm_saves_and_goes_back_into_the_queue(
    make_job: MakeJob, undisturbed: TrainResult, tmp_path: Path, on_slurm: Train, processes: Processes, losses: Losses
) -> None:
    """SIGTERM as `--signal=B:TERM@N` sends it N seconds before the time limit."""
    log = At({50: lambda: processes(tmp_path, RANK)[-1].kill(), 150: lambda: terminate(tmp_path)})
    assert run_training(make_job(tmp_path), on_slurm, SLURM, on_line=log) == undisturbed
    assert log.said("relaunching from step-") and log.said("back in the queue")
    assert processes(tmp_path) == [] and slurm_id(tmp_path) == ""
    attempts = sorted((tmp_path / "run" / "logs").glob("attempt-*/rank-00000.log"))
    of_rank, of_term, last = ([step for line in path.read_text().splitlines() if (step := step_of(line))] for path in attempts)
    assert of_rank[-1] >= of_term[0] - 1 >= 40 and of_term[-1] + 1 == last[0] > 150, "SIGTERM lost no step and repeated none"
    assert sorted(losses(tmp_path)) == list(range(1, 301))


def terminate(folder: Path) -> None:
    run("scancel", "--batch", "--signal=TERM", slurm_id(folder))


def test_the_warning_before_the_time_limit_is_booked_as_such(
    make_job: MakeJob, tmp_path: Path, on_slurm: Train, processes: Processes
) -> None:
    """The limit is lowered to less than what the warning comes early."""
    job = make_job(tmp_path).model_copy(update={"total_tokens": 100_000 * 128})
    lower: dict[int, Callable[[], object]] = {50: lambda: run("scontrol", "update", f"JobId={slurm_id(tmp_path)}", "TimeLimit=1")}
    log = At(lower)

    def until_it_waits_again(line: str) -> None:
        log(line)
        if "back in the queue" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_training(job, on_slurm, SLURM, on_line=until_it_waits_again)
    assert processes(tmp_path) == [] and slurm_id(tmp_path) == ""
    (row,) = read_interruptions(tmp_path / "run")
    assert row.cause is Cause.TIME_LIMIT and "reached its time limit, of 00:01:00" in row.evidence and row.steps_lost == 0


def test_a_preempted_job_saves_waits_and_goes_on_and_nobody_is_said_to_have_asked_for_it(
    make_job: MakeJob, undisturbed: TrainResult, tmp_path: Path, on_slurm: Train
) -> None:
    run("scontrol", "create", "PartitionName=urgent", "Nodes=ALL", "PriorityTier=10")
    urgent = ("sbatch", "--partition=urgent", "--nodes=2", "--output=/dev/null", "--wrap=sleep 3")
    log = At({50: lambda: run(*urgent)})
    assert run_training(make_job(tmp_path), on_slurm, SLURM, on_line=log) == undisturbed
    assert log.said("back in the queue")
    (row,) = read_interruptions(tmp_path / "run")
    assert row.cause is Cause.PREEMPTION and row.steps_lost == 0
    told = effective_time(tmp_path / "run")
    assert told is not None and told.parts["between attempts"] > 3.0


def test_a_lost_node_is_booked_as_such_although_the_first_node_lives(
    make_job: MakeJob, undisturbed: TrainResult, tmp_path: Path, on_slurm: Train, cluster: SlurmCluster
) -> None:
    lost: list[str] = []

    def lose() -> None:
        cluster.kill_node("node2")
        lost.append("node2")

    def start_it_again(line: str) -> None:
        log(line)
        if lost and "is PENDING" in line:
            cluster.start_node(lost.pop())

    log = At({50: lose})
    assert run_training(make_job(tmp_path), on_slurm, SLURM, on_line=start_it_again) == undisturbed
    causes = [row.cause for row in read_interruptions(tmp_path / "run")]
    assert Cause.HOST_MAINTENANCE in causes and Cause.USERS_REQUEST not in causes  # a returned slurmd may kill what it finds


def test_a_killed_client_leaves_the_job_and_the_next_client_finds_it(
    make_job: MakeJob, undisturbed: TrainResult, tmp_path: Path, on_slurm: Train, processes: Processes
) -> None:
    make_job(tmp_path).write(tmp_path / "job.json")
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT, str(tmp_path / "job.json"), on_slurm.model_dump_json(), SLURM.model_dump_json()],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert client.stdout is not None
    next(line for line in client.stdout if step_of(line) >= 50)
    client.send_signal(signal.SIGKILL)
    client.wait()
    trainers = set(processes(tmp_path, RANK))
    assert len(trainers) == 2
    log = At({50: lambda: trainers.intersection_update(processes(tmp_path, RANK))})
    assert run_training(make_job(tmp_path), on_slurm, SLURM, on_line=log) == undisturbed
    assert log.said("found Slurm job") and not log.said("submitted") and len(trainers) == 2
    assert len(list((tmp_path / "run" / "logs").glob("attempt-*"))) == 1


def test_an_interrupt_cancels_the_job_after_a_checkpoint_of_the_step(
    make_job: MakeJob, undisturbed: TrainResult, tmp_path: Path, on_slurm: Train, processes: Processes, losses: Losses
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_training(make_job(tmp_path), on_slurm, SLURM, on_line=At({50: interrupt}))
    assert processes(tmp_path) == [] and slurm_id(tmp_path) == ""
    newest = max(int(path.name[5:]) for path in (tmp_path / "run").glob("step-*[0-9]"))
    assert newest == max(losses(tmp_path)) >= 50


def test_a_job_cancelled_in_slurm_stops_in_words(make_job: MakeJob, tmp_path: Path, on_slurm: Train, processes: Processes) -> None:
    log = At({50: lambda: run("scancel", slurm_id(tmp_path))})
    with pytest.raises(TrainingStopped, match="again to resume"):
        run_training(make_job(tmp_path), on_slurm, SLURM, on_line=log)
    wait_for(lambda: not processes(tmp_path), 10, "all trainers to end")
    wait_for(lambda: [row.cause for row in read_interruptions(tmp_path / "run")] == [Cause.USERS_REQUEST], 10, "the record")
