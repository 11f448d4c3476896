"""Training over two nodes of a real Slurm: whatever is lost, it ends with the loss of an undisturbed run, to the last bit."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from l3_platform.launch import run_training
from l3_platform.launch.protocol import job_name
from l3_platform.settings import Slurm, Train
from l3_platform.train import TrainingStopped, TrainJob, TrainResult
from tests.launch.slurm_cluster import SlurmCluster, run, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(SlurmCluster.missing()), reason=SlurmCluster.missing())]

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
    one = SlurmCluster(tmp_path_factory.mktemp("slurm"))
    try:
        one.start()
        yield one
    finally:
        one.stop()


@pytest.fixture
def on_slurm(settings: Train, cluster: SlurmCluster) -> Train:
    return settings.model_copy(update={"launcher": "slurm"})


class Once:
    """Keeps the lines of a job, and acts once at step 50."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.lines: list[str] = []
        self._act: Callable[[], object] | None = act

    def __call__(self, line: str) -> None:
        self.lines.append(line)
        if step_of(line) >= 50 and self._act:
            act, self._act = self._act, None
            act()

    def said(self, words: str) -> bool:
        return any(words in line for line in self.lines)


def step_of(line: str) -> int:
    return int(line.split()[1].replace(",", "")) if line.startswith("step ") else 0


def slurm_id(folder: Path) -> str:
    """Of the job of a test, while it waits or runs."""
    return run("squeue", "--noheader", "--format=%i", "--name", job_name(folder / "run"))


def test_a_killed_rank_is_relaunched_within_the_allocation(
    make_job: MakeJob, undisturbed: TrainResult, tmp_path: Path, on_slurm: Train, processes: Processes, losses: Losses
) -> None:
    log = Once(lambda: processes(tmp_path, RANK)[-1].kill())
    assert run_training(make_job(tmp_path), on_slurm, SLURM, on_line=log) == undisturbed
    assert log.said("relaunching from step-") and not log.said("PENDING: BeginTime")
    assert processes(tmp_path) == [] and slurm_id(tmp_path) == ""
    assert sorted(losses(tmp_path)) == list(range(1, 301))


def test_a_lost_node_means_a_requeue_that_resumes(
    make_job: MakeJob, undisturbed: TrainResult, tmp_path: Path, on_slurm: Train, cluster: SlurmCluster, losses: Losses
) -> None:
    lines_before: list[int] = []

    def power_cut() -> None:
        cluster.kill_node("node2")
        lines_before.append(len(log.lines))

    log = Once(power_cut)

    def back_once_slurm_has_noticed() -> bool:
        if lines_before and any("PENDING" in line for line in log.lines[lines_before[0] :]):
            lines_before.clear()
            cluster.start_node("node2")
        return False

    assert run_training(make_job(tmp_path), on_slurm, SLURM, on_line=log, should_stop=back_once_slurm_has_noticed) == undisturbed
    assert len({line for line in log.lines if line.startswith("submitted")}) == 1, "Slurm requeued; nobody submitted again"
    assert sorted(losses(tmp_path)) == list(range(1, 301))


def test_a_sigterm_by_slurm_saves_and_goes_back_into_the_queue(
    make_job: MakeJob, undisturbed: TrainResult, tmp_path: Path, on_slurm: Train
) -> None:
    """As `--signal=B:TERM@N` does N seconds before the time limit."""
    log = Once(lambda: run("scancel", "--batch", "--signal=TERM", slurm_id(tmp_path)))
    assert run_training(make_job(tmp_path), on_slurm, SLURM, on_line=log) == undisturbed
    attempts = sorted((tmp_path / "run" / "logs").glob("attempt-*/rank-00000.log"))
    steps = [step for path in attempts for step in map(step_of, path.read_text().splitlines()) if step]
    assert log.said("back in the queue") and len(attempts) == 2
    assert steps == list(range(1, 301)), "it saved where it stopped: no step was lost or made twice"


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
    log = Once(lambda: trainers.intersection_update(processes(tmp_path, RANK)))
    assert run_training(make_job(tmp_path), on_slurm, SLURM, on_line=log) == undisturbed
    assert log.said("found Slurm job") and not log.said("submitted") and len(trainers) == 2
    assert len(list((tmp_path / "run" / "logs").glob("attempt-*"))) == 1


def test_an_interrupt_cancels_the_job_after_a_checkpoint_of_the_step(
    make_job: MakeJob, undisturbed: TrainResult, tmp_path: Path, on_slurm: Train, processes: Processes, losses: Losses
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_training(make_job(tmp_path), on_slurm, SLURM, on_line=Once(interrupt))
    assert processes(tmp_path) == [] and slurm_id(tmp_path) == ""
    newest = max(int(path.name[5:]) for path in (tmp_path / "run").glob("step-*[0-9]"))
    assert newest == max(losses(tmp_path)) >= 50


def test_a_job_cancelled_in_slurm_stops_in_words(make_job: MakeJob, tmp_path: Path, on_slurm: Train, processes: Processes) -> None:
    log = Once(lambda: run("scancel", slurm_id(tmp_path)))
    with pytest.raises(TrainingStopped, match="again to resume"):
        run_training(make_job(tmp_path), on_slurm, SLURM, on_line=log)
    wait_for(lambda: not processes(tmp_path), 10, "all trainers to end")
