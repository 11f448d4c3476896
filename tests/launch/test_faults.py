"""Whatever is killed, no trainer is left alive, and the run ends with the loss of an undisturbed one, to the last bit."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from l3_platform.launch import run_training
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


@pytest.mark.parametrize("victim", [RANK, AGENT])
def test_a_killed_process_means_a_relaunch_that_ends_with_the_same_loss(
    victim: str, make_job: MakeJob, undisturbed: TrainResult, tmp_path: Path, settings: Train, processes: Processes, losses: Losses
) -> None:
    lines: list[str] = []

    def kill_once(line: str) -> None:
        lines.append(line)
        if step_of(line) >= 50 and not any("relaunching" in line for line in lines) and not killed:
            killed.append(processes(tmp_path, victim)[-1])
            killed[0].send_signal(signal.SIGKILL)

    killed: list = []
    result = run_training(make_job(tmp_path), settings, on_line=kill_once)
    assert any("relaunching from step-" in line for line in lines)
    assert result == undisturbed and processes(tmp_path) == []
    assert sorted(losses(tmp_path)) == list(range(1, 301))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_client_that_is_killed_takes_all_trainers_with_it_and_the_next_one_resumes(
    number: signal.Signals,
    make_job: MakeJob,
    undisturbed: TrainResult,
    tmp_path: Path,
    settings: Train,
    processes: Processes,
    losses: Losses,
) -> None:
    make_job(tmp_path).write(tmp_path / "job.json")
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT, str(tmp_path / "job.json"), settings.model_dump_json()],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert client.stdout is not None
    next(line for line in client.stdout if step_of(line) >= 50)
    assert len(processes(tmp_path, AGENT)) == 2 and len(processes(tmp_path, RANK)) == 2
    client.send_signal(number)
    client.wait()
    assert seconds_until_gone(processes, tmp_path) < 15
    steps: list[int] = []
    assert run_training(make_job(tmp_path), settings, on_line=lambda line: steps.append(step_of(line))) == undisturbed
    assert next(step for step in steps if step) > 40
    assert sorted(losses(tmp_path)) == list(range(1, 301))


def test_an_interrupt_ends_all_trainers_after_a_checkpoint_of_the_step(
    make_job: MakeJob, undisturbed: TrainResult, tmp_path: Path, settings: Train, processes: Processes, losses: Losses
) -> None:
    reached: list[int] = []

    def interrupt(line: str) -> None:
        reached.append(step_of(line))
        if reached[-1] >= 50:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_training(make_job(tmp_path), settings, on_line=interrupt)
    assert processes(tmp_path) == []
    newest = max(int(path.name[5:]) for path in (tmp_path / "run").glob("step-*[0-9]"))
    assert newest == max(losses(tmp_path)) >= max(reached)
    assert run_training(make_job(tmp_path), settings) == undisturbed


def test_should_stop_stops_training_and_says_how_to_go_on(
    make_job: MakeJob, tmp_path: Path, settings: Train, processes: Processes
) -> None:
    seen: list[int] = []
    with pytest.raises(TrainingStopped, match="run again to resume"):
        run_training(make_job(tmp_path), settings, on_line=lambda line: seen.append(step_of(line)), should_stop=lambda: bool(seen))
    assert processes(tmp_path) == []


def test_a_run_stopped_on_one_process_goes_on_on_two(
    make_job: MakeJob, undisturbed: TrainResult, tmp_path: Path, settings: Train
) -> None:
    seen: list[int] = []
    alone = settings.model_copy(update={"nodes": 1})
    with pytest.raises(TrainingStopped):
        run_training(
            make_job(tmp_path),
            alone,
            on_line=lambda line: seen.append(step_of(line)),
            should_stop=lambda: max(seen, default=0) > 50,
        )
    result = run_training(make_job(tmp_path), settings)
    assert result.tokens == undisturbed.tokens and result.loss == pytest.approx(undisturbed.loss, abs=1e-3)


def seconds_until_gone(processes: Processes, folder: Path) -> float:
    began = time.monotonic()
    while processes(folder) and time.monotonic() - began < 30:
        time.sleep(0.1)
    return time.monotonic() - began
