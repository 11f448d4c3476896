"""Whatever ends a training, no trainer is left alive, and the run ends with the loss of an undisturbed one, to the last bit."""

import contextlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from l3_platform.launch import run_training
from l3_platform.launch.causes import Cause
from l3_platform.launch.effective_time import STEPS, effective_time
from l3_platform.launch.interruptions import read_attempts, read_interruptions
from l3_platform.settings import Train
from l3_platform.train import TrainingStopped, TrainJob, TrainResult

pytestmark = pytest.mark.slow

AGENT, RANK = "l3_platform.launch.agent", "l3_platform.train"
MakeJob = Callable[[Path], TrainJob]
Processes = Callable[..., list[psutil.Process]]
Losses = Callable[[Path], dict[int, float]]

CLIENT = """
import sys
from l3_platform.launch import run_training
from l3_platform.settings import Train
from l3_platform.train import TrainJob
run_training(TrainJob.read(sys.argv[1]), Train.model_validate_json(sys.argv[2]), on_line=lambda line: print(line, flush=True))
"""


def step_of(line: str) -> int:
    return int(line.split()[1].replace(",", "")) if line.startswith("step ") else 0


@dataclass
class Disturbed:
    """A run of 300 steps to which things happen one after the other, each from a later step on."""

    folder: Path
    make_job: MakeJob
    settings: Train
    processes: Processes
    result: TrainResult | None = None
    lines: list[str] = field(default_factory=list)
    left: list[int] = field(default_factory=list)  # processes that were still there once a client had ended

    def client_dies_of(self, number: signal.Signals, at: int) -> float:
        """A client in a process of its own gets the signal; seconds until the last of its trainers was gone."""
        self.make_job(self.folder).write(self.folder / "job.json")
        command = [sys.executable, "-c", CLIENT, str(self.folder / "job.json"), self.settings.model_dump_json()]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
            assert client.stdout is not None
            next(line for line in client.stdout if step_of(line) >= at)
            assert len(self.processes(self.folder, AGENT)) == 2 and len(self.processes(self.folder, RANK)) == 2
            client.send_signal(number)
        began = time.monotonic()
        while self.processes(self.folder) and time.monotonic() - began < 30:
            time.sleep(0.1)
        return time.monotonic() - began

    def goes_on(self, until: Callable[[int], object] | None = None, should_stop: Callable[[], bool] | None = None) -> None:
        """The next client, here; `until` sees each step that is reported."""

        def note(line: str) -> None:
            self.lines.append(line)
            if until and step_of(line):
                until(step_of(line))

        try:
            self.result = run_training(self.make_job(self.folder), self.settings, on_line=note, should_stop=should_stop)
        finally:
            self.left.append(len(self.processes(self.folder)))

    def newest_checkpoint(self) -> int:
        return max(int(path.name[5:]) for path in (self.folder / "run").glob("step-*[0-9]"))

    @property
    def steps(self) -> list[int]:
        return [step for line in self.lines if (step := step_of(line))]


@pytest.fixture(scope="module")
def killed(
    make_job: MakeJob, settings: Train, processes: Processes, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Disturbed, float]:
    """SIGKILL for the client; then for a rank and for an agent of the next one, which goes on to the end."""
    run = Disturbed(tmp_path_factory.mktemp("killed"), make_job, settings, processes)
    gone = run.client_dies_of(signal.SIGKILL, at=50)
    victims = [(120, RANK), (200, AGENT)]

    def kill(step: int) -> None:
        if victims and step >= victims[0][0]:
            processes(run.folder, victims.pop(0)[1])[-1].send_signal(signal.SIGKILL)

    run.goes_on(kill)
    assert not victims
    return run, gone


def test_a_killed_client_takes_all_trainers_with_it_and_the_next_one_resumes(killed: tuple[Disturbed, float]) -> None:
    run, gone = killed
    assert gone < 15 and run.steps[0] > 40


def test_a_killed_rank_and_a_killed_agent_mean_relaunches_that_end_with_the_same_loss(
    killed: tuple[Disturbed, float], undisturbed: TrainResult, losses: Losses
) -> None:
    run, _ = killed
    relaunched = [int(step) for line in run.lines for step in re.findall(r"relaunching from step-0*(\d+)", line)]
    assert len(relaunched) == 2 and relaunched[0] >= 100 and relaunched[1] >= 180
    assert run.result == undisturbed and run.left == [0]
    assert sorted(losses(run.folder)) == list(range(1, 301))


def test_each_is_an_interruption_with_its_cause_and_the_time_it_cost_is_told(killed: tuple[Disturbed, float]) -> None:
    folder = killed[0].folder / "run"
    of_client, of_rank, of_agent = read_interruptions(folder)
    assert "ended without a word" in of_client.evidence and of_client.cause is Cause.UNKNOWN
    assert "exitcode: -9" in of_rank.evidence and of_rank.cause is Cause.UNKNOWN and of_agent.cause is Cause.UNKNOWN
    assert of_rank.restarted is not None and 100 <= of_rank.checkpoint <= of_rank.step
    told, attempts = effective_time(folder), read_attempts(folder)
    assert told is not None and told.attempts == 4 and [row.attempt for row in told.interruptions] == [1, 2, 3]
    assert told.wall_seconds == pytest.approx(sum(told.parts.values()), abs=0.01)
    assert attempts[-1].ended is not None
    assert told.wall_seconds == pytest.approx((attempts[-1].ended - attempts[0].started).total_seconds(), abs=0.5)
    assert 0.0 < told.share < 1.0 and told.parts[STEPS] > 0.0


def test_whoever_asks_for_a_stop_gets_a_checkpoint_of_the_step_and_the_rest_comes_out_the_same(
    make_job: MakeJob,
    settings: Train,
    processes: Processes,
    undisturbed: TrainResult,
    tmp_path: Path,
    losses: Losses,
) -> None:
    run = Disturbed(tmp_path, make_job, settings, processes)
    assert run.client_dies_of(signal.SIGTERM, at=50) < 15
    assert run.newest_checkpoint() == max(losses(tmp_path)) >= 50

    def interrupt(step: int) -> None:
        if step >= 120:
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        run.goes_on(interrupt)
    assert run.newest_checkpoint() == max(losses(tmp_path)) >= max(run.steps) >= 120
    with pytest.raises(TrainingStopped, match="run again to resume"):
        run.goes_on(should_stop=lambda: max(run.steps) >= 200)
    run.goes_on()
    assert run.result == undisturbed and run.left == [0, 0, 0]
    assert run.steps == sorted(set(run.steps)), "no step was made twice"
    assert sorted(losses(tmp_path)) == list(range(1, 301))
